"""Find queues without consumers (workers' queues, and the inbound queues of clusters that were given up), and names of
events that no worker's queue takes in clusters whose event log takes them all.

Over AMQP alone the broker tells of queues whose names are known (``WORKER_QUEUES``); its management API
(``MANAGEMENT_URL``) tells of every queue that is bound to an exchange of the bot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec
from rateway.delivery.port import Bound, QueueCount
from rateway.runtime.monitoring.status import ClusterStatus
from rateway_protocol.contract import topology

__all__ = ["QueueWatch"]

# A worker that is being deployed is back by the next look.
LOOK_EVERY_S = 20.0

Count = Callable[[Iterable[str]], Awaitable[Sequence[QueueCount] | None]]
"""Returns the counts of queues by name; None when that cannot be found out."""
AskBound = Callable[[Iterable[str]], Awaitable[Bound | None]]
"""Returns what is bound to exchanges; None when that cannot be found out."""


class QueueWatch:
    """What two looks in a row have found without a reader. *names* are those of workers' queues.

    ``exchanges`` gives the exchanges of the bot's clusters, ``given_up`` the clusters that this gateway has given up.
    """

    def __init__(
        self,
        names: Iterable[str],
        count: Count,
        bound: AskBound | None,
        exchanges: Callable[[], Sequence[str]],
        given_up: Callable[[], Iterable[int]],
    ) -> None:
        self.unread: list[QueueCount] = []
        """Workers' queues without consumers."""
        self.unheld: list[int] = []
        """Clusters that this gateway has given up and no gateway reads."""
        self._names = sorted(names)
        self._count = count
        self._bound = bound
        self._exchanges = exchanges
        self._given_up = given_up
        self._before: set[str] = set()
        # What the last looks have found of the names that are bound: exchange → names.
        self._bound_names: list[Mapping[str, frozenset[str]]] = []

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Look once. What cannot be found out stays as it was."""
        inbound = {topology.incoming(cluster): cluster for cluster in self._given_up()}
        names = [*self._names, *inbound]
        found = {each.name: each for each in (await self._count(names) if names else []) or ()}
        bound = await self._bound(self._exchanges()) if self._bound is not None else None
        if bound is not None:
            found |= {each.name: each for each in bound.queues}
            self._bound_names = [*self._bound_names[-1:], bound.names]
        idle = {name: each for name, each in found.items() if not each.consumers}
        lasting = sorted(self._before & idle.keys())
        self._before = set(idle)
        self.unread = [idle[name] for name in lasting if topology.is_workers_queue(name)]
        self.unheld = sorted(inbound[name] for name in lasting if name in inbound)

    def see_past_logs(self, clusters: Iterable[ClusterStatus]) -> list[ClusterStatus]:
        """Return the clusters, those with an event log with the names of events that no worker's queue takes there,
        though one takes them elsewhere. A binding counts until the second look without it."""
        clusters = list(clusters)
        if len(self._bound_names) < 2:
            return clusters
        routed = {each.cluster: self._routed(each.cluster) for each in clusters}
        wanted = frozenset[str]().union(*routed.values())
        return [
            msgspec.structs.replace(
                each,
                publisher=msgspec.structs.replace(
                    each.publisher,
                    routed=sorted(routed[each.cluster]),
                    unrouted=sorted((wanted - routed[each.cluster]) & each.events.keys()),
                ),
            )
            if each.event_log is not None and each.event_log.state == "kept"
            else each
            for each in clusters
        ]

    def _routed(self, cluster: int) -> frozenset[str]:
        exchange = topology.exchange(cluster)
        return frozenset[str]().union(*(names.get(exchange, ()) for names in self._bound_names))
