"""Metrics for Prometheus: one row each; the exposition and ``docs/metrics.md`` derive from it.

All numbers are read from a :class:`GatewayStatus`; nothing here is called for an event. Labels have small known sets
of values: ``cluster`` (numbers), ``process`` (roles), ``event`` (names that Discord documents, the rest is ``other``),
``code`` (close codes), outcomes. Nothing is labelled by shard.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from rateway.runtime.monitoring.status import (
    PHASES,
    ClusterStatus,
    FleetClusterStatus,
    GatewayStatus,
    ProcessStatus,
    ShardStatus,
)
from rateway.session.actions import State
from rateway.transports.proxy_metrics import PROXY_METRICS
from rateway_protocol.discord.events import DOCUMENTED

__all__ = ["CONTENT_TYPE", "METRICS", "Row", "document", "render"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
# Codes that Discord documents and a few of RFC 6455: what else a peer may send is one value.
MOST_CODES = range(1000, 5000)

# How an identify ends that gets no READY.
FAILED = ("invalid", "closed", "timeout")
# Why a connection to Discord does not open.
DIALS = ("429", "403", "5xx", "refused", "silent", "unreachable", "foreign")
# For how long a live shard has had no event.
QUIET = {"1m": 60.0, "10m": 600.0, "1h": 3600.0}
# HTTP statuses with a label value of their own; all others are ``other``.
STATUSES = frozenset({"none", "200", "401", "403", "429", "500", "502", "503", "504"})

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Row:
    """One metric. ``name`` is the full one, ``_total`` included for counters."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


def _row(name: str, labels: str, text: str, kind: Kind | None = None) -> Row:
    derived: Kind = "counter" if name.endswith("_total") else "gauge"
    return Row(f"rateway_{name}", kind or derived, tuple(labels.split()), text)


