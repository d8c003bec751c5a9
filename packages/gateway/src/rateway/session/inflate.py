"""The inflater of one connection: what each compression needs (``native/inflate``)."""

from __future__ import annotations

from typing import Protocol

from rateway.native.inflate import InflateError, Plain, Zlib, Zstd
from rateway.session.options import Compression

__all__ = ["InflateError", "Inflater", "make_inflater"]


class Inflater(Protocol):
    """One connection's decompression."""

    def feed(self, message: bytes | memoryview, binary: bool) -> bytes | memoryview | None:
        """Return the JSON in a WebSocket message; None when it is not complete yet. Raises InflateError, after which
        the inflater is not used again. Usually one document; several stand one after another."""


_MAKERS: dict[Compression, type[Plain | Zlib | Zstd]] = {
    "zstd-stream": Zstd, "zlib-stream": Zlib, "none": Plain,
}  # fmt: skip


def make_inflater(compression: Compression, limit: int) -> Inflater:
    """Return a fresh inflater for one connection. *limit* bounds one inflated message, in bytes."""
    return _MAKERS[compression](limit)
