"""Answer what is asked of a running gateway: its status, and the requests of the control socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
from rateway import __version__
from rateway.runtime.gateway import Gateway
from rateway.runtime.maintenance import sick_notes, unread_notes
from rateway.runtime.monitoring.fleet_status import here
from rateway.runtime.monitoring.health import told
from rateway.runtime.monitoring.loop_lag import LoopLag
from rateway.runtime.monitoring.queue_watch import QueueWatch
from rateway.runtime.monitoring.status import (
    BudgetStatus,
    ClusterStatus,
    GatewayStatus,
    Note,
    ProcessStatus,
    ShardStatus,
)
from rateway.runtime.proxy_child import ProxyChild
from rateway.runtime.supervisor.supervisor import Supervisor

if TYPE_CHECKING:
    from rateway.runtime.fleet.member import FleetMember
    from rateway.runtime.fleet.records import Done

__all__ = ["Control"]

# Of the number of a shard or cluster.
MOST_DIGITS = 9
REQUESTS = (
    "status, restart-shard N, restart-shard N new-session, drain N, fleet-move N MEMBER, fleet-drain MEMBER, "
    "fleet-undrain MEMBER, fleet-reshard"
)


class Control:
    """One gateway as it is seen and asked from outside. *loop_lag* measures this process; *proxy* is the one that the
    gateway starts; *queues* looks for queues without consumers."""

    def __init__(
        self,
        gateway: Gateway,
        loop_lag: LoopLag,
        proxy: ProxyChild | None = None,
        queues: QueueWatch | None = None,
    ) -> None:
        self._queues = queues
        self._gateway = gateway
        self._loop_lag = loop_lag
        self._proxy = proxy

    async def answer(self, words: list[str]) -> object:
        """Answer one request of the control socket."""
        match words:
            case ["status"]:
                return await self.status()
            case ["restart-shard", number, *how] if _is_number(number) and how in ([], ["new-session"]):
                found = await self._gateway.restart_shard(int(number), new_session=bool(how))
                return {"ok" if found.done else "error": found.words}
            case ["fleet-move", number, member] if _is_number(number):
                return await self._ask_fleet(lambda fleet: fleet.ask_move(int(number), member))
            case ["fleet-reshard"]:
                return await self._ask_fleet(lambda fleet: fleet.ask_reshard())
            case ["fleet-drain", member]:
                return await self._ask_fleet(lambda fleet: fleet.ask_drain(member, leaving=True))
            case ["fleet-undrain", member]:
                return await self._ask_fleet(lambda fleet: fleet.ask_drain(member, leaving=False))
            case ["drain", number] if _is_number(number):
                return await self._drain(int(number))
            case _:
                asked = " ".join(words)[:80]
                return {"error": f"unknown request {asked!r}; there are: {REQUESTS}"}

    async def _ask_fleet(self, ask: Callable[[FleetMember], Awaitable[Done]]) -> object:
        fleet = self._gateway.fleet
        if fleet is None:
            return {"error": "this gateway is in no fleet: FLEET names one"}
        answer = await ask(fleet)
        return {"ok" if answer.done else "error": answer.words}

    async def _drain(self, cluster: int) -> object:
        # Once begun it goes on, whether or not the person waits for it.
        left = await asyncio.shield(asyncio.ensure_future(self._gateway.drain(cluster)))
        if left is None:
            return {"error": f"cluster {cluster} does not run here: {self._gateway.words_for_clusters()}"}
        told = "`rateway status` says so while no gateway has it"
        if left:
            stay = f"{left} events that the broker has not confirmed stay in this gateway's spool"
            return {"ok": f"cluster {cluster} is given up, another gateway may take it; {stay}. {told}"}
        return {"ok": f"cluster {cluster} is settled and given up; another gateway may take it. {told}"}

    async def status(self) -> GatewayStatus:
        """Return the status of all processes."""
        gateway = self._gateway
        held = gateway.held
        clusters: list[ClusterStatus] = []
        shards: list[ShardStatus] = []
        processes: list[ProcessStatus] = []
        found: list[Note] = []
        silent: list[str] = []
        if held is None or isinstance(held, Supervisor):
            processes = [self._loop_lag.process("supervisor", [])]
            if held is not None:
                for part in await held.parts():
                    clusters += part.clusters
                    shards += part.shards
                    processes.append(part.process)
                    found += part.notes
                processes[0] = msgspec.structs.replace(processes[0], messages_unread=held.unreadable())
                silent = held.silent() + unread_notes(processes)
        else:
            # What only a process with clusters needs, a supervisor does not load.
            from rateway.runtime.runner.collect import collect

            clusters, shards, process, found = collect(held, self._loop_lag, "gateway")
            processes = [process]
        proxy = self._proxy
        fleet = None if gateway.fleet is None else gateway.fleet.status()
        if fleet is not None:
            clusters, shards = here(fleet, clusters, shards)
        return GatewayStatus(
            version=__version__,
            state=gateway.phase,
            uptime_s=time.monotonic() - gateway.started_at,
            shards_here=gateway.progress()[1],
            unread_queues=self._queues.unread if self._queues is not None else [],
            unheld=self._queues.unheld if self._queues is not None else [],
            resume_patience_s=gateway.settings.session.resume_patience,
            shard_count=gateway.choice.layout.shards if gateway.choice is not None else 0,
            clusters=sorted(
                self._queues.see_past_logs(clusters) if self._queues is not None else clusters,
                key=lambda cluster: cluster.cluster,
            ),
            shards=sorted(shards, key=lambda shard: shard.shard),
            processes=processes,
            budget=_budget(gateway),
            fleet=fleet,
            proxy=proxy.status if proxy is not None else None,
            wants_proxy=proxy is not None,
            notes=[
                *silent,
                *gateway.notes(),
                *(proxy.notes() if proxy is not None else []),
                *told(found),
                *sick_notes(shards),
            ],
        )


def _is_number(word: str) -> bool:
    """Return whether *word* is the number of a shard or cluster: decimal digits, no more than such a number
    can have.
    """
    return word.isascii() and word.isdecimal() and len(word) <= MOST_DIGITS


def _budget(gateway: Gateway) -> BudgetStatus:
    permits = gateway.permits
    if permits is None:
        return BudgetStatus(None, None, None, None, 0)
    facts = permits.facts()
    return BudgetStatus(
        facts.total,
        None if facts.total is None else facts.available,
        facts.reset_in,
        facts.max_concurrency,
        facts.identifies,
        facts.failures,
        facts.fault_shards,
        facts.rest_failures,
        facts.renewals,
    )
