"""Stage instances, scheduled events with their count of users, integrations.

https://docs.discord.com/developers/events/gateway-events#stage-instances
"""

from __future__ import annotations

import msgspec

from rateway.cache.book import Book
from rateway.cache.objects import Fields, fields, integer, join, needed_id, snowflake
from rateway.cache.shelf import Kind

__all__ = [
    "integration_delete", "integration_upsert", "scheduled_event_delete", "scheduled_event_upsert",
    "scheduled_event_user_add", "scheduled_event_user_remove", "stage_delete", "stage_upsert",
]  # fmt: skip

# Completed and cancelled: the event is over
# (https://docs.discord.com/developers/resources/guild-scheduled-event#guild-scheduled-event-object-guild-scheduled-event-status).
OVER = (msgspec.Raw(b"3"), msgspec.Raw(b"4"))


def _place(book: Book, found: Fields, name: str = "id") -> tuple[int, int] | None:
    guild_id, entity_id = needed_id(found, "guild_id"), needed_id(found, name)
    number = book.number_of(guild_id)
    return None if number is None else (number, entity_id)


def stage_upsert(book: Book, d: bytes) -> None:
    """The whole stage instance."""
    found = fields(d)
    if (place := _place(book, found)) is not None:
        found.pop("guild_id", None)
        book.shelf.put(place[0], Kind.STAGE, place[1], join(found))


def stage_delete(book: Book, d: bytes) -> None:
    """Comes twice when a scheduled event was attached."""
    if (place := _place(book, fields(d))) is not None:
        book.shelf.remove(place[0], Kind.STAGE, place[1])


def scheduled_event_upsert(book: Book, d: bytes) -> None:
    """The whole event; the tracked ``user_count`` and ``creator`` stay where they are left out. Over: it goes."""
    found = fields(d)
    if (place := _place(book, found)) is None:
        return
    number, event_id = place
    if found.get("status") in OVER:
        book.shelf.remove(number, Kind.SCHEDULED_EVENT, event_id)
        return
    found.pop("guild_id", None)
    was = book.shelf.get(number, Kind.SCHEDULED_EVENT, event_id)
    if was is not None:
        old = fields(was)
        for name in ("user_count", "creator"):
            if name in old:
                found.setdefault(name, old[name])
    book.shelf.put(number, Kind.SCHEDULED_EVENT, event_id, join(found))


def scheduled_event_delete(book: Book, d: bytes) -> None:
    """Cancelled events come here with the status that they had."""
    if (place := _place(book, fields(d))) is not None:
        book.shelf.remove(place[0], Kind.SCHEDULED_EVENT, place[1])


def _count(book: Book, d: bytes, change: int) -> None:
    if (place := _place(book, fields(d), "guild_scheduled_event_id")) is None:
        return
    was = book.shelf.get(place[0], Kind.SCHEDULED_EVENT, place[1])
    if was is None:
        return
    old = fields(was)
    count = snowflake(old.get("user_count"))
    if count is not None:
        changed = {**old, "user_count": integer(max(0, count + change))}
        book.shelf.replace(place[0], Kind.SCHEDULED_EVENT, place[1], join(changed))


def scheduled_event_user_add(book: Book, d: bytes) -> None:
    """One more, where the count is known."""
    _count(book, d, +1)


def scheduled_event_user_remove(book: Book, d: bytes) -> None:
    """One less, where the count is known."""
    _count(book, d, -1)


def integration_upsert(book: Book, d: bytes) -> None:
    """Merged, because ``user`` is left out. There is no snapshot of integrations: the cache of them is partial."""
    found = fields(d)
    if (place := _place(book, found)) is not None:
        found.pop("guild_id", None)
        was = book.shelf.get(place[0], Kind.INTEGRATION, place[1])
        merged = {**fields(was), **found} if was is not None else found
        book.shelf.put(place[0], Kind.INTEGRATION, place[1], join(merged))


def integration_delete(book: Book, d: bytes) -> None:
    """One integration less."""
    if (place := _place(book, fields(d))) is not None:
        book.shelf.remove(place[0], Kind.INTEGRATION, place[1])
