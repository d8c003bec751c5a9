"""Payloads of the simulated world have the fields that Discord's documentation promises, in all variants."""

from __future__ import annotations

import random
from collections import defaultdict
from functools import cache
from typing import Any

import pytest
from rateway_simulator.world import snapshot
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.mix import DEFAULT_MIX
from rateway_simulator.world.steps import step
from rateway_simulator.world.world import World

Json = dict[str, Any]

USER = (
    "id username discriminator global_name avatar bot system banner accent_color public_flags avatar_decoration_data "
    "collectibles primary_guild"
)
MEMBER = (
    "nick avatar banner roles joined_at premium_since deaf mute flags pending communication_disabled_until "
    "avatar_decoration_data collectibles"
)
GUILD = (
    "id name icon icon_hash splash discovery_splash owner_id afk_channel_id afk_timeout widget_enabled "
    "widget_channel_id verification_level default_message_notifications explicit_content_filter roles emojis features "
    "mfa_level application_id system_channel_id system_channel_flags rules_channel_id max_presences max_members "
    "vanity_url_code description banner premium_tier premium_subscription_count preferred_locale "
    "public_updates_channel_id max_video_channel_users max_stage_video_channel_users nsfw_level stickers "
    "premium_progress_bar_enabled safety_alerts_channel_id incidents_data"
)
GUILD_CREATE = GUILD + (
    " joined_at large unavailable member_count voice_states members channels threads presences stage_instances "
    "guild_scheduled_events soundboard_sounds"
)
CHANNEL = "id type name position permission_overwrites parent_id nsfw flags"
TEXT = CHANNEL + (
    " topic last_message_id last_pin_timestamp rate_limit_per_user default_auto_archive_duration "
    "default_thread_rate_limit_per_user"
)
VOICE = CHANNEL + " bitrate user_limit rtc_region video_quality_mode last_message_id rate_limit_per_user"
FORUM = TEXT + " available_tags default_reaction_emoji default_sort_order"
CHANNELS = {
    0: TEXT,
    2: VOICE,
    4: CHANNEL,
    5: TEXT,
    13: VOICE + " topic",
    14: CHANNEL,
    15: FORUM + " default_forum_layout",
    16: FORUM,
}
THREAD = (
    "id guild_id parent_id owner_id type name last_message_id last_pin_timestamp rate_limit_per_user thread_metadata "
    "message_count member_count total_message_sent flags"
)
MESSAGE = (
    "id channel_id author content timestamp edited_timestamp tts mention_everyone mentions mention_roles attachments "
    "embeds pinned type flags components channel_type"
)
INTERACTION = (
    "id application_id type data token version app_permissions locale entitlements authorizing_integration_owners "
    "context attachment_size_limit channel_id channel"
)
ENTITLEMENT = "id sku_id application_id type deleted starts_at ends_at consumed"
SUBSCRIPTION = (
    "id user_id sku_ids entitlement_ids renewal_sku_ids current_period_start current_period_end status "
    "canceled_at"
)
AUTOMOD = (
    "id guild_id name creator_id event_type trigger_type trigger_metadata actions enabled exempt_roles "
    "exempt_channels"
)
EVENT = (
    "id guild_id channel_id creator_id name description scheduled_start_time scheduled_end_time privacy_level status "
    "entity_type entity_id entity_metadata creator user_count image recurrence_rule"
)
SOUND = "name sound_id volume emoji_id emoji_name guild_id available"
VOICE_STATE = (
    "guild_id channel_id user_id member session_id deaf mute self_deaf self_mute self_video suppress "
    "request_to_speak_timestamp"
)
REACTION = "user_id channel_id message_id burst type emoji message_author_id"
STAGE = "id guild_id channel_id topic privacy_level discoverable_disabled guild_scheduled_event_id"
CHANGED = f"guild_id user {MEMBER}"

