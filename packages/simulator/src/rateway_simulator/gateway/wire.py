"""Turn gateway messages into bytes: compressed for each connection, framed as WebSocket messages.

Frames are built here rather than in the WebSocket library, so that all messages of a wake-up are one write and recorded
streams can be kept framed. A server's frames are not masked (RFC 6455, section 5.1).

A *run* is a stretch of messages compressed beforehand with a context of its own. It can follow any message of a live
connection: zlib-stream goes on with deflate blocks that refer to nothing before the run, zstd-stream ends its frame and
begins another (a decoder of these streams must accept both).
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from zlib_ng import zlib_ng

# In the standard library from 3.14 on; the package for older Pythons is not installed there.
if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

TEXT = 0x1
BINARY = 0x2
CONTINUATION = 0x0
CLOSE = 0x8
_FIN = 0x80

# Fast levels: the simulator shares the machine with what is measured.
ZLIB_LEVEL = 1
_ZSTD_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 1,
    # 256 KiB: the gateway's decoder then holds about 0.4 MB.
    zstd.CompressionParameter.window_log: 18,
}

COMPRESSIONS = ("none", "zlib-stream", "zstd-stream")


def header(opcode: int, size: int, *, fin: bool = True) -> bytes:
    """Return the header of a WebSocket frame from a server."""
    first = opcode | (_FIN if fin else 0)
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return struct.pack("!BBH", first, 126, size)
    return struct.pack("!BBQ", first, 127, size)


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a whole message as one frame."""
    return header(opcode, len(payload)) + payload


def fragments(opcode: int, payload: bytes, size: int) -> bytes:
    """Return a whole message as frames of at most `size` bytes each."""
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    last = len(pieces) - 1
    return b"".join(
        header(opcode if at == 0 else CONTINUATION, len(piece), fin=at == last) + piece
        for at, piece in enumerate(pieces)
    )


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame; the reason is cut to what a control frame can carry."""
    return frame(CLOSE, struct.pack("!H", code) + reason.encode()[:123])


class Stream(Protocol):
    """One connection's compression context."""

    opcode: int

    def pack(self, payload: bytes) -> bytes:
        """Return one gateway message, compressed."""
        ...

    def leave(self) -> bytes:
        """End the live context before a run; what has to stand before the run's first message."""
        ...


class Plain:
    """No compression: text frames."""

    opcode = TEXT

    def pack(self, payload: bytes) -> bytes:
        """Return the payload itself."""
        return payload

    def leave(self) -> bytes:
        """Nothing to end."""
        return b""


class Zlib:
    """zlib-stream: one zlib stream, a sync flush after each message."""

    opcode = BINARY

    def __init__(self, *, header: bool = True) -> None:
        # Raw deflate where the stream's header was sent already.
        self._wbits = 15 if header else -15
        self._context: zlib_ng._Compress | None = None

    def pack(self, payload: bytes) -> bytes:
        """Deflated up to a sync flush (00 00 ff ff)."""
        context = self._context
        if context is None:
            context = self._context = zlib_ng.compressobj(ZLIB_LEVEL, zlib_ng.DEFLATED, self._wbits)
        return context.compress(payload) + context.flush(zlib_ng.Z_SYNC_FLUSH)

    def leave(self) -> bytes:
        """Return the bytes after which the next live message refers to nothing before it."""
        prefix = self.pack(b"") if self._wbits > 0 and self._context is None else b""
        self._wbits, self._context = -15, None
        return prefix


class Zstd:
    """zstd-stream: one zstd frame, a flush after each message."""

    opcode = BINARY

    def __init__(self) -> None:
        self._context: zstd.ZstdCompressor | None = None

    def pack(self, payload: bytes) -> bytes:
        """Compressed up to a flushed block."""
        context = self._context
        if context is None:
            context = self._context = zstd.ZstdCompressor(options=_ZSTD_OPTIONS)
        return context.compress(payload, zstd.ZstdCompressor.FLUSH_BLOCK)

    def leave(self) -> bytes:
        """The end of the frame."""
        context, self._context = self._context, None
        return b"" if context is None else context.flush(zstd.ZstdCompressor.FLUSH_FRAME)


def stream(compression: str) -> Stream:
    """Return a new context for a connection; `compression` is one of COMPRESSIONS."""
    if compression == "zlib-stream":
        return Zlib()
    if compression == "zstd-stream":
        return Zstd()
    return Plain()


@dataclass(frozen=True, slots=True)
class Run:
    """Messages compressed and framed beforehand: the first without its frame header, the rest as they go out."""

    opcode: int
    first: bytes
    rest: bytes
    messages: int

    def after(self, leave: bytes) -> bytes:
        """Return the whole run's bytes behind a live context that ended with `leave`."""
        first = leave + self.first
        return header(self.opcode, len(first)) + first + self.rest


def run(compression: str, payloads: Iterable[bytes] | Sequence[bytes]) -> Run:
    """Compress a run of at least one message."""
    context: Stream = Zlib(header=False) if compression == "zlib-stream" else stream(compression)
    packed = [context.pack(payload) for payload in payloads]
    # A run ends as a live context does, so that anything can follow.
    packed[-1] += context.leave() if compression == "zstd-stream" else b""
    rest = b"".join(frame(context.opcode, message) for message in packed[1:])
    return Run(context.opcode, packed[0], rest, len(packed))


def corrupt(compression: str) -> bytes:
    """Return a framed message that no decoder of this compression can take."""
    if compression == "none":
        return frame(TEXT, b'{"t":null,"s":')
    # Deflate block type 3 and zstd block type 3 are both reserved.
    return frame(BINARY, b"\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\xff\xff")
