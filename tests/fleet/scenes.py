"""What may happen to a fleet, scene by scene: each strikes once, waits until all is well again, and is measured.

A scene leaves every member running and every node of the broker up, so that it can be played again on the same stage.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from rateway_protocol.contract import topology
from rateway_simulator.faults import Fault

from tests.e2e.harness import LOOK
from tests.fleet.stage import FleetStage, Member
from tests.rabbitmq_cluster import RabbitCluster

__all__ = ["SCENES", "Measured", "Scene", "home_of_first", "play"]

# So long a scene may take to end well, seconds, beside what it lasts itself.
PATIENCE_S = 180.0
# How long a member is away that is frozen, cut off or unplugged, seconds.
AWAY_S = 30.0
# While the broker is away for long: so much of it at least is left when shards are asked to reconnect once more, and so
# long they are left in peace after they are back, seconds.
OP7_EVERY_S = 80.0
OP7_REST_S = 10.0


class Measured(msgspec.Struct):
    """What one strike cost."""

    live_s: float = 0.0
    """From the strike until the last shard that it hit was resumed or ready elsewhere; 0 where none was hit. Of a
    planned move, whose cache goes first: the longest time that a shard had no connection."""
    pause_s: float = 0.0
    """The longest time that some shard's events did not arrive."""
    hole_s: float = 0.0
    """The longest time that some cluster's queries had no answer; 0 where none were asked."""
    cold: int = 0
    """Answers that were `incomplete`."""
    strikes: int = 1
    """How often it was struck."""
    identifies: int = 0
    happened: int = 0
    lost: int = 0
    told: int = 0
    two_ids: int = 0
    doubled: int = 0
    """Came twice; of these nothing but what was published just before a member was struck may have."""
    too_often: int = 0
    """Of these, what happened after that, or was published once more by a member that returned."""
    wrong: int = 0
    """Changed or out of order."""
    concurrency: int = 0
    """Violations of `identify-concurrency`."""
    violations: int = 0
    """Of every other rule."""
    examples: list[str] = []


Strike = Callable[["Scenery"], Awaitable[float]]
"""Strike, wait until the shards that were hit are live, mend; the seconds from the strike until they were live."""


@dataclass(slots=True)
class Scenery:
    """What a strike acts on: the stage, the member that it hits, and the broker when it is a cluster."""

    it: FleetStage
    victim: Member
    cluster: RabbitCluster | None
    away_s: float
    strikes: int = 1
    struck_at: int | None = None
    """The simulator's count of events when the member was struck that others have to follow without its help."""

    def note_struck(self) -> None:
        self.struck_at = self.it.sim.ledger.events

    async def watched(self, strike: Callable[[], Awaitable[object]], shards: set[int] | None = None) -> float:
        """Strike; seconds until each of these shards (default: the victim's) was live again."""
        hit = self.it.shards_of(await self.victim.clusters()) if shards is None else shards
        since, began = self.it.now(), time.time()
        async with asyncio.TaskGroup() as tasks:
            # A strike that fails ends the wait: what it should have caused does not come.
            tasks.create_task(_done(strike()))
            found = await self.it.live_since(since, hit) - began
        return found if hit else 0.0


async def _done(strike: Awaitable[object]) -> None:
    await strike


@dataclass(frozen=True, slots=True)
class Scene:
    name: str
    words: str
    strike: Strike
    needs_cluster: bool = False
    needs_namespaces: bool = False


async def sigterm(scenery: Scenery) -> float:
    since = scenery.it.now()
    hit = scenery.it.shards_of(await scenery.victim.clusters())
    await scenery.watched(scenery.victim.stop, hit)
    found = scenery.it.hole(since, hit)
    await scenery.victim.start()
    return found