# Event → what each of its payloads has (docs: Gateway Events, and the objects' own pages).
FIELDS = {
    "APPLICATION_COMMAND_PERMISSIONS_UPDATE": "id application_id guild_id permissions",
    "AUTO_MODERATION_RULE_CREATE": AUTOMOD,
    "AUTO_MODERATION_RULE_UPDATE": AUTOMOD,
    "AUTO_MODERATION_RULE_DELETE": AUTOMOD,
    "AUTO_MODERATION_ACTION_EXECUTION": (
        "guild_id action rule_id rule_trigger_type user_id channel_id alert_system_message_id content matched_keyword "
        "matched_content"
    ),
    "CHANNEL_CREATE": CHANNEL + " guild_id",
    "CHANNEL_UPDATE": CHANNEL + " guild_id",
    "CHANNEL_DELETE": CHANNEL + " guild_id",
    "CHANNEL_PINS_UPDATE": "guild_id channel_id last_pin_timestamp",
    "ENTITLEMENT_CREATE": ENTITLEMENT,
    "ENTITLEMENT_UPDATE": ENTITLEMENT,
    "ENTITLEMENT_DELETE": ENTITLEMENT,
    "GUILD_AUDIT_LOG_ENTRY_CREATE": "guild_id id user_id target_id action_type changes",
    "GUILD_BAN_ADD": "guild_id user",
    "GUILD_BAN_REMOVE": "guild_id user",
    "GUILD_CREATE": "id",
    "GUILD_DELETE": "id",
    "GUILD_EMOJIS_UPDATE": "guild_id emojis",
    "GUILD_INTEGRATIONS_UPDATE": "guild_id",
    "GUILD_MEMBER_ADD": CHANGED,
    "GUILD_MEMBER_UPDATE": CHANGED,
    "GUILD_MEMBER_REMOVE": "guild_id user",
    "GUILD_ROLE_CREATE": "guild_id role",
    "GUILD_ROLE_UPDATE": "guild_id role",
    "GUILD_ROLE_DELETE": "guild_id role_id",
    "GUILD_SCHEDULED_EVENT_CREATE": EVENT,
    "GUILD_SCHEDULED_EVENT_UPDATE": EVENT,
    "GUILD_SCHEDULED_EVENT_DELETE": EVENT,
    "GUILD_SCHEDULED_EVENT_USER_ADD": "guild_scheduled_event_id user_id guild_id",
    "GUILD_SCHEDULED_EVENT_USER_REMOVE": "guild_scheduled_event_id user_id guild_id",
    "GUILD_SOUNDBOARD_SOUND_CREATE": SOUND,
    "GUILD_SOUNDBOARD_SOUND_UPDATE": SOUND,
    "GUILD_SOUNDBOARD_SOUND_DELETE": "sound_id guild_id",
    "GUILD_SOUNDBOARD_SOUNDS_UPDATE": "soundboard_sounds guild_id",
    "GUILD_STICKERS_UPDATE": "guild_id stickers",
    "GUILD_UPDATE": GUILD,
    "INTEGRATION_CREATE": "id name type enabled account guild_id",
    "INTEGRATION_UPDATE": "id name type enabled account guild_id",
    "INTEGRATION_DELETE": "id guild_id",
    "INTERACTION_CREATE": INTERACTION + " guild_id guild guild_locale member",
    "INVITE_CREATE": "channel_id code created_at guild_id inviter max_age max_uses temporary uses expires_at",
    "INVITE_DELETE": "channel_id guild_id code",
    "MESSAGE_CREATE": MESSAGE,
    "MESSAGE_UPDATE": MESSAGE,
    "MESSAGE_DELETE": "id channel_id",
    "MESSAGE_DELETE_BULK": "ids channel_id guild_id",
    "MESSAGE_POLL_VOTE_ADD": "user_id channel_id message_id guild_id answer_id",
    "MESSAGE_POLL_VOTE_REMOVE": "user_id channel_id message_id guild_id answer_id",
    "MESSAGE_REACTION_ADD": REACTION,
    "MESSAGE_REACTION_REMOVE": "user_id channel_id message_id guild_id emoji burst type",
    "MESSAGE_REACTION_REMOVE_ALL": "channel_id message_id guild_id",
    "MESSAGE_REACTION_REMOVE_EMOJI": "channel_id message_id guild_id emoji",
    "PRESENCE_UPDATE": "user guild_id status activities client_status",
    "STAGE_INSTANCE_CREATE": STAGE,
    "STAGE_INSTANCE_UPDATE": STAGE,
    "STAGE_INSTANCE_DELETE": STAGE,
    "SUBSCRIPTION_CREATE": SUBSCRIPTION,
    "SUBSCRIPTION_UPDATE": SUBSCRIPTION,
    "SUBSCRIPTION_DELETE": SUBSCRIPTION,
    "THREAD_CREATE": THREAD,
    "THREAD_UPDATE": THREAD,
    "THREAD_DELETE": "id guild_id parent_id type",
    "THREAD_LIST_SYNC": "guild_id threads members",
    "THREAD_MEMBER_UPDATE": "id user_id join_timestamp flags guild_id",
    "THREAD_MEMBERS_UPDATE": "id guild_id member_count added_members removed_member_ids",
    "TYPING_START": "channel_id user_id timestamp guild_id member",
    "USER_UPDATE": "id username discriminator global_name avatar bot verified mfa_enabled flags",
    "VOICE_CHANNEL_EFFECT_SEND": "channel_id guild_id user_id emoji animation_type animation_id",
    "VOICE_CHANNEL_START_TIME_UPDATE": "id guild_id voice_start_time",
    "VOICE_CHANNEL_STATUS_UPDATE": "id guild_id status",
    "VOICE_SERVER_UPDATE": "token guild_id endpoint",
    "VOICE_STATE_UPDATE": VOICE_STATE,
    "WEBHOOKS_UPDATE": "guild_id channel_id",
}
# What only some payloads of an event have, and each of these at least one.
SOMETIMES = {
    "MESSAGE_CREATE": (
        "guild_id member webhook_id nonce message_reference referenced_message message_snapshots poll sticker_items "
        "activity application application_id position"
    ),
    "THREAD_CREATE": "newly_created member applied_tags",
    "THREAD_LIST_SYNC": "channel_ids",
    "VOICE_CHANNEL_EFFECT_SEND": "sound_id sound_volume",
    "MESSAGE_REACTION_ADD": "member guild_id burst_colors",
    "INTEGRATION_CREATE": "application syncing expire_behavior synced_at subscriber_count",
    "INTEGRATION_DELETE": "application_id",
    "ENTITLEMENT_CREATE": "user_id guild_id",
    "GUILD_AUDIT_LOG_ENTRY_CREATE": "options reason",
    "GUILD_DELETE": "unavailable",
}


