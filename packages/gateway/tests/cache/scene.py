"""A cache with one guild, fed by hand: for tests that say what one event does."""

from __future__ import annotations

from typing import Any

import msgspec
from rateway.cache.apply import Cache
from rateway.cache.kinds import Kind
from rateway.cache.policy import KINDS, CachePolicy
from rateway.cache.storage import MemoryStorage
from rateway.native.objects.applied import Applied
from tests.cache.world_feed import decode, encode

Json = dict[str, Any]

# Ids of the scene: guild 1, the bot 9, others as the tests name them.
GUILD = 1 << 60
BOT = 9 << 40


def user(user_id: int, name: str = "ann") -> Json:
    return {"id": str(user_id), "username": name, "discriminator": "0", "global_name": None, "avatar": None}


def member(user_id: int, name: str = "ann", **fields: Any) -> Json:
    found: Json = {
        "user": user(user_id, name),
        "roles": [],
        "nick": None,
        "joined_at": "2020-01-01T00:00:00+00:00",
    }
    return {**found, "deaf": False, "mute": False, "flags": 0, "pending": False, **fields}


def role(role_id: int, permissions: int = 0, **fields: Any) -> Json:
    return {
        "id": str(role_id),
        "name": f"role {role_id}",
        "permissions": str(permissions),
        "position": 1,
        **fields,
    }


def channel(channel_id: int, kind: int = 0, **fields: Any) -> Json:
    return {
        "id": str(channel_id),
        "type": kind,
        "name": "c",
        "permission_overwrites": [],
        "parent_id": None,
        **fields,
    }


def thread(thread_id: int, parent_id: int, **fields: Any) -> Json:
    found: Json = {"id": str(thread_id), "type": 11, "parent_id": str(parent_id), "message_count": 0}
    return {
        **found,
        "total_message_sent": 0,
        "member_count": 1,
        "thread_metadata": {"archived": False},
        **fields,
    }


def guild(guild_id: int = GUILD, **fields: Any) -> Json:
    lists = (
        "channels", "threads", "emojis", "stickers", "voice_states", "presences", "stage_instances",
        "guild_scheduled_events", "soundboard_sounds",
    )  # fmt: skip
    found: Json = {
        "id": str(guild_id),
        "name": "guild",
        "owner_id": str(BOT),
        "joined_at": "2020-01-01T00:00:00+00:00",
        "large": False,
        "unavailable": False,
        "member_count": 1,
        "roles": [role(guild_id)],
        "members": [member(BOT, "bot")],
        **{name: [] for name in lists},
    }
    return {**found, **fields}


class Scene:
    """One shard's cache. Events are numbered as they come."""

    def __init__(self, policy: CachePolicy | None = None, storage: MemoryStorage | None = None) -> None:
        self.storage = storage or MemoryStorage()
        self.cache = Cache(self.storage, policy or CachePolicy(kinds=KINDS, messages_per_channel=5))
        self.view = self.cache.writer
        self.seq = 0

    def ready(self, *guild_ids: int, session: str = "one") -> Applied | None:
        self.seq = 0
        listed = [{"id": str(guild_id), "unavailable": True} for guild_id in guild_ids]
        return self.tell(
            "READY", {"user": user(BOT, "bot"), "guilds": listed, "session_id": session, "shard": [0, 1]}
        )

    def tell(self, name: str, d: Json) -> Applied | None:
        self.seq += 1
        applied = self.cache.apply(0, self.seq, name, encode(d))
        self.cache.flush()
        assert self.cache.failures == {}
        return applied

    def cause(self, name: str, d: Json) -> str | None:
        applied = self.tell(name, d)
        return applied.cause if applied is not None else None

    def start(self, **fields: Any) -> Scene:
        """READY and the guild, ready to be played with."""
        self.ready(GUILD)
        self.tell("GUILD_CREATE", guild(**fields))
        return self

    def guild(self, guild_id: int = GUILD) -> Json | None:
        found = self.view.guild(guild_id)
        return None if found is None else decode(found)

    def child(self, kind: Kind, entity_id: int, guild_id: int = GUILD) -> Json | None:
        number = self.view.number_of(guild_id)
        found = None if number is None else self.view.child(number, kind, entity_id)
        return None if found is None else decode(found)

    def ids(self, kind: Kind, guild_id: int = GUILD) -> list[int]:
        number = self.view.number_of(guild_id)
        return [] if number is None else [entity_id for entity_id, _ in self.view.children(number, kind)]

    def user(self, user_id: int) -> Json | None:
        found = self.view.user(user_id)
        return None if found is None else decode_raw(found[1])

    def message(self, channel_id: int, message_id: int) -> Json | None:
        found = self.view.message(channel_id, message_id)
        return None if found is None else decode(found)


def decode_raw(raw: bytes) -> Any:
    return msgspec.json.decode(raw)
