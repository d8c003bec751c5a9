"""Presences: the newest of each member; offline is nothing to keep.

Their fields are not validated by Discord: anything but ``user.id`` may be missing, null or odd
(https://docs.discord.com/developers/events/gateway-events#presence-update).
"""

from __future__ import annotations

import msgspec

from rateway.cache.book import Book
from rateway.cache.heads import id_of
from rateway.cache.hot import field, presence
from rateway.cache.objects import NULL, Fields, fields, join, same_value
from rateway.cache.shelf import Kind

__all__ = ["presence_update", "take_presence"]

_MEMBER = int(Kind.MEMBER)
_OFFLINE = msgspec.Raw(b'"offline"')


def presence_update(book: Book, d: bytes) -> None:
    """Replaces; its bytes are kept as they came. It never makes a member, and its user only changes a known one."""
    guild_id, user_id, offline, named = presence(d)
    number = book.number_of(guild_id)
    if number is None:
        return
    if "presences" in book.kept:
        if offline:
            book.shelf.remove(number, Kind.PRESENCE, user_id)
        elif book.policy.activities:
            book.shelf.put(number, Kind.PRESENCE, user_id, d)
        else:
            _put(book, number, user_id, fields(d))
    # Nearly every presence names its user by id alone.
    if named:
        merge_known(book, user_id, field(d, b"user") or b"{}")


def _put(book: Book, number: int, user_id: int, found: Fields) -> None:
    if not book.policy.activities:
        found.pop("activities", None)
    book.shelf.put(number, Kind.PRESENCE, user_id, join(found))


def merge_known(book: Book, user_id: int, user: bytes) -> None:
    """A partial user into a user that is known."""
    if (
        "users" in book.kept
        and not book.echoes.knows_user(user_id, user)
        and book.shelf.homes(_MEMBER, user_id, 1)
    ):
        book.take_user(user_id, user)


def take_presence(book: Book, number: int, found: Fields) -> None:
    """A presence inside another event (a chunk, a thread's new members)."""
    user_id = id_of(found["user"])
    if "presences" not in book.kept:
        return
    if same_value(found.get("status", NULL), _OFFLINE):
        book.shelf.remove(number, Kind.PRESENCE, user_id)
    else:
        _put(book, number, user_id, found)
