"""Guilds come, change, go out of reach and are left."""

from __future__ import annotations

import pytest
from rateway.cache.apply import Cache
from rateway.cache.kinds import Kind
from rateway.cache.policy import KINDS, CachePolicy
from tests.cache.scene import BOT, GUILD, Scene, channel, guild, member, role, thread, user
from tests.cache.world_feed import encode, entities

OTHER = 2 << 60
ANN, BEN = 11 << 40, 12 << 40


@pytest.mark.checklist("E1")
def test_a_guild_create_with_nothing_but_unavailable_is_an_outage() -> None:
    scene = Scene()
    scene.ready(GUILD)
    assert scene.cause("GUILD_CREATE", {"id": str(GUILD), "unavailable": True}) == "outage"
    assert scene.guild() == {"id": str(GUILD), "unavailable": True}


@pytest.mark.checklist("E1")
def test_a_guild_joined_in_an_outage_is_a_join_when_it_comes() -> None:
    scene = Scene()
    scene.ready()
    assert scene.cause("GUILD_CREATE", {"id": str(GUILD), "unavailable": True}) == "outage"
    assert scene.cause("GUILD_CREATE", guild()) == "join"


@pytest.mark.checklist("E2")
def test_an_outage_of_an_unavailable_guild_is_no_leave() -> None:
    scene = Scene().start(members=[member(BOT), member(ANN)])
    outage = {"id": str(GUILD), "unavailable": True}
    assert [scene.cause("GUILD_DELETE", outage) for _ in range(2)] == ["outage", "outage"]
    found = scene.guild()
    assert found is not None and found["unavailable"] is True and found["name"] == "guild"
    assert scene.child(Kind.MEMBER, ANN) is not None


@pytest.mark.checklist("E3")
def test_a_guild_that_is_left_before_it_came_is_pending_no_more() -> None:
    scene = Scene()
    scene.ready(GUILD, OTHER)
    assert scene.cause("GUILD_DELETE", {"id": str(GUILD)}) == "left"
    assert [guild_id for guild_id, _ in scene.view.guild_rows()] == [OTHER]


@pytest.mark.checklist("E4")
def test_a_dead_guild_is_said_to_be_left_once_and_not_at_every_start() -> None:
    scene = Scene()
    causes = []
    for session in ("one", "two", "three"):
        scene.ready(GUILD, session=session)
        causes.append(scene.cause("GUILD_DELETE", {"id": str(GUILD)}))
    assert causes == ["left", None, None]


@pytest.mark.checklist("E5")
@pytest.mark.parametrize("said", [{}, {"unavailable": False}, {"unavailable": None}])
def test_only_a_literal_true_is_an_outage(said: dict[str, object]) -> None:
    scene = Scene().start()
    assert scene.cause("GUILD_DELETE", {"id": str(GUILD), **said}) == "left"
    assert scene.guild() is None


@pytest.mark.checklist("E6")
def test_what_is_not_in_the_guild_after_an_outage_is_gone() -> None:
    scene = Scene().start(
        channels=[channel(20), channel(21)],
        threads=[thread(30, 20)],
        roles=[role(GUILD), role(40)],
        emojis=[{"id": "50", "name": "e"}],
        stickers=[{"id": "51", "name": "s"}],
        members=[member(BOT), member(ANN)],
        presences=[{"user": {"id": str(ANN)}, "status": "idle", "activities": [], "client_status": {}}],
        voice_states=[{"user_id": str(ANN), "channel_id": "21", "session_id": "x"}],
        stage_instances=[{"id": "60", "channel_id": "21"}],
        guild_scheduled_events=[{"id": "61", "channel_id": "21"}],
        soundboard_sounds=[{"sound_id": "62", "name": "n"}],
    )
    scene.tell(
        "MESSAGE_CREATE", {"id": "70", "channel_id": "20", "guild_id": str(GUILD), "author": user(ANN)}
    )
    scene.tell("GUILD_DELETE", {"id": str(GUILD), "unavailable": True})
    assert scene.cause("GUILD_CREATE", guild(channels=[channel(21)])) == "available"
    assert {kind: scene.ids(kind) for kind in Kind if scene.ids(kind)} == {
        Kind.CHANNEL: [21],
        Kind.ROLE: [GUILD],
        Kind.MEMBER: [BOT],
    }
    assert scene.message(20, 70) is None
    assert scene.user(ANN) is None
    assert scene.view.home(Kind.CHANNEL, 20) is None


