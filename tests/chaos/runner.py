"""One chaos run: a live load, faults from a plan, the time to recover from each, and the audit at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from rateway.contract.messages import Gap
from rateway.demo.audit import Audit
from rateway.demo.relay import Relay
from tests.chaos.faults import FAULTS, Ground
from tests.chaos.plan import Step
from tests.e2e.harness import Stage, stage
from tests.rabbitmq import Broker

__all__ = ["Result", "chaos"]

SHARDS = 4
GUILDS = 160
# Events that the simulated Discord keeps for a resume, per shard: at RATE it covers twenty seconds.
BUFFER = 800
RATE = 160.0
# So long a fault may take to recover from before the run is given up.
PATIENCE_S = 60.0
SAMPLE_EVERY_S = 0.25

decode_gap = msgspec.json.Decoder(Gap).decode


@dataclass(slots=True)
class Recovery:
    """One fault: when it began, how long it lasted and how long until all was well again, in seconds."""

    step: Step
    at: float
    made: float
    recovered: float


@dataclass(slots=True)
class Result:
    """What a run found."""

    seed: int
    processes: int
    recoveries: list[Recovery] = field(default_factory=list)
    samples: list[tuple[float, int, int]] = field(default_factory=list)
    """(seconds, sent so far, arrived so far)"""
    audit: Audit | None = None
    forgotten: int = 0
    """Of the lost: what Discord itself had forgotten before a resume came, and a RATEWAY_GAP told of it."""
    gaps: int = 0
    violations: list[str] = field(default_factory=list)
    identifies: int = 0
    identifies_allowed: int = 0

    @property
    def lost(self) -> int:
        """Events that are missing and that nobody was told of."""
        return self.audit.lost - self.forgotten if self.audit is not None else 0

    @property
    def clean(self) -> bool:
        """Nothing lost in silence, changed or out of order; no rule broken; no identify without a lost session."""
        audit = self.audit
        return (
            audit is not None
            and self.lost == 0
            and not (audit.changed or audit.unknown or audit.out_of_order)
            and not self.violations
            and self.identifies <= self.identifies_allowed
        )


async def chaos(
    folder: Path,
    broker: Broker,
    steps: list[Step],
    *,
    seed: int,
    processes: int,
    say: Callable[[str], None] = lambda words: None,
) -> Result:
    """Run the steps against a gateway of so many processes. Nothing is asserted here; the result says all."""
    result = Result(seed, processes)
    # It says so on standard error for every attempt while the broker is away, which is most of the time here.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    address = urlsplit(broker.uri)
    assert address.hostname is not None
    async with Relay(address.hostname, broker.port) as relay:
        uri = broker.uri.replace(f":{broker.port}/", f":{relay.port}/")
        async with stage(
            folder,
            broker,
            shards=SHARDS,
            per_cluster=2,
            guilds=GUILDS,
            members=5,
            simulator={"replay_events": BUFFER, "resume_hosts": 2},
            amqp_uri=uri,
            PROCESSES=str(processes),
            STOP_TIMEOUT="5",
            # Sessions are taken away young, again and again, on purpose.
            CRASH_LOOP_IDENTIFIES="0",
            expect=frozenset({"*"}),
        ) as it:
            ground = Ground(it, relay, processes)
            began = time.monotonic()
            sampling = asyncio.create_task(_sample(it, result, began))
            await it.ready()
            it.sim.set_rate(RATE)
            for step in steps:
                await asyncio.sleep(step.pause)
                say(f"{step.number}/{len(steps)} {step.kind}")
                at = time.monotonic() - began
                await FAULTS[step.kind](ground, step)
                made = time.monotonic() - began
                await _recovered(it, step)
                result.recoveries.append(Recovery(step, at, made - at, time.monotonic() - began - made))
            it.sim.set_rate(0)
            result.audit = await it.settled()
            sampling.cancel()
            told, result.forgotten = _forgotten(it)
            result.gaps = len(it.receipts.gaps)
            result.violations = [f"{each.rule}: {each.detail}" for each in it.sim.ledger.violations]
            result.identifies = it.count("identify")
            result.identifies_allowed = SHARDS + ground.lost_sessions + told
    return result


async def _recovered(it: Stage, step: Step) -> None:
    """All shards live, the broker confirming, and what was sent before the fault's end arrived."""
    sent = it.sim.ledger.events
    try:
        async with asyncio.timeout(PATIENCE_S):
            await it.ready()
            told = forgotten = 0
            while it.receipts.distinct < sent - forgotten:
                if len(it.receipts.gaps) != told:
                    told = len(it.receipts.gaps)
                    forgotten = _forgotten(it)[1]
                    continue
                it.collector.arrival.clear()
                await it.collector.arrival.wait()
    except TimeoutError:
        status = await it.gateway.status()
        raise AssertionError(
            f"no recovery from {step} within {PATIENCE_S:.0f} s: sent {sent}, arrived {it.receipts.distinct}\n"
            f"{status}\n{it.gateway.tail(60)}"
        ) from None


def _forgotten(it: Stage) -> tuple[int, int]:
    """(Sessions, events) that Discord had forgotten before a resume came, as RATEWAY_GAP tells of them."""
    sessions = events = 0
    for gap in {gap.old_session: gap for gap in map(decode_gap, it.receipts.gaps)}.values():
        missing = sum(
            1
            for sent in it.sim.ledger.log(session=gap.old_session)
            if sent.seq > gap.received and not it.receipts.times(sent.session, sent.seq)
        )
        sessions += bool(missing)
        events += missing
    return sessions, events


async def _sample(it: Stage, result: Result, began: float) -> None:
    while True:
        result.samples.append((time.monotonic() - began, it.sim.ledger.events, it.receipts.distinct))
        await asyncio.sleep(SAMPLE_EVERY_S)
