"""Collect one process's part of the status: its clusters and shards, read from counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator

import msgspec
from rateway.delivery.limits import HELD_UP_S
from rateway.runtime.monitoring.loop_lag import LoopLag
from rateway.runtime.monitoring.status import (
    CacheRenewalStatus,
    ClusterStatus,
    EventLogStatus,
    LeftoversStatus,
    Note,
    ProcessStatus,
    PublisherStatus,
    ShardStatus,
)
from rateway.runtime.runner.cluster import Cluster
from rateway.runtime.runner.runner import Runner
from rateway.runtime.runner.shard import Shard
from rateway.session.actions import State
from rateway.session.conversation import Conversation

__all__ = ["collect"]


def collect(
    runner: Runner, watch: LoopLag, role: str
) -> tuple[list[ClusterStatus], list[ShardStatus], ProcessStatus, list[Note]]:
    """Return one process's part of the status: its clusters, its shards, itself, and its notes for the operator."""
    now = asyncio.get_running_loop().time()
    clusters = [_cluster(runner, cluster) for cluster in runner.clusters.values()]
    shards = [
        _shard(runner, cluster, shard, now)
        for cluster in runner.clusters.values()
        for shard in cluster.shards.values()
    ]
    process = msgspec.structs.replace(
        watch.process(role, list(runner.clusters)),
        dials_failed=dict(runner.dialer.failures),
        unread_s=runner.read_gate.waited,
    )
    return clusters, shards, process, _notes(runner)


def _shard(runner: Runner, cluster: Cluster, shard: Shard, now: float) -> ShardStatus:
    conversation = shard.conversation
    last = shard.last_close
    return ShardStatus(
        shard=shard.shard_id,
        cluster=cluster.number,
        state=conversation.state.value,
        since_s=now - shard.state_since,
        why=(conversation.state is State.CONNECTING and runner.dialer.refusal(shard.host)) or shard.why,
        session=conversation.session_id,
        received=conversation.received_seq,
        settled=shard.stream.settled,
        latency_ms=_latency_ms(conversation),
        closes={"none" if code is None else str(code): count for code, count in shard.closes.items()},
        last_close=None if last is None else f"{last[0] or 'TCP'} {last[1]}".strip(),
        resumes_tried=shard.resumes_tried,
        resumes_succeeded=shard.resumes_succeeded,
        identifies=shard.identifies,
        waiting_commands=conversation.waiting_commands,
        ignored=conversation.ignored,
        session_s=now - shard.session_since,
        away_s=0.0 if shard.away_since is None else now - shard.away_since,
        bytes_in=conversation.bytes_in,
        bytes_inflated=conversation.bytes_inflated,
        incomplete_since=_incomplete_since(cluster, shard.shard_id),
        dispatch_s=None if shard.dispatched_at is None else max(0.0, now - shard.dispatched_at),
        unknown_guild_events=cluster.unknown_guild_events(shard.shard_id) - shard.unknown_before,
    )


def _latency_ms(conversation: Conversation) -> float | None:
    """Of the connection that is open: what was measured on a former one says nothing of now."""
    if conversation.latency is None or conversation.state is not State.LIVE:
        return None
    return conversation.latency * 1000


