"""Snapshots of the world: a guild as GUILD_CREATE sends it, and the whole as a perfect cache would hold it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rateway_protocol.discord.intents import Intents
from rateway_simulator.payloads.values import Json
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.world import World

ALL_INTENTS: Final = int(sum(Intents))
# Above it, and without GUILD_PRESENCES, GUILD_CREATE has only the bot and who is in voice (docs: Guild Create).
_MEMBERS_SENT: Final = 75_000
# Fields of GUILD_CREATE that GUILD_UPDATE does not have.
_ONLY_CREATED: Final = frozenset({"joined_at", "large"})


def member_with_user(world: World, guild: Guild, index: int) -> Json:
    """Return a member as GUILD_CREATE, chunks and REST have it."""
    return {**guild.roster.member(index, guild.roles), "user": world.people.user(index)}


def own_member(world: World, guild: Guild) -> Json:
    """Return the bot's member of the guild."""
    index = world.people.index_of(world.bot_id)
    assert index is not None
    return {**guild.roster.bot, "user": world.people.user(index)}


def guild_create(
    world: World,
    guild_id: int,
    *,
    intents: int = ALL_INTENTS,
    large_threshold: int = 250,
    fresh: bool = False,
) -> Json:
    """Return `d` of GUILD_CREATE with the members and presences that these intents and this threshold allow.

    A guild in an outage gives `{id, unavailable: true}`. `fresh` is a join: without `unavailable`.

    Raises:
        KeyError: The bot is not in the guild.
    """
    if guild_id in world.unavailable:
        return {"id": str(guild_id), "unavailable": True}
    d = _whole(world, world.peek(guild_id), intents, large_threshold)
    if fresh:
        del d["unavailable"]
    return d


def _whole(world: World, guild: Guild, intents: int, large_threshold: int) -> Json:
    roster = guild.roster
    members = [own_member(world, guild)]
    presences: list[Json] = []
    for index in _members_sent(world, guild, intents, large_threshold):
        members.append(member_with_user(world, guild, index))
        if intents & Intents.GUILD_PRESENCES:
            presence = roster.presence(index, world.options.wall)
            if presence is not None:
                presences.append(presence)
    if guild.index % 5 == 1:
        # Who is in voice may be listed twice (discord-api-docs#997).
        members += [member for member in members if member["user"]["id"] in guild.voice_states]
    return {
        **guild.fields,
        "unavailable": False,
        "member_count": len(roster),
        "roles": list(guild.roles.values()),
        "emojis": list(guild.emojis.values()),
        "stickers": list(guild.stickers.values()),
        "channels": list(guild.channels.values()),
        "threads": list(guild.threads.values()),
        "voice_states": list(guild.voice_states.values()),
        "members": members,
        "presences": presences,
        "stage_instances": list(guild.stages.values()),
        "guild_scheduled_events": list(guild.events.values()),
        "soundboard_sounds": list(guild.sounds.values()),
    }


def guild_object(guild: Guild) -> Json:
    """Return the guild object: own fields, roles, emojis and stickers, and none of what only GUILD_CREATE has."""
    return {
        **{key: value for key, value in guild.fields.items() if key not in _ONLY_CREATED},
        "roles": list(guild.roles.values()),
        "emojis": list(guild.emojis.values()),
        "stickers": list(guild.stickers.values()),
    }


def _members_sent(world: World, guild: Guild, intents: int, large_threshold: int) -> Iterable[int]:
    roster = guild.roster
    if not intents & Intents.GUILD_PRESENCES or len(roster) > _MEMBERS_SENT:
        indexes = (world.people.index_of(user_id) for user_id in guild.voice_states)
        return [index for index in indexes if index is not None and index in roster]
    if len(roster) <= large_threshold:
        return roster
    return [
        index
        for index in roster
        if roster.presence(index, world.options.wall) is not None
        or world.people.id_of(index) in guild.voice_states
        or (member := roster.member(index, guild.roles))["roles"]
        or member["nick"]
    ]


KINDS: Final = (
    "guild",
    "channel",
    "thread",
    "archived_thread",
    "thread_member",
    "role",
    "emoji",
    "sticker",
    "sound",
    "member",
    "user",
    "presence",
    "voice_state",
    "stage_instance",
    "scheduled_event",
    "integration",
    "channel_info",
    "message",
    "current_user",
    "unavailable",
)


