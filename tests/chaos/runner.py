"""One chaos run: a live load, faults from a plan, the time to recover from each, and the audit at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from rateway.demo.children import Child
from rateway_simulator.judge.ledger import SessionRecord

from tests.chaos.faults import FAULTS
from tests.chaos.ground import SHARDS, Ground, arrived, decode_gap, ended_by_discord, ground, stored
from tests.chaos.machine import cannot_be_read_only
from tests.chaos.plan import BOTS_KINDS, KINDS, Step, plan
from tests.e2e.harness import Stage
from tests.event_log import Log, read_log
from tests.rabbitmq import Broker

__all__ = ["Recovery", "Result", "chaos"]

# So long a fault may take to recover from before the run is given up: a machine that others use has bad minutes.
PATIENCE_S = 120.0
SAMPLE_EVERY_S = 0.5
# Missing events that are described one by one.
EXAMPLES = 20


class Recovery(msgspec.Struct, frozen=True):
    """One or more faults close together: when the first struck, how long they lasted, and how long it was from the
    end of the last until all was well again, in seconds.
    """

    kinds: tuple[str, ...]
    at: float
    lasted: float
    recovered: float


class Result(msgspec.Struct):
    """What a run found. Plain, so that a run in a process of its own can hand it over."""

    seed: int
    processes: int
    planned: int
    seconds: float = 0.0
    recoveries: list[Recovery] = []
    samples: list[tuple[float, int, int]] = []
    """(seconds, sent so far, arrived so far)"""
    sent: int = 0
    doubled: int = 0
    missing: int = 0
    forgotten: int = 0
    """Of the missing: what Discord itself had forgotten before a resume came, and a RATEWAY_GAP told of it."""
    changed: int = 0
    unknown: int = 0
    out_of_order: int = 0
    gaps: int = 0
    violations: list[str] = []
    identifies: int = 0
    lost_sessions: int = 0
    """Sessions that Discord ended, on purpose or because its buffer was exceeded. Each requires one identify."""
    overrun_sessions: int = 0
    """Of these: those that ended because Discord's buffer was exceeded or nobody came in time."""
    tracebacks: int = 0
    """In the logs of gateway and proxies: nothing that happens here is a mistake in the program."""
    event_log: bool = False
    """Whether each cluster had one. Of the logs:"""
    entries: int = 0
    log_missing: int = 0
    """Events that reached a queue and not the log."""
    log_doubled: int = 0
    log_wrong: int = 0
    """Entries that are changed, unknown or out of order."""
    logs_begun: int = 0
    """Logs beyond each cluster's first; nothing that happens here takes one away."""
    bot_sessions: int = 0
    """Of a bot behind proxies, in the same lanes: how often it identified."""
    bot_resumes: int = 0
    bot_starts: int = 0
    bot_events: int = 0
    bot_missing: int = 0
    """Events of the log that did not come in a session of the bot's that had to have them."""
    bot_doubled: int = 0
    bot_wrong: int = 0
    """Dispatches that are no entry of the log, or out of its order."""
    bot_differences: int = 0
    """What the bot's library holds in the end and Discord does not, or the other way round."""
    not_run: dict[str, str] = {}
    notes: list[str] = []
    """What went wrong, for people."""

    @property
    def faults(self) -> int:
        return sum(len(each.kinds) for each in self.recoveries)

    @property
    def lost(self) -> int:
        """Events that are missing and that nobody was told of."""
        return self.missing - self.forgotten

    @property
    def identifies_allowed(self) -> int:
        return SHARDS + self.lost_sessions

    @property
    def clean(self) -> bool:
        """Every fault recovered from; nothing lost in silence, changed or out of order; no rule broken; no identify
        without a lost session; no traceback.
        """
        return (
            self.faults == self.planned
            and self.lost == 0
            and not (self.changed or self.unknown or self.out_of_order)
            and not self.violations
            and not self.tracebacks
            and self.identifies <= self.identifies_allowed
            and not (self.log_missing or self.log_wrong or self.logs_begun)
            and not (self.bot_missing or self.bot_doubled or self.bot_wrong or self.bot_differences)
            and bool(self.entries) == bool(self.bot_events) == self.event_log
        )


