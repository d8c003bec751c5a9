"""Inflate one connection's WebSocket messages into gateway messages.

Discord documentation, "Gateway": "Transport Compression". An inflater belongs to exactly one connection; a new
connection, a resume too, begins with a fresh one. Text frames are plain in every mode.
"""

import sys
from typing import Any, Final, cast

from zlib_ng import zlib_ng

# In the standard library from 3.14 on; the package for older Pythons is not installed there.
if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["SUFFIX", "InflateError", "Plain", "Zlib", "Zstd", "zstd"]

ZstdError: Final = zstd.ZstdError
# The stub takes the class for an instance.
ZlibError: type[Exception] = cast("Any", zlib_ng).error

# zstd frames in one message. A stream of Discord's is one frame; each further one copies what is left of the message.
MOST_FRAMES: Final = 100
# What a sync flush ends with; the end of a message in zlib-stream.
SUFFIX: Final = b"\x00\x00\xff\xff"


class InflateError(ValueError):
    """The stream is corrupt, or a message is larger than the bound: this connection cannot go on."""


class Plain:
    """No transport compression. A binary frame is one message in a zlib stream of its own (payload compression)."""

    __slots__ = ("_limit",)

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def feed(self, message: bytes | memoryview, binary: bool) -> bytes | memoryview | None:
        if len(message) > self._limit:
            raise InflateError(f"a message of {len(message)} bytes; the bound is {self._limit}")
        if binary and message[:1] != b"{":
            return self._payload(message)
        # The view is valid only during this call, what is made of it is not.
        return bytes(message)

    def _payload(self, message: bytes | memoryview) -> bytes:
        stream = zlib_ng.decompressobj()
        try:
            whole: bytes = stream.decompress(message, self._limit + 1)
        except ZlibError as error:
            raise InflateError(f"zlib: {error}") from None
        if len(whole) > self._limit:
            raise InflateError(f"a message inflates to more than {self._limit} bytes")
        if not stream.eof:
            raise InflateError("zlib: the message ends before its stream")
        return whole


class Zstd:
    """zstd-stream: one context; each message ends with a flush, and the frame need not end at all."""

    __slots__ = ("_ask", "_decompress", "_limit", "_stream")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # One byte more than may be: so that a full answer differs from one that was cut.
        self._ask = limit + 1
        self._fresh()

    def _fresh(self) -> None:
        self._stream = zstd.ZstdDecompressor()
        self._decompress = self._stream.decompress

    def feed(self, message: bytes | memoryview, binary: bool) -> bytes | memoryview | None:
        if not binary:
            return bytes(message)
        try:
            out = self._decompress(message, self._ask)
            if self._stream.needs_input:
                return out or None
            return self._more(out)
        except ZstdError as error:
            raise InflateError(f"zstd: {error}") from None

    def _more(self, out: bytes) -> bytes | None:
        """Continue after the end of a frame (a decompressor ends with its frame), or at the bound."""
        parts = [out]
        room = self._ask - len(out)
        for _ in range(MOST_FRAMES):
            if room <= 0 or not self._stream.eof:
                break
            rest = self._stream.unused_data
            self._fresh()
            if not rest:
                break
            parts.append(self._decompress(rest, room))
            room -= len(parts[-1])
        else:
            raise InflateError(f"more than {MOST_FRAMES} zstd frames in a message")
        if room <= 0:
            raise InflateError(f"a message inflates to more than {self._limit} bytes")
        return b"".join(parts) or None


class Zlib:
    """zlib-stream: one context; a message ends when everything received since the last one ends with the suffix.

    The suffix may be split between WebSocket messages and may also occur inside one: only the tail of the whole
    counts.
    """

    __slots__ = ("_ask", "_decompress", "_limit", "_pending", "_stream")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ask = limit + 1
        self._stream = zlib_ng.decompressobj()
        self._decompress = self._stream.decompress
        self._pending: bytearray | None = None

    def feed(self, message: bytes | memoryview, binary: bool) -> bytes | memoryview | None:
        if not binary:
            return bytes(message)
        if self._pending is not None or message[-4:] != SUFFIX:
            if not self._wait_for(message):
                return None
            message, self._pending = bytes(self._pending or b""), None
        try:
            out: bytes = self._decompress(message, self._ask)
        except ZlibError as error:
            raise InflateError(f"zlib: {error}") from None
        if len(out) > self._limit:
            raise InflateError(f"a message inflates to more than {self._limit} bytes")
        if self._stream.eof:
            raise InflateError("zlib: the stream ended")
        return out or None

    def _wait_for(self, message: bytes | memoryview) -> bool:
        """Put a part away; whether what waits is a whole message now."""
        if self._pending is None:
            self._pending = bytearray()
        self._pending += message
        if len(self._pending) > self._limit:
            raise InflateError(f"a message of more than {self._limit} bytes that does not end")
        return self._pending.endswith(SUFFIX)
