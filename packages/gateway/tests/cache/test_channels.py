"""Channels, threads and roles, and what hangs on them."""

from __future__ import annotations

from typing import Any

import pytest
from rateway.cache.kinds import Kind
from rateway_protocol.discord.snowflake import shard_of
from tests.cache.scene import BOT, GUILD, Scene, channel, decode_raw, member, role, thread, user

ANN = 11 << 40
TEXT, VOICE, FORUM, NEWS = 20, 21, 22, 23
IN_GUILD = {"guild_id": str(GUILD)}


def full() -> Scene:
    return Scene().start(
        channels=[channel(TEXT), channel(VOICE, 2), channel(FORUM, 15)],
        threads=[thread(30, TEXT, member={"flags": 1, "join_timestamp": "t"}), thread(31, FORUM)],
        members=[member(BOT), member(ANN)],
        roles=[role(GUILD), role(40)],
    )


def message(message_id: int, channel_id: int, **fields: Any) -> dict[str, Any]:
    return {"id": str(message_id), "channel_id": str(channel_id), "author": user(ANN), **IN_GUILD, **fields}


@pytest.mark.checklist("F1")
def test_a_deleted_channel_takes_its_threads_and_messages_with_it() -> None:
    scene = full()
    scene.tell("MESSAGE_CREATE", message(70, TEXT))
    scene.tell("MESSAGE_CREATE", message(71, 30))
    scene.tell("CHANNEL_DELETE", {**channel(TEXT), **IN_GUILD})
    assert scene.ids(Kind.CHANNEL) == [VOICE, FORUM] and scene.ids(Kind.THREAD) == [31]
    assert scene.ids(Kind.THREAD_MEMBER) == []
    assert scene.message(TEXT, 70) is None and scene.message(30, 71) is None
    assert scene.view.home(Kind.THREAD, 30) is None


@pytest.mark.checklist("F2")
def test_a_deleted_voice_channel_takes_stage_event_and_voice_states_with_it() -> None:
    scene = full()
    scene.tell("STAGE_INSTANCE_CREATE", {"id": "60", "channel_id": str(VOICE), **IN_GUILD})
    for event_id, place in ((61, str(VOICE)), (62, None)):
        scene.tell(
            "GUILD_SCHEDULED_EVENT_CREATE",
            {"id": str(event_id), "channel_id": place, "status": 1, **IN_GUILD},
        )
    scene.tell(
        "VOICE_STATE_UPDATE", {"user_id": str(ANN), "channel_id": str(VOICE), "session_id": "x", **IN_GUILD}
    )
    scene.tell("VOICE_CHANNEL_STATUS_UPDATE", {"id": str(VOICE), "status": "hello", **IN_GUILD})
    scene.tell("CHANNEL_DELETE", {**channel(VOICE, 2), **IN_GUILD})
    for kind in (Kind.STAGE, Kind.VOICE_STATE, Kind.SIDE):
        assert scene.ids(kind) == []
    assert scene.ids(Kind.SCHEDULED_EVENT) == [62]
    assert scene.ids(Kind.MEMBER) == [BOT, ANN]


def test_a_deleted_category_leaves_its_children_dangling() -> None:
    scene = full()
    scene.tell("CHANNEL_CREATE", {**channel(24, 4), **IN_GUILD})
    scene.tell("CHANNEL_UPDATE", {**channel(TEXT, parent_id="24"), **IN_GUILD})
    scene.tell("CHANNEL_DELETE", {**channel(24, 4), **IN_GUILD})
    found = scene.child(Kind.CHANNEL, TEXT)
    assert found is not None and found["parent_id"] == "24"


@pytest.mark.checklist("F3")
def test_a_thread_list_sync_clears_parents_that_have_no_threads() -> None:
    scene = full()
    scene.tell("THREAD_LIST_SYNC", {"channel_ids": [str(TEXT)], "threads": [], "members": [], **IN_GUILD})
    assert scene.ids(Kind.THREAD) == [31]


@pytest.mark.checklist("F4")
def test_a_thread_list_sync_without_channel_ids_speaks_for_the_guild() -> None:
    scene = full()
    own = {"id": "32", "user_id": str(BOT), "flags": 0}
    scene.tell("THREAD_LIST_SYNC", {"threads": [thread(32, TEXT)], "members": [own], **IN_GUILD})
    assert scene.ids(Kind.THREAD) == [32]
    assert (scene.child(Kind.THREAD, 32) or {})["member"] == own
    scene.tell(
        "THREAD_LIST_SYNC",
        {"channel_ids": [str(FORUM)], "threads": [thread(33, FORUM)], "members": [], **IN_GUILD},
    )
    assert scene.ids(Kind.THREAD) == [32, 33]


