"""A shard's position: the session whose events are in the cache, and the sequence number up to which they are.

It is written in the transaction that writes what the events changed, so that one read transaction shows the entities
and exactly which events are in them.
"""

from __future__ import annotations

import struct

from rateway.native.rows import POSITION

__all__ = ["shard_key", "unpack", "unpack_key"]

_SHARD = struct.Struct(">I")


def shard_key(shard_id: int) -> bytes:
    """Return the key of a shard in ``Table.APPLIED``."""
    return _SHARD.pack(shard_id)


def unpack_key(key: bytes) -> int:
    """Return the shard of a key."""
    number: int = _SHARD.unpack(key)[0]
    return number


def unpack(value: bytes) -> tuple[str, int]:
    """Return the session, by the gateway's own name of it, and the sequence number of a row."""
    return value[POSITION.size :].decode(), POSITION.unpack_from(value)[0]
