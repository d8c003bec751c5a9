"""Read what the broker says of a message that it delivers, by hand: queries come by the ten thousand.

``basic.deliver`` (AMQP 0-9-1, 1.8.3.14) and the content header's properties (4.2.6.1). Of these only what the gateway
answers by is taken out; the rest is stepped over. Properties are the publisher's own bytes: nothing in them is decoded
here, whatever is wrong with them is a value (:attr:`Properties.fault`), and above :data:`MAX_PROPERTIES` bytes they are
not read.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec
from rateway.delivery.port import MAX_PROPERTIES, MessageFault

__all__ = [
    "DELIVER", "MAX_PROPERTIES", "NO_PROPERTIES", "PROPERTIES_TOO_LARGE", "Delivery", "Properties",
    "body_size_of", "delivered", "delivery_of", "properties_of",
]  # fmt: skip

# Class and method of basic.deliver, where a method frame's payload begins.
DELIVER: Final = b"\x00\x3c\x00\x3c"
# A frame's payload begins after type, channel and size; its last byte is the frame's end.
_PAYLOAD: Final = 7
# In a content header: class and weight, then the body's size, then the flags.
_SIZE_AT: Final = _PAYLOAD + 4
_FLAGS_AT: Final = _SIZE_AT + 8

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, 0xCE

_frame = struct.Struct(">BHI").unpack_from
# A content header's frame up to the flags: type, channel, size of the payload; class and weight, the body's size.
_header = struct.Struct(">BHIIQ").unpack_from
_u64 = struct.Struct(">Q").unpack_from
_u32 = struct.Struct(">I").unpack_from
_u16 = struct.Struct(">H").unpack_from


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """The fields of a ``basic.deliver``."""

    tag: int
    redelivered: bool
    key: str


class Properties(msgspec.Struct, frozen=True, gc=False):
    """The needed part of a message's properties, as the bytes that came."""

    headers: bytes
    """The fields of the table, without its length."""
    correlation_id: bytes | None
    reply_to: bytes | None
    expiration: bytes | None
    """Milliseconds as text."""
    fault: MessageFault | None = None
    """Why the message is refused; what could be read all the same stands beside it."""
    rest: bytes = b""
    """What follows the expiration, undecoded: message id, timestamp and so on."""


NO_PROPERTIES: Final = Properties(b"", None, None, None)
PROPERTIES_TOO_LARGE: Final = Properties(b"", None, None, None, "properties_too_large")


def delivery_of(frame: bytes, at: int = 0) -> Delivery:
    """Read the whole frame of a ``basic.deliver``. Raises IndexError, ValueError or struct.error when it is torn."""
    at += _PAYLOAD + len(DELIVER)
    at += 1 + frame[at]  # the consumer's tag
    (tag,) = _u64(frame, at)
    redelivered = bool(frame[at + 8])
    at += 9
    at += 1 + frame[at]  # the exchange
    # A queue may be bound elsewhere, too, and a routing key is any bytes.
    return Delivery(tag, redelivered, frame[at + 1 : at + 1 + frame[at]].decode("utf-8", "replace"))


def body_size_of(frame: bytes) -> int:
    """Return how many bytes of body follow a content header."""
    size: int = _u64(frame, _SIZE_AT)[0]
    return size


def delivered(
    data: bytes, at: int, channel: int, room: int
) -> tuple[Delivery, Properties, bytes, int] | None:
    """Return a message whose three frames are all there, and where the next frame begins; None when the frames have to
    be looked at one by one: one is missing, or is not as it should be, or the body is in several pieces.

    A ``basic.deliver`` begins at ``at``; ``room`` is the most bytes that a frame's payload may have.
    """
    size = len(data)
    kind, number, length = _frame(data, at)
    header_at = at + length + 8
    if kind != _METHOD or number != channel or size < header_at + _FLAGS_AT or data[header_at - 1] != _END:
        return None
    kind, number, header_length, _, body_size = _header(data, header_at)
    body_at = header_at + header_length + 8
    end = body_at + body_size + 8
    if kind != _HEADER or number != channel or size < end or length > room or header_length > room:
        return None
    kind, number, length = _frame(data, body_at)
    if (
        kind != _BODY or number != channel or length != body_size or length > room
        or data[body_at - 1] != _END or data[end - 1] != _END
    ):  # fmt: skip
        return None
    return delivery_of(data, at), properties_of(data, header_at), data[body_at + _PAYLOAD : end - 1], end


def properties_of(frame: bytes, at: int = 0) -> Properties:
    """Return the properties in a whole frame of a content header, which begins at ``at``. Never raises."""
    end = at + _PAYLOAD + _u32(frame, at + 3)[0]
    at += _FLAGS_AT
    correlation_id = reply_to = expiration = None
    headers = b""
    try:
        (flags,) = _u16(frame, at)
        if not flags:
            return NO_PROPERTIES
        at += 2
        # Step over properties without decoding any: a position behind the frame is noticed at the end.
        if flags & 0x8000:  # content type
            at += 1 + frame[at]
        if flags & 0x4000:  # content encoding
            at += 1 + frame[at]
        table_at = table_end = at
        if flags & 0x2000:
            table_at = at + 4
            table_end = at = table_at + _u32(frame, at)[0]
        if flags & 0x1000:  # delivery mode
            at += 1
        if flags & 0x0800:  # priority
            at += 1
        if flags & 0x0400:
            start, at = at + 1, at + 1 + frame[at]
            if at <= end:
                correlation_id = frame[start:at] or None
        if flags & 0x0200:
            start, at = at + 1, at + 1 + frame[at]
            if at <= end:
                reply_to = frame[start:at] or None
        if flags & 0x0100:
            start, at = at + 1, at + 1 + frame[at]
            if at <= end:
                expiration = frame[start:at] or None
    except (IndexError, struct.error):
        return Properties(b"", correlation_id, reply_to, expiration, "properties_unreadable")
    # The last two bits: another word of flags, which class basic does not have, and one that is reserved.
    if at > end or flags & 0x0003:
        return Properties(b"", correlation_id, reply_to, expiration, "properties_unreadable")
    if table_end - table_at > MAX_PROPERTIES:
        return Properties(b"", correlation_id, reply_to, expiration, "properties_too_large")
    if table_end > table_at:
        headers = frame[table_at:table_end]
    if at < end:
        return Properties(headers, correlation_id, reply_to, expiration, None, frame[at:end])
    return Properties(headers, correlation_id, reply_to, expiration)