@cache
def seen() -> dict[str, list[Json]]:
    """Payloads of a long run in which all events are about as frequent."""
    mix = dict.fromkeys(DEFAULT_MIX, 1.0) | {"MESSAGE_CREATE": 25.0}
    world = World(WorldOptions(guilds=3, members_per_guild=15, mix=mix))
    chance = random.Random(5)
    found: dict[str, list[Json]] = defaultdict(list)
    for _ in range(40_000):
        dispatch = step(world, chance)
        found[dispatch.name].append(dict(dispatch.d))
    return found


def test_the_table_knows_every_event_of_the_mix() -> None:
    assert set(FIELDS) == set(DEFAULT_MIX)


@pytest.mark.parametrize("name", FIELDS)
def test_an_event_has_its_documented_fields_every_time(name: str) -> None:
    wanted = set(FIELDS[name].split())
    payloads = seen()[name]
    assert payloads
    assert [sorted(wanted - d.keys()) for d in payloads if wanted - d.keys()] == []
    assert set(SOMETIMES.get(name, "").split()) - {key for d in payloads for key in d} == set()


def test_a_guild_has_every_documented_field_and_so_have_its_children() -> None:
    world = World(WorldOptions(guilds=40))
    kinds = set()
    for number in world.guild_ids:
        d = snapshot.guild_create(world, number)
        assert set(GUILD_CREATE.split()) <= d.keys()
        for channel in d["channels"]:
            kinds.add(channel["type"])
            assert set(CHANNELS[channel["type"]].split()) <= channel.keys()
        assert all(set(THREAD.split()) <= thread.keys() for thread in d["threads"])
        assert all(set(EVENT.split()) <= event.keys() for event in d["guild_scheduled_events"])
        assert all(set(SOUND.split()) <= sound.keys() for sound in d["soundboard_sounds"])
        for member in d["members"]:
            assert set(MEMBER.split()) | {"user"} <= member.keys()
            assert set(USER.split()) <= member["user"].keys()
    assert kinds == set(CHANNELS)


def test_messages_come_in_all_shapes() -> None:
    messages = seen()["MESSAGE_CREATE"]
    assert {m["type"] for m in messages} >= {0, 7, 8, 19}
    assert any("guild_id" not in m for m in messages)
    assert {type(m["nonce"]) for m in messages} == {type(None), int}
    assert any(m["attachments"] and "waveform" in m["attachments"][0] for m in messages)
    assert any(m["flags"] & 1 << 15 and m["components"][0]["type"] == 17 for m in messages)
    assert any(m["mentions"] and "member" in m["mentions"][0] for m in messages)
    assert any(m["mention_roles"] for m in messages)
    hooked = [m for m in messages if "webhook_id" in m]
    assert hooked and all("member" not in m and m["author"]["id"] == m["webhook_id"] for m in hooked)


def test_presences_have_all_kinds_of_activities() -> None:
    presences = seen()["PRESENCE_UPDATE"]
    kinds = {activity["type"] for d in presences for activity in d["activities"]}
    assert kinds == {0, 1, 2, 4}
    assert {d["status"] for d in presences} == {"online", "idle", "dnd", "offline"}
    assert {client for d in presences for client in d["client_status"]} == {"desktop", "mobile", "web", "vr"}


def test_sound_ids_are_snowflakes_or_small_integers() -> None:
    kinds = {type(d["sound_id"]) for d in seen()["VOICE_CHANNEL_EFFECT_SEND"] if "sound_id" in d}
    assert kinds == {int, str}


@pytest.mark.checklist("K47")
def test_an_effects_emoji_says_whether_it_is_animated_and_only_voice_channels_have_a_status() -> None:
    # py-cord reads both without a default, and ends its bot where they are not as Discord sends them.
    effects = seen()["VOICE_CHANNEL_EFFECT_SEND"]
    assert {d["emoji"]["animated"] for d in effects} == {False}
    world = World(
        WorldOptions(guilds=12, mix=dict.fromkeys(DEFAULT_MIX, 0.0) | {"VOICE_CHANNEL_STATUS_UPDATE": 1})
    )
    source = random.Random(3)
    told = {step(world, source).d["id"] for _ in range(200)}
    kinds = {key: d["type"] for key, d in snapshot.state(world, ["channel"])["channel"].items()}
    assert told and {kinds[channel_id] for channel_id in told} == {2}
