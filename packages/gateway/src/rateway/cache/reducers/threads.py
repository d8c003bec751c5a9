"""Threads: only active ones are kept, as Discord's own snapshots do.

https://docs.discord.com/developers/events/gateway-events#threads
"""

from __future__ import annotations

import msgspec
from rateway.cache.kinds import Kind
from rateway.cache.permissions import MANAGE_THREADS, permissions
from rateway.cache.reducers.channels import drop_thread
from rateway.cache.reducers.guilds import own_member
from rateway.cache.reducers.members import take_carried
from rateway.cache.reducers.presences import take_presence
from rateway.cache.writer import CacheWriter
from rateway.native.objects.decoders import id_of
from rateway.native.objects.fields import (
    NULL,
    Fields,
    Snowflake,
    fields,
    fields_inside,
    integer,
    join,
    needed_count,
    needed_id,
    raws,
    snowflake,
)

__all__ = [
    "thread_create",
    "thread_delete",
    "thread_list_sync",
    "thread_member_update",
    "thread_members_update",
    "thread_update",
]


class _Thread(msgspec.Struct, gc=False):
    id: Snowflake
    guild_id: Snowflake | None = None
    parent_id: Snowflake | None = None


_thread = msgspec.json.Decoder(_Thread, strict=False).decode

# https://docs.discord.com/developers/resources/channel#channel-object-channel-types
FORUMS = (msgspec.Raw(b"15"), msgspec.Raw(b"16"))
PRIVATE_THREAD = msgspec.Raw(b"12")
_TRUE = msgspec.Raw(b"true")


def _put(writer: CacheWriter, number: int, thread_id: int, found: Fields) -> None:
    own = found.pop("member", NULL)
    member = own_member(own, thread_id, writer.me) if own != NULL else None
    for name in ("guild_id", "newly_created"):
        found.pop(name, None)
    writer.entity_store.put(number, Kind.THREAD, thread_id, join(found))
    writer.settle_counters(thread_id)
    writer.moved(thread_id)
    if member is not None and "thread_members" in writer.kept:
        writer.entity_store.put(number, Kind.THREAD_MEMBER, thread_id, member)


def thread_create(writer: CacheWriter, d: bytes) -> None:
    """New, or the bot was added to it. In a forum a new thread is its parent's newest message."""
    head = _thread(d)
    number = writer.number_of(head.guild_id) if head.guild_id is not None else None
    if number is None:
        return
    found = fields(d)
    if _archived(found):
        drop_thread(writer, number, head.id)
        return
    new = found.get("newly_created") == _TRUE
    _put(writer, number, head.id, found)
    if new and head.parent_id is not None and writer.place_of(head.parent_id) is not None:
        parent = writer.entity_store.get(number, Kind.CHANNEL, head.parent_id)
        if parent is not None and fields_inside(parent).get("type") in FORUMS:
            writer.tip(head.parent_id, head.id)


def thread_update(writer: CacheWriter, d: bytes) -> None:
    """The whole thread: archived ones go; an unknown one that is not archived was unarchived."""
    head = _thread(d)
    number = writer.number_of(head.guild_id) if head.guild_id is not None else None
    if number is None:
        return
    found = fields(d)
    if _archived(found):
        drop_thread(writer, number, head.id)
    else:
        _put(writer, number, head.id, found)


def _archived(found: Fields) -> bool:
    metadata = found.get("thread_metadata")
    return metadata is not None and metadata != b"null" and fields(metadata).get("archived") == _TRUE


def thread_delete(writer: CacheWriter, d: bytes) -> None:
    """Four fields only."""
    head = _thread(d)
    number = writer.number_of(head.guild_id) if head.guild_id is not None else None
    if number is not None:
        drop_thread(writer, number, head.id)


