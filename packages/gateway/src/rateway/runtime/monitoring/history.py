"""Fifteen minutes of numbers, and the changes from one status to the next in words.

Made from statuses alone: two of them are compared, so that it does not matter in which process something happened,
and nothing is noted down while an event passes. A connection that broke and resumed between two looks shows in its
counters.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec
from rateway.runtime.monitoring.health import LAG_NOTICE_S
from rateway.runtime.monitoring.status import ClusterStatus, GatewayStatus, ShardStatus
from rateway_protocol.discord.close_codes import KEEP_SESSION, close_code

__all__ = ["Happening", "History", "Sample", "close_words"]

KEEP_S = 900.0
STEP_S = 5.0
MINUTE_STEPS = 12
MOST_HAPPENINGS = 200
# Shards to which the same thing happened at once are one line; up to so many are named one by one.
Level = Literal["good", "info", "notice", "trouble"]


class Sample(msgspec.Struct, array_like=True, frozen=True):
    """Numbers of one step: wall time in seconds, events and confirms a second, lag in seconds, heartbeat in ms.

    ``confirm_p99_ms``: within so long the broker confirmed 99 of 100 events of the last minute.
    """

    at: float
    received: float
    confirmed: float
    lag_s: float
    heartbeat_ms: float | None
    unconfirmed: int
    confirm_p99_ms: float | None = None


class Happening(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line for a person. ``number`` counts up; ``at`` is wall time in seconds."""

    number: int
    at: float
    level: Level
    text: str
    shards: list[int] = []
    cluster: int | None = None


