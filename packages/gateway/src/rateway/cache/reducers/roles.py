"""Roles, emojis, stickers, soundboard sounds: what a guild's members are given and may use.

https://docs.discord.com/developers/events/gateway-events#guild-role-create
"""

from __future__ import annotations

import struct

import msgspec
from rateway.cache.kinds import Kind
from rateway.cache.reader import join_raws
from rateway.cache.reducers.guilds import load_expressions, read_expressions
from rateway.cache.storage import Table
from rateway.cache.writer import CacheWriter
from rateway.native.objects.decoders import id_of
from rateway.native.objects.fields import (
    Fields,
    fields,
    fields_inside,
    join,
    needed_id,
    raws,
    raws_inside,
    snowflake,
)

__all__ = [
    "emojis_update",
    "role_delete",
    "role_upsert",
    "sound_delete",
    "sound_upsert",
    "sounds_replace",
    "sounds_update",
    "stickers_update",
]


def _number(writer: CacheWriter, found: Fields) -> int | None:
    return writer.number_of(needed_id(found, "guild_id"))


def role_upsert(writer: CacheWriter, d: bytes) -> None:
    """The whole role."""
    found = fields(d)
    number, role = _number(writer, found), found["role"]
    role_id = id_of(role)
    if number is not None:
        writer.entity_store.put(number, Kind.ROLE, role_id, bytes(role))


def role_delete(writer: CacheWriter, d: bytes) -> None:
    """Remove a role, and its id from members, emojis and overwrites, for which no events come.

    Members are not rewritten, there may be a million: the id is noted and left out when they are read.
    """
    found = fields(d)
    number, role_id = _number(writer, found), needed_id(found, "role_id")
    if number is None:
        return
    writer.entity_store.remove(number, Kind.ROLE, role_id)
    key = b"removed-roles:" + number.to_bytes(4, "big")
    removed = writer.removed_roles(number) | {role_id}
    writer.storage.put(Table.META, key, struct.pack(f">{len(removed)}Q", *sorted(removed)))
    # As a string, as a number, or with escapes.
    mark = b"%d" % role_id
    for kind, name in ((Kind.EMOJI, "roles"), (Kind.CHANNEL, "permission_overwrites")):
        for entity_id, raw in list(writer.entity_store.walk(number, kind)):
            if mark in raw or b"\\" in raw:
                entity = fields_inside(raw)
                items = raws_inside(entity.get(name))
                kept = [item for item in items if _role_of(item) != role_id]
                if len(kept) < len(items):
                    writer.entity_store.replace(
                        number, kind, entity_id, join({**entity, name: msgspec.Raw(join_raws(kept))})
                    )


def _role_of(item: msgspec.Raw) -> int | None:
    """Return the id of an emoji's role (an id) or of an overwrite (an object)."""
    return snowflake(fields_inside(item).get("id")) if bytes(item)[:1] == b"{" else snowflake(item)


def emojis_update(writer: CacheWriter, d: bytes) -> None:
    """The complete set; ``user`` is kept where it is left out."""
    found = fields(d)
    number, listing = _number(writer, found), read_expressions(found, "emojis")
    if number is not None and listing is not None:
        load_expressions(writer, number, Kind.EMOJI, listing)


def stickers_update(writer: CacheWriter, d: bytes) -> None:
    """The complete set; ``user`` is kept where it is left out."""
    found = fields(d)
    number, listing = _number(writer, found), read_expressions(found, "stickers")
    if number is not None and listing is not None:
        load_expressions(writer, number, Kind.STICKER, listing)


def _put_sound(writer: CacheWriter, number: int, sound_id: int, found: Fields) -> None:
    found.pop("guild_id", None)
    was = writer.entity_store.get(number, Kind.SOUND, sound_id)
    user = fields_inside(was).get("user")
    if user is not None:
        found.setdefault("user", user)
    writer.entity_store.put(number, Kind.SOUND, sound_id, join(found))


def sound_upsert(writer: CacheWriter, d: bytes) -> None:
    """One sound; ``user`` is kept where it is left out."""
    found = fields(d)
    number, sound_id = _number(writer, found), needed_id(found, "sound_id")
    if number is not None:
        _put_sound(writer, number, sound_id, found)


def sound_delete(writer: CacheWriter, d: bytes) -> None:
    """Remove a sound."""
    found = fields(d)
    number, sound_id = _number(writer, found), needed_id(found, "sound_id")
    if number is not None:
        writer.entity_store.remove(number, Kind.SOUND, sound_id)


def sounds_update(writer: CacheWriter, d: bytes) -> None:
    """Some sounds changed; whether the list is complete is not documented, so none is taken away."""
    found = fields(d)
    number, sounds = _number(writer, found), _sounds(found)
    if number is not None:
        for sound_id, sound in sounds.items():
            _put_sound(writer, number, sound_id, sound)


def _sounds(found: Fields) -> dict[int, Fields]:
    items = [fields(raw) for raw in raws(found.get("soundboard_sounds"))]
    return {needed_id(item, "sound_id"): item for item in items}


def sounds_replace(writer: CacheWriter, d: bytes) -> None:
    """SOUNDBOARD_SOUNDS, the answer to op 31: the complete set."""
    found = fields(d)
    number, sounds = _number(writer, found), _sounds(found)
    if number is None or "soundboard_sounds" not in found:
        return
    for sound_id, _ in list(writer.entity_store.walk(number, Kind.SOUND)):
        if sound_id not in sounds:
            writer.entity_store.remove(number, Kind.SOUND, sound_id)
    for sound_id, sound in sounds.items():
        _put_sound(writer, number, sound_id, sound)
