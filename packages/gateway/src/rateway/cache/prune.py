"""Remove or doubt what no event removes: after other settings, another layout or owner, a write that failed."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable

import msgspec
from rateway.cache.kinds import ENTITY_KINDS, MESSAGES
from rateway.cache.policy import KINDS, CachePolicy, WrittenPolicy, written_policy
from rateway.cache.storage import Table
from rateway.cache.writer import CacheWriter
from rateway_protocol.discord.snowflake import shard_of

__all__ = [
    "LOADING", "OF_ENTITIES", "UNFINISHED", "adopt_policy", "clear", "forget_unfinished", "mark_incomplete", "prune",
    "unfinished_key",
]  # fmt: skip


def _kept(policy: CachePolicy) -> list[str]:
    return sorted(kind for kind in KINDS if policy.keeps(kind))


def adopt_policy(writer: CacheWriter) -> tuple[str, ...]:
    """Adapt the store to the settings: drop kinds that are off now, mark those that are new as incomplete.

    Returns lines for the log.
    """
    policy, old = writer.policy, written_policy(writer.reading)
    kept = _kept(policy)
    if old is None:
        _write(writer, WrittenPolicy.of(policy))
        return ()
    if old.fingerprint == policy.fingerprint():
        return ()
    added = set(kept) - set(old.kinds)
    if policy.activities and not old.activities and "presences" in kept:
        added.add("presences")
    # A user's fields stand in its members' snapshots.
    added.update("members" if kind == "users" else kind for kind, names in old.fields.items() if names)
    removed = set(old.kinds) - set(kept)
    for kind in sorted(removed):
        _drop(writer, kind)
    stamp = writer.stamp()
    added &= {*kept, "guilds"}
    if "messages" in added:
        # No snapshot brings them again: those from now on are whole.
        added.remove("messages")
        _drop(writer, "messages")
    lasting = {kind: at for kind, at in old.since.items() if kind in kept or kind == "guilds"}
    _write(writer, WrittenPolicy.of(policy, lasting | dict.fromkeys(added, stamp)))
    words = []
    if removed:
        words.append(f"the cache keeps no {', '.join(sorted(removed))} any more; what there was is dropped")
    if added:
        words.append(
            f"the cache keeps {', '.join(sorted(added))}, or more of them, from now on; incomplete until each guild "
            "comes anew"
        )
    return tuple(words)


def _write(writer: CacheWriter, written: WrittenPolicy) -> None:
    writer.storage.put(Table.META, b"policy", msgspec.msgpack.encode(written))


def _drop(writer: CacheWriter, name: str) -> None:
    """Remove all entities of a kind."""
    (row,) = (row for row in ENTITY_KINDS if row.name == name)
    for number in [guild.number for _, guild in writer.guild_rows() if guild.number]:
        for kind in row.beside if row.kind is None else (row.kind, *row.beside):
            writer.entity_store.wipe(number, kind)
    for table in row.tables:
        for key, _ in list(writer.storage.scan(table, b"", b"\xff" * 17)):
            writer.storage.delete(table, key)
    if name == "messages":
        writer.counts[MESSAGES] = 0
    if name == "members":
        for guild_id, guild in list(writer.guild_rows()):
            guild.cached_members = 0
            writer.save(guild_id, guild)


def mark_incomplete(writer: CacheWriter) -> None:
    """Mark every kind as incomplete until its guild comes again, because a write was lost."""
    written = written_policy(writer.reading) or WrittenPolicy.of(writer.policy)
    written.since = dict.fromkeys((*_kept(writer.policy), "guilds"), writer.stamp())
    _write(writer, written)


# Everything but what the store and the gateway write down of themselves.
OF_ENTITIES = tuple(table for table in Table if table not in (Table.META, Table.SESSIONS))
# In ``Table.META``, of a store whose cache comes from another member and is not all there.
LOADING = b"loading"
# The same of a shard some of whose guilds follow a second session (``second_view``).
UNFINISHED = b"unfinished:"
_META_OF_ENTITIES = (b"counts", b"layout:", b"removed-roles:", b"dead-guilds", LOADING, UNFINISHED)
_SHARD = struct.Struct(">I")


def unfinished_key(shard_id: int) -> bytes:
    """Return the key in ``Table.META`` of a shard some of whose guilds follow a second session."""
    return UNFINISHED + _SHARD.pack(shard_id)


def forget_unfinished(writer: CacheWriter) -> tuple[int, ...]:
    """Remove the guilds of shards that a process was filling from a second session when it ended: where the first one
    stood in each is not known. The shards are still cold. Returns them.
    """
    storage = writer.storage
    keys = [key for key, _ in storage.scan(Table.META, UNFINISHED, UNFINISHED + b"\xff" * 5)]
    shards = tuple(_SHARD.unpack_from(key, len(UNFINISHED))[0] for key in keys)
    for key in keys:
        storage.delete(Table.META, key)
    for guild_id, row in list(writer.guild_rows()) if shards else ():
        if row.shard_id in shards:
            writer.remove_guild(guild_id, row)
    return shards


def clear(writer: CacheWriter, shards: Iterable[int]) -> None:
    """Remove every entity, because another gateway has had events since; *shards* are cold until their next READY.

    The writer's own memory is of what was there: it is of no use after that.
    """
    storage = writer.storage
    stamp = writer.stamp()
    for key, _ in list(storage.scan(Table.META, b"", b"\xff" * 9)):
        if key.startswith(_META_OF_ENTITIES):
            storage.delete(Table.META, key)
    storage.clear(OF_ENTITIES)
    for shard_id in shards:
        writer.chill(shard_id, stamp)


def prune(writer: CacheWriter, shard_count: int, shards: Collection[int]) -> int:
    """Remove guilds that belong to none of these shards of this many."""
    gone = 0
    for guild_id, row in list(writer.guild_rows()):
        if shard_of(guild_id, shard_count) not in shards:
            writer.remove_guild(guild_id, row)
            gone += 1
    return gone
