"""GUILD_CREATE, GUILD_UPDATE, GUILD_DELETE: a guild comes whole, changes its own fields, goes away or out of reach.

States and causes: ``docs/cache.md``; https://docs.discord.com/developers/events/gateway-events#guild-create
"""

from __future__ import annotations

import functools
from typing import TypeAlias

import msgspec
from rateway.cache.guild_row import GuildRow, GuildState
from rateway.cache.kinds import SNAPSHOTS, Kind
from rateway.cache.reader import CHANNELS
from rateway.cache.writer import CacheWriter
from rateway.native.objects import drop_fields, field, is_offline, list_by_id, merge, split_field, split_lists
from rateway.native.objects.applied import Applied, Cause
from rateway.native.objects.fields import (
    NULL,
    Fields,
    Unreadable,
    fields,
    join,
    needed_count,
    needed_id,
    snowflake,
    text,
    without,
)
from rateway.native.objects.plain import EntityList

__all__ = [
    "CHILD_LISTS",
    "guild_create",
    "guild_delete",
    "guild_update",
    "load_expressions",
    "own_member",
    "read_expressions",
]


# These come with more than their list: users, the number of cached members, presences that are none.
_OTHER_LISTS = ("members", "presences")
# Field of GUILD_CREATE → the kind of its entities and the policy's word for it. Each is a complete set.
CHILD_LISTS = {name: (kind, row.name) for name, (kind, row) in SNAPSHOTS.items() if name not in _OTHER_LISTS}
_EXPRESSIONS = tuple(name for name, (_, row) in SNAPSHOTS.items() if row.in_guild_update)
# What is no field of the guild's own row, or stands in it by itself.
_APART = (*SNAPSHOTS, "member_count", "unavailable")

_ID = (b"id",)

_NONE: EntityList = ([], [])
_Own: TypeAlias = list[tuple[int, bytes]]


@functools.lru_cache(8)
def _paths(kept: frozenset[str]) -> dict[bytes, tuple[bytes, ...]]:
    """Return where the ids of each list stand; no path for those that are not looked at."""
    return {
        name.encode(): tuple(part.encode() for part in row.id_path) if row.name in kept else ()
        for name, (_, row) in SNAPSHOTS.items()
    }


def _cause(row: GuildRow | None) -> Cause:
    if row is None or row.joining:
        return "join"
    return "start" if row.state is GuildState.PENDING else "available"


def guild_create(writer: CacheWriter, d: bytes) -> Applied | None:
    """A full snapshot replaces the guild and all its complete sets; ``{id, unavailable: true}`` marks an outage."""
    own, lists, values = split_lists(d, _paths(writer.kept), (b"member_count", b"unavailable"))
    named = field(own, b"id")
    guild_id = snowflake(msgspec.Raw(named)) if named is not None else None
    if guild_id is None:
        raise Unreadable("id is no id")
    row = writer.guild_row(guild_id)
    if values.get(b"unavailable") == b"true":
        joining = row is None or row.joining
        _outage(writer, guild_id, row, joining=joining)
        return Applied(cause="outage")
    said = values.get(b"member_count")
    count = (
        None if said in (None, b"null") else needed_count({"member_count": msgspec.Raw(said)}, "member_count")
    )
    threads = _read_threads(writer, lists.get(b"threads", _NONE))
    # Where guilds are not known, whether the bot was in this one is not known either.
    cause = None if row is None and writer.shard_id in writer.cold else _cause(row)
    fresh = row is None or not row.number
    resync = row is not None and row.state is GuildState.AVAILABLE
    row = row or GuildRow(GuildState.AVAILABLE)
    row.number = row.number or writer.new_number()
    row.stamp = writer.stamp()
    row.state, row.joining = GuildState.AVAILABLE, False
    row.shard_id, row.cause, row.cause_seq = writer.shard_id, cause, writer.seq
    for name, (kind, word) in CHILD_LISTS.items():
        if word in writer.kept:
            _load(writer, row.number, kind, lists.get(name.encode(), _NONE), fresh, threads)
    row.member_count = count
    row.cached_members = 0
    if "members" in writer.kept:
        members = lists.get(b"members", _NONE)
        row.cached_members = _load_members(writer, guild_id, row, members, fresh=fresh, resync=resync)
    if "presences" in writer.kept:
        _load_presences(writer, row.number, lists.get(b"presences", _NONE), fresh)
    row.body = own
    writer.save(guild_id, row)
    return Applied(cause=cause)


