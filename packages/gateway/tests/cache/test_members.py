"""Members, users, presences, voice states and messages."""

from __future__ import annotations

from typing import Any

import pytest
from rateway.cache.kinds import Kind
from rateway.cache.policy import KINDS, CachePolicy
from rateway.cache.reducers import IGNORED, REDUCERS
from rateway_protocol.discord.events import DOCUMENTED, EVENTS
from tests.cache.scene import BOT, GUILD, Scene, channel, guild, member, role, thread, user
from tests.cache.world_feed import entities, state

ANN, BEN = 11 << 40, 12 << 40
TEXT, VOICE = 20, 21
IN_GUILD = {"guild_id": str(GUILD)}


def with_ann(**fields: Any) -> Scene:
    return Scene().start(
        members=[member(BOT), member(ANN, **fields)],
        member_count=2,
        channels=[channel(TEXT), channel(VOICE, 2)],
    )


def message(message_id: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": str(message_id),
        "channel_id": str(TEXT),
        "author": user(ANN),
        "content": "x",
        **IN_GUILD,
        **fields,
    }


def count(scene: Scene) -> object:
    return (scene.guild() or {})["member_count"]


def test_every_documented_event_has_a_reducer_or_is_ignored_by_name() -> None:
    assert REDUCERS.keys() | IGNORED == DOCUMENTED
    assert not REDUCERS.keys() & IGNORED
    assert {name for name, spec in EVENTS.items() if spec.cached_entities} <= REDUCERS.keys()


@pytest.mark.checklist("G1", "H20")
def test_a_member_that_is_added_again_is_counted_once() -> None:
    scene = with_ann()
    scene.tell("GUILD_MEMBER_ADD", {**member(BEN), **IN_GUILD})
    scene.tell("GUILD_MEMBER_ADD", {**member(BEN), **IN_GUILD})
    scene.tell("GUILD_MEMBER_ADD", {**member(ANN), **IN_GUILD})
    assert count(scene) == 3
    scene.tell("GUILD_MEMBER_REMOVE", {"user": user(BEN), **IN_GUILD})
    assert count(scene) == 2
    scene.seq -= 1
    scene.tell("GUILD_MEMBER_REMOVE", {"user": user(BEN), **IN_GUILD})
    assert count(scene) == 2


@pytest.mark.checklist("G2")
def test_an_update_keeps_what_it_does_not_name_and_takes_a_null() -> None:
    scene = with_ann(nick="nan", deaf=True, mute=True, pending=True, flags=2, avatar="a")
    update = {"user": user(ANN), "roles": ["40"], "joined_at": "2021-01-01T00:00:00+00:00", "avatar": None}
    scene.tell("GUILD_MEMBER_UPDATE", {**update, **IN_GUILD})
    found = scene.child(Kind.MEMBER, ANN)
    assert found is not None
    kept = {name: found[name] for name in ("nick", "deaf", "mute", "pending", "flags", "avatar", "roles")}
    assert kept == {
        "nick": "nan",
        "deaf": True,
        "mute": True,
        "pending": True,
        "flags": 2,
        "avatar": None,
        "roles": ["40"],
    }


@pytest.mark.checklist("G3")
def test_an_update_of_an_unknown_member_inserts_it() -> None:
    scene = with_ann()
    scene.tell(
        "GUILD_MEMBER_UPDATE", {"user": user(BEN, "ben"), "roles": ["40"], "joined_at": None, **IN_GUILD}
    )
    found = scene.child(Kind.MEMBER, BEN)
    assert found is not None and found["roles"] == ["40"] and found["user"]["username"] == "ben"
    assert count(scene) == 2


@pytest.mark.checklist("G4", "G21")
def test_the_removal_of_an_unknown_member_is_no_error_and_counts_only_with_a_partial_cache() -> None:
    scene = with_ann()
    scene.tell("GUILD_MEMBER_REMOVE", {"user": user(BEN), **IN_GUILD})
    assert count(scene) == 2  # both members are known: Ben was none of them
    partial = Scene().start(members=[member(BOT)], member_count=50)
    partial.tell("GUILD_MEMBER_REMOVE", {"user": user(BEN), **IN_GUILD})
    assert count(partial) == 49