@pytest.mark.checklist("F5")
def test_an_update_of_an_unknown_thread_that_is_not_archived_inserts_it() -> None:
    scene = full()
    scene.tell("THREAD_UPDATE", {**thread(34, TEXT), **IN_GUILD})
    assert scene.ids(Kind.THREAD) == [30, 31, 34]


@pytest.mark.checklist("F6")
def test_an_archived_thread_is_forgotten() -> None:
    scene = full()
    scene.tell("MESSAGE_CREATE", message(71, 30))
    scene.tell("THREAD_UPDATE", {**thread(30, TEXT, thread_metadata={"archived": True}), **IN_GUILD})
    assert scene.ids(Kind.THREAD) == [31] and scene.message(30, 71) is None


@pytest.mark.checklist("F7")
def test_four_fields_are_enough_to_delete_a_thread() -> None:
    scene = full()
    scene.tell("THREAD_DELETE", {"id": "30", "parent_id": str(TEXT), "type": 11, **IN_GUILD})
    assert scene.ids(Kind.THREAD) == [31] and scene.ids(Kind.THREAD_MEMBER) == []


@pytest.mark.checklist("F8")
def test_a_thread_created_and_then_joined_is_one_thread() -> None:
    scene = full()
    scene.tell("THREAD_CREATE", {**thread(35, FORUM), "newly_created": True, **IN_GUILD})
    count = scene.cache.writer.counts[Kind.THREAD]
    scene.tell("THREAD_CREATE", {**thread(35, FORUM), "member": {"flags": 3}, **IN_GUILD})
    assert scene.cache.writer.counts[Kind.THREAD] == count == 3
    found = scene.child(Kind.THREAD, 35)
    assert found is not None and found["member"] == {"flags": 3, "id": "35", "user_id": str(BOT)}
    assert "newly_created" not in found
    assert (scene.child(Kind.CHANNEL, FORUM) or {})["last_message_id"] == "35"


@pytest.mark.checklist("F9")
def test_a_private_thread_that_the_bot_is_taken_out_of_goes() -> None:
    scene = Scene().start(
        channels=[channel(TEXT)], owner_id=str(ANN),
        threads=[thread(30, TEXT, type=12, member={"flags": 1}), thread(31, TEXT, member={"flags": 1})],
    )  # fmt: skip
    for thread_id in (30, 31):
        out = {"id": str(thread_id), "member_count": 1, "removed_member_ids": [str(BOT)], **IN_GUILD}
        scene.tell("THREAD_MEMBERS_UPDATE", out)
    assert scene.ids(Kind.THREAD) == [31] and scene.ids(Kind.THREAD_MEMBER) == []


@pytest.mark.checklist("F9")
def test_a_private_thread_stays_if_the_bot_may_manage_threads() -> None:
    scene = Scene().start(channels=[channel(TEXT)], threads=[thread(30, TEXT, type=12, member={"flags": 1})])
    scene.tell(
        "THREAD_MEMBERS_UPDATE", {"id": "30", "member_count": 0, "removed_member_ids": [str(BOT)], **IN_GUILD}
    )
    assert scene.ids(Kind.THREAD) == [30]


@pytest.mark.checklist("F10")
def test_a_text_channel_that_becomes_an_announcement_channel_changes_its_type() -> None:
    scene = full()
    scene.tell("MESSAGE_CREATE", message(700, TEXT))
    scene.tell("CHANNEL_UPDATE", {**channel(TEXT, 5, last_message_id="600"), **IN_GUILD})
    found = scene.child(Kind.CHANNEL, TEXT)
    assert found is not None and found["type"] == 5
    assert found["last_message_id"] == "700"


def test_fields_that_no_longer_apply_vanish_with_an_update() -> None:
    scene = full()
    scene.tell("CHANNEL_UPDATE", {**channel(TEXT, rate_limit_per_user=5), **IN_GUILD})
    scene.tell("CHANNEL_UPDATE", {**channel(TEXT), **IN_GUILD})
    assert "rate_limit_per_user" not in (scene.child(Kind.CHANNEL, TEXT) or {})


