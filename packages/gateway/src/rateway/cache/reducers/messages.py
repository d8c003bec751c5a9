"""Messages: a bounded ring per channel (off by default), and what every message changes in its channel and author.

https://docs.discord.com/developers/events/gateway-events#messages
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from rateway.cache.kinds import MESSAGES, Kind
from rateway.cache.reader import DIRECT, join_raws, key8
from rateway.cache.storage import Table
from rateway.cache.writer import CacheWriter
from rateway.native.objects.decoders import Message, carrying, id_of, message
from rateway.native.objects.fields import (
    FALSE,
    MOST_ID,
    NULL,
    UNREADABLE,
    Fields,
    Snowflake,
    Unreadable,
    fields,
    fields_inside,
    integer,
    join,
    needed_id,
    objects_inside,
    raws,
    raws_inside,
    snowflake,
    text,
    without,
)

__all__ = [
    "message_create", "message_delete", "message_delete_bulk", "message_update", "poll_vote_add", "poll_vote_remove",
    "reaction_add", "reaction_remove", "reactions_clear", "reactions_clear_emoji",
]  # fmt: skip

# https://docs.discord.com/developers/resources/message#message-object-message-flags
EPHEMERAL = 1 << 6
# Direct message and group (https://docs.discord.com/developers/resources/channel#channel-object-channel-types).
DIRECT_TYPES = (1, 3)


_TRUE = msgspec.Raw(b"true")
_EMPTY = (msgspec.Raw(b'""'), msgspec.Raw(b"[]"))


class _Placed(msgspec.Struct, gc=False):
    id: Snowflake
    channel_id: Snowflake


_placed = msgspec.json.Decoder(_Placed, strict=False).decode


def message_create(writer: CacheWriter, d: bytes) -> None:
    """Its channel's newest message, its thread's counters, its author; the message itself when messages are kept."""
    if not writer.takes_authors and "messages" not in writer.kept:
        brief = _placed(d)
        if brief.id > MOST_ID:
            raise Unreadable("id is no id")
        place = writer.place_of(brief.channel_id)
        if place is not None:
            _tip(writer, brief.channel_id, brief.id, place)
            return
    if (
        writer.takes_authors
        and "messages" not in writer.kept
        and (heard := writer.fingerprints.message(d)) is not None
    ):
        _tip(writer, *heard, writer.place_of(heard[0]))
        return
    head = message(d)
    if head.id > MOST_ID:
        raise Unreadable("id is no id")
    author_id = _author_of(head)
    place = writer.place_of(head.channel_id)
    if place is None and head.guild_id is None:
        place = _new_direct_channel(writer, head, author_id)
    elif place is None and head.guild_id is not None:
        # Counts the event if the guild has not come either.
        writer.number_of(head.guild_id)
    _tip(writer, head.channel_id, head.id, place)
    if writer.takes_authors and author_id is not None and head.guild_id is not None:
        _take_author(writer, head, head.guild_id, author_id)
    if "messages" in writer.kept and (place is not None or head.guild_id is None):
        # What only the event has: https://docs.discord.com/developers/events/gateway-events#message-create
        _keep(writer, head.channel_id, head.id, join(without(fields(d), ("member", "channel_type"))))


def _author_of(head: Message) -> int | None:
    """Return the id of a message's author; None for webhooks, whose authors are no users."""
    if head.member != NULL and bytes(head.member)[:1] != b"{":
        raise Unreadable("member is no object")
    return None if head.author == NULL or head.webhook_id != NULL else id_of(head.author)


def _tip(writer: CacheWriter, channel_id: int, message_id: int, place: tuple[int, int] | None) -> None:
    if place is not None:
        # The message that began a thread has the thread's id and does not count.
        counts = int(place[1] == Kind.THREAD and message_id != channel_id)
        writer.tip(channel_id, message_id, counts, counts)


def _new_direct_channel(writer: CacheWriter, head: Message, author_id: int | None) -> tuple[int, int] | None:
    """Direct channels are not announced. Ephemeral messages have no guild id either, but are in a guild's channel."""
    if (snowflake(head.flags) or 0) & EPHEMERAL or author_id is None or author_id == writer.me:
        return None
    channel_type = snowflake(head.channel_type)
    if "channels" not in writer.kept or channel_type not in (None, *DIRECT_TYPES):
        return None
    stub: Fields = {
        "id": text(head.channel_id),
        "type": integer(channel_type or DIRECT_TYPES[0]),
        "recipients": msgspec.Raw(join_raws([head.author])),
    }
    writer.entity_store.put(DIRECT, Kind.CHANNEL, head.channel_id, join(stub))
    writer.moved(head.channel_id)
    return DIRECT, Kind.CHANNEL


