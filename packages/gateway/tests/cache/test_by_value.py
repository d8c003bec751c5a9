"""What may be written in two ways is one thing: ids, emojis, the word offline; and what a guild's answer reads as."""

from __future__ import annotations

import logging
from typing import Any
from unittest import mock

import discord
import discord.state
import hikari
import hikari.impl
import msgspec
import pytest
from rateway.cache.kinds import Kind
from rateway.cache.policy import KINDS, CachePolicy
from rateway_simulator.world.snapshot import guild_create
from tests.cache.scene import GUILD, Scene, channel, guild, member, role
from tests.cache.test_queries import Asker
from tests.cache.world_feed import stream

ANN, BEN = 11 << 40, 12 << 40
FIRE_ESCAPED, FIRE = rb"\ud83d\udd25", "🔥".encode()


def presence(user_id: int, status: str, text: str = "") -> dict[str, Any]:
    activities = [{"type": 4, "name": "Custom Status", "state": text}] if text else []
    return {
        "user": {"id": str(user_id)},
        "status": status,
        "client_status": {"web": status},
        "activities": activities,
    }


@pytest.mark.checklist("K50")
@pytest.mark.parametrize("text", ["offline", '"offline"', "gone\\offline"])
def test_a_presence_in_a_guild_is_judged_by_its_status(text: str) -> None:
    found = [presence(ANN, "idle", text), presence(BEN, "offline", "online")]
    scene = Scene().start(presences=found)
    assert scene.ids(Kind.PRESENCE) == [ANN]


@pytest.mark.checklist("K50")
def test_an_offline_status_counts_however_it_is_written() -> None:
    scene = Scene().start(presences=[presence(ANN, "idle"), presence(BEN, "idle")])
    for user_id, raw in ((ANN, rb'"\u006fffline"'), (BEN, b'"offline"')):
        d = msgspec.json.encode({"guild_id": str(GUILD), **presence(user_id, "@@")}).replace(b'"@@"', raw)
        scene.seq += 1
        scene.cache.apply(0, scene.seq, "PRESENCE_UPDATE", d)
    scene.cache.flush()
    assert scene.ids(Kind.PRESENCE) == []
    raw = msgspec.json.encode(guild(presences=[presence(ANN, "@@")])).replace(b'"@@"', rb'"off\u006cine"')
    scene.seq += 1
    scene.cache.apply(0, scene.seq, "GUILD_CREATE", raw)
    assert scene.ids(Kind.PRESENCE) == [] and scene.cache.failures == {}


@pytest.mark.checklist("K52")
@pytest.mark.parametrize("written", [40, "40"])
def test_a_role_that_is_deleted_leaves_overwrites_and_emojis_however_its_id_is_written(written: Any) -> None:
    overwrites = [{"id": written, "type": 0, "allow": "0", "deny": "0"}, {"id": "41", "type": 0}, None, 5]
    emojis = [{"id": "50", "name": "rose", "roles": [written, "41", None]}]
    found = {"roles": [role(40), role(41)], "members": [member(ANN, roles=[written, "41"])]}
    scene = Scene().start(**found, channels=[channel(20, permission_overwrites=overwrites)], emojis=emojis)
    scene.tell("GUILD_ROLE_DELETE", {"guild_id": GUILD, "role_id": written})
    kept, emoji, ann = (
        scene.child(Kind.CHANNEL, 20),
        scene.child(Kind.EMOJI, 50),
        scene.child(Kind.MEMBER, ANN),
    )
    assert kept is not None and kept["permission_overwrites"] == overwrites[1:]
    assert emoji is not None and emoji["roles"] == ["41", None]
    assert ann is not None and ann["roles"] == ["41"]


@pytest.mark.checklist("K52")
def test_a_role_is_deleted_where_a_neighbours_lists_are_none() -> None:
    odd = [channel(20, permission_overwrites=5), channel(21, permission_overwrites=[{"id": 40}])]
    scene = Scene().start(roles=[role(40)], channels=odd, emojis=[{"id": "50", "roles": "40"}])
    scene.tell("GUILD_ROLE_DELETE", {"guild_id": str(GUILD), "role_id": "40"})
    first, second = scene.child(Kind.CHANNEL, 20), scene.child(Kind.CHANNEL, 21)
    assert first is not None and first["permission_overwrites"] == 5
    assert second is not None and second["permission_overwrites"] == []
    assert scene.ids(Kind.ROLE) == []


def reaction(emoji: bytes, user_id: int = ANN) -> bytes:
    return (
        b'{"user_id":"%d","channel_id":"20","message_id":"70","guild_id":"%d","emoji":{"id":null,"name":"%b"}}'
        % (user_id, GUILD, emoji)
    )


