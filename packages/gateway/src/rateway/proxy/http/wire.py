"""Frames of a bot's WebSocket in both directions, with the compression that bots ask for.

Frames to the bot are built here so that all payloads of a wake-up are one write; a server's frames are not masked
(RFC 6455, section 5.1). Discord documentation, *Gateway*: "Transport Compression", "Payload Compression".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, Literal, Protocol, TypeAlias

from rateway.native.inflate import zstd
from rateway_protocol.discord.commands import MAX_PAYLOAD_BYTES
from zlib_ng import zlib_ng

__all__ = ["Compression", "FrameReader", "Frames", "FramesListener", "close_frame", "frames", "pong_frame"]

Compression: TypeAlias = Literal["none", "zlib-stream", "zstd-stream"]

_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_FIN: Final = 0x80
# Close codes of RFC 6455, section 7.4.1, and of Discord ("Gateway Close Event Codes").
PROTOCOL_ERROR: Final = 1002
DECODE_ERROR: Final = 4002
# What a control frame may carry.
MOST_CONTROL_BYTES: Final = 125
# The fastest levels: a bot is near, and the proxy compresses each payload for each of them.
ZLIB_LEVEL: Final = 1
# 32 KiB windows and small tables: a connection's context takes about 0.2 MB.
ZLIB_WINDOW_BITS: Final = 15
ZLIB_MEMORY: Final = 7
_ZSTD_OPTIONS: Final[dict[int, int]] = {
    zstd.CompressionParameter.compression_level: 1,
    # 128 KiB: a context, and the one that the bot has for it, stay below 1 MB.
    zstd.CompressionParameter.window_log: 17,
}
# Where a bot asked for compressed payloads in its IDENTIFY: what is shorter is not worth a stream of its own.
PAYLOAD_LEAST_BYTES: Final = 8192


def _header(opcode: int, size: int) -> bytes:
    if size < 126:
        return bytes((_FIN | opcode, size))
    if size < 65536:
        return struct.pack("!BBH", _FIN | opcode, 126, size)
    return struct.pack("!BBQ", _FIN | opcode, 127, size)


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame; the reason is cut to what fits, at a character."""
    text = reason.encode()[: MOST_CONTROL_BYTES - 2].decode("utf-8", "ignore").encode()
    return _header(_CLOSE, len(text) + 2) + struct.pack("!H", code) + text


def pong_frame(data: bytes) -> bytes:
    """Return the answer to a ping of at most 125 bytes."""
    return _header(_PONG, len(data)) + data


class Frames(Protocol):
    """One connection's payloads as frames."""

    def frame(self, payload: bytes) -> bytes:
        """Return the frame that carries *payload*, the next one of the connection."""


class Plain:
    """Text frames."""

    def frame(self, payload: bytes) -> bytes:
        """Return the payload behind a header."""
        return _header(_TEXT, len(payload)) + payload


class Payloads:
    """Large payloads each in a zlib stream of its own, as ``compress: true`` of IDENTIFY asks for; else text."""

    def frame(self, payload: bytes) -> bytes:
        """Return the payload, compressed where that is worth it."""
        if len(payload) < PAYLOAD_LEAST_BYTES:
            return _header(_TEXT, len(payload)) + payload
        packed: bytes = zlib_ng.compress(payload, ZLIB_LEVEL)
        return _header(_BINARY, len(packed)) + packed


class Zlib:
    """zlib-stream: one zlib stream a connection, a sync flush after each payload."""

    def __init__(self) -> None:
        self._context = zlib_ng.compressobj(ZLIB_LEVEL, zlib_ng.DEFLATED, ZLIB_WINDOW_BITS, ZLIB_MEMORY)

    def frame(self, payload: bytes) -> bytes:
        """Return the payload up to its sync flush."""
        packed = self._context.compress(payload) + self._context.flush(zlib_ng.Z_SYNC_FLUSH)
        return _header(_BINARY, len(packed)) + packed


class Zstd:
    """zstd-stream: one zstd frame a connection, a flushed block after each payload."""

    def __init__(self) -> None:
        self._context = zstd.ZstdCompressor(options=_ZSTD_OPTIONS)

    def frame(self, payload: bytes) -> bytes:
        """Return the payload up to the end of its block."""
        packed = self._context.compress(payload, zstd.ZstdCompressor.FLUSH_BLOCK)
        return _header(_BINARY, len(packed)) + packed


