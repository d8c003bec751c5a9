"""Keep a cluster's session records on disk while its settled sequences move."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

from rateway.runtime.runner.cluster_cache import ClusterCache
from rateway.runtime.runner.session_records import SessionRecords
from rateway.runtime.runner.shard import Shard

__all__ = ["WRITE_EVERY_S", "SessionWriter"]

# A session's settled sequence is on disk at most this long after it changed.
WRITE_EVERY_S = 0.5


class SessionWriter:
    """Writes the session records of one cluster, at most every WRITE_EVERY_S seconds, and tells each shard what is
    written: its heartbeats name that sequence.
    """

    def __init__(self, session_records: SessionRecords, shards: Mapping[int, Shard]) -> None:
        self.cache: ClusterCache | None = None
        """The cache whose leftovers are committed with the records."""
        self.on_written: Callable[[], None] | None = None
        """In a fleet: called after each write, in place of telling the shards, which follow the fleet's record then."""
        self._session_records = session_records
        self._shards = shards
        self._changed = asyncio.Event()
        self._write_soon = asyncio.Event()

    def note_change(self) -> None:
        """Have the records written within WRITE_EVERY_S seconds, at once where a new session is not written yet."""
        self._changed.set()
        if self._session_records.has_unwritten:
            self._write_soon.set()

    def write(self) -> None:
        """Write the records that changed, now."""
        settled = [(shard_id, shard.stream.settled) for shard_id, shard in self._shards.items()]
        written = self._session_records.write(settled, time.time())
        if self.on_written is not None:
            self.on_written()
            return
        for shard_id, seq in written:
            self._shards[shard_id].settle(seq)

    async def run(self) -> None:
        """Write after each change, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._write_soon.clear()
            self.write()
            if self.cache is not None and self.cache.is_dirty:
                # Ids wait for the cache's index, which lookups search until then. Events move them on; without any
                # events this does.
                self.cache.commit()
                self._changed.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WRITE_EVERY_S):
                    await self._write_soon.wait()
