"""Faults at random over the members of a fleet, its broker and Discord, with every event audited at the end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rateway_simulator.faults import Fault

from tests.chaos.ground import ended_by_discord
from tests.chaos.plan import Step, plan
from tests.fleet.audit import FleetAudit
from tests.fleet.stage import FleetStage, Member, fleet_stage
from tests.rabbitmq import Broker
from tests.rabbitmq_cluster import RabbitCluster

__all__ = ["FAULTS", "Outcome", "chaos_fleet", "kinds_for"]

# So long a fault may take to be recovered from before the run is given up, seconds.
PATIENCE_S = 240.0
RATE_PER_SHARD = 5.0
# What the simulated Discord notes of a member that is dead, frozen or unplugged; no gateway can do otherwise.
UNAVOIDABLE = frozenset({"heartbeat-missing", "heartbeat-late", "heartbeat-unanswered"})

# Kind → how often it comes, relative to the others.
KINDS: dict[str, int] = {
    "stop": 4,
    "kill": 4,
    "freeze": 3,
    "cut_from_broker": 3,
    "unplug": 3,
    "connections_closed": 2,
    "node_killed": 2,
    "node_restarted": 1,
    "node_parted": 1,
    "broker_away": 1,
    "cut": 4,
    "op7": 3,
    "op9_resumable": 2,
    "op9_lost": 1,
    "close": 2,
}
NEEDS_NODES = frozenset({"node_killed", "node_restarted", "node_parted"})
NEEDS_NAMESPACES = frozenset({"unplug"})


@dataclass(slots=True)
class Outcome:
    """What a run found; plain words for people in `notes`."""

    seed: int
    planned: int
    struck: int = 0
    seconds: float = 0.0
    recoveries: list[tuple[str, float]] = field(default_factory=list)
    """(kinds, seconds from the end of the last until all was well)"""
    audit: FleetAudit = field(default_factory=FleetAudit)
    identifies: int = 0
    identifies_allowed: int = 0
    violations: list[str] = field(default_factory=list)
    tracebacks: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Every fault recovered from, nothing lost untold or under two ids, no rule broken, no identify too many."""
        return (
            self.struck == self.planned
            and self.audit.clean
            and not self.violations
            and not self.tracebacks
            and self.identifies <= self.identifies_allowed
        )


@dataclass(slots=True)
class Ground:
    it: FleetStage
    cluster: RabbitCluster | None

    def member(self, step: Step) -> Member:
        return self.it.members[int(step.size * len(self.it.members))]

    def nodes(self) -> RabbitCluster:
        assert self.cluster is not None
        return self.cluster

    def node(self, step: Step) -> int:
        return int(step.size * len(self.nodes().nodes))


Make = Callable[[Ground, Step], Awaitable[None]]


async def stop(ground: Ground, step: Step) -> None:
    member = ground.member(step)
    await member.terminate(patience=60.0)
    await member.start()


async def kill(ground: Ground, step: Step) -> None:
    member = ground.member(step)
    await member.kill()
    await asyncio.sleep(6.0 * random.Random(step.number).random())
    await member.start()


def away(do: Callable[[Ground, Member, bool], None]) -> Make:
    """For up to 30 s."""

    async def make(ground: Ground, step: Step) -> None:
        member = ground.member(step)
        do(ground, member, True)
        try:
            await asyncio.sleep(1.0 + 29.0 * random.Random(step.number).random())
        finally:
            do(ground, member, False)

    return make


def _freeze(ground: Ground, member: Member, frozen: bool) -> None:
    (member.freeze if frozen else member.thaw)()


def _cut(ground: Ground, member: Member, cut: bool) -> None:
    member.cut_broker(cut)


def _unplug(ground: Ground, member: Member, unplugged: bool) -> None:
    (ground.it.unplug if unplugged else ground.it.plug)(member)


async def connections_closed(ground: Ground, step: Step) -> None:
    """The connections of one member are reset; those of others stay."""
    for relay in ground.member(step).relays:
        relay.cut()


async def node_killed(ground: Ground, step: Step) -> None:
    await ground.nodes().kill(ground.node(step))
    await asyncio.sleep(5.0)
    await ground.nodes().start(ground.node(step))


async def node_restarted(ground: Ground, step: Step) -> None:
    await ground.nodes().stop(ground.node(step))
    await ground.nodes().start(ground.node(step))


async def node_parted(ground: Ground, step: Step) -> None:
    await ground.nodes().part(ground.node(step))
    await asyncio.sleep(10.0)
    await ground.nodes().join(ground.node(step))


async def broker_away(ground: Ground, step: Step) -> None:
    """Every node, killed as long as 20 s; Discord asks all shards to reconnect meanwhile."""
    await ground.it.kill_nodes()
    await ground.it.sim.inject(Fault(kind="op7"))
    await asyncio.sleep(20.0 * step.size)
    await ground.it.start_nodes()


