"""Guilds and events as a large public bot sees them, in Discord's shapes, from a seed. Names are noise, so that no
dictionary can know them; people's activity is skewed: five of a hundred do four fifths of what happens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec

Json = dict[str, Any]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_."

# Share of each event in the mix.
MIX = {
    "MESSAGE_CREATE": 0.30, "PRESENCE_UPDATE": 0.30, "TYPING_START": 0.15, "MESSAGE_REACTION_ADD": 0.10,
    "GUILD_MEMBER_UPDATE": 0.08, "VOICE_STATE_UPDATE": 0.07,
}  # fmt: skip


class Maker:
    """Everything random, from one seed."""

    def __init__(self, seed: int, guilds: int, members: int) -> None:
        self.chance = random.Random(seed)
        self.guilds = [self.guild(members) for _ in range(guilds)]

    def snowflake(self) -> str:
        return str(self.chance.randrange(1 << 58, 1 << 60))

    def name(self, low: int = 4, high: int = 14) -> str:
        return "".join(self.chance.choices(LETTERS, k=self.chance.randint(low, high)))

    def hash(self, share: float = 0.8) -> str | None:
        return f"{self.chance.getrandbits(128):032x}" if self.chance.random() < share else None

    def time(self) -> str:
        pick = self.chance.randint
        return (
            f"20{pick(17, 26)}-{pick(1, 12):02}-{pick(1, 28):02}T{pick(0, 23):02}:{pick(0, 59):02}:{pick(0, 59):02}"
            f".{pick(0, 999_999):06}+00:00"
        )

    def user(self) -> Json:
        return {
            "username": self.name(), "public_flags": self.chance.choice((0, 0, 0, 64, 128, 256, 4194304)),
            "primary_guild": None, "id": self.snowflake(),
            "global_name": self.name() if self.chance.random() < 0.6 else None, "discriminator": "0",
            "collectibles": None, "bot": False, "avatar_decoration_data": None, "avatar": self.hash(),
        }  # fmt: skip

    def member(self, roles: list[str]) -> Json:
        return {
            "user": self.user(), "roles": self.chance.sample(roles, self.chance.choice((0, 1, 1, 2, 3))),
            "premium_since": None, "pending": False, "nick": self.name() if self.chance.random() < 0.25 else None,
            "mute": False, "joined_at": self.time(), "flags": 0, "deaf": False, "communication_disabled_until": None,
            "banner": None, "avatar": None,
        }  # fmt: skip

    def guild(self, members: int) -> Json:
        guild_id = self.snowflake()
        roles = [guild_id, *(self.snowflake() for _ in range(9))]
        channels = [self.snowflake() for _ in range(10)]
        return {
            "id": guild_id, "name": self.name(8, 20), "icon": self.hash(), "splash": None, "banner": None,
            "description": None, "owner_id": self.snowflake(), "region": "deprecated", "afk_channel_id": None,
            "afk_timeout": 300, "verification_level": 1, "default_message_notifications": 1,
            "explicit_content_filter": 0, "features": ["COMMUNITY", "NEWS"], "mfa_level": 0, "application_id": None,
            "system_channel_id": channels[0], "system_channel_flags": 0, "rules_channel_id": channels[1],
            "max_video_channel_users": 25, "vanity_url_code": None, "premium_tier": 0, "premium_subscription_count": 2,
            "preferred_locale": "en-US", "nsfw_level": 0, "premium_progress_bar_enabled": False,
            "joined_at": self.time(), "large": False, "unavailable": False, "member_count": members,
            "roles": [self.role(role_id, at) for at, role_id in enumerate(roles)],
            "channels": [self.channel(channel_id, at, roles) for at, channel_id in enumerate(channels)],
            "members": [self.member(roles[1:]) for _ in range(members)],
            "emojis": [], "stickers": [], "threads": [], "voice_states": [], "presences": [],
            "stage_instances": [], "guild_scheduled_events": [], "soundboard_sounds": [],
        }  # fmt: skip

    def role(self, role_id: str, position: int) -> Json:
        return {
            "version": self.chance.randrange(1 << 40), "unicode_emoji": None, "tags": {}, "position": position,
            "permissions": str(self.chance.getrandbits(40)), "name": self.name(), "mentionable": False,
            "managed": False, "id": role_id, "icon": None, "hoist": False, "flags": 0,
            "colors": {"tertiary_color": None, "secondary_color": None, "primary_color": 0},
            "color": self.chance.randrange(1 << 24),
        }  # fmt: skip

    def channel(self, channel_id: str, position: int, roles: list[str]) -> Json:
        overwrites = [{"type": 0, "id": roles[0], "deny": "2048", "allow": "0"}]
        return {
            "version": self.chance.randrange(1 << 40), "type": (0, 0, 0, 2, 4)[position % 5], "topic": None,
            "rate_limit_per_user": 0, "position": position, "permission_overwrites": overwrites, "parent_id": None,
            "nsfw": False, "name": self.name(), "last_pin_timestamp": None, "last_message_id": self.snowflake(),
            "id": channel_id, "flags": 0,
        }  # fmt: skip

    def creates(self) -> Iterator[bytes]:
        """GUILD_CREATE of every guild."""
        return (msgspec.json.encode(guild) for guild in self.guilds)

    def events(self, count: int) -> list[tuple[str, bytes]]:
        """The mix: name and ``d`` of each, 600 to 800 bytes in the mean."""
        names = self.chance.choices(list(MIX), list(MIX.values()), k=count)
        return [
            (name, msgspec.json.encode(getattr(self, "_" + name.lower())(*self._someone()))) for name in names
        ]

    def _someone(self) -> tuple[Json, Json]:
        guild = self.chance.choice(self.guilds)
        members = guild["members"]
        active = max(1, len(members) // 20)
        at = (
            self.chance.randrange(active)
            if self.chance.random() < 0.8
            else self.chance.randrange(len(members))
        )
        return guild, members[at]

    def _channel_of(self, guild: Json) -> str:
        return str(self.chance.choice(guild["channels"])["id"])

    def _message_create(self, guild: Json, member: Json) -> Json:
        return {
            "type": 0, "tts": False, "timestamp": self.time(), "pinned": False, "nonce": self.snowflake(),
            "mentions": [], "mention_roles": [], "mention_everyone": False,
            "member": {name: value for name, value in member.items() if name != "user"}, "id": self.snowflake(),
            "flags": 0, "embeds": [], "edited_timestamp": None, "content": " ".join(self.name() for _ in range(9)),
            "components": [], "channel_type": 0, "channel_id": self._channel_of(guild), "author": member["user"],
            "attachments": [], "guild_id": guild["id"],
        }  # fmt: skip

    def _presence_update(self, guild: Json, member: Json) -> Json:
        activity = {
            "type": 0, "timestamps": {"start": self.chance.randrange(1 << 40)}, "name": self.name(), "id": self.name(),
            "state": " ".join(self.name() for _ in range(3)), "details": " ".join(self.name() for _ in range(4)),
            "created_at": self.chance.randrange(1 << 40), "application_id": self.snowflake(),
            "assets": {"large_image": self.snowflake(), "small_image": self.snowflake(), "large_text": self.name()},
        }  # fmt: skip
        status = self.chance.choice(("online", "idle", "dnd", "online", "offline"))
        return {
            "user": {"id": member["user"]["id"]}, "status": status, "guild_id": guild["id"],
            "client_status": {} if status == "offline" else {"desktop": status},
            "activities": [] if status == "offline" else [activity],
        }  # fmt: skip

    def _typing_start(self, guild: Json, member: Json) -> Json:
        return {
            "user_id": member["user"]["id"], "timestamp": self.chance.randrange(1 << 31), "member": member,
            "channel_id": self._channel_of(guild), "guild_id": guild["id"],
        }  # fmt: skip

    def _message_reaction_add(self, guild: Json, member: Json) -> Json:
        return {
            "user_id": member["user"]["id"], "type": 0, "message_id": self.snowflake(), "member": member,
            "message_author_id": self.snowflake(), "emoji": {"name": "wave", "id": self.snowflake()},
            "channel_id": self._channel_of(guild), "burst": False, "guild_id": guild["id"],
        }  # fmt: skip

    def _guild_member_update(self, guild: Json, member: Json) -> Json:
        member["nick"] = self.name()
        return {**member, "guild_id": guild["id"]}

    def _voice_state_update(self, guild: Json, member: Json) -> Json:
        joins = self.chance.random() < 0.7
        return {
            "member": member, "user_id": member["user"]["id"], "suppress": False, "session_id": self.hash(1.0),
            "self_video": False, "self_mute": self.chance.random() < 0.5, "self_deaf": False, "mute": False,
            "request_to_speak_timestamp": None, "deaf": False, "guild_id": guild["id"],
            "channel_id": self._channel_of(guild) if joins else None,
        }  # fmt: skip