@pytest.mark.checklist("K52")
def test_an_emoji_in_two_spellings_is_one_reaction() -> None:
    scene = Scene().start(channels=[channel(20)])
    scene.tell("MESSAGE_CREATE", {"id": "70", "channel_id": "20", "guild_id": str(GUILD), "content": "x"})

    def count(name: str, emoji: bytes, user_id: int = ANN) -> list[int]:
        scene.seq += 1
        scene.cache.apply(0, scene.seq, name, reaction(emoji, user_id))
        message = scene.message(20, 70)
        assert message is not None and scene.cache.failures == {}
        return [item["count"] for item in message.get("reactions", [])]

    assert count("MESSAGE_REACTION_ADD", FIRE) == [1]
    assert count("MESSAGE_REACTION_ADD", FIRE_ESCAPED, BEN) == [2]
    assert count("MESSAGE_REACTION_REMOVE", FIRE_ESCAPED) == [1]
    assert count("MESSAGE_REACTION_REMOVE_EMOJI", FIRE_ESCAPED) == []


@pytest.mark.checklist("K52")
def test_a_votes_answer_counts_however_it_is_written() -> None:
    scene = Scene().start(channels=[channel(20)])
    poll = {"answers": [], "results": {"is_finalized": False, "answer_counts": [{"id": "1", "count": 1}]}}
    scene.tell("MESSAGE_CREATE", {"id": "70", "channel_id": "20", "guild_id": str(GUILD), "poll": poll})
    vote = {"user_id": str(ANN), "channel_id": 20, "message_id": 70, "guild_id": GUILD, "answer_id": 1}
    scene.tell("MESSAGE_POLL_VOTE_ADD", vote)
    message = scene.message(20, 70)
    assert message is not None
    (counted,) = message["poll"]["results"]["answer_counts"]
    assert counted["count"] == 2


@pytest.mark.checklist("K52")
def test_ids_as_numbers_are_the_same_entities() -> None:
    scene = Scene().start(channels=[{**channel(20), "id": 20}], members=[member(ANN)])
    scene.tell("CHANNEL_UPDATE", {**channel(20), "guild_id": GUILD, "name": "other"})
    scene.tell("PRESENCE_UPDATE", {"guild_id": GUILD, "user": {"id": ANN}, "status": "idle"})
    scene.tell("VOICE_STATE_UPDATE", {"guild_id": GUILD, "user_id": ANN, "channel_id": 20, "session_id": "x"})
    (state,) = Asker(scene).ask("VoiceChannelStates", 20)
    assert state["member"]["user"]["username"] == "ann"
    assert scene.ids(Kind.CHANNEL) == [20] and scene.ids(Kind.PRESENCE) == [ANN]


# O12


@pytest.mark.checklist("K34")
def test_a_guild_joined_between_two_sessions_is_a_join() -> None:
    other = 2 << 60
    scene = Scene().start()
    scene.ready(GUILD, other, session="two")
    assert scene.cause("GUILD_CREATE", guild()) == "start"
    assert scene.cause("GUILD_CREATE", guild(other)) == "join"
    scene.ready(GUILD, other, session="three")
    assert scene.cause("GUILD_CREATE", guild(other)) == "start"


@pytest.mark.checklist("K34")
def test_a_guild_joined_between_two_sessions_is_a_join_if_the_first_to_list_it_is_lost_too() -> None:
    other = 2 << 60
    scene = Scene().start()
    scene.ready(GUILD, other, session="two")
    scene.ready(GUILD, other, session="three")
    assert scene.cause("GUILD_CREATE", guild(other)) == "join"


@pytest.mark.checklist("K34")
def test_a_guild_joined_in_an_outage_is_a_join_after_a_new_session_too() -> None:
    other = 2 << 60
    scene = Scene().start()
    assert scene.cause("GUILD_CREATE", {"id": str(other), "unavailable": True}) == "outage"
    scene.ready(GUILD, other, session="two")
    assert scene.cause("GUILD_CREATE", guild(other)) == "join"


@pytest.mark.checklist("K34")
def test_a_first_start_and_another_layout_join_nothing() -> None:
    scene = Scene()
    scene.ready(GUILD)
    assert scene.cause("GUILD_CREATE", guild()) == "start"
    scene.seq = 0
    listed = [{"id": str(each), "unavailable": True} for each in (GUILD, 2 << 22)]
    ready = {"user": {"id": "9"}, "guilds": listed, "session_id": "two", "shard": [0, 2]}
    scene.tell("READY", ready)
    assert scene.cause("GUILD_CREATE", guild(2 << 22)) == "start"


# L5