@pytest.mark.checklist("E7")
def test_guilds_left_while_offline_are_gone_and_reported() -> None:
    scene = Scene().start()
    scene.tell("GUILD_CREATE", guild(OTHER))
    applied = scene.ready(OTHER, session="two")
    assert applied is not None and applied.left == (GUILD,)
    assert scene.guild() is None and scene.view.number_of(GUILD) is None
    again = scene.ready(OTHER, session="three")
    assert again is None


@pytest.mark.checklist("E7")
def test_guilds_of_other_shards_are_not_touched_by_a_ready() -> None:
    scene = Scene()
    first, second = 4 << 22, 5 << 22  # of two shards: 0 and 1
    for shard, guild_id in ((0, first), (1, second)):
        d = {
            "user": user(BOT),
            "guilds": [{"id": str(guild_id)}],
            "session_id": f"s{shard}",
            "shard": [shard, 2],
        }
        scene.cache.apply(shard, 1, "READY", encode(d))
        scene.cache.apply(shard, 2, "GUILD_CREATE", encode(guild(guild_id)))
    d = {"user": user(BOT), "guilds": [], "session_id": "new", "shard": [0, 2]}
    applied = scene.cache.apply(0, 1, "READY", encode(d))
    assert applied is not None and applied.left == (first,)
    assert scene.guild(second) is not None


@pytest.mark.checklist("E8")
def test_a_guild_that_never_comes_stays_pending_and_stops_nothing() -> None:
    scene = Scene()
    scene.ready(GUILD, OTHER)
    assert scene.cause("GUILD_CREATE", guild(OTHER)) == "start"
    assert scene.guild(GUILD) == {"id": str(GUILD), "unavailable": True}
    assert scene.child(Kind.MEMBER, BOT, OTHER) is not None


@pytest.mark.checklist("E9")
@pytest.mark.parametrize("unavailable", [{}, {"unavailable": False}])
def test_join_start_and_available_are_told_apart_by_state(unavailable: dict[str, bool]) -> None:
    full = {key: value for key, value in guild().items() if key != "unavailable"} | unavailable
    scene = Scene()
    scene.ready(GUILD)
    assert scene.cause("GUILD_CREATE", full) == "start"
    scene.tell("GUILD_DELETE", {"id": str(GUILD), "unavailable": True})
    assert scene.cause("GUILD_CREATE", full) == "available"
    assert scene.cause("GUILD_DELETE", {"id": str(GUILD)}) == "left"
    assert scene.cause("GUILD_CREATE", full) == "join"


def test_a_replayed_guild_event_says_the_same_cause_again() -> None:
    scene = Scene()
    scene.ready(GUILD)
    events = [("GUILD_CREATE", guild()), ("GUILD_CREATE", guild(OTHER)), ("GUILD_DELETE", {"id": str(OTHER)})]
    first = [scene.cause(name, d) for name, d in events]
    assert first == ["start", "join", "left"]
    again = [scene.cache.apply(0, seq, name, encode(d)) for seq, (name, d) in enumerate(events, 2)]
    assert [applied.cause if applied is not None else None for applied in again] == ["start", None, "left"]


@pytest.mark.checklist("E10")
def test_users_of_a_guild_that_is_left_stay_if_another_shares_them() -> None:
    scene = Scene().start(
        members=[member(BOT), member(ANN, "ann"), member(BEN, "ben")], channels=[channel(20)]
    )
    scene.tell("GUILD_CREATE", guild(OTHER, members=[member(BOT), member(ANN, "ann")]))
    scene.tell("GUILD_MEMBER_UPDATE", {"guild_id": str(OTHER), **member(ANN, "ann the second")})
    scene.tell("GUILD_DELETE", {"id": str(GUILD)})
    assert scene.ids(Kind.MEMBER) == [] and scene.view.home(Kind.CHANNEL, 20) is None
    assert scene.user(BEN) is None
    assert (scene.user(ANN) or {})["username"] == "ann the second"
    assert scene.view.mutual_guilds(ANN) == [OTHER]


