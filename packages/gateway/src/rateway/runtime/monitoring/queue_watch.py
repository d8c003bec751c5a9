"""Find queues without consumers: workers' queues, and the inbound queues of clusters that were given up.

Over AMQP alone the broker tells of queues whose names are known (``WORKER_QUEUES``); its management API
(``MANAGEMENT_URL``) tells of every queue that is bound to an exchange of the bot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from rateway.delivery.port import QueueCount
from rateway_protocol.contract import topology

__all__ = ["QueueWatch"]

# A worker that is being deployed is back by the next look.
LOOK_EVERY_S = 20.0

Count = Callable[[Iterable[str]], Awaitable[Sequence[QueueCount] | None]]
"""Returns the counts of queues by name, or of those bound to exchanges; None when that cannot be found out."""


class QueueWatch:
    """What two looks in a row have found without a reader. *names* are those of workers' queues.

    ``exchanges`` gives the exchanges of the bot's clusters, ``given_up`` the clusters that this gateway has given up.
    """

    def __init__(
        self,
        names: Iterable[str],
        count: Count,
        bound: Count | None,
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
        if self._bound is not None:
            found |= {each.name: each for each in await self._bound(self._exchanges()) or ()}
        idle = {name: each for name, each in found.items() if not each.consumers}
        lasting = sorted(self._before & idle.keys())
        self._before = set(idle)
        self.unread = [idle[name] for name in lasting if not topology.is_own_queue(name.encode())]
        self.unheld = sorted(inbound[name] for name in lasting if name in inbound)