@pytest.mark.checklist("K49")
def test_a_session_that_begins_is_applied_whatever_its_id_and_number() -> None:
    scene = Scene()
    ready = {"user": {"id": "9"}, "guilds": [{"id": str(GUILD)}], "session_id": "same", "shard": [0, 1]}
    encode = msgspec.json.encode
    for session, first in (("same", 0), ("same~1", 0), ("same~2", 1)):
        scene.cache.begin(0, session)
        scene.cache.flush()
        scene.cache.apply(0, first, "READY", encode(ready))
        applied = scene.cache.apply(0, first + 1, "GUILD_CREATE", encode(guild(name=session)))
        scene.cache.flush()
        assert applied is not None and applied.cause == "start"
        assert scene.cache.position_in(0, session) == first + 1
        found = scene.guild()
        assert found is not None and found["name"] == session
        # In a replay it is no new session.
        assert scene.cache.apply(0, first, "READY", encode(ready)) is None
        assert scene.cache.applied(0) == first + 1


# L7


def answered() -> tuple[dict[str, Any], dict[str, Any]]:
    """A GUILD_CREATE with something in each list, and the answer that is to read the same."""
    world, events = stream(13, 900, guilds=1, members_per_guild=12)
    (guild_id,) = world.guild_ids
    scene = Scene(CachePolicy(kinds=KINDS))
    for seq, name, d in events:
        scene.cache.apply(0, seq, name, d)
    scene.cache.flush()
    sent = msgspec.json.decode(msgspec.json.encode(guild_create(world, guild_id, large_threshold=1000)))
    return sent, Asker(scene).ask("Guild", guild_id, fields=tuple(sent))


@pytest.mark.checklist("K51")
def test_a_guild_with_all_lists_names_it_where_a_guild_create_does() -> None:
    sent, found = answered()
    naming = {"threads", "stickers", "guild_scheduled_events", "stage_instances", "soundboard_sounds"}
    assert all(sent[name] for name in naming), "nothing to compare"
    for name, items in sent.items():
        if isinstance(items, list) and items and isinstance(items[0], dict):
            assert all(("guild_id" in item) == (name in naming) for item in items), name
            assert all(("guild_id" in item) == (name in naming) for item in found[name]), name
            if name not in ("channels", "members", "presences"):
                assert fields_by_id(found[name]) == fields_by_id(items), name


def fields_by_id(items: list[dict[str, Any]]) -> dict[str, set[str]]:
    found = {}
    for item in items:
        found[str(item.get("id") or item.get("sound_id") or item.get("user_id"))] = set(item)
    return found


@pytest.mark.checklist("K51")
def test_discord_py_reads_a_guild_with_all_lists() -> None:
    _, found = answered()
    connection: Any = discord.state.ConnectionState(
        dispatch=mock.Mock(), handlers={}, hooks={}, http=mock.Mock(), intents=discord.Intents.all()
    )
    connection.user = mock.Mock(id=int(found["owner_id"]))
    read = discord.Guild(data=found, state=connection)  # type: ignore[arg-type]  # JSON
    assert {each.id for each in read.channels} == {int(each["id"]) for each in found["channels"]}
    assert {each.id for each in read.threads} == {int(each["id"]) for each in found["threads"]}
    assert {each.id for each in read.stickers} == {int(each["id"]) for each in found["stickers"]}
    events = {int(each["id"]) for each in found["guild_scheduled_events"]}
    assert {each.id for each in read.scheduled_events} == events
    assert {each.id for each in read.stage_instances} == {
        int(each["id"]) for each in found["stage_instances"]
    }
    sounds = {int(each["sound_id"]) for each in found["soundboard_sounds"]}
    assert {each.id for each in read.soundboard_sounds} == sounds
    assert {each.id for each in read.members} == {int(each["user"]["id"]) for each in found["members"]}


@pytest.mark.checklist("K51")
def test_hikari_reads_a_guild_with_all_lists(caplog: pytest.LogCaptureFixture) -> None:
    _, found = answered()
    app = mock.Mock(spec=hikari.RESTAware)
    with caplog.at_level(logging.DEBUG):
        read = hikari.impl.EntityFactoryImpl(app).deserialize_gateway_guild(
            found, user_id=hikari.Snowflake(1)
        )
        assert set(read.channels()) == {int(each["id"]) for each in found["channels"]}
        assert set(read.threads()) == {int(each["id"]) for each in found["threads"]}
        assert set(read.emojis()) == {int(each["id"]) for each in found["emojis"]}
        assert set(read.roles()) == {int(each["id"]) for each in found["roles"]}
        assert set(read.members()) == {int(each["user"]["id"]) for each in found["members"]}
        assert len(read.presences()) == len(found["presences"])
        assert len(read.voice_states()) == len(found["voice_states"])
