"""The small objects of a guild, each with every field that Discord documents for it."""

from __future__ import annotations

from typing import Any

from rateway_simulator.payloads.channel_types import (
    ANNOUNCEMENT,
    ANNOUNCEMENT_THREAD,
    DIRECTORY,
    FORUM,
    MEDIA,
    PRIVATE_THREAD,
    PUBLIC_THREAD,
    STAGE,
    TEXT,
    VOICE,
)
from rateway_simulator.payloads.values import Json, iso, noise

EVERYONE_PERMISSIONS = "2251804225"
BOT_PERMISSIONS = "8"
UNICODE = ("👍", "❤️", "😂", "🎉", "🔥", "👀", "✅", "🦊")


def role(role_id: str, name: str, position: int, **fields: Any) -> Json:
    """Return a role; `tags` only where given, because a key's presence means something there."""
    return {
        "id": role_id,
        "name": name,
        "description": None,
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "icon": None,
        "unicode_emoji": None,
        "position": position,
        "permissions": EVERYONE_PERMISSIONS if position == 0 else "1071698660929",
        "managed": False,
        "mentionable": False,
        "flags": 0,
        **fields,
    }


def overwrite(target_id: str, kind: int, allow: int = 0, deny: int = 0) -> Json:
    """Return a permission overwrite; `kind` 0 is a role, 1 a member."""
    return {"id": target_id, "type": kind, "allow": str(allow), "deny": str(deny)}


def channel(
    channel_id: str, kind: int, name: str, position: int, parent_id: str | None = None, **fields: Any
) -> Json:
    """Return a channel of a guild without `guild_id`, with the fields that its kind has."""
    d: Json = {
        "id": channel_id,
        "type": kind,
        "name": name,
        "position": position,
        "flags": 0,
        "parent_id": parent_id,
        "permission_overwrites": [],
        "nsfw": False,
    }
    if kind in (TEXT, ANNOUNCEMENT, FORUM, MEDIA):
        d |= {
            "topic": None,
            "last_message_id": None,
            "last_pin_timestamp": None,
            "rate_limit_per_user": 0,
            "default_auto_archive_duration": 4320,
            "default_thread_rate_limit_per_user": 0,
            "application_id": None,
        }
    if kind in (VOICE, STAGE):
        d |= {
            "bitrate": 64000,
            "user_limit": 0,
            "rtc_region": None,
            "video_quality_mode": 1,
            "last_message_id": None,
            "rate_limit_per_user": 0,
        }
    if kind == STAGE:
        d["topic"] = None
    if kind in (FORUM, MEDIA):
        d |= {
            "available_tags": [
                {
                    "id": str(int(channel_id) + 1_000_000),
                    "name": "solved",
                    "moderated": True,
                    "emoji_id": None,
                    "emoji_name": "✅",
                },
                {
                    "id": str(int(channel_id) + 1_000_001),
                    "name": "idea",
                    "moderated": False,
                    "emoji_id": None,
                    "emoji_name": None,
                },
            ],
            "default_reaction_emoji": {"emoji_id": None, "emoji_name": "👍"},
            "default_sort_order": None,
            "default_tag_setting": "match_some",
            "template": "",
        }
    if kind == FORUM:
        d["default_forum_layout"] = 1
    if kind == DIRECTORY:
        d["topic"] = "Guilds of this hub"
    d.update(fields)
    return d


def thread(
    thread_id: str,
    guild_id: str,
    kind: int,
    name: str,
    parent_id: str,
    owner_id: str,
    wall: float,
    **fields: Any,
) -> Json:
    """Return an active thread without the bot's own `member`."""
    metadata: Json = {
        "archived": False,
        "auto_archive_duration": 1440,
        "archive_timestamp": iso(wall),
        "locked": False,
        "create_timestamp": iso(wall),
    }
    if kind == PRIVATE_THREAD:
        metadata["invitable"] = True
    return {
        "id": thread_id,
        "guild_id": guild_id,
        "parent_id": parent_id,
        "owner_id": owner_id,
        "type": kind,
        "name": name,
        "last_message_id": None,
        "last_pin_timestamp": None,
        "rate_limit_per_user": 0,
        "thread_metadata": metadata,
        "message_count": 0,
        "member_count": 1,
        "total_message_sent": 0,
        "flags": 0,
        "applied_tags": [],
        **fields,
    }


def thread_kind(parent: Json) -> int:
    """Return the kind of a public thread below this channel."""
    return ANNOUNCEMENT_THREAD if parent["type"] == ANNOUNCEMENT else PUBLIC_THREAD


def thread_member(thread_id: str, user_id: str, wall: float) -> Json:
    """Return a thread member: the user and the time at which it joined."""
    return {"id": thread_id, "user_id": user_id, "join_timestamp": iso(wall), "flags": 1}


def emoji(emoji_id: str, name: str, *, animated: bool = False, roles: list[str] | None = None) -> Json:
    """Return a guild's emoji; the gateway omits its `user`."""
    return {
        "id": emoji_id,
        "name": name,
        "roles": roles or [],
        "require_colons": True,
        "managed": False,
        "animated": animated,
        "available": True,
    }


def sticker(sticker_id: str, guild_id: str, name: str) -> Json:
    """Return a guild's sticker; the gateway omits its `user`."""
    return {
        "id": sticker_id,
        "name": name,
        "description": f"A sticker called {name}",
        "tags": "wave",
        "type": 2,
        "format_type": 1 + int(sticker_id) % 4,
        "available": True,
        "guild_id": guild_id,
        "asset": "",
    }


