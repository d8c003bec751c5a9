"""How is the gateway now, for people and machines? Takes the counters together; draws the start's progress."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rateway import __version__
from rateway.cache.queries import stats_of
from rateway.runtime.status import (
    BudgetStatus,
    ClusterStatus,
    GatewayStatus,
    ProcessStatus,
    PublisherStatus,
    ShardStatus,
)
from rateway.runtime.worker import Worker
from rateway.session.orders import State
from rateway.transports.store.reader import StoreUnreadable

if TYPE_CHECKING:
    from rateway.runtime.cluster import Cluster
    from rateway.runtime.gateway import Gateway
    from rateway.runtime.shard import Shard

log = logging.getLogger(__name__)

# A line of progress in a log; a live terminal is drawn anew this often.
LOG_EVERY_S = 5.0
DRAW_EVERY_S = 0.25
LOOP_LAG_EVERY_S = 0.5
# Counting entities takes at most a hundredth of the time, and so much of one look.
COUNT_AGAIN = 100.0
COUNTING_S = 0.02


class LoopWatch:
    """How late the event loop comes round: the latest lag, in seconds."""

    def __init__(self) -> None:
        self.lag = 0.0
        self.moved_at = time.monotonic()
        self.began_at = time.monotonic()

    async def run(self) -> None:
        """Measure, until cancelled."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(LOOP_LAG_EVERY_S)
            self.moved_at = time.monotonic()
            self.lag = max(0.0, self.moved_at - before - LOOP_LAG_EVERY_S)


