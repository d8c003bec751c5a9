"""Permissions of a member by Discord's own rules, computed from the cache.

Source: https://docs.discord.com/developers/topics/permissions (hierarchy, overwrites, implicit permissions, threads,
timed out members). An overwrite or a member that names a role that is not there is no error: the role is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec
from rateway.cache.kinds import Kind
from rateway.cache.reader import THREAD_TYPES, View
from rateway.native.objects.fields import Fields, fields_inside, objects_inside, raws_inside, snowflake

__all__ = [
    "ADMINISTRATOR",
    "ALL",
    "MANAGE_THREADS",
    "VIEW_CHANNEL",
    "Overwrite",
    "channel_permissions",
    "guild_permissions",
    "permissions",
]

CREATE_INSTANT_INVITE = 1 << 0
ADMINISTRATOR = 1 << 3
MANAGE_CHANNELS = 1 << 4
PRIORITY_SPEAKER = 1 << 8
STREAM = 1 << 9
VIEW_CHANNEL = 1 << 10
SEND_MESSAGES = 1 << 11
SEND_TTS_MESSAGES = 1 << 12
EMBED_LINKS = 1 << 14
ATTACH_FILES = 1 << 15
READ_MESSAGE_HISTORY = 1 << 16
MENTION_EVERYONE = 1 << 17
CONNECT = 1 << 20
SPEAK = 1 << 21
MUTE_MEMBERS = 1 << 22
DEAFEN_MEMBERS = 1 << 23
MOVE_MEMBERS = 1 << 24
USE_VAD = 1 << 25
MANAGE_ROLES = 1 << 28
REQUEST_TO_SPEAK = 1 << 32
MANAGE_THREADS = 1 << 34
SEND_MESSAGES_IN_THREADS = 1 << 38
USE_EMBEDDED_ACTIVITIES = 1 << 39
USE_SOUNDBOARD = 1 << 42
USE_EXTERNAL_SOUNDS = 1 << 45
SET_VOICE_CHANNEL_STATUS = 1 << 48

# Bits 0 to 52 are documented, 47 is not.
ALL = ((1 << 53) - 1) & ~(1 << 47)

# Who is timed out keeps these only.
TIMED_OUT = VIEW_CHANNEL | READ_MESSAGE_HISTORY

# Worth nothing where one cannot send.
WITHOUT_SENDING = MENTION_EVERYONE | SEND_TTS_MESSAGES | ATTACH_FILES | EMBED_LINKS

# Worth nothing in a voice or stage channel that one cannot connect to.
WITHOUT_CONNECTING = (
    PRIORITY_SPEAKER | STREAM | CONNECT | SPEAK | MUTE_MEMBERS | DEAFEN_MEMBERS | MOVE_MEMBERS | USE_VAD
    | REQUEST_TO_SPEAK | USE_EMBEDDED_ACTIVITIES | USE_SOUNDBOARD | USE_EXTERNAL_SOUNDS | SET_VOICE_CHANNEL_STATUS
    | MANAGE_CHANNELS | MANAGE_ROLES
)  # fmt: skip

# https://docs.discord.com/developers/resources/channel#channel-object-channel-types
VOICE_TYPES = frozenset({2, 13})


@dataclass(frozen=True, slots=True)
class Overwrite:
    """A channel's exception for one role or member."""

    id: int
    allow: int
    deny: int


def guild_permissions(
    guild_id: int, owner_id: int | None, user_id: int, role_ids: Iterable[int], roles: dict[int, int]
) -> int:
    """Return a member's permissions in the guild as a whole. ``roles``: the guild's roles and their permissions."""
    if user_id == owner_id:
        return ALL
    granted = roles.get(guild_id, 0)
    for role_id in role_ids:
        granted |= roles.get(role_id, 0)
    return ALL if granted & ADMINISTRATOR else granted


