"""The reference: deliveries of a stream as AMQP 0-9-1 frames (1.8.3.14, 2.3.5, 4.2.5, 4.2.6) become entries.

The frames are the broker's, their contents come from any client that may publish to a cluster's exchange: properties
that are not the gateway's make an entry of no shard, and never raise.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, Generic, TypeVar

__all__ = ["EntryParser"]

Entry = TypeVar("Entry")

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, 0xCE
# Class and method of basic.deliver.
_DELIVER: Final = b"\x00\x3c\x00\x3c"
# Session ids and names that are remembered as text, so that equal ones are one object; then all are forgotten.
_MOST_TEXTS: Final = 4_096
# What a sequence number and the number of a repetition have at most, in decimal digits.
_SEQ_DIGITS, _REPEAT_DIGITS, _SHARD_DIGITS = 18, 9, 9

_frame = struct.Struct(">BHI").unpack_from
_u16 = struct.Struct(">H").unpack_from
_u32 = struct.Struct(">I").unpack_from
_u64 = struct.Struct(">Q").unpack_from

# Widths of a table's values (4.2.5.5 and RabbitMQ's errata); of those that are not here a length of four bytes comes
# first, or they are unknown.
_WIDTHS: Final = {
    **dict.fromkeys(b"tbB", 1), **dict.fromkeys(b"sUu", 2), **dict.fromkeys(b"Iif", 4), **dict.fromkeys(b"lLdT", 8),
    ord("D"): 5, ord("V"): 0, 0: 0,
}  # fmt: skip
_SIZED: Final = frozenset(b"SxAF")
_SIGNED, _UNSIGNED = frozenset(b"bsUIlL"), frozenset(b"Bui")


class EntryParser(Generic[Entry]):
    """Makes entries of the deliveries on one channel.

    *make* is called with offset, name, body, shard id, session, sequence number, repetition, whether it is out of
    order, and timestamp, as :class:`~rateway.delivery.proxy_port.LogEntry` has them. Without ``x-stream-offset`` the
    offset is -1: it is no stream that delivers.
    """

    __slots__ = ("_make", "_texts", "entries", "tag")

    def __init__(self, make: Callable[[int, str, bytes, int, str, int, int, bool, int], Entry]) -> None:
        self._make = make
        self._texts: dict[bytes, str] = {}
        self.entries: list[Entry] = []
        """What was made since this was last replaced with an empty list."""
        self.tag = 0
        """The delivery tag of the last of them."""

    def parse(self, data: bytes, at: int, channel: int, room: int) -> int:
        """Make entries of all whole deliveries on that channel that follow one another from *at* on, and return where
        they end: *at* itself where the frames there have to be looked at one by one.

        A delivery is whole when its three frames are there, its body in one piece; ``room`` is the most bytes that a
        frame's payload may have.
        """
        size = len(data)
        while size - at >= 7 + 4:
            kind, number, length = _frame(data, at)
            if kind != _METHOD or number != channel or length > room or not data.startswith(_DELIVER, at + 7):
                break
            header_at = at + length + 8
            if size < header_at + 7 + 14 or data[header_at - 1] != _END:
                break
            kind, number, header_length = _frame(data, header_at)
            if kind != _HEADER or number != channel or not 14 <= header_length <= room:
                break
            (body_size,) = _u64(data, header_at + 7 + 4)
            body_at = header_at + header_length + 8
            end = body_at + body_size + 8 if body_size else body_at
            if body_size > room or size < end or data[body_at - 1] != _END:
                break
            if body_size:
                kind, number, length = _frame(data, body_at)
                if kind != _BODY or number != channel or length != body_size or data[end - 1] != _END:
                    break
            if not self._make_one(
                data, at, header_at, data[body_at + 7 : body_at + 7 + body_size] if body_size else b""
            ):
                break
            at = end
        return at

    def parse_parts(self, method: bytes, header: bytes, body: bytes) -> bool:
        """Make an entry of a delivery that came in pieces: the frame of the method, the frame of the content header,
        and the whole body. False when one of the two is torn."""
        if len(header) < 7 + 14 + 1 or _u32(header, 3)[0] != len(header) - 8 or len(method) < 7 + 4 + 1:
            return False
        return self._make_one(method + header, 0, len(method), body)

    def _make_one(self, data: bytes, method_at: int, header_at: int, body: bytes) -> bool:
        end = header_at - 1
        at = method_at + 7 + 4
        at += 1 + data[at]  # the consumer's tag
        tag_at, at = at, at + 9
        if at >= end:
            return False
        at += 1 + data[at]  # the exchange
        if at >= end or at + 1 + data[at] > end:
            return False
        (self.tag,) = _u64(data, tag_at)
        name = self._text(data[at + 1 : at + 1 + data[at]])
        offset, shard, out_of_order, message_id, timestamp = _properties(data, header_at)
        session, seq, repeat = b"", 0, 0
        if shard >= 0 and message_id:
            session, seq, repeat = _identity(message_id, shard)
        self.entries.append(
            self._make(offset, name, body, shard, self._text(session), seq, repeat, out_of_order, timestamp)
        )
        return True

    def _text(self, raw: bytes) -> str:
        known = self._texts.get(raw)
        if known is None:
            if len(self._texts) >= _MOST_TEXTS:
                self._texts.clear()
            known = self._texts[raw] = raw.decode("utf-8", "replace")
        return known


def _properties(data: bytes, at: int) -> tuple[int, int, bool, bytes, int]:
    """(offset, shard id, whether it is out of order, message id, timestamp) from a content header's frame."""
    end = at + 7 + int(_u32(data, at + 3)[0])
    at += 7 + 12
    offset, shard, out_of_order, message_id, timestamp = -1, -1, False, b"", 0
    (flags,) = _u16(data, at)
    at += 2
    # Of properties that do not fit into their frame, what stands before the fault counts.
    for flag in (0x8000, 0x4000):  # content type and encoding
        if flags & flag:
            if at >= end:
                return offset, shard, out_of_order, message_id, timestamp
            at += 1 + data[at]
    if flags & 0x2000:
        if end - at < 4 or end - at - 4 < _u32(data, at)[0]:
            return offset, shard, out_of_order, message_id, timestamp
        stop = at + 4 + int(_u32(data, at)[0])
        offset, shard, out_of_order = _headers(data, at + 4, stop)
        at = stop
    at += (flags & 0x1000 > 0) + (flags & 0x0800 > 0)  # delivery mode, priority
    for flag in (0x0400, 0x0200, 0x0100):  # correlation id, reply to, expiration
        if flags & flag:
            if at >= end:
                return offset, shard, out_of_order, message_id, timestamp
            at += 1 + data[at]
    if flags & 0x0080:
        if at >= end or end - at <= data[at]:
            return offset, shard, out_of_order, message_id, timestamp
        message_id, at = data[at + 1 : at + 1 + data[at]], at + 1 + data[at]
    if flags & 0x0040 and end - at >= 8:
        (timestamp,) = _u64(data, at)
    # A clock beyond any is none.
    return offset, shard, out_of_order, message_id, timestamp if timestamp < 1 << 62 else 0


