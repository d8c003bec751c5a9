"""Channels: created, changed, deleted with all that belongs to them; pins, statuses of voice channels.

https://docs.discord.com/developers/events/gateway-events#channels
"""

from __future__ import annotations

import msgspec
from rateway.cache.kinds import Kind
from rateway.cache.reader import DIRECT
from rateway.cache.writer import CacheWriter
from rateway.native.objects.fields import (
    NULL,
    Fields,
    Snowflake,
    fields,
    fields_inside,
    join,
    needed_id,
    raws,
    snowflake,
    without,
)

__all__ = [
    "channel_delete", "channel_info", "channel_pins", "channel_upsert", "drop_thread", "voice_channel_detail",
]  # fmt: skip


class _Channel(msgspec.Struct, gc=False):
    id: Snowflake
    guild_id: Snowflake | None = None


_channel = msgspec.json.Decoder(_Channel, strict=False).decode


def channel_upsert(writer: CacheWriter, d: bytes) -> None:
    """Write the whole channel. The newest message, which the event never carries, is stored beside it and stays."""
    head = _channel(d)
    if head.guild_id is None:
        place = writer.place_of(head.id)
        number = place[0] if place is not None else None
    else:
        number = writer.number_of(head.guild_id)
    if number is None or number == DIRECT:
        return
    writer.entity_store.put(number, Kind.CHANNEL, head.id, join(without(fields(d), ("guild_id",))))
    writer.moved(head.id)


def channel_delete(writer: CacheWriter, d: bytes) -> None:
    """Remove a channel and what belongs to it, for which no events come: threads, messages, stage instances,
    scheduled events, voice states."""
    head = _channel(d)
    place = writer.place_of(head.id)
    number = (
        writer.number_of(head.guild_id)
        if head.guild_id is not None
        else place[0]
        if place is not None
        else None
    )
    if number is None:
        return
    entity_store = writer.entity_store
    for thread_id, raw in list(entity_store.walk(number, Kind.THREAD)):
        if snowflake(fields_inside(raw).get("parent_id")) == head.id:
            drop_thread(writer, number, thread_id)
    for kind in (Kind.STAGE, Kind.SCHEDULED_EVENT, Kind.VOICE_STATE):
        for entity_id, raw in list(entity_store.walk(number, kind)):
            if snowflake(fields_inside(raw).get("channel_id")) == head.id:
                entity_store.remove(number, kind, entity_id)
    entity_store.remove(number, Kind.SIDE, head.id)
    entity_store.remove(number, Kind.CHANNEL, head.id)
    writer.forget_channel(head.id)


def drop_thread(writer: CacheWriter, number: int, thread_id: int) -> None:
    """A thread, the bot's membership in it, its messages."""
    writer.entity_store.remove(number, Kind.THREAD, thread_id)
    writer.entity_store.remove(number, Kind.THREAD_MEMBER, thread_id)
    writer.forget_channel(thread_id)


def channel_pins(writer: CacheWriter, d: bytes) -> None:
    """``last_pin_timestamp`` of a channel or thread; absent means that nothing is pinned any more."""
    found = fields(d)
    channel_id = needed_id(found, "channel_id")
    place = writer.place_of(channel_id)
    if place is None:
        return
    _merge(writer, *place, channel_id, {"last_pin_timestamp": found.get("last_pin_timestamp", NULL)})


def _merge(writer: CacheWriter, number: int, kind: int, entity_id: int, new: Fields) -> None:
    raw = writer.entity_store.get(number, kind, entity_id)
    if raw is not None:
        old = fields(raw)
        if (merged := {**old, **new}) != old:
            writer.entity_store.replace(number, kind, entity_id, join(merged))


_DETAILS = ("status", "voice_start_time")


def _note_details(writer: CacheWriter, number: int, channel_id: int, found: Fields) -> None:
    details = {name: found[name] for name in _DETAILS if name in found}
    place = writer.place_of(channel_id)
    if not details or place is None or place[0] != number:
        return
    raw = writer.entity_store.get(number, Kind.SIDE, channel_id)
    old = fields(raw) if raw is not None else {}
    if (merged := {**old, **details}) != old:
        writer.entity_store.put(number, Kind.SIDE, channel_id, join(merged))


def channel_info(writer: CacheWriter, d: bytes) -> None:
    """The answer to op 43: only the fields that were asked for. They are no fields of the channel object."""
    found = fields(d)
    number = writer.number_of(needed_id(found, "guild_id"))
    channels = [fields(raw) for raw in raws(found.get("channels"))]
    for channel_id, channel in [(needed_id(channel, "id"), channel) for channel in channels]:
        if number is not None:
            _note_details(writer, number, channel_id, channel)


def voice_channel_detail(writer: CacheWriter, d: bytes) -> None:
    """VOICE_CHANNEL_STATUS_UPDATE and VOICE_CHANNEL_START_TIME_UPDATE."""
    found = fields(d)
    guild_id, channel_id = needed_id(found, "guild_id"), needed_id(found, "id")
    number = writer.number_of(guild_id)
    if number is not None:
        _note_details(writer, number, channel_id, found)