@pytest.mark.checklist("F11", "F12")
def test_a_deleted_role_leaves_members_emojis_and_overwrites() -> None:
    named = [str(40), str(41)]
    overwrites = [{"id": str(entity_id), "type": 0, "allow": "0", "deny": "0"} for entity_id in (40, 41, 99)]
    scene = Scene().start(
        members=[member(BOT), member(ANN, roles=named)],
        roles=[role(GUILD), role(40), role(41)],
        emojis=[{"id": "50", "name": "e", "roles": named}],
        channels=[channel(TEXT, permission_overwrites=overwrites)],
    )
    scene.tell("GUILD_ROLE_DELETE", {"role_id": "40", **IN_GUILD})
    assert scene.ids(Kind.ROLE) == [41, GUILD]
    assert (scene.child(Kind.MEMBER, ANN) or {})["roles"] == ["41"]
    assert (scene.child(Kind.EMOJI, 50) or {})["roles"] == ["41"]
    kept = [item["id"] for item in (scene.child(Kind.CHANNEL, TEXT) or {})["permission_overwrites"]]
    assert kept == ["41", "99"]  # 99 names nothing that is known, and stays
    scene.tell("GUILD_MEMBER_UPDATE", {**member(ANN, roles=["40", "41", "77"]), **IN_GUILD})
    assert (scene.child(Kind.MEMBER, ANN) or {})["roles"] == ["41", "77"]


@pytest.mark.checklist("F13")
def test_the_message_that_began_a_thread_does_not_count() -> None:
    scene = full()
    scene.tell("MESSAGE_CREATE", message(31, 31))
    scene.tell("MESSAGE_CREATE", message(72, 31))
    scene.tell("MESSAGE_CREATE", message(73, 31))
    scene.tell("MESSAGE_DELETE", {"id": "72", "channel_id": "31", **IN_GUILD})
    found = scene.child(Kind.THREAD, 31)
    assert found is not None
    assert (found["message_count"], found["total_message_sent"], found["last_message_id"]) == (1, 2, "73")
    scene.tell("THREAD_UPDATE", {**thread(31, FORUM, message_count=7, total_message_sent=9), **IN_GUILD})
    found = scene.child(Kind.THREAD, 31)
    assert found is not None and (found["message_count"], found["total_message_sent"]) == (7, 9)


@pytest.mark.checklist("F14")
def test_guilds_with_large_ids_have_a_shard() -> None:
    vectors = [(860338524707094538, 5, 2), (249259087496216576, 400, 269), (81384788765712384, 16, 2)]
    assert [shard_of(guild_id, count) for guild_id, count, _ in vectors] == [shard for _, _, shard in vectors]
    top = (1 << 64) - 1
    scene = Scene()
    scene.ready(top)
    scene.tell(
        "GUILD_CREATE", {"id": str(top), "name": "top", "channels": [channel(top - 1)], "roles": [role(top)]}
    )
    assert scene.ids(Kind.CHANNEL, top) == [top - 1] and scene.ids(Kind.ROLE, top) == [top]
    assert [guild_id for guild_id, _ in scene.view.guild_rows()] == [top]


@pytest.mark.checklist("F15")
def test_a_stage_that_ends_twice_ends_once() -> None:
    scene = full()
    scene.tell("STAGE_INSTANCE_CREATE", {"id": "60", "channel_id": str(VOICE), "topic": "a", **IN_GUILD})
    scene.tell("STAGE_INSTANCE_UPDATE", {"id": "60", "channel_id": str(VOICE), "topic": "b", **IN_GUILD})
    assert (scene.child(Kind.STAGE, 60) or {})["topic"] == "b"
    for _ in range(2):
        scene.tell("STAGE_INSTANCE_DELETE", {"id": "60", "channel_id": str(VOICE), **IN_GUILD})
        assert scene.cache.writer.counts[Kind.STAGE] == 0


@pytest.mark.checklist("F16")
@pytest.mark.parametrize("name", ["GUILD_SCHEDULED_EVENT_DELETE", "GUILD_SCHEDULED_EVENT_UPDATE"])
def test_a_scheduled_event_that_is_over_goes(name: str) -> None:
    scene = full()
    scene.tell("GUILD_SCHEDULED_EVENT_CREATE", {"id": "61", "status": 1, "user_count": 3, **IN_GUILD})
    status = 1 if name.endswith("DELETE") else 4  # "Cancel event" comes as a deletion with status 1
    scene.tell(name, {"id": "61", "status": status, **IN_GUILD})
    assert scene.ids(Kind.SCHEDULED_EVENT) == []


@pytest.mark.checklist("H20")
def test_users_of_a_scheduled_event_are_counted_once_over_replays() -> None:
    scene = full()
    scene.tell("GUILD_SCHEDULED_EVENT_CREATE", {"id": "61", "status": 1, "user_count": 3, **IN_GUILD})
    joined = {"guild_scheduled_event_id": "61", "user_id": str(ANN), **IN_GUILD}
    scene.tell("GUILD_SCHEDULED_EVENT_USER_ADD", joined)
    scene.seq -= 1
    scene.tell("GUILD_SCHEDULED_EVENT_USER_ADD", joined)  # the same number again: a replay
    assert (scene.child(Kind.SCHEDULED_EVENT, 61) or {})["user_count"] == 4
    scene.tell("GUILD_SCHEDULED_EVENT_UPDATE", {"id": "61", "status": 2, **IN_GUILD})
    assert (scene.child(Kind.SCHEDULED_EVENT, 61) or {})["user_count"] == 4
    scene.tell("GUILD_SCHEDULED_EVENT_USER_REMOVE", joined)
    assert (scene.child(Kind.SCHEDULED_EVENT, 61) or {})["user_count"] == 3


