"""Who writes a cluster's store? One object in one process; it holds at most one open transaction."""

from __future__ import annotations

from pathlib import Path

from rateway.cache.applied import Applied, SessionRecord
from rateway.cache.policy import CachePolicy
from rateway.transports.store.opening import StoreFault

__all__ = ["Store"]


class Store:
    """The writer's side of one cluster's store."""

    words: tuple[str, ...]
    """What is worth a log line about the opening: thrown away and why, kinds incomplete and why."""
    fault: StoreFault | None
    """What is wrong now; None when the last commit succeeded."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        cluster: int,
        policy: CachePolicy,
        wall: float,
        boot_id: str | None = None,
        map_size: int = 64 << 30,
    ) -> Store | StoreFault:
        """Open or make the store in the folder ``path`` (made when missing, 0700).

        ``wall`` is now in Unix seconds. ``boot_id`` is for tests; by default the kernel's. ``map_size`` in bytes is
        the bound of the store's size; the file grows only as needed.
        """
        raise NotImplementedError

    def sessions(self) -> list[SessionRecord]:
        """The stored sessions, by shard."""
        raise NotImplementedError

    def apply(self, shard_id: int, seq: int, name: str, d: bytes | memoryview) -> Applied | None:
        """Take one event in; never raises. At or below the shard's applied sequence it changes nothing.

        READY begins a new session (its ``session_id`` is in ``d``) and resets the shard's applied sequence.
        """
        raise NotImplementedError

    def applied(self, shard_id: int) -> int:
        """The highest sequence whose effect is in the cache (0: none)."""
        raise NotImplementedError

    def put_session(self, record: SessionRecord) -> None:
        """Write a session down with the next commit."""
        raise NotImplementedError

    def drop_session(self, shard_id: int) -> None:
        """Forget a shard's session with the next commit (it ended in order, or cannot be resumed)."""
        raise NotImplementedError

    def commit(self) -> StoreFault | None:
        """End the open transaction, if any: all of it is visible to every reader, or none. Cheap when nothing is open."""
        raise NotImplementedError

    def close(self) -> None:
        """Commit, mark as closed in order, and close."""
        raise NotImplementedError