@pytest.mark.checklist("E10")
def test_a_user_known_from_the_left_guild_alone_is_handed_to_the_other() -> None:
    scene = Scene().start(members=[member(BOT), member(ANN, "old name")])
    scene.tell("GUILD_CREATE", guild(OTHER, members=[member(BOT), member(ANN, "new name")]))
    scene.tell("GUILD_DELETE", {"id": str(OTHER)})
    assert (scene.user(ANN) or {})["username"] == "new name"
    found = scene.child(Kind.MEMBER, ANN)
    assert found is not None and found["user"]["username"] == "new name"


@pytest.mark.checklist("E11")
@pytest.mark.parametrize("order", [("member", "guild"), ("guild", "member")])
def test_the_bot_leaving_is_fine_in_either_order(order: tuple[str, str]) -> None:
    scene = Scene().start()
    events: dict[str, tuple[str, dict[str, object]]] = {
        "member": ("GUILD_MEMBER_REMOVE", {"guild_id": str(GUILD), "user": user(BOT)}),
        "guild": ("GUILD_DELETE", {"id": str(GUILD)}),
    }
    causes = [scene.cause(*events[name]) for name in order]
    assert sorted(filter(None, causes)) == ["left"]
    assert entities(scene.storage) == 0
    assert scene.view.current_user() is not None


@pytest.mark.checklist("E12")
def test_a_guild_update_keeps_what_only_guild_create_carries() -> None:
    scene = Scene().start(channels=[channel(20)], members=[member(BOT), member(ANN)], member_count=2)
    update = {
        "id": str(GUILD),
        "name": "renamed",
        "roles": [role(GUILD), role(41)],
        "emojis": [],
        "stickers": [],
    }
    scene.tell("GUILD_UPDATE", update)
    found = scene.guild()
    assert found is not None
    assert (found["name"], found["member_count"], found["joined_at"]) == (
        "renamed",
        2,
        "2020-01-01T00:00:00+00:00",
    )
    assert found["large"] is False and "roles" not in found
    assert scene.ids(Kind.CHANNEL) == [20] and scene.ids(Kind.MEMBER) == [BOT, ANN]
    assert scene.ids(Kind.ROLE) == [41, GUILD]


@pytest.mark.checklist("E13")
def test_a_member_twice_in_a_guild_create_is_one_member() -> None:
    scene = Scene().start(members=[member(BOT), member(ANN, nick="a"), member(ANN, nick="b")], member_count=2)
    assert scene.ids(Kind.MEMBER) == [BOT, ANN]
    assert scene.cache.writer.counts[Kind.MEMBER] == 2
    found = scene.child(Kind.MEMBER, ANN)
    assert found is not None and found["nick"] == "b"


@pytest.mark.checklist("E14")
@pytest.mark.parametrize(
    ("name", "d"),
    [
        ("CHANNEL_CREATE", {"guild_id": str(OTHER), **channel(20)}),
        ("GUILD_MEMBER_ADD", {"guild_id": str(OTHER), **member(ANN)}),
        ("GUILD_MEMBER_UPDATE", {"guild_id": str(OTHER), **member(ANN)}),
        ("GUILD_ROLE_CREATE", {"guild_id": str(OTHER), "role": role(5)}),
        ("PRESENCE_UPDATE", {"guild_id": str(OTHER), "user": {"id": str(ANN)}, "status": "idle"}),
        ("VOICE_STATE_UPDATE", {"guild_id": str(OTHER), "user_id": str(ANN), "channel_id": "3"}),
        ("THREAD_CREATE", {"guild_id": str(OTHER), **thread(30, 20)}),
        ("GUILD_UPDATE", {"id": str(OTHER), "name": "x"}),
        (
            "MESSAGE_CREATE",
            {"id": "1", "channel_id": "20", "guild_id": str(OTHER), "author": user(ANN), "member": {}},
        ),
    ],
)
def test_events_of_a_guild_that_never_came_make_no_phantom(name: str, d: dict[str, object]) -> None:
    scene = Scene()
    scene.ready()
    before = entities(scene.storage)
    scene.tell(name, d)
    assert scene.guild(OTHER) is None
    assert entities(scene.storage) - before <= (1 if name == "MESSAGE_CREATE" else 0)


