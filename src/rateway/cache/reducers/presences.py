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


class _User(msgspec.Struct, gc=False):
    id: int
    username: msgspec.Raw = NULL
    avatar: msgspec.Raw = NULL
    global_name: msgspec.Raw = NULL
    discriminator: msgspec.Raw = NULL
    public_flags: msgspec.Raw = NULL


class _Presence(msgspec.Struct, gc=False):
    guild_id: int
    user: _User
    status: msgspec.Raw = NULL


_presence = msgspec.json.Decoder(_Presence, strict=False).decode
_OFFLINE = msgspec.Raw(b'"offline"')


def presence_update(book: Book, d: bytes) -> None:
    """Replaces; its bytes are kept as they came. It never makes a member, and its user only changes a known one."""
    head = _presence(d)
    number = book.number_of(head.guild_id)
    if number is None:
        return
    user = head.user
    user_id = user.id
    if "presences" in book.kept:
        if head.status == _OFFLINE:
            book.shelf.remove_presence(number, user_id)
        elif book.policy.activities:
            book.shelf.put_presence(number, user_id, d)
        else:
            _put(book, number, user_id, fields(d))
    # Nearly every presence names its user by id alone; the default object says that a field is absent.
    named = user.username is not NULL or user.avatar is not NULL or user.global_name is not NULL
    if named or user.discriminator is not NULL or user.public_flags is not NULL:
        merge_known(book, user_id, fields(d)["user"])


def _put(book: Book, number: int, user_id: int, found: Fields) -> None:
    if not book.policy.activities:
        found.pop("activities", None)
    book.shelf.put_presence(number, user_id, join(found))


def merge_known(book: Book, user_id: int, user: msgspec.Raw) -> None:
    """A partial user into a user that is known."""
    if "users" in book.kept and book.shelf.homes(Kind.MEMBER, user_id):
        book.take_user(user_id, user)


def take_presence(book: Book, number: int, found: Fields) -> None:
    """A presence inside another event (a chunk, a thread's new members)."""
    user = found.get("user")
    user_id = snowflake(fields(user).get("id")) if user is not None else None
    if user_id is None or "presences" not in book.kept:
        return
    if found.get("status") == _OFFLINE:
        book.shelf.remove_presence(number, user_id)
    else:
        _put(book, number, user_id, found)
