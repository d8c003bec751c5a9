"""Count a cluster's cached entities now and then, so that the status can read the figures without counting."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from rateway.cache.stats import incomplete_shards, stats_of
from rateway.transports.store import Store
from rateway.transports.store.reader import StoreUnreadable

__all__ = ["CacheStatistics"]

# A count reads every guild's row. It is repeated after so many times what it took: at most half a percent of the time.
COUNT_AGAIN = 200.0


class CacheStatistics:
    """The figures of one store, as of the last count."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self.counts: Mapping[str, int] | None = None
        """Entities by kind and ``disk_bytes``; None before the first count and while the store cannot be read."""
        self.incomplete: Mapping[int, int] = {}
        """Shards with guilds that came before a kind was kept that is kept now: the store's stamp (milliseconds) from
        which guilds are complete."""
        self.due_at = -math.inf
        """The time of the next count (the clock's seconds)."""

    def refresh(self) -> None:
        """Count again if a count is due."""
        began = self._clock()
        if began < self.due_at:
            return
        reader = self._store.reader()
        try:
            with reader.view() as view:
                counts = stats_of(view)
                self.incomplete = incomplete_shards(view, self._store.policy)
        except StoreUnreadable:
            self.counts = None
            return
        self.counts = {**counts, "disk_bytes": reader.disk_bytes()}
        ended = self._clock()
        self.due_at = ended + COUNT_AGAIN * (ended - began)