@pytest.mark.checklist("G5")
def test_a_guest_has_no_time_of_joining() -> None:
    scene = with_ann()
    scene.tell("GUILD_MEMBER_ADD", {**member(BEN, joined_at=None), **IN_GUILD})
    found = scene.child(Kind.MEMBER, BEN)
    assert found is not None and found["joined_at"] is None


@pytest.mark.checklist("G6")
@pytest.mark.parametrize("seen", [True, False])
def test_who_leaves_and_comes_back_has_lost_the_old_roles(seen: bool) -> None:
    scene = with_ann(roles=["40"], nick="nan")
    if seen:
        scene.tell("GUILD_MEMBER_REMOVE", {"user": user(ANN), **IN_GUILD})
        assert scene.user(ANN) is None
    added = {key: value for key, value in member(ANN).items() if key != "nick"}
    scene.tell("GUILD_MEMBER_ADD", {**added, **IN_GUILD})
    found = scene.child(Kind.MEMBER, ANN)
    assert found is not None and found["roles"] == [] and "nick" not in found


@pytest.mark.checklist("G7")
def test_the_member_inside_a_voice_state_says_nothing_of_mute_and_deaf() -> None:
    scene = with_ann(mute=False)
    stale = {**member(ANN, nick="new"), "mute": True, "deaf": True}
    voice = {"user_id": str(ANN), "channel_id": str(VOICE), "session_id": "x", "mute": False, "deaf": False}
    scene.tell("VOICE_STATE_UPDATE", {**voice, "member": stale, **IN_GUILD})
    found = scene.child(Kind.MEMBER, ANN)
    assert found is not None and (found["mute"], found["deaf"], found["nick"]) == (False, False, "new")
    assert scene.child(Kind.VOICE_STATE, ANN) == {**voice, **IN_GUILD}


@pytest.mark.parametrize("odd", [None, {}, {"roles": []}])
def test_a_member_without_a_user_inside_another_event_says_nothing(odd: Any) -> None:
    scene = with_ann()
    before = scene.child(Kind.MEMBER, ANN)
    where = {"user_id": str(ANN), "channel_id": str(TEXT), "member": odd, **IN_GUILD}
    scene.tell("TYPING_START", {**where, "timestamp": 1})
    scene.tell("MESSAGE_REACTION_ADD", {**where, "message_id": "5", "emoji": {"id": None, "name": "x"}})
    scene.tell("VOICE_STATE_UPDATE", {**where, "session_id": "x"})
    assert scene.child(Kind.MEMBER, ANN) == before


def test_words_that_were_stale_in_a_voice_state_are_news_in_another_event() -> None:
    scene = with_ann(mute=True)
    said = member(ANN, mute=False)
    voice = {"user_id": str(ANN), "channel_id": str(VOICE), "session_id": "x", "mute": True, "deaf": False}
    typing = {"user_id": str(ANN), "channel_id": str(TEXT), "timestamp": 1}
    for heard in (True, False, False):
        scene.tell("VOICE_STATE_UPDATE", {**voice, "member": said, **IN_GUILD})
        found = scene.child(Kind.MEMBER, ANN)
        assert found is not None and found["mute"] is heard
        scene.tell("TYPING_START", {**typing, "member": said, **IN_GUILD})
        found = scene.child(Kind.MEMBER, ANN)
        assert found is not None and found["mute"] is False


def test_a_user_that_changes_and_changes_back_is_followed_though_the_words_are_known() -> None:
    scene = with_ann()
    typing = {"user_id": str(ANN), "channel_id": str(TEXT), "timestamp": 1}
    for name in ("ann", "anna", "ann", "anna"):
        scene.tell("TYPING_START", {**typing, "member": member(ANN, name), **IN_GUILD})
        assert (scene.user(ANN) or {})["username"] == name
        scene.tell("MESSAGE_CREATE", message(1 << 50, author=user(ANN, name), member={"roles": []}))
        assert (scene.user(ANN) or {})["username"] == name