@pytest.mark.checklist("E16")
def test_voice_states_of_a_new_session_replace_the_old_ones() -> None:
    scene = Scene().start(
        channels=[channel(21, 2)],
        voice_states=[
            {"user_id": str(user_id), "channel_id": "21", "session_id": "x"} for user_id in (ANN, BEN)
        ],
    )
    scene.ready(GUILD, session="two")
    assert scene.ids(Kind.VOICE_STATE) == [ANN, BEN]
    state = {"user_id": str(ANN), "channel_id": "21", "session_id": "y"}
    scene.tell("GUILD_CREATE", guild(channels=[channel(21, 2)], voice_states=[state]))
    assert scene.ids(Kind.VOICE_STATE) == [ANN]
    assert scene.child(Kind.VOICE_STATE, ANN) == {**state, "guild_id": str(GUILD)}


def test_a_repeated_partial_snapshot_in_one_session_takes_no_member_away() -> None:
    scene = Scene().start(members=[member(BOT), member(ANN)], member_count=500)
    scene.tell("GUILD_CREATE", guild(members=[member(BOT), member(BEN)], member_count=500))
    assert scene.ids(Kind.MEMBER) == [BOT, ANN, BEN]
    assert scene.user(ANN) is not None


def test_a_repeated_partial_snapshot_does_not_make_the_users_old_whom_it_does_not_name() -> None:
    scene = Scene().start(members=[member(ANN), member(BEN)], member_count=9)
    scene.tell("GUILD_MEMBER_UPDATE", {**member(BEN, "benjamin"), "guild_id": str(GUILD)})
    scene.tell("GUILD_CREATE", guild(members=[member(ANN, "anna")], member_count=9))
    assert scene.user(BEN) == user(BEN, "benjamin")
    assert scene.user(ANN) == user(ANN, "anna")


def test_members_of_a_new_session_replace_those_that_may_have_left_unseen() -> None:
    scene = Scene().start(members=[member(BOT), member(ANN)], member_count=500)
    scene.ready(GUILD, session="two")
    scene.tell("GUILD_CREATE", guild(members=[member(BOT), member(BEN)], member_count=500))
    assert scene.ids(Kind.MEMBER) == [BOT, BEN]
    assert scene.user(ANN) is None


def test_a_snapshot_is_newer_than_what_was_known_of_its_users() -> None:
    scene = Scene().start(members=[member(BOT), member(ANN, "one")])
    scene.tell("GUILD_MEMBER_UPDATE", {"guild_id": str(GUILD), **member(ANN, "two")})
    assert (scene.user(ANN) or {})["username"] == "two"
    scene.tell("GUILD_CREATE", guild(OTHER, members=[member(ANN, "three")]))
    assert (scene.user(ANN) or {})["username"] == "three"
    found = scene.child(Kind.MEMBER, ANN)
    assert found is not None and found["user"]["username"] == "three"


@pytest.mark.parametrize(
    "name", ["GUILD_DELETE", "GUILD_UPDATE", "CHANNEL_UPDATE", "GUILD_MEMBER_UPDATE", "MESSAGE_UPDATE"]
)
def test_the_entity_as_it_was_is_told_for_the_events_that_are_named(name: str) -> None:
    policy = CachePolicy(kinds=KINDS, messages_per_channel=5, before=frozenset({name}))
    scene = Scene(policy).start(
        channels=[channel(20, topic="old")], members=[member(BOT), member(ANN, nick="old")]
    )
    message = {"id": "70", "channel_id": "20", "guild_id": str(GUILD), "author": user(ANN), "content": "old"}
    scene.tell("MESSAGE_CREATE", message)
    events: dict[str, dict[str, object]] = {
        "GUILD_DELETE": {"id": str(GUILD)},
        "GUILD_UPDATE": {"id": str(GUILD), "name": "new"},
        "CHANNEL_UPDATE": {"guild_id": str(GUILD), **channel(20, topic="new")},
        "GUILD_MEMBER_UPDATE": {"guild_id": str(GUILD), **member(ANN, nick="new")},
        "MESSAGE_UPDATE": {**message, "content": "new"},
    }
    for other, d in events.items():
        if other != "GUILD_DELETE" and other != name:
            applied = scene.tell(other, d)
            assert applied is None or applied.before is None
    applied = scene.tell(name, events[name])
    assert applied is not None and applied.before is not None
    assert b'"old"' in applied.before or name.startswith("GUILD_")


def test_a_shard_that_was_there_before_goes_on_in_a_new_cache_object() -> None:
    scene = Scene().start()
    again = Cache(scene.storage, scene.cache.policy)
    assert again.applied(0) == 2
    assert again.position_in(0, "one") == 2
    assert again.position_in(0, "another") == 0
