"""Threads: only active ones are kept, as Discord's own snapshots do.

https://docs.discord.com/developers/events/gateway-events#threads
"""

from __future__ import annotations

import msgspec

from rateway.cache.book import Book
from rateway.cache.objects import Fields, fields, integer, join, raws, snowflake
from rateway.cache.permissions import MANAGE_THREADS, permissions
from rateway.cache.reducers.channels import drop_thread
from rateway.cache.reducers.guilds import own_member
from rateway.cache.reducers.members import take_carried
from rateway.cache.reducers.presences import take_presence
from rateway.cache.shelf import Kind

__all__ = [
    "thread_create",
    "thread_delete",
    "thread_list_sync",
    "thread_member_update",
    "thread_members_update",
    "thread_update",
]


class _Thread(msgspec.Struct, gc=False):
    id: int
    guild_id: int | None = None
    parent_id: int | None = None


_thread = msgspec.json.Decoder(_Thread, strict=False).decode

# https://docs.discord.com/developers/resources/channel#channel-object-channel-types
FORUMS = (msgspec.Raw(b"15"), msgspec.Raw(b"16"))
PRIVATE_THREAD = msgspec.Raw(b"12")
_TRUE = msgspec.Raw(b"true")


def _put(book: Book, number: int, thread_id: int, found: Fields) -> None:
    own = found.pop("member", None)
    for name in ("guild_id", "newly_created"):
        found.pop(name, None)
    book.shelf.put(number, Kind.THREAD, thread_id, join(found))
    book.settle_counters(thread_id)
    book.moved(thread_id)
    if own is not None and "thread_members" in book.kept:
        book.shelf.put(number, Kind.THREAD_MEMBER, thread_id, own_member(own, thread_id, book.me))


def thread_create(book: Book, d: bytes) -> None:
    """New, or the bot was added to it. In a forum a new thread is its parent's newest message."""
    head = _thread(d)
    number = book.number_of(head.guild_id) if head.guild_id is not None else None
    if number is None:
        return
    found = fields(d)
    if _archived(found):
        drop_thread(book, number, head.id)
        return
    new = found.get("newly_created") == _TRUE
    _put(book, number, head.id, found)
    if new and head.parent_id is not None and book.place_of(head.parent_id) is not None:
        parent = book.shelf.get(number, Kind.CHANNEL, head.parent_id)
        if parent is not None and fields(parent).get("type") in FORUMS:
            book.tip(head.parent_id, head.id)


def thread_update(book: Book, d: bytes) -> None:
    """The whole thread: archived ones go; an unknown one that is not archived was unarchived."""
    head = _thread(d)
    number = book.number_of(head.guild_id) if head.guild_id is not None else None
    if number is None:
        return
    found = fields(d)
    if _archived(found):
        drop_thread(book, number, head.id)
    else:
        _put(book, number, head.id, found)


def _archived(found: Fields) -> bool:
    metadata = found.get("thread_metadata")
    return metadata is not None and metadata != b"null" and fields(metadata).get("archived") == _TRUE


def thread_delete(book: Book, d: bytes) -> None:
    """Four fields only."""
    head = _thread(d)
    number = book.number_of(head.guild_id) if head.guild_id is not None else None
    if number is not None:
        drop_thread(book, number, head.id)


def thread_list_sync(book: Book, d: bytes) -> None:
    """Says all about the threads of ``channel_ids`` (absent: of the guild), those without any included."""
    found = fields(d)
    guild_id = snowflake(found.get("guild_id"))
    number = book.number_of(guild_id) if guild_id is not None else None
    if number is None:
        return
    parents = {snowflake(raw) for raw in raws(found["channel_ids"])} if "channel_ids" in found else None
    threads = {}
    for raw in raws(found.get("threads")):
        thread = fields(raw)
        thread_id = snowflake(thread.get("id"))
        if thread_id is not None:
            threads[thread_id] = thread
    for thread_id, raw_thread in list(book.shelf.walk(number, Kind.THREAD)):
        if thread_id not in threads and (
            parents is None or snowflake(fields(raw_thread).get("parent_id")) in parents
        ):
            drop_thread(book, number, thread_id)
    for thread_id, thread in threads.items():
        _put(book, number, thread_id, thread)
    for raw in raws(found.get("members")):
        _own(book, number, raw)


def _own(book: Book, number: int, raw: msgspec.Raw) -> None:
    thread_id = snowflake(fields(raw).get("id"))
    if thread_id is None or "thread_members" not in book.kept:
        return
    if book.place_of(thread_id) == (number, Kind.THREAD):
        book.shelf.put(number, Kind.THREAD_MEMBER, thread_id, own_member(raw, thread_id, book.me))


def thread_member_update(book: Book, d: bytes) -> None:
    """The bot's own membership; of an unknown thread it says nothing."""
    guild_id = snowflake(fields(d).get("guild_id"))
    number = book.number_of(guild_id) if guild_id is not None else None
    if number is not None:
        _own(book, number, msgspec.Raw(bytes(d)))


def thread_members_update(book: Book, d: bytes) -> None:
    """The thread's count; members and presences that come along; the bot itself taken out of a private thread."""
    found = fields(d)
    guild_id, thread_id = snowflake(found.get("guild_id")), snowflake(found.get("id"))
    number = book.number_of(guild_id) if guild_id is not None else None
    if number is None or guild_id is None or thread_id is None:
        return
    raw = book.shelf.get(number, Kind.THREAD, thread_id) if "threads" in book.kept else None
    if raw is not None and "member_count" in found:
        thread = fields(raw)
        count = snowflake(found["member_count"])
        if count is not None and thread.get("member_count") != found["member_count"]:
            book.shelf.replace(
                number, Kind.THREAD, thread_id, join({**thread, "member_count": integer(count)})
            )
    for added in raws(found.get("added_members")):
        _added(book, guild_id, number, thread_id, fields(added))
    removed = {snowflake(item) for item in raws(found.get("removed_member_ids"))}
    if raw is None or book.me not in removed:
        return
    granted = permissions(book, guild_id, book.me, thread_id) if book.me is not None else None
    if fields(raw).get("type") == PRIVATE_THREAD and not (granted or 0) & MANAGE_THREADS:
        drop_thread(book, number, thread_id)
    else:
        book.shelf.remove(number, Kind.THREAD_MEMBER, thread_id)


def _added(book: Book, guild_id: int, number: int, thread_id: int, added: Fields) -> None:
    member, presence = added.get("member"), added.get("presence")
    user_id = snowflake(added.get("user_id"))
    if user_id is not None and user_id == book.me:
        _own(book, number, msgspec.Raw(join(added)))
    if member is not None and member != msgspec.Raw(b"null"):
        take_carried(book, guild_id, bytes(member))
    if presence is not None and presence != msgspec.Raw(b"null"):
        take_presence(book, number, fields(presence))
