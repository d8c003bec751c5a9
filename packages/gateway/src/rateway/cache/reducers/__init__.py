"""The table of reducers, event name → change of the cache, and the names that change nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from rateway.cache.kinds import ENTITY_KINDS
from rateway.cache.policy import CachePolicy
from rateway.cache.reducers import (
    channels,
    events,
    guilds,
    members,
    messages,
    presences,
    roles,
    session,
    threads,
    voice,
)
from rateway.cache.reducers.whole import whole
from rateway.cache.writer import CacheWriter
from rateway.native.objects.applied import Applied

__all__ = ["IGNORED", "REDUCERS", "Reducer", "reducers"]

Reducer: TypeAlias = Callable[[CacheWriter, bytes], Applied | None]

# Event → what it does, and the kinds of which at least one must be kept for it to be looked at (empty: always).
REDUCERS: Mapping[str, tuple[Reducer, frozenset[str]]] = {
    **{
        event: (whole(event, row.kind, row.id_field), frozenset({row.name}))
        for row in ENTITY_KINDS
        if row.kind is not None
        for event in row.events
    },
    # What follows replaces the row of an event that needs more.
    "READY": (session.ready, frozenset()),
    "USER_UPDATE": (session.user_update, frozenset()),
    "GUILD_CREATE": (guilds.guild_create, frozenset()),
    "GUILD_UPDATE": (guilds.guild_update, frozenset()),
    "GUILD_DELETE": (guilds.guild_delete, frozenset()),
    "CHANNEL_CREATE": (channels.channel_upsert, frozenset({"channels"})),
    "CHANNEL_UPDATE": (channels.channel_upsert, frozenset({"channels"})),
    "CHANNEL_DELETE": (
        channels.channel_delete,
        frozenset({"channels", "threads", "stage_instances", "scheduled_events", "voice_states", "messages"}),
    ),
    "CHANNEL_PINS_UPDATE": (channels.channel_pins, frozenset({"channels", "threads"})),
    "CHANNEL_INFO": (channels.channel_info, frozenset({"channels"})),
    "VOICE_CHANNEL_STATUS_UPDATE": (channels.voice_channel_detail, frozenset({"channels"})),
    "VOICE_CHANNEL_START_TIME_UPDATE": (channels.voice_channel_detail, frozenset({"channels"})),
    "THREAD_CREATE": (threads.thread_create, frozenset({"threads"})),
    "THREAD_UPDATE": (threads.thread_update, frozenset({"threads"})),
    "THREAD_DELETE": (threads.thread_delete, frozenset({"threads"})),
    "THREAD_LIST_SYNC": (threads.thread_list_sync, frozenset({"threads"})),
    "THREAD_MEMBER_UPDATE": (threads.thread_member_update, frozenset({"thread_members"})),
    "THREAD_MEMBERS_UPDATE": (threads.thread_members_update, frozenset({"threads", "members", "presences"})),
    "GUILD_ROLE_CREATE": (roles.role_upsert, frozenset({"roles"})),
    "GUILD_ROLE_UPDATE": (roles.role_upsert, frozenset({"roles"})),
    "GUILD_ROLE_DELETE": (roles.role_delete, frozenset({"roles", "members", "emojis", "channels"})),
    "GUILD_EMOJIS_UPDATE": (roles.emojis_update, frozenset({"emojis"})),
    "GUILD_STICKERS_UPDATE": (roles.stickers_update, frozenset({"stickers"})),
    "GUILD_SOUNDBOARD_SOUND_CREATE": (roles.sound_upsert, frozenset({"soundboard_sounds"})),
    "GUILD_SOUNDBOARD_SOUND_UPDATE": (roles.sound_upsert, frozenset({"soundboard_sounds"})),
    "GUILD_SOUNDBOARD_SOUND_DELETE": (roles.sound_delete, frozenset({"soundboard_sounds"})),
    "GUILD_SOUNDBOARD_SOUNDS_UPDATE": (roles.sounds_update, frozenset({"soundboard_sounds"})),
    "SOUNDBOARD_SOUNDS": (roles.sounds_replace, frozenset({"soundboard_sounds"})),
    "GUILD_MEMBER_ADD": (members.member_add, frozenset()),
    "GUILD_MEMBER_UPDATE": (members.member_update, frozenset()),
    "GUILD_MEMBER_REMOVE": (members.member_remove, frozenset()),
    "GUILD_MEMBERS_CHUNK": (members.members_chunk, frozenset({"members", "presences"})),
    "TYPING_START": (members.typing_start, frozenset({"members"})),
    "INTERACTION_CREATE": (members.interaction_create, frozenset({"members"})),
    "PRESENCE_UPDATE": (presences.presence_update, frozenset({"presences", "members"})),
    "VOICE_STATE_UPDATE": (voice.voice_state_update, frozenset({"voice_states", "members"})),
    "GUILD_SCHEDULED_EVENT_CREATE": (events.scheduled_event_upsert, frozenset({"scheduled_events"})),
    "GUILD_SCHEDULED_EVENT_UPDATE": (events.scheduled_event_upsert, frozenset({"scheduled_events"})),
    "GUILD_SCHEDULED_EVENT_DELETE": (events.scheduled_event_delete, frozenset({"scheduled_events"})),
    "GUILD_SCHEDULED_EVENT_USER_ADD": (events.scheduled_event_user_add, frozenset({"scheduled_events"})),
    "GUILD_SCHEDULED_EVENT_USER_REMOVE": (
        events.scheduled_event_user_remove,
        frozenset({"scheduled_events"}),
    ),
    "INTEGRATION_CREATE": (events.integration_upsert, frozenset({"integrations"})),
    "INTEGRATION_UPDATE": (events.integration_upsert, frozenset({"integrations"})),
    "INTEGRATION_DELETE": (events.integration_delete, frozenset({"integrations"})),
    "MESSAGE_CREATE": (messages.message_create, frozenset({"messages", "channels", "threads", "members"})),
    "MESSAGE_UPDATE": (messages.message_update, frozenset({"messages"})),
    "MESSAGE_DELETE": (messages.message_delete, frozenset({"messages", "threads"})),
    "MESSAGE_DELETE_BULK": (messages.message_delete_bulk, frozenset({"messages", "threads"})),
    "MESSAGE_REACTION_ADD": (messages.reaction_add, frozenset({"messages", "members"})),
    "MESSAGE_REACTION_REMOVE": (messages.reaction_remove, frozenset({"messages"})),
    "MESSAGE_REACTION_REMOVE_ALL": (messages.reactions_clear, frozenset({"messages"})),
    "MESSAGE_REACTION_REMOVE_EMOJI": (messages.reactions_clear_emoji, frozenset({"messages"})),
    "MESSAGE_POLL_VOTE_ADD": (messages.poll_vote_add, frozenset({"messages"})),
    "MESSAGE_POLL_VOTE_REMOVE": (messages.poll_vote_remove, frozenset({"messages"})),
}

# Only these say anything new of members without an event of their own.
_CARRIERS_ONLY = frozenset({"TYPING_START", "INTERACTION_CREATE"})

# Documented events that change nothing here: what they are about has no snapshot, or is none of a cache's business.
IGNORED = frozenset(
    {
        "APPLICATION_COMMAND_PERMISSIONS_UPDATE", "AUTO_MODERATION_ACTION_EXECUTION", "AUTO_MODERATION_RULE_CREATE",
        "AUTO_MODERATION_RULE_DELETE", "AUTO_MODERATION_RULE_UPDATE", "ENTITLEMENT_CREATE", "ENTITLEMENT_DELETE",
        "ENTITLEMENT_UPDATE", "GUILD_AUDIT_LOG_ENTRY_CREATE", "GUILD_BAN_ADD", "GUILD_BAN_REMOVE",
        "GUILD_INTEGRATIONS_UPDATE", "INVITE_CREATE", "INVITE_DELETE", "RATE_LIMITED", "RESUMED",
        "SUBSCRIPTION_CREATE", "SUBSCRIPTION_DELETE", "SUBSCRIPTION_UPDATE", "VOICE_CHANNEL_EFFECT_SEND",
        "VOICE_SERVER_UPDATE", "WEBHOOKS_UPDATE",
    }
)  # fmt: skip


def reducers(policy: CachePolicy) -> dict[str, Reducer]:
    """Return the reducers that this policy needs: an event that could change nothing is not even decoded."""
    if not policy.enabled:
        return {}
    return {
        name: reducer
        for name, (reducer, kinds) in REDUCERS.items()
        if (not kinds or any(policy.keeps(kind) for kind in kinds))
        and (policy.members_from_events or name not in _CARRIERS_ONLY)
        and (name != "MESSAGE_REACTION_ADD" or policy.members_from_events or policy.keeps("messages"))
    }
