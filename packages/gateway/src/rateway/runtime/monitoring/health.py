"""Judge from the status alone whether the gateway lives and works, and if not, what is wrong since when.

*Live* says whether restarting the process would help: its event loops move. Discord or the broker away never makes
it false. *Ready* says whether events flow: every shard is live or resumes within its time, the broker confirms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec
from rateway.runtime.monitoring.status import ClusterStatus, GatewayStatus, ShardStatus

__all__ = [
    "Health",
    "Progress",
    "Reason",
    "Verdict",
    "judge_live",
    "judge_ready",
    "progress",
    "ranges",
    "unrouted",
    "verdict",
]

# An event loop that stands still for so long lets Discord's heartbeats pass.
STANDS_STILL_S = 30.0
# Events that wait for longer are not being delivered.
LAG_S = 30.0
# Above this a person looks before it becomes serious.
LAG_NOTICE_S = 5.0
# Discord sends one identify per bucket every 5 s, and we leave a pad.
IDENTIFY_EVERY_S = 5.25
# A start takes so long until every cluster has its connections to the broker.
CONNECTS_WITHIN_S = 20.0
# On their way to a resume. A shard without a session starts; it is not ready before it is live.
RETURNING = frozenset({"idle", "connecting", "waiting_hello", "resuming", "backing_off"})
STARTING = RETURNING | {"waiting_permit", "identifying"}
WORDS = {
    "idle": "not begun",
    "connecting": "connecting",
    "waiting_hello": "waiting for Discord's hello",
    "waiting_permit": "waiting to identify",
    "identifying": "identifying",
    "resuming": "resuming",
    "backing_off": "waiting to connect again",
    "stopped": "stopped",
    "fatal": "refused by Discord for good",
}


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is not as it should be. ``since_s`` counts back from now, for the first of the shards.

    ``kind`` says the same to a machine, and stays while the words change.
    """

    kind: str
    text: str
    cluster: int | None = None
    shards: list[int] = []
    since_s: float | None = None


class Health(msgspec.Struct, frozen=True):
    """The body of ``/health/live`` and ``/health/ready``."""

    ok: bool
    reasons: list[Reason]


class Progress(msgspec.Struct, frozen=True):
    """How far the start is. ``left_s`` is what identifies still take at least; None when none waits."""

    live: int
    total: int
    left_s: float | None


class Verdict(msgspec.Struct, frozen=True):
    """What the page says in one line."""

    level: Literal["well", "starting", "notice", "trouble"]
    words: str
    reasons: list[Reason]


def judge_live(status: GatewayStatus | None, age_s: float, missing: dict[str, float]) -> Health:
    """``age_s``: how old the status is; ``missing``: processes that stopped answering, and since when (seconds)."""
    reasons = []
    if status is None or age_s > STANDS_STILL_S:
        reasons.append(Reason("processes", "the gateway's processes do not answer", since_s=age_s))
    for process in status.processes if status is not None else ():
        if process.silent_s > STANDS_STILL_S:
            text = f"the event loop of {process.role} (pid {process.pid}) stands still"
            reasons.append(Reason("stands_still", text, since_s=process.silent_s))
    for role, since_s in missing.items():
        # A runner that died is started again within 30 s; one that stays away needs more than that.
        if since_s > 2 * STANDS_STILL_S:
            reasons.append(Reason("processes", f"{role} does not answer", since_s=since_s))
    return Health(not reasons, reasons)


def judge_ready(status: GatewayStatus, patience_s: float, missing: dict[str, float]) -> Health:
    """``patience_s``: how long a shard may take to resume (RESUME_PATIENCE)."""
    reasons = []
    if status.state != "running":
        reasons.append(Reason("state", f"the gateway is {status.state}"))
    elif not status.shards:
        reasons.append(Reason("no_shards", "no shard runs yet"))
    for role, since_s in missing.items():
        reasons.append(Reason("processes", f"{role} does not answer", since_s=since_s))
    for cluster in status.clusters:
        reasons += _broken(cluster)
    reasons += _away(shard for shard in status.shards if not _in_order(shard, patience_s))
    return Health(not reasons, reasons)


def _in_order(shard: ShardStatus, patience_s: float) -> bool:
    if shard.state == "live":
        return True
    return shard.session is not None and shard.state in RETURNING and shard.away_s <= patience_s


def _away(shards: Iterable[ShardStatus]) -> list[Reason]:
    """One reason for all shards of which the same can be said."""
    alike: dict[tuple[str, str], list[ShardStatus]] = {}
    for shard in shards:
        alike.setdefault((shard.state, shard.why), []).append(shard)
    reasons = []
    for (state, why), group in alike.items():
        numbers = [shard.shard for shard in group]
        who = f"shard {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} shards ({ranges(numbers)})"
        text = f"{who}: {WORDS.get(state, state)}{', ' + why if why else ''}"
        since_s = max(shard.away_s or shard.since_s for shard in group)
        reasons.append(Reason("shards", text, shards=numbers, since_s=since_s))
    return reasons


