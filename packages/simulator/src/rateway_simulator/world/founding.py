"""A guild as it is when the world begins: a function of the options and the guild's index."""

from __future__ import annotations

from typing import Final

from rateway_simulator.payloads import objects as payloads
from rateway_simulator.payloads.channel_types import (
    ANNOUNCEMENT,
    CATEGORY,
    DIRECTORY,
    FORUM,
    MEDIA,
    PRIVATE_THREAD,
    STAGE,
    TEXT,
    VOICE,
)
from rateway_simulator.payloads.values import DISCORD_EPOCH_MS, Json, iso, noise
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.guild import Guild, Roster
from rateway_simulator.world.people import People

# Guilds begin on 2016-01-01; a prime step in milliseconds spreads neighbours evenly over any number of shards.
_FIRST_MS: Final = 1_451_606_400_000 - DISCORD_EPOCH_MS
_STEP_MS: Final = 30_011
_KINDS: Final = (
    (CATEGORY, "text"),
    (TEXT, "general"),
    (VOICE, "lounge"),
    (ANNOUNCEMENT, "news"),
    (FORUM, "help"),
    (STAGE, "town hall"),
    (MEDIA, "gallery"),
    (CATEGORY, "more"),
    (TEXT, "bots"),
    (VOICE, "games"),
    (DIRECTORY, "directory"),
    (TEXT, "off-topic"),
)
_FEATURES: Final = (
    "COMMUNITY",
    "NEWS",
    "INVITE_SPLASH",
    "ANIMATED_ICON",
    "BANNER",
    "VANITY_URL",
    "ROLE_ICONS",
    "SOUNDBOARD",
    "MORE_STICKERS",
    "WELCOME_SCREEN_ENABLED",
    "MEMBER_VERIFICATION_GATE_ENABLED",
    "AUTO_MODERATION",
)


def guild_number(index: int) -> int:
    """Return the snowflake of the guild with this index."""
    return _FIRST_MS + index * _STEP_MS << 22


def guild_index(number: int) -> int | None:
    """Return the index behind a guild's snowflake; None when there is no such guild."""
    index, rest = divmod((number >> 22) - _FIRST_MS, _STEP_MS)
    return index if not rest and index >= 0 and not number & 0x3FFFFF else None


def found(
    options: WorldOptions, people: People, index: int, first: int, count: int, bot_id: str, joined: float
) -> Guild:
    """Return a guild of `count` people from index `first` on, and the bot, who joined at `joined` (Unix seconds)."""
    number = guild_number(index)
    bits = noise(options.seed, 2, index)
    bot_role = str(number + 2)
    bot = {
        "nick": None,
        "avatar": None,
        "banner": None,
        "roles": [bot_role],
        "joined_at": iso(joined),
        "premium_since": None,
        "deaf": False,
        "mute": False,
        "flags": 0,
        "pending": False,
        "communication_disabled_until": None,
        "avatar_decoration_data": None,
        "collectibles": None,
    }
    roster = Roster(people, 1000 + index, first, count, bot, options.online)
    guild = Guild(index, number, {}, roster)
    _roles(guild, options.roles_per_guild, bot_role, bot_id, bits)
    roster.given = tuple(key for key, d in guild.roles.items() if d["position"] and not d["managed"])[:20]
    _channels(guild, options.channels_per_guild, bits)
    guild.fields = _fields(guild, bits, people.id_of(first) if count else bot_id, joined)
    _expressions(guild)
    _threads(guild, bot_id, options.wall)
    _happenings(guild, people, options.wall)
    return guild


