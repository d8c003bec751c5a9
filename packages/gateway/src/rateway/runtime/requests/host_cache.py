"""The cache as queries see it: every cluster of this host, whichever process writes it.

Stores of this process are read through its own; those of other processes are opened for reading as soon as they are
there. Which shards are still loading is known of our own, and told by the supervisor of others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from rateway.cache.query_context import Situation
from rateway.config import Settings
from rateway.fleet.choice import Choice
from rateway.fleet.layout import Layout
from rateway.runtime.requests.query_queue import QueryQueue
from rateway.runtime.startup import clusters_of, policy_of, store_folder
from rateway.transports.event_log_record import EventLogRecords
from rateway.transports.state import StateDir
from rateway.transports.store import Store, StoreFault, StoreReader
from rateway.transports.store.queries import Moment, Queries
from rateway_protocol.contract import topology

# A store of another process appears when that process starts.
LOOK_EVERY_S = 0.5

__all__ = ["CachedCluster", "HostCache"]


class CachedCluster(Protocol):
    """A cluster of this process whose store is read (``runner.cluster.Cluster``)."""

    @property
    def store(self) -> Store | None: ...
    @property
    def store_words(self) -> str: ...

    def is_live(self, shard_id: int) -> bool: ...


class HostCache:
    """Readers of all stores of this gateway on this host, and the queue where queries wait."""

    def __init__(
        self,
        settings: Settings,
        state: StateDir,
        choice: Choice,
        own: Mapping[int, CachedCluster],
        elsewhere: Callable[[], frozenset[int]] = frozenset,
    ) -> None:
        """*elsewhere* are the clusters of this process that another gateway runs."""
        self._settings = settings
        self._state = state
        self._choice = choice
        self._own = own
        self._all = clusters_of(settings, choice.layout)
        # Clusters that this gateway was not given.
        self._outside = frozenset(choice.layout.clusters) - frozenset(self._all)
        self._loading_elsewhere: frozenset[int] = frozenset()
        self._unreadable_elsewhere: dict[int, str] = {}
        self.gone = elsewhere
        self._gone_elsewhere: frozenset[int] = frozenset()
        self._known: tuple[Layout, Situation] | None = None
        self._readers: dict[int, StoreReader] = {
            number: cluster.store.reader() for number, cluster in own.items() if cluster.store is not None
        }
        self._missing = [number for number in self._all if number not in own]
        self._queries = Queries(self._readers, policy_of(settings), self.situation, wall=time.time)
        self.query_queue = QueryQueue(self._moment, limit=settings.requests.query_queue)

    def take(self, number: int, reader: StoreReader) -> None:
        """A store of this process that could not be opened at the start."""
        self._readers[number] = reader

    @property
    def others(self) -> frozenset[int]:
        """Clusters that another gateway runs, or is to run."""
        return self.gone() | self._gone_elsewhere | self._outside

    def situation(self) -> Situation:
        """Return what is known beside the stores. Asked for in each turn of the queue; hardly ever another than the
        last.
        """
        layout, unreadable = self._choice.layout, self._unreadable_elsewhere | self.unreadable()
        known = self._known
        gone = self.gone() | self._gone_elsewhere
        if (
            known is None
            or known[0] is not layout
            or known[1].unreadable != unreadable
            or known[1].elsewhere != gone
        ):
            published = self._settings.published
            situation = Situation(
                shard_count=layout.shards,
                shards_per_cluster=layout.per_cluster,
                clusters=[number for number in self._all if number not in gone],
                elsewhere=gone,
                is_loading=self._is_loading,
                exchange_of=topology.exchange,
                log_of=self._log_of,
                intents=self._settings.session.intents,
                events=None if published.only is None else tuple(sorted(published.only)),
                events_except=tuple(sorted(published.never)),
                unreadable=unreadable,
            )
            known = self._known = (layout, situation)
        return known[1]

    def _log_of(self, number: int) -> str | None:
        """Read at each question: the process that keeps the log writes it down."""
        return EventLogRecords(self._state, number).read().log if self._settings.event_log.is_on else None

    def unreadable(self) -> dict[int, str]:
        """Return clusters of this process whose store could not be opened, or cannot be written: what it
        says is old.
        """
        found = {}
        for number, cluster in self._own.items():
            if cluster.store is None:
                found[number] = cluster.store_words
            elif cluster.store.fault is not None:
                found[number] = cluster.store.fault.words
        return found

    def _is_loading(self, shard_id: int) -> bool:
        number = self._choice.layout.cluster_of(shard_id)
        cluster = self._own.get(number)
        if cluster is None:
            return number not in self._readers or shard_id in self._loading_elsewhere
        return not cluster.is_live(shard_id)

    def learn(
        self, loading: Iterable[int], unreadable: dict[int, str], elsewhere: Iterable[int] = ()
    ) -> None:
        """Which shards of other processes are not live, which clusters' stores are of no use, and why, and which
        clusters another gateway runs.
        """
        self._loading_elsewhere = frozenset(loading)
        own = self._own
        # Of its own clusters this process knows first.
        self._gone_elsewhere = frozenset(elsewhere) - own.keys()
        self._unreadable_elsewhere = {number: why for number, why in unreadable.items() if number not in own}

    def _moment(self) -> Moment:
        # A worker may have an event of a process whose store was not there when it was last looked for.
        if self._missing:
            self._open_missing()
        return self._queries.moment()

    def _open_missing(self) -> None:
        for number in list(self._missing):
            reader = StoreReader.open(store_folder(self._settings, self._state, number))
            if not isinstance(reader, StoreFault):
                self._readers[number] = reader
                self._missing.remove(number)

    async def run(self) -> None:
        """Open the stores of other processes as they appear, until all are there."""
        while self._missing:
            self._open_missing()
            await asyncio.sleep(LOOK_EVERY_S)
