"""Kinds whose events carry the whole entity: write it as it came, or remove it."""

from __future__ import annotations

from collections.abc import Callable

from rateway.cache.kinds import Kind
from rateway.cache.writer import CacheWriter
from rateway.native.objects.fields import fields, join, needed_id

__all__ = ["whole"]


def whole(event: str, kind: Kind, id_field: str) -> Callable[[CacheWriter, bytes], None]:
    """Return the reducer of an event whose ``d`` is an entity of *kind* with its ``guild_id``."""

    def upsert(writer: CacheWriter, d: bytes) -> None:
        found = fields(d)
        guild_id, entity_id = needed_id(found, "guild_id"), needed_id(found, id_field)
        number = writer.number_of(guild_id)
        if number is not None:
            del found["guild_id"]
            writer.entity_store.put(number, kind, entity_id, join(found))

    def delete(writer: CacheWriter, d: bytes) -> None:
        found = fields(d)
        guild_id, entity_id = needed_id(found, "guild_id"), needed_id(found, id_field)
        number = writer.number_of(guild_id)
        if number is not None:
            writer.entity_store.remove(number, kind, entity_id)

    return delete if event.endswith("_DELETE") else upsert