def channel_permissions(
    base: int,
    guild_id: int,
    user_id: int,
    role_ids: Iterable[int],
    overwrites: Iterable[Overwrite],
    channel_type: int,
) -> int:
    """Return what is left of ``base`` in a channel, and added to it. Threads: their parent's overwrites, their own
    type.
    """
    if base & ADMINISTRATOR:
        return ALL
    by_id = {overwrite.id: overwrite for overwrite in overwrites}
    granted = base
    if (everyone := by_id.get(guild_id)) is not None:
        granted = granted & ~everyone.deny | everyone.allow
    allow = deny = 0
    for role_id in role_ids:
        if role_id != guild_id and (overwrite := by_id.get(role_id)) is not None:
            allow |= overwrite.allow
            deny |= overwrite.deny
    granted = granted & ~deny | allow
    if (own := by_id.get(user_id)) is not None:
        granted = granted & ~own.deny | own.allow
    return _implied(granted, channel_type)


def _implied(granted: int, channel_type: int) -> int:
    if not granted & VIEW_CHANNEL:
        return 0
    sends = SEND_MESSAGES_IN_THREADS if channel_type in THREAD_TYPES else SEND_MESSAGES
    if not granted & sends:
        granted &= ~WITHOUT_SENDING
    if channel_type in VOICE_TYPES and not granted & CONNECT:
        granted &= ~WITHOUT_CONNECTING
    return granted


def permissions(
    view: View, guild_id: int, user_id: int, channel_id: int | None = None, *, wall: float | None = None
) -> int | None:
    """Return a cached member's permissions, in the guild or in one of its channels; None when one of them is not known.

    ``wall`` in Unix seconds decides about time-outs; without it they are ignored.
    """
    number = view.number_of(guild_id)
    guild = view.guild(guild_id)
    raw = view.entity_store.get(number, Kind.MEMBER, user_id) if number is not None else None
    if number is None or guild is None or raw is None:
        return None
    member = fields_inside(raw)
    role_ids = [held for item in raws_inside(member.get("roles")) if (held := snowflake(item)) is not None]
    owner_id = snowflake(guild.get("owner_id"))
    roles = {
        role_id: snowflake(fields_inside(role).get("permissions")) or 0
        for role_id in (guild_id, *role_ids)
        if (role := view.entity_store.get(number, Kind.ROLE, role_id)) is not None
    }
    granted = guild_permissions(guild_id, owner_id, user_id, role_ids, roles)
    if channel_id is not None:
        found = _channel(view, number, channel_id)
        if found is None:
            return None
        overwrites, channel_type = found
        granted = channel_permissions(granted, guild_id, user_id, role_ids, overwrites, channel_type)
    if wall is not None and not granted & ADMINISTRATOR and _timed_out(member, wall):
        granted &= TIMED_OUT
    return granted


def _channel(view: View, number: int, channel_id: int) -> tuple[list[Overwrite], int] | None:
    raw = view.entity_store.get(number, Kind.CHANNEL, channel_id)
    if raw is not None:
        channel = fields_inside(raw)
        return _overwrites(channel), snowflake(channel.get("type")) or 0
    raw = view.entity_store.get(number, Kind.THREAD, channel_id)
    if raw is None:
        return None
    thread = fields_inside(raw)
    parent_id = snowflake(thread.get("parent_id"))
    parent = view.entity_store.get(number, Kind.CHANNEL, parent_id) if parent_id is not None else None
    if parent is None:
        return None
    return _overwrites(fields_inside(parent)), snowflake(thread.get("type")) or 0


def _overwrites(channel: Fields) -> list[Overwrite]:
    found = []
    for item in objects_inside(channel.get("permission_overwrites")):
        entity_id = snowflake(item.get("id"))
        if entity_id is not None:
            found.append(
                Overwrite(entity_id, snowflake(item.get("allow")) or 0, snowflake(item.get("deny")) or 0)
            )
    return found


def _timed_out(member: Fields, wall: float) -> bool:
    raw = member.get("communication_disabled_until")
    if raw is None:
        return False
    try:
        until = msgspec.json.decode(raw)
        return isinstance(until, str) and datetime.fromisoformat(until).timestamp() > wall
    except (ValueError, OverflowError, RecursionError):
        return False