def state(
    world: World, kinds: Iterable[str] | None = None, guild_ids: Iterable[int] | None = None
) -> dict[str, dict[str, Json]]:
    """Return what a perfect cache would hold now, of all *kinds* and guilds or of those named.

    The shape is kind → key → entity; keys are ids, or two of them joined by a colon, the container's first.

    `guild` has the guild's own fields with `member_count`, `large`, `joined_at`, `unavailable`, without lists;
    every child has `guild_id`. `member` (guild:user) has its `user`; `presence` (guild:user) is never offline;
    `thread` are the active ones, `thread_member` (thread:user) the bot's own; `channel_info` is what no snapshot
    contains; `message` (channel:message) the newest of each channel, direct ones included; `unavailable` are
    the guilds in an outage.
    """
    wanted = None if kinds is None else frozenset(kinds)
    found: dict[str, dict[str, Json]] = {kind: {} for kind in KINDS if wanted is None or kind in wanted}
    for number in world.guild_ids if guild_ids is None else guild_ids:
        if not world.has_guild(number):
            continue
        guild = world.peek(number)
        if guild.number in world.unavailable and "unavailable" in found:
            found["unavailable"][guild.id] = {"id": guild.id, "unavailable": True}
        _children(guild, found)
        if "message" in found:
            for channel_id, kept in guild.messages.items():
                for message_id, message in kept.items():
                    found["message"][f"{channel_id}:{message_id}"] = {"guild_id": guild.id, **message.d}
        if found.keys() & {"member", "user", "presence"}:
            _people(world, guild, found)
    if "message" in found:
        for channel_id, kept in world.direct.messages.items():
            for message_id, message in kept.items():
                found["message"][f"{channel_id}:{message_id}"] = message.d
    if "user" in found:
        found["user"][world.bot_id] = world.ready_user()
    if "current_user" in found:
        found["current_user"]["@me"] = world.ready_user()
    return found


def _children(guild: Guild, found: dict[str, dict[str, Json]]) -> None:
    families = (
        ("channel", guild.channels),
        ("thread", guild.threads),
        ("archived_thread", guild.archived),
        ("role", guild.roles),
        ("emoji", guild.emojis),
        ("sticker", guild.stickers),
        ("sound", guild.sounds),
        ("stage_instance", guild.stages),
        ("scheduled_event", guild.events),
        ("integration", guild.integrations),
    )
    for kind, entities in families:
        if kind in found:
            found[kind].update((key, {**entity, "guild_id": guild.id}) for key, entity in entities.items())
    if "guild" in found:
        found["guild"][guild.id] = {**guild.fields, "member_count": len(guild.roster)}
    if "voice_state" in found:
        for user_id, voice in guild.voice_states.items():
            found["voice_state"][f"{guild.id}:{user_id}"] = {**voice, "guild_id": guild.id}
    if "thread_member" in found:
        for thread_id, thread in guild.threads.items():
            if "member" in thread:
                member = thread["member"]
                found["thread_member"][f"{thread_id}:{member['user_id']}"] = {**member, "guild_id": guild.id}
    if "channel_info" in found:
        for channel_id, info in guild.info.items():
            found["channel_info"][channel_id] = {**info, "id": channel_id, "guild_id": guild.id}


def _people(world: World, guild: Guild, found: dict[str, dict[str, Json]]) -> None:
    roster = guild.roster
    members = found.get("member")
    presences = found.get("presence")
    users = found.get("user")
    if members is not None:
        members[f"{guild.id}:{world.bot_id}"] = {**own_member(world, guild), "guild_id": guild.id}
    for index in roster:
        user = world.people.user(index)
        if users is not None:
            users[user["id"]] = user
        if members is not None:
            member = {**roster.member(index, guild.roles), "user": user, "guild_id": guild.id}
            members[f"{guild.id}:{user['id']}"] = member
        if presences is not None:
            presence = roster.presence(index, world.options.wall)
            if presence is not None:
                presences[f"{guild.id}:{user['id']}"] = {**presence, "guild_id": guild.id}
