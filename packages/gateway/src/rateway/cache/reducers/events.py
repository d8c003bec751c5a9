"""Scheduled events with their count of users, integrations.

https://docs.discord.com/developers/events/gateway-events#guild-scheduled-event-create
"""

from __future__ import annotations

import msgspec
from rateway.cache.kinds import Kind
from rateway.cache.writer import CacheWriter
from rateway.native.objects.fields import Fields, fields, integer, join, needed_id, snowflake

__all__ = [
    "integration_delete", "integration_upsert", "scheduled_event_delete", "scheduled_event_upsert",
    "scheduled_event_user_add", "scheduled_event_user_remove",
]  # fmt: skip

# Completed and cancelled: the event is over
# (https://docs.discord.com/developers/resources/guild-scheduled-event#guild-scheduled-event-object-guild-scheduled-event-status).
OVER = (msgspec.Raw(b"3"), msgspec.Raw(b"4"))


def _place(writer: CacheWriter, found: Fields, name: str = "id") -> tuple[int, int] | None:
    guild_id, entity_id = needed_id(found, "guild_id"), needed_id(found, name)
    number = writer.number_of(guild_id)
    return None if number is None else (number, entity_id)


def scheduled_event_upsert(writer: CacheWriter, d: bytes) -> None:
    """The whole event; the tracked ``user_count`` and ``creator`` stay where they are left out. Over: it goes."""
    found = fields(d)
    if (place := _place(writer, found)) is None:
        return
    number, event_id = place
    if found.get("status") in OVER:
        writer.entity_store.remove(number, Kind.SCHEDULED_EVENT, event_id)
        return
    found.pop("guild_id", None)
    was = writer.entity_store.get(number, Kind.SCHEDULED_EVENT, event_id)
    if was is not None:
        old = fields(was)
        for name in ("user_count", "creator"):
            if name in old:
                found.setdefault(name, old[name])
    writer.entity_store.put(number, Kind.SCHEDULED_EVENT, event_id, join(found))


def scheduled_event_delete(writer: CacheWriter, d: bytes) -> None:
    """Remove a scheduled event; a cancelled one comes with the status that it had."""
    if (place := _place(writer, fields(d))) is not None:
        writer.entity_store.remove(place[0], Kind.SCHEDULED_EVENT, place[1])


def _count(writer: CacheWriter, d: bytes, change: int) -> None:
    if (place := _place(writer, fields(d), "guild_scheduled_event_id")) is None:
        return
    was = writer.entity_store.get(place[0], Kind.SCHEDULED_EVENT, place[1])
    if was is None:
        return
    old = fields(was)
    count = snowflake(old.get("user_count"))
    if count is not None:
        changed = {**old, "user_count": integer(max(0, count + change))}
        writer.entity_store.replace(place[0], Kind.SCHEDULED_EVENT, place[1], join(changed))


def scheduled_event_user_add(writer: CacheWriter, d: bytes) -> None:
    """Add one to ``user_count``, where it is known."""
    _count(writer, d, +1)


def scheduled_event_user_remove(writer: CacheWriter, d: bytes) -> None:
    """Subtract one from ``user_count``, where it is known."""
    _count(writer, d, -1)


def integration_upsert(writer: CacheWriter, d: bytes) -> None:
    """Merged, because ``user`` is left out. There is no snapshot of integrations: the cache of them is partial."""
    found = fields(d)
    if (place := _place(writer, found)) is not None:
        found.pop("guild_id", None)
        was = writer.entity_store.get(place[0], Kind.INTEGRATION, place[1])
        merged = {**fields(was), **found} if was is not None else found
        writer.entity_store.put(place[0], Kind.INTEGRATION, place[1], join(merged))


def integration_delete(writer: CacheWriter, d: bytes) -> None:
    """Remove an integration."""
    if (place := _place(writer, fields(d))) is not None:
        writer.entity_store.remove(place[0], Kind.INTEGRATION, place[1])
