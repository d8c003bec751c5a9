"""Changes of threads: they are opened, changed, archived, joined, left and deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rateway_simulator.payloads import message as shapes
from rateway_simulator.payloads import objects as payloads
from rateway_simulator.payloads.channel_types import ANNOUNCEMENT, FORUM, MEDIA, PRIVATE_THREAD, THREADED
from rateway_simulator.payloads.values import Json
from rateway_simulator.world.changes.members import bits_of, member_of, user_of
from rateway_simulator.world.changes.messages import post
from rateway_simulator.world.dispatch import Chance
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.world import World

# The member count of a thread stops here (docs: Channel, Thread Metadata).
_COUNTED: Final = 50


# Changes


def create_thread(
    world: World,
    guild: Guild,
    parent: Json,
    owner_id: str,
    name: str,
    *,
    kind: int | None = None,
    with_bot: bool = False,
    content: str = "",
    message_id: str | None = None,
    **fields: Any,
) -> Json:
    """Create a thread; in a forum its first message comes with it. With `message_id` it starts from a message."""
    thread_id = message_id or world.snowflake()
    kind = payloads.thread_kind(parent) if kind is None else kind
    d = payloads.thread(thread_id, guild.id, kind, name, parent["id"], owner_id, world.wall, **fields)
    people = [owner_id, world.bot_id] if with_bot and owner_id != world.bot_id else [owner_id]
    d["member_count"] = len(people)
    forum = parent["type"] in (FORUM, MEDIA)
    if forum:
        parent["last_message_id"] = max(thread_id, parent["last_message_id"] or "0", key=int)
    if world.bot_id in people:
        d["member"] = payloads.thread_member(thread_id, world.bot_id, world.wall)
    guild.threads[thread_id] = d
    guild.thread_people[thread_id] = people
    world.emit("THREAD_CREATE", guild, {**d, "newly_created": True})
    if forum:
        author = user_of(world, owner_id)
        if author is not None:
            post(world, guild, shapes.message(thread_id, thread_id, author, content or name, world.now()))
    return d


def change_thread(world: World, guild: Guild, thread_id: str, **fields: Any) -> Json | None:
    """Change an active or archived thread; None when it is not known."""
    d = guild.threads.get(thread_id) or guild.archived.get(thread_id)
    if d is None:
        return None
    now = {**d, **fields}
    store = guild.archived if now["thread_metadata"]["archived"] else guild.threads
    guild.threads.pop(thread_id, None)
    guild.archived.pop(thread_id, None)
    store[thread_id] = now
    world.emit("THREAD_UPDATE", guild, {key: value for key, value in now.items() if key != "member"})
    return now


def archive(
    world: World, guild: Guild, thread_id: str, *, archived: bool, locked: bool = False
) -> Json | None:
    """Archive a thread, or make it active again; the bot, if it is a member, gets its own membership then."""
    d = guild.threads.get(thread_id) or guild.archived.get(thread_id)
    if d is None:
        return None
    metadata = {
        **d["thread_metadata"],
        "archived": archived,
        "locked": locked,
        "archive_timestamp": world.now(),
    }
    now = change_thread(world, guild, thread_id, thread_metadata=metadata)
    if not archived and "member" in d:
        world.emit("THREAD_MEMBER_UPDATE", guild, {**d["member"], "guild_id": guild.id}, own=True)
    return now


def delete_thread(world: World, guild: Guild, thread_id: str) -> bool:
    """Delete a thread and its messages; False when it is not known."""
    d = guild.threads.pop(thread_id, None) or guild.archived.pop(thread_id, None)
    if d is None:
        return False
    forget_thread(guild, thread_id)
    keys = ("id", "guild_id", "parent_id", "type")
    world.emit("THREAD_DELETE", guild, {key: d[key] for key in keys})
    return True


def forget_thread(guild: Guild, thread_id: str) -> None:
    """Forget a thread with its members and messages, without an event."""
    guild.threads.pop(thread_id, None)
    guild.archived.pop(thread_id, None)
    guild.thread_people.pop(thread_id, None)
    guild.messages.pop(thread_id, None)


def join_thread(world: World, guild: Guild, thread_id: str, user_id: str) -> bool:
    """Let a user, or the bot, join an active thread; return False when the thread is not known or the user is in it."""
    d = guild.threads.get(thread_id)
    people = guild.thread_people.get(thread_id)
    if d is None or people is None or user_id in people:
        return False
    people.append(user_id)
    entry = payloads.thread_member(thread_id, user_id, world.wall)
    own = user_id == world.bot_id
    if own:
        d["member"] = entry
        world.emit("THREAD_CREATE", guild, dict(d))
    d["member_count"] = min(_COUNTED, len(people))
    index = world.people.index_of(user_id)
    presence = None
    if not own and index is not None and index in guild.roster:
        presence = guild.roster.presence(index, world.options.wall)
    member = member_of(world, guild, user_id)
    added = {
        **entry,
        "member": member,
        "presence": None if presence is None else {**presence, "guild_id": guild.id},
    }
    world.emit(
        "THREAD_MEMBERS_UPDATE",
        guild,
        {
            "id": thread_id,
            "guild_id": guild.id,
            "member_count": d["member_count"],
            "added_members": [added],
            "removed_member_ids": [],
        },
        own=own,
    )
    return True


def leave_thread(world: World, guild: Guild, thread_id: str, user_id: str) -> bool:
    """Let a user, or the bot, leave an active thread; return False when the user is not in it."""
    d = guild.threads.get(thread_id)
    people = guild.thread_people.get(thread_id, [])
    if d is None or user_id not in people:
        return False
    people.remove(user_id)
    own = user_id == world.bot_id
    if own:
        d.pop("member", None)
    d["member_count"] = min(_COUNTED, len(people))
    world.emit(
        "THREAD_MEMBERS_UPDATE",
        guild,
        {
            "id": thread_id,
            "guild_id": guild.id,
            "member_count": d["member_count"],
            "added_members": [],
            "removed_member_ids": [user_id],
        },
        own=own,
    )
    return True


def sync_threads(world: World, guild: Guild, parent_ids: list[str] | None) -> None:
    """Send THREAD_LIST_SYNC for the active threads below some channels, or of the whole guild: the bot
    gained access.
    """
    threads = [d for d in guild.threads.values() if parent_ids is None or d["parent_id"] in parent_ids]
    d: Json = {
        "guild_id": guild.id,
        "threads": [{key: value for key, value in d.items() if key != "member"} for d in threads],
        "members": [d["member"] for d in threads if "member" in d],
    }
    if parent_ids is not None:
        d["channel_ids"] = parent_ids
    world.emit("THREAD_LIST_SYNC", guild, d)


# Chance


def _pick(guild: Guild, chance: Chance) -> Json | None:
    threads = guild.threads
    return list(threads.values())[int(chance.random() * len(threads))] if threads else None


def _parents(guild: Guild) -> list[Json]:
    return [d for d in guild.channels.values() if d["type"] in THREADED]


def _create(world: World, guild: Guild, chance: Chance) -> None:
    parents = _parents(guild)
    index = guild.roster.pick(chance)
    if not parents or index is None or len(guild.threads) > 40:
        return
    bits = bits_of(chance)
    parent = parents[bits % len(parents)]
    private = parent["type"] not in (ANNOUNCEMENT, FORUM, MEDIA) and bits >> 8 & 7 == 0
    fields: Json = {}
    if parent.get("available_tags"):
        fields["applied_tags"] = [parent["available_tags"][0]["id"]]
    create_thread(
        world,
        guild,
        parent,
        world.people.id_of(index),
        f"about {bits % 1000}",
        kind=PRIVATE_THREAD if private else None,
        with_bot=private or bool(bits >> 11 & 1),
        content=shapes.text(bits >> 12),
        **fields,
    )


def _update(world: World, guild: Guild, chance: Chance) -> None:
    d = _pick(guild, chance)
    draw = chance.random()
    if draw < 0.3 and guild.archived:
        archive(world, guild, next(iter(guild.archived)), archived=False)
    elif d is None:
        return
    elif draw < 0.7:
        archive(world, guild, d["id"], archived=True, locked=draw < 0.4)
    else:
        change_thread(world, guild, d["id"], name=f"renamed {int(draw * 10_000)}", rate_limit_per_user=5)


def _delete(world: World, guild: Guild, chance: Chance) -> None:
    d = _pick(guild, chance)
    if d is not None:
        delete_thread(world, guild, d["id"])


def _list_sync(world: World, guild: Guild, chance: Chance) -> None:
    parents = _parents(guild)
    if chance.random() < 0.5 or not parents:
        sync_threads(world, guild, None)
    else:
        sync_threads(world, guild, [parents[int(chance.random() * len(parents))]["id"]])


def _member_update(world: World, guild: Guild, chance: Chance) -> None:
    for d in guild.threads.values():
        if "member" in d:
            d["member"] = {**d["member"], "flags": d["member"]["flags"] ^ 2}
            world.emit("THREAD_MEMBER_UPDATE", guild, {**d["member"], "guild_id": guild.id}, own=True)
            return


def _members_update(world: World, guild: Guild, chance: Chance) -> None:
    d = _pick(guild, chance)
    index = guild.roster.pick(chance)
    if d is None or index is None:
        return
    draw = chance.random()
    user_id = world.bot_id if draw < 0.1 and d["type"] != PRIVATE_THREAD else world.people.id_of(index)
    people = guild.thread_people[d["id"]]
    if draw > 0.6 and people and people[-1] != world.bot_id:
        leave_thread(world, guild, d["id"], people[-1])
    elif user_id in people:
        leave_thread(world, guild, d["id"], user_id)
    else:
        join_thread(world, guild, d["id"], user_id)


ACTIONS: Final[Mapping[str, Callable[[World, Guild, Chance], None]]] = {
    "THREAD_CREATE": _create,
    "THREAD_UPDATE": _update,
    "THREAD_DELETE": _delete,
    "THREAD_LIST_SYNC": _list_sync,
    "THREAD_MEMBER_UPDATE": _member_update,
    "THREAD_MEMBERS_UPDATE": _members_update,
}