def test_a_guild_that_comes_later_brings_its_own_words_of_a_user() -> None:
    scene = with_ann()
    typing = {"user_id": str(ANN), "channel_id": str(TEXT), "timestamp": 1}
    scene.tell("TYPING_START", {**typing, "member": member(ANN), **IN_GUILD})
    other = GUILD + (1 << 30)
    scene.tell("GUILD_CREATE", guild(other, members=[member(BOT), member(ANN, "anna")], member_count=2))
    assert (scene.user(ANN) or {})["username"] == "anna"
    scene.tell("TYPING_START", {**typing, "member": member(ANN), **IN_GUILD})
    assert (scene.user(ANN) or {})["username"] == "ann"


def test_a_member_whose_last_field_only_begins_alike_has_changed() -> None:
    scene = with_ann()
    scene.tell("GUILD_MEMBER_UPDATE", {"user": user(ANN), "roles": [], "flags": 12, **IN_GUILD})
    said: dict[str, Any] = {
        "roles": [],
        "nick": None,
        "joined_at": "2020-01-01T00:00:00+00:00",
        "deaf": False,
        "mute": False,
    }
    scene.tell("MESSAGE_CREATE", message(1 << 50, member={**said, "flags": 1}))
    found = scene.child(Kind.MEMBER, ANN)
    assert found is not None and found["flags"] == 1


@pytest.mark.checklist("G8")
def test_who_leaves_while_in_voice_is_in_voice_no_more() -> None:
    scene = with_ann()
    scene.tell(
        "VOICE_STATE_UPDATE", {"user_id": str(ANN), "channel_id": str(VOICE), "session_id": "x", **IN_GUILD}
    )
    scene.tell("PRESENCE_UPDATE", {"user": {"id": str(ANN)}, "status": "dnd", **IN_GUILD})
    scene.tell("GUILD_MEMBER_REMOVE", {"user": user(ANN), **IN_GUILD})
    assert scene.ids(Kind.VOICE_STATE) == [] and scene.ids(Kind.PRESENCE) == []


@pytest.mark.checklist("G9")
@pytest.mark.parametrize(
    "odd",
    [
        {"user": {"id": str(ANN)}},
        {"user": {"id": str(ANN)}, "status": None, "activities": None, "client_status": None},
        {"user": {"id": str(ANN)}, "status": 7, "activities": {"a": 1}, "client_status": "web"},
        {"user": {"id": str(ANN), "username": None, "avatar": 5}, "status": "idle"},
    ],
)
def test_presences_of_any_shape_are_taken(odd: dict[str, Any]) -> None:
    scene = with_ann()
    scene.tell("PRESENCE_UPDATE", {**odd, **IN_GUILD})
    found = scene.child(Kind.PRESENCE, ANN)
    assert found == {**odd, "user": {"id": str(ANN)}, **IN_GUILD}


@pytest.mark.checklist("G10")
def test_a_presence_makes_no_member() -> None:
    scene = with_ann()
    scene.tell("GUILD_MEMBER_REMOVE", {"user": user(ANN), **IN_GUILD})
    scene.tell("PRESENCE_UPDATE", {"user": user(ANN), "status": "offline", "activities": [], **IN_GUILD})
    assert scene.child(Kind.MEMBER, ANN) is None and scene.user(ANN) is None
    assert scene.ids(Kind.PRESENCE) == []


@pytest.mark.checklist("G11")
def test_a_partial_user_erases_nothing() -> None:
    scene = with_ann()
    scene.tell("PRESENCE_UPDATE", {"user": {"id": str(ANN), "avatar": "new"}, "status": "idle", **IN_GUILD})
    assert scene.user(ANN) == {**user(ANN), "avatar": "new"}


@pytest.mark.checklist("G12", "G13")
def test_a_partial_message_update_keeps_content_and_tts() -> None:
    scene = with_ann()
    scene.tell("MESSAGE_CREATE", message(70, content="hello", tts=True))
    scene.tell(
        "MESSAGE_UPDATE", {"id": "70", "channel_id": str(TEXT), "embeds": [{}], "tts": False, **IN_GUILD}
    )
    found = scene.message(TEXT, 70)
    assert found is not None and (found["content"], found["tts"], found["embeds"]) == ("hello", True, [{}])
    scene.tell("MESSAGE_UPDATE", {"id": "71", "channel_id": str(TEXT), "embeds": [], **IN_GUILD})
    assert scene.message(TEXT, 71) is None


