"""Read the broker's frames so that no message can end the connection: what cannot be decoded is left out of it.

A queue of events may hold messages of other publishers, with any bytes in their properties. The AMQP library below
decodes all of them and gives the connection up over the first that it cannot read; the broker would deliver that
message again without end. So the properties are read here, by their lengths: those that an event or an answer is made
of are passed on if they are sound, all others are left out, and above a bound none is read.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Any, Final

from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from rateway_protocol.contract.header_table import TableUnreadable, sound_fields
from yarl import URL

__all__ = ["SoundFrames", "Unreadable", "sound_header", "sound_method"]

log = logging.getLogger(__name__)

# An event's properties have some three hundred bytes.
MAX_PROPERTIES: Final = 64 * 1024
# Between two log lines about messages that could not be read whole, seconds.
SAY_EVERY_S: Final = 60.0

_HEAD: Final = struct.Struct(">BHI")
_END: Final = b"\xce"
_METHOD, _HEADER = 1, 2
# Class, weight and the body's size, ahead of the flags.
_FIXED: Final = 12
_PIECE: Final = 64 * 1024
# Headers of events (docs/contract.md, *Properties*) and of answers, by the types that they have.
_NUMBERS: Final = frozenset(b"bBsuIilL")
_WANTED: Final = {
    b"shard_id": _NUMBERS, b"shard_count": _NUMBERS, b"seq": _NUMBERS, b"replayed": frozenset(b"t"),
    b"republished": frozenset(b"t"), b"ahead": frozenset(b"t"),
    b"cause": frozenset(b"S"), b"status": frozenset(b"S"), b"error": frozenset(b"S"),
}  # fmt: skip
_HEADERS, _CORRELATION_ID, _MESSAGE_ID, _TIMESTAMP, _TYPE = 13, 10, 7, 6, 5
# Properties by the bit of their flag: these have so many bytes, the others are short strings.
_WIDTHS: Final = {12: 1, 11: 1, _TIMESTAMP: 8}
_TEXTS: Final = (_CORRELATION_ID, _MESSAGE_ID, _TYPE)
# The library takes what is larger for milliseconds, and some of that for a year that there is not.
_LAST_SECOND: Final = 0xFFFF_FFFF
# Where short strings begin in methods that quote what another publisher chose: basic.deliver after the consumer's tag,
# basic.return after its code.
_DELIVER, _RETURN = b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x32"


class Unreadable:
    """Messages whose properties could not be read whole: counted, and said once in a while."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.count = 0
        self._clock = clock
        self._said_at = -SAY_EVERY_S
        self._unsaid = 0

    def add(self, what: str) -> None:
        """Count one message; *what* is wrong with it."""
        self.count += 1
        self._unsaid += 1
        now = self._clock()
        if now >= self._said_at + SAY_EVERY_S:
            log.warning(
                "properties of a message were left out, for they cannot be read: %s (%d messages); the gateway sends "
                "none like that, so another program publishes to this queue",
                what,
                self._unsaid,
                extra={"action": "unreadable"},
            )
            self._said_at, self._unsaid = now, 0


def sound_header(payload: bytes) -> tuple[bytes, str]:
    """Return the payload of a content header with the sound ones of the properties that are needed; and what is wrong.

    The second is empty when nothing is. Raises struct.error when even the body's size is missing.
    """
    fixed = payload[:_FIXED]
    size = len(payload)
    if size < _FIXED + 2:
        raise struct.error("a content header without its flags")
    if size > MAX_PROPERTIES:
        return fixed + b"\0\0", f"they have {size} bytes"
    (flags,) = struct.unpack_from(">H", payload, _FIXED)
    at, kept, wrong = _FIXED + 2, list[tuple[int, bytes]](), ""
    if flags & 3:
        return fixed + b"\0\0", "their flags are none"
    for bit in range(15, 1, -1):
        if not flags & 1 << bit:
            continue
        begin = at
        if bit == _HEADERS:
            at += 4 + int.from_bytes(payload[at : at + 4])
        elif bit in _WIDTHS:
            at += _WIDTHS[bit]
        else:
            at += 1 + (payload[at] if at < size else 0)
        if at > size or at == begin:
            wrong = "a length is wrong"
            break
        value = payload[begin:at]
        if bit == _HEADERS:
            try:
                table = sound_fields(value[4:], _WANTED)
            except TableUnreadable as error:
                wrong = str(error)
                continue
            kept.append((bit, len(table).to_bytes(4) + table))
        elif bit in _TEXTS:
            if _is_text(value[1:]):
                kept.append((bit, value))
            else:
                wrong = "an id or a name is no text"
        elif bit == _TIMESTAMP:
            if int.from_bytes(value) <= _LAST_SECOND:
                kept.append((bit, value))
            else:
                wrong = "the time is none"
    new_flags = sum(1 << bit for bit, _ in kept)
    return b"".join((fixed, struct.pack(">H", new_flags), *(value for _, value in kept))), wrong