class History:
    """Give each status to :meth:`take`; read ``samples`` and ``happenings``, oldest first."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=int(KEEP_S / STEP_S))
        self.happenings: deque[Happening] = deque(maxlen=MOST_HAPPENINGS)
        self._before: GatewayStatus | None = None
        self._stepped: tuple[float, GatewayStatus] | None = None
        self._numbers = itertools.count(1)
        self._lag = 0.0
        self._all_live_said = False
        # What was confirmed how fast, by cluster, at each step of the last minute.
        self._confirms: deque[dict[int, dict[str, int]]] = deque(maxlen=MINUTE_STEPS + 1)

    def take(self, status: GatewayStatus, now: float, wall: float) -> tuple[Sample | None, list[Happening]]:
        """What is new since the last one: a sample every STEP_S seconds, and happenings."""
        found = self._compare(self._before, status, wall) if self._before is not None else []
        self._before = status
        self.happenings.extend(found)
        return self._step(status, now, wall), found

    def _step(self, status: GatewayStatus, now: float, wall: float) -> Sample | None:
        self._lag = max(self._lag, max((each.publisher.lag_s for each in status.clusters), default=0.0))
        if self._stepped is None:
            self._stepped = (now, status)
            return None
        then, before = self._stepped
        if now - then < STEP_S * 0.9:
            return None
        self._stepped = (now, status)
        sample = Sample(
            at=wall,
            received=_rate(before, status, lambda cluster: cluster.received, now - then),
            confirmed=_rate(before, status, lambda cluster: cluster.publisher.confirmed, now - then),
            lag_s=self._lag,
            heartbeat_ms=_median(shard.latency_ms for shard in status.shards),
            unconfirmed=sum(cluster.publisher.unconfirmed for cluster in status.clusters),
            confirm_p99_ms=self._confirmed_within(status),
        )
        self._lag = 0.0
        self.samples.append(sample)
        return sample

    def _confirmed_within(self, status: GatewayStatus) -> float | None:
        newest = {each.cluster: each.publisher.latency_buckets for each in status.clusters}
        self._confirms.append(newest)
        oldest = self._confirms[0]
        gained: dict[str, int] = {}
        for number, buckets in newest.items():
            before = oldest.get(number, {}) if len(self._confirms) > 1 else {}
            anew = before.get("+Inf", 0) > buckets.get("+Inf", 0)  # its process was replaced
            for bound, count in buckets.items():
                gained[bound] = gained.get(bound, 0) + count - (0 if anew else before.get(bound, 0))
        total = gained.get("+Inf", 0)
        edges = (edge for edge, count in gained.items() if total and count >= 0.99 * total)
        edge = next(edges, "+Inf")
        return None if edge == "+Inf" else float(edge) * 1000

    # Changes in words.

    def _compare(self, before: GatewayStatus, after: GatewayStatus, wall: float) -> list[Happening]:
        found: list[Happening] = []

        def say(level: Level, text: str, shards: Iterable[int] = (), cluster: int | None = None) -> None:
            found.append(Happening(next(self._numbers), wall, level, text, list(shards), cluster))

        if before.state != after.state:
            say("info", f"the gateway is {after.state}")
        for level, text in _processes(before, after):
            say(level, text)
        known = {cluster.cluster: cluster for cluster in before.clusters}
        for cluster in after.clusters:
            old = known.get(cluster.cluster)
            if old is not None:
                for level, text in _cluster(old, cluster):
                    say(level, text, cluster=cluster.cluster)
        for (level, text), shards in _group(before, after).items():
            say(level, text, shards)
        everybody = bool(after.shards) and all(shard.state == "live" for shard in after.shards)
        if everybody and not self._all_live_said:
            say("good", f"all {len(after.shards)} shards are live")
        self._all_live_said = everybody
        return found


def _processes(before: GatewayStatus, after: GatewayStatus) -> Iterator[tuple[Level, str]]:
    old = {process.role: process.pid for process in before.processes}
    new = {process.role: process.pid for process in after.processes}
    for role in sorted(old.keys() - new.keys()):
        if old[role] not in new.values():
            yield "trouble", f"{role} (pid {old[role]}) does not answer any more"
    for role, pid in new.items():
        if role not in old and pid in old.values():
            continue
        if role not in old:
            yield "good", f"{role} (pid {pid}) runs"
        elif old[role] != pid:
            yield "notice", f"{role} was replaced: pid {old[role]} → {pid}"


def _cluster(old: ClusterStatus, new: ClusterStatus) -> Iterator[tuple[Level, str]]:
    before, after = old.publisher, new.publisher
    if before.connected != after.connected:
        why = f": {after.why}" if after.why else ""
        back = "the broker is back" if before.confirmed else "the broker is connected"
        yield ("good", back) if after.connected else ("trouble", f"the broker is away{why}")
    if before.blocked != after.blocked:
        yield (
            ("trouble", "the broker blocks publishers")
            if after.blocked
            else ("good", "the broker takes events again")
        )
    if before.paused != after.paused:
        yield ("trouble", "reading from Discord is paused") if after.paused else ("good", "reading goes on")
    if bool(before.spool_events) != bool(after.spool_events):
        yield (
            ("notice", "events go to the spool")
            if after.spool_events
            else ("good", "the spool is empty again")
        )
    if (before.lag_s > LAG_NOTICE_S) != (after.lag_s > LAG_NOTICE_S) and after.connected:
        yield (
            ("notice", "confirms are late")
            if after.lag_s > LAG_NOTICE_S
            else ("good", "confirms come in time")
        )
    if old.owned != new.owned:
        yield (
            ("info", "the cluster is ours") if new.owned else ("trouble", "the cluster is not ours any more")
        )
    if old.store != new.store:
        yield (
            ("good", "the store can be used again")
            if new.store == "ok"
            else ("trouble", f"the store: {new.store}")
        )
    if new.gaps > old.gaps:
        yield (
            "trouble",
            f"{new.gaps - old.gaps} session(s) lost, events may be missing: RATEWAY_GAP tells the workers",
        )
    if new.oversize > old.oversize:
        yield "notice", f"{new.oversize - old.oversize} event(s) larger than the broker takes"
    if new.refused > old.refused:
        yield "trouble", f"{new.refused - old.refused} event(s) given up after NACK_PATIENCE"
    lost = sorted(set(after.unrouted) - set(before.unrouted))
    if lost:
        yield "notice", f"no queue is bound for {', '.join(lost[:3])}{' …' if len(lost) > 3 else ''}"


def _group(before: GatewayStatus, after: GatewayStatus) -> dict[tuple[Level, str], list[int]]:
    """The same words for many shards are one happening."""
    known = {shard.shard: shard for shard in before.shards}
    found: dict[tuple[Level, str], list[int]] = {}
    for shard in after.shards:
        old = known.get(shard.shard)
        if old is not None:
            for line in _shard(old, shard):
                found.setdefault(line, []).append(shard.shard)
    return found


def _shard(old: ShardStatus, new: ShardStatus) -> Iterator[tuple[Level, str]]:
    closed = sum(new.closes.values()) > sum(old.closes.values())
    resumed = new.resumes_succeeded > old.resumes_succeeded
    why = close_words(new.last_close) if closed else new.why
    if new.state == "fatal" and old.state != "fatal":
        yield "trouble", f"refused by Discord for good: {new.why or close_words(new.last_close)}"
    elif old.state == "live" and new.state != "live":
        yield "notice", f"connection lost ({why})" if why else "connection lost"
    elif old.state == "live" and (closed or resumed):
        yield "notice", f"reconnected {'and resumed ' if resumed else ''}({why})"
    elif old.state != "live" and new.state == "live":
        yield "good", "resumed" if resumed else "live with a new session"
    elif old.state != new.state and new.state == "stopped":
        yield "info", "stopped"


def close_words(last_close: str | None) -> str:
    """A close code with its meaning: ``4000: Discord is not sure what went wrong``."""
    if not last_close:
        return ""
    code, _, reason = last_close.partition(" ")
    if not code.isdigit():
        return f"the connection broke{': ' + reason if reason else ''}"
    if int(code) == KEEP_SESSION:
        return f"closed by the gateway{': ' + reason if reason else ''}"
    meaning = close_code(int(code)).meaning
    return f"{code}: {meaning}" + (f" ({reason})" if reason and reason.lower() not in meaning.lower() else "")


def _rate(
    before: GatewayStatus, after: GatewayStatus, count: Callable[[ClusterStatus], int], seconds: float
) -> float:
    """Counts a second; a cluster whose process was replaced counts from nothing again."""
    old = {cluster.cluster: count(cluster) for cluster in before.clusters}
    gained = 0
    for cluster in after.clusters:
        value, start = count(cluster), old.get(cluster.cluster, 0)
        gained += value - start if value >= start else value
    return round(gained / seconds, 2) if seconds > 0 else 0.0


def _median(values: Iterable[float | None]) -> float | None:
    known = sorted(value for value in values if value is not None)
    return round(known[len(known) // 2], 2) if known else None
