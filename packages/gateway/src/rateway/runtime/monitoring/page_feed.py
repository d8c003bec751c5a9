"""The page's data: the whole status once in small rows, then what has changed.

Everything that came from outside (close reasons, event names, the broker's words) is cleaned here: secrets replaced,
control characters escaped. The page writes it as text, never as HTML.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from rateway import logs
from rateway.runtime.monitoring.health import Health, Progress, Verdict, long_away
from rateway.runtime.monitoring.history import Happening, History, Sample, close_words
from rateway.runtime.monitoring.status import (
    ClusterStatus,
    FleetStatus,
    GatewayStatus,
    ProcessStatus,
    ShardStatus,
)

__all__ = ["PageFeed"]

# Reasons of a thousand shards would be a page of their own; the grid shows them.
MOST_REASONS = 12
# The page is no list of thousands; the status has more of them.
MOST_BOTS = 50
MOST_MEMBERS = 50
# Not a state of a shard: its state is unknown.
SILENT = "silent"


class ShardRow(msgspec.Struct, frozen=True):
    """A shard as its tile and its story show it. ``since`` and ``away_since`` are wall time in seconds."""

    shard: int
    cluster: int
    state: str
    since: int
    away_since: int | None
    why: str
    session: str | None
    closes: dict[str, int]
    last_close: str
    resumes_tried: int
    resumes_succeeded: int
    identifies: int
    bytes_in: int
    bytes_inflated: int
    away: Literal["", "late", "lost"] = ""
    """How long it has been away: longer than a shard that just reconnects (``late``), or than RESUME_PATIENCE
    (``lost``).
    """


class ClusterRow(msgspec.Struct, frozen=True):
    """A cluster's part: its shards are in their own rows."""

    cluster: int
    exchange: str
    owned: bool
    connected: bool
    blocked: bool
    paused: bool
    why: str
    lag_s: float
    unconfirmed: int
    spool_events: int
    spool_bytes: int
    unrouted: list[str]
    store: str
    gaps: int


# (shard, received, settled, heartbeat in ms, waiting commands, wall time of the last event, events about guilds that
# never came): what changes all the time.
Pulse = tuple[int, int, int, float | None, int, int | None, int]


