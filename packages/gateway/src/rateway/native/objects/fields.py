"""JSON objects changed one level deep: field name → its bytes as Discord wrote them.

Merging follows Discord's rule for partial objects: a field that is there overwrites, null included; a field that is
absent leaves the old value; arrays are replaced, never merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, TypeAlias

import msgspec

__all__ = [
    "FALSE",
    "MOST_COUNT",
    "MOST_ID",
    "NULL",
    "UNREADABLE",
    "Fields",
    "Raws",
    "Snowflake",
    "Unreadable",
    "fields",
    "fields_inside",
    "integer",
    "join",
    "needed_count",
    "needed_id",
    "objects_inside",
    "raws",
    "raws_inside",
    "same_value",
    "snowflake",
    "text",
    "without",
]

# The greatest id: they are 64 bits wide, here and in the store's keys.
MOST_ID = (1 << 64) - 1
# The greatest count: what JSON's readers hold exactly, and a row of the store has room for.
MOST_COUNT = (1 << 53) - 1

Snowflake: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
"""An id, as a number or a string of digits (with a decoder that is not strict).

The decoder cannot say that it has to be at most :data:`MOST_ID`: code that keeps one without asking the store first
looks at that.
"""

Fields: TypeAlias = dict[str, msgspec.Raw]
Raws: TypeAlias = list[msgspec.Raw]

NULL = msgspec.Raw(b"null")
FALSE = msgspec.Raw(b"false")

# What decoding raises, whatever the bytes are.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_snowflake = msgspec.json.Decoder(Snowflake, strict=False).decode


def fields(raw: bytes | memoryview | msgspec.Raw) -> Fields:
    """Return an object's fields. ``msgspec.DecodeError`` when it is none."""
    return _fields(raw)


def raws(raw: bytes | memoryview | msgspec.Raw | None) -> Raws:
    """Return an array's items; none for null and for an array that is missing."""
    if raw is None or raw == NULL:
        return []
    return _raws(raw)


def fields_inside(raw: bytes | memoryview | msgspec.Raw | None) -> Fields:
    """Return the fields of an object in another one's field; none where it is no object. For what is stored already:
    Discord may have written anything there.
    """
    try:
        return {} if raw is None else _fields(raw)
    except UNREADABLE:
        return {}


def raws_inside(raw: bytes | memoryview | msgspec.Raw | None) -> Raws:
    """Return the items of an array in a stored object's field; none where it is no array."""
    try:
        return [] if raw is None else _raws(raw)
    except UNREADABLE:
        return []


def objects_inside(raw: bytes | memoryview | msgspec.Raw | None) -> list[Fields]:
    """Return the objects of an array in a stored object's field; what else is in it is left out."""
    return [found for item in raws_inside(raw) if (found := fields_inside(item))]


def same_value(one: msgspec.Raw, other: msgspec.Raw) -> bool:
    """Whether two fields say the same, however it is written (a number, escapes in a string)."""
    if one == other:
        return True
    try:
        return bool(_any(one) == _any(other))
    except UNREADABLE:
        return False


def join(found: Mapping[str, msgspec.Raw]) -> bytes:
    """Fields to an object's JSON."""
    return _encode(found)


def without(found: Fields, names: Iterable[str]) -> Fields:
    """Fields less some names; changes and returns what was given."""
    for name in names:
        found.pop(name, None)
    return found


def snowflake(raw: msgspec.Raw | None) -> int | None:
    """Return an id or a count in a field, as a string or a number; None when it is missing, null or none."""
    if raw is None or raw == NULL:
        return None
    try:
        found = _snowflake(raw)
    except UNREADABLE:
        return None
    return found if found <= MOST_ID else None


class Unreadable(ValueError):
    """An event of which nothing can be taken into the cache. Its text says why, in words from a small set."""


def needed_id(found: Fields, name: str) -> int:
    """Return the id in a field that an event is nothing without. Raises :class:`Unreadable`."""
    value = snowflake(found.get(name))
    if value is None:
        raise Unreadable(f"{name} is no id")
    return value


def needed_count(found: Fields, name: str) -> int:
    """Return the count in a field. Raises :class:`Unreadable`."""
    value = snowflake(found.get(name))
    if value is None or value > MOST_COUNT:
        raise Unreadable(f"{name} is no count")
    return value


def integer(value: int) -> msgspec.Raw:
    """Return a number as a field."""
    return msgspec.Raw(b"%d" % value)


def text(value: str | int) -> msgspec.Raw:
    """Return a string, or an id as Discord writes ids, as a field."""
    return msgspec.Raw(_encode(str(value)))