def test_without_the_content_intent_an_empty_content_erases_nothing() -> None:
    policy = CachePolicy(kinds=KINDS, messages_per_channel=5, message_content=False)
    scene = Scene(policy).start(channels=[channel(TEXT)])
    scene.tell("MESSAGE_CREATE", message(70, content="hello @bot"))
    scene.tell("MESSAGE_UPDATE", message(70, content="", flags=4))
    found = scene.message(TEXT, 70)
    assert found is not None and (found["content"], found["flags"]) == ("hello @bot", 4)


@pytest.mark.checklist("G14")
def test_a_webhook_is_neither_user_nor_member() -> None:
    scene = with_ann()
    hook = {"author": user(ANN, "a hook's name"), "webhook_id": str(ANN), "member": {"roles": ["40"]}}
    scene.tell("MESSAGE_CREATE", message(70, **hook))
    assert (scene.user(ANN) or {})["username"] == "ann"
    assert (scene.child(Kind.MEMBER, ANN) or {})["roles"] == []


@pytest.mark.checklist("G15")
def test_the_first_direct_message_makes_its_channel() -> None:
    scene = with_ann()
    direct = {"id": "70", "channel_id": "500", "author": user(BEN, "ben"), "content": "hi", "channel_type": 1}
    scene.tell(
        "MESSAGE_REACTION_ADD",
        {"user_id": str(BEN), "channel_id": "501", "message_id": "1", "emoji": {"name": "x"}},
    )
    scene.tell("MESSAGE_CREATE", direct)
    found = scene.view.channel(500)
    assert found is not None and found[0] == 0
    stub = {name: bytes(raw) for name, raw in found[1].items()}
    assert stub["id"] == b'"500"' and stub["type"] == b"1" and b"ben" in stub["recipients"]
    assert stub["last_message_id"] == b'"70"'
    assert scene.message(500, 70) is not None


@pytest.mark.checklist("G16")
@pytest.mark.parametrize("said", [{"flags": 64}, {"channel_type": 0, "flags": 64}, {"channel_type": 0}])
def test_an_ephemeral_message_is_no_direct_message(said: dict[str, int]) -> None:
    scene = with_ann()
    for channel_id in (TEXT, 500):
        scene.tell("MESSAGE_CREATE", {"id": "70", "channel_id": str(channel_id), "author": user(BOT), **said})
        scene.tell("MESSAGE_CREATE", {"id": "71", "channel_id": str(channel_id), "author": user(ANN), **said})
    assert scene.view.channel(500) is None
    found = scene.view.channel(TEXT)
    assert found is not None and found[0] != 0


@pytest.mark.checklist("G17")
def test_a_reaction_is_found_by_the_emojis_id_when_its_name_is_gone() -> None:
    scene = with_ann()
    scene.tell("MESSAGE_CREATE", message(70))
    place = {"channel_id": str(TEXT), "message_id": "70", **IN_GUILD}
    emoji = {"id": "50", "name": "e"}
    for user_id in (ANN, BEN, BOT):
        scene.tell("MESSAGE_REACTION_ADD", {**place, "user_id": str(user_id), "emoji": emoji, "burst": False})
    (found,) = (scene.message(TEXT, 70) or {})["reactions"]
    assert (found["count"], found["me"]) == (3, True)
    gone = {"id": "50", "name": None}
    scene.tell("MESSAGE_REACTION_REMOVE", {**place, "user_id": str(BOT), "emoji": gone, "burst": False})
    (found,) = (scene.message(TEXT, 70) or {})["reactions"]
    assert (found["count"], found["me"], found["emoji"]) == (2, False, emoji)
    scene.tell("MESSAGE_REACTION_REMOVE_EMOJI", {**place, "emoji": gone})
    assert "reactions" not in (scene.message(TEXT, 70) or {})
    scene.tell(
        "MESSAGE_REACTION_ADD",
        {**place, "user_id": str(ANN), "emoji": {"id": None, "name": "x"}, "burst": True},
    )
    scene.tell("MESSAGE_REACTION_REMOVE_ALL", place)
    assert "reactions" not in (scene.message(TEXT, 70) or {})


