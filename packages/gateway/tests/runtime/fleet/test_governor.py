"""The governor of a fleet: whoever it is and whatever becomes of it, identifies keep Discord's limits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rateway.config import load
from rateway.fleet.identify import Moment
from rateway.fleet.membership import Membership
from rateway.fleet.port import GOVERNOR, RIGHT_S
from rateway.fleet.roster import GONE_AFTER_S, TenureView
from rateway.runtime.fleet.governor import TAKE_OVER_S
from rateway.runtime.fleet.member import FleetMember
from rateway.runtime.identify.permits import Refusal
from rateway.session.actions import Fatal
from rateway.transports.rest import GatewayBot, RestFailure
from rateway.transports.state import FatalRecord, StateDir, StateError
from tests.election.memory import Coordinator, MemoryElections
from tests.fleet_line.memory import MemoryHub
from tests.proxy.virtual_time import run

SHARDS = 4
# Discord wants 5 s between two identifies of a bucket.
APART_S = 5.0


class Discord:
    """Answers of /gateway/bot: a number of shards, what is left of the day's identifies, how many at once."""

    def __init__(self) -> None:
        self.recommends = SHARDS
        self.remaining = 900
        self.resets_after_ms = 3_600_000
        self.concurrency = 1
        self.is_up = True

    async def gateway_bot(self) -> GatewayBot | RestFailure:
        if not self.is_up:
            return RestFailure("unavailable", "no answer")
        return GatewayBot(
            "wss://gateway.discord.gg",
            self.recommends,
            1000,
            self.remaining,
            self.resets_after_ms,
            self.concurrency,
        )


class LoopClock:
    """The machine's clocks, as the loop's own; each member is a machine of its own."""

    def __init__(self, boot: str) -> None:
        self._boot = boot

    def moment(self) -> Moment:
        now = asyncio.get_running_loop().time()
        return Moment(now, 1_700_000_000 + now, self._boot)


class Clusters:
    """The clusters of one gateway, as a test wants them to be."""

    processes = 1

    def __init__(self) -> None:
        self.views: list[TenureView] = []
        self.moves: list[tuple[int, str]] = []

    def tenure_views(self) -> list[TenureView]:
        return self.views

    def move(self, cluster: int, to: str) -> bool:
        self.moves.append((cluster, to))
        return True


class Seat:
    """One member, with the gateway around it."""

    def __init__(self, fleet: Fleet, number: int, token: str) -> None:
        self.name = f"host-{number}"
        environment = {
            "DISCORD_TOKEN": token,
            "INTENTS": "1",
            "AMQP_URI": "amqp://localhost/",
            "FLEET": "bot",
        }
        self.settings = load(None, environment | {"EXTRA_SHARDS": "0", "SHARDS_PER_CLUSTER": "2"})
        self.state = StateDir.open(fleet.folder / self.name)
        self.elections: MemoryElections = fleet.coordinator.member(self.name)
        self.clusters = Clusters()
        self.fatal: FatalRecord | None = None
        self.changed = asyncio.Event()
        self.faults: list[bool] = []
        self.wire = fleet.hub.line(self.name)
        loop = asyncio.get_running_loop()
        self.member = FleetMember(
            self.settings,
            self.state,
            fleet.discord,
            self,
            Membership("bot", self.name),
            self.wire,
            Running(self.elections),
            clock=loop.time,
            permit_clock=LoopClock(self.name),
        )
        self.task = loop.create_task(self.member.run())
        self.hub = fleet.hub

    def change_layout(self) -> None:
        self.changed.set()

    def use_gateway(self, url: str) -> None: ...

    def identify_fault(self, lasts: bool) -> None:
        self.faults.append(lasts)

    def end(self, record: FatalRecord) -> None:
        self.fatal = record

    async def die(self) -> None:
        """Power off."""
        self.hub.wires[self.name].is_cut = True
        self.elections.cut()
        self.task.cancel()
        await asyncio.wait([self.task])

    async def identify(self, shard_id: int) -> float | Refusal:
        """Identify one shard; when op 2 went out, or why not."""
        permits = self.member.permits
        refusal = await permits.acquire(shard_id, lost=False)
        refusal = refusal or await permits.spent(shard_id)
        if refusal is not None:
            permits.finished(shard_id, "unused")
            return refusal
        sent_at = asyncio.get_running_loop().time()
        await asyncio.sleep(0.2)
        permits.finished(shard_id, "ready")
        return sent_at

    async def identify_until_sent(self, shard_id: int, sent: list[float]) -> None:
        while True:
            answer = await self.identify(shard_id)
            if isinstance(answer, float):
                sent.append(answer)
                return
            await asyncio.sleep(0.5)