def _cluster(runner: Runner, cluster: Cluster) -> ClusterStatus:
    request_handler = runner.responders.get(cluster.number)
    return ClusterStatus(
        cluster=cluster.number,
        exchange=cluster.publisher.exchange,
        owned=runner.owns(cluster.number),
        shards_ready=sum(1 for shard in cluster.shards.values() if shard.conversation.state is State.LIVE),
        shards=len(cluster.shards),
        events=dict(cluster.events.pipeline.events),
        events_other=cluster.events.pipeline.other,
        received=cluster.tallies.received,
        replayed=cluster.tallies.replayed,
        filtered=cluster.tallies.filtered,
        gaps=cluster.gap_reports.count,
        commands=dict(request_handler.commands) if request_handler else {},
        queries=dict(request_handler.queries) if request_handler else {},
        publisher=_publisher(cluster),
        cache=_cache(cluster),
        store="ok" if cluster.store is not None and cluster.store.fault is None else _store_words(cluster),
        repeated=cluster.tallies.repeated,
        oversize=cluster.tallies.oversize,
        refused=cluster.tallies.refused,
        refused_messages={str(reason): count for reason, count in request_handler.refused.items()}
        if request_handler
        else {},
        unreadable=cluster.events.pipeline.unreadable,
        query_kinds=dict(request_handler.query_kinds) if request_handler else {},
        query_buckets=_cumulative(request_handler.query_times.counts()) if request_handler else {},
        query_seconds=request_handler.query_times.total if request_handler else 0.0,
        events_per_s=cluster.tallies.pace.rate,
        unknown_guild_events=sum(map(cluster.unknown_guild_events, cluster.shards)),
        event_log=_event_log(cluster),
        leftovers=_leftovers(cluster),
        cache_unread=_unread(cluster),
        cache_cold=_cold(cluster),
        cache_renewal=_renewal(cluster),
    )


def _cold(cluster: Cluster) -> int:
    return 0 if cluster.cache is None else len(cluster.cache.store.cold_shards & cluster.shards.keys())


def _renewal(cluster: Cluster) -> CacheRenewalStatus | None:
    if cluster.second_sessions is None:
        return None
    figures = cluster.second_sessions.figures
    return CacheRenewalStatus(figures.of, figures.renewed, figures.identifies, figures.failed, figures.note)


def _leftovers(cluster: Cluster) -> LeftoversStatus | None:
    found = cluster.leftovers
    return None if found is None else LeftoversStatus(found.events, found.dropped, found.published)


def _cache(cluster: Cluster) -> dict[str, int] | None:
    """Entities by kind and bytes on disk, as last counted; None with the cache off or its store unreadable."""
    counts = None if cluster.cache is None else cluster.cache.statistics.counts
    return None if counts is None else dict(counts)


def _event_log(cluster: Cluster) -> EventLogStatus | None:
    found = cluster.publisher.event_log
    if found is None or not found.is_on:
        return None
    return EventLogStatus(
        state=found.state,
        since_s=time.monotonic() - found.since,
        name=found.name,
        why=found.why,
        begun=found.begun,
        names=found.names,
    )


def _incomplete_since(cluster: Cluster, shard_id: int) -> int:
    """Of a cold shard nothing is said here: a second session renews it (``cache/stats.py``)."""
    if cluster.cache is None or shard_id in cluster.cache.store.cold_shards:
        return 0
    return cluster.cache.statistics.incomplete.get(shard_id, 0)


def _unread(cluster: Cluster) -> dict[str, int]:
    """Return events that the cache could not read in full, by what became of them."""
    if cluster.cache is None:
        return {}
    unread = cluster.cache.store.unread
    return {"left_out": unread.left_out, "not_applied": unread.not_applied}


def _store_words(cluster: Cluster) -> str:
    if cluster.store is not None and cluster.store.fault is not None:
        return cluster.store.fault.words
    return cluster.store_words


def _publisher(cluster: Cluster) -> PublisherStatus:
    publisher = cluster.publisher
    # A log is a queue for every name: what lacks a worker's cannot be known beside it.
    has_log = publisher.event_log is not None and publisher.event_log.state == "kept"
    oldest = publisher.oldest()
    latencies = publisher.latencies()
    spool = publisher.spool
    return PublisherStatus(
        connected=publisher.connected,
        blocked=publisher.blocked,
        why=cluster.sink_observer.why,
        paused=publisher.paused,
        published=publisher.published,
        confirmed=publisher.confirmed,
        nacked=publisher.refusals,
        republished=publisher.republished,
        unconfirmed=publisher.unconfirmed,
        unconfirmed_bytes=publisher.unconfirmed_bytes,
        lag_s=oldest[0] if oldest else 0.0,
        oldest=oldest[1] if oldest else None,
        spool_events=spool.events if spool else 0,
        spool_bytes=spool.bytes if spool else 0,
        unrouted=[] if has_log else sorted(publisher.unrouted),
        routed=[] if has_log else sorted(publisher.routed),
        bytes_out=publisher.bytes_out,
        latency_p50_ms=_quantile(latencies, 0.5),
        latency_p99_ms=_quantile(latencies, 0.99),
        latency_buckets=_cumulative(latencies),
        written_buckets=_cumulative(publisher.writings()),
        unrouted_events=publisher.unrouted_events.total(),
        ahead=publisher.ahead,
        address=publisher.address,
        server=publisher.server,
        nodes=publisher.nodes,
        held_up_s=publisher.held_up,
    )