async def drain(scenery: Scenery) -> float:
    """`rateway fleet drain`, asked of another member, and `undrain`."""
    it, victim = scenery.it, scenery.victim
    since, hit = it.now(), it.shards_of(await victim.clusters())
    other = next(member for member in it.members if member is not victim)
    name = await victim.member_name()
    await scenery.watched(lambda: other.ask("fleet-drain", name), hit)
    found = it.hole(since, hit)
    await other.ask("fleet-undrain", name)
    return found


async def move(scenery: Scenery) -> float:
    """`rateway fleet move` of one cluster, and back: an even spread is no reason to undo what a person asked for."""
    it, victim = scenery.it, scenery.victim
    cluster = (await victim.clusters())[0]
    other = next(member for member in it.members if member is not victim)
    since, hit, worst = it.now(), it.shards_of([cluster]), 0.0
    for receiver in (other, victim):
        name = await receiver.member_name()

        async def ask(name: str = name) -> None:
            await victim.ask("fleet-move", str(cluster), name)

        await scenery.watched(ask, hit)
        worst = max(worst, it.hole(since, hit))
        since = it.now()
    return worst


async def rolling_upgrade(scenery: Scenery) -> float:
    """Each member in turn is stopped and started, the next once the fleet is whole."""
    worst = 0.0
    for member in scenery.it.members:
        turn = Scenery(scenery.it, member, scenery.cluster, scenery.away_s)
        worst = max(worst, await sigterm(turn))
        await scenery.it.whole()
    return worst


async def kill(scenery: Scenery) -> float:
    async def strike() -> None:
        await scenery.victim.kill()
        scenery.note_struck()

    found = await scenery.watched(strike)
    await scenery.victim.start()
    return found


async def frozen(scenery: Scenery) -> float:
    async def freeze() -> None:
        scenery.victim.freeze()

    return await _away(scenery, freeze, scenery.victim.thaw)


async def cut_from_broker(scenery: Scenery) -> float:
    async def cut() -> None:
        scenery.victim.cut_broker(True)

    return await _away(scenery, cut, lambda: scenery.victim.cut_broker(False))


async def network_gone(scenery: Scenery) -> float:
    async def unplug() -> None:
        scenery.it.unplug(scenery.victim)

    return await _away(scenery, unplug, lambda: scenery.it.plug(scenery.victim))


async def _away(scenery: Scenery, strike: Callable[[], Awaitable[None]], mend: Callable[[], None]) -> float:
    """At least as long as the scene lasts, and until others have its shards."""
    began = time.monotonic()

    async def noted() -> None:
        await strike()
        scenery.note_struck()

    try:
        found = await scenery.watched(noted)
        await asyncio.sleep(max(0.0, began + scenery.away_s - time.monotonic()))
    finally:
        mend()
    return found


def _nodes(scenery: Scenery) -> RabbitCluster:
    assert scenery.cluster is not None, "this scene needs a RabbitMQ cluster"
    return scenery.cluster


async def node_killed(scenery: Scenery) -> float:
    nodes = _nodes(scenery)
    number = await home_of_first(nodes)
    await nodes.kill(number)
    await asyncio.sleep(5.0)
    await nodes.start(number)
    await nodes.whole()
    return 0.0


async def node_partitioned(scenery: Scenery) -> float:
    nodes = _nodes(scenery)
    number = await home_of_first(nodes)
    await nodes.part(number)
    await asyncio.sleep(scenery.away_s)
    await nodes.join(number)
    # A second node that goes before the first is back leaves no majority.
    await nodes.whole()
    return 0.0


async def nodes_restarted(scenery: Scenery) -> float:
    """Each node in turn, the next once all run and every shard's events arrive again."""
    nodes = _nodes(scenery)
    for number in range(len(nodes.nodes)):
        await nodes.stop(number)
        await nodes.start(number)
        await nodes.whole()
        await scenery.it.flowing()
    return 0.0


