"""Answers of the queries that the gateway proxy asks (``docs/contract.md``, *Queries*).

``Clusters``, ``ShardSnapshot``, ``GuildSnapshot`` and ``MembersMatching`` are answered with these objects as
JSON. Ids are decimal strings in them, as at Discord.
"""

from __future__ import annotations

import msgspec

__all__ = ["ClusterList", "ClusterRow", "GuildOfShard", "GuildSnapshot", "MemberList", "ShardSnapshot"]


class ClusterRow(msgspec.Struct, frozen=True):
    """One cluster in the answer to ``Clusters``."""

    cluster: int
    exchange: str
    shards: tuple[int, ...]
    guilds: int | None = None
    owner: str | None = None
    log: str | None = None
    """The name of its event log; null where the gateway writes none, or has not made it yet."""


class ClusterList(msgspec.Struct, frozen=True):
    """The answer to ``Clusters``: the layout, and what the gateway was given."""

    shard_count: int
    clusters: tuple[ClusterRow, ...]
    intents: int
    """The intents that the gateway identifies with."""
    kinds: tuple[str, ...]
    """The kinds of entities that the cache keeps (``CACHE_KINDS``); empty without a cache."""
    events: tuple[str, ...] | None = None
    """``EVENTS``: the names that are published, where that is set."""
    events_except: tuple[str, ...] = ()
    """``EVENTS_EXCEPT``: the names that are not published."""


class GuildOfShard(msgspec.Struct, frozen=True):
    """A guild as READY lists it."""

    id: str
    unavailable: bool
    """Whether it is in an outage, has not come from Discord yet, or lacks channels or roles in the cache."""


class ShardSnapshot(msgspec.Struct, frozen=True):
    """The answer to ``ShardSnapshot``: what a READY is made of, read in one transaction."""

    shard: int
    shard_count: int
    session: str
    """As in the ``message_id`` of its events."""
    seq: int
    """Events of that session up to this sequence number are in the answer, later ones are not."""
    user: msgspec.Raw
    """The bot's own user."""
    # Raw in a union with None would be read as null only.
    application_or_null: msgspec.Raw = msgspec.field(name="application")
    guilds: tuple[GuildOfShard, ...]

    @property
    def application(self) -> msgspec.Raw | None:
        """READY's ``application`` (``id``, ``flags``); None where the gateway has seen no READY since."""
        return None if bytes(self.application_or_null) == b"null" else self.application_or_null


class GuildSnapshot(msgspec.Struct, frozen=True):
    """The answer to ``GuildSnapshot``: a guild with its shard's position, read in one transaction."""

    shard: int
    session: str
    seq: int
    guild: msgspec.Raw
    """``d`` of a GUILD_CREATE as Discord would send it now; ``large`` is true exactly when its list of members is not
    complete."""


class MemberList(msgspec.Struct, frozen=True):
    """The answer to ``MembersMatching``."""

    shard: int
    session: str
    seq: int
    members: tuple[msgspec.Raw, ...]
    not_found: tuple[str, ...]
    presences: tuple[msgspec.Raw, ...] | None
    """None unless they were asked for."""