async def chaos(
    folder: Path,
    broker: Broker,
    faults: int,
    *,
    seed: int,
    processes: int,
    kinds: dict[str, int] | None = None,
    event_log: bool = False,
    say: Callable[[str], None] = lambda words: None,
) -> Result:
    """Run a plan of so many faults against a gateway of so many processes. Nothing is asserted; the result says all."""
    result = Result(seed, processes, faults, event_log=event_log)
    # It says so on standard error for every attempt while the broker is away, which is most of the time here.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    chosen = dict(kinds if kinds is not None else KINDS | BOTS_KINDS if event_log else KINDS)
    impossible = cannot_be_read_only(folder)
    if impossible and chosen.pop("state_read_only", 0):
        result.not_run["state_read_only"] = impossible
    began = time.monotonic()
    async with ground(folder, broker, processes, event_log) as it:
        sampling = asyncio.create_task(_sample(it.stage, result, began))
        try:
            await _strike(it, plan(seed, faults, kinds=chosen), result, began, say)
        except (AssertionError, TimeoutError) as error:
            result.notes.append(f"{type(error).__name__}: {error}")
        finally:
            sampling.cancel()
        it.stage.sim.set_rate(0)
        if not it.stage.gateway.running:
            # The run was given up in the middle of a fault: what Discord still holds is not lost.
            await it.again()
        await _audit(it.stage, result)
        if it.bots is not None:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await it.bots.finish()
            except TimeoutError:
                result.notes.append("the bot does not get the last events")
            await _audit_logs(it, result)
        result.seconds = time.monotonic() - began
        processes_seen = [it.stage.gateway, *(it.bots.proxies if it.bots is not None else ())]
        _read_logs(processes_seen, result)
        if not result.clean:
            result.notes += [each.tail(80) for each in processes_seen]
    return result


async def _strike(
    it: Ground, steps: list[Step], result: Result, began: float, say: Callable[[str], None]
) -> None:
    kinds: list[str] = []
    at = 0.0
    for step in steps:
        await asyncio.sleep(step.pause)
        if not kinds:
            at = time.monotonic() - began
        kinds.append(step.kind)
        await FAULTS[step.kind](it, step)
        if step.together:
            continue
        ended = time.monotonic() - began
        await _recovered(it, f"fault {step.number} of seed {result.seed} ({' + '.join(kinds)})")
        recovered = time.monotonic() - began - ended
        result.recoveries.append(Recovery(tuple(kinds), at, ended - at, recovered))
        left = (time.monotonic() - began) / step.number * (len(steps) - step.number)
        say(
            f"{step.number}/{len(steps)} {' + '.join(kinds)}: well again after {recovered:.1f} s"
            f"   ({time.monotonic() - began:.0f} s, about {left:.0f} s left)"
        )
        kinds.clear()


async def _recovered(ground: Ground, what: str) -> None:
    """All shards live, the last event of every session arrived, the sessions written down, and the bot caught up."""
    it = ground.stage
    try:
        async with asyncio.timeout(PATIENCE_S):
            await it.ready()
            await arrived(it)
            await stored(it)
            if ground.bots is not None:
                await ground.bots.caught_up()
    except TimeoutError:
        status = await it.gateway.status()
        raise AssertionError(f"no recovery from {what} within {PATIENCE_S:.0f} s\n{status}") from None


def _missing(it: Stage, record: SessionRecord, above: int = 0) -> list[int]:
    times = it.receipts.times
    return [seq for seq in range(above + 1, record.sent + 1) if not times(record.session, seq)]


def _forgotten(it: Stage) -> dict[str, list[int]]:
    """Session → what of it never arrived and could not: Discord holds the session no more, and RATEWAY_GAP tells
    that nothing after ``received`` had come.
    """
    found = {}
    gaps = {gap.old_session: gap for gap in map(decode_gap, it.receipts.gaps)}
    for session, gap in gaps.items():
        record = it.sim.ledger.sessions.get(session) if session is not None else None
        if session is not None and record is not None and ended_by_discord(record):
            found[session] = _missing(it, record, gap.received)
    return found


