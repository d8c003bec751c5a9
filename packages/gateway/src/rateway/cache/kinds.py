"""The kinds of entities that the cache keeps, one row each, from which every other list of them is derived.

From a row follow: what ``CACHE_KINDS`` accepts, where in GUILD_CREATE the entities stand and how they are stored, the
types of query that answer them, the counts of ``Stats``, what is dropped when the kind is switched off, what of an odd
event can still be read, and the entity before an event. ``docs/extending.md`` says what a new kind needs beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from rateway.cache.storage import Table, quick

__all__ = ["ENTITY_KINDS", "INDEXED", "MESSAGES", "OWN_TABLES", "PAGED", "SNAPSHOTS", "EntityKind", "Kind"]


class Kind(IntEnum):
    """Entities that belong to a guild. The numbers are in the store's keys: a change is a change of its format."""

    MEMBER = 1
    CHANNEL = 2
    THREAD = 3
    ROLE = 4
    EMOJI = 5
    STICKER = 6
    SCHEDULED_EVENT = 7
    SOUND = 8
    STAGE = 9
    VOICE_STATE = 10
    PRESENCE = 11
    INTEGRATION = 12
    THREAD_MEMBER = 13
    """The bot's own membership, by thread id."""
    SIDE = 14
    """Voice channels' status and start time, by channel id."""


quick(Kind)


# Where messages are counted, beside the kinds: they belong to a channel and stand in a table of their own.
MESSAGES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityKind:
    """One kind of entity."""

    name: str
    """As ``CACHE_KINDS``, ``Stats`` and error messages name it."""
    kind: Kind | None = None
    """The kind under which its entities are stored; None for users and messages, which belong to no guild."""
    by_default: bool = True
    """Whether it is kept unless ``CACHE_KINDS`` says otherwise."""

    # in Discord's events
    snapshot_field: str = ""
    """The field of GUILD_CREATE that lists all of a guild's entities; empty when none does."""
    comes_inside: str = ""
    """The kind whose entities carry those of this one."""
    in_guild_update: bool = False
    """Whether GUILD_UPDATE carries the complete list as well."""
    id_path: tuple[str, ...] = ("id",)
    """The path of the id in an entity."""
    events: tuple[str, ...] = ()
    """Events whose ``d`` is one such entity with its ``guild_id``. Those without a reducer of their own in
    ``REDUCERS`` write ``d`` as it is, or (``…_DELETE``) remove the entity."""
    names_guild: bool = False
    """Whether the entities in GUILD_CREATE carry ``guild_id`` too, by what libraries read of its payloads and
    https://docs.discord.com/developers/events/gateway-events#guild-create."""

    # in the store
    paged: bool = False
    """For what hardly changes and comes in bulk: compressed pages with rows over them. Others are rows at once."""
    indexed: bool = False
    """For what a query or an event names without its guild: an index from id to guild."""
    table: Table | None = None
    """For what changes most: a table of its own, which counts its entries; a change is one write and no read."""
    beside: tuple[Kind, ...] = ()
    """The kinds stored beside the entities, which are deleted with them."""
    tables: tuple[Table, ...] = ()
    """Tables that hold nothing but this kind, and are emptied when it is switched off."""

    # in queries
    list_query: str = ""
    """The type of query that lists a guild's entities."""
    id_query: str = ""
    """The type of query that finds an entity by its id alone; the kind has to be indexed."""

    @property
    def id_field(self) -> str:
        """The field that holds the id, for a kind whose entities hold it themselves."""
        (name,) = self.id_path
        return name


