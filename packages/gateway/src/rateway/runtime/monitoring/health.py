"""Judge from the status alone whether the gateway lives and works, and if not, what is wrong since when.

*Live* says whether restarting the process would help: its event loops move. Discord or the broker away never makes
it false. *Ready* says whether events flow: every shard is live or resumes within its time, the broker confirms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec
from rateway.delivery.limits import HELD_UP_S
from rateway.runtime.monitoring.status import ClusterStatus, GatewayStatus, Note, PublisherStatus, ShardStatus

__all__ = [
    "Health", "Progress", "Reason", "Verdict", "all_live", "judge_live", "judge_ready", "long_away", "numbered",
    "progress", "ranges", "stands_by", "told", "unowned", "unread", "unrouted", "unwanted", "verdict",
]  # fmt: skip

# An event loop that stands still for so long lets Discord's heartbeats pass.
STANDS_STILL_S = 30.0
# Events that wait for longer are not being delivered.
LAG_S = 30.0
# Above this a person looks before it becomes serious.
LAG_NOTICE_S = 5.0
# A cut connection is usually resumed within a few seconds; one that is not is counted apart.
LATE_S = 30.0
# Kinds of reasons, the worst first: what stops everything, what stops a part, what a person should look at.
RANK = (
    "processes", "stands_still", "broker_away", "broker_blocks", "held_up", "lag", "paused", "unheld", "unowned",
    "no_governor", "not_owned", "shards", "unrouted", "unbound", "unread", "store", "spool", "state", "no_shards",
)  # fmt: skip
# A gateway that is ready all the same is in trouble with one of these.
TROUBLE = frozenset({"held_up", "unheld", "unowned", "unrouted"})
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
    clusters: list[int] = []
    """Those of which the same can be said, when they are several."""


class Health(msgspec.Struct, frozen=True):
    """The body of ``/health/live`` and ``/health/ready``."""

    ok: bool
    reasons: list[Reason]


class Progress(msgspec.Struct, frozen=True):
    """The progress of a start. ``left_s`` is the least time that identifies still take; None when none waits."""

    live: int
    total: int
    left_s: float | None


class Verdict(msgspec.Struct, frozen=True):
    """The page's headline."""

    level: Literal["well", "starting", "notice", "trouble"]
    words: str
    reasons: list[Reason]


def judge_live(status: GatewayStatus | None, age_s: float, missing: dict[str, float]) -> Health:
    """Judge whether the gateway is alive. ``age_s``: how old the status is; ``missing``: processes that stopped
    answering, and since when (seconds).
    """
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
    """Judge whether the gateway is ready. ``patience_s``: how long a shard may take to resume (RESUME_PATIENCE)."""
    reasons = []
    if status.state != "running":
        reasons.append(Reason("state", f"the gateway is {status.state}"))
    elif not status.shards and not stands_by(status):
        reasons.append(Reason("no_shards", "no shard runs yet"))
    for role, since_s in missing.items():
        reasons.append(Reason("processes", f"{role} does not answer", since_s=since_s))
    reasons += _alike(found for cluster in status.clusters for found in _broken(cluster))
    reasons += _away(shard for shard in status.shards if not _in_order(shard, patience_s))
    return Health(not reasons, _ranked(reasons))


def stands_by(status: GatewayStatus) -> bool:
    """Return whether this gateway has nothing to run because other members of the fleet own every cluster."""
    fleet = status.fleet
    if fleet is None or not fleet.clusters or status.shards:
        return False
    return all(each.owner not in (None, fleet.member) for each in fleet.clusters)


def _in_order(shard: ShardStatus, patience_s: float) -> bool:
    if shard.state == "live":
        return True
    return shard.session is not None and shard.state in RETURNING and shard.away_s <= patience_s


