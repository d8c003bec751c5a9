"""A shard's position: the session whose events are in the cache, and the sequence number up to which they are.

It is written in the transaction that writes what the events changed, so that one read transaction shows the entities
and exactly which events are in them.
"""

from __future__ import annotations

import struct

__all__ = ["pack", "shard_key", "unpack", "unpack_key"]

_SEQ = struct.Struct(">Q")
_SHARD = struct.Struct(">I")


def shard_key(shard_id: int) -> bytes:
    """Return the key of a shard in ``Table.APPLIED``."""
    return _SHARD.pack(shard_id)


def unpack_key(key: bytes) -> int:
    """Return the shard of a key."""
    number: int = _SHARD.unpack(key)[0]
    return number


def pack(session: str, seq: int) -> bytes:
    """Return the row of a shard; ``session`` is the gateway's own name of it."""
    return _SEQ.pack(seq) + session.encode()


def unpack(value: bytes) -> tuple[str, int]:
    """Return the session and the sequence number of a row."""
    return value[_SEQ.size :].decode(), _SEQ.unpack_from(value)[0]