def ranges(numbers: list[int], most: int = 6) -> str:
    """Ascending numbers in words: ``3, 7-9``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    words = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:most]]
    return ", ".join(words) + (" …" if len(runs) > most else "")


def _broken(cluster: ClusterStatus) -> Iterator[Reason]:
    publisher, number = cluster.publisher, cluster.cluster
    if not cluster.owned:
        yield Reason("not_owned", f"cluster {number} is not held by this gateway yet", number)
    if not publisher.connected:
        why = f": {publisher.why}" if publisher.why else ""
        yield Reason("broker_away", f"the broker is away for cluster {number}{why}", number)
    elif publisher.blocked:
        text = f"the broker blocks publishers (memory or disk alarm) for cluster {number}"
        yield Reason("broker_blocks", text, number)
    if publisher.paused:
        yield Reason("paused", f"reading from Discord is paused for cluster {number}", number)
    if publisher.lag_s > LAG_S:
        text = f"{publisher.oldest or 'an event'} of cluster {number} waits for the broker's confirm"
        yield Reason("lag", text, number, since_s=publisher.lag_s)


def progress(status: GatewayStatus) -> Progress:
    """How many shards are live, and how long those without a session still need at least."""
    live = sum(1 for shard in status.shards if shard.state == "live")
    waiting = sum(1 for shard in status.shards if shard.state == "waiting_permit")
    at_once = status.budget.max_concurrency
    left = -(-waiting // at_once) * IDENTIFY_EVERY_S if waiting and at_once else None
    return Progress(live, len(status.shards), left)


def verdict(status: GatewayStatus, patience_s: float, missing: dict[str, float]) -> Verdict:
    """One line for a person, and what stands behind it."""
    ready = judge_ready(status, patience_s, missing)
    far = progress(status)
    away = [shard for shard in status.shards if shard.state != "live"]
    unheard = unrouted(status.clusters)
    notices = unheard + _notices(status, patience_s)
    if ready.ok and any(reason.kind == "unrouted" for reason in unheard):
        return Verdict("trouble", f"{unheard[0].text[0].upper()}{unheard[0].text[1:]}.", notices)
    if ready.ok and not notices:
        return Verdict("well", f"All is well: {_count(far.total, 'shard')} live, the broker confirms.", [])
    if ready.ok:
        words = (
            f"{_count(len(away), 'shard')} coming back."
            if away
            else "Events flow, with something to look at."
        )
        return Verdict("notice", words, notices)
    shardless = [reason for reason in ready.reasons if not reason.shards]
    young = all(shard.state in STARTING and shard.identifies + shard.resumes_succeeded == 0 for shard in away)
    early = status.uptime_s < CONNECTS_WITHIN_S or not shardless
    if status.state in ("starting", "stopping") or (young and early):
        words = (
            "The gateway stops."
            if status.state == "stopping"
            else f"Starting: {far.live} of {far.total} shards are live."
        )
        return Verdict("starting", words, ready.reasons)
    lost = sum(len(reason.shards) for reason in ready.reasons)
    parts = [f"{_count(lost, 'shard')} away"] if lost else []
    if any(not cluster.publisher.connected for cluster in status.clusters):
        parts.append("the broker is away")
    elif any(cluster.publisher.blocked or cluster.publisher.lag_s > LAG_S for cluster in status.clusters):
        parts.append("the broker does not confirm")
    returning = len(away) - lost
    if parts and returning:
        parts.append(f"{_count(returning, 'shard')} coming back")
    words = ", ".join(parts) or shardless[0].text
    return Verdict("trouble", f"{words[0].upper()}{words[1:]}.", ready.reasons + notices)


def _notices(status: GatewayStatus, patience_s: float) -> list[Reason]:
    found = _away(shard for shard in status.shards if shard.state != "live" and _in_order(shard, patience_s))
    for cluster in status.clusters:
        publisher, number = cluster.publisher, cluster.cluster
        if LAG_NOTICE_S < publisher.lag_s <= LAG_S:
            text = f"{publisher.oldest or 'an event'} of cluster {number} waits for the broker's confirm"
            found.append(Reason("lag", text, number, since_s=publisher.lag_s))
        if publisher.spool_events:
            text = f"{publisher.spool_events} events of cluster {number} wait in the spool"
            found.append(Reason("spool", text, number))
        if cluster.store != "ok":
            found.append(Reason("store", f"the store of cluster {number}: {cluster.store}", number))
    return found


def unrouted(clusters: Iterable[ClusterStatus]) -> list[Reason]:
    """Whose events no queue takes: of all clusters, or of one that lacks what others have.

    A name that no cluster has a queue for is wanted by nobody, and is no finding.
    """
    asked = [each for each in clusters if each.publisher.unrouted or each.publisher.routed]
    routed = {name for each in asked for name in each.publisher.routed}
    if not routed:
        text = "no queue is bound to any exchange: the broker drops every event. Does a worker run?"
        return [Reason("unbound", text)] if asked else []
    lacking: dict[tuple[str, ...], list[int]] = {}
    for each in asked:
        names = tuple(name for name in each.publisher.unrouted if name in routed)
        if names:
            lacking.setdefault(names if each.publisher.routed else (), []).append(each.cluster)
    return [_lacks(names, numbers) for names, numbers in lacking.items()]


def _lacks(names: tuple[str, ...], numbers: list[int]) -> Reason:
    numbers = sorted(numbers)
    who = f"cluster{'' if len(numbers) == 1 else 's'} {ranges(numbers)}"
    what = ", ".join(names[:3]) + (" …" if len(names) > 3 else "") if names else "anything"
    exchanges = ", ".join(f"rateway-{number}" for number in numbers[:3]) + (" …" if len(numbers) > 3 else "")
    text = f"no queue is bound for {what} of {who}, though others have one: bind a worker to {exchanges}"
    return Reason("unrouted", text, numbers[0] if len(numbers) == 1 else None)


def _count(number: int, noun: str) -> str:
    return f"1 {noun} is" if number == 1 else f"{number} {noun}s are"
