"""Two runners that know each other's election in memory hold one cluster of one bot, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec
from rateway.config import load
from rateway.demo.audit import Audit, audit
from rateway.demo.collector import Collector
from rateway.demo.relay import Relay
from rateway.fleet.choice import Choice
from rateway.fleet.cluster_record import decode
from rateway.fleet.layout import Layout
from rateway.fleet.membership import Membership
from rateway.permit_outcome import PermitOutcome
from rateway.runtime.fleet.part import FleetPart
from rateway.runtime.identify.permits import Refusal
from rateway.runtime.runner.leftovers import Leftovers
from rateway.runtime.runner.runner import Runner
from rateway.runtime.startup import Identity
from rateway.transports.state import StateDir
from rateway_protocol.contract import messages
from rateway_simulator.faults import Fault
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator
from rateway_simulator.world.dispatch import WorldOptions
from tests.cache.world_feed import differences, expected, state
from tests.election.memory import Coordinator, MemoryElections

from tests.aio import run
from tests.e2e.harness import LOOK
from tests.e2e.witness import witness
from tests.rabbitmq import Broker

SHARDS = 2


class Permits:
    """Identify permits without end."""

    async def acquire(self, shard_id: int, *, lost: bool) -> Refusal | None:
        return None

    async def spent(self, shard_id: int) -> Refusal | None:
        return None

    def finished(self, shard_id: int, outcome: PermitOutcome) -> None:
        pass


@dataclass
class Member:
    """A gateway of one process, without what is around its runner."""

    runner: Runner
    elections: MemoryElections | None
    task: asyncio.Task[None]
    relay: Relay
    """Its way to the broker."""

    @property
    def is_live(self) -> bool:
        return self.runner.progress() == (SHARDS, SHARDS)

    def cut(self, cut: bool) -> None:
        """While *cut*, it reaches neither the broker nor the coordinator."""
        assert self.elections is not None
        self.relay.refuse(cut)
        if cut:
            self.elections.cut()
        else:
            self.elections.heal()

    @property
    def leftovers(self) -> Leftovers:
        found = self.runner.clusters[1].leftovers
        assert found is not None
        return found

    async def kill(self) -> None:
        """End it: its connections are closed, nothing is confirmed, written down or given up."""
        if self.elections is not None:
            self.elections.cut()
        for shard in self.runner.clusters[1].shards.values():
            shard.stop(end_session=False)
        while not self.is_idle:  # noqa: ASYNC110  # a runner's state announces itself nowhere
            await asyncio.sleep(LOOK)
        self.task.cancel()
        await asyncio.wait({self.task})
        self.runner.close()

    @property
    def is_idle(self) -> bool:
        return all(shard.connection is None for shard in self.runner.clusters[1].shards.values())

    async def stop(self) -> None:
        await self.runner.wind_down(end_sessions=False)
        self.task.cancel()
        await asyncio.wait({self.task})
        self.runner.close()


@dataclass
class Scene:
    sim: Simulator
    collector: Collector
    folder: Path
    broker: Broker
    coordinator: Coordinator
    stack: AsyncExitStack

    async def member(self, name: str, *, fleet: bool = True) -> Member:
        """Start one more member, or the same one again; with *fleet* false it is alone."""
        relay = await self.stack.enter_async_context(Relay("127.0.0.1", self.broker.port))
        vhost = quote(self.broker.vhost, safe="")
        environment = {
            "AMQP_URI": f"amqp://guest:guest@127.0.0.1:{relay.port}/{vhost}",
            "DISCORD_API_URL": self.sim.api_url,
            "DISCORD_TOKEN": self.sim.options.token,
            "INTENTS": "ALL",
            "STATE_DIR": str(self.folder / name),
        }
        settings = load(None, environment)
        state = StateDir.open(self.folder / name)
        if fleet:
            state.take_salt(b"f" * 32)
        elections = self.coordinator.member(name) if fleet else None
        clock = asyncio.get_running_loop().time
        part = None if elections is None else FleetPart(Membership("bot", name), elections, clock)
        choice = Choice(Layout(SHARDS, 8), self.sim.gateway_url, "as the test says")
        identity = Identity.of(settings, state)
        runner = Runner(settings, state, identity, choice, [1], Permits(), lambda shard, order: None, part)
        task = asyncio.ensure_future(runner.run())
        member = Member(runner, elections, task, relay)
        self.stack.push_async_callback(self._end, member)
        return member

    async def _end(self, member: Member) -> None:
        if not member.task.done():
            await member.stop()

    async def until(self, fact: Callable[[], bool]) -> None:
        while not fact():  # noqa: ASYNC110  # a runner's state announces itself nowhere
            await asyncio.sleep(LOOK)

    def count(self, what: str) -> int:
        return self.sim.ledger.counts[what]

    async def some_events(self) -> None:
        """Let some more events arrive."""
        more = self.collector.receipts.distinct + 20
        await self.until(lambda: self.collector.receipts.distinct >= more)

    async def quiet(self) -> None:
        """Stop the world until all has arrived and the record says so: whoever follows has nothing sent again."""
        self.sim.set_rate(0.0)
        await self.until(lambda: self.collector.receipts.distinct >= self.sim.ledger.events)

        def is_recorded() -> bool:
            record = self.coordinator.record("cluster-1")
            settled = (
                {} if record is None else {each.name: each.settled for each in decode(record.body).sessions}
            )
            return all(
                settled.get(session) == receipt.highest
                for session, receipt in self.collector.receipts.sessions.items()
            )

        await self.until(is_recorded)

    async def all_arrived(self) -> Audit:
        """Stop the world and wait for the last event; nothing is lost, out of order or under two ids."""
        self.sim.set_rate(0.0)
        await self.until(lambda: self.collector.receipts.distinct >= self.sim.ledger.events)
        found = audit(self.sim.ledger.log(), self.collector.receipts)
        assert found.clean, found
        assert self.collector.receipts.gaps == []
        return found


@asynccontextmanager
async def scene(folder: Path, broker: Broker, patience: float = 3.0) -> AsyncIterator[Scene]:
    world = WorldOptions(guilds=6, members_per_guild=3)
    # Discord keeps no more than some tens of events of a shard with three guilds, and a machine may be slow.
    options = SimulatorOptions(world=world, shards=SHARDS, max_concurrency=SHARDS, replay_events=10_000)
    collector = Collector(broker.uri, (1,))
    async with Simulator(options) as sim, collector.running(), AsyncExitStack() as stack:
        yield Scene(sim, collector, folder, broker, Coordinator(patience=patience), stack)
    assert sim.ledger.noted == []


def test_a_cluster_that_is_moved_is_resumed_by_the_other_member_with_nothing_lost_or_doubled(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with scene(tmp_path, broker) as it:
            one = await it.member("one")
            await it.until(lambda: one.is_live)
            two = await it.member("two")
            it.sim.set_rate(100.0)
            for giver, taker, name in ((one, two, "two"), (two, one, "one"), (one, two, "")):
                await it.some_events()
                assert await giver.runner.tenures[1].move(name)
                await it.until(lambda taker=taker: taker.is_live)  # type: ignore[misc]
                assert giver.is_idle
            await two.stop()
            await it.until(lambda: one.is_live)
            assert (await it.all_arrived()).doubled == 0
            assert (it.count("identify"), it.count("resume")) == (SHARDS, 4 * SHARDS)

    run(main())


def test_an_owner_that_was_cut_off_leaves_its_sessions_to_its_successor_and_takes_them_back_from_the_record(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with (
            scene(tmp_path, broker) as it,
            witness(broker, names=frozenset({messages.ShardStatus.key})) as heard,
        ):
            one = await it.member("one")
            await it.until(lambda: one.is_live)
            two = await it.member("two")
            assert one.elections is not None
            it.sim.set_rate(20.0)
            await it.some_events()
            one.elections.cut()
            # It does not know yet and reads the inbound queue; the next owner resumes all the same, and for good.
            await it.until(lambda: two.is_live)
            resumes = it.count("resume")
            assert one.runner.ownership[1][0] == "owned" and two.runner.ownership[1][0] == "away"
            await it.some_events()
            one.elections.heal()
            await it.until(lambda: one.is_idle and two.runner.ownership[1][0] == "owned")
            await it.some_events()
            assert two.is_live and it.count("resume") == resumes
            # What the former owner does comes after what the next one has told of its shards.
            states = [msgspec.json.decode(each.body)["state"] for each in heard.heard]
            assert "stopped" not in states
            assert await two.runner.tenures[1].move("one")
            await it.until(lambda: one.is_live)
            await it.all_arrived()
            assert it.count("identify") == SHARDS

    run(main())


def test_a_fleet_takes_over_the_sessions_of_a_gateway_that_was_alone_and_gives_them_back(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with scene(tmp_path, broker) as it:
            it.sim.set_rate(50.0)
            for fleet in (False, True, False):
                one = await it.member("one", fleet=fleet)
                await it.until(lambda one=one: one.is_live)  # type: ignore[misc]
                await it.some_events()
                await one.stop()
            one = await it.member("one")
            await it.all_arrived()
            assert it.count("identify") == SHARDS

    run(main())


def test_a_cluster_that_is_moved_brings_its_cache_and_what_came_since_is_published_once(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with scene(tmp_path, broker) as it, witness(broker, 1) as worker:
            one = await it.member("one")
            await it.until(lambda: one.is_live)
            two = await it.member("two")
            it.sim.set_rate(200.0)
            for giver, taker, name in ((one, two, "two"), (two, one, "one")):
                await it.some_events()
                await it.until(lambda taker=taker: taker.runner.takes_caches)  # type: ignore[misc]
                assert await giver.runner.tenures[1].move(name)
                await it.until(lambda taker=taker: taker.is_live)  # type: ignore[misc]
                question = {"type": "Guild", "arguments": [it.sim.world.guild_ids[0]]}
                assert (await worker.ask(1, "cache", question))[0] == "ok"
            assert (await it.all_arrived()).doubled == 0
            assert (it.count("identify"), it.count("resume")) == (SHARDS, 2 * SHARDS)
            store = one.runner.clusters[1].store
            assert store is not None
            with store.reader().view() as view:
                found = differences(state(view), expected(it.sim.world))
            # Messages are not kept by default.
            assert [each for each in found if not each.startswith("message ")] == []

    run(main())


def test_a_cluster_that_comes_without_its_cache_answers_that_it_is_not_known(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with scene(tmp_path, broker, patience=0.2) as it, witness(broker, 1) as worker:
            one = await it.member("one")
            await it.until(lambda: one.is_live)
            guild = it.sim.world.guild_ids[0]

            async def asked(kind: str, *arguments: int) -> str:
                status, body = await worker.ask(1, "cache", {"type": kind, "arguments": list(arguments)})
                return str(body["error"]["code"]) if status == "error" else status

            assert await asked("Guild", guild) == "ok"
            two = await it.member("two")
            assert await one.runner.tenures[1].move("")
            await it.until(lambda: two.is_live)
            for kind in ("Guild", "GuildMembers", "Role"):
                assert await asked(kind, guild) == "incomplete"
            assert await asked("Guilds") == "incomplete"
            # And back: what it had then is old by now.
            assert await two.runner.tenures[1].move("")
            await it.until(lambda: one.is_live)
            assert await asked("Guild", guild) == "incomplete"
            await it.all_arrived()

    run(main())


def test_an_owner_that_was_cut_off_publishes_nothing_that_its_successor_has_had_sent(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with scene(tmp_path, broker) as it:
            one = await it.member("one")
            await it.until(lambda: one.is_live)
            two = await it.member("two")
            it.sim.set_rate(100.0)
            await it.some_events()
            await it.quiet()
            one.cut(True)
            spool = one.runner.clusters[1].publisher.spool
            assert spool is not None
            it.sim.set_rate(100.0)
            await it.until(lambda: two.is_live)
            await it.some_events()
            await it.until(lambda: spool.events > 0)
            one.cut(False)
            await it.until(lambda: one.is_idle and one.leftovers.dropped > 0 and one.leftovers.events == 0)
            await it.some_events()
            assert (await it.all_arrived()).doubled == 0
            assert one.leftovers.published == 0
            assert it.count("identify") == SHARDS
            assert [path.name for path in tmp_path.rglob("spool-left-*")] == []

    run(main())


def test_an_owner_that_was_cut_off_publishes_what_its_successor_could_not_resume(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with scene(tmp_path, broker) as it:
            one = await it.member("one")
            await it.until(lambda: one.is_live)
            await it.quiet()
            one.cut(True)
            it.sim.set_rate(100.0)
            kept = it.sim.ledger.events + 100
            await it.until(lambda: it.sim.ledger.events >= kept)
            it.sim.set_rate(0.0)
            # Discord forgets one of the two sessions.
            shard = one.runner.clusters[1].shards[0]
            session = shard.conversation.session_id
            await it.sim.inject(Fault(kind="op9", shards="0"))
            await it.until(lambda: shard.conversation.session_id != session)
            two = await it.member("two")
            await it.until(lambda: two.is_live and it.collector.receipts.gaps != [])
            one.cut(False)
            await it.until(lambda: one.is_idle and one.leftovers.published > 0 and one.leftovers.events == 0)
            assert one.leftovers.dropped > 0
            await it.until(lambda: it.collector.receipts.distinct >= it.sim.ledger.events)
            found = audit(it.sim.ledger.log(), it.collector.receipts)
            assert (found.lost, found.doubled, found.unknown, found.changed) == (0, 0, 0, 0), found

    run(main())


def test_an_owner_that_was_killed_with_a_spool_publishes_what_is_in_it_once(
    tmp_path: Path, broker: Broker
) -> None:
    async def one_life(it: Scene, *, succeeded: bool) -> None:
        one = await it.member("one")
        await it.until(lambda: one.is_live)
        await it.quiet()
        one.cut(True)
        spool = one.runner.clusters[1].publisher.spool
        assert spool is not None
        it.sim.set_rate(100.0)
        await it.until(lambda: spool.events > 100)
        await one.kill()
        two = await it.member("two") if succeeded else None
        if two is not None:
            await it.until(lambda: two.is_live)
        again = await it.member("one")
        await it.until(lambda: again.leftovers.dropped > 100 and again.leftovers.events == 0)
        assert again.leftovers.published == 0
        if two is not None:
            await it.some_events()
            await two.stop()
        await it.until(lambda: again.is_live)
        await it.quiet()
        await again.stop()

    async def main() -> None:
        async with scene(tmp_path, broker) as it:
            await one_life(it, succeeded=True)
            await one_life(it, succeeded=False)
            assert (await it.all_arrived()).doubled == 0
            assert it.count("identify") == SHARDS

    run(main())