def _fields(guild: Guild, bits: int, owner_id: str, joined: float) -> Json:
    community = bits & 3 == 0
    text = next((c["id"] for c in guild.channels.values() if c["type"] == TEXT), None)
    voice = next((c["id"] for c in guild.channels.values() if c["type"] == VOICE), None)
    boosts = bits >> 8 & 31
    picture = f"{bits:032x}"
    return {
        "id": guild.id,
        "name": f"Guild {guild.index} of {('Moss', 'Embers', 'Rivers', 'Owls')[bits % 4]}",
        "icon": f"a_{picture}" if bits & 64 else None,
        "icon_hash": None,
        "splash": picture if community else None,
        "discovery_splash": picture if community else None,
        "home_header": None,
        "owner_id": owner_id,
        "region": "deprecated",
        "afk_channel_id": voice if bits & 128 else None,
        "afk_timeout": 300,
        "widget_enabled": bool(bits & 256),
        "widget_channel_id": text if bits & 256 else None,
        "verification_level": bits >> 3 & 3,
        "default_message_notifications": bits >> 2 & 1,
        "explicit_content_filter": 2 if community else bits >> 5 & 1,
        "features": [
            name for place, name in enumerate(_FEATURES) if community or bits >> 20 + place & 3 == 0
        ],
        "mfa_level": bits >> 4 & 1,
        "application_id": None,
        "system_channel_id": text,
        "system_channel_flags": bits >> 12 & 3,
        "rules_channel_id": text if community else None,
        "max_presences": None,
        "max_members": 500_000,
        "vanity_url_code": f"guild{guild.index}" if community else None,
        "description": f"Guild number {guild.index}" if community else None,
        "banner": picture if boosts >= 7 else None,
        "premium_tier": 3 if boosts >= 14 else 2 if boosts >= 7 else 1 if boosts >= 2 else 0,
        "premium_subscription_count": boosts,
        "premium_progress_bar_enabled": bool(bits & 512),
        "preferred_locale": ("en-US", "de", "ja", "pt-BR")[bits >> 40 & 3],
        "public_updates_channel_id": text if community else None,
        "safety_alerts_channel_id": text if community else None,
        "max_video_channel_users": 25,
        "max_stage_video_channel_users": 50,
        "nsfw": False,
        "nsfw_level": 0,
        "hub_type": None,
        "incidents_data": None,
        "latest_onboarding_question_id": None,
        "joined_at": iso(joined),
        "large": len(guild.roster) > 250,
    }


def _roles(guild: Guild, count: int, bot_role: str, bot_id: str, bits: int) -> None:
    roles = guild.roles
    roles[guild.id] = payloads.role(guild.id, "@everyone", 0)
    if count > 2:
        booster = str(guild.number + 3)
        roles[booster] = payloads.role(
            booster, "Server Booster", 1, managed=True, tags={"premium_subscriber": None}
        )
    for place in range(2, max(2, count - 1)):
        role_id = str(guild.number + 2 + place)
        colour = noise(bits, place) & 0xFFFFFF
        roles[role_id] = payloads.role(
            role_id,
            f"role-{place}",
            place,
            color=colour,
            hoist=place % 2 == 0,
            mentionable=place % 3 == 0,
            colors={"primary_color": colour, "secondary_color": None, "tertiary_color": None},
            unicode_emoji="🦊" if place == 3 else None,
            **({"tags": _sold(guild)} if place == 5 else {}),
        )
    roles[bot_role] = payloads.role(
        bot_role,
        "Simulated Bot",
        len(roles),
        managed=True,
        permissions=payloads.BOT_PERMISSIONS,
        hoist=True,
        tags={"bot_id": bot_id},
    )


def _sold(guild: Guild) -> Json:
    """Tags of a role that an integration gives and that one can buy; null stands for true."""
    return {
        "integration_id": str(guild.number + 9000),
        "subscription_listing_id": str(guild.number + 9001),
        "available_for_purchase": None,
        "guild_connections": None,
    }