def long_away(shard: ShardStatus, patience_s: float) -> Literal["", "late", "lost"]:
    """Tell a shard that needs a person's eye from those that are coming back and from those of a start.

    ``lost``: refused, stopped, or away for longer than it may take to resume; ``late``: away for longer than a resume
    usually takes.
    """
    if shard.state in ("fatal", "stopped"):
        return "lost"
    if shard.state == "live" or (shard.identifies + shard.resumes_succeeded == 0 and shard.session is None):
        return ""
    return "lost" if shard.away_s > patience_s else "late" if shard.away_s > LATE_S else ""


def _away(shards: Iterable[ShardStatus]) -> list[Reason]:
    """Return one reason for all shards of which the same can be said."""
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
    """Return ascending numbers in words: ``3, 7-9``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    words = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:most]]
    return ", ".join(words) + (" …" if len(runs) > most else "")


def numbered(clusters: list[int]) -> str:
    """Return clusters in words: ``cluster 3``, ``clusters 1-4, 7``."""
    return f"cluster{'' if len(clusters) == 1 else 's'} {ranges(sorted(clusters))}"


def all_live(shards: int) -> str:
    """Say that every one of so many shards is live."""
    return "the shard is live" if shards == 1 else f"all {shards} shards are live"


def _ranked(reasons: list[Reason]) -> list[Reason]:
    return sorted(reasons, key=lambda reason: RANK.index(reason.kind))


def told(notes: Iterable[Note]) -> list[str]:
    """Return the notes in words: one line for all clusters of which the same is true, in the order of the first."""
    groups: dict[str, list[Note]] = {}
    for note in notes:
        groups.setdefault(note.text, []).append(note)
    lines = []
    for text, group in groups.items():
        clusters = sorted({note.cluster for note in group if note.cluster is not None})
        words = text.replace("{seconds}", f"{max(note.seconds for note in group):.0f}")
        lines.append(f"{numbered(clusters)}: {words}" if clusters else words)
    return lines


class _Found(msgspec.Struct, frozen=True):
    """Something about one cluster; *text* is the same for all of which the same is true, ``{who}`` names them."""

    kind: str
    text: str
    cluster: int
    since_s: float | None = None


def _alike(found: Iterable[_Found]) -> list[Reason]:
    """Return one reason for all clusters of which the same can be said."""
    groups: dict[tuple[str, str], list[_Found]] = {}
    for each in found:
        groups.setdefault((each.kind, each.text), []).append(each)
    reasons = []
    for (kind, text), group in groups.items():
        numbers = sorted(each.cluster for each in group)
        since_s = max((each.since_s for each in group if each.since_s is not None), default=None)
        several = len(numbers) > 1
        text = text.replace("{who}", numbered(numbers))
        reasons.append(
            Reason(
                kind,
                text,
                None if several else numbers[0],
                since_s=since_s,
                clusters=numbers if several else [],
            )
        )
    return reasons


def _broken(cluster: ClusterStatus) -> Iterator[_Found]:
    publisher, number = cluster.publisher, cluster.cluster
    # Without the broker no gateway can hold a cluster: that is one finding.
    if not cluster.owned and publisher.connected and publisher.held_up_s <= HELD_UP_S:
        yield _Found("not_owned", "{who}: not held by this gateway yet", number)
    if not publisher.connected:
        why = f": {publisher.why}" if publisher.why else ""
        yield _Found("broker_away", f"the broker is away for {{who}}{why}", number)
    elif publisher.blocked:
        yield _Found("broker_blocks", "the broker blocks publishers (memory or disk alarm) for {who}", number)
    if publisher.paused:
        yield _Found("paused", "reading from Discord is paused for {who}", number)
    if _waits_s(publisher) > LAG_S:
        yield _waiting(cluster)


def _waits_s(publisher: PublisherStatus) -> float:
    """For how long events have waited for the broker's confirm, seconds."""
    return max(publisher.lag_s, publisher.held_up_s)


def _waiting(cluster: ClusterStatus) -> _Found:
    publisher, number = cluster.publisher, cluster.cluster
    if publisher.held_up_s > HELD_UP_S:
        return _Found("held_up", "the broker confirms nothing of {who}", number, publisher.held_up_s)
    return _Found("lag", "events of {who} wait for the broker's confirm", number, publisher.lag_s)


