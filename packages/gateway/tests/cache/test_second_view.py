"""A second session fills a cold cache while the first goes on: at the end the cache holds what Discord holds, to the
counter, whichever of the two was ahead."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway.cache.apply import Cache
from rateway.cache.prune import forget_unfinished
from rateway.cache.second_view import APART_S, GUILDS_WITHIN_S, PLACES_WITHIN_S, SecondView
from rateway.cache.storage import MemoryStorage, Table
from rateway_simulator.world import snapshot
from rateway_simulator.world.changes import guilds as world_guilds
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.steps import step
from rateway_simulator.world.world import World
from tests.cache.scene import BOT, GUILD, guild, member, user
from tests.cache.world_feed import EVERYTHING, differences, encode, entities, expected, ready, state

SHARD = 0
Named = tuple[str, bytes]


class Two:
    """One cold cache, a world, and two sessions, each with a queue of what Discord has sent and it has not received."""

    def __init__(self, seed: int, guilds: int = 3, steps_before: int = 150) -> None:
        self.world = World(WorldOptions(seed=seed, guilds=guilds, members_per_guild=12))
        self.chance = random.Random(seed)
        for _ in range(steps_before):
            step(self.world, self.chance)
        self.world.drain()
        self.storage = MemoryStorage()
        self.cache = Cache(self.storage, EVERYTHING)
        self.cache.begin_cold({SHARD: "first"})
        self.now = 1000.0
        self.seq = 0
        self.first: deque[Named] = deque()
        self.second: deque[Named] = deque()
        self.streamed: set[int] = set()
        self.is_open = False
        self.view: SecondView | None = None

    def begin(self) -> SecondView:
        self.view = SecondView(self.cache, SHARD)
        return self.view

    def identify(self) -> None:
        """Discord takes the second session's op 2: READY, then the guilds, one after the other."""
        self.second.append(("READY", ready(self.world, "second")))
        self.is_open = True
        self.pending = deque(self.world.guild_ids)

    def bring_guild(self) -> None:
        guild_id = self.pending.popleft()
        if guild_id not in self.world.guild_ids:
            return  # left meanwhile
        if self.world.is_available(guild_id):
            d = snapshot.guild_create(self.world, guild_id, large_threshold=100_000)
        else:
            d = {"id": str(guild_id), "unavailable": True}
        self.second.append(("GUILD_CREATE", encode(d)))
        self.streamed.add(guild_id)

    def happen(self, steps: int = 1) -> None:
        for _ in range(steps):
            dispatches = [step(self.world, self.chance), *self.world.drain()]
            for each in dispatches:
                named = (each.name, encode(each.d))
                self.first.append(named)
                guild_id = each.d.get(
                    "id" if each.name.startswith("GUILD_") and "guild_id" not in each.d else "guild_id"
                )
                if self.is_open and (guild_id is None or int(guild_id) not in self.pending):
                    self.second.append(named)

    def receive_first(self) -> None:
        name, d = self.first.popleft()
        self.seq += 1
        view = self.view
        if view is None or view.first(self.seq, name, d, self.now):
            self.cache.apply(SHARD, self.seq, name, d)

    def receive_second(self) -> None:
        assert self.view is not None
        self.view.second(*self.second.popleft(), self.now)

    def pass_time(self, seconds: float) -> None:
        """Quiet time: both sessions are read to their ends first."""
        for _ in range(round(seconds)):
            while self.first:
                self.receive_first()
            while self.second:
                self.receive_second()
            self.now += 1.0
            assert self.view is not None
            self.view.look(self.now, is_steady=True)

    def differences(self) -> list[str]:
        """Where the cache differs from the world, once no guild is in an outage, whose snapshot nobody can have."""
        for guild_id in self.world.guild_ids:
            if not self.world.is_available(guild_id):
                world_guilds.recover(self.world, guild_id)
        self.first.extend((each.name, encode(each.d)) for each in self.world.drain())
        while self.first:
            self.receive_first()
        got, wanted = state(self.cache.writer), expected(self.world)
        # No snapshot has them; those from before are gone.
        for kind in ("message", "integration", "channel_info"):
            got.pop(kind), wanted.pop(kind)
        direct = [key for key, each in got["channel"].items() if "guild_id" not in each]
        return differences(
            got,
            {
                **wanted,
                "channel": {
                    key: each
                    for key, each in wanted["channel"].items()
                    if "guild_id" in each or key in direct
                },
            },
        )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from([0.2, 0.5, 0.8]))