def thread_list_sync(writer: CacheWriter, d: bytes) -> None:
    """Replace all threads of ``channel_ids`` (absent: of the guild), also of channels that have none now."""
    found = fields(d)
    number = writer.number_of(needed_id(found, "guild_id"))
    listed = found.get("channel_ids", NULL)
    parents = None if listed == NULL else {needed_id({"": raw}, "") for raw in raws(listed)}
    threads = {}
    for raw in raws(found.get("threads")):
        thread = fields(raw)
        threads[needed_id(thread, "id")] = thread
        _check_own(thread.get("member"))
    members = [(needed_id(fields(raw), "id"), raw) for raw in raws(found.get("members"))]
    if number is None:
        return
    for thread_id, raw_thread in list(writer.entity_store.walk(number, Kind.THREAD)):
        if thread_id not in threads and (
            parents is None or snowflake(fields_inside(raw_thread).get("parent_id")) in parents
        ):
            drop_thread(writer, number, thread_id)
    for thread_id, thread in threads.items():
        _put(writer, number, thread_id, thread)
    for thread_id, raw in members:
        _own(writer, number, thread_id, raw)


def _check_own(raw: msgspec.Raw | None) -> None:
    """Raise where the bot's own membership in a thread is no object."""
    if raw is not None and raw != NULL:
        fields(raw)


def _own(writer: CacheWriter, number: int, thread_id: int, raw: msgspec.Raw) -> None:
    if "thread_members" not in writer.kept:
        return
    if writer.place_of(thread_id) == (number, Kind.THREAD):
        writer.entity_store.put(number, Kind.THREAD_MEMBER, thread_id, own_member(raw, thread_id, writer.me))


def thread_member_update(writer: CacheWriter, d: bytes) -> None:
    """Write the bot's own membership of a known thread."""
    found = fields(d)
    guild_id, thread_id = needed_id(found, "guild_id"), needed_id(found, "id")
    number = writer.number_of(guild_id)
    if number is not None:
        _own(writer, number, thread_id, msgspec.Raw(bytes(d)))


def thread_members_update(writer: CacheWriter, d: bytes) -> None:
    """The thread's count; members and presences that come along; the bot itself taken out of a private thread."""
    found = fields(d)
    guild_id, thread_id = needed_id(found, "guild_id"), needed_id(found, "id")
    count = needed_count(found, "member_count") if found.get("member_count", NULL) != NULL else None
    arrivals = [_read_arrival(fields(raw)) for raw in raws(found.get("added_members"))]
    removed = {needed_id({"": item}, "") for item in raws(found.get("removed_member_ids"))}
    number = writer.number_of(guild_id)
    if number is None:
        return
    raw = writer.entity_store.get(number, Kind.THREAD, thread_id) if "threads" in writer.kept else None
    if raw is not None and count is not None:
        thread = fields(raw)
        if snowflake(thread.get("member_count")) != count:
            writer.entity_store.replace(
                number, Kind.THREAD, thread_id, join({**thread, "member_count": integer(count)})
            )
    for arrival in arrivals:
        _take_arrival(writer, guild_id, number, thread_id, arrival)
    if raw is None or writer.me is None or writer.me not in removed:
        return
    granted = permissions(writer, guild_id, writer.me, thread_id)
    if fields_inside(raw).get("type") == PRIVATE_THREAD and not (granted or 0) & MANAGE_THREADS:
        drop_thread(writer, number, thread_id)
    else:
        writer.entity_store.remove(number, Kind.THREAD_MEMBER, thread_id)


def _read_arrival(added: Fields) -> Fields:
    """Return a user that joined a thread, if all that is taken of it can be read."""
    for name in ("id", "user_id"):
        if added.get(name, NULL) != NULL:
            needed_id(added, name)
    for name in ("member", "presence"):
        if added.get(name, NULL) != NULL:
            id_of(fields(added[name])["user"])
    return added


def _take_arrival(writer: CacheWriter, guild_id: int, number: int, thread_id: int, added: Fields) -> None:
    member, presence = added.get("member", NULL), added.get("presence", NULL)
    user_id = snowflake(added.get("user_id"))
    if user_id is not None and user_id == writer.me:
        own_thread = snowflake(added.get("id"))
        _own(writer, number, thread_id if own_thread is None else own_thread, msgspec.Raw(join(added)))
    if member != NULL:
        take_carried(writer, guild_id, bytes(member))
    if presence != NULL:
        take_presence(writer, number, fields(presence))