def _load(
    writer: CacheWriter,
    number: int,
    kind: Kind,
    listing: EntityList,
    fresh: bool,
    threads: tuple[list[bytes], _Own],
) -> None:
    ids, items = listing
    if fresh and not items:
        return
    if kind in CHANNELS and not fresh:
        _forget_missing_channels(writer, number, kind, set(ids))
    if kind is Kind.THREAD:
        items, own = threads
        _load_own_members(writer, number, own)
    elif kind is Kind.VOICE_STATE:
        items = [drop_fields(item, (b"member",)) for item in items]
    writer.entity_store.load(number, kind, ids, items, fresh=fresh)
    if kind in CHANNELS:
        writer.place(ids, number, kind)
        if kind is Kind.THREAD and not fresh:
            for channel_id in ids:
                writer.settle_counters(channel_id)


def _forget_missing_channels(writer: CacheWriter, number: int, kind: Kind, there: set[int]) -> None:
    for channel_id, _ in list(writer.entity_store.walk(number, kind)):
        if channel_id not in there:
            writer.forget_channel(channel_id)
            writer.entity_store.remove(number, Kind.SIDE, channel_id)


def _read_threads(writer: CacheWriter, listing: EntityList) -> tuple[list[bytes], _Own]:
    """Threads without the bot's own membership in each, and these memberships."""
    without_own: list[bytes] = []
    members: _Own = []
    for thread_id, item in zip(*listing, strict=True):
        thread, own = split_field(item, b"member")
        if own is not None and own != b"null":
            members.append((thread_id, own_member(msgspec.Raw(own), thread_id, writer.me)))
        without_own.append(thread)
    return without_own, members


def _load_own_members(writer: CacheWriter, number: int, members: _Own) -> None:
    """The bot's own memberships stand beside the threads and are replaced with them."""
    writer.entity_store.wipe(number, Kind.THREAD_MEMBER)
    if "thread_members" in writer.kept:
        for thread_id, member in members:
            writer.entity_store.put(number, Kind.THREAD_MEMBER, thread_id, member)


def own_member(raw: msgspec.Raw, thread_id: int, user_id: int | None) -> bytes:
    """Return the bot's thread member with ``id`` and ``user_id``, which GUILD_CREATE leaves out."""
    found = without(fields(raw), ("guild_id", "member", "presence"))
    found.setdefault("id", text(thread_id))
    if user_id is not None:
        found.setdefault("user_id", text(user_id))
    return join(found)


def _load_members(
    writer: CacheWriter, guild_id: int, row: GuildRow, listing: EntityList, *, fresh: bool, resync: bool
) -> int:
    """Replace a guild's members and return how many are cached then.

    The list may be partial: within one session a second snapshot removes no member. After a new session or an outage
    members that are not in it are removed, as they may have left unseen.
    """
    said, told = listing
    ids, items, count, number = said, told, row.member_count, row.number
    known = set(said)
    if not fresh:
        if resync and (count is None or len(known) < count):
            ids, items = list(said), list(told)
            for user_id, member in writer.entity_store.walk(number, Kind.MEMBER):
                if user_id not in known:
                    ids.append(user_id)
                    items.append(_with_user_of_now(writer, number, user_id, member))
        else:
            writer.drop_members(number, known)
    writer.entity_store.load(number, Kind.MEMBER, ids, items, fresh=fresh)
    if writer.takes_authors:
        writer.fingerprints.learn_members(guild_id, said, told, fresh=fresh and len(known) == len(said))
    elif writer.fingerprints.any:
        for user_id in said:
            writer.fingerprints.forget_member(guild_id, user_id)
            writer.fingerprints.forget_user(user_id)
    return len(known) + len(ids) - len(said)