@pytest.mark.checklist("G18")
def test_an_emoji_may_have_lost_its_name() -> None:
    scene = Scene().start(emojis=[{"id": "50", "name": None}])
    assert (scene.child(Kind.EMOJI, 50) or {})["name"] is None
    scene.tell(
        "GUILD_EMOJIS_UPDATE", {"emojis": [{"id": "50", "name": None, "available": False}], **IN_GUILD}
    )
    assert (scene.child(Kind.EMOJI, 50) or {})["available"] is False


@pytest.mark.checklist("G19")
def test_a_voice_server_that_was_lost_changes_nothing_and_its_token_is_kept_nowhere() -> None:
    scene = with_ann()
    before = state(scene.view)
    for endpoint in (None, "voice.example"):
        assert (
            scene.tell("VOICE_SERVER_UPDATE", {"token": "secret-voice", "endpoint": endpoint, **IN_GUILD})
            is None
        )
    assert state(scene.view) == before
    assert not any(b"secret-voice" in value for table in scene.storage.tables for value in table.values())


@pytest.mark.checklist("G20")
def test_members_of_an_unknown_thread_or_guild_are_ignored() -> None:
    scene = with_ann()
    before = state(scene.view)
    update = {"id": "999", "member_count": 3, "added_members": [], "removed_member_ids": [str(BOT)]}
    scene.tell("THREAD_MEMBERS_UPDATE", {**update, **IN_GUILD})
    scene.tell("THREAD_MEMBERS_UPDATE", {**update, "guild_id": "4"})
    scene.tell("THREAD_MEMBER_UPDATE", {"id": "999", "user_id": str(BOT), "flags": 0, **IN_GUILD})
    assert state(scene.view) == before


def test_a_threads_new_members_bring_member_and_presence() -> None:
    scene = Scene().start(channels=[channel(TEXT)], threads=[thread(30, TEXT)])
    presence = {"user": {"id": str(ANN)}, "status": "idle", "activities": [], **IN_GUILD}
    added = {"id": "30", "user_id": str(ANN), "flags": 0, "member": member(ANN), "presence": presence}
    alone = {"id": "30", "user_id": str(BEN), "flags": 0, "member": member(BEN), "presence": None}
    update = {"id": "30", "member_count": 3, "added_members": [added, alone], **IN_GUILD}
    scene.tell("THREAD_MEMBERS_UPDATE", update)
    assert scene.ids(Kind.MEMBER) == [BOT, ANN, BEN] and scene.ids(Kind.PRESENCE) == [ANN]
    assert (scene.child(Kind.THREAD, 30) or {})["member_count"] == 3


@pytest.mark.checklist("G21")
@pytest.mark.parametrize(
    ("name", "d"),
    [
        ("CHANNEL_DELETE", channel(999)),
        ("THREAD_DELETE", {"id": "999", "parent_id": "1", "type": 11}),
        ("GUILD_ROLE_DELETE", {"role_id": "999"}),
        ("GUILD_MEMBER_REMOVE", {"user": user(999)}),
        ("STAGE_INSTANCE_DELETE", {"id": "999", "channel_id": "1"}),
        ("GUILD_SCHEDULED_EVENT_DELETE", {"id": "999", "status": 1}),
        ("GUILD_SOUNDBOARD_SOUND_DELETE", {"sound_id": "999"}),
        ("INTEGRATION_DELETE", {"id": "999"}),
        ("MESSAGE_DELETE", {"id": "999", "channel_id": "1"}),
        ("MESSAGE_DELETE_BULK", {"ids": ["998", "999"], "channel_id": "1"}),
        (
            "MESSAGE_REACTION_REMOVE",
            {"message_id": "9", "channel_id": "1", "user_id": "1", "emoji": {"id": "1"}},
        ),
        ("MESSAGE_REACTION_REMOVE_ALL", {"message_id": "9", "channel_id": "1"}),
        ("MESSAGE_POLL_VOTE_REMOVE", {"message_id": "9", "channel_id": "1", "user_id": "1", "answer_id": 1}),
        ("VOICE_STATE_UPDATE", {"user_id": "999", "channel_id": None, "session_id": "x"}),
        ("GUILD_DELETE", {"id": "999"}),
    ],
)
def test_deleting_what_is_not_known_does_nothing(name: str, d: dict[str, Any]) -> None:
    scene = with_ann()
    before = state(scene.view)
    assert scene.tell(name, {**d, **IN_GUILD}) is None
    assert state(scene.view) == before


