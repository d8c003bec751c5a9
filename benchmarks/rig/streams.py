"""What each shard is sent, recorded once from a simulated world: READY, its guilds, then events of its mix.

Every shard has guilds and events of its own, none of them twice: a repeated stream would compress better and
be cached more cheaply than news. Recording takes 40 µs an event and is kept in ``.cache``.
"""

from __future__ import annotations

import hashlib
import pickle
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
from rateway_protocol.discord.intents import ALL
from rateway_simulator.gateway import wire
from rateway_simulator.gateway.gateway import encode
from rateway_simulator.gateway.sessions import message
from rateway_simulator.world import snapshot
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.people import TOKEN
from rateway_simulator.world.steps import step
from rateway_simulator.world.world import World

__all__ = ["INTENTS", "TOKEN", "Packed", "Recipe", "pack", "recorded"]

CACHE = Path(__file__).parents[2] / ".cache" / "streams"
# The recording's own form; raise it when what is recorded changes.
VERSION = 1
INTENTS = ALL
HELLO = b'{"op":10,"d":{"heartbeat_interval":900000},"s":null,"t":null}'
# Guilds come and go only where that is measured.
STEADY = {"GUILD_CREATE": 0.0, "GUILD_DELETE": 0.0}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Equal recipes give equal streams. ``guilds`` and ``events`` are those of one shard; ``size`` makes every event
    at least so many bytes long.

    ``alike``: every shard gets the same stream, session id included, recorded and compressed once. That is how a
    thousand shards can be fed; it is for figures that do not depend on what events say.
    """

    shards: int = 4
    guilds: int = 50
    members: int = 100
    events: int = 20_000
    seed: int = 1
    size: int = 0
    alike: bool = False


# One shard: READY, GUILD_CREATEs and events as JSON, numbered from 1.
Stream = tuple[list[bytes], list[bytes]]


def recorded(recipe: Recipe) -> list[Stream]:
    """By shard: (what begins its session, its events)."""
    if recipe.alike:
        return recorded(replace(recipe, shards=1, alike=False)) * recipe.shards
    told = asdict(recipe)
    del told["alike"]
    key = hashlib.sha256(repr((VERSION, told)).encode()).hexdigest()[:16]
    path = CACHE / f"{key}.pickle"
    if path.exists():
        found: list[Stream] = pickle.loads(path.read_bytes())
        return found
    streams = _record(recipe)
    CACHE.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(streams))
    return streams


def _record(recipe: Recipe) -> list[Stream]:
    shards = recipe.shards
    world = World(
        WorldOptions(
            seed=recipe.seed,
            guilds=recipe.guilds * shards,
            members_per_guild=recipe.members,
            mix=STEADY,
            unfolded_guilds=4 * recipe.guilds * shards,
        )
    )
    chance = random.Random(recipe.seed)
    homes: list[list[int]] = [[] for _ in range(shards)]
    for guild_id in world.guild_ids:
        homes[(guild_id >> 22) % shards].append(guild_id)
    streams: list[Stream] = []
    for shard, guilds in enumerate(homes):
        begin = [message(b"READY", 1, _ready(world, shard, shards, guilds))]
        for guild_id in guilds:
            begin.append(
                message(b"GUILD_CREATE", len(begin) + 1, encode(snapshot.guild_create(world, guild_id)))
            )
        events: list[bytes] = []
        # Bodies of events before it: what makes an event long compresses like events.
        filler: deque[bytes] = deque(maxlen=1 + recipe.size // 300)
        seq = len(begin)
        while len(events) < recipe.events:
            dispatch = step(world, chance, None, chance.choice(guilds))
            if dispatch.guild_id is None or (dispatch.guild_id >> 22) % shards == shard:
                seq += 1
                data = encode(dispatch.d)
                if recipe.size and len(data) > 2:
                    filler.append(data)
                    data = _lengthened(data, filler, recipe.size)
                events.append(message(dispatch.name.encode(), seq, data))
        world.drain()
        streams.append((begin, events))
    return streams


def _lengthened(data: bytes, filler: Iterable[bytes], size: int) -> bytes:
    more: list[bytes] = []
    room = size - len(data)
    for each in filler:
        if room > 0:
            more.append(each)
            room -= len(each) + 1
    return b'{"more":[%b],%b' % (b",".join(more), data[1:])


def _ready(world: World, shard: int, shards: int, guilds: list[int]) -> bytes:
    application = world.application()
    return msgspec.json.encode(
        {
            "v": 10,
            "user": world.ready_user(),
            "guilds": [{"id": str(guild_id), "unavailable": True} for guild_id in guilds],
            "session_id": f"{shard:032x}",
            "resume_gateway_url": "RESUME_URL",
            "shard": [shard, shards],
            "application": {"id": application["id"], "flags": application["flags"]},
            "private_channels": [],
            "relationships": [],
            "session_type": "normal",
            "geo_ordered_rtc_regions": [],
            "auth": {},
            "user_settings_protocol": "",
        }
    )


@dataclass(frozen=True, slots=True)
class Packed:
    """One shard's connection as WebSocket frames in one compression context."""

    hello: bytes
    begin: bytes
    events: list[bytes]


def pack(stream: Stream, compression: str, url: str) -> Packed:
    """Compress and frame a stream; ``url`` is where to resume."""
    begin, events = stream
    context = wire.stream(compression)

    def framed(payload: bytes) -> bytes:
        return wire.frame(context.opcode, context.pack(payload))

    hello = framed(HELLO)
    head = begin[0].replace(b"RESUME_URL", url.encode())
    return Packed(hello, b"".join(map(framed, [head, *begin[1:]])), list(map(framed, events)))
