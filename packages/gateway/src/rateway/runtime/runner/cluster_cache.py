"""The cache of one cluster as its shards use it: applying, committing, and what is logged about it."""

from __future__ import annotations

import logging

from rateway.runtime.runner.cache_statistics import CacheStatistics
from rateway.transports.store import Store

log = logging.getLogger(__name__)

__all__ = ["ClusterCache"]


class ClusterCache:
    """A cluster's cache in its store. A cluster with the cache off, or without a usable store, has none."""

    def __init__(self, number: int, store: Store) -> None:
        self.store = store
        self.statistics = CacheStatistics(store)
        self._number = number

    def begin_session(self, shard_id: int, session: str) -> None:
        """Take *session* as the shard's session from its next event, READY, on."""
        self.store.begin_session(shard_id, session)

    def unknown_guild_events(self, shard_id: int) -> int:
        """Return how many events of a shard were about unknown guilds, since this process opened the store."""
        return self.store.unknown_guilds.get(shard_id, 0)

    @property
    def is_dirty(self) -> bool:
        """Whether a commit has anything to write."""
        return self.store.dirty

    def commit(self) -> None:
        """Commit what was applied, and log what the store could not take."""
        self.store.commit()
        if self.store.has_lines:
            for line in self.store.take_lines():
                log.warning("%s", line, extra={"cluster": self._number, "action": "cache"})