def _quantile(buckets: Iterable[tuple[float, int]], share: float) -> float | None:
    """Return the upper edge, in milliseconds, of the bucket that holds this share of all; None without any."""
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


def _notes(runner: Runner) -> list[Note]:
    clusters = runner.clusters.values()
    notes = [note for cluster in clusters for note in _notes_of_delivery(runner, cluster)]
    notes += [
        Note(why, number)
        for number, (state, why) in runner.ownership.items()
        if state != "owned" and number in runner.clusters
    ]
    notes += [Note(text) for text in runner.dialer.notes()]
    notes += [note for cluster in clusters for note in _notes_of_content(runner, cluster)]
    nodes = max((cluster.publisher.nodes for cluster in clusters), default=1)
    if nodes > 1:
        notes.append(
            Note(
                f"the broker seems to be a RabbitMQ cluster (AMQP_URI leads to {nodes} machines): workers' queues "
                "should be quorum queues. A classic queue is away with its node, and what is published meanwhile is "
                "confirmed and lost"
            )
        )
    return notes


def _notes_of_delivery(runner: Runner, cluster: Cluster) -> Iterator[Note]:
    publisher, number = cluster.publisher, cluster.number
    oldest = publisher.oldest()
    if publisher.held_up > HELD_UP_S:
        text = (
            "the broker has confirmed nothing for {seconds} s: a queue that takes no events holds all events of the "
            "cluster up (docs/rabbitmq.md)"
        )
        yield Note(text, number, publisher.held_up)
    elif oldest is not None and oldest[0] > runner.settings.process.lag_warning:
        yield Note("events wait for the broker's confirm since {seconds} s", number, oldest[0])
    if publisher.paused:
        yield Note("reading from Discord is paused, the broker does not keep up", number)
    if cluster.leftovers is not None and (kept := cluster.leftovers.events):
        text = (
            f"{kept} events of the cluster are kept from before another gateway owned it: what that has published is "
            "dropped, the rest is published"
        )
        yield Note(text, number)
    event_log = publisher.event_log
    if event_log is not None and event_log.why:
        before = "events are published without an event log: " if event_log.state == "without" else ""
        yield Note(f"{before}{event_log.why}", number)


def _notes_of_content(runner: Runner, cluster: Cluster) -> Iterator[Note]:
    number = cluster.number
    words = _store_words(cluster)
    if words != "ok":
        yield Note(words, number)
    renewal, cold = _renewal(cluster), _cold(cluster)
    if cold and renewal is not None:
        yield Note(
            f"the cache is being renewed: {renewal.renewed} of {renewal.renewed + cold} shards have their guilds again"
            + (f"; {renewal.note}" if renewal.note else ""),
            number,
        )
    elif cold:
        text = f"the guilds of {cold} shards are not known until new sessions bring them (CACHE_RENEW=true renews them)"
        yield Note(text, number)
    if cluster.events.pipeline.unreadable:
        text = (
            f"{cluster.events.pipeline.unreadable} dispatches could not be forwarded (the last one: "
            f"{cluster.events.pipeline.unreadable_why}); RATEWAY_UNREADABLE told the worker of each"
        )
        yield Note(text, number)
    request_handler = runner.responders.get(number)
    if request_handler is not None and request_handler.refused_lately:
        text = (
            f"{request_handler.refused.total()} messages of workers could not be read and were refused "
            f"({', '.join(sorted(request_handler.refused))}); the log says more"
        )
        yield Note(text, number)
    if cluster.store is not None and (unread := cluster.store.unread.note()):
        yield Note(unread, number)
