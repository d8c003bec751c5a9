"""Fifteen minutes of numbers, and the changes from one status to the next in words.

Made from statuses alone: two of them are compared, so that it does not matter in which process something happened,
and nothing is noted down while an event passes. A connection that broke and resumed between two looks shows in its
counters.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec
from rateway.delivery.limits import HELD_UP_S
from rateway.runtime.monitoring.health import LAG_NOTICE_S, all_live, unrouted
from rateway.runtime.monitoring.status import ClusterStatus, FleetStatus, GatewayStatus, ShardStatus
from rateway_protocol.discord.close_codes import KEEP_SESSION, close_code

__all__ = ["MOST_HAPPENINGS", "Happening", "History", "Sample", "close_words"]

KEEP_S = 900.0
STEP_S = 5.0
MINUTE_STEPS = 12
MOST_HAPPENINGS = 200
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
    """One line for a person. ``number`` counts up; ``at`` is wall time in seconds.

    ``kind`` is the same for lines that say the same of others: where there are too many lines, the oldest of the most
    frequent kind goes, so that one thing that repeats pushes out no other.
    """

    number: int
    at: float
    level: Level
    text: str
    shards: list[int] = []
    clusters: list[int] = []
    kind: str = ""


class History:
    """Give each status to :meth:`take`; read ``samples`` and ``happenings``, oldest first."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=int(KEEP_S / STEP_S))
        self.happenings: list[Happening] = []
        self._before: GatewayStatus | None = None
        self._stepped: tuple[float, GatewayStatus] | None = None
        self._numbers = itertools.count(1)
        self._lag = 0.0
        self._all_live_said = False
        # What was confirmed how fast, by cluster, at each step of the last minute.
        self._confirms: deque[dict[int, dict[str, int]]] = deque(maxlen=MINUTE_STEPS + 1)

    def take(self, status: GatewayStatus, now: float, wall: float) -> tuple[Sample | None, list[Happening]]:
        """Return what is new since the last call: a sample every STEP_S seconds, and happenings."""
        found = self._compare(self._before, status, wall) if self._before is not None else []
        self._before = status
        self.happenings = _most_telling([*self.happenings, *found])
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
            began_again = before.get("+Inf", 0) > buckets.get("+Inf", 0)  # its process was replaced
            for bound, count in buckets.items():
                gained[bound] = gained.get(bound, 0) + count - (0 if began_again else before.get(bound, 0))
        total = gained.get("+Inf", 0)
        if not self._confirms_now(newest, status):
            return None
        edges = (edge for edge, count in gained.items() if total and count >= 0.99 * total)
        edge = next(edges, "+Inf")
        return None if edge == "+Inf" else float(edge) * 1000

    def _confirms_now(self, newest: dict[int, dict[str, int]], status: GatewayStatus) -> bool:
        """Return whether the last step measured anything, or there was nothing to measure."""
        if len(self._confirms) < 2:
            return True
        before = self._confirms[-2]
        confirmed = any(
            buckets.get("+Inf", 0) != before.get(number, {}).get("+Inf", 0)
            for number, buckets in newest.items()
        )
        return confirmed or not any(each.publisher.unconfirmed for each in status.clusters)

    # Changes in words.

    def _compare(self, before: GatewayStatus, after: GatewayStatus, wall: float) -> list[Happening]:
        found: list[Happening] = []

        def say(
            level: Level, text: str, kind: str, shards: Iterable[int] = (), clusters: Iterable[int] = ()
        ) -> None:
            number = next(self._numbers)
            found.append(Happening(number, wall, level, text, list(shards), list(clusters), kind))

        if before.state != after.state:
            say("info", f"the gateway is {after.state}", "state")
        for level, text in _processes(before, after):
            say(level, text, "process")
        for level, text in _fleet(before.fleet, after.fleet):
            say(level, text, "fleet")
        for (level, kind), group in _by_cluster(before, after).items():
            say(level, kind.replace("{n}", f"{sum(group.values()):,}"), kind, clusters=sorted(group))
        for level, text in _routing(before, after):
            say(level, text, "routing")
        for (level, text), shards in _group(before, after).items():
            say(level, text, text, shards)
        everybody = bool(after.shards) and all(shard.state == "live" for shard in after.shards)
        if everybody and not self._all_live_said:
            say("good", all_live(len(after.shards)), "all live")
        self._all_live_said = everybody
        return found


# How a tenure began, in words.
_HOW = {"first": "its first owner", "released": "handed over", "inherited": "taken over"}


def _most_telling(happenings: list[Happening]) -> list[Happening]:
    """At most MOST_HAPPENINGS of them, without the oldest of the kinds that there are most of."""
    counts = Counter(each.kind for each in happenings)
    gone: set[int] = set()
    while len(happenings) - len(gone) > MOST_HAPPENINGS:
        kind = max(counts, key=lambda each: counts[each])
        oldest = next(each for each in happenings if each.kind == kind and each.number not in gone)
        gone.add(oldest.number)
        counts[kind] -= 1
    return [each for each in happenings if each.number not in gone]


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


