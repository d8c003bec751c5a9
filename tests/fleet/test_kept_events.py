"""An owner that could not publish returns, or is started again: with the real shards, publisher and spool of a cluster,
an election in memory, a broker that takes everything while it is there, and the simulated Discord.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rateway.config import load
from rateway.fleet.choice import Choice
from rateway.fleet.cluster_record import decode
from rateway.fleet.layout import Layout
from rateway.fleet.leftovers import SessionPosition
from rateway.fleet.membership import Membership
from rateway.runtime.fleet.part import FleetPart
from rateway.runtime.runner.cluster import Cluster
from rateway.runtime.runner.cluster_tenure import ClusterTenure
from rateway.runtime.runner.leftovers import Leftovers
from rateway.runtime.runner.runner import Runner
from rateway.runtime.startup import Identity
from rateway.transports.state import StateDir
from rateway.transports.tenure_notes import TenureNotes
from rateway_simulator.faults import Fault
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator
from rateway_simulator.world.dispatch import WorldOptions
from tests.election.memory import Coordinator, MemoryElections
from tests.transports.amqp.fake_broker import FakeBroker, Received

from tests.aio import run
from tests.e2e.harness import LOOK
from tests.fleet.test_cluster_tenures import Permits

SHARDS = 2
KEPT = 100


@dataclass
class Member:
    """One cluster of a gateway, without the queue of its requests."""

    cluster: Cluster
    runner: Runner
    elections: MemoryElections
    broker: FakeBroker
    """Its own way to the exchange that all share."""
    task: asyncio.Task[None] | None = None

    @property
    def is_live(self) -> bool:
        return self.runner.progress() == (SHARDS, SHARDS)

    @property
    def spooled(self) -> int:
        spool = self.cluster.publisher.spool
        return 0 if spool is None else spool.events

    @property
    def kept(self) -> Leftovers:
        assert self.cluster.leftovers is not None
        return self.cluster.leftovers

    async def cut(self) -> None:
        await self.broker.stop_listening()
        self.elections.cut()

    async def heal(self) -> None:
        await self.broker.listen()
        self.elections.heal()

    async def end(self) -> None:
        """End it: its connections are closed, nothing is confirmed, written down or given up."""
        if self.task is None:
            return
        self.elections.cut()
        shards = self.cluster.shards.values()
        for shard in shards:
            shard.stop(end_session=False)
        while any(shard.connection is not None for shard in shards):  # noqa: ASYNC110
            await asyncio.sleep(LOOK)
        self.task.cancel()
        await asyncio.wait({self.task})
        self.task = None
        self.runner.close()


@dataclass
class Scene:
    sim: Simulator
    folder: Path
    stack: AsyncExitStack
    coordinator: Coordinator = field(default_factory=Coordinator)
    received: list[Received] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)

    async def member(self, name: str) -> Member:
        """Start one more member, or the same one again."""
        broker = await self.stack.enter_async_context(FakeBroker(received=self.received))
        environment = {
            "AMQP_URI": broker.uri,
            "DISCORD_API_URL": self.sim.api_url,
            "DISCORD_TOKEN": self.sim.options.token,
            "INTENTS": "ALL",
            "STATE_DIR": str(self.folder / name),
        }
        settings = load(None, environment)
        state = StateDir.open(self.folder / name)
        state.take_salt(b"f" * 32)
        elections = self.coordinator.member(name)
        part = FleetPart(Membership("bot", name), elections, asyncio.get_running_loop().time)
        choice = Choice(Layout(SHARDS, 8), self.sim.gateway_url, "as the test says")
        identity = Identity.of(settings, state)
        runner = Runner(settings, state, identity, choice, [1], Permits(), lambda shard, order: None, part)
        cluster = runner.clusters[1]
        member = Member(cluster, runner, elections, broker)

        async def ask() -> Sequence[SessionPosition] | None:
            return None if elections.is_cut else self.positions()

        async def serve() -> None:
            cluster.start()
            await asyncio.get_running_loop().create_future()

        async def no_queue() -> None:
            """There is none to be bound to an exchange."""

        cluster.ask_owner, cluster.on_exchange = ask, no_queue
        cluster.shard_observer.on_live = lambda: None
        notes = TenureNotes(state, 1)
        tenure = runner.tenures[1] = ClusterTenure(
            cluster, part, serve=serve, on_waiting=lambda: None, last=notes.read(), on_begun=notes.write,
            settle_timeout=5.0,
        )  # fmt: skip

        async def live() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(cluster.run())
                tasks.create_task(tenure.run())

        member.task = asyncio.ensure_future(live())
        self.members.append(member)
        self.stack.push_async_callback(member.end)
        return member

    def positions(self) -> Sequence[SessionPosition] | None:
        """Return what the owner says, as every member that is not cut off can ask for it."""
        for member in self.members:
            if member.task is not None and not member.elections.is_cut:
                found = member.runner._own_positions(1)
                if found is not None:
                    return found
        return None

    async def until(self, fact: Callable[[], bool]) -> None:
        while not fact():
            for member in self.members:
                assert member.task is None or not member.task.done(), member.task
            await asyncio.sleep(LOOK)

    @property
    def times(self) -> Counter[str]:
        """How often each event came, by its message_id."""
        return Counter(
            each.properties.message_id for each in self.received if not each.key.startswith("RATEWAY_")
        )

    async def quiet(self) -> None:
        """Stop the world until all has arrived and the record says so: whoever follows has nothing sent again."""
        self.sim.set_rate(0.0)
        await self.until(lambda: len(self.times) >= self.sim.ledger.events)

        def is_recorded() -> bool:
            record = self.coordinator.record("cluster-1")
            if record is None:
                return False
            sessions = decode(record.body).sessions
            return all(
                self.times[f"{each.name}:{each.shard_id}:{each.settled}"] for each in sessions
            ) and sum(each.settled for each in sessions) >= len(self.times)

        await self.until(is_recorded)

    async def audit(self) -> None:
        """Stop the world: everything comes, and once."""
        self.sim.set_rate(0.0)
        await self.until(lambda: len(self.times) >= self.sim.ledger.events)
        assert [each for each, times in self.times.items() if times > 1] == []
        assert len(self.times) == self.sim.ledger.events


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    world = WorldOptions(guilds=6, members_per_guild=3)
    options = SimulatorOptions(world=world, shards=SHARDS, max_concurrency=SHARDS)
    async with Simulator(options) as sim, AsyncExitStack() as stack:
        yield Scene(sim, folder, stack)
    # Permits without end are no governor's.
    assert [each for each in sim.ledger.noted if each.rule != "identify-concurrency"] == []


def test_what_a_successor_has_had_sent_is_dropped_by_the_owner_that_was_cut_off(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as it:
            one = await it.member("one")
            await it.until(lambda: one.is_live)
            await it.quiet()
            await one.cut()
            it.sim.set_rate(100.0)
            two = await it.member("two")
            await it.until(lambda: two.is_live and one.spooled > KEPT)
            await one.heal()
            await it.until(lambda: one.kept.dropped > KEPT and one.kept.events == 0)
            await it.audit()
            assert one.kept.published == 0
            assert it.sim.ledger.counts["identify"] == SHARDS
            assert list(tmp_path.rglob("spool-left-*")) == []

    run(main())


def test_what_a_successor_could_not_resume_is_published_by_the_owner_that_was_cut_off(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path) as it:
            one = await it.member("one")
            await it.until(lambda: one.is_live)
            await it.quiet()
            await one.cut()
            kept = it.sim.ledger.events + KEPT
            it.sim.set_rate(100.0)
            await it.until(lambda: it.sim.ledger.events >= kept)
            it.sim.set_rate(0.0)
            shard = one.cluster.shards[0]
            session = shard.conversation.session_id
            await it.sim.inject(Fault(kind="op9", shards="0"))
            await it.until(lambda: shard.conversation.session_id != session)
            two = await it.member("two")
            await it.until(lambda: two.is_live)
            await one.heal()
            await it.until(lambda: one.kept.published > 0 and one.kept.events == 0)
            assert one.kept.dropped > 0
            await it.audit()
            assert any(each.key == "RATEWAY_GAP" for each in it.received)

    run(main())


def test_the_spool_of_a_killed_owner_is_dropped_whether_another_has_followed_or_itself(
    tmp_path: Path,
) -> None:
    async def life(folder: Path, *, succeeded: bool) -> None:
        async with scene(folder) as it:
            one = await it.member("one")
            await it.until(lambda: one.is_live)
            await it.quiet()
            await one.cut()
            it.sim.set_rate(100.0)
            await it.until(lambda: one.spooled > KEPT)
            await one.end()
            if succeeded:
                two = await it.member("two")
                await it.until(lambda: two.is_live)
            again = await it.member("one")
            await it.until(lambda: again.kept.dropped > KEPT and again.kept.events == 0)
            await it.audit()
            assert again.kept.published == 0
            assert it.sim.ledger.counts["identify"] == SHARDS

    async def main() -> None:
        await life(tmp_path / "followed", succeeded=True)
        await life(tmp_path / "alone", succeeded=False)

    run(main())