def _take_author(writer: CacheWriter, head: Message, guild_id: int, user_id: int) -> None:
    if head.member != NULL:
        writer.take_carried_member(guild_id, user_id, bytes(head.member), bytes(head.author))
    elif writer.entity_store.homes(Kind.MEMBER, user_id, 1):
        writer.take_user(user_id, bytes(head.author))


def _keep(writer: CacheWriter, channel_id: int, message_id: int, raw: bytes) -> None:
    ring = _ring(writer, channel_id)
    if message_id not in ring:
        ring.append(message_id)
        ring.sort()
        writer.counts[MESSAGES] = writer.counts.get(MESSAGES, 0) + 1
        while len(ring) > writer.policy.messages_per_channel:
            writer.storage.delete(Table.MESSAGES, key8(channel_id) + key8(ring.pop(0)))
            writer.counts[MESSAGES] -= 1
    if message_id in ring:
        writer.storage.put(Table.MESSAGES, key8(channel_id) + key8(message_id), raw)


def _ring(writer: CacheWriter, channel_id: int) -> list[int]:
    """Return the ids of a channel's kept messages, ascending."""
    ring = writer.rings.get(channel_id)
    if ring is None:
        prefix = key8(channel_id)
        found = writer.storage.scan(Table.MESSAGES, prefix, prefix + b"\xff" * 9)
        ring = writer.rings[channel_id] = [int.from_bytes(key[8:], "big") for key, _ in found]
    return ring


def message_update(writer: CacheWriter, d: bytes) -> None:
    """Merge into a kept message; a partial message creates none. ``tts``, always false here, is ignored.

    The author is not taken: it may be as old as the message.
    """
    head = message(d)
    said = fields(d)

    def change(old: Fields) -> Fields:
        new = without(dict(said), ("tts", "member", "channel_type"))
        if not writer.policy.message_content:
            for name in ("content", "embeds", "attachments", "components"):
                if new.get(name) in _EMPTY:
                    del new[name]
        return {**old, **new}

    _change(writer, head.channel_id, head.id, change)


def _change(
    writer: CacheWriter, channel_id: int, message_id: int, change: Callable[[Fields], Fields]
) -> None:
    key = key8(channel_id) + key8(message_id)
    raw = writer.storage.get(Table.MESSAGES, key)
    if raw is not None:
        writer.storage.put(Table.MESSAGES, key, join(change(fields_inside(raw))))


def _delete(writer: CacheWriter, channel_id: int, ids: list[int]) -> None:
    place = writer.place_of(channel_id)
    counted = sum(1 for message_id in ids if message_id != channel_id)
    if place is not None and place[1] == Kind.THREAD and counted:
        writer.tip(channel_id, 0, -counted, 0)
    if "messages" in writer.kept:
        ring = _ring(writer, channel_id)
        for message_id in ids:
            if message_id in ring:
                ring.remove(message_id)
                writer.counts[MESSAGES] -= 1
                writer.storage.delete(Table.MESSAGES, key8(channel_id) + key8(message_id))


def message_delete(writer: CacheWriter, d: bytes) -> None:
    """The channel's ``last_message_id`` stays: it may name a message that is gone."""
    head = _placed(d)
    _delete(writer, head.channel_id, [head.id])


def message_delete_bulk(writer: CacheWriter, d: bytes) -> None:
    """Many at once."""
    found = fields(d)
    ids = [needed_id({"id": raw}, "id") for raw in raws(found.get("ids"))]
    _delete(writer, needed_id(found, "channel_id"), ids)


# Reactions and polls of kept messages; the counts are advisory, as Discord's own are.


def _of_message(d: bytes) -> tuple[Fields, int, int]:
    found = fields(d)
    return found, needed_id(found, "channel_id"), needed_id(found, "message_id")


_NO_EMOJI = "emoji has neither an id nor a name"


def _emoji_key(emoji: msgspec.Raw | None) -> int | str | None:
    """Return what identifies an emoji: its id, or for Unicode its name, decoded (escapes and characters are equal).

    A deleted custom emoji has lost its name.
    """
    found = fields_inside(emoji)
    entity_id = snowflake(found.get("id"))
    if entity_id is not None:
        return entity_id
    try:
        name = msgspec.json.decode(found.get("name", NULL))
    except UNREADABLE:
        return None
    return name if isinstance(name, str) else None


def _number(found: Fields, name: str) -> int:
    return snowflake(found.get(name)) or 0