def test_pins_are_noted_on_channels_and_threads() -> None:
    scene = full()
    for channel_id in (TEXT, 30):
        pins = {"channel_id": str(channel_id), "last_pin_timestamp": "2026-01-01T00:00:00+00:00", **IN_GUILD}
        scene.tell("CHANNEL_PINS_UPDATE", pins)
    assert (scene.child(Kind.CHANNEL, TEXT) or {})["last_pin_timestamp"].startswith("2026")
    assert (scene.child(Kind.THREAD, 30) or {})["last_pin_timestamp"].startswith("2026")
    scene.tell("CHANNEL_PINS_UPDATE", {"channel_id": str(TEXT), **IN_GUILD})
    assert (scene.child(Kind.CHANNEL, TEXT) or {})["last_pin_timestamp"] is None


def test_statuses_of_voice_channels_stand_beside_the_channel() -> None:
    scene = full()
    before = scene.child(Kind.CHANNEL, VOICE)
    scene.tell("CHANNEL_INFO", {"channels": [{"id": str(VOICE), "status": "music"}], **IN_GUILD})
    scene.tell("VOICE_CHANNEL_START_TIME_UPDATE", {"id": str(VOICE), "voice_start_time": 5, **IN_GUILD})
    assert scene.child(Kind.CHANNEL, VOICE) == before
    number = scene.view.number_of(GUILD)
    assert number is not None
    assert decode_raw(scene.view.channel_details(number, VOICE)) == {"status": "music", "voice_start_time": 5}


def test_soundboard_sounds_are_added_by_their_events_and_replaced_by_a_whole_list() -> None:
    scene = full()
    scene.tell("GUILD_SOUNDBOARD_SOUND_CREATE", {"sound_id": "1", "name": "a", "user": user(ANN), **IN_GUILD})
    scene.tell(
        "GUILD_SOUNDBOARD_SOUNDS_UPDATE", {"soundboard_sounds": [{"sound_id": "2", "name": "b"}], **IN_GUILD}
    )
    scene.tell("GUILD_SOUNDBOARD_SOUND_UPDATE", {"sound_id": "1", "name": "c", **IN_GUILD})
    assert scene.ids(Kind.SOUND) == [1, 2]
    assert (scene.child(Kind.SOUND, 1) or {})["user"]["id"] == str(ANN)
    scene.tell("SOUNDBOARD_SOUNDS", {"soundboard_sounds": [{"sound_id": "1", "name": "d"}], **IN_GUILD})
    assert scene.ids(Kind.SOUND) == [1] and (scene.child(Kind.SOUND, 1) or {})["name"] == "d"
    scene.tell("GUILD_SOUNDBOARD_SOUND_DELETE", {"sound_id": "1", **IN_GUILD})
    assert scene.ids(Kind.SOUND) == []


def test_emojis_and_stickers_are_complete_sets_that_keep_their_makers() -> None:
    maker = user(ANN)
    scene = Scene().start(
        emojis=[{"id": "50", "name": "a", "user": maker}, {"id": "52", "name": "b"}],
        stickers=[{"id": "51", "name": "s", "user": maker}],
    )
    scene.tell("GUILD_EMOJIS_UPDATE", {"emojis": [{"id": "50", "name": "renamed"}], **IN_GUILD})
    scene.tell("GUILD_STICKERS_UPDATE", {"stickers": [{"id": "51", "name": "t"}], **IN_GUILD})
    assert scene.ids(Kind.EMOJI) == [50]
    assert scene.child(Kind.EMOJI, 50) == {"id": "50", "name": "renamed", "user": maker, **IN_GUILD}
    assert (scene.child(Kind.STICKER, 51) or {})["user"] == maker


def test_integrations_are_merged_and_removed() -> None:
    scene = full()
    scene.tell("INTEGRATION_CREATE", {"id": "80", "name": "a", "user": user(ANN), **IN_GUILD})
    scene.tell("INTEGRATION_UPDATE", {"id": "80", "name": "b", **IN_GUILD})
    assert scene.child(Kind.INTEGRATION, 80) == {"id": "80", "name": "b", "user": user(ANN), **IN_GUILD}
    scene.tell("INTEGRATION_DELETE", {"id": "80", **IN_GUILD})
    assert scene.ids(Kind.INTEGRATION) == []
