"""Combine the processes' counters into one status, and draw the progress of a start."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from rateway import __version__
from rateway.runtime.maintenance import sick_notes
from rateway.runtime.monitoring.loop_lag import LoopLag
from rateway.runtime.monitoring.status import (
    BudgetStatus,
    ClusterStatus,
    GatewayStatus,
    ProcessStatus,
    ShardStatus,
)
from rateway.runtime.supervisor.supervisor import Supervisor

if TYPE_CHECKING:
    from rateway.runtime.gateway import Gateway

log = logging.getLogger(__name__)

# A line of progress in a log; a live terminal is drawn anew this often.
LOG_EVERY_S = 5.0
DRAW_EVERY_S = 0.25
REQUESTS = "status, restart-shard N, restart-shard N new-session, drain N"


class Reporter:
    """Watches one gateway. ``answer`` serves the control socket, ``run`` shows the start's progress."""

    def __init__(self, gateway: Gateway, *, live: bool) -> None:
        self._gateway = gateway
        self._live = live
        self._watch = LoopLag()

    async def answer(self, words: list[str]) -> object:
        """One request of the control socket."""
        match words:
            case ["status"]:
                return await self.status()
            case ["restart-shard", number, *how] if number.isdigit() and how in ([], ["new-session"]):
                found = await self._gateway.restart_shard(int(number), new_session=bool(how))
                return {"ok" if found.done else "error": found.words}
            case ["drain", number] if number.isdigit():
                return await self._drain(int(number))
            case _:
                asked = " ".join(words)[:80]
                return {"error": f"unknown request {asked!r}; there are: {REQUESTS}"}

    async def _drain(self, cluster: int) -> object:
        # Once begun it goes on, whether or not the person waits for it.
        left = await asyncio.shield(asyncio.ensure_future(self._gateway.drain(cluster)))
        if left is None:
            return {"error": f"cluster {cluster} does not run here: {self._gateway.words_for_clusters()}"}
        if left:
            stay = f"{left} events that the broker has not confirmed stay in this gateway's spool"
            return {"ok": f"cluster {cluster} is given up, another gateway may take it; {stay}"}
        return {"ok": f"cluster {cluster} is settled and given up; another gateway may take it"}

    async def status(self) -> GatewayStatus:
        """Everything that can be seen from here, all processes together."""
        gateway = self._gateway
        held = gateway.held
        clusters: list[ClusterStatus] = []
        shards: list[ShardStatus] = []
        processes: list[ProcessStatus] = []
        notes: list[str] = []
        if held is None or isinstance(held, Supervisor):
            processes = [self._watch.process("supervisor", [])]
            for part in await held.parts() if held is not None else []:
                clusters += part.clusters
                shards += part.shards
                processes.append(part.process)
                notes += part.notes
            notes += held.silent() if held is not None else []
        else:
            # What only a process with clusters needs, a supervisor does not load.
            from rateway.runtime.monitoring.collect import parts_of

            clusters, shards, process, notes = parts_of(held, self._watch, "gateway")
            processes = [process]
        return GatewayStatus(
            version=__version__,
            state=gateway.phase,
            uptime_s=time.monotonic() - gateway.started_at,
            shards_here=gateway.progress()[1],
            shard_count=gateway.choice.layout.shards if gateway.choice is not None else 0,
            clusters=sorted(clusters, key=lambda cluster: cluster.cluster),
            shards=sorted(shards, key=lambda shard: shard.shard),
            processes=processes,
            budget=_budget(gateway),
            # Processes may have the same to say.
            notes=list(dict.fromkeys(gateway.notes() + notes + sick_notes(shards))),
        )

    async def run(self) -> None:
        """Show the start's progress until every shard is live, then watch the loop's lag, until cancelled."""
        watcher = asyncio.create_task(self._watch.run())
        try:
            if self._live:
                await self._draw()
            else:
                await self._write_lines()
            await watcher
        finally:
            watcher.cancel()

    async def _write_lines(self) -> None:
        said = None
        while True:
            await asyncio.sleep(LOG_EVERY_S)
            ready, total, left = now = self._progress()
            # Nothing moves while another gateway has the clusters: that is said once.
            if not total or now == said:
                continue
            said = now
            if ready == total:
                log.info("all %d shards are live", total, extra={"action": "start"})
                return
            log.info(
                "%d of %d shards are live%s",
                ready,
                total,
                f", {left}" if left else "",
                extra={"action": "start"},
            )

    async def _draw(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        # One line, also on a terminal of 80 columns: a log line erases no more than one.
        columns = (
            TextColumn("[bold]shards live"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None)
            while True:
                ready, total, left = self._progress()
                bar.update(task, total=total or None, completed=ready, description=left)
                if total and ready == total:
                    break
                await asyncio.sleep(DRAW_EVERY_S)
        log.info("all %d shards are live", total, extra={"action": "start"})

    def _progress(self) -> tuple[int, int, str]:
        live, total = self._gateway.progress()
        permits = self._gateway.permits
        governor = permits.governor if permits is not None else None
        if governor is None or not governor.waiting or not governor.max_concurrency:
            return live, total, ""
        seconds = -(-governor.waiting // governor.max_concurrency) * 5.25
        return live, total, f"{governor.waiting} wait for their identify, about {_span(seconds)} left"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _budget(gateway: Gateway) -> BudgetStatus:
    permits = gateway.permits
    if permits is None:
        return BudgetStatus(None, None, None, None, 0)
    governor, now = permits.governor, permits.now()
    return BudgetStatus(
        governor.total,
        governor.available(now),
        governor.reset_in(now),
        governor.max_concurrency,
        permits.identifies,
        dict(permits.failures),
        0 if governor.fault is None else governor.fault.shards,
        dict(permits.rest_failures),
    )