def _react(old: Fields, event: Fields, wanted: int | str, change: int, mine: bool) -> Fields:
    burst = event.get("burst") == _TRUE
    reactions = objects_inside(old.get("reactions"))
    for reaction in reactions:
        if _emoji_key(reaction.get("emoji")) == wanted:
            break
    else:
        if change < 0:
            return old
        reaction = {"emoji": event["emoji"], "me": FALSE, "me_burst": FALSE, "count": integer(0)}
        reaction["burst_colors"] = msgspec.Raw(b"[]")
        reactions.append(reaction)
    if burst and change > 0:
        reaction["burst_colors"] = event.get("burst_colors", msgspec.Raw(b"[]"))
    reaction["count"] = integer(max(0, _number(reaction, "count") + change))
    details = fields_inside(reaction.get("count_details"))
    name = "burst" if burst else "normal"
    details = {"burst": integer(_number(details, "burst")), "normal": integer(_number(details, "normal"))}
    details[name] = integer(max(0, _number(details, name) + change))
    reaction["count_details"] = msgspec.Raw(join(details))
    if mine:
        reaction["me_burst" if burst else "me"] = _TRUE if change > 0 else FALSE
    kept = [msgspec.Raw(join(item)) for item in reactions if _number(item, "count") > 0]
    return _with_reactions(old, kept)


def _with_reactions(old: Fields, kept: list[msgspec.Raw]) -> Fields:
    """A message without reactions has no such field."""
    if kept:
        return {**old, "reactions": msgspec.Raw(join_raws(kept))}
    return {name: raw for name, raw in old.items() if name != "reactions"}


def _reaction(writer: CacheWriter, d: bytes, change: int) -> None:
    event, channel_id, message_id = _of_message(d)
    wanted = _emoji_key(event.get("emoji"))
    if wanted is None:
        writer.leave_out(_NO_EMOJI)
        return
    mine = writer.me is not None and snowflake(event.get("user_id")) == writer.me
    _change(writer, channel_id, message_id, lambda old: _react(old, event, wanted, change, mine))


def reaction_add(writer: CacheWriter, d: bytes) -> None:
    """Count a reaction, and take the member that an event of a guild carries."""
    if "messages" in writer.kept:
        _of_message(d)
    if writer.takes_authors and not writer.fingerprints.carried(d):
        head = carrying(d)
        if head.member != NULL and head.guild_id is not None and head.user_id is not None:
            writer.take_carried_whole_member(head.guild_id, head.user_id, bytes(head.member))
    if "messages" in writer.kept:
        _reaction(writer, d, +1)


def reaction_remove(writer: CacheWriter, d: bytes) -> None:
    """One less; at none the reaction goes."""
    _reaction(writer, d, -1)


def reactions_clear(writer: CacheWriter, d: bytes) -> None:
    """All reactions of a message."""
    _, channel_id, message_id = _of_message(d)
    _change(writer, channel_id, message_id, lambda old: _with_reactions(old, []))


def reactions_clear_emoji(writer: CacheWriter, d: bytes) -> None:
    """All reactions of a message with one emoji."""
    event, channel_id, message_id = _of_message(d)
    wanted = _emoji_key(event.get("emoji"))
    if wanted is None:
        writer.leave_out(_NO_EMOJI)
        return

    def change(old: Fields) -> Fields:
        reactions = raws_inside(old.get("reactions"))
        kept = [raw for raw in reactions if _emoji_key(fields_inside(raw).get("emoji")) != wanted]
        return _with_reactions(old, kept)

    _change(writer, channel_id, message_id, change)


def _vote(writer: CacheWriter, d: bytes, change: int) -> None:
    event, channel_id, message_id = _of_message(d)
    answer = needed_id(event, "answer_id")
    mine = writer.me is not None and snowflake(event.get("user_id")) == writer.me

    def counted(old: Fields) -> Fields:
        poll = fields_inside(old.get("poll"))
        results = poll.get("results", NULL)
        if bytes(results)[:1] != b"{":
            return old
        found = fields_inside(results)
        counts = objects_inside(found.get("answer_counts"))
        for count in counts:
            if snowflake(count.get("id")) == answer:
                break
        else:
            if change < 0:
                return old
            count = {"id": integer(answer), "count": integer(0), "me_voted": FALSE}
            counts.append(count)
        count["count"] = integer(max(0, _number(count, "count") + change))
        if mine:
            count["me_voted"] = _TRUE if change > 0 else FALSE
        counts = sorted(
            (item for item in counts if _number(item, "count")), key=lambda item: _number(item, "id")
        )
        found["answer_counts"] = msgspec.Raw(join_raws([msgspec.Raw(join(item)) for item in counts]))
        return {**old, "poll": msgspec.Raw(join({**poll, "results": msgspec.Raw(join(found))}))}

    _change(writer, channel_id, message_id, counted)


def poll_vote_add(writer: CacheWriter, d: bytes) -> None:
    """One vote more, where the results are known."""
    _vote(writer, d, +1)


def poll_vote_remove(writer: CacheWriter, d: bytes) -> None:
    """One vote less, where the results are known."""
    _vote(writer, d, -1)