def _load_presences(writer: CacheWriter, number: int, listing: EntityList, fresh: bool) -> None:
    """Replace a guild's presences; those that are offline are not kept."""
    ids, items = listing
    # The word may stand anywhere, in a custom status for one; where it does the status is looked at.
    online = [
        at
        for at, item in enumerate(items)
        if not (b"offline" in item or b"\\" in item) or not is_offline(item)
    ]
    ids, items = [ids[at] for at in online], [items[at] for at in online]
    if not writer.policy.activities:
        items = [drop_fields(item, (b"activities",)) for item in items]
    writer.entity_store.load(number, Kind.PRESENCE, ids, items, fresh=fresh)


def _with_user_of_now(writer: CacheWriter, number: int, user_id: int, member: bytes) -> bytes:
    """Return a member that a new snapshot does not have, with its user as it is known now."""
    user = writer.user(user_id, field(member, b"user"), number)
    return member if user is None else merge(member, b'{"user":%b}' % user[1])


def guild_update(writer: CacheWriter, d: bytes) -> None:
    """The guild's own fields, merged; roles, emojis and stickers in it are complete sets."""
    found = fields(d)
    guild_id = needed_id(found, "id")
    lists = {name: read_expressions(found, name) for name in _EXPRESSIONS}
    row = writer.guild_row(guild_id)
    if row is None or not row.number:
        return
    for name, listing in lists.items():
        kind, word = CHILD_LISTS[name]
        if listing is not None and word in writer.kept:
            load_expressions(writer, row.number, kind, listing)
    row.body = merge(row.body, join(without(found, _APART)))
    writer.save(guild_id, row)


def read_expressions(found: Fields, name: str) -> EntityList | None:
    """Return the roles, emojis or stickers in an event; None where it has none or null: they stay."""
    raw = found.get(name, NULL)
    return None if raw == NULL else list_by_id(bytes(raw), _ID)


def load_expressions(writer: CacheWriter, number: int, kind: Kind, listing: EntityList) -> None:
    """A complete set of roles, emojis or stickers; ``user`` is often left out and then kept."""
    old = dict(writer.entity_store.walk(number, kind))
    ids, said = listing
    items = []
    for entity_id, item in zip(ids, said, strict=True):
        was = old.get(entity_id)
        user = field(was, b"user") if was is not None and kind is not Kind.ROLE else None
        if user is not None and field(item, b"user") is None:
            item = merge(item, b'{"user":%b}' % user)
        items.append(item)
    # Most updates of a guild repeat its roles, emojis and stickers: writing them again costs five times the comparison.
    if dict(zip(ids, items, strict=True)) != old:
        writer.entity_store.load(number, kind, ids, items)


def guild_delete(writer: CacheWriter, d: bytes) -> Applied | None:
    """``unavailable: true`` is an outage, all is kept and marked; anything else means that the bot is out."""
    found = fields(d)
    guild_id = needed_id(found, "id")
    row = writer.guild_row(guild_id)
    if found.get("unavailable") == msgspec.Raw(b"true"):
        _outage(writer, guild_id, row, joining=row is not None and row.joining)
        return Applied(cause="outage")
    if row is None:
        return None
    writer.remove_guild(guild_id, row)
    if not row.number and not writer.first_leave(guild_id):
        return None
    return Applied(cause="left")


def _outage(writer: CacheWriter, guild_id: int, row: GuildRow | None, *, joining: bool) -> None:
    row = row or GuildRow(GuildState.OUTAGE)
    row.state, row.joining = GuildState.OUTAGE, joining
    row.shard_id, row.cause, row.cause_seq = writer.shard_id, "outage", writer.seq
    writer.save(guild_id, row)
