"""Members and users: by their own events, in chunks, and carried inside other events.

https://docs.discord.com/developers/events/gateway-events#guild-member-add
"""

from __future__ import annotations

import msgspec

from rateway.cache.book import Book
from rateway.cache.objects import NULL, Fields, fields, join, raws, snowflake
from rateway.cache.reducers.presences import take_presence
from rateway.cache.shelf import Kind

__all__ = [
    "interaction_create", "member_add", "member_remove", "member_update", "members_chunk", "take_carried",
    "typing_start",
]  # fmt: skip


class _Id(msgspec.Struct, gc=False):
    id: int


class _Member(msgspec.Struct, gc=False):
    guild_id: int
    user: _Id


class _Carrying(msgspec.Struct, gc=False):
    guild_id: int | None = None
    user_id: int | None = None
    member: msgspec.Raw = NULL


_member = msgspec.json.Decoder(_Member, strict=False).decode
_carrying = msgspec.json.Decoder(_Carrying, strict=False).decode
_id = msgspec.json.Decoder(_Id, strict=False).decode


def member_add(book: Book, d: bytes) -> None:
    """Counts only who was not known: Discord sends it again for members that are there. Who comes back comes without
    the roles of before (a removal that was missed)."""
    head = _member(d)
    number = book.number_of(head.guild_id)
    if number is None:
        return
    found = fields(d)
    if "members" in book.kept:
        user = found["user"]
        found.pop("guild_id", None)
        found.pop("user", None)
        known, paged = book.shelf.fetch(number, Kind.MEMBER, head.user.id)
        new = known is None
        if known is None:
            book.shelf.put(number, Kind.MEMBER, head.user.id, join(found))
        else:
            if "user" in (old := fields(known)):
                found["user"] = old["user"]
            book.shelf.replace(number, Kind.MEMBER, head.user.id, join(found), paged=paged)
        book.echoes.forget(head.user.id)
        book.take_user(head.user.id, user)
    else:
        new = True
    if new:
        book.count_members(head.guild_id, +1, cached=int("members" in book.kept))


def member_update(book: Book, d: bytes) -> None:
    """Merged; an unknown member is inserted as far as it goes. The user inside may be what changed."""
    found = fields(d)
    guild_id, user = snowflake(found.get("guild_id")), found["user"]
    number = book.number_of(guild_id) if guild_id is not None else None
    if guild_id is None or number is None:
        return
    user_id = _id(user).id
    if "members" in book.kept:
        book.take_member(guild_id, number, user_id, found)
    elif user_id == book.me:
        book.take_current_user(fields(user))


def member_remove(book: Book, d: bytes) -> None:
    """Presence, voice state and (its last guild) the user go with it. An unknown member is counted only when the
    member cache is partial, where its absence proves nothing."""
    head = _member(d)
    number = book.number_of(head.guild_id)
    if number is None:
        return
    if "members" not in book.kept:
        book.count_members(head.guild_id, -1)
        return
    count, cached = book.members_counted(head.guild_id)
    partial = count is None or cached < count
    known = book.remove_member(number, head.user.id, fields(d)["user"])
    if known or partial:
        book.count_members(head.guild_id, -1, cached=-int(known))


def members_chunk(book: Book, d: bytes) -> None:
    """The answer to op 8: members and presences, only ever added."""
    found = fields(d)
    guild_id = snowflake(found.get("guild_id"))
    number = book.number_of(guild_id) if guild_id is not None else None
    if number is None or guild_id is None:
        return
    if "members" in book.kept:
        for raw in raws(found.get("members")):
            _take_whole(book, guild_id, number, fields(raw))
    for raw in raws(found.get("presences")):
        take_presence(book, number, fields(raw))


def _take_whole(book: Book, guild_id: int, number: int, member: Fields) -> None:
    user = member.get("user")
    user_id = snowflake(fields(user).get("id")) if user is not None else None
    if user is None or user_id is None:
        return
    book.take_member(guild_id, number, user_id, member)


def take_carried(book: Book, guild_id: int, number: int, member: Fields, user_id: int | None = None) -> None:
    """A member inside another event, with its ``user`` or (``user_id`` given) without."""
    if "members" not in book.kept or not book.policy.members_from_events:
        return
    user = member.get("user")
    if user is not None:
        user_id = _id(user).id
    if user_id is None or "roles" not in member:
        return
    # Computed for the channel of the event: https://docs.discord.com/developers/resources/guild#guild-member-object
    member.pop("permissions", None)
    book.take_member(guild_id, number, user_id, member)


def typing_start(book: Book, d: bytes) -> None:
    """Its member is complete. What says the same as the last time is not looked at."""
    head = _carrying(d)
    if head.member == NULL or head.guild_id is None or head.user_id is None:
        return
    book.hear_whole(head.guild_id, head.user_id, bytes(head.member))


def interaction_create(book: Book, d: bytes) -> None:
    """Who used a command, with member and user; nothing else in it is news."""
    head = _carrying(d)
    if head.member == NULL or head.guild_id is None:
        return
    number = book.number_of(head.guild_id)
    if number is not None:
        take_carried(book, head.guild_id, number, fields(head.member))