class Running:
    """Elections in memory, which nothing has to keep in motion."""

    def __init__(self, elections: MemoryElections) -> None:
        self.campaign, self.write = elections.campaign, elections.write
        self.release, self.confirmed_at = elections.release, elections.confirmed_at

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()


class Fleet:
    """Several members, and what is between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub = MemoryHub()
        self.coordinator = Coordinator()
        self.discord = Discord()
        self.seats: list[Seat] = []

    async def join(self) -> Seat:
        """One more member, once it knows the layout."""
        seat = self.sit_down()
        choosing = asyncio.ensure_future(seat.member.choose())
        await asyncio.wait([choosing, seat.task], return_when=asyncio.FIRST_COMPLETED)
        choosing.result()
        return seat

    def sit_down(self, token: str = "MTIz.a.b") -> Seat:
        """One more member."""
        seat = Seat(self, len(self.seats) + 1, token)
        self.seats.append(seat)
        return seat


def on_fleet(folder: Path, scene: Callable[[Fleet], Coroutine[Any, Any, None]]) -> None:
    """Play a scene in virtual time."""

    async def whole() -> None:
        fleet = Fleet(folder)
        try:
            await scene(fleet)
        finally:
            for seat in fleet.seats:
                seat.task.cancel()
            for seat in fleet.seats:
                await asyncio.wait([seat.task])
                seat.state.close()

    run(whole())


def test_the_first_member_chooses_the_layout_and_the_others_take_it_with_its_salt(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        one = await fleet.join()
        fleet.discord.recommends = 9
        other = await fleet.join()
        assert one.member.charter == other.member.charter is not None
        assert other.member.charter.shards == SHARDS
        assert one.member.identity().bot == other.member.identity().bot
        assert len(other.member.identity().former) == 1, (
            "what it wrote down before is still known as this bot's"
        )

    on_fleet(tmp_path, scene)


def test_a_fleet_goes_on_with_the_layout_of_its_record_after_all_members_have_left(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        one = await fleet.join()
        await one.member.leave()
        await one.die()
        fleet.discord.recommends = 9
        other = await fleet.join()
        assert other.member.charter is not None and other.member.charter.shards == SHARDS

    on_fleet(tmp_path, scene)


@pytest.mark.parametrize("at_once", [True, False])
def test_members_that_leave_hold_the_office_no_more_and_leave_it_released(
    tmp_path: Path, at_once: bool
) -> None:
    async def scene(fleet: Fleet) -> None:
        one, *others = [await fleet.join() for _ in range(3)]
        leaving = [asyncio.create_task(seat.member.leave()) for seat in others]
        if not at_once:
            await asyncio.wait(leaving)
        await one.member.leave()
        await asyncio.wait(leaving)
        assert fleet.coordinator.owner(GOVERNOR) is None
        record = fleet.coordinator.record(GOVERNOR)
        assert record is not None and record.released

    on_fleet(tmp_path, scene)


def test_a_member_that_is_elected_while_it_leaves_gives_the_office_back(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        one, other = await fleet.join(), await fleet.join()
        # The office is free at once, and the other one has not been told yet that it has won.
        one.elections.cut()
        await asyncio.sleep(RIGHT_S)
        assert fleet.coordinator.owner(GOVERNOR) == other.name
        await other.member.leave()
        record = fleet.coordinator.record(GOVERNOR)
        assert fleet.coordinator.owner(GOVERNOR) is None and record is not None and record.released

    on_fleet(tmp_path, scene)


def test_a_gateway_of_another_bot_takes_no_part_and_leaves_the_office_to_others(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        one = await fleet.join()
        stranger = fleet.sit_down(token="NDU2.a.b")
        await asyncio.sleep(5)
        assert stranger.member.charter is None
        assert "another bot" in stranger.member.notes()[0]
        await one.die()
        other = await fleet.join()
        assert other.member.charter == one.member.charter
        assert isinstance(await other.identify(0), float)

    on_fleet(tmp_path, scene)


@pytest.mark.parametrize("seed", range(12))
def test_shards_of_one_bucket_identify_5_seconds_apart_whoever_governs_and_whatever_is_lost(
    tmp_path: Path, seed: int
) -> None:
    """Governors die, a third of the messages are lost, and others come late and out of order."""

    async def scene(fleet: Fleet) -> None:
        chance = random.Random(seed)
        _, *others = [await fleet.join() for _ in range(4)]
        fleet.hub.loses = lambda: chance.random() < 0.3
        fleet.hub.lasts = lambda: chance.choice([0.0, 0.01, 0.4, 1.0])
        sent: list[float] = []
        alive = {seat.name for seat in fleet.seats}
        tasks = [
            asyncio.create_task(seat.identify_until_sent(shard, sent))
            for seat, shard in zip(fleet.seats, range(SHARDS), strict=True)
        ]
        for _ in range(2):
            await asyncio.sleep(chance.uniform(0.1, 9.0))
            governors = [each for each in fleet.seats if each.member.governor.epoch and each.name in alive]
            victim = chance.choice(governors or others)
            alive.discard(victim.name)
            await victim.die()
        await asyncio.wait(
            [task for task, seat in zip(tasks, fleet.seats, strict=True) if seat.name in alive]
        )
        for task in tasks:
            task.cancel()
        assert len(sent) >= len(alive) == 2
        assert all(later - earlier >= APART_S for earlier, later in pairwise(sorted(sent)))

    on_fleet(tmp_path, scene)


def test_a_governor_that_dies_costs_seconds(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        one, other = await fleet.join(), await fleet.join()
        assert isinstance(await other.identify(0), float)
        await one.die()
        died_at = asyncio.get_running_loop().time()
        sent = await other.identify(1)
        assert isinstance(sent, float) and sent - died_at < GONE_AFTER_S + TAKE_OVER_S
        record = fleet.coordinator.record(GOVERNOR)
        assert record is not None and record.owner == other.name

    on_fleet(tmp_path, scene)


def test_a_permit_of_a_member_that_died_counts_as_spent(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        governor, other = await fleet.join(), await fleet.join()
        assert await other.member.permits.acquire(0, lost=False) is None
        await other.die()
        died_at = asyncio.get_running_loop().time()
        sent = await governor.identify(1)
        assert isinstance(sent, float)
        assert GONE_AFTER_S < sent - died_at < GONE_AFTER_S + 10
        facts = governor.member.permits.facts()
        await asyncio.sleep(2)
        assert governor.member.permits.facts().identifies == 2, facts

    on_fleet(tmp_path, scene)


async def until_permitted(seat: Seat, shard: int) -> None:
    """Ask for a permit as a shard does: again where it is refused."""
    while await seat.member.permits.acquire(shard, lost=True) is not None:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(1)


def test_an_owner_has_its_permit_though_the_one_before_is_back_and_asks_for_it(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        _, old, new = [await fleet.join() for _ in range(3)]
        fleet.discord.is_up = False  # nobody is granted one
        asks_before = asyncio.create_task(old.member.permits.acquire(1, lost=True))
        await asyncio.sleep(2)
        wire = fleet.hub.wires[old.name]
        wire.is_cut = True
        await asyncio.sleep(4)
        asks = asyncio.create_task(until_permitted(new, 1))
        await asyncio.sleep(GONE_AFTER_S)
        wire.is_cut = False
        # It has not learnt yet who follows it.
        await asyncio.sleep(8)
        asks_before.cancel()
        fleet.discord.is_up = True
        await asyncio.wait_for(asks, 3600)

    on_fleet(tmp_path, scene)


async def hold_spent_permits(seat: Seat, count: int) -> None:
    """Have so many shards identify at once, up to their READYs."""
    for answer in await asyncio.gather(
        *(seat.member.permits.acquire(shard, lost=False) for shard in range(count))
    ):
        assert answer is None
    for answer in await asyncio.gather(*(seat.member.permits.spent(shard) for shard in range(count))):
        assert answer is None


def large(fleet: Fleet) -> None:
    fleet.discord.recommends = fleet.discord.concurrency = 16


def test_identifies_of_a_successor_do_not_fail_when_the_member_before_is_counted_gone(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        large(fleet)
        governor, old, new = [await fleet.join() for _ in range(3)]
        await hold_spent_permits(old, 4)
        await old.die()
        died_at = asyncio.get_running_loop().time()
        await asyncio.sleep(RIGHT_S)
        await hold_spent_permits(new, 4)
        await asyncio.sleep(died_at + GONE_AFTER_S + 2 - asyncio.get_running_loop().time())
        for shard in range(4):
            new.member.permits.finished(shard, "ready")
        await asyncio.sleep(5)
        facts = governor.member.permits.facts()
        assert (facts.readies, facts.failures, facts.fault_shards) == (4, {}, 0)

    on_fleet(tmp_path, scene)


@pytest.mark.parametrize("away_s", [0.0, 1.0, 5.0])
def test_a_ready_counts_though_the_line_was_away_when_it_came(tmp_path: Path, away_s: float) -> None:
    async def scene(fleet: Fleet) -> None:
        large(fleet)
        governor, other = await fleet.join(), await fleet.join()
        await hold_spent_permits(other, 4)
        wire = fleet.hub.wires[other.name]
        wire.is_cut = away_s > 0
        await asyncio.sleep(0.2)
        for shard in range(4):
            other.member.permits.finished(shard, "ready")
        await asyncio.sleep(away_s)
        wire.is_cut = False
        await asyncio.sleep(7)
        await asyncio.wait_for(other.member.permits.acquire(5, lost=False), 30)
        await asyncio.sleep(5)
        facts = governor.member.permits.facts()
        assert (facts.readies, facts.failures, facts.fault_shards) == (4, {}, 0)

    on_fleet(tmp_path, scene)


def test_a_layout_that_discord_refuses_is_replaced_and_two_never_run(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        one, other = await fleet.join(), await fleet.join()
        fleet.discord.recommends = 6
        other.member.refuse_layout(Fatal(4011, "sharding required", "more shards"))
        await one.changed.wait()
        await other.changed.wait()
        one.member.ended()
        assert (await one.member.choose()).layout.shards == 6
        waiting = asyncio.create_task(one.identify(5))
        await asyncio.sleep(30)
        assert not waiting.done(), "the other one still runs the former layout"
        other.member.ended()
        assert isinstance(await waiting, float)
        assert one.member.charter is not None and one.member.charter.generation == 2

    on_fleet(tmp_path, scene)


@pytest.mark.parametrize("what", ["nothing", "the word is lost", "the governor leaves"])
def test_a_layout_that_discord_refuses_is_replaced_whoever_governs_and_whatever_is_lost(
    tmp_path: Path, what: str
) -> None:
    async def scene(fleet: Fleet) -> None:
        one, _, other = [await fleet.join() for _ in range(3)]
        # The day has too few identifies for another layout just now.
        fleet.discord.recommends, fleet.discord.remaining, fleet.discord.resets_after_ms = 6, 3, 60_000
        fleet.hub.loses = lambda: what == "the word is lost"
        other.member.refuse_layout(Fatal(4011, "sharding required", "more shards"))
        await asyncio.sleep(0.1)
        fleet.hub.loses = lambda: False
        await asyncio.sleep(10)
        if what == "the governor leaves":
            await one.member.leave()
            await one.die()
            await asyncio.sleep(30)
        assert not other.changed.is_set()
        fleet.discord.remaining = 900
        await asyncio.wait_for(other.changed.wait(), 3600)
        assert other.member.charter is not None and other.member.charter.shards == 6

    on_fleet(tmp_path, scene)


def test_a_member_whose_disk_was_full_when_it_joined_knows_the_fleets_sessions(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        one = await fleet.join()
        other = fleet.sit_down()
        other.state.salt()  # the folder has run this bot alone before
        write, failures = other.state.write, 0

        def write_unless_full(name: str, data: bytes) -> None:
            nonlocal failures
            if name == "salt" and not failures:
                failures += 1
                raise StateError("no space left on device", passing=True)
            write(name, data)

        other.state.write = write_unless_full  # type: ignore[method-assign]
        await other.member.choose()
        assert failures == 1
        assert other.member.identity().bot == one.member.identity().bot

    on_fleet(tmp_path, scene)


def test_a_person_has_the_fleet_take_another_layout_if_the_day_has_its_identifies(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        one, other = await fleet.join(), await fleet.join()
        assert "already" in (await other.member.ask_reshard()).words
        fleet.discord.recommends = 901
        answer = await other.member.ask_reshard()
        assert not answer.done and "900 of the day are left" in answer.words
        fleet.discord.recommends = 6
        assert (await other.member.ask_reshard()).done
        await one.changed.wait()
        await other.changed.wait()
        assert one.member.charter is not None and one.member.charter.shards == 6

    on_fleet(tmp_path, scene)


def test_clusters_spread_to_a_member_that_joins_and_go_where_a_person_wants_them(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        one = await fleet.join()
        one.clusters.views = [TenureView(number, 1, 2, 2) for number in (1, 2)]
        other = await fleet.join()
        await asyncio.sleep(5)
        assert {*one.clusters.moves} == {(1, other.name)}
        one.clusters.views, other.clusters.views = one.clusters.views[1:], [TenureView(1, 2, 2, 2)]
        await asyncio.sleep(3)
        assert not (await other.member.ask_move(9, one.name)).done
        assert (await other.member.ask_move(1, one.name)).done
        await asyncio.sleep(3)
        assert {*other.clusters.moves} == {(1, one.name)}
        # Wanted back while it is still under way, as far as the governor has heard.
        assert "already" not in (await other.member.ask_move(1, other.name)).words
        one.clusters.views, other.clusters.views = [TenureView(1, 3, 2, 2), TenureView(2, 1, 2, 2)], []
        await asyncio.sleep(3)
        assert (1, other.name) in one.clusters.moves

    on_fleet(tmp_path, scene)


def test_a_member_whose_network_to_discord_is_gone_hands_over_to_one_that_reaches_it(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        one, other = await fleet.join(), await fleet.join()
        one.clusters.views = [TenureView(1, 1, 2, 2), TenureView(2, 1, 2, 2)]
        await asyncio.sleep(5)
        one.clusters.views = [TenureView(1, 1, 2, 0), TenureView(2, 1, 2, 0)]
        one.member.rest = Deaf()
        await asyncio.sleep(60)
        assert {*one.clusters.moves} >= {(1, other.name), (2, other.name)}
        assert one.member.is_deaf and not other.member.is_deaf

    on_fleet(tmp_path, scene)


class Deaf:
    async def gateway_bot(self) -> GatewayBot | RestFailure:
        return RestFailure("unavailable", "no route")