def _overrun(record: SessionRecord) -> bool:
    ended = record.ended or ""
    return ended.startswith("resumed from") or ended in ("expired", "it was not resumed in time")


async def _audit(it: Stage, result: Result) -> None:
    audit = await it.settled()
    ledger = it.sim.ledger
    forgotten = _forgotten(it)
    result.sent, result.doubled, result.missing = audit.sent, audit.doubled, audit.lost
    result.changed, result.unknown, result.out_of_order = audit.changed, audit.unknown, audit.out_of_order
    result.forgotten = sum(map(len, forgotten.values()))
    result.gaps = len(set(it.receipts.gaps))
    result.violations = [f"{each.rule}: {each.detail}" for each in ledger.noted]
    result.identifies = it.count("identify")
    ended = [record for record in ledger.sessions.values() if ended_by_discord(record)]
    result.lost_sessions = len(ended)
    result.overrun_sessions = sum(map(_overrun, ended))
    result.notes += [f"session {record.session}: {record.ended}" for record in ended if _overrun(record)]
    result.notes += [words for words in audit.examples if not words.startswith("lost")]
    for record in ledger.sessions.values():
        gone = _missing(it, record)
        if len(gone) > len(forgotten.get(record.session, ())):
            result.notes.append(
                f"LOST: session {record.session} of shard {record.shard}: {len(gone)} of {record.sent} events, "
                f"{gone[0]} to {gone[-1]}; ended: {record.ended}; heartbeats named {record.named}"
            )
            result.notes += [
                f"    {entry.time:.3f} {entry.what} {entry.detail}"
                for entry in ledger.journal
                if entry.session == record.session
            ][-EXAMPLES:]
            result.notes += [
                f"    {gap}" for gap in map(decode_gap, it.receipts.gaps) if gap.old_session == record.session
            ]


async def _audit_logs(ground: Ground, result: Result) -> None:
    """Hold each cluster's event log against what reached its queue, and what the bot got against the log."""
    it, bots = ground.stage, ground.bots
    assert bots is not None
    status = await it.ready()
    begun = [line for line in it.gateway.log.read_text().splitlines() if "the event log rateway-log-" in line]
    result.logs_begun = sum(line.endswith("begins (event_log)") for line in begun) - len(status["clusters"])
    logs: dict[str, Log] = {}
    for cluster in status["clusters"]:
        shards = it.layout.shards_of(cluster["cluster"])
        log = await read_log(it.broker.uri, cluster["event_log"]["name"])
        found = log.audit(
            each
            for each in it.sim.ledger.log()
            if each.shard in shards and it.receipts.times(each.session, each.seq)
        )
        result.entries += len(log.lines)
        result.log_missing += found.lost
        result.log_doubled += found.doubled
        result.log_wrong += found.changed + found.unknown + found.out_of_order
        result.notes += [f"in the log of cluster {cluster['cluster']}: {words}" for words in found.examples]
        logs[cluster["event_log"]["name"]] = log
    got = bots.audit(logs)
    result.bot_events, result.bot_missing, result.bot_doubled, result.bot_wrong = (
        got.events, got.missing, got.doubled, got.wrong,
    )  # fmt: skip
    result.notes += [f"of the bot: {words}" for words in got.examples]
    differences = await bots.differences()
    result.bot_differences = len(differences)
    result.notes += differences[:EXAMPLES]
    result.bot_sessions, result.bot_starts = len(bots.sessions), bots.bot.starts
    result.bot_resumes = sum(session.resumes for session in bots.sessions)
    if result.logs_begun:
        result.notes += begun


def _read_logs(children: Iterable[Child], result: Result) -> None:
    for child in children:
        lines = child.lines()
        found = [number for number, line in enumerate(lines) if "Traceback (most recent call last)" in line]
        result.tracebacks += len(found)
        for number in found[:3]:
            result.notes += lines[max(0, number - 2) : number + 30]


async def _sample(it: Stage, result: Result, began: float) -> None:
    while True:
        result.samples.append((time.monotonic() - began, it.sim.ledger.events, it.receipts.distinct))
        await asyncio.sleep(SAMPLE_EVERY_S)