class Reporter:
    """Watches one gateway. ``answer`` serves the control socket, ``run`` shows the start's progress."""

    def __init__(self, gateway: Gateway, *, live: bool) -> None:
        self._gateway = gateway
        self._live = live
        self._watch = LoopWatch()

    async def answer(self, words: list[str]) -> object:
        """One request of the control socket."""
        match words:
            case ["status"]:
                return await self.status()
            case ["restart-shard", number] if number.isdigit():
                return self._restart_shard(int(number))
            case ["drain", number] if number.isdigit():
                return self._drain(int(number))
            case _:
                asked = " ".join(words)[:80]
                return {"error": f"unknown request {asked!r}; there are: status, restart-shard N, drain N"}

    def _restart_shard(self, shard_id: int) -> object:
        if self._gateway.restart_shard(shard_id):
            return {"ok": f"shard {shard_id} reconnects and resumes"}
        return {"error": f"shard {shard_id} does not run here"}

    def _drain(self, cluster: int) -> object:
        if self._gateway.drain(cluster):
            return {"ok": f"cluster {cluster} is settled and given up; another gateway may take it"}
        return {"error": f"cluster {cluster} does not run here"}

    async def status(self) -> GatewayStatus:
        """Everything that can be seen from here, all processes together."""
        gateway = self._gateway
        held = gateway.held
        clusters: list[ClusterStatus] = []
        shards: list[ShardStatus] = []
        processes: list[ProcessStatus] = []
        notes: list[str] = []
        if isinstance(held, Worker):
            clusters, shards, process, notes = parts_of(held, self._watch, "gateway")
            processes = [process]
        else:
            processes = [_process(self._watch, "supervisor", [])]
            for part in await held.parts() if held is not None else []:
                clusters += part.clusters
                shards += part.shards
                processes.append(part.process)
                notes += part.notes
            notes += held.silent() if held is not None else []
        return GatewayStatus(
            version=__version__,
            state=gateway.phase,
            uptime_s=time.monotonic() - gateway.started_at,
            shard_count=gateway.choice.layout.shards if gateway.choice is not None else 0,
            clusters=sorted(clusters, key=lambda cluster: cluster.cluster),
            shards=sorted(shards, key=lambda shard: shard.shard),
            processes=processes,
            budget=_budget(gateway, sum(shard.identifies for shard in shards)),
            notes=notes,
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
        while True:
            await asyncio.sleep(LOG_EVERY_S)
            ready, total, left = self._progress()
            if not total:
                continue
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

        columns = (
            TextColumn("[bold]shards live"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
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


def parts_of(
    worker: Worker, watch: LoopWatch, role: str
) -> tuple[list[ClusterStatus], list[ShardStatus], ProcessStatus, list[str]]:
    """What one process knows: its clusters, its shards, itself, and what a person should know."""
    now = asyncio.get_running_loop().time()
    deadline = time.monotonic() + COUNTING_S
    # Those counted longest ago come first, so that each has its turn.
    eldest = sorted(
        worker.clusters.values(), key=lambda each: each.cache_counts[0] if each.cache_counts else 0.0
    )
    clusters = [_cluster(worker, cluster, deadline) for cluster in eldest]
    shards = [
        _shard(cluster, shard, now)
        for cluster in worker.clusters.values()
        for shard in cluster.shards.values()
    ]
    return clusters, shards, _process(watch, role, list(worker.clusters)), _notes(worker)


def _process(watch: LoopWatch, role: str, clusters: list[int]) -> ProcessStatus:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return ProcessStatus(
        pid=os.getpid(),
        role=role,
        clusters=clusters,
        cpu_s=usage.ru_utime + usage.ru_stime,
        memory_bytes=_resident_bytes(),
        loop_lag_ms=watch.lag * 1000,
        uptime_s=time.monotonic() - watch.began_at,
        silent_s=time.monotonic() - watch.moved_at,
    )


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


def _shard(cluster: Cluster, shard: Shard, now: float) -> ShardStatus:
    conversation = shard.conversation
    last = shard.last_close
    return ShardStatus(
        shard=shard.shard_id,
        cluster=cluster.number,
        state=conversation.state.value,
        since_s=now - shard.state_since,
        why=shard.state_why,
        session=conversation.session_id,
        received=conversation.received_seq,
        settled=cluster.streams[shard.shard_id].settled,
        latency_ms=None if conversation.latency is None else conversation.latency * 1000,
        closes={"none" if code is None else str(code): count for code, count in shard.closes.items()},
        last_close=None if last is None else f"{last[0] or 'TCP'} {last[1]}".strip(),
        resumes_tried=shard.resumes_tried,
        resumes_succeeded=shard.resumes_succeeded,
        identifies=shard.identifies,
        waiting_commands=conversation.waiting_commands,
        session_s=now - shard.session_since,
        away_s=0.0 if shard.away_since is None else now - shard.away_since,
        bytes_in=conversation.bytes_in,
        bytes_inflated=conversation.bytes_inflated,
    )


def _cluster(worker: Worker, cluster: Cluster, deadline: float) -> ClusterStatus:
    responder = worker.responders.get(cluster.number)
    return ClusterStatus(
        cluster=cluster.number,
        exchange=cluster.publisher.exchange,
        owned=worker.ownership.get(cluster.number, ("away", ""))[0] == "owned",
        shards_ready=sum(1 for shard in cluster.shards.values() if shard.conversation.state is State.LIVE),
        shards=len(cluster.shards),
        events=dict(cluster.events),
        received=cluster.events.total(),
        replayed=cluster.replayed,
        filtered=cluster.filtered,
        gaps=cluster.gaps,
        commands=dict(responder.commands) if responder else {},
        queries=dict(responder.queries) if responder else {},
        publisher=_publisher(cluster),
        cache=_cache(cluster, deadline),
        store="ok" if cluster.store is not None and cluster.store.fault is None else _store_words(cluster),
        repeated=cluster.repeated,
        oversize=cluster.oversize,
        refused=cluster.refused,
        query_kinds=dict(responder.query_kinds) if responder else {},
        query_buckets=_cumulative(responder.query_times.counts()) if responder else {},
        query_seconds=responder.query_times.total if responder else 0.0,
    )


def _cache(cluster: Cluster, deadline: float) -> dict[str, int] | None:
    """Entities by kind, and bytes on disk; None with the cache off or its store unreadable.

    Counting reads every guild's row. So it is done again only after a hundred times what it took, and past
    ``deadline`` (monotonic seconds) not at all: a look at many large clusters must not hold the event loop up.
    """
    store = cluster.store
    if store is None or not cluster.tools.settings.cache_enabled:
        return None
    began = time.monotonic()
    before = cluster.cache_counts
    if before is not None and (began < before[0] or began > deadline):
        return before[1]
    reader = store.reader()
    try:
        with reader.view() as view:
            counts = stats_of(view)
    except StoreUnreadable:
        return None
    found = {**counts, "disk_bytes": reader.disk_bytes()}
    ended = time.monotonic()
    cluster.cache_counts = (ended + COUNT_AGAIN * (ended - began), found)
    return found


def _store_words(cluster: Cluster) -> str:
    if cluster.store is not None and cluster.store.fault is not None:
        return cluster.store.fault.words
    return cluster.store_words


def _publisher(cluster: Cluster) -> PublisherStatus:
    publisher = cluster.publisher
    oldest = publisher.oldest()
    latencies = publisher.latencies()
    spool = publisher.spool
    return PublisherStatus(
        connected=publisher.connected,
        blocked=publisher.blocked,
        why=cluster.broker_why,
        paused=publisher.paused,
        published=publisher.published,
        confirmed=publisher.confirmed,
        nacked=publisher.nacked,
        republished=publisher.republished,
        unconfirmed=publisher.unconfirmed,
        unconfirmed_bytes=publisher.unconfirmed_bytes,
        lag_s=oldest[0] if oldest else 0.0,
        oldest=oldest[1] if oldest else None,
        spool_events=spool.events if spool else 0,
        spool_bytes=spool.bytes if spool else 0,
        unrouted=sorted(publisher.unrouted),
        bytes_out=publisher.bytes_out,
        latency_p50_ms=_quantile(latencies, 0.5),
        latency_p99_ms=_quantile(latencies, 0.99),
        latency_buckets=_cumulative(latencies),
        unrouted_events=publisher.unrouted_events.total(),
    )


def _quantile(buckets: Iterable[tuple[float, int]], share: float) -> float | None:
    """The upper edge, in milliseconds, of the bucket that holds this share of all; None without any."""
    buckets = list(buckets)
    total = sum(count for _, count in buckets)
    seen = 0
    for edge, count in buckets:
        seen += count
        if total and seen >= share * total:
            return edge * 1000
    return None


def _cumulative(buckets: Iterable[tuple[float, int]]) -> dict[str, int]:
    counts, seen = {}, 0
    for edge, count in buckets:
        seen += count
        counts["+Inf" if edge == float("inf") else f"{edge:g}"] = seen
    return counts


def _budget(gateway: Gateway, spent: int) -> BudgetStatus:
    if gateway.permits is None:
        return BudgetStatus(None, None, None, None, spent)
    governor, now = gateway.permits.governor, gateway.permits.now()
    return BudgetStatus(
        governor.total, governor.available(now), governor.reset_in(now), governor.max_concurrency, spent
    )


def _notes(worker: Worker) -> list[str]:
    notes = []
    for number, (state, why) in worker.ownership.items():
        if state != "owned":
            notes.append(f"cluster {number}: {why}")
    for cluster in worker.clusters.values():
        publisher = cluster.publisher
        if publisher.paused:
            notes.append(
                f"cluster {cluster.number}: reading from Discord is paused, the broker does not keep up"
            )
        oldest = publisher.oldest()
        if oldest is not None and oldest[0] > worker.settings.lag_warning:
            notes.append(
                f"cluster {cluster.number}: {oldest[1]} waits for its confirm since {oldest[0]:.0f} s"
            )
        if publisher.unrouted:
            notes.append(
                f"cluster {cluster.number}: no queue is bound for {', '.join(sorted(publisher.unrouted))}"
            )
        words = _store_words(cluster)
        if words != "ok":
            notes.append(f"cluster {cluster.number}: {words}")
    return notes
