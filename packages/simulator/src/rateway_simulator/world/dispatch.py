"""Dispatches from the world to the gateway, the source of randomness, and the options of a world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from rateway_simulator.payloads.values import Json


class Chance(Protocol):
    """The world's source of chance (`random.Random(seed)`)."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


class Dispatch(msgspec.Struct):
    """One event as Discord would send it to a bot with every intent.

    `guild_id` is for routing only: `(guild_id >> 22) % shards`, and None means shard 0, even if `d` names a
    guild (entitlements do). `d` may share nested objects with the world: encode it before the next change.
    `direct` says that the DIRECT_MESSAGE* intents decide, not the GUILD_* ones (direct and ephemeral
    messages). `own` marks what concerns the bot itself and therefore passes without GUILD_MEMBERS.
    `revealed` marks a message whose content is shown without MESSAGE_CONTENT: the bot's own, one that
    mentions it, or a direct one.
    """

    name: str
    guild_id: int | None
    d: Json
    direct: bool = False
    own: bool = False
    revealed: bool = False


@dataclass(frozen=True, slots=True)
class WorldOptions:
    """The size of the world and its seed; equal options give equal worlds."""

    seed: int = 1
    guilds: int = 10
    # Members of each guild, the bot included.
    members_per_guild: int = 50
    # Channels of each guild, categories included, threads not; the first twelve have all types between them.
    channels_per_guild: int = 12
    roles_per_guild: int = 6
    # Members of the first guild, where one large guild is wanted; 0: as many as every other.
    largest_guild: int = 0
    # Messages that each channel remembers.
    messages_per_channel: int = 20
    # Guilds kept unfolded in memory; others wait as compressed bytes or as nothing but their seed.
    unfolded_guilds: int = 2048
    # The share of members of an untouched guild that are not offline.
    online: float = 0.35
    # Weights of events by name that replace the default mix's.
    mix: dict[str, float] = field(default_factory=dict)
    # Unix seconds at which the world's own clock starts when no time is given.
    wall: float = 1_790_000_000.0