def test_the_cache_ends_as_what_discord_holds_whoever_is_ahead(seed: int, first_share: float) -> None:
    two = Two(seed)
    chance = random.Random(seed + 1)
    two.happen(5)
    view = two.begin()
    is_identified = False
    for turn in range(700):
        if turn == 20:
            two.identify()
            is_identified = True
        if is_identified and two.pending and chance.random() < 0.02:
            two.bring_guild()
        if chance.random() < 0.5:
            two.happen()
        # Each session is read in bursts, and so is now ahead, now behind.
        for queue, receive, share in (
            (two.first, two.receive_first, first_share),
            (two.second, two.receive_second, 1 - first_share),
        ):
            if chance.random() < share * 0.3:
                for _ in range(chance.randint(0, len(queue))):
                    receive()
        two.now += 0.01
        view.look(two.now, is_steady=True)
    while two.pending:
        two.bring_guild()
    two.pass_time(APART_S * 2 + GUILDS_WITHIN_S + PLACES_WITHIN_S)
    assert view.is_over and view.fault == ""
    assert SHARD not in two.cache.writer.cold
    two.happen(100)
    while two.first:
        two.receive_first()
    assert two.differences() == []
    assert two.cache.failures == {}
    assert two.cache.applied(SHARD) == two.seq


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100_000))
def test_a_guild_that_never_stands_still_is_placed_from_what_the_first_session_alone_has_had(
    seed: int,
) -> None:
    """The second session is always a few events behind."""
    two = Two(seed, guilds=1)
    view = two.begin()
    two.identify()
    two.bring_guild()
    while not view.is_over:
        two.happen(3)
        while two.first:
            two.receive_first()
        while len(two.second) > 4:
            two.receive_second()
        two.now += 0.4
        view.look(two.now, is_steady=True)
    two.happen(50)
    while two.first:
        two.receive_first()
    assert view.fault == "" and two.differences() == []


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100_000), st.integers(0, 120))
def test_a_second_session_that_ends_early_leaves_nothing_wrong_and_the_next_one_all(
    seed: int, at: int
) -> None:
    two = Two(seed)
    view = two.begin()
    two.identify()
    for turn in range(at):
        two.happen()
        if turn % 10 == 0 and two.pending:
            two.bring_guild()
        (two.receive_second if two.second and two.chance.random() < 0.5 else two.receive_first)()
    view.abandon("cut")
    two.is_open = False
    two.second.clear()
    assert SHARD in two.cache.writer.cold
    # Guilds that the first session has followed alone may be there; what is there is as Discord has it.
    while two.first:
        two.receive_first()
    assert [each for each in two.differences() if "is missing" not in each] == []
    view = two.begin()
    two.identify()
    while two.pending:
        two.bring_guild()
        two.happen(5)
    two.pass_time(APART_S * 2 + GUILDS_WITHIN_S)
    assert view.is_over and two.differences() == []


def played() -> tuple[Two, SecondView]:
    two = Two(7)
    view = two.begin()
    two.identify()
    while two.pending:
        two.bring_guild()
    while two.second:
        two.receive_second()
    return two, view


def test_a_process_that_ends_meanwhile_leaves_no_guild_behind() -> None:
    two, view = played()
    two.cache.flush()
    assert view.following == 3
    again = Cache(two.storage, EVERYTHING)
    assert forget_unfinished(again.writer) == (SHARD,)
    again.flush()
    assert list(again.writer.guild_rows()) == [] and SHARD in again.writer.cold
    assert not [key for key in two.storage.tables[Table.META] if key.startswith(b"unfinished")]
    assert forget_unfinished(Cache(two.storage, EVERYTHING).writer) == ()


def test_nothing_is_placed_while_a_session_is_not_read() -> None:
    two, view = played()
    for _ in range(100):
        two.now += 1.0
        view.look(two.now, is_steady=False)
    assert view.following == 3 and not view.is_over
    two.pass_time(APART_S + 2)
    assert view.is_over


def test_a_new_first_session_ends_it_and_brings_all_itself() -> None:
    two, view = played()
    two.seq = 0
    two.cache.begin(SHARD, "third")
    two.first.append(("READY", ready(two.world, "third")))
    for guild_id in two.world.guild_ids:
        d = snapshot.guild_create(two.world, guild_id, large_threshold=100_000)
        two.first.append(("GUILD_CREATE", encode(d)))
    while two.first:
        two.receive_first()
    assert view.is_over and view.fault
    assert two.differences() == [] and SHARD not in two.cache.writer.cold


def scene() -> tuple[Cache, SecondView]:
    cache = Cache(MemoryStorage(), EVERYTHING)
    cache.begin_cold({SHARD: "first"})
    view = SecondView(cache, SHARD)
    told: dict[str, Any] = {
        "user": user(BOT, "bot"),
        "guilds": [{"id": str(GUILD), "unavailable": True}],
        "shard": [0, 1],
    }
    view.second("READY", encode(told), 0.0)
    return cache, view


def test_a_guild_that_does_not_come_is_in_an_outage_and_the_shard_is_known() -> None:
    cache, view = scene()
    now = 0.0
    while not view.is_over:
        now += 1.0
        view.look(now, is_steady=True)
    assert now >= GUILDS_WITHIN_S
    row = cache.writer.guild_row(GUILD)
    assert row is not None and row.state.name == "OUTAGE" and SHARD not in cache.writer.cold
    applied = cache.apply(SHARD, 1, "GUILD_CREATE", encode(guild()))
    assert applied is not None and applied.cause == "available"


def test_a_guild_that_the_bot_leaves_does_not_come_back_by_an_older_snapshot() -> None:
    cache, view = scene()
    left = encode({"id": str(GUILD)})
    assert view.first(1, "GUILD_DELETE", left, 0.1)
    cache.apply(SHARD, 1, "GUILD_DELETE", left)
    view.second("GUILD_CREATE", encode(guild()), 0.2)
    view.second("GUILD_DELETE", left, 0.3)
    for second in range(1, 10):
        view.look(float(second), is_steady=True)
    assert view.is_over and cache.writer.guild_row(GUILD) is None


@pytest.mark.parametrize("first_is_ahead", [True, False])
def test_a_member_is_counted_once(first_is_ahead: bool) -> None:
    cache, view = scene()
    joined = encode({"guild_id": str(GUILD), **member(BOT + 1, "ann")})
    view.second("GUILD_CREATE", encode(guild(large=True, member_count=500)), 0.1)
    for by_first in (first_is_ahead, not first_is_ahead):
        if by_first:
            assert not view.first(1, "GUILD_MEMBER_ADD", joined, 0.2)
        else:
            view.second("GUILD_MEMBER_ADD", joined, 0.2)
    row = cache.writer.guild_row(GUILD)
    assert row is not None and row.member_count == 501 and view.following == 0


def test_a_cache_that_is_filled_and_emptied_leaves_no_row() -> None:
    two, view = played()
    view.abandon("over")
    two.cache.flush()
    assert entities(two.storage) == 0