def test_messages_are_a_ring_per_channel() -> None:
    scene = with_ann()
    for number in range(70, 80):
        scene.tell("MESSAGE_CREATE", message(number))
    kept = [number for number in range(70, 80) if scene.message(TEXT, number) is not None]
    assert kept == [75, 76, 77, 78, 79]
    scene.tell("MESSAGE_DELETE_BULK", {"ids": ["75", "76"], "channel_id": str(TEXT), **IN_GUILD})
    scene.tell("MESSAGE_DELETE", {"id": "77", "channel_id": str(TEXT), **IN_GUILD})
    assert [number for number in range(70, 80) if scene.message(TEXT, number) is not None] == [78, 79]
    assert (scene.child(Kind.CHANNEL, TEXT) or {})["last_message_id"] == "79"


def test_votes_change_the_results_of_a_poll() -> None:
    scene = with_ann()
    scene.tell(
        "MESSAGE_CREATE",
        message(70, poll={"question": {}, "results": {"is_finalized": False, "answer_counts": []}}),
    )
    place = {"channel_id": str(TEXT), "message_id": "70", **IN_GUILD}
    for user_id, answer in ((ANN, 2), (BOT, 1), (BEN, 2)):
        scene.tell("MESSAGE_POLL_VOTE_ADD", {**place, "user_id": str(user_id), "answer_id": answer})
    scene.tell("MESSAGE_POLL_VOTE_REMOVE", {**place, "user_id": str(ANN), "answer_id": 2})
    counts = (scene.message(TEXT, 70) or {})["poll"]["results"]["answer_counts"]
    assert counts == [{"id": 1, "count": 1, "me_voted": True}, {"id": 2, "count": 1, "me_voted": False}]


def test_what_other_events_say_of_members_is_taken() -> None:
    scene = with_ann()
    partial = {"roles": ["40"], "nick": "by message", "joined_at": "2020-01-01T00:00:00+00:00"}
    scene.tell("MESSAGE_CREATE", message(70, member=partial, author=user(ANN, "renamed")))
    found = scene.child(Kind.MEMBER, ANN)
    assert found is not None and found["nick"] == "by message" and found["user"]["username"] == "renamed"
    typing = {
        "channel_id": str(TEXT),
        "user_id": str(ANN),
        "timestamp": 1,
        "member": member(ANN, nick="by typing"),
    }
    scene.tell("TYPING_START", {**typing, **IN_GUILD})
    assert (scene.child(Kind.MEMBER, ANN) or {})["nick"] == "by typing"
    invoked = {"id": "1", "type": 2, "member": {**member(BEN, "ben"), "permissions": "8"}, **IN_GUILD}
    scene.tell("INTERACTION_CREATE", invoked)
    found = scene.child(Kind.MEMBER, BEN)
    assert found is not None and "permissions" not in found


def test_the_same_words_again_after_others_are_news() -> None:
    scene = with_ann()
    one, two = (message(70, author=user(ANN, name)) for name in ("one", "two"))
    for said, expected in ((one, "one"), (one, "one"), (two, "two"), (one, "one")):
        scene.tell("MESSAGE_CREATE", said)
        assert (scene.user(ANN) or {})["username"] == expected
    scene.tell("GUILD_MEMBER_UPDATE", {**member(ANN, "three", nick="n"), **IN_GUILD})
    scene.tell("MESSAGE_CREATE", one)
    assert (scene.user(ANN) or {})["username"] == "one"
    scene.tell("GUILD_CREATE", guild(members=[member(BOT), member(ANN, "four")], channels=[channel(TEXT)]))
    scene.tell("MESSAGE_CREATE", one)
    assert (scene.user(ANN) or {})["username"] == "one"


