"""What must hold for any stream: over seeded events of the simulated Discord, against its own state."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway.cache.apply import Cache
from rateway.cache.policy import KINDS, CachePolicy
from rateway.cache.storage import MemoryStorage, Table
from rateway_protocol.discord.events import DOCUMENTED
from rateway_simulator.world.changes import guilds as world_guilds
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.steps import step
from rateway_simulator.world.world import World
from tests.cache.world_feed import (
    EVERYTHING,
    Event,
    decode,
    differences,
    encode,
    entities,
    expected,
    feed,
    filled,
    opening,
    state,
    stream,
)

SMALL = {"guilds": 3, "members_per_guild": 20}

# The counters of events that are not idempotent by themselves; only `applied` keeps them right.
COUNTING = {
    "GUILD_SCHEDULED_EVENT_USER_ADD", "GUILD_SCHEDULED_EVENT_USER_REMOVE", "MESSAGE_REACTION_ADD",
    "MESSAGE_REACTION_REMOVE", "MESSAGE_POLL_VOTE_ADD", "MESSAGE_POLL_VOTE_REMOVE",
}  # fmt: skip


def equal(cache: Cache, world: World) -> None:
    assert differences(state(cache.writer), expected(world)) == []
    assert cache.failures == {}


@settings(max_examples=12)
@given(st.integers(0, 10_000))
def test_the_cache_equals_the_world_entity_by_entity(seed: int) -> None:
    world, events = stream(seed, 1500, **SMALL)
    equal(filled(events), world)


@pytest.mark.checklist("H20")
@settings(max_examples=10)
@given(st.integers(0, 10_000), st.data())
def test_a_replay_from_any_earlier_point_changes_nothing(seed: int, data: st.DataObject) -> None:
    world, events = stream(seed, 600, **SMALL)
    cache, at = Cache(MemoryStorage(), EVERYTHING), 0
    while at < len(events):
        end = data.draw(st.integers(at + 1, len(events)))
        again = data.draw(st.integers(0, at))
        feed(cache, events[again:end])
        at = end
    equal(cache, world)


@pytest.mark.checklist("H20")
def test_a_new_process_goes_on_where_the_old_one_stood() -> None:
    world, events = stream(5, 1200, **SMALL)
    storage = MemoryStorage()
    for at in range(0, len(events), 97):
        feed(Cache(storage, EVERYTHING), events[max(0, at - 40) : at + 97])
    equal(Cache(storage, EVERYTHING), world)


@settings(max_examples=6)
@given(st.integers(0, 10_000))
def test_events_taken_twice_change_nothing_but_counters(seed: int) -> None:
    _, events = stream(seed, 500, **SMALL)
    once = [event for event in events if event[1] not in COUNTING]
    twice = [(number, name, d) for number, (_, name, d) in enumerate((e for e in once for _ in "ab"), 1)]

    def comparable(of: list[Event]) -> dict[str, dict[str, Any]]:
        found = state(filled(of).writer)
        for thread in found["thread"].values():
            del thread["message_count"], thread["total_message_sent"]
        return found

    assert differences(comparable(twice), comparable(once)) == []


def recovered(world: World, last: int) -> list[Event]:
    """The world without outages: no snapshot of a guild that is out of reach can be had."""
    for guild_id in world.guild_ids:
        if not world.is_available(guild_id):
            world_guilds.recover(world, guild_id)
    return [(number, item.name, encode(item.d)) for number, item in enumerate(world.drain(), last + 1)]


@settings(max_examples=8)
@given(st.integers(0, 10_000))
def test_a_snapshot_of_the_end_equals_what_was_built_step_by_step(seed: int) -> None:
    world, events = stream(seed, 800, **SMALL)
    events += recovered(world, len(events))
    named = opening(world, "two")
    snapshot = filled([(number, name, d) for number, (name, d) in enumerate(named, 1)])
    # No snapshot has messages, integrations or the details of voice channels.
    built = state(filled(events).writer)
    alone = state(snapshot.writer)
    for kind in ("message", "integration", "channel_info"):
        built.pop(kind)
        alone.pop(kind)
    direct = [key for key, channel in built["channel"].items() if "guild_id" not in channel]
    assert direct == []
    assert differences(alone, built) == []


@settings(max_examples=8)
@given(st.integers(0, 10_000))
def test_a_new_session_over_an_old_cache_ends_in_the_same_entities(seed: int) -> None:
    world, events = stream(seed, 500, **SMALL)
    cache = filled(events)
    chance = random.Random(seed + 1)
    for _ in range(400):  # what happens while no session exists
        step(world, chance)
    recovered(world, 0)
    named = opening(world, "two")
    feed(cache, [(number, name, d) for number, (name, d) in enumerate(named, 1)])
    got, wanted = state(cache.writer), expected(world)
    for kind in ("message", "integration", "channel_info"):  # these come with no snapshot
        got.pop(kind)
        wanted.pop(kind)
    assert differences(got, wanted) == []


@settings(max_examples=5)
@given(st.integers(0, 10_000), st.booleans())
def test_leaving_every_guild_leaves_the_store_empty(seed: int, listed: bool) -> None:
    world, events = stream(seed, 500, **SMALL)
    storage = MemoryStorage()
    cache = filled([event for event in events if b'"guild_id"' in event[2] or event[1].startswith(("GUILD", "READY"))],
                   storage=storage)  # fmt: skip
    if listed:
        guilds = list(world.guild_ids)
        named = [("GUILD_DELETE", encode({"id": str(guild_id)})) for guild_id in guilds]
        feed(cache, [(events[-1][0] + number, name, d) for number, (name, d) in enumerate(named, 1)])
    else:
        lonely = decode({"user": world.ready_user(), "guilds": [], "session_id": "two", "shard": [0, 1]})
        feed(cache, [(1, "READY", encode(lonely))])
    assert entities(storage) == 0
    assert set(cache.writer.counts.values()) <= {0}


def test_every_kind_switched_off_costs_nothing() -> None:
    _, events = stream(3, 800, **SMALL)
    for kind in sorted(KINDS - {"users"}):
        storage = MemoryStorage()
        cache = filled(events, CachePolicy(kinds=frozenset({kind}), messages_per_channel=5), storage)
        kept = {
            name
            for name, found in state(cache.writer).items()
            if found and name not in ("guild", "current_user")
        }
        assert len(kept) <= 3, (kind, kept)
        assert cache.failures == {}


def test_a_policy_without_cache_keeps_no_entity() -> None:
    _, events = stream(3, 300, **SMALL)
    storage = MemoryStorage()
    filled(events, CachePolicy(enabled=False), storage)
    assert entities(storage) == 0
    assert not storage.tables[Table.MESSAGES]


def test_members_and_users_without_those_from_other_events_are_still_kept_current() -> None:
    policy = CachePolicy(kinds=KINDS, members_from_events=False)
    world, events = stream(9, 1500, **SMALL)
    got, wanted = state(filled(events, policy).writer), expected(world)
    assert {key: found["roles"] for key, found in got["member"].items()} == {
        key: found["roles"] for key, found in wanted["member"].items()
    }


@given(st.sampled_from(sorted(DOCUMENTED)), st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["id", "guild_id", "user", "member", "channel_id", "roles", "guilds", "members", "emoji"]),
        inner, max_size=5),
    max_leaves=12,
))  # fmt: skip
@settings(max_examples=300)
def test_no_payload_however_odd_raises(name: str, d: object) -> None:
    cache = filled(stream_of_one_guild())
    cache.apply(0, 1_000, name, encode(d))
    cache.apply(0, 1_001, name, b"\xff not json")
    cache.flush()


_ONE: list[Event] = []


def stream_of_one_guild() -> list[Event]:
    if not _ONE:
        world = World(WorldOptions(seed=1, guilds=1, members_per_guild=5))
        _ONE.extend((number, name, d) for number, (name, d) in enumerate(opening(world), 1))
    return _ONE