async def home_of_first(nodes: RabbitCluster) -> int:
    """The node that the first cluster's inbound queue is on."""
    for number in itertools.cycle(range(len(nodes.nodes))):
        try:
            return await nodes.home_of(number, topology.incoming(1))
        except OSError:
            # A node that has just come back; and what the management API tells is some seconds old.
            await asyncio.sleep(LOOK)
    raise AssertionError("no node")


async def broker_away(scenery: Scenery) -> float:
    """All nodes, for as long as the scene lasts; meanwhile Discord asks every shard to reconnect (op 7): after a third
    of it, or again and again if it is long.
    """
    it = scenery.it
    every = set(range(it.layout.shards))
    await it.kill_nodes()
    began, worst, scenery.strikes = time.monotonic(), 0.0, 0
    pause = min(scenery.away_s / 3, OP7_REST_S)

    async def reconnect() -> None:
        await it.sim.inject(Fault(kind="op7"))

    try:
        while scenery.strikes == 0 or time.monotonic() + pause < began + scenery.away_s:
            await asyncio.sleep(min(pause, OP7_REST_S))
            worst = max(worst, await scenery.watched(reconnect, every))
            scenery.strikes += 1
            pause = OP7_EVERY_S
        await asyncio.sleep(max(0.0, began + scenery.away_s - time.monotonic()))
    finally:
        await it.start_nodes()
    return worst


SCENES = (
    Scene("sigterm", "SIGTERM of a member", sigterm),
    Scene("drain", "drain of a member", drain),
    Scene("move", "move of a cluster, and back", move),
    Scene("rolling_upgrade", "rolling upgrade of all members", rolling_upgrade),
    Scene("kill", "kill -9 of a whole member", kill),
    Scene("frozen", "a member frozen", frozen),
    Scene("cut_from_broker", "a member cut from the broker only", cut_from_broker),
    Scene("network_gone", "a member's network gone", network_gone, needs_namespaces=True),
    Scene("node_killed", "a RabbitMQ node killed", node_killed, needs_cluster=True),
    Scene("node_partitioned", "a RabbitMQ node partitioned", node_partitioned, needs_cluster=True),
    Scene("nodes_restarted", "rolling restart of RabbitMQ", nodes_restarted, needs_cluster=True),
    Scene("broker_away", "all of RabbitMQ away, op 7 on every shard", broker_away),
)


async def play(
    it: FleetStage,
    scene: Scene,
    victim: Member,
    *,
    cluster: RabbitCluster | None = None,
    away_s: float = AWAY_S,
    asks: bool = False,
) -> Measured:
    """Strike once and wait until all is well; TimeoutError when that takes too long. *asks*: queries are sent
    meanwhile.
    """
    began, rules, out_of_order = it.sim.ledger.events, len(it.sim.ledger.noted), len(it.receipts.out_of_order)
    identifies, concurrency = it.count("identify"), it.broken("identify-concurrency")
    returned = it.receipts.returned
    it.receipts.begin()
    scenery = Scenery(it, victim, cluster, away_s)
    async with it.prober.running() if asks else contextlib.nullcontext():
        it.prober.begin()
        async with asyncio.timeout(PATIENCE_S + away_s):
            live = await scene.strike(scenery)
            await it.whole()
            await it.flowing()
        pause, hole, cold = it.receipts.pause(), it.prober.hole() if asks else 0.0, it.prober.cold
    found = await it.arrived(began, scenery.struck_at)
    concurrency = it.broken("identify-concurrency") - concurrency
    return Measured(
        live_s=live,
        pause_s=pause,
        hole_s=hole,
        cold=cold,
        strikes=scenery.strikes,
        identifies=it.count("identify") - identifies,
        happened=found.happened,
        lost=found.lost,
        told=found.told,
        two_ids=found.two_ids,
        doubled=found.doubled,
        too_often=found.after_strike + found.returned - returned,
        wrong=found.changed + found.out_of_order - out_of_order,
        concurrency=concurrency,
        violations=len(it.sim.ledger.noted) - rules - concurrency,
        examples=found.examples,
    )