METRICS: tuple[Row, ...] = (
    _row("build_info", "version python form", "Always 1; what runs, `compiled`, `partly compiled` or `plain Python`."),
    _row("up_seconds", "", "Seconds since this gateway started."),
    _row("state", "state", "1 for the state that the gateway is in: starting, running, stopping."),
    _row("ready", "", "1 while /health/ready says 200."),
    _row("http_rejected_total", "kind", "HTTP requests that found no slot: `page`, or `probe` for health probes."),
    _row("layout_shards", "", "Shards of the bot, those of other gateways included."),
    _row("shards", "cluster state", "Shards by state."),
    _row("shards_away_seconds", "cluster", "Since when the longest away shard is not live; 0: all are."),
    _row("shards_quiet", "cluster for", "Live shards without an event for over a minute, ten minutes, an hour."),
    _row("quiet_seconds", "cluster", "Since the last event of the live shard whose last one is longest ago."),
    _row("unknown_guild_events_total", "cluster", "Events about guilds that the cache does not know."),
    _row("heartbeat_seconds", "cluster of", "Round trip of the last heartbeats: the median and the worst shard's."),
    _row("closes_total", "cluster code", "Connections that ended, by close code; `none`: TCP ended without one."),
    _row("resumes_tried_total", "cluster", "RESUMEs sent."),
    _row("resumes_succeeded_total", "cluster", "RESUMEs that Discord answered with RESUMED."),
    _row("identifies_total", "cluster", "IDENTIFYs sent."),
    _row("identifies_beside_total", "cluster", "Not of these: IDENTIFYs of second sessions, which fill a cold cache."),
    _row("cache_cold_shards", "cluster", "Shards whose guilds the cache does not know since a takeover."),
    _row("identifies_failed_total", "outcome", "IDENTIFYs without READY: `invalid` (op 9), `closed`, `timeout`."),
    _row("identifies_failing_shards", "", "Shards whose identifies fail alike, which is Discord's fault; or 0."),
    _row("rest_failures_total", "status", "GET /gateway/bot unanswered, by HTTP status; `none`: without one."),
    _row("dials_failed_total", "process reason", "Connections to Discord that did not open, by reason."),
    _row("identify_budget", "of", "Identifies a day: `total`, and `remaining` of them."),
    _row("identify_budget_reset_seconds", "", "Until the day's identifies are whole again."),
    _row("identify_concurrency", "", "Identifies at once: Discord's max_concurrency."),
    _row("events_received_total", "cluster", "Dispatches from Discord."),
    _row("events_replayed_total", "cluster", "Of these, between a RESUME and its RESUMED."),
    _row("events_repeated_total", "cluster", "Of these, with a sequence number that Discord used twice."),
    _row("events_filtered_total", "cluster", "Of these, kept back by EVENTS or EVENTS_EXCEPT."),
    _row("events_by_name_total", "process event", "Dispatches by event name; `other`: what Discord does not document."),
    _row("gaps_total", "cluster", "Sessions lost, each told to the workers as RATEWAY_GAP."),
    _row("discord_bytes_total", "cluster form", "Bytes from Discord: on the `wire`, and `inflated`."),
    _row("compression_ratio", "cluster", "Bytes inflated for each on the wire, since the start."),
    _row("broker_connected", "cluster", "1 while the publishing connection is up."),
    _row("broker_blocked", "cluster", "1 while the broker blocks publishers (its memory or disk alarm)."),
    _row("broker_held_up_seconds", "cluster", "How long the broker has confirmed nothing, though it could."),
    _row("broker_bytes_total", "cluster", "Bytes to the broker, frames included."),
    _row("published_total", "cluster", "Messages for the exchange, RATEWAY_* included."),
    _row("confirmed_total", "cluster", "Messages that the broker confirmed."),
    _row("nacked_total", "cluster", "Messages that the broker refused; they are sent again."),
    _row("republished_total", "cluster", "Messages sent once more."),
    _row("ahead_total", "cluster", "Events published ahead of those that waited for the broker (URGENT)."),
    _row("oversize_total", "cluster", "Events larger than the broker takes: RATEWAY_OVERSIZE in their place."),
    _row("refused_total", "cluster", "Events given up after NACK_PATIENCE: RATEWAY_REFUSED in their place."),
    _row("ignored_total", "cluster", "Messages of Discord's without a numeric op, or with one that is not documented."),
    _row("unreadable_total", "cluster", "Dispatches that cannot be forwarded: RATEWAY_UNREADABLE in their place."),
    _row("unrouted_names", "cluster",
         "Event names without a queue that another cluster has one for; all such names where no cluster has a queue."),
    _row("unrouted_total", "cluster", "Messages that came back for want of a queue; a sample of them."),
    _row("unconfirmed", "cluster", "Messages that the broker has not confirmed, in memory and in the spool."),
    _row("unconfirmed_bytes", "cluster", "Bytes of those in memory."),
    _row("lag_seconds", "cluster", "Age of the oldest message without a confirm."),
    _row("spool_events", "cluster", "Messages in the spool on disk."),
    _row("spool_bytes", "cluster", "Bytes of the spool."),
    _row("event_log_kept", "cluster", "1 while published events go into the event log; absent without EVENT_LOG."),
    _row("event_log_away_seconds", "cluster", "How long events have waited for it, or gone without it; 0: neither."),
    _row("event_logs_begun_total", "cluster", "Event logs begun: a second one ends what proxies could resume."),
    _row("paused", "cluster", "1 while reading from Discord is paused."),
    _row("confirm_seconds", "process", "From an event's arrival at the publisher to its confirm. No sum.", "histogram"),
    _row("written_seconds", "process", "From an event's arrival at the publisher to its write. No sum.", "histogram"),
    _row("commands_total", "cluster outcome", "Commands of workers, by what became of them."),
    _row("messages_refused_total", "cluster reason", "Queries and commands refused unread, by reason."),
    _row("commands_waiting", "cluster", "Commands that wait for their turn on a shard."),
    _row("queries_total", "process type outcome", "Queries of workers; `batch`: many in one message."),
    _row("query_seconds", "process", "From a query's arrival to its answer.", "histogram"),
    _row("cache_entities", "cluster kind", "Entities in the cache; `unavailable_guilds` are guilds too."),
    _row("cache_bytes", "cluster", "Size of the store on disk, its reserve included."),
    _row(
        "cache_unread_events_total",
        "cluster outcome",
        "Events that the cache could not read in full: `left_out`: all but a part is in it; `not_applied`: nothing is.",
    ),
    _row("store_ok", "cluster", "1 while sessions and cache can be written down."),
    _row("fleet_members", "", "Members of the fleet that announce themselves. All of fleet_*: absent without FLEET."),
    _row("fleet_leaving", "", "Of these, members that hand their clusters over."),
    _row("fleet_governor", "", "1 while this gateway is the governor, which grants identifies to all members."),
    _row("fleet_owned", "fleet cluster", "1 for a cluster that this gateway owns, 0 for the layout's others."),
    _row("fleet_epoch", "cluster", "Of the clusters that it owns: the number of the tenure. It grows with each owner."),
    _row("fleet_since_seconds", "cluster", "Of the clusters that it owns: since when."),
    _row("fleet_record_age_seconds", "cluster", "Of these: since its newest confirmed record was sent to the broker."),
    _row("fleet_moving", "cluster", "Of these: 1 while it is being handed over to another member."),
    _row("fleet_leftovers", "cluster", "Events kept from an earlier tenure, until it is known what later owners have."),
    _row("fleet_leftovers_total", "cluster outcome",
         "What became of such events: `dropped` (a later owner had published it), `published`."),
    _row("fleet_unreadable_total", "", "Messages of other members that were no use, and were passed over."),
    _row("proxy_up", "", "1 while the gateway proxy of PROXY_ADDRESS runs; absent without that setting."),
    *(_row(f"proxy_{metric.name}", metric.label, metric.help) for metric in PROXY_METRICS),
    _row("process_cpu_seconds_total", "process", "CPU seconds of each process."),
    _row("process_memory_bytes", "process", "Resident memory of each process."),
    _row("process_loop_lag_seconds", "process", "How late the event loop came round last."),
    _row("process_up_seconds", "process", "Seconds since the process started."),
    _row("process_unread_seconds_total", "process", "Seconds in which Discord was not read, for want of confirms."),
    _row("process_messages_unread_total", "process", "Messages of the gateway's other processes, passed over."),
)  # fmt: skip

