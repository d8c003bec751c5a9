"""The AMQP frames of an event.

A publish is three kinds of frames: the method (exchange, routing key), the content header (size, properties)
and the body in pieces of at most ``frame_max - 8`` bytes (AMQP 0-9-1, sections 2.3.5 and 4.2). Ours are three
pieces of bytes: the *head*, the *body* and the last frame's end; the head ends where the body begins.
Everything but size, sequence and time is prepared once.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from rateway.delivery.message import Publish
from rateway.native.fast_path import Template

__all__ = [
    "CHANNEL", "END", "MAX_SHORT", "Publish", "Template", "ahead", "body_of", "event_of", "event_properties", "head",
    "key_of", "mandatory", "message_id_of", "own_properties", "pieces", "publish_of", "remark", "republished", "short",
    "size_of", "template",
]  # fmt: skip

# The one channel that events go out on; its number is part of every prepared head.
CHANNEL: Final = 1
END: Final = b"\xce"
# AMQP's short strings carry their length in one byte.
MAX_SHORT: Final = 255

_FRAME = struct.Struct(">BHI")
_U64 = struct.Struct(">Q")
_HEADER_START = b"\x00\x3c\x00\x00"  # class basic, weight 0
_PUBLISH_START = b"\x00\x3c\x00\x28\x00\x00"  # basic.publish, reserved
_BODY_START = _FRAME.pack(3, CHANNEL, 0)[:3]
# Property flags (4.2.6.1), from the highest bit.
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _MESSAGE_ID, _TIMESTAMP, _TYPE = (
    0x8000,
    0x2000,
    0x1000,
    0x0080,
    0x0040,
    0x0020,
)
# Methods that are kept: of each name twice, with the question whether a queue is bound and without. Discord has some
# eighty names.
_METHODS: Final = 500
_REPUBLISHED = b"\x0brepublishedt\x01"
_AHEAD = b"\x05aheadt\x01"


def short(text: bytes) -> bytes:
    """Return AMQP's short string; :class:`ValueError` above 255 bytes."""
    if len(text) > MAX_SHORT:
        raise ValueError("longer than 255 bytes")
    return bytes((len(text),)) + text


def _table(headers: Mapping[str, str | int | bool]) -> bytes:
    fields = b"".join(short(name.encode()) + _value(value) for name, value in headers.items())
    return struct.pack(">I", len(fields)) + fields


def _value(value: str | int | bool) -> bytes:
    if isinstance(value, bool):
        return b"t" + bytes((value,))
    if isinstance(value, int):
        return b"l" + struct.pack(">q", value)
    encoded = value.encode()
    return b"S" + struct.pack(">I", len(encoded)) + encoded


def _shard_fields(shard_id: int, shard_count: int) -> bytes:
    return b"\x08shard_idI%b\x0bshard_countI%b" % (
        struct.pack(">i", shard_id),
        struct.pack(">i", shard_count),
    )


def event_properties(
    name: bytes,
    shard_id: int,
    shard_count: int,
    seq: int | None,
    message_id: bytes | None,
    timestamp: int,
    replayed: bool,
    persistent: bool,
    cause: str | None = None,
) -> bytes:
    """Return the properties of a dispatch (``docs/contract.md``, *Properties*), flags first."""
    fields = _shard_fields(shard_id, shard_count)
    if replayed:
        fields += b"\x08replayedt\x01"
    if cause is not None:
        fields += b"\x05cause" + _value(cause)
    if seq is not None:
        fields += b"\x03seql" + struct.pack(">q", seq)
    flags = (
        _CONTENT_TYPE
        | _HEADERS
        | _DELIVERY_MODE
        | _TIMESTAMP
        | _TYPE
        | (_MESSAGE_ID if message_id is not None else 0)
    )
    return b"".join((
        struct.pack(">H", flags), short(b"application/json"), struct.pack(">I", len(fields)), fields,
        b"\x02" if persistent else b"\x01", short(message_id) if message_id is not None else b"",
        struct.pack(">Q", timestamp), short(name),
    ))  # fmt: skip


