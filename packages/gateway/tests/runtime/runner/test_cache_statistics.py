"""When a cache's entities are counted, and what can be read in between."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from rateway.cache.policy import KINDS, CachePolicy
from rateway.runtime.runner.cache_statistics import COUNT_AGAIN, CacheStatistics
from rateway.transports.store import Store
from tests.cache.scene import guild
from tests.cache.world_feed import encode


class Clock:
    """Moves on by *step* seconds with every look."""

    def __init__(self, step: float) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def counts_of(statistics: CacheStatistics) -> Mapping[str, int]:
    return statistics.counts or {}


def test_entities_are_counted_when_due_and_reading_counts_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path, cluster=1, policy=CachePolicy(kinds=KINDS), wall=time.time())
    assert isinstance(store, Store)
    clock = Clock(1.0)
    statistics = CacheStatistics(store, clock)
    assert counts_of(statistics) == {}
    statistics.refresh()
    assert counts_of(statistics)["guilds"] == 0
    assert counts_of(statistics)["disk_bytes"] > 0 and not statistics.incomplete
    assert statistics.due_at == 2.0 + COUNT_AGAIN
    store.apply(0, 1, "GUILD_CREATE", encode(guild()))
    store.commit()
    statistics.refresh()
    assert counts_of(statistics)["guilds"] == 0
    clock.now = statistics.due_at
    statistics.refresh()
    assert counts_of(statistics)["guilds"] == 1
    store.close()
