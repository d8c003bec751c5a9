"""Reactions to messages and votes in polls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from rateway_simulator.payloads import message as shapes
from rateway_simulator.payloads.objects import UNICODE
from rateway_simulator.payloads.values import Json
from rateway_simulator.world.changes.members import bits_of, member_of
from rateway_simulator.world.changes.messages import create_message, kept, pick_channel, pick_message, where
from rateway_simulator.world.dispatch import Chance
from rateway_simulator.world.guild import Guild, Message
from rateway_simulator.world.world import World


def react(
    world: World,
    guild: Guild | None,
    channel_id: str,
    message_id: str,
    emoji: Json,
    user_id: str,
    *,
    burst: bool = False,
) -> bool:
    """Add a user's reaction; return False when the message is not kept. A reaction that is there already stays."""
    message = kept(world, guild, channel_id).get(message_id)
    if message is None:
        return False
    key = shapes.emoji_key(emoji)
    people = message.reactors.setdefault(key, [])
    if user_id in people:
        return True
    people.append(user_id)
    entry = next((r for r in message.reactions if shapes.emoji_key(r["emoji"]) == key), None)
    now = dict(entry or shapes.reaction({**emoji, "animated": bool(emoji.get("animated"))}))
    details = dict(now["count_details"])
    details["burst" if burst else "normal"] += 1
    now |= {"count": now["count"] + 1, "count_details": details}
    if user_id == world.bot_id:
        now["me_burst" if burst else "me"] = True
    if burst:
        now["burst_colors"] = ["#ff8800"]
    if entry is None:
        message.reactions = [*message.reactions, now]
    else:
        message.reactions = [now if r is entry else r for r in message.reactions]
    d = {
        "user_id": user_id,
        "message_id": message_id,
        **where(guild, channel_id),
        "burst": burst,
        "type": 1 if burst else 0,
        "message_author_id": message.author_id,
        "emoji": {"id": emoji["id"], "name": emoji["name"], "animated": bool(emoji.get("animated"))},
    }
    if burst:
        d["burst_colors"] = ["#ff8800"]
    member = None if guild is None else member_of(world, guild, user_id)
    if member is not None:
        d["member"] = member
    world.emit("MESSAGE_REACTION_ADD", guild, d, direct=guild is None)
    return True


def unreact(
    world: World, guild: Guild | None, channel_id: str, message_id: str, emoji: Json, user_id: str
) -> bool:
    """Remove a user's reaction; return False when there is no such message or reaction."""
    message = kept(world, guild, channel_id).get(message_id)
    key = shapes.emoji_key(emoji)
    if message is None or user_id not in message.reactors.get(key, ()):
        return False
    message.reactors[key].remove(user_id)
    entry = next(r for r in message.reactions if shapes.emoji_key(r["emoji"]) == key)
    # Which of several was a burst is not remembered: normal ones go first.
    burst = entry["count_details"]["normal"] == 0
    details = dict(entry["count_details"])
    details["burst" if burst else "normal"] -= 1
    now = {**entry, "count": entry["count"] - 1, "count_details": details}
    if user_id == world.bot_id:
        now |= {"me": False, "me_burst": False}
    message.reactions = [
        now if r is entry else r for r in message.reactions if r is not entry or now["count"]
    ]
    if not now["count"]:
        del message.reactors[key]
    d = {
        "user_id": user_id,
        "message_id": message_id,
        **where(guild, channel_id),
        "burst": burst,
        "type": 1 if burst else 0,
        "emoji": {"id": entry["emoji"]["id"], "name": entry["emoji"]["name"]},
    }
    world.emit("MESSAGE_REACTION_REMOVE", guild, d, direct=guild is None)
    return True


def clear_reactions(
    world: World, guild: Guild | None, channel_id: str, message_id: str, emoji: Json | None = None
) -> bool:
    """Take away all reactions of a message, or all with one emoji; False when the message is not remembered."""
    message = kept(world, guild, channel_id).get(message_id)
    if message is None:
        return False
    ids = {"message_id": message_id, **where(guild, channel_id)}
    if emoji is None:
        message.reactions, message.reactors = [], {}
        world.emit("MESSAGE_REACTION_REMOVE_ALL", guild, ids, direct=guild is None)
        return True
    key = shapes.emoji_key(emoji)
    message.reactors.pop(key, None)
    message.reactions = [r for r in message.reactions if shapes.emoji_key(r["emoji"]) != key]
    d = {**ids, "emoji": {"id": emoji["id"], "name": emoji["name"]}}
    world.emit("MESSAGE_REACTION_REMOVE_EMOJI", guild, d, direct=guild is None)
    return True


def vote(
    world: World, guild: Guild | None, channel_id: str, message_id: str, answer_id: int, user_id: str
) -> bool:
    """Add a user's vote in a poll; return False when there is no such poll or answer, or the vote was cast."""
    return _count_vote(world, guild, channel_id, message_id, answer_id, user_id, 1)


