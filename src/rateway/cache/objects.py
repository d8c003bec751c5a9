"""How are JSON objects changed without taking them apart? One level deep: field name → its bytes as Discord wrote them.

Merging follows Discord's rule for partial objects: a field that is there overwrites, null included; a field that is
absent leaves the old value; arrays are replaced, never merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import msgspec

__all__ = [
    "FALSE",
    "NULL",
    "Fields",
    "Raws",
    "fields",
    "integer",
    "join",
    "raws",
    "snowflake",
    "text",
    "without",
]

Fields: TypeAlias = dict[str, msgspec.Raw]
Raws: TypeAlias = list[msgspec.Raw]

NULL = msgspec.Raw(b"null")
FALSE = msgspec.Raw(b"false")

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_snowflake = msgspec.json.Decoder(int, strict=False).decode


def fields(raw: bytes | memoryview | msgspec.Raw) -> Fields:
    """An object's fields. ``msgspec.DecodeError`` when it is none."""
    return _fields(raw)


def raws(raw: bytes | memoryview | msgspec.Raw | None) -> Raws:
    """An array's items; none for null and for an array that is missing."""
    if raw is None or raw == NULL:
        return []
    return _raws(raw)


def join(found: Mapping[str, msgspec.Raw]) -> bytes:
    """Fields to an object's JSON."""
    return _encode(found)


def without(found: Fields, names: Iterable[str]) -> Fields:
    """Fields less some names; changes and returns what was given."""
    for name in names:
        found.pop(name, None)
    return found


def snowflake(raw: msgspec.Raw | None) -> int | None:
    """An id in a field, as a string or a number; None when it is missing, null or odd."""
    if raw is None or raw == NULL:
        return None
    try:
        return _snowflake(raw)
    except msgspec.DecodeError:
        return None


def integer(value: int) -> msgspec.Raw:
    """A number as a field."""
    return msgspec.Raw(b"%d" % value)


def text(value: str | int) -> msgspec.Raw:
    """A string, or an id as Discord writes ids, as a field."""
    return msgspec.Raw(_encode(str(value)))