def own_properties(
    name: bytes,
    headers: Mapping[str, str | int | bool],
    message_id: str | None,
    timestamp: int,
    persistent: bool,
) -> bytes:
    """Return the properties of a message of the gateway's own."""
    flags = (
        _CONTENT_TYPE
        | _HEADERS
        | _DELIVERY_MODE
        | _TIMESTAMP
        | _TYPE
        | (_MESSAGE_ID if message_id is not None else 0)
    )
    return b"".join((
        struct.pack(">H", flags), short(b"application/json"), _table(headers), b"\x02" if persistent else b"\x01",
        short(message_id.encode()) if message_id is not None else b"", struct.pack(">Q", timestamp), short(name),
    ))  # fmt: skip


@lru_cache(_METHODS)
def _method(exchange: bytes, key: bytes, mandatory: bool) -> bytes:
    arguments = _PUBLISH_START + short(exchange) + short(key) + (b"\x01" if mandatory else b"\x00")
    return _FRAME.pack(1, CHANNEL, len(arguments)) + arguments + END


def head(
    exchange: bytes, key: bytes, properties: bytes, size: int, first: int, mandatory: bool = False
) -> bytes:
    """Return everything before a body of ``size`` bytes whose first frame carries ``first`` of them."""
    content = _HEADER_START + _U64.pack(size) + properties
    begin = _method(exchange, key, mandatory) + _FRAME.pack(2, CHANNEL, len(content)) + content
    # Without a body there is no body frame: the header's own end closes the publish.
    return begin + END + _FRAME.pack(3, CHANNEL, first) if size else begin


def pieces(
    exchange: bytes, publish: Publish, frame_max: int, mandatory: bool = False
) -> tuple[bytes, bytes, bytes]:
    """Return a message as head, body and end, its body cut into frames of at most ``frame_max`` bytes."""
    size, room = len(publish.body), frame_max - 8
    begin = head(exchange, publish.key, publish.properties, size, min(size, room), mandatory)
    if size <= room:
        return begin, publish.body, END
    parts = [publish.body[:room]]
    for start in range(room, size, room):
        part = publish.body[start : start + room]
        parts += (END, _FRAME.pack(3, CHANNEL, len(part)), part)
    return begin, b"".join(parts), END


def template(
    exchange: bytes,
    name: bytes,
    shard_id: int,
    shard_count: int,
    id_prefix: bytes,
    digits: int,
    replayed: bool,
    persistent: bool,
) -> Template:
    """Return the common part of the heads of a shard's events of a name while ``seq`` has so many decimal digits."""
    key = short(name)
    properties = event_properties(
        name, shard_id, shard_count, 0, id_prefix + b"0" * digits, 0, replayed, persistent
    )
    # From the back: the type, the time, the digits, the identity with its length and the delivery mode; seq
    # ends the table.
    stop = len(properties) - len(key) - 8 - digits
    start = stop - len(id_prefix) - 1 - 1
    middle, identity = properties[: start - 8], properties[start:stop]
    begin = (
        _method(exchange, name, False)
        + _FRAME.pack(2, CHANNEL, len(_HEADER_START) + 8 + len(properties))
        + _HEADER_START
    )
    end = key + END + _BODY_START
    return Template(name.decode(), begin, middle, identity, digits, end, END)


def publish_of(head: bytes, body: bytes) -> Publish:
    """Return the message of :func:`pieces` (or of a template's)."""
    method = _FRAME.unpack_from(head)[2]
    at = 7 + len(_PUBLISH_START)
    at += 1 + head[at]
    key = head[at + 1 : at + 1 + head[at]]
    content_at = 7 + method + 1
    content = _FRAME.unpack_from(head, content_at)[2]
    properties = head[content_at + 7 + 12 : content_at + 7 + content]
    return Publish(key, properties, body_of(head, body))


