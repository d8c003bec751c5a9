"""Decide whether a stored session can be resumed."""

from __future__ import annotations

from rateway.transports.store import SessionRecord

__all__ = ["is_resumable"]


def is_resumable(record: SessionRecord, *, shard_count: int, intents: int, token_hash: str) -> bool:
    """Whether a stored session can be resumed: it belongs to this bot, these intents and this number of shards."""
    return (
        bool(record.session_id)
        and record.settled > 0
        and record.shard_count == shard_count
        and record.intents == intents
        and record.token_hash == token_hash
    )
