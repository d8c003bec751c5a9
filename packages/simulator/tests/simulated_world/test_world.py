"""The world: seeded, whole, and at every moment what a perfect cache of its events would hold."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway_protocol.discord import visibility as discord_visibility
from rateway_protocol.discord.events import DOCUMENTED
from rateway_protocol.discord.intents import ALL, Intents
from rateway_simulator.payloads.channel_types import TEXT
from rateway_simulator.world import requests, snapshot
from rateway_simulator.world.changes import guilds as world_guilds
from rateway_simulator.world.changes.members import change_user
from rateway_simulator.world.changes.messages import create_message
from rateway_simulator.world.dispatch import Dispatch, WorldOptions
from rateway_simulator.world.mix import DEFAULT_MIX, Mix
from rateway_simulator.world.people import BOT_ID, People
from rateway_simulator.world.steps import step
from rateway_simulator.world.visibility import trimmed, visible
from rateway_simulator.world.world import World
from tests.simulated_world.model_cache import ModelCache

# Connection events, and replies to what a client sends.
NOT_OF_THE_MIX = {
    "READY",
    "RESUMED",
    "RATE_LIMITED",
    "GUILD_MEMBERS_CHUNK",
    "SOUNDBOARD_SOUNDS",
    "CHANNEL_INFO",
}
FLAT = dict.fromkeys(DEFAULT_MIX, 1.0) | {"MESSAGE_CREATE": 10.0}


def stream(world: World, steps: int, seed: int = 7) -> list[Dispatch]:
    """Some steps; what is nested in earlier dispatches may have changed meanwhile."""
    chance = random.Random(seed)
    return [step(world, chance) for _ in range(steps)]


def small(**options: object) -> WorldOptions:
    return msgspec.convert({"guilds": 4, "members_per_guild": 12, **options}, WorldOptions)


def test_equal_seeds_give_equal_worlds_and_other_seeds_other_ones() -> None:
    first, again, other = (stream(World(small(seed=seed)), 3000) for seed in (3, 3, 4))
    assert msgspec.json.encode(first) == msgspec.json.encode(again)
    assert msgspec.json.encode(first) != msgspec.json.encode(other)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), flat=st.booleans(), unfolded=st.sampled_from([2, 100]))
def test_the_world_is_what_a_perfect_cache_of_its_events_holds(seed: int, flat: bool, unfolded: int) -> None:
    options = small(
        seed=seed, mix=FLAT if flat else {}, unfolded_guilds=unfolded, messages_per_channel=1_000_000
    )
    world = World(options)
    cache = ModelCache(world.bot_id)
    for guild_id in world.guild_ids:
        cache.apply("GUILD_CREATE", snapshot.guild_create(world, guild_id))
    chance = random.Random(seed)
    for _ in range(4000):
        dispatch = step(world, chance)
        cache.apply(dispatch.name, dispatch.d)
    for dispatch in world.drain():
        cache.apply(dispatch.name, dispatch.d)
    held, expected = cache.state(), snapshot.state(world)
    for kind, entities in held.items():
        assert entities == expected[kind], kind


def test_a_guild_create_of_the_end_equals_what_the_events_made_of_it() -> None:
    world = World(small(mix={"GUILD_DELETE": 0, "GUILD_CREATE": 0}))
    stream(world, 5000)
    world.drain()
    cache = ModelCache(world.bot_id)
    for guild_id in world.guild_ids:
        cache.apply("GUILD_CREATE", snapshot.guild_create(world, guild_id))
    held, expected = cache.state(), snapshot.state(world)
    for kind in ("guild", "channel", "thread", "role", "emoji", "sticker", "sound", "member", "presence"):
        assert held[kind] == expected[kind], kind


def test_every_documented_event_that_nobody_asks_for_happens() -> None:
    assert set(DEFAULT_MIX) == DOCUMENTED - NOT_OF_THE_MIX
    counts = Counter(dispatch.name for dispatch in stream(World(small(mix=FLAT)), 30_000))
    assert set(counts) == set(DEFAULT_MIX)


def test_a_weight_of_nothing_keeps_an_event_away() -> None:
    names = {d.name for d in stream(World(small(mix={"PRESENCE_UPDATE": 0, "TYPING_START": 0})), 3000)}
    assert not names & {"PRESENCE_UPDATE", "TYPING_START"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"MESSAGE_CRAETE": 1.0}, "MESSAGE_CRAETE is not an event"),
        ({"READY": 1.0}, "READY is not an event"),
        ({"MESSAGE_CREATE": -1.0}, "must be 0 or more"),
        (dict.fromkeys(DEFAULT_MIX, 0.0), "no event has a weight"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(changes: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Mix(changes)


@pytest.mark.parametrize("shards", [2, 3, 7, 16, 64])
def test_guilds_spread_evenly_over_any_number_of_shards(shards: int) -> None:
    world = World(WorldOptions(guilds=shards * 10))
    counts = Counter((guild_id >> 22) % shards for guild_id in world.guild_ids)
    assert set(counts.values()) == {10}


def test_a_million_members_cost_nothing_until_they_are_touched() -> None:
    tracemalloc.start()
    world = World(WorldOptions(guilds=10_000, members_per_guild=100))
    d = snapshot.guild_create(world, world.guild_ids[9_999])
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(d["members"]) == d["member_count"] == 100
    assert used < 8_000_000


def test_a_guild_folded_and_unfolded_is_the_same() -> None:
    world = World(small(mix={"GUILD_DELETE": 0}, unfolded_guilds=2))
    stream(world, 8000)
    unfolded = {number: world.guild(number) for number in world.guild_ids}
    before = snapshot.state(world)
    world.advance(random.Random(1))
    # Three of the four were put away, and come back as other objects.
    assert sum(world.peek(number) is not guild for number, guild in unfolded.items()) == 3
    assert snapshot.state(world) == before


def test_ids_of_people_lead_back_to_them_and_nobody_else() -> None:
    people = People(1)
    for index in (0, 1, 4095, 4096, 1_000_000):
        assert people.index_of(people.id_of(index)) == index
        assert people.index_of(int(people.id_of(index)) + 1) is None
    assert people.index_of(1) is None
    assert people.index_of("99999999999999999999999") is None


# GUILD_CREATE


def test_without_presences_a_guild_shows_the_bot_and_who_is_in_voice() -> None:
    world = World(small())
    number = world.guild_ids[3]
    d = snapshot.guild_create(world, number, intents=ALL & ~Intents.GUILD_PRESENCES)
    shown = {member["user"]["id"] for member in d["members"]}
    assert shown == {BOT_ID, *(voice["user_id"] for voice in d["voice_states"])}
    assert d["voice_states"] and d["presences"] == []
    assert d["member_count"] == 12


def test_above_the_large_threshold_those_who_are_offline_and_plain_are_left_out() -> None:
    world = World(WorldOptions(guilds=1, members_per_guild=200))
    whole = snapshot.guild_create(world, world.guild_ids[0], large_threshold=250)
    large = snapshot.guild_create(world, world.guild_ids[0], large_threshold=50)
    assert len(whole["members"]) == 200
    online = {presence["user"]["id"] for presence in large["presences"]}
    shown = {member["user"]["id"]: member for member in large["members"]}
    assert online < set(shown) and len(shown) < 200
    assert all(m["roles"] or m["nick"] for key, m in shown.items() if key not in online | {BOT_ID})
    assert whole["presences"] == large["presences"]


def test_a_join_has_no_unavailable_and_a_guild_of_ready_says_false() -> None:
    world = World(small())
    assert snapshot.guild_create(world, world.guild_ids[0])["unavailable"] is False
    new = world_guilds.join(world, None)
    dispatch = world.drain()[-1]
    assert (dispatch.name, dispatch.guild_id) == ("GUILD_CREATE", new)
    assert "unavailable" not in dispatch.d


# The bot's guilds


def test_nothing_is_told_of_a_guild_in_an_outage_until_it_is_back() -> None:
    world = World(small(guilds=2, mix={"GUILD_CREATE": 0, "GUILD_DELETE": 0}))
    away = world.guild_ids[0]
    world_guilds.outage(world, away)
    assert [(d.name, d.d) for d in world.drain()] == [
        ("GUILD_DELETE", {"id": str(away), "unavailable": True})
    ]
    assert snapshot.guild_create(world, away) == {"id": str(away), "unavailable": True}
    assert not any(dispatch.guild_id == away for dispatch in stream(world, 2000))
    world.drain()
    world_guilds.recover(world, away)
    assert [(d.name, d.d["id"], d.d["unavailable"]) for d in world.drain()] == [
        ("GUILD_CREATE", str(away), False)
    ]


def test_a_guild_that_was_left_is_gone_and_can_be_joined_anew() -> None:
    world = World(small(guilds=2))
    gone = world.guild_ids[1]
    world_guilds.leave(world, gone)
    assert [(d.name, d.d) for d in world.drain()] == [("GUILD_DELETE", {"id": str(gone)})]
    assert gone not in world.guild_ids and str(gone) not in snapshot.state(world)["guild"]
    assert world_guilds.join(world, gone) == gone
    assert gone in world.guild_ids
    with pytest.raises(ValueError, match="no guild of this world"):
        world_guilds.join(world, 12345)


def test_a_renamed_user_is_told_to_every_guild_that_shares_them() -> None:
    world = World(small(guilds=3, members_per_guild=21))
    person = 14  # in the second half of the first guild, the first half of the second
    homes = world.homes(person)
    assert len(homes) == 2
    change_user(world, person, global_name="Another")
    told = world.drain()
    assert [d.guild_id for d in told] == homes
    assert all(d.name == "GUILD_MEMBER_UPDATE" and d.d["user"]["global_name"] == "Another" for d in told)


# What a client asks for


def test_a_whole_guild_comes_in_chunks_of_a_thousand() -> None:
    world = World(WorldOptions(guilds=1, members_per_guild=2500))
    request = {
        "guild_id": str(world.guild_ids[0]),
        "query": "",
        "limit": 0,
        "nonce": "n" * 32,
        "presences": True,
    }
    found = [dispatch.d for dispatch in requests.members_chunk(world, request)]
    assert [len(d["members"]) for d in found] == [1000, 1000, 500]
    assert [(d["chunk_index"], d["chunk_count"], d["nonce"]) for d in found] == [
        (n, 3, "n" * 32) for n in range(3)
    ]
    ids = {member["user"]["id"] for d in found for member in d["members"]}
    assert len(ids) == 2500 and BOT_ID in ids
    assert sum(len(d["presences"]) for d in found) > 500


def test_members_asked_for_by_id_come_with_those_who_are_missing() -> None:
    world = World(small())
    known = world.people.id_of(0)
    request = {"guild_id": str(world.guild_ids[0]), "user_ids": [known, "123", "x"], "nonce": "n" * 33}
    (dispatch,) = requests.members_chunk(world, request)
    assert [member["user"]["id"] for member in dispatch.d["members"]] == [known]
    assert dispatch.d["not_found"] == ["123", "x"]
    assert "nonce" not in dispatch.d and "presences" not in dispatch.d


def test_a_query_finds_by_prefix_and_is_limited() -> None:
    world = World(WorldOptions(guilds=1, members_per_guild=500))
    number = world.guild_ids[0]
    (dispatch,) = requests.members_chunk(world, {"guild_id": number, "query": "FOX", "limit": 5})
    names = [member["user"]["username"] for member in dispatch.d["members"]]
    assert len(names) == 5 and all(name.startswith("fox") for name in names)
    assert requests.members_chunk(world, {"guild_id": "1", "query": "", "limit": 0}) == []


def test_the_bot_joins_moves_in_and_leaves_voice() -> None:
    world = World(small())
    guild = world.guild(world.guild_ids[0])
    first, second = (key for key, d in guild.channels.items() if d["type"] == 2)
    ask = {"guild_id": guild.id, "self_mute": True, "self_deaf": False}
    joined = requests.voice_update(world, {**ask, "channel_id": first})
    assert [d.name for d in joined] == ["VOICE_STATE_UPDATE", "VOICE_SERVER_UPDATE"]
    assert joined[0].d["self_mute"] and joined[0].d["member"]["user"]["id"] == BOT_ID
    assert [d.name for d in requests.voice_update(world, {**ask, "channel_id": first})] == [
        "VOICE_STATE_UPDATE"
    ]
    moved = requests.voice_update(world, {**ask, "channel_id": second})
    assert [d.name for d in moved] == ["VOICE_STATE_UPDATE", "VOICE_SERVER_UPDATE"]
    (left,) = requests.voice_update(world, {**ask, "channel_id": None})
    assert left.d["channel_id"] is None and left.d["session_id"] == joined[0].d["session_id"]
    assert requests.voice_update(world, {**ask, "channel_id": None}) == []


def test_sounds_and_channel_info_answer_for_known_guilds_only() -> None:
    world = World(small(mix=FLAT))
    stream(world, 3000)
    guild_id = str(world.guild_ids[0])
    (sounds,) = requests.soundboard_sounds(world, [guild_id, "1"])
    assert {sound["guild_id"] for sound in sounds.d["soundboard_sounds"]} == {guild_id}
    (info,) = requests.channel_info(world, {"guild_id": guild_id, "fields": ["status"]})
    assert info.d["channels"] and all(set(channel) == {"id", "status"} for channel in info.d["channels"])
    assert requests.channel_info(world, {"guild_id": "1", "fields": ["status"]}) == []


# Who sees what


def test_intents_decide_which_dispatches_are_seen() -> None:
    in_guild = Dispatch("MESSAGE_CREATE", 1, {})
    direct = Dispatch("MESSAGE_CREATE", None, {}, direct=True)
    assert visible(in_guild, Intents.GUILD_MESSAGES) and not visible(in_guild, Intents.DIRECT_MESSAGES)
    assert visible(direct, Intents.DIRECT_MESSAGES) and not visible(direct, Intents.GUILD_MESSAGES)
    assert visible(Dispatch("INTERACTION_CREATE", 1, {}), 0) and visible(Dispatch("USER_UPDATE", None, {}), 0)
    assert not visible(Dispatch("PRESENCE_UPDATE", 1, {}), ALL & ~Intents.GUILD_PRESENCES)
    others, own = Dispatch("GUILD_MEMBER_UPDATE", 1, {}), Dispatch("GUILD_MEMBER_UPDATE", 1, {}, own=True)
    assert visible(own, 0) and not visible(others, Intents.GUILDS)
    others, own = Dispatch("THREAD_MEMBERS_UPDATE", 1, {}), Dispatch("THREAD_MEMBERS_UPDATE", 1, {}, own=True)
    assert visible(own, Intents.GUILDS) and not visible(others, Intents.GUILDS)
    assert visible(others, Intents.GUILD_MEMBERS)


def test_who_looks_at_the_bytes_alone_sees_what_the_world_shows() -> None:
    world = World(small(mix=FLAT))
    sessions = (0, ALL, *(ALL & ~intent for intent in Intents), *(int(intent) for intent in Intents))
    chance = random.Random(7)
    for _ in range(2000):
        dispatch = step(world, chance)
        # A guild that comes is listed anew for each session.
        if dispatch.name == "GUILD_CREATE":
            continue
        raw = msgspec.json.encode(dispatch.d)
        for intents in sessions:
            told = discord_visibility.visible(dispatch.name, raw, int(intents), int(BOT_ID))
            shown = visible(dispatch, intents)
            assert (told is not None) is shown, (dispatch.name, intents)
            if told is not None:
                assert json.loads(told) == json.loads(msgspec.json.encode(trimmed(dispatch, intents, BOT_ID)))


def test_content_is_hidden_without_its_intent_unless_it_is_meant_for_the_bot() -> None:
    world = World(small())
    guild = world.guild(world.guild_ids[0])
    text = next(key for key, d in guild.channels.items() if d["type"] == TEXT)
    author = world.people.user(1)
    create_message(world, guild, text, author, "secret", embeds=[{"type": "rich"}], poll={"question": {}})
    create_message(world, guild, text, author, f"<@{BOT_ID}> open")
    hidden, mentioned = world.drain()
    without = ALL & ~Intents.MESSAGE_CONTENT
    bare = trimmed(hidden, without, BOT_ID)
    assert (bare["content"], bare["embeds"], "poll" in bare) == ("", [], False)
    assert trimmed(hidden, ALL, BOT_ID)["content"] == "secret"
    assert trimmed(mentioned, without, BOT_ID)["content"] == f"<@{BOT_ID}> open"
    assert [user["id"] for user in mentioned.d["mentions"]] == [BOT_ID]