def progress(status: GatewayStatus) -> Progress:
    """Return how many shards are live, and the least time that those without a session still need."""
    live = sum(1 for shard in status.shards if shard.state == "live")
    waiting = sum(1 for shard in status.shards if shard.state == "waiting_permit")
    at_once = status.budget.max_concurrency
    left = -(-waiting // at_once) * IDENTIFY_EVERY_S if waiting and at_once else None
    return Progress(live, len(status.shards), left)


def verdict(status: GatewayStatus, patience_s: float, missing: dict[str, float]) -> Verdict:
    """Return one line for a person, the worst cause first, and what stands behind it."""
    ready = judge_ready(status, patience_s, missing)
    far = progress(status)
    away = [shard for shard in status.shards if shard.state != "live"]
    lost = sum(len(reason.shards) for reason in ready.reasons)
    notices = unrouted(status.clusters) + unread(status) + unowned(status) + _notices(status, patience_s)
    reasons = _ranked(ready.reasons + notices)
    if not reasons and stands_by(status):
        return Verdict("well", "All is well: other members of the fleet own every cluster.", [])
    if not reasons:
        return Verdict("well", f"All is well: {_count(far.total, 'shard')} live, the broker confirms.", [])
    if ready.ok and not any(reason.kind in TROUBLE for reason in reasons):
        words = (
            f"{_count(len(away), 'shard')} coming back."
            if away
            else "Events flow, with something to look at."
        )
        return Verdict("notice", words, reasons)
    shardless = [reason for reason in ready.reasons if not reason.shards]
    young = all(shard.state in STARTING and shard.identifies + shard.resumes_succeeded == 0 for shard in away)
    early = status.uptime_s < CONNECTS_WITHIN_S or not shardless
    if status.state in ("starting", "stopping") or (young and early and not ready.ok):
        words = (
            "The gateway stops."
            if status.state == "stopping"
            else f"Starting: {far.live} of {far.total} shards are live."
        )
        return Verdict("starting", words, ready.reasons)
    words = _headline(status, reasons, lost, len(away) - lost)
    return Verdict("trouble", f"{words[0].upper()}{words[1:]}.", reasons)


def _headline(status: GatewayStatus, reasons: list[Reason], lost: int, returning: int) -> str:
    """Return what is wrong, in one line. *lost* shards are away for too long, *returning* ones are connecting."""
    parts = []
    dead = [reason.text for reason in reasons if reason.kind in ("processes", "stands_still")]
    if dead:
        parts.append(dead[0] + (f" (and {len(dead) - 1} more)" if len(dead) > 1 else ""))
    connected = [each for each in status.clusters if each.publisher.connected]
    broker: list[str] = []
    for words, concerned in (
        ("is away", [each for each in status.clusters if not each.publisher.connected]),
        ("blocks publishers", [each for each in connected if each.publisher.blocked]),
        ("does not confirm", [each for each in connected if _unconfirming(each.publisher)]),
    ):
        if concerned:
            every = len(concerned) == len(status.clusters)
            of = "" if broker else f" of {len(status.clusters)} clusters"
            broker.append(words if every else f"{words} for {len(concerned)}{of}")
    if broker:
        parts.append("the broker " + " and ".join(broker))
    elif any(each.publisher.paused for each in status.clusters):
        parts.append("reading from Discord is paused")
    if lost:
        parts.append(f"{_count(lost, 'shard')} away")
    if parts and returning:
        parts.append(f"{_count(returning, 'shard')} coming back")
    if parts:
        return ", ".join(parts)
    # Shards that come back by themselves are less than anything else.
    return next((reason for reason in reasons if reason.kind != "shards"), reasons[0]).text


def _unconfirming(publisher: PublisherStatus) -> bool:
    return not publisher.blocked and (publisher.held_up_s > HELD_UP_S or publisher.lag_s > LAG_S)


def _notices(status: GatewayStatus, patience_s: float) -> list[Reason]:
    found = _away(shard for shard in status.shards if shard.state != "live" and _in_order(shard, patience_s))
    clusters: list[_Found] = []
    for cluster in status.clusters:
        publisher, number = cluster.publisher, cluster.cluster
        if LAG_NOTICE_S < _waits_s(publisher) <= LAG_S:
            clusters.append(_waiting(cluster))
        if publisher.spool_events:
            clusters.append(_Found("spool", "events of {who} wait in the spool", number))
        if cluster.store != "ok":
            clusters.append(_Found("store", f"the store of {{who}}: {cluster.store}", number))
    return found + _alike(clusters)


def unrouted(clusters: Iterable[ClusterStatus]) -> list[Reason]:
    """Find events that no queue takes: of all clusters, or of one cluster that lacks what others have.

    A name that no cluster has a queue for is not wanted, and no finding.
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


def unread(status: GatewayStatus) -> list[Reason]:
    """Return findings about workers' queues without consumers and clusters that no gateway holds."""
    found = []
    if status.unheld:
        text = (
            f"no gateway has {numbered(status.unheld)}, which this one was told to give up (`rateway drain`): nothing "
            "is received there. Start a gateway for it, or restart this one"
        )
        several = len(status.unheld) > 1
        found.append(
            Reason(
                "unheld",
                text,
                None if several else status.unheld[0],
                clusters=status.unheld if several else [],
            )
        )
    if status.unread_queues:
        first = status.unread_queues[0]
        names = ", ".join(each.name for each in status.unread_queues[:3])
        more = " …" if len(status.unread_queues) > 3 else ""
        waiting = sum(each.messages for each in status.unread_queues)
        text = (
            f"nobody reads {names}{more}, where {waiting:,} messages wait: start the worker, or delete the queue "
            f"(rabbitmqctl delete_queue {first.name})"
        )
        found.append(Reason("unread", text))
    return found


def unowned(status: GatewayStatus) -> list[Reason]:
    """Return findings about clusters of a fleet that no member owns, and about one without a governor."""
    fleet = status.fleet
    if fleet is None or fleet.generation == 0 or not fleet.connected:
        return []
    found = []
    numbers = [each.cluster for each in fleet.clusters if each.owner is None]
    if numbers:
        text = (
            f"no member of the fleet {fleet.name} owns {numbered(numbers)}: nothing is received there. Members and the "
            "clusters that they may run (CLUSTERS) are in `rateway status`"
        )
        several = len(numbers) > 1
        found.append(
            Reason("unowned", text, None if several else numbers[0], clusters=numbers if several else [])
        )
    if fleet.governor is None:
        text = f"the fleet {fleet.name} has no governor: no shard identifies, sessions are resumed"
        found.append(Reason("no_governor", text))
    return found


def unwanted(clusters: Iterable[ClusterStatus]) -> dict[str, list[int]]:
    """Return names that were sent and that no queue takes in any cluster, with the clusters that sent them."""
    clusters = list(clusters)
    routed = {name for each in clusters for name in each.publisher.routed}
    found: dict[str, list[int]] = {}
    for each in clusters:
        for name in each.publisher.unrouted:
            if name not in routed:
                found.setdefault(name, []).append(each.cluster)
    return dict(sorted(found.items()))


def _lacks(names: tuple[str, ...], numbers: list[int]) -> Reason:
    numbers = sorted(numbers)
    who = numbered(numbers)
    what = ", ".join(names[:3]) + (" …" if len(names) > 3 else "") if names else "anything"
    exchanges = ", ".join(f"rateway-{number}" for number in numbers[:3]) + (" …" if len(numbers) > 3 else "")
    text = f"no queue is bound for {what} of {who}, though others have one: bind a worker to {exchanges}"
    several = len(numbers) > 1
    return Reason("unrouted", text, None if several else numbers[0], clusters=numbers if several else [])


def _count(number: int, noun: str) -> str:
    return f"1 {noun} is" if number == 1 else f"{number} {noun}s are"