def _channels(guild: Guild, count: int, bits: int) -> None:
    parent: str | None = None
    for place in range(count):
        kind, name = (
            _KINDS[place] if place < len(_KINDS) else (VOICE if place % 3 == 0 else TEXT, f"channel-{place}")
        )
        if kind == DIRECTORY and bits & 31:
            kind, name = TEXT, f"channel-{place}"
        channel_id = str(guild.number + 100 + place)
        overwrites = []
        if noise(bits, place) & 3 == 0:
            overwrites.append(
                payloads.overwrite(guild.id, 0, deny=1 << 11 if kind == ANNOUNCEMENT else 1 << 17)
            )
            role_id = list(guild.roles)[noise(bits, place, 1) % len(guild.roles)]
            if role_id != guild.id:
                overwrites.append(payloads.overwrite(role_id, 0, allow=1 << 10 | 1 << 11))
        fields: Json = {"permission_overwrites": overwrites}
        if kind in (TEXT, ANNOUNCEMENT) and place % 2:
            fields["topic"] = f"All about {name}"
        guild.channels[channel_id] = payloads.channel(
            channel_id, kind, name, place, None if kind == CATEGORY else parent, **fields
        )
        if kind == CATEGORY:
            parent = channel_id


def _expressions(guild: Guild) -> None:
    for place in range(5):
        emoji_id = str(guild.number + 20_000 + place)
        roles = [list(guild.roles)[-1]] if place == 4 else None
        guild.emojis[emoji_id] = payloads.emoji(
            emoji_id, f"emoji_{place}", animated=place % 2 == 1, roles=roles
        )
    for place in range(2):
        sticker_id = str(guild.number + 21_000 + place)
        guild.stickers[sticker_id] = payloads.sticker(sticker_id, guild.id, f"sticker {place}")
        sound_id = str(guild.number + 22_000 + place)
        guild.sounds[sound_id] = payloads.sound(sound_id, guild.id, f"sound {place}")


def _threads(guild: Guild, bot_id: str, wall: float) -> None:
    for place, parent in enumerate(list(guild.channels.values())):
        if parent["type"] not in (TEXT, ANNOUNCEMENT, FORUM) or place > 6:
            continue
        thread_id = str(guild.number + 10_000 + place)
        private = parent["type"] == TEXT and guild.index % 2 == 1
        kind = PRIVATE_THREAD if private else payloads.thread_kind(parent)
        owner = bot_id if not guild.roster.count else guild.roster.people.id_of(guild.roster.first)
        d = payloads.thread(thread_id, guild.id, kind, f"thread {place}", parent["id"], owner, wall)
        people = [owner]
        if place % 2 or private:
            people = list(dict.fromkeys((owner, bot_id)))
            d["member"] = payloads.thread_member(thread_id, bot_id, wall)
        if parent["type"] == FORUM:
            d["applied_tags"] = [parent["available_tags"][0]["id"]]
        d["member_count"] = len(people)
        guild.threads[thread_id] = d
        guild.thread_people[thread_id] = people


def _happenings(guild: Guild, people: People, wall: float) -> None:
    """Voice states, a stage and a scheduled event, in some of the guilds."""
    roster = guild.roster
    voices = [c["id"] for c in guild.channels.values() if c["type"] == VOICE]
    for place in range(min(guild.index % 4, roster.count)):
        if voices:
            user_id = people.id_of(roster.first + place)
            channel_id = voices[place % len(voices)]
            session = f"{noise(guild.index, place):032x}"
            guild.voice_states[user_id] = payloads.voice_state(
                channel_id, user_id, session, self_mute=place == 2
            )
            guild.participants.setdefault(channel_id, set()).add(user_id)
    stages = [c for c in guild.channels.values() if c["type"] == STAGE]
    if stages and guild.index % 3 == 0:
        stage_id = str(guild.number + 23_000)
        guild.stages[stage_id] = payloads.stage_instance(
            stage_id, guild.id, stages[0]["id"], "Ask us anything"
        )
    if roster.count and guild.index % 2 == 0:
        event_id = str(guild.number + 24_000)
        creator = people.user(roster.first)
        place_of = stages[0] if stages and guild.index % 4 == 0 else None
        guild.events[event_id] = payloads.scheduled_event(
            event_id, guild.id, creator, "Movie night", wall, place_of
        )
        guild.subscribers[event_id] = []