def discord(**fault: object) -> Make:
    """A fault of the simulated Discord's own, on one shard or all."""

    async def make(ground: Ground, step: Step) -> None:
        shards = "all" if step.size > 0.5 else "random:1"
        await ground.it.sim.inject(Fault(**{"shards": shards, **fault}))  # type: ignore[arg-type]  # a table of keywords

    return make


FAULTS: dict[str, Make] = {
    "stop": stop,
    "kill": kill,
    "freeze": away(_freeze),
    "cut_from_broker": away(_cut),
    "unplug": away(_unplug),
    "connections_closed": connections_closed,
    "node_killed": node_killed,
    "node_restarted": node_restarted,
    "node_parted": node_parted,
    "broker_away": broker_away,
    "cut": discord(kind="cut"),
    "op7": discord(kind="op7"),
    "op9_resumable": discord(kind="op9", resumable=True),
    "op9_lost": discord(kind="op9", shards="random:1"),
    "close": discord(kind="close", code=4000),
}


def kinds_for(*, nodes: int, namespaces: bool) -> dict[str, int]:
    """The kinds that can be made on a broker of so many nodes, with namespaces or without."""
    impossible = (NEEDS_NODES if nodes < 3 else frozenset()) | (
        frozenset() if namespaces else NEEDS_NAMESPACES
    )
    return {kind: weight for kind, weight in KINDS.items() if kind not in impossible}


async def chaos_fleet(
    folder: Path,
    nodes: Sequence[Broker],
    faults: int,
    *,
    seed: int,
    cluster: RabbitCluster | None = None,
    namespaces: bool = False,
    members: int = 3,
    kinds: dict[str, int] | None = None,
    say: Callable[[str], None] = lambda words: None,
) -> Outcome:
    """Run a plan of so many faults against a fleet. Nothing is asserted; the outcome says all."""
    outcome, began = Outcome(seed, faults), time.monotonic()
    chosen = kinds if kinds is not None else kinds_for(nodes=len(nodes), namespaces=namespaces)
    async with fleet_stage(
        folder,
        nodes,
        members=members,
        shards=6,
        per_cluster=2,
        guilds=120,
        fleet="chaos",
        namespaces=namespaces,
        # Sessions are taken away young, again and again, on purpose.
        CRASH_LOOP_IDENTIFIES="0",
    ) as it:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await it.whole()
            it.sim.set_rate(RATE_PER_SHARD, per_shard=True)
            await _strike(Ground(it, cluster), plan(seed, faults, kinds=chosen), outcome, say)
        except (AssertionError, TimeoutError) as error:
            outcome.notes.append(f"{type(error).__name__}: {error}")
            outcome.notes += [f"{member.name}:\n{member.tail(40)}" for member in it.members]
        it.sim.set_rate(0)
        outcome.audit = await it.arrived()
        ledger = it.sim.ledger
        outcome.identifies = it.count("identify")
        outcome.identifies_allowed = it.layout.shards + sum(map(ended_by_discord, ledger.sessions.values()))
        outcome.violations = [
            f"{each.rule}: {each.detail}" for each in ledger.noted if each.rule not in UNAVOIDABLE
        ]
        outcome.notes += outcome.audit.examples
        for member in it.members:
            lines = member.lines()
            found = [number for number, words in enumerate(lines) if "Traceback (most recent" in words]
            outcome.tracebacks += len(found)
            for number in found[:2]:
                outcome.notes += [
                    f"{member.name}: {words}" for words in lines[max(0, number - 2) : number + 30]
                ]
    outcome.seconds = time.monotonic() - began
    return outcome


async def _strike(ground: Ground, steps: list[Step], outcome: Outcome, say: Callable[[str], None]) -> None:
    together: list[str] = []
    began = time.monotonic()
    for step in steps:
        await asyncio.sleep(step.pause)
        together.append(step.kind)
        await FAULTS[step.kind](ground, step)
        if step.together:
            continue
        ended, name = time.monotonic(), " + ".join(together)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await ground.it.whole()
                await ground.it.flowing()
        except TimeoutError:
            statuses = [await member.status() for member in ground.it.members]
            raise AssertionError(
                f"no recovery from fault {step.number} of seed {outcome.seed} ({name}) within {PATIENCE_S:.0f} s\n"
                f"connected: {sorted(ground.it.attached())}\n{statuses}"
            ) from None
        outcome.struck += len(together)
        outcome.recoveries.append((name, time.monotonic() - ended))
        left = (time.monotonic() - began) / step.number * (len(steps) - step.number)
        say(
            f"{step.number}/{len(steps)} {name}: well again after {outcome.recoveries[-1][1]:.1f} s"
            f"   (about {left:.0f} s left)"
        )
        together.clear()