# The order is that of the counts in Stats, and that in which the lists of a GUILD_CREATE are written.
ENTITY_KINDS: tuple[EntityKind, ...] = (
    EntityKind(
        name="channels", kind=Kind.CHANNEL, snapshot_field="channels", paged=True, indexed=True, beside=(Kind.SIDE,),
        tables=(Table.TIPS,), list_query="GuildChannels",
    ),
    EntityKind(
        name="threads", kind=Kind.THREAD, snapshot_field="threads", names_guild=True, paged=True, indexed=True,
        list_query="GuildThreads",
    ),
    EntityKind(name="thread_members", kind=Kind.THREAD_MEMBER, comes_inside="threads"),
    EntityKind(
        name="roles", kind=Kind.ROLE, snapshot_field="roles", in_guild_update=True, paged=True, indexed=True,
        list_query="GuildRoles", id_query="Role",
    ),
    EntityKind(
        name="emojis", kind=Kind.EMOJI, snapshot_field="emojis", in_guild_update=True, paged=True, indexed=True,
        list_query="GuildEmojis", id_query="Emoji",
    ),
    EntityKind(
        name="stickers", kind=Kind.STICKER, snapshot_field="stickers", in_guild_update=True, names_guild=True,
        paged=True, list_query="GuildStickers",
    ),
    EntityKind(
        name="members", kind=Kind.MEMBER, snapshot_field="members", id_path=("user", "id"), paged=True, indexed=True,
        list_query="GuildMembers",
    ),
    EntityKind(
        name="stage_instances", kind=Kind.STAGE, snapshot_field="stage_instances", names_guild=True,
        events=("STAGE_INSTANCE_CREATE", "STAGE_INSTANCE_UPDATE", "STAGE_INSTANCE_DELETE"),
        list_query="GuildStageInstances",
    ),
    EntityKind(
        name="scheduled_events", kind=Kind.SCHEDULED_EVENT, snapshot_field="guild_scheduled_events", names_guild=True,
        events=("GUILD_SCHEDULED_EVENT_CREATE", "GUILD_SCHEDULED_EVENT_UPDATE", "GUILD_SCHEDULED_EVENT_DELETE"),
        list_query="GuildScheduledEvents",
    ),
    EntityKind(
        name="soundboard_sounds", kind=Kind.SOUND, snapshot_field="soundboard_sounds", id_path=("sound_id",),
        names_guild=True, paged=True,
        events=("GUILD_SOUNDBOARD_SOUND_CREATE", "GUILD_SOUNDBOARD_SOUND_UPDATE", "GUILD_SOUNDBOARD_SOUND_DELETE"),
        list_query="GuildSoundboardSounds",
    ),
    # There is no snapshot of integrations, and they are partial by nature, so they are off unless asked for
    # (https://docs.discord.com/developers/events/gateway-events#guilds).
    EntityKind(
        name="integrations", kind=Kind.INTEGRATION, by_default=False,
        events=("INTEGRATION_CREATE", "INTEGRATION_UPDATE", "INTEGRATION_DELETE"),
    ),
    EntityKind(
        name="presences", kind=Kind.PRESENCE, snapshot_field="presences", id_path=("user", "id"),
        table=Table.PRESENCES, list_query="GuildPresences",
    ),
    EntityKind(
        name="voice_states", kind=Kind.VOICE_STATE, snapshot_field="voice_states", id_path=("user_id",),
        table=Table.VOICE_STATES, list_query="GuildVoiceStates",
    ),
    EntityKind(name="users", comes_inside="members", tables=(Table.USERS,)),
    EntityKind(name="messages", tables=(Table.MESSAGES,)),
)  # fmt: skip

SNAPSHOTS: Mapping[str, tuple[Kind, EntityKind]] = {
    row.snapshot_field: (row.kind, row) for row in ENTITY_KINDS if row.snapshot_field and row.kind is not None
}
"""Field of GUILD_CREATE → the entities that it lists."""

PAGED = frozenset(row.kind for row in ENTITY_KINDS if row.paged and row.kind is not None)
INDEXED = frozenset(row.kind for row in ENTITY_KINDS if row.indexed and row.kind is not None)
OWN_TABLES: Mapping[int, Table] = {
    row.kind: row.table for row in ENTITY_KINDS if row.kind is not None and row.table is not None
}
