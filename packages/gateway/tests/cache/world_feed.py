"""A seeded simulated Discord feeding a cache: what the property tests and benchmarks share."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from rateway.cache.apply import Cache
from rateway.cache.kinds import Kind
from rateway.cache.policy import KINDS, CachePolicy
from rateway.cache.reader import View
from rateway.cache.storage import MemoryStorage, Storage, Table
from rateway_simulator.world import snapshot
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.steps import step
from rateway_simulator.world.world import World

Event = tuple[int, str, bytes]

# Our kinds by the simulated world's names.
NAMES = {
    Kind.CHANNEL: "channel",
    Kind.THREAD: "thread",
    Kind.ROLE: "role",
    Kind.EMOJI: "emoji",
    Kind.STICKER: "sticker",
    Kind.SCHEDULED_EVENT: "scheduled_event",
    Kind.SOUND: "sound",
    Kind.STAGE: "stage_instance",
    Kind.VOICE_STATE: "voice_state",
    Kind.PRESENCE: "presence",
    Kind.MEMBER: "member",
    Kind.THREAD_MEMBER: "thread_member",
    Kind.INTEGRATION: "integration",
}
EVERYTHING = CachePolicy(kinds=KINDS, messages_per_channel=20)


def encode(d: Any) -> bytes:
    return msgspec.json.encode(d)


def ready(world: World, session: str = "one") -> bytes:
    """READY of a bot with a single shard."""
    listed = [{"id": str(guild_id), "unavailable": True} for guild_id in world.guild_ids]
    return encode(
        {"v": 10, "user": world.ready_user(), "guilds": listed, "session_id": session, "shard": [0, 1],
         "resume_gateway_url": "wss://example.invalid", "application": {"id": "1", "flags": 0}}
    )  # fmt: skip


def opening(world: World, session: str = "one") -> list[tuple[str, bytes]]:
    """READY and the guilds of a new session."""
    events = [("READY", ready(world, session))]
    events += [
        ("GUILD_CREATE", encode(snapshot.guild_create(world, guild_id, large_threshold=100_000)))
        for guild_id in world.guild_ids
    ]
    return events


def stream(seed: int, steps: int, **options: Any) -> tuple[World, list[Event]]:
    """A world, and a session's events up to its state, numbered from 1."""
    world = World(WorldOptions(seed=seed, **options))
    chance = random.Random(seed)
    named = opening(world)
    for _ in range(steps):
        dispatch = step(world, chance)
        named.append((dispatch.name, encode(dispatch.d)))
    named += [(dispatch.name, encode(dispatch.d)) for dispatch in world.drain()]
    return world, [(number, name, d) for number, (name, d) in enumerate(named, 1)]


def feed(cache: Cache, events: list[Event]) -> Cache:
    for seq, name, d in events:
        cache.apply(0, seq, name, d)
    cache.flush()
    return cache


def filled(events: list[Event], policy: CachePolicy = EVERYTHING, storage: Storage | None = None) -> Cache:
    return feed(Cache(storage or MemoryStorage(), policy), events)


def decode(found: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(found))


def state(view: View) -> dict[str, dict[str, Any]]:
    """All that a cache holds, keyed as the simulated world keys it."""
    found: dict[str, dict[str, Any]] = {
        name: {} for name in (*NAMES.values(), "guild", "user", "message", "unavailable", "channel_info")
    }
    users: set[int] = set()
    for guild_id, row in view.guild_rows():
        if row.body:
            guild = decode(view.guild_fields(guild_id, row))
            found["guild"][str(guild_id)] = guild
            if guild.pop("unavailable"):
                found["unavailable"][str(guild_id)] = {"id": str(guild_id), "unavailable": True}
        for channel_id, raw in view.entity_store.walk(row.number, Kind.SIDE):
            found["channel_info"][str(channel_id)] = {
                **msgspec.json.decode(raw), "id": str(channel_id), "guild_id": str(guild_id)
            }  # fmt: skip
        for kind, name in NAMES.items():
            for entity_id, entity in view.children(row.number, kind):
                key = f"{guild_id}:{entity_id}"
                if kind in (Kind.MEMBER, Kind.PRESENCE, Kind.VOICE_STATE):
                    users |= {entity_id} if kind is Kind.MEMBER else set()
                elif kind is Kind.THREAD_MEMBER:
                    key = f"{entity_id}:{decode(entity)['user_id']}"
                else:
                    key = str(entity_id)
                found[name][key] = decode(entity)
    known = view.current_user()
    found["current_user"] = {"@me": msgspec.json.decode(known[1])} if known is not None else {}
    me = int(found["current_user"]["@me"]["id"]) if known is not None else None
    for user_id in users:
        user = view.user(user_id)
        if user_id == me:
            found["user"][str(user_id)] = found["current_user"]["@me"]
        elif user is not None:
            found["user"][str(user_id)] = msgspec.json.decode(user[1])
    for place, value in view.reading.scan(Table.MESSAGES, b"", b"\xff" * 17):
        channel_id, message_id = int.from_bytes(place[:8], "big"), int.from_bytes(place[8:], "big")
        found["message"][f"{channel_id}:{message_id}"] = msgspec.json.decode(value)
    return found


def entities(storage: Any) -> int:
    """How many rows of entities a storage in memory holds."""
    kept = (
        Table.GUILDS,
        Table.NUMBERS,
        Table.PAGES,
        Table.ROWS,
        Table.PRESENCES,
        Table.VOICE_STATES,
        Table.PENDING,
        Table.USERS,
        Table.TIPS,
        Table.MESSAGES,
    )
    return sum(len(storage.tables[table]) for table in kept) + sum(map(len, storage.pairs.values()))


def expected(world: World) -> dict[str, dict[str, Any]]:
    """What a perfect cache holds of a world that knows no archived threads."""
    found: dict[str, dict[str, Any]] = decode(snapshot.state(world))
    del found["archived_thread"]
    return found


def less_thread_messages(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without the messages of threads: those of an archived one are forgotten here and remembered by the world."""
    channels = found["channel"]
    messages = found["message"].items()
    kept = {key: item for key, item in messages if key.split(":")[0] in channels or "guild_id" not in item}
    return {**found, "message": kept}


def differences(got: dict[str, dict[str, Any]], wanted: dict[str, dict[str, Any]]) -> list[str]:
    """Where two states differ, entity by entity and field by field."""
    found = []
    if "message" in got:
        got, wanted = less_thread_messages(got), less_thread_messages(wanted)
    for kind in sorted({*got, *wanted}):
        mine, theirs = got.get(kind, {}), wanted.get(kind, {})
        found += [f"{kind} {key} is missing" for key in theirs if key not in mine]
        found += [f"{kind} {key} should not be there" for key in mine if key not in theirs]
        for key in mine.keys() & theirs.keys():
            a, b = mine[key], theirs[key]
            names = [name for name in {**a, **b} if a.get(name, "absent") != b.get(name, "absent")]
            found += [f"{kind} {key}: {name} is {a.get(name)!r}, not {b.get(name)!r}" for name in names]
    return found