def _headers(data: bytes, at: int, end: int) -> tuple[int, int, bool]:
    """(offset, shard id, whether it is out of order) from a table's fields."""
    offset, shard, out_of_order = -1, -1, False
    while at < end:
        name_end = at + 1 + data[at]
        if name_end >= end:
            break
        name, kind, at = data[at + 1 : name_end], data[name_end], name_end + 1
        width = _WIDTHS.get(kind)
        if width is None:
            if kind not in _SIZED or at + 4 > end:
                break
            width = int(_u32(data, at)[0])
            at += 4
        if at + width > end:
            break
        value = data[at : at + width]
        at += width
        if name == b"x-stream-offset":
            offset = _whole(kind, value)
        elif name == b"shard_id":
            shard = _whole(kind, value)
            if shard > 0x7FFF_FFFF:
                shard = -1
        elif name in (b"republished", b"ahead"):
            out_of_order = out_of_order or (kind == ord("t") and value != b"\x00")
    return offset, shard, out_of_order


def _whole(kind: int, value: bytes) -> int:
    """Return a whole number that is not negative; -1 for anything else."""
    if kind in _SIGNED:
        return max(-1, int.from_bytes(value, signed=True))
    return int.from_bytes(value) if kind in _UNSIGNED else -1


def _identity(message_id: bytes, shard: int) -> tuple[bytes, int, int]:
    """(session, sequence number, repetition) of ``<session>:<shard>:<seq>`` or ``…:r<n>``; nothing of another form."""
    rest, _, last = message_id.rpartition(b":")
    repeat = 0
    if last.startswith(b"r") and last[1:].isdigit() and len(last) <= 1 + _REPEAT_DIGITS:
        repeat = int(last[1:])
        rest, _, last = rest.rpartition(b":")
    session, _, of_shard = rest.rpartition(b":")
    if (
        not session
        or not (last.isdigit() and len(last) <= _SEQ_DIGITS)
        or not (of_shard.isdigit() and len(of_shard) <= _SHARD_DIGITS)
        or int(of_shard) != shard
    ):
        return b"", 0, 0
    return session, int(last), repeat
