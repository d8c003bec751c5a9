"""The shard that a guild belongs to (Discord documentation, "Gateway": "Sharding")."""

from __future__ import annotations

__all__ = ["shard_of"]


def shard_of(guild_id: int, shard_count: int) -> int:
    """Return ``(guild_id >> 22) % shard_count``; *guild_id* is an unsigned 64-bit snowflake."""
    return (guild_id >> 22) % shard_count
