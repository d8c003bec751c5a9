"""A proxy's queries against the real gateway: what Discord would send now, over restarts, and in parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from rateway.runtime.requests.query_queue import PART_BYTES
from rateway.transports.amqp.requests.gateway_requests import AmqpGateway
from rateway.transports.amqp.wire.uri import parse
from rateway_protocol.contract.errors import Fault
from rateway_protocol.contract.snapshots import ClusterList, GuildSnapshot, MemberList, ShardSnapshot
from rateway_protocol.discord import intents
from rateway_protocol.discord.intents import Intents
from rateway_protocol.discord.snowflake import shard_of
from rateway_simulator.world import snapshot
from rateway_simulator.world.dispatch import WorldOptions

from tests.aio import run
from tests.e2e.harness import LOOK, Json, Stage, stage
from tests.rabbitmq import Broker

WITHOUT_PRESENCES = intents.ALL & ~Intents.GUILD_PRESENCES
# Its GUILD_CREATE is larger than a part of an answer.
LARGEST = 20_000


@asynccontextmanager
async def asking(uri: str) -> AsyncIterator[AmqpGateway]:
    gateway = AmqpGateway(address=parse(uri))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(gateway.run())
        yield gateway
        task.cancel()


async def shard(gateway: AmqpGateway, shard_id: int) -> ShardSnapshot:
    """The shard's snapshot, once its READY is in the cache."""
    while isinstance(found := await gateway.shard(shard_id), Fault):
        assert found.code == "loading", found
        await asyncio.sleep(LOOK)
    return found


def by_id(items: list[Json], *path: str) -> dict[str, Json]:
    """Entities by their id. Who is in voice may be listed twice by Discord."""
    found = {}
    for item in items:
        key: Any = item
        for name in path:
            key = key[name]
        found[key] = item
    return found


def comparable(d: Json) -> Json:
    """The parts of a GUILD_CREATE that have an order of no meaning, by id."""
    found = {name: d[name] for name in ("id", "name", "owner_id", "member_count", "unavailable", "joined_at")}
    for name in ("members", "presences"):
        found[name] = by_id(d[name], "user", "id")
    for name in ("channels", "threads", "roles", "emojis"):
        found[name] = set(by_id(d[name], "id"))
    found["voice_states"] = set(by_id(d["voice_states"], "user_id"))
    return found


def sent(it: Stage, guild_id: int, wanted: int) -> Json:
    d = snapshot.guild_create(it.sim.world, guild_id, intents=wanted, large_threshold=250)
    return comparable(msgspec.json.decode(msgspec.json.encode(d)))


async def every_guild_is_as_discord_would_send_it(it: Stage, gateway: AmqpGateway, wanted: int) -> None:
    guild_ids = [each for each in it.sim.world.guild_ids if it.sim.world.is_available(each)]
    found = await gateway.guilds(guild_ids, wanted, 250)
    for guild_id, each in zip(guild_ids, found, strict=True):
        assert isinstance(each, GuildSnapshot), each
        assert each.shard == shard_of(guild_id, 2)
        assert comparable(msgspec.json.decode(each.guild)) == sent(it, guild_id, wanted)


def test_a_proxy_gets_what_discord_would_send_before_and_after_a_restart(
    tmp_path: Path, broker: Broker
) -> None:
    world = WorldOptions(guilds=8, members_per_guild=30, largest_guild=LARGEST)

    async def main() -> None:
        simulator: Json = {"world": world}
        async with (
            stage(tmp_path, broker, shards=2, per_cluster=1, simulator=simulator) as it,
            asking(broker.uri) as gateway,
        ):
            await it.ready()
            clusters = await gateway.clusters()
            assert isinstance(clusters, ClusterList)
            assert clusters.intents == intents.ALL and {"channels", "roles", "members"} <= set(clusters.kinds)
            await it.events(400)
            await it.all_arrived()
            for wanted in (intents.ALL, WITHOUT_PRESENCES):
                await every_guild_is_as_discord_would_send_it(it, gateway, wanted)
            before = [await shard(gateway, shard_id) for shard_id in range(2)]
            assert all(each.application and msgspec.json.decode(each.application)["id"] for each in before)
            largest = max(it.sim.world.guild_ids, key=lambda each: len(it.sim.world.peek(each).roster))
            (large,) = await gateway.guilds([largest], intents.ALL, 250)
            assert isinstance(large, GuildSnapshot) and len(bytes(large.guild)) > PART_BYTES
            # Of the largest guild Discord sends no list of all members: they are not known.
            unknown = await gateway.members(largest, "", 0, None, False)
            assert isinstance(unknown, Fault) and unknown.code == "incomplete"
            small = min(it.sim.world.guild_ids, key=lambda each: len(it.sim.world.peek(each).roster))
            known = await gateway.members(small, "", 0, None, True)
            assert isinstance(known, MemberList), known
            assert len(known.members) == len(it.sim.world.peek(small).roster)
            identified = it.count("identify")
            await it.gateway.stop()
            await it.gateway.start()
            await it.ready()
            after = [await shard(gateway, shard_id) for shard_id in range(2)]
            assert it.count("identify") == identified
            assert [each.session for each in after] == [each.session for each in before]
            assert [each.application for each in after] == [each.application for each in before]
            assert [each.guilds for each in after] == [each.guilds for each in before]
            await every_guild_is_as_discord_would_send_it(it, gateway, intents.ALL)

    run(main())


def test_a_gateway_without_a_cache_says_so_to_whoever_asks_for_its_clusters(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with (
            stage(tmp_path, broker, shards=1, guilds=2, CACHE_ENABLED="false") as it,
            asking(broker.uri) as gateway,
        ):
            await it.ready()
            clusters = await gateway.clusters()
            assert isinstance(clusters, ClusterList)
            assert clusters.kinds == () and clusters.clusters[0].guilds is None
            refused = await gateway.shard(0)
            assert isinstance(refused, Fault) and refused.code == "cache_off"

    run(main())