def sound(sound_id: str, guild_id: str, name: str) -> Json:
    """Return a guild's soundboard sound; the gateway omits its `user`."""
    return {
        "sound_id": sound_id,
        "name": name,
        "volume": 1.0,
        "emoji_id": None,
        "emoji_name": "🔊",
        "guild_id": guild_id,
        "available": True,
    }


def stage_instance(
    stage_id: str, guild_id: str, channel_id: str, topic: str, event_id: str | None = None
) -> Json:
    """Return a live stage."""
    return {
        "id": stage_id,
        "guild_id": guild_id,
        "channel_id": channel_id,
        "topic": topic,
        "privacy_level": 2,
        "discoverable_disabled": False,
        "guild_scheduled_event_id": event_id,
    }


def scheduled_event(
    event_id: str, guild_id: str, creator: Json, name: str, wall: float, channel: Json | None
) -> Json:
    """Return a scheduled event, at a place outside Discord without `channel`."""
    external = channel is None
    return {
        "id": event_id,
        "guild_id": guild_id,
        "channel_id": None if channel is None else channel["id"],
        "creator_id": creator["id"],
        "name": name,
        "description": "Bring a friend",
        "scheduled_start_time": iso(wall + 86_400),
        "scheduled_end_time": iso(wall + 90_000) if external else None,
        "privacy_level": 2,
        "status": 1,
        "entity_type": 3 if channel is None else (1 if channel["type"] == STAGE else 2),
        "entity_id": None,
        "entity_metadata": {"location": "The old harbour"} if external else None,
        "creator": creator,
        "user_count": 0,
        "image": None,
        "recurrence_rule": None
        if int(event_id) >> 22 & 3
        else {
            "start": iso(wall + 86_400),
            "end": None,
            "frequency": 2,
            "interval": 1,
            "by_weekday": [4],
            "by_n_weekday": None,
            "by_month": None,
            "by_month_day": None,
            "by_year_day": None,
            "count": None,
        },
    }


def voice_state(channel_id: str | None, user_id: str, session_id: str, **fields: Any) -> Json:
    """Return a voice state without `guild_id` and `member`."""
    return {
        "channel_id": channel_id,
        "user_id": user_id,
        "session_id": session_id,
        "deaf": False,
        "mute": False,
        "self_deaf": False,
        "self_mute": False,
        "self_stream": False,
        "self_video": False,
        "suppress": False,
        "request_to_speak_timestamp": None,
        **fields,
    }


def integration(
    integration_id: str, guild_id: str, name: str, kind: str, wall: float, application: Json
) -> Json:
    """Return an integration as INTEGRATION_CREATE has it: without `user`."""
    d: Json = {
        "id": integration_id,
        "guild_id": guild_id,
        "name": name,
        "type": kind,
        "enabled": True,
        "account": {"id": str(noise(int(integration_id)) % 10**12), "name": name},
    }
    if kind == "discord":
        return d | {"application": application, "scopes": ["applications.commands", "bot"]}
    return d | {
        "syncing": False,
        "role_id": None,
        "enable_emoticons": kind == "twitch",
        "expire_behavior": 0,
        "expire_grace_period": 7,
        "synced_at": iso(wall),
        "subscriber_count": 12,
        "revoked": False,
    }


def automod_rule(
    rule_id: str, guild_id: str, creator_id: str, name: str, alert_channel_id: str | None
) -> Json:
    """Return a keyword rule."""
    actions: list[Json] = [{"type": 1, "metadata": {"custom_message": "Please do not."}}]
    if alert_channel_id is not None:
        actions.append({"type": 2, "metadata": {"channel_id": alert_channel_id}})
    return {
        "id": rule_id,
        "guild_id": guild_id,
        "name": name,
        "creator_id": creator_id,
        "event_type": 1,
        "trigger_type": 1,
        "enabled": True,
        "exempt_roles": [],
        "exempt_channels": [],
        "actions": actions,
        "trigger_metadata": {"keyword_filter": ["spam*"], "regex_patterns": [], "allow_list": []},
    }


def entitlement(
    entitlement_id: str, application_id: str, user_id: str | None, guild_id: str | None, wall: float
) -> Json:
    """Return an application subscription's entitlement; of a guild or of a user."""
    d: Json = {
        "id": entitlement_id,
        "sku_id": "1019475255913222144",
        "application_id": application_id,
        "type": 8,
        "deleted": False,
        "starts_at": iso(wall),
        "ends_at": iso(wall + 2_592_000),
        "consumed": False,
        "subscription_id": str(int(entitlement_id) + 1),
        "promotion_id": None,
        "gift_code_flags": 0,
    }
    if user_id is not None:
        d["user_id"] = user_id
    if guild_id is not None:
        d["guild_id"] = guild_id
    return d


def subscription(subscription_id: str, user_id: str, wall: float) -> Json:
    """Return a user's subscription to the application."""
    return {
        "id": subscription_id,
        "user_id": user_id,
        "sku_ids": ["1019475255913222144"],
        "entitlement_ids": [str(int(subscription_id) - 1)],
        "renewal_sku_ids": None,
        "status": 0,
        "country": "SE",
        "current_period_start": iso(wall),
        "current_period_end": iso(wall + 2_592_000),
        "canceled_at": None,
    }
