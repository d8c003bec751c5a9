"""Single fields of an AMQP header table, read without decoding the rest.

A table comes from any publisher: it can be deep, wide, and wrong in any length (AMQP 0-9-1, 4.2.5.5; RabbitMQ's types:
https://www.rabbitmq.com/amqp-0-9-1-errata.html). Values that are not asked for are stepped over by their length, nested
tables and arrays included, so that a table costs its number of top-level fields at most. What is passed on is passed on
as the bytes that it came as.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

__all__ = ["MOST_FIELDS", "TableUnreadable", "fields_of", "sound_fields", "with_integer"]

# A worker sets one or two headers, a shovel or a dead-letter exchange a handful more.
MOST_FIELDS: Final = 256

_TEXT: Final = ord("S")
_U32: Final = struct.Struct(">I").unpack_from


class TableUnreadable(ValueError):
    """The table has a wrong length, a type that AMQP does not have, or too many fields; the text says which."""


def _unsigned(width: int) -> tuple[int, Callable[[bytes], Any]]:
    return width, lambda raw: int.from_bytes(raw)


def _signed(width: int) -> tuple[int, Callable[[bytes], Any]]:
    return width, lambda raw: int.from_bytes(raw, signed=True)


# Type → how many bytes a value has (None: a length of four bytes comes first), and the value that it stands for.
# Whatever cannot name a shard or a guild is given as an empty value of its kind.
_TYPES: Final[Mapping[int, tuple[int | None, Callable[[bytes], Any]]]] = {
    ord("t"): (1, lambda raw: raw != b"\0"),
    ord("b"): _signed(1),
    ord("B"): _unsigned(1),
    ord("s"): _signed(2),
    ord("U"): _signed(2),
    ord("u"): _unsigned(2),
    ord("I"): _signed(4),
    ord("i"): _unsigned(4),
    ord("l"): _signed(8),
    ord("L"): _signed(8),
    ord("f"): (4, lambda raw: float(struct.unpack(">f", raw)[0])),
    ord("d"): (8, lambda raw: float(struct.unpack(">d", raw)[0])),
    ord("D"): (5, lambda raw: 0.0),
    ord("T"): (8, lambda raw: 0.0),
    ord("S"): (None, lambda raw: raw),
    ord("x"): (None, lambda raw: raw),
    ord("A"): (None, lambda raw: []),
    ord("F"): (None, lambda raw: {}),
    ord("V"): (0, lambda raw: None),
    # Not in any document, but sent by some libraries for "no value".
    0: (0, lambda raw: None),
}


def _walk(table: bytes) -> Iterator[tuple[int, bytes, int, int, int]]:
    """Yield where each field begins, its name, its type, where its value begins and where it ends."""
    at, size, count = 0, len(table), 0
    try:
        while at < size:
            count += 1
            if count > MOST_FIELDS:
                raise TableUnreadable(f"there are more than {MOST_FIELDS} headers")
            begin = at
            at += 1 + table[at]
            name, kind = table[begin + 1 : at], table[at]
            value_at = at + 1
            width = _TYPES[kind][0]
            if width is None:
                width = _U32(table, value_at)[0]
                value_at += 4
            at = value_at + width
            if at > size:
                break
            yield begin, name, kind, value_at, at
    except (IndexError, struct.error):
        at = size + 1
    except KeyError as unknown:
        raise TableUnreadable(f"a header has the unknown type {unknown}") from None
    if at > size:
        raise TableUnreadable("a header is longer than the table")


def fields_of(table: bytes, names: Collection[bytes]) -> dict[str, Any]:
    """Return the values of some fields (strings as bytes); of a name that comes twice, the last.

    *table* is a table's content, without its length. Raises :class:`TableUnreadable`.
    """
    found = {}
    for _, name, kind, value_at, end in _walk(table):
        if name in names:
            found[name.decode("ascii")] = _TYPES[kind][1](table[value_at:end])
    return found


def sound_fields(table: bytes, wanted: Mapping[bytes, Collection[int]]) -> bytes:
    """Return the table with those fields alone that are *wanted*, have one of the types said there, and are text if
    strings. Raises :class:`TableUnreadable`.
    """
    parts = []
    for begin, name, kind, value_at, end in _walk(table):
        if kind in wanted.get(name, ()):
            value = table[value_at:end]
            try:
                if kind == _TEXT:
                    value.decode()
            except UnicodeDecodeError:
                continue
            parts.append(table[begin:end])
    return b"".join(parts)


def with_integer(table: bytes, name: bytes, value: int) -> bytes:
    """Return the table with one field replaced or added, every other as it is. Raises :class:`TableUnreadable`."""
    parts, kept_from = [], 0
    for begin, found, _, _, end in _walk(table):
        if found == name:
            parts.append(table[kept_from:begin])
            kept_from = end
    parts.append(table[kept_from:])
    parts.append(b"%c%bl" % (len(name), name) + value.to_bytes(8, signed=True))
    return b"".join(parts)