def unvote(
    world: World, guild: Guild | None, channel_id: str, message_id: str, answer_id: int, user_id: str
) -> bool:
    """Remove a user's vote; return False when there was none."""
    return _count_vote(world, guild, channel_id, message_id, answer_id, user_id, -1)


def _count_vote(
    world: World,
    guild: Guild | None,
    channel_id: str,
    message_id: str,
    answer_id: int,
    user_id: str,
    sign: int,
) -> bool:
    message = kept(world, guild, channel_id).get(message_id)
    d = None if message is None else message.d
    if message is None or d is None or "poll" not in d:
        return False
    people = message.voters.setdefault(str(answer_id), [])
    if (user_id in people) == (sign > 0):
        return False
    (people.append if sign > 0 else people.remove)(user_id)
    counts = [c for c in d["poll"]["results"]["answer_counts"] if c["id"] != answer_id]
    if people:
        counts.append({"id": answer_id, "count": len(people), "me_voted": world.bot_id in people})
    counts.sort(key=lambda entry: int(entry["id"]))
    results = {**d["poll"]["results"], "answer_counts": counts}
    message.replace({**d, "poll": {**d["poll"], "results": results}})
    name = "MESSAGE_POLL_VOTE_ADD" if sign > 0 else "MESSAGE_POLL_VOTE_REMOVE"
    event = {
        "user_id": user_id,
        "message_id": message_id,
        **where(guild, channel_id),
        "answer_id": answer_id,
    }
    world.emit(name, guild, event, direct=guild is None)
    return True


# Chance


def pick_emoji(guild: Guild, bits: int) -> Json:
    """Return a unicode emoji or one of the guild's."""
    if bits & 1 and guild.emojis:
        own = list(guild.emojis.values())[(bits >> 1) % len(guild.emojis)]
        return {"id": own["id"], "name": own["name"], "animated": own["animated"]}
    return {"id": None, "name": UNICODE[(bits >> 1) % len(UNICODE)], "animated": False}


def _reaction_add(world: World, guild: Guild, chance: Chance) -> None:
    found = pick_message(guild, chance)
    index = guild.roster.pick(chance)
    if found is not None and index is not None:
        bits = bits_of(chance)
        emoji = pick_emoji(guild, bits >> 6)
        react(world, guild, *found, emoji, world.people.id_of(index), burst=bits & 63 == 0)


def _reacted(guild: Guild, chance: Chance) -> tuple[str, str, Json] | None:
    for _ in range(4):
        found = pick_message(guild, chance)
        if found is None:
            return None
        reactions = guild.messages[found[0]][found[1]].reactions
        if reactions:
            return *found, reactions[int(chance.random() * len(reactions))]["emoji"]
    return None


def _reaction_remove(world: World, guild: Guild, chance: Chance) -> None:
    found = _reacted(guild, chance)
    if found is not None:
        channel_id, message_id, emoji = found
        people = guild.messages[channel_id][message_id].reactors[shapes.emoji_key(emoji)]
        unreact(world, guild, channel_id, message_id, emoji, people[int(chance.random() * len(people))])


def _reaction_remove_all(world: World, guild: Guild, chance: Chance) -> None:
    found = _reacted(guild, chance)
    if found is not None:
        clear_reactions(world, guild, found[0], found[1])


def _reaction_remove_emoji(world: World, guild: Guild, chance: Chance) -> None:
    found = _reacted(guild, chance)
    if found is not None:
        clear_reactions(world, guild, *found)


def _polled(guild: Guild) -> tuple[str, str, Message] | None:
    for channel_id, messages in guild.messages.items():
        if guild.place(channel_id) is None:
            continue
        for message_id, message in reversed(messages.items()):
            if b"answer_counts" in message.packed:
                return channel_id, message_id, message
    return None


def _vote_add(world: World, guild: Guild, chance: Chance) -> None:
    found = _polled(guild)
    index = guild.roster.pick(chance)
    if index is None:
        return
    if found is None:
        channel = pick_channel(guild, chance)
        if channel is not None:
            poll = shapes.poll(bits_of(chance), world.wall)
            create_message(world, guild, channel["id"], world.people.user(index), "", poll=poll)
        return
    vote(world, guild, found[0], found[1], 1 + int(chance.random() * 2), world.people.id_of(index))


def _vote_remove(world: World, guild: Guild, chance: Chance) -> None:
    found = _polled(guild)
    for answer_id, people in ({} if found is None else found[2].voters).items():
        if found is not None and people:
            unvote(world, guild, found[0], found[1], int(answer_id), people[0])
            return


ACTIONS: Final[Mapping[str, Callable[[World, Guild, Chance], None]]] = {
    "MESSAGE_REACTION_ADD": _reaction_add,
    "MESSAGE_REACTION_REMOVE": _reaction_remove,
    "MESSAGE_REACTION_REMOVE_ALL": _reaction_remove_all,
    "MESSAGE_REACTION_REMOVE_EMOJI": _reaction_remove_emoji,
    "MESSAGE_POLL_VOTE_ADD": _vote_add,
    "MESSAGE_POLL_VOTE_REMOVE": _vote_remove,
}