_BY_NAME = {row.name: row for row in METRICS}


def render(status: GatewayStatus, *, ready: bool, rejected: Mapping[str, int] | None = None) -> bytes:
    """Return the text that Prometheus reads. *rejected*: requests that found no slot at the HTTP server, by kind."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(status, ready, rejected or {}))
    return generate_latest(registry)


def document() -> str:
    """Return the table of ``docs/metrics.md``."""
    lines = ["| Metric | Type | Labels | What it says |", "|---|---|---|---|"]
    for row in METRICS:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.help} |")
    return "\n".join(lines) + "\n"


Sample = tuple[tuple[str, ...], float | None]


class _Collector(Collector):
    def __init__(self, status: GatewayStatus, ready: bool, rejected: Mapping[str, int]) -> None:
        self._status = status
        self._ready = ready
        self._rejected = rejected

    def collect(self) -> Iterator[Metric]:
        status = self._status
        yield from _families(_gateway(status, self._ready))
        kinds: list[Sample] = [((kind,), self._rejected.get(kind, 0)) for kind in ("page", "probe")]
        yield from _families({"rateway_http_rejected_total": kinds})
        yield from _families(_clusters(status))
        yield from _families(_shards(status))
        yield from _families(_fleet(status))
        yield from _families(_proxy(status))
        yield from _families(_processes(status))
        yield from _histograms(status)


def _families(values: Mapping[str, Iterable[Sample]]) -> Iterator[Metric]:
    """Return a family for each name; a value of None is not known and left out."""
    for name, samples in values.items():
        row = _BY_NAME[name]
        make = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
        family = make(name, row.help, labels=row.labels)
        for labels, value in samples:
            if value is not None:
                family.add_metric(labels, value)
        yield family


def _gateway(status: GatewayStatus, ready: bool) -> dict[str, list[Sample]]:
    from rateway import __version__
    from rateway.native.form import form

    budget = status.budget
    return {
        "rateway_build_info": [((__version__, platform.python_version(), form()), 1)],
        "rateway_up_seconds": [((), status.uptime_s)],
        "rateway_state": [((state,), float(state == status.state)) for state in PHASES],
        "rateway_ready": [((), float(ready))],
        "rateway_layout_shards": [((), status.shard_count)],
        "rateway_identify_budget": [(("total",), budget.total), (("remaining",), budget.remaining)],
        "rateway_identify_budget_reset_seconds": [((), budget.resets_in_s)],
        "rateway_identify_concurrency": [((), budget.max_concurrency)],
        "rateway_identifies_failed_total": [((how,), budget.failed.get(how, 0)) for how in FAILED],
        "rateway_identifies_failing_shards": [((), budget.failing_shards)],
        "rateway_rest_failures_total": [
            ((status,), count) for status, count in sorted(_by_status(budget.rest_failed).items())
        ],
    }


def _clusters(status: GatewayStatus) -> dict[str, list[Sample]]:
    values: dict[str, list[Sample]] = {}

    def say(name: str, cluster: ClusterStatus, value: float, *labels: str) -> None:
        values.setdefault(name, []).append(((str(cluster.cluster), *labels), value))

    routed = {name for cluster in status.clusters for name in cluster.publisher.routed}
    for cluster in status.clusters:
        renewal = cluster.cache_renewal
        say("rateway_identifies_beside_total", cluster, 0 if renewal is None else renewal.identifies)
        say("rateway_cache_cold_shards", cluster, cluster.cache_cold)
        publisher = cluster.publisher
        say("rateway_events_received_total", cluster, cluster.received)
        say("rateway_events_replayed_total", cluster, cluster.replayed)
        say("rateway_events_repeated_total", cluster, cluster.repeated)
        say("rateway_events_filtered_total", cluster, cluster.filtered)
        say("rateway_gaps_total", cluster, cluster.gaps)
        say("rateway_unknown_guild_events_total", cluster, cluster.unknown_guild_events)
        say("rateway_ahead_total", cluster, publisher.ahead)
        say("rateway_oversize_total", cluster, cluster.oversize)
        say("rateway_refused_total", cluster, cluster.refused)
        say("rateway_unreadable_total", cluster, cluster.unreadable)
        say("rateway_broker_connected", cluster, publisher.connected)
        say("rateway_broker_blocked", cluster, publisher.blocked)
        say("rateway_broker_held_up_seconds", cluster, publisher.held_up_s)
        say("rateway_broker_bytes_total", cluster, publisher.bytes_out)
        say("rateway_published_total", cluster, publisher.published)
        say("rateway_confirmed_total", cluster, publisher.confirmed)
        say("rateway_nacked_total", cluster, publisher.nacked)
        say("rateway_republished_total", cluster, publisher.republished)
        missing = [name for name in publisher.unrouted if not routed or name in routed]
        say("rateway_unrouted_names", cluster, len(missing))
        say("rateway_unrouted_total", cluster, publisher.unrouted_events)
        say("rateway_unconfirmed", cluster, publisher.unconfirmed)
        say("rateway_unconfirmed_bytes", cluster, publisher.unconfirmed_bytes)
        say("rateway_lag_seconds", cluster, publisher.lag_s)
        say("rateway_spool_events", cluster, publisher.spool_events)
        say("rateway_spool_bytes", cluster, publisher.spool_bytes)
        if (event_log := cluster.event_log) is not None:
            away = event_log.state in ("waiting", "without")
            say("rateway_event_log_kept", cluster, event_log.state == "kept")
            say("rateway_event_log_away_seconds", cluster, event_log.since_s if away else 0.0)
            say("rateway_event_logs_begun_total", cluster, event_log.begun)
        if (leftovers := cluster.leftovers) is not None:
            say("rateway_fleet_leftovers", cluster, leftovers.kept)
            say("rateway_fleet_leftovers_total", cluster, leftovers.dropped, "dropped")
            say("rateway_fleet_leftovers_total", cluster, leftovers.published, "published")
        say("rateway_paused", cluster, publisher.paused)
        say("rateway_store_ok", cluster, cluster.store == "ok")
        for outcome in ("left_out", "not_applied"):
            say("rateway_cache_unread_events_total", cluster, cluster.cache_unread.get(outcome, 0), outcome)
        for outcome, count in cluster.commands.items():
            say("rateway_commands_total", cluster, count, outcome)
        for reason, count in cluster.refused_messages.items():
            say("rateway_messages_refused_total", cluster, count, reason)
        for kind, count in _entities(cluster):
            say("rateway_cache_entities", cluster, count, kind)
        if cluster.cache is not None:
            say("rateway_cache_bytes", cluster, cluster.cache.get("disk_bytes", 0))
    return values


def _entities(cluster: ClusterStatus) -> Iterator[tuple[str, int]]:
    for kind, count in (cluster.cache or {}).items():
        if kind != "disk_bytes":
            yield kind, count


def _shards(status: GatewayStatus) -> dict[str, list[Sample]]:
    values: dict[str, list[Sample]] = {}
    by_cluster: dict[int, list[ShardStatus]] = {}
    for shard in status.shards:
        by_cluster.setdefault(shard.cluster, []).append(shard)

    def say(name: str, cluster: int, value: float, *labels: str) -> None:
        values.setdefault(name, []).append(((str(cluster), *labels), value))

    for cluster, shards in by_cluster.items():
        states = Counter(shard.state for shard in shards)
        for state in State:
            say("rateway_shards", cluster, states[state.value], state.value)
        say("rateway_shards_away_seconds", cluster, max(shard.away_s for shard in shards))
        quiet = [
            shard.dispatch_s for shard in shards if shard.state == "live" and shard.dispatch_s is not None
        ]
        for label, seconds in QUIET.items():
            say("rateway_shards_quiet", cluster, sum(1 for each in quiet if each > seconds), label)
        say("rateway_quiet_seconds", cluster, max(quiet, default=0.0))
        latencies = sorted(shard.latency_ms for shard in shards if shard.latency_ms is not None)
        if latencies:
            say("rateway_heartbeat_seconds", cluster, latencies[len(latencies) // 2] / 1000, "median")
            say("rateway_heartbeat_seconds", cluster, latencies[-1] / 1000, "worst")
        closes: Counter[str] = Counter()
        for shard in shards:
            for code, count in shard.closes.items():
                known = code == "none" or (code.isdigit() and int(code) in MOST_CODES)
                closes[code if known else "other"] += count
        for code, count in sorted(closes.items()):
            say("rateway_closes_total", cluster, count, code)
        say("rateway_resumes_tried_total", cluster, sum(shard.resumes_tried for shard in shards))
        say("rateway_resumes_succeeded_total", cluster, sum(shard.resumes_succeeded for shard in shards))
        say("rateway_identifies_total", cluster, sum(shard.identifies for shard in shards))
        say("rateway_commands_waiting", cluster, sum(shard.waiting_commands for shard in shards))
        say("rateway_ignored_total", cluster, sum(shard.ignored for shard in shards))
        wire = sum(shard.bytes_in for shard in shards)
        inflated = sum(shard.bytes_inflated for shard in shards)
        say("rateway_discord_bytes_total", cluster, wire, "wire")
        say("rateway_discord_bytes_total", cluster, inflated, "inflated")
        if wire:
            say("rateway_compression_ratio", cluster, inflated / wire)
    return values


def _fleet(status: GatewayStatus) -> dict[str, list[Sample]]:
    fleet = status.fleet
    if fleet is None:
        return {}
    mine = [cluster for cluster in fleet.clusters if cluster.owner == fleet.member]

    def of_mine(value: Callable[[FleetClusterStatus], float | None]) -> list[Sample]:
        return [((str(cluster.cluster),), value(cluster)) for cluster in mine]

    return {
        "rateway_fleet_members": [((), len(fleet.members))],
        "rateway_fleet_leaving": [((), sum(member.leaving for member in fleet.members))],
        "rateway_fleet_governor": [((), float(fleet.governor == fleet.member))],
        "rateway_fleet_owned": [
            ((fleet.name, str(cluster.cluster)), float(cluster.owner == fleet.member))
            for cluster in fleet.clusters
        ],
        "rateway_fleet_epoch": of_mine(lambda cluster: cluster.epoch),
        "rateway_fleet_since_seconds": of_mine(lambda cluster: cluster.since_s),
        "rateway_fleet_record_age_seconds": of_mine(lambda cluster: cluster.record_age_s),
        "rateway_fleet_moving": of_mine(lambda cluster: cluster.moving),
        "rateway_fleet_unreadable_total": [((), fleet.unreadable)],
    }


def _proxy(status: GatewayStatus) -> dict[str, list[Sample]]:
    proxy = status.proxy
    if proxy is None:
        return {"rateway_proxy_up": [((), 0.0)]} if status.wants_proxy else {}
    values: dict[str, list[Sample]] = {"rateway_proxy_up": [((), 1.0)]}
    for metric in PROXY_METRICS:
        values[f"rateway_proxy_{metric.name}"] = [
            ((label,) if metric.label else (), value) for label, value in metric.samples(proxy)
        ]
    return values


def _by_status(counts: Mapping[str, int]) -> Counter[str]:
    found: Counter[str] = Counter(dict.fromkeys(STATUSES, 0))
    for status, count in counts.items():
        found[status if status in STATUSES else "other"] += count
    return found


def _by_process(status: GatewayStatus) -> Iterator[tuple[ProcessStatus, list[ClusterStatus]]]:
    """Sums over several processes would fall when one is replaced; so each has its own."""
    clusters = {cluster.cluster: cluster for cluster in status.clusters}
    for process in status.processes:
        yield process, [clusters[number] for number in process.clusters if number in clusters]


def _processes(status: GatewayStatus) -> dict[str, list[Sample]]:
    values: dict[str, list[Sample]] = {}

    def say(name: str, value: float, *labels: str) -> None:
        values.setdefault(name, []).append((labels, value))

    for process, clusters in _by_process(status):
        role = process.role
        say("rateway_process_cpu_seconds_total", process.cpu_s, role)
        say("rateway_process_memory_bytes", process.memory_bytes, role)
        say("rateway_process_loop_lag_seconds", process.loop_lag_ms / 1000, role)
        say("rateway_process_up_seconds", process.uptime_s, role)
        say("rateway_process_unread_seconds_total", process.unread_s, role)
        say("rateway_process_messages_unread_total", process.messages_unread, role)
        for reason in DIALS:
            say("rateway_dials_failed_total", process.dials_failed.get(reason, 0), role, reason)
        names: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        for cluster in clusters:
            for name, count in cluster.events.items():
                names[name if name in DOCUMENTED else "other"] += count
            if cluster.events_other:
                names["other"] += cluster.events_other
            kinds.update(cluster.query_kinds)
        for name, count in names.items():
            say("rateway_events_by_name_total", count, role, name)
        for kind, count in kinds.items():
            type_, _, outcome = kind.partition(" ")
            say("rateway_queries_total", count, role, type_, outcome)
    return values


def _histograms(status: GatewayStatus) -> Iterator[Metric]:
    confirm, query = _histogram("rateway_confirm_seconds"), _histogram("rateway_query_seconds")
    written = _histogram("rateway_written_seconds")
    for process, clusters in _by_process(status):
        confirms: Counter[str] = Counter()
        writings: Counter[str] = Counter()
        queries: Counter[str] = Counter()
        for cluster in clusters:
            confirms.update(cluster.publisher.latency_buckets)
            writings.update(cluster.publisher.written_buckets)
            queries.update(cluster.query_buckets)
        if confirms:
            confirm.add_metric([process.role], [(edge, float(n)) for edge, n in confirms.items()], None)
        if writings:
            written.add_metric([process.role], [(edge, float(n)) for edge, n in writings.items()], None)
        if queries:
            total = sum(cluster.query_seconds for cluster in clusters)
            query.add_metric([process.role], [(edge, float(n)) for edge, n in queries.items()], total)
    yield confirm
    yield written
    yield query


def _histogram(name: str) -> HistogramMetricFamily:
    row = _BY_NAME[name]
    return HistogramMetricFamily(name, row.help, labels=row.labels)
