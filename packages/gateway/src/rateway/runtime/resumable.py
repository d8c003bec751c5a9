"""Decide whether a stored session can be resumed."""

from __future__ import annotations

from rateway.transports.store import SessionRecord

__all__ = ["misfit"]


def misfit(record: SessionRecord, *, shard_count: int, intents: int, token_hash: str) -> str:
    """Return why a stored session cannot be resumed, as RATEWAY_GAP says it; empty when it can."""
    if not record.session_id:
        return "there is no session"
    if record.token_hash != token_hash:
        return "the token is another one, or the state folder has lost its salt"
    if record.intents != intents:
        return "the intents were changed"
    if record.shard_count != shard_count:
        return f"the number of shards changed from {record.shard_count} to {shard_count}"
    if record.settled <= 0:
        return "none of its events were confirmed"
    return ""