def body_of(head: bytes, body: bytes) -> bytes:
    """Return a body piece without the frame ends inside it."""
    method = _FRAME.unpack_from(head)[2]
    size = int(_U64.unpack_from(head, 7 + method + 1 + 7 + 4)[0])
    if len(body) == size:
        return bytes(body)
    first = _FRAME.unpack_from(head, len(head) - 7)[2]
    parts, at, left = [body[:first]], first, size - first
    while left > 0:
        length = _FRAME.unpack_from(body, at + 1)[2]
        parts.append(body[at + 8 : at + 8 + length])
        at, left = at + 8 + length, left - length
    return b"".join(parts)


def size_of(head: bytes) -> int:
    """Return the size of the body that a head announces, in bytes."""
    return int(_U64.unpack_from(head, 7 + _FRAME.unpack_from(head)[2] + 1 + 7 + 4)[0])


def key_of(head: bytes) -> str:
    """Return the routing key in a head."""
    at = 7 + len(_PUBLISH_START)
    at += 1 + head[at]
    return head[at + 1 : at + 1 + head[at]].decode("utf-8", "replace")


def event_of(properties: bytes) -> tuple[int | None, int | None]:
    """Return (shard, seq) from the properties of an event, as :func:`event_properties` writes them;

    Of another message ``None``.
    """
    at = 2 + 1 + properties[2]
    stop = at + 4 + int.from_bytes(properties[at : at + 4])
    if properties[at + 4 : at + 14] != b"\x08shard_idI":
        return None, None
    shard = int.from_bytes(properties[at + 14 : at + 18], signed=True)
    mark = properties.find(b"\x03seql", at + 18, stop)
    return shard, (int.from_bytes(properties[mark + 5 : mark + 13], signed=True) if mark >= 0 else None)


def message_id_of(properties: bytes) -> str | None:
    """Return the message id in the properties of a message of the gateway's, or ``None``."""
    if not int.from_bytes(properties[:2]) & _MESSAGE_ID:
        return None
    at = 2 + 1 + properties[2]
    at += 4 + int.from_bytes(properties[at : at + 4]) + 1
    return properties[at + 1 : at + 1 + properties[at]].decode("utf-8", "replace")


def republished(properties: bytes) -> bytes:
    """Return the same properties with the header of a message that the broker refused or lost after a later one."""
    return _with_mark(properties, _REPUBLISHED)


def ahead(properties: bytes) -> bytes:
    """Return the same properties with the header of a message that is published before older ones that wait."""
    return _with_mark(properties, _AHEAD)


def _with_mark(properties: bytes, mark: bytes) -> bytes:
    at = 2 + 1 + properties[2]  # flags and content type, which all of ours have
    (length,) = struct.unpack_from(">I", properties, at)
    stop = at + 4 + length
    if mark in properties[at + 4 : stop]:
        return properties
    return (
        properties[:at]
        + struct.pack(">I", length + len(mark))
        + properties[at + 4 : stop]
        + mark
        + properties[stop:]
    )


def mandatory(head: bytes) -> bytes:
    """Return the same head with a publish that the broker returns when no queue is bound."""
    bits = 7 + _FRAME.unpack_from(head)[2] - 1
    return head[:bits] + b"\x01" + head[bits + 1 :]


def remark(head: bytes) -> bytes:
    """Return the same head with :func:`republished` properties."""
    content_at = 7 + _FRAME.unpack_from(head)[2] + 1
    kind, channel, length = _FRAME.unpack_from(head, content_at)
    start, stop = content_at + 7 + 12, content_at + 7 + length
    properties = republished(head[start:stop])
    frame = _FRAME.pack(kind, channel, 12 + len(properties))
    # A mandatory publish would be returned a second time: the retry is an ordinary one.
    method = head[: content_at - 2] + b"\x00" + END
    return method + frame + head[content_at + 7 : start] + properties + head[stop:]
