"""One cluster's tenures in this process: campaign, adopt its sessions, run it, and hand it over or lose it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from rateway.fleet.cluster_record import Adoption, LastTenure, adopt, has_been_run
from rateway.fleet.port import Owned, cluster_subject
from rateway.runtime.fleet.cache_moves import MOVES_WITHIN_S
from rateway.runtime.fleet.part import FleetPart
from rateway.runtime.runner.cluster import Cluster

__all__ = ["ClusterTenure"]

log = logging.getLogger(__name__)

# A member without sessions leaves a cluster that a gateway has run before to the others for so long: one that has them
# may be just starting. Counted from when no gateway outside the fleet reads the cluster's requests any more; seconds.
ASIDE_S = 10.0
# Between two candidatures meanwhile: while a gateway outside the fleet runs the cluster, and after that.
ASIDE_TAKEN_S = 5.0
ASIDE_FREE_S = 1.0


@dataclass(eq=False, slots=True)
class _Order:
    """Give the cluster up: for the member *to*, or for any member and for good."""

    to: str
    leaves: bool
    end_sessions: bool
    done: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Whether the next owner has the newest record."""


class ClusterTenure:
    """Campaigns for one cluster, and runs it while this process owns it; again and again, until it leaves."""

    def __init__(
        self,
        cluster: Cluster,
        part: FleetPart,
        *,
        serve: Callable[[], Coroutine[Any, Any, None]],
        on_waiting: Callable[[], None],
        last: LastTenure | None,
        on_begun: Callable[[LastTenure], None],
        settle_timeout: float,
        send_cache: Callable[[str, float], Coroutine[Any, Any, str]] | None = None,
        readers: Callable[[], Awaitable[int | None]] | None = None,
    ) -> None:
        """*serve* holds the cluster's inbound queue until cancelled, and starts the shards; *on_waiting* is called when
        this process campaigns. *last* is the state folder's latest tenure, *on_begun* notes a newer one.
        *settle_timeout*: seconds that a hand-over waits for the broker's confirms. *send_cache* sends the cache to a
        member within so many seconds, and returns its name there, empty when it has none; None: nothing is sent.
        *readers* returns how many gateways read the cluster's inbound queue, None when there is none: no gateway has
        run the cluster.
        """
        self.owned: Owned | None = None
        """The present tenure; None while this process does not own the cluster."""
        self.owned_since: float | None = None
        """Since when (seconds of the fleet's clock)."""
        self.is_moving = False
        """Whether it is being handed over."""
        self._cluster = cluster
        self._part = part
        self._subject = cluster_subject(cluster.number)
        self._serve = serve
        self._on_waiting = on_waiting
        self._last = last
        self._on_begun = on_begun
        self._settle_timeout = settle_timeout
        self._send = send_cache
        self._readers = readers
        # When the cluster was seen first without a gateway outside the fleet, while this member stands aside.
        self._free_since: float | None = None
        self._orders: asyncio.Queue[_Order] = asyncio.Queue()
        self._has_left = False

    @property
    def is_first(self) -> bool:
        """Whether no gateway of the fleet has owned the cluster before."""
        return self.owned is not None and not has_been_run(self.owned)

    async def move(self, to: str) -> bool:
        """Hand the cluster over to the member *to*, any if empty, and campaign again; whether it was ours to give, and
        the next owner has the newest record.
        """
        return await self._give(_Order(to, leaves=False, end_sessions=False))

    async def leave(self, *, end_sessions: bool = False, to: str = "") -> bool:
        """Hand the cluster over to the member *to*, any if empty, and do not campaign again. *end_sessions*: as ones
        that have ended.
        """
        return await self._give(_Order(to, leaves=True, end_sessions=end_sessions))

    async def _give(self, order: _Order) -> bool:
        if self._has_left:
            return False
        self._orders.put_nowait(order)
        return await order.done

    async def run(self) -> None:
        """Campaign for the cluster and run it, until :meth:`leave` or cancelled."""
        try:
            while not self._has_left:
                await self._one_tenure()
        finally:
            self._has_left = True
            while not self._orders.empty():
                self._orders.get_nowait().done.set_result(False)

    async def _one_tenure(self) -> None:
        self._on_waiting()
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def on_lost(why: str) -> None:
            if not lost.done():
                lost.set_result(why)

        owned = await self._campaign(on_lost)
        if owned is None or await self._stands_aside(owned):
            return
        self.owned, self.owned_since = owned, self._part.clock()
        self._adopt(owned)
        try:
            await self._hold(owned, lost)
        finally:
            self.owned = self.owned_since = None
            self.is_moving = False
        if not self._has_left:
            await self._cluster.end_tenure()

    async def _campaign(self, on_lost: Callable[[str], None]) -> Owned | None:
        """Wait for the cluster; None when this member leaves before it owns it."""
        campaign = asyncio.ensure_future(self._part.elections.campaign(self._subject, on_lost))
        try:
            while True:
                order = await self._order_before(campaign)
                if order is None:
                    return campaign.result()
                if not order.leaves:
                    order.done.set_result(False)
                    continue
                self._has_left = True
                # It may have been won in the same moment: the next owner need not wait for the end of a right.
                released = campaign.done() and await self._give_back(campaign.result(), order.to)
                order.done.set_result(released)
                return None
        finally:
            if not campaign.done():
                campaign.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await campaign

    async def _give_back(self, owned: Owned, to: str) -> bool:
        """Release a tenure that was never used, with the record that it began with."""
        body = b"" if owned.record is None else owned.record.body
        return await self._part.elections.release(self._subject, owned.epoch, body, to)

    async def _stands_aside(self, owned: Owned) -> bool:
        """Give the cluster back, and wait, if another member may have its sessions and this one has not: no member of
        the fleet has run it, and some gateway has. Whether that was so.
        """
        if (
            has_been_run(owned)
            or self._readers is None
            or any(each.session_id for each in self._cluster.stored_sessions())
        ):
            return False
        readers, now = await self._readers(), self._part.clock()
        if readers is None:
            return False
        if readers or self._free_since is None:
            if self._free_since is None:
                log.info(
                    "a gateway has run the cluster before, and its sessions are not in this state folder: for %.0f s "
                    "it is left to a member that has them",
                    ASIDE_S,
                    extra={"cluster": self._cluster.number, "action": "tenure"},
                )
            self._free_since = now
        if now - self._free_since >= ASIDE_S:
            return False
        await self._give_back(owned, "")
        pause = asyncio.ensure_future(asyncio.sleep(ASIDE_TAKEN_S if readers else ASIDE_FREE_S))
        try:
            while (order := await self._order_before(pause)) is not None:
                self._has_left = self._has_left or order.leaves
                order.done.set_result(False)
                if order.leaves:
                    break
        finally:
            pause.cancel()
        return True

    async def _order_before(self, event: asyncio.Future[Any]) -> _Order | None:
        """Return the next order; None when *event* has happened before one came."""
        getting = asyncio.ensure_future(self._orders.get())
        try:
            await asyncio.wait({getting, event}, return_when=asyncio.FIRST_COMPLETED)
            return getting.result() if getting.done() else None
        finally:
            getting.cancel()

    def _adopt(self, owned: Owned) -> None:
        part, cluster = self._part, self._cluster
        fleet, member = part.membership.fleet, part.membership.member
        found = adopt(owned, cluster.stored_sessions(), self._last, fleet=fleet, member=member)
        cluster.adopt(found)
        self._last = LastTenure(fleet, owned.epoch)
        self._on_begun(self._last)
        self._say_owned(owned, found)

    async def _hold(self, owned: Owned, lost: asyncio.Future[str]) -> None:
        cluster = self._cluster
        assert cluster.fleet_record is not None
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(self._serve(), name=f"inbound {cluster.number}")
            writing = tasks.create_task(
                cluster.fleet_record.run(owned.epoch), name=f"record {cluster.number}"
            )
            try:
                order = await self._order_before(lost)
                if order is None:
                    self._say_lost(owned, lost.result())
                    cluster.abandon()
                    return
                self.is_moving = True
                if order.leaves:
                    self._has_left = True
                released = False
                began = asyncio.get_running_loop().time()
                try:
                    cache = await self._send_cache(order, lost)
                    if lost.done():
                        self._say_lost(owned, lost.result())
                        cluster.abandon()
                        return
                    serving.cancel()
                    used = asyncio.get_running_loop().time() - began if order.leaves else 0.0
                    timeout = max(0.0, self._settle_timeout - used)
                    released = await self._hand_over(owned, order, writing, cache, timeout)
                finally:
                    if not order.done.done():
                        order.done.set_result(released)
            finally:
                serving.cancel()
                writing.cancel()

    async def _send_cache(self, order: _Order, lost: asyncio.Future[str]) -> str:
        """Send the cache to the next owner; return its name there, empty when that has none."""
        if self._send is None or not order.to or order.end_sessions:
            return ""
        # A process that stops has no more time than it would wait for the broker.
        seconds = self._settle_timeout / 2 if order.leaves else MOVES_WITHIN_S
        sending = asyncio.ensure_future(self._send(order.to, seconds))
        try:
            await asyncio.wait({sending, lost}, return_when=asyncio.FIRST_COMPLETED)
            return sending.result() if sending.done() else ""
        finally:
            sending.cancel()

    async def _hand_over(
        self, owned: Owned, order: _Order, writing: asyncio.Task[None], cache: str, timeout: float
    ) -> bool:
        cluster, part = self._cluster, self._part
        assert cluster.fleet_record is not None
        left = await cluster.hand_over(timeout=timeout, end_sessions=order.end_sessions)
        writing.cancel()
        body = cluster.fleet_record.last_body(cache)
        released = await part.elections.release(self._subject, owned.epoch, body, order.to)
        log.info(
            "handed over%s: tenure %d is over%s%s",
            f" to {order.to}" if order.to else "",
            owned.epoch,
            "" if released else ", and its last record is not confirmed: the next owner has an older one",
            f"; {left} events are not confirmed, Discord sends them again to the next owner" if left else "",
            extra={"cluster": cluster.number, "action": "tenure"},
        )
        if not order.leaves:
            cluster.forget_sessions()
        return released

    def _say_owned(self, owned: Owned, found: Adoption) -> None:
        record = owned.record
        if record is None or not has_been_run(owned):
            origin = "no gateway of the fleet had it before"
        else:
            how = "released" if owned.how == "released" else "lost"
            origin = f"{record.owner} has {how} it"
        resumed = sum(1 for each in found.sessions if each.session_id)
        log.info(
            "this gateway owns the cluster (tenure %d): %s. %d sessions are resumed%s",
            owned.epoch,
            origin,
            resumed,
            ", as this state folder has them" if found.source == "local" and resumed else "",
            extra={"cluster": self._cluster.number, "action": "tenure"},
        )

    def _say_lost(self, owned: Owned, why: str) -> None:
        log.warning(
            "this gateway does not own the cluster any more (tenure %d): %s. Its shards are left to the next owner",
            owned.epoch,
            why,
            extra={"cluster": self._cluster.number, "action": "tenure"},
        )