def test_members_from_other_events_can_be_switched_off() -> None:
    scene = Scene(CachePolicy(members_from_events=False)).start(
        members=[member(BOT), member(ANN)], channels=[channel(TEXT)]
    )
    before = state(scene.view)["member"]
    scene.tell("MESSAGE_CREATE", message(70, member={"roles": ["40"]}, author=user(ANN, "renamed")))
    scene.tell(
        "TYPING_START", {"user_id": str(ANN), "channel_id": str(TEXT), "member": member(ANN, "r"), **IN_GUILD}
    )
    assert state(scene.view)["member"] == before
    assert (scene.child(Kind.CHANNEL, TEXT) or {})["last_message_id"] == "70"


def test_a_chunk_adds_members_and_presences_and_takes_none_away() -> None:
    scene = with_ann()
    presence = {"user": {"id": str(BEN)}, "status": "online", "activities": []}
    chunk = {"members": [member(BEN, "ben")], "presences": [presence], "chunk_index": 0, "chunk_count": 1}
    for _ in range(2):
        scene.tell("GUILD_MEMBERS_CHUNK", {**chunk, **IN_GUILD})
    assert scene.ids(Kind.MEMBER) == [BOT, ANN, BEN] and scene.ids(Kind.PRESENCE) == [BEN]
    assert count(scene) == 2


def test_the_bots_own_user_is_changed_by_its_own_events() -> None:
    scene = with_ann()
    scene.tell("USER_UPDATE", {**user(BOT, "bot 2"), "email": "me@example.org"})
    known = scene.view.current_user()
    assert known is not None and b"bot 2" in known[1] and b"me@example.org" in known[1]
    assert (scene.user(BOT) or {})["username"] == "bot 2" and "email" not in (scene.user(BOT) or {})
    scene.tell("GUILD_MEMBER_UPDATE", {**member(BOT, "bot 3"), **IN_GUILD})
    known = scene.view.current_user()
    assert known is not None and b"bot 3" in known[1] and b"me@example.org" in known[1]


def test_presences_without_activities_keep_the_rest() -> None:
    policy = CachePolicy(activities=False)
    presence = {
        "user": {"id": str(ANN)},
        "status": "idle",
        "activities": [{"name": "x"}],
        "client_status": {"web": "idle"},
    }
    scene = Scene(policy).start(members=[member(BOT), member(ANN)], presences=[presence])
    for _ in range(2):
        found = scene.child(Kind.PRESENCE, ANN)
        assert found is not None and "activities" not in found and found["client_status"] == {"web": "idle"}
        scene.tell("PRESENCE_UPDATE", {**presence, **IN_GUILD})


def test_leaving_one_by_one_leaves_nothing() -> None:
    scene = with_ann()
    scene.tell("GUILD_ROLE_CREATE", {"role": role(40), **IN_GUILD})
    scene.tell("GUILD_DELETE", {"id": str(GUILD)})
    assert entities(scene.storage) == 0


@pytest.mark.checklist("K31")
def test_events_of_a_guild_that_never_came_are_counted_once_each_and_those_of_known_ones_are_not() -> None:
    scene = with_ann()
    scene.tell("MESSAGE_CREATE", message(1))
    scene.tell("PRESENCE_UPDATE", {"user": {"id": str(ANN)}, "status": "idle", "activities": [], **IN_GUILD})
    assert scene.cache.writer.unknown_guilds == {}
    unknown = {"guild_id": str(99 << 40)}
    events = [
        ("MESSAGE_CREATE", {**message(2), "channel_id": "777", "member": member(ANN), **unknown}),
        ("PRESENCE_UPDATE", {"user": {"id": str(ANN)}, "status": "idle", "activities": [], **unknown}),
        ("GUILD_MEMBER_ADD", {**member(BEN), **unknown}),
        ("GUILD_MEMBER_REMOVE", {"user": user(BEN), **unknown}),
        ("CHANNEL_CREATE", {**channel(55), **unknown}),
        ("GUILD_ROLE_CREATE", {"role": role(66), **unknown}),
    ]
    for number, (name, d) in enumerate(events, 1):
        scene.tell(name, d)
        assert scene.cache.writer.unknown_guilds == {0: number}, name