_FRAMES: Final[dict[Compression, Callable[[], Frames]]] = {
    "none": Plain,
    "zlib-stream": Zlib,
    "zstd-stream": Zstd,
}


def frames(compression: Compression) -> Frames:
    """Return a new connection's frames."""
    return _FRAMES[compression]()


class FramesListener(Protocol):
    """Receive what a bot sends, from within :meth:`FrameReader.feed_data`."""

    def on_payload(self, payload: bytes) -> None:
        """A whole message of at most 4,096 bytes, text or binary."""

    def on_ping(self, data: bytes) -> None:
        """A ping, which has to be answered with a pong of the same data."""

    def on_close(self, code: int | None) -> None:
        """The bot's close frame; nothing more comes. None: it named no code."""

    def on_fault(self, code: int, reason: str) -> None:
        """Close with this code: what came breaks the protocol or a limit. No call follows."""


class FrameReader:
    """Read a bot's frames. No call follows a close frame or a fault."""

    def __init__(self, listener: FramesListener) -> None:
        self._listener = listener
        self._buffer = b""
        # The beginning of a message in several frames; None between messages.
        self._fragments: bytearray | None = None
        self._ended = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes as the socket brought them. (aiohttp's protocol of a parser: never the end, nothing left over.)"""
        if self._ended:
            return False, b""
        data, at = self._buffer + data if self._buffer else data, 0
        while (end := self._one(data, at)) is not None:
            at = end
        self._buffer = data[at:]
        return False, b""

    def feed_eof(self) -> None:
        """Do nothing: the listener learns the socket's end from its transport."""
        self._ended = True

    def _one(self, data: bytes, at: int) -> int | None:
        """Take the frame at *at*; return where the next one begins, None when this one is not whole or the last."""
        if self._ended or len(data) < at + 2:
            return None
        first, second = data[at], data[at + 1]
        opcode, size, head = first & 0x0F, second & 0x7F, at + 2
        if size == 126:
            if len(data) < head + 2:
                return None
            size, head = int.from_bytes(data[head : head + 2]), head + 2
        elif size == 127:
            if len(data) < head + 8:
                return None
            size, head = int.from_bytes(data[head : head + 8]), head + 8
        fault = self._judge(first, second, opcode, size)
        if fault is not None:
            self._ended = True
            self._listener.on_fault(*fault)
            return None
        end = head + 4 + size
        if len(data) < end:
            return None
        body = _unmasked(data[head + 4 : end], data[head : head + 4])
        self._take(opcode, bool(first & _FIN), body)
        return end

    def _judge(self, first: int, second: int, opcode: int, size: int) -> tuple[int, str] | None:
        if first & 0x70:
            return PROTOCOL_ERROR, "an extension that was not agreed on"
        if not second & 0x80:
            return PROTOCOL_ERROR, "a frame of a client is masked"
        if opcode in (_CLOSE, _PING, _PONG):
            if size > MOST_CONTROL_BYTES or not first & _FIN:
                return PROTOCOL_ERROR, "a control frame is short and whole"
        elif opcode in (0, _TEXT, _BINARY):
            if (opcode == 0) != (self._fragments is not None):
                return PROTOCOL_ERROR, "fragments of a message follow one another"
            if size + len(self._fragments or b"") > MAX_PAYLOAD_BYTES:
                return DECODE_ERROR, "a payload is larger than 4096 bytes"
        else:
            return PROTOCOL_ERROR, "an opcode that WebSocket does not have"
        return None

    def _take(self, opcode: int, fin: bool, body: bytes) -> None:
        if opcode == _PING:
            self._listener.on_ping(body)
        elif opcode == _CLOSE:
            self._ended = True
            self._listener.on_close(int.from_bytes(body[:2]) if len(body) >= 2 else None)
        elif opcode != _PONG:
            if fin and self._fragments is None:
                self._listener.on_payload(body)
                return
            self._fragments = self._fragments if self._fragments is not None else bytearray()
            self._fragments += body
            if fin:
                whole, self._fragments = bytes(self._fragments), None
                self._listener.on_payload(whole)


def _unmasked(body: bytes, mask: bytes) -> bytes:
    size = len(body)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(body) ^ int.from_bytes(key)).to_bytes(size)