def sound_method(payload: bytes) -> bytes:
    """Return a method's payload with question marks in place of bytes that are not text, in strings that other
    publishers chose.
    """
    try:
        if payload.startswith(_DELIVER):
            at = 4 + 1 + payload[4] + 9
            return _sound_texts(payload, at, 2)
        if payload.startswith(_RETURN):
            return _sound_texts(payload, 6, 3)
    except IndexError:
        # Torn: the library says so, and the connection is dialled again.
        pass
    return payload


def _sound_texts(payload: bytes, at: int, count: int) -> bytes:
    for _ in range(count):
        begin, at = at + 1, at + 1 + payload[at]
        if not _is_text(payload[begin:at]):
            text = bytes(byte if byte < 0x80 else ord("?") for byte in payload[begin:at])
            payload = payload[:begin] + text + payload[at:]
    return payload


def _is_text(value: bytes) -> bool:
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


class _SoundReader:
    """The library's reader of a connection, frame by frame, without what it could not read."""

    def __init__(self, reader: asyncio.StreamReader, unreadable: Unreadable) -> None:
        self._reader = reader
        self._unreadable = unreadable
        self._ready = b""
        self._at = 0

    def at_eof(self) -> bool:
        return self._at == len(self._ready) and self._reader.at_eof()

    async def read(self, size: int = -1) -> bytes:
        """Return the properties that are left, for a message about it."""
        rest, self._ready, self._at = self._ready[self._at :], b"", 0
        return rest + await self._reader.read(size)

    async def readexactly(self, size: int) -> bytes:
        while len(self._ready) - self._at < size:
            self._ready = self._ready[self._at :] + await self._frame()
            self._at = 0
        begin, self._at = self._at, self._at + size
        return self._ready[begin : self._at]

    async def _frame(self) -> bytes:
        head = await self._reader.readexactly(_HEAD.size)
        if head.startswith(b"AMQP"):
            # A broker of another version says so, and no more.
            return head
        kind, channel, size = _HEAD.unpack(head)
        if kind == _HEADER and size > MAX_PROPERTIES:
            payload = await self._large_header(size)
        else:
            payload = (await self._reader.readexactly(size + 1))[:-1]
            if kind == _HEADER:
                payload, wrong = sound_header(payload)
                if wrong:
                    self._unreadable.add(wrong)
            elif kind == _METHOD:
                payload = sound_method(payload)
        return _HEAD.pack(kind, channel, len(payload)) + payload + _END

    async def _large_header(self, size: int) -> bytes:
        """Return a content header above the bound, without its properties, which are not kept."""
        fixed = await self._reader.readexactly(_FIXED)
        left = size + 1 - _FIXED
        while left:
            left -= len(await self._reader.readexactly(min(left, _PIECE)))
        self._unreadable.add(f"they have {size} bytes")
        return fixed + b"\0\0"


class SoundFrames(TransportFactory):
    """The library's own transports, read through the above."""

    def __init__(self, unreadable: Unreadable) -> None:
        self._unreadable = unreadable

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to the broker."""
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, writer = await factory.create(url, **kwargs)
        return _SoundReader(reader, self._unreadable), writer  # type: ignore[return-value]  # it reads by three methods alone