class PageFeed:
    """Remembers what was told; :meth:`changes` is what is new, :meth:`everything` a beginning for one who joins."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._shards: dict[int, ShardRow] = {}
        self._pulses: dict[int, Pulse] = {}
        self._clusters: dict[int, ClusterRow] = {}
        self._summary: dict[str, Any] = {}

    def changes(
        self,
        status: GatewayStatus,
        wall: float,
        verdict: Verdict,
        live: Health,
        far: Progress,
        sample: Sample | None,
        happenings: list[Happening],
        *,
        silent: bool = False,
    ) -> bytes:
        """Return one message for all pages that follow. ``silent``: a process does not answer; its shards stay in
        sight.
        """
        patience_s = status.resume_patience_s
        shards = {row.shard: row for row in (self._row(shard, wall, patience_s) for shard in status.shards)}
        pulses = {shard.shard: _pulse(shard, wall, self._pulses.get(shard.shard)) for shard in status.shards}
        clusters = {cluster.cluster: _cluster_row(cluster) for cluster in status.clusters}
        if silent:
            for number, row in self._shards.items():
                if number not in shards:
                    shards[number] = _silent(row, wall)
            clusters = {**self._clusters, **clusters}
        changed = {
            "shards": [row for number, row in shards.items() if self._shards.get(number) is not row],
            "pulses": [pulse for number, pulse in pulses.items() if self._pulses.get(number) != pulse],
            "clusters": [row for number, row in clusters.items() if self._clusters.get(number) != row],
            "gone": [number for number in self._shards if number not in shards],
            "gone_clusters": [number for number in self._clusters if number not in clusters],
        }
        self._shards, self._pulses, self._clusters = shards, pulses, clusters
        self._summary = _summary(status, wall, verdict, live, far)
        new = {
            "samples": [] if sample is None else [sample],
            "happenings": [_clean(each) for each in happenings],
        }
        return msgspec.json.encode({**self._summary, **changed, **new})

    def everything(self) -> bytes:
        """Return all that :meth:`changes` has told so far, in the same form."""
        return msgspec.json.encode(
            {
                **self._summary,
                "whole": True,
                "shards": list(self._shards.values()),
                "pulses": list(self._pulses.values()),
                "clusters": list(self._clusters.values()),
                "gone": [],
                "gone_clusters": [],
                "samples": list(self._history.samples),
                "happenings": [_clean(each) for each in self._history.happenings],
            }
        )

    def _row(self, shard: ShardStatus, wall: float, patience_s: float) -> ShardRow:
        away = long_away(shard, patience_s)
        before = self._shards.get(shard.shard)
        same = before is not None and (
            before.state == shard.state
            and before.away == away
            and before.session == shard.session
            and before.identifies == shard.identifies
            and before.resumes_tried == shard.resumes_tried
            and before.resumes_succeeded == shard.resumes_succeeded
            and before.closes == shard.closes
            and abs(before.since - (wall - shard.since_s)) < 2.0
        )
        if same:
            assert before is not None
            return before
        return ShardRow(
            shard=shard.shard,
            cluster=shard.cluster,
            state=shard.state,
            since=round(wall - shard.since_s),
            away_since=None if shard.state == "live" else round(wall - shard.away_s),
            why=_text(shard.why),
            session=shard.session and _text(shard.session),
            away=away,
            closes=dict(shard.closes),
            last_close=_text(close_words(shard.last_close)),
            resumes_tried=shard.resumes_tried,
            resumes_succeeded=shard.resumes_succeeded,
            identifies=shard.identifies,
            bytes_in=shard.bytes_in,
            bytes_inflated=shard.bytes_inflated,
        )


def _silent(row: ShardRow, wall: float) -> ShardRow:
    """Return the shard as one of a process that does not answer: its state is unknown."""
    if row.state == SILENT:
        return row
    since = round(wall)
    why = "its process does not answer"
    return msgspec.structs.replace(
        row, state=SILENT, since=since, away_since=row.away_since or since, why=why, away=""
    )


def _pulse(shard: ShardStatus, wall: float, before: Pulse | None) -> Pulse:
    latency = None if shard.latency_ms is None else round(shard.latency_ms, 1)
    last = None if shard.dispatch_s is None else round(wall - shard.dispatch_s)
    if before is not None and before[5] is not None and last is not None and abs(last - before[5]) <= 1:
        # The same event, seen a rounding later.
        last = before[5] if before[1] == shard.received else last
    unknown = shard.unknown_guild_events
    return shard.shard, shard.received, shard.settled, latency, shard.waiting_commands, last, unknown


def _cluster_row(cluster: ClusterStatus) -> ClusterRow:
    publisher = cluster.publisher
    return ClusterRow(
        cluster=cluster.cluster,
        exchange=cluster.exchange,
        owned=cluster.owned,
        connected=publisher.connected,
        blocked=publisher.blocked,
        paused=publisher.paused,
        why="" if publisher.connected else _text(publisher.why),
        lag_s=round(publisher.lag_s, 1),
        unconfirmed=publisher.unconfirmed,
        spool_events=publisher.spool_events,
        spool_bytes=publisher.spool_bytes,
        unrouted=[_text(name) for name in publisher.unrouted[:20]],
        store=_text(cluster.store),
        gaps=cluster.gaps,
    )


def _summary(
    status: GatewayStatus, wall: float, verdict: Verdict, live: Health, far: Progress
) -> dict[str, Any]:
    reasons = [
        msgspec.structs.replace(reason, text=_text(reason.text), shards=reason.shards[:1])
        for reason in verdict.reasons[:MOST_REASONS]
    ]
    entities: dict[str, int] = {}
    size = 0
    for cluster in status.clusters:
        for kind, count in (cluster.cache or {}).items():
            if kind == "disk_bytes":
                size += count
            elif count:
                entities[kind] = entities.get(kind, 0) + count
    return {
        "version": status.version,
        "now": round(wall, 2),
        "state": status.state,
        "uptime_s": round(status.uptime_s),
        "layout_shards": status.shard_count,
        "verdict": {"level": verdict.level, "words": _text(verdict.words), "reasons": reasons},
        "more_reasons": max(0, len(verdict.reasons) - MOST_REASONS),
        "live": live.ok,
        "progress": far,
        "budget": status.budget,
        "processes": [_process(process) for process in status.processes],
        "fleet": None if status.fleet is None else _fleet(status.fleet),
        "proxy": _proxy(status) if status.wants_proxy else None,
        "cache": {"entities": entities, "bytes": size} if entities or size else None,
        "notes": [_text(note) for note in status.notes[:20]],
    }


def _fleet(fleet: FleetStatus) -> dict[str, Any]:
    """Members with what they own; the words of other machines are cleaned as all that came from outside."""
    owned: dict[str, list[list[Any]]] = {}
    for each in fleet.clusters:
        if each.owner is not None:
            age = None if each.record_age_s is None else round(each.record_age_s, 1)
            row = [each.cluster, each.epoch, round(each.since_s), _text(each.how), _text(each.former), age]
            owned.setdefault(each.owner, []).append([*row, each.moving, each.live, each.shards])
    return {
        "name": _text(fleet.name),
        "member": _text(fleet.member),
        "governor": None if fleet.governor is None else _text(fleet.governor),
        "governor_epoch": fleet.governor_epoch,
        "generation": fleet.generation,
        "connected": fleet.connected,
        "unowned": [each.cluster for each in fleet.clusters if each.owner is None] if fleet.connected else [],
        "members": [
            {
                "member": _text(each.member),
                "version": _text(each.version),
                "heard_s": round(each.heard_s),
                "leaving": each.leaving,
                "deaf": each.deaf,
                "clusters": owned.get(each.member, []),
            }
            for each in fleet.members[:MOST_MEMBERS]
        ],
    }


def _proxy(status: GatewayStatus) -> dict[str, Any]:
    """The gateway proxy and its bots; ``address`` is empty while it is down."""
    proxy = status.proxy
    if proxy is None:
        return {"address": "", "connections": 0, "bots": []}
    bots = [
        {
            "library": _text(bot.library),
            "shard": [bot.shard, bot.count],
            "state": bot.state,
            "since_s": round(bot.since_s),
            "lag": [bot.lag_events, bot.lag_s],
            "sent": bot.sent,
        }
        for bot in proxy.bots[:MOST_BOTS]
    ]
    return {
        "address": proxy.address,
        "connections": proxy.connections,
        "resumes": proxy.resumes,
        "replayed": proxy.replayed,
        "bots": bots,
    }


def _process(process: ProcessStatus) -> dict[str, Any]:
    clusters = process.clusters
    return {
        "role": process.role,
        "pid": process.pid,
        "clusters": [clusters[0], clusters[-1]] if clusters else [],
        "cpu_s": round(process.cpu_s, 1),
        "memory_bytes": process.memory_bytes,
        "loop_lag_ms": round(process.loop_lag_ms, 1),
    }


def _clean(happening: Happening) -> Happening:
    return msgspec.structs.replace(happening, text=_text(happening.text))


def _text(text: str) -> str:
    return logs.escape(logs.redact(text))[:500]
