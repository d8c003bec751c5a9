"""Presences: the newest of each member; offline is nothing to keep.

Their fields are not validated by Discord: anything but ``user.id`` may be missing, null or odd
(https://docs.discord.com/developers/events/gateway-events#presence-update).
"""

from __future__ import annotations

import msgspec

from rateway.cache.book import Book
from rateway.cache.objects import NULL, Fields, fields, join, snowflake
from rateway.cache.shelf import Kind

__all__ = ["presence_update", "take_presence"]


class _Presence(msgspec.Struct, gc=False):
    guild_id: int
    user: msgspec.Raw
    status: msgspec.Raw = NULL


class _Id(msgspec.Struct, gc=False):
    id: int


_presence = msgspec.json.Decoder(_Presence, strict=False).decode
_id = msgspec.json.Decoder(_Id, strict=False).decode
_OFFLINE = msgspec.Raw(b'"offline"')

# A user object with nothing but its id is shorter than this.
BARE_USER = 34


def presence_update(book: Book, d: bytes) -> None:
    """Replaces; its bytes are kept as they came. It never makes a member, and its user only changes a known one."""
    head = _presence(d)
    number = book.number_of(head.guild_id)
    if number is None:
        return
    user_id = _id(head.user).id
    if "presences" in book.kept:
        if head.status == _OFFLINE:
            book.shelf.remove(number, Kind.PRESENCE, user_id)
        elif book.policy.activities:
            book.shelf.put(number, Kind.PRESENCE, user_id, bytes(d))
        else:
            _put(book, number, user_id, fields(d))
    if len(bytes(head.user)) > BARE_USER:
        merge_known(book, user_id, head.user)


def _put(book: Book, number: int, user_id: int, found: Fields) -> None:
    if not book.policy.activities:
        found.pop("activities", None)
    book.shelf.put(number, Kind.PRESENCE, user_id, join(found))


def merge_known(book: Book, user_id: int, user: msgspec.Raw) -> None:
    """A partial user into a user that is known."""
    if "users" in book.kept and not book.same(0, user_id, user) and book.shelf.homes(Kind.MEMBER, user_id):
        book.take_user(user_id, user)


def take_presence(book: Book, number: int, found: Fields) -> None:
    """A presence inside another event (a chunk, a thread's new members)."""
    user = found.get("user")
    user_id = snowflake(fields(user).get("id")) if user is not None else None
    if user_id is None or "presences" not in book.kept:
        return
    if found.get("status") == _OFFLINE:
        book.shelf.remove(number, Kind.PRESENCE, user_id)
    else:
        _put(book, number, user_id, found)