def _fleet(before: FleetStatus | None, after: FleetStatus | None) -> Iterator[tuple[Level, str]]:
    """Return which members came and went, and which clusters changed their owner and why."""
    if before is None or after is None:
        return
    old, new = ({each.member for each in fleet.members} for fleet in (before, after))
    for member in sorted(new - old):
        yield "info", f"{member} has joined the fleet"
    for member in sorted(old - new):
        yield "notice", f"{member} has left the fleet"
    if before.governor != after.governor:
        yield "info", f"the fleet's governor is {after.governor or 'nobody'}"
    known = {each.cluster: each for each in before.clusters}
    for each in after.clusters:
        earlier = known.get(each.cluster)
        if earlier is None or (earlier.owner, earlier.epoch) == (each.owner, each.epoch):
            continue
        if each.owner is None:
            yield "trouble", f"cluster {each.cluster} has no owner"
        else:
            former = each.former or earlier.owner
            left = f", from {former}" if former and former != each.owner else ""
            how = _HOW.get(each.how, each.how)
            yield "info", f"cluster {each.cluster} is {each.owner}'s{left}: {how} (epoch {each.epoch})"


def _by_cluster(before: GatewayStatus, after: GatewayStatus) -> dict[tuple[Level, str], dict[int, int]]:
    """Return what happened to clusters: by text, in which ``{n}`` stands for a number, that number for each cluster."""
    known = {cluster.cluster: cluster for cluster in before.clusters}
    found: dict[tuple[Level, str], dict[int, int]] = {}
    for cluster in after.clusters:
        old = known.get(cluster.cluster)
        if old is not None:
            for level, text, count in _cluster(old, cluster):
                found.setdefault((level, text), {})[cluster.cluster] = count
    return found


def _cluster(old: ClusterStatus, new: ClusterStatus) -> Iterator[tuple[Level, str, int]]:
    before, after = old.publisher, new.publisher
    if before.connected != after.connected:
        why = f": {after.why}" if after.why else ""
        back = "the broker is back" if before.confirmed else "the broker is connected"
        yield ("good", back, 0) if after.connected else ("trouble", f"the broker is away{why}", 0)
    if before.blocked != after.blocked:
        yield (
            ("trouble", "the broker blocks publishers", 0)
            if after.blocked
            else ("good", "the broker takes events again", 0)
        )
    if before.paused != after.paused:
        yield (
            ("trouble", "reading from Discord is paused", 0)
            if after.paused
            else ("good", "reading goes on", 0)
        )
    if bool(before.spool_events) != bool(after.spool_events):
        yield (
            ("notice", "events go to the spool", 0)
            if after.spool_events
            else ("good", "the spool is empty again", 0)
        )
    held_up, was_held_up = after.held_up_s > HELD_UP_S, before.held_up_s > HELD_UP_S
    late, was_late = after.lag_s > LAG_NOTICE_S, before.lag_s > LAG_NOTICE_S
    if held_up and not was_held_up:
        yield "trouble", "the broker confirms nothing any more", 0
    elif was_held_up and not held_up and after.connected:
        yield "good", "the broker confirms again", 0
    elif late != was_late and after.connected and not held_up:
        yield ("notice", "confirms are late", 0) if late else ("good", "confirms come in time", 0)
    if old.owned != new.owned and after.connected and not held_up:
        yield (
            ("info", "held by this gateway", 0)
            if new.owned
            else ("trouble", "not held by this gateway any more", 0)
        )
    if old.store != new.store:
        yield (
            ("good", "the store can be used again", 0)
            if new.store == "ok"
            else ("trouble", f"the store: {new.store}", 0)
        )
    if new.gaps > old.gaps:
        words = "sessions lost: {n}. Events may be missing, RATEWAY_GAP tells the workers"
        yield "trouble", words, new.gaps - old.gaps
    if new.oversize > old.oversize:
        yield "notice", "events larger than the broker takes: {n}", new.oversize - old.oversize
    if new.refused > old.refused:
        yield "trouble", "events given up after NACK_PATIENCE: {n}", new.refused - old.refused


def _routing(before: GatewayStatus, after: GatewayStatus) -> Iterator[tuple[Level, str]]:
    """Return findings about queues that are new, and the end of the last one. Names that no cluster has a queue for are
    none.
    """
    old = [reason.text for reason in unrouted(before.clusters)]
    found = unrouted(after.clusters)
    for reason in found:
        if reason.text not in old:
            yield ("trouble" if reason.kind == "unrouted" else "notice"), reason.text
    if old and not found:
        yield "good", "each cluster has the queues that others have"


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
    """Return a close code with its meaning: ``4000: Discord is not sure what went wrong``."""
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
