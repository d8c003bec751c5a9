"""The client against the gateway itself: every query, commands to Discord, members, a broker that restarts."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path

import aio_pika
import pytest
from rateway_client import Cache, CommandError, Event, NoAnswer, QueryError, Worker, question
from rateway_protocol.contract import topology
from rateway_protocol.contract.queries import QUERY_TYPES
from rateway_simulator.world.dispatch import WorldOptions
from tests.client.stand_in import left_in

from tests.aio import run
from tests.e2e.harness import LOOK, Stage, stage
from tests.rabbitmq import Broker

VOICE_CHANNEL = 2


def method_of(kind: str) -> str:
    """`GuildMembers` is asked by `guild_members`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()


async def sent_to_discord(it: Stage, command: str, count: int = 1) -> None:
    while it.count(f"command {command}") < count:
        await asyncio.sleep(LOOK)


def test_every_type_of_query_has_its_method() -> None:
    assert [kind for kind in QUERY_TYPES if not callable(getattr(Cache, method_of(kind), None))] == []


async def ask_everything(it: Stage, worker: Worker, guild_id: str) -> None:
    """Each method once, about one guild."""
    cache = worker.cache
    guild = await cache.guild(guild_id, fields=["id", "name", "roles"])
    assert guild is not None and guild["id"] == guild_id and guild["roles"]
    members = [each async for each in cache.guild_members(guild_id)]
    assert len({each["user"]["id"] for each in members}) == len(members) == 10
    user_id = members[0]["user"]["id"]
    named = [each async for each in cache.pages("GuildMembers", guild_id, fields=["roles"], page=3)]
    assert [each["user"]["id"] for each in named] == [each["user"]["id"] for each in members]
    assert all(set(each) == {"roles", "user"} for each in named)
    channels = [each async for each in cache.guild_channels(guild_id)]
    voice = next(each for each in channels if each["type"] == VOICE_CHANNEL)
    for one, expected in (
        (cache.member(guild_id, user_id), members[0]["user"]["id"]),
        (cache.user(user_id), user_id),
        (cache.guild_channel(channels[0]["id"]), channels[0]["id"]),
        (cache.role(guild["roles"][0]["id"]), guild["roles"][0]["id"]),
        (cache.current_user(), str(it.sim.world.bot_id)),
    ):
        found = await one
        assert found is not None and (found.get("id") or found["user"]["id"]) == expected
    assert await cache.voice_channel_states(voice["id"]) is not None
    assert await cache.member_permissions(guild_id, str(it.sim.world.bot_id), channels[0]["id"]) is not None
    where = await cache.where_is(guild_id)
    assert where is not None and where["shard_count"] == 4
    assert (await cache.stats())["guilds"] == 8
    assert guild_id in [each["id"] async for each in cache.mutual_guilds(user_id, fields=["name"])]
    await other_processes_are_live(worker)
    for unknown in (cache.private_channel(1), cache.group(1), cache.emoji(1), cache.presence(guild_id, 1)):
        assert await unknown is None
    assert await cache.voice_state(1, guild_id) is None
    with pytest.raises(QueryError) as off:
        await cache.message(channels[0]["id"], 1)
    assert off.value.code == "cache_off"
    shards = [await cache.shard_snapshot(shard_id) for shard_id in range(4)]
    assert sum(len(each["guilds"]) for each in shards) == 8
    assert all(each["user"]["id"] == str(it.sim.world.bot_id) and each["seq"] > 0 for each in shards)
    known = await cache.guild_snapshot(guild_id, intents=1, large_threshold=250)
    assert known is not None and known["session"] == shards[where["shard"]]["session"]
    assert known["guild"]["id"] == guild_id and len(known["guild"]["members"]) < 10
    everybody = await cache.members_matching(guild_id, query="", presences=True)
    assert everybody is not None and len(everybody["members"]) == 10
    some = await cache.members_matching(guild_id, user_ids=[user_id, 1])
    assert some is not None and some["not_found"] == ["1"]
    assert [each["user"]["id"] for each in some["members"]] == [user_id]
    lists = [
        cache.guild_threads, cache.guild_roles, cache.guild_emojis, cache.guild_stickers, cache.guild_voice_states,
        cache.guild_presences, cache.guild_scheduled_events, cache.guild_stage_instances,
        cache.guild_soundboard_sounds,
    ]  # fmt: skip
    for each in lists:
        whole = [item async for item in each(guild_id)]
        kind = "".join(word.capitalize() for word in each.__name__.split("_"))
        # Pages of one find the same: each list is ordered by what the client pages it by.
        assert [item async for item in cache.pages(kind, guild_id, page=1)] == whole


async def other_processes_are_live(worker: Worker) -> None:
    """Until a process has heard that the shards of the others are live, what nobody knows may be theirs."""
    while True:
        try:
            await worker.cache.emoji(1)
        except QueryError as error:
            if error.code != "loading":
                raise
            await asyncio.sleep(0.05)
        else:
            return


def test_queries_and_commands_reach_the_gateway_and_members_come_whole(
    tmp_path: Path, broker: Broker
) -> None:
    world = WorldOptions(guilds=8, members_per_guild=10, largest_guild=1500)

    async def main() -> None:
        async with stage(
            tmp_path, broker, shards=4, per_cluster=2, guilds=8, simulator={"world": world}
        ) as it:
            await it.ready()
            await it.all_arrived()
            async with Worker(broker.uri, cluster=1) as worker:
                guilds = [each["id"] async for each in worker.cache.guilds(fields=["name"])]
                assert guilds == [str(each) for each in sorted(it.sim.world.guild_ids)]
                small = guilds[-1]
                await ask_everything(it, worker, small)
                first, missing, wrong = await worker.queries(
                    [question("Guild", [small]), question("Guild", [1]), question("Nothing")]
                )
                assert first["id"] == small and missing is None
                assert isinstance(wrong, QueryError) and wrong.code == "unknown_type"
                await commands(it, worker, small)
                # The guild of 1,500 may be of the other cluster: its chunks are found there.
                for guild_id in (str(it.sim.world.guild_ids[0]), small):
                    found = await worker.request_members(guild_id)
                    ids = {each["user"]["id"] for each in found.members}
                    assert len(found.members) == len(ids) == (10 if guild_id == small else 1500)
                some = [found.members[0]["user"]["id"], "1"]
                asked = await asyncio.gather(
                    worker.request_members(small, user_ids=some),
                    worker.request_members(small, query=found.members[0]["user"]["username"][:2], limit=5),
                )
                assert [each["user"]["id"] for each in asked[0].members] == some[:1]
                assert asked[0].not_found == ["1"]
                assert asked[1].members

    run(main())


async def commands(it: Stage, worker: Worker, guild_id: str) -> None:
    """What Discord receives, and what the gateway refuses."""
    for shard_id in range(4):
        await worker.update_presence(shard_id, activities=[{"name": "chess", "type": 0}])
    await sent_to_discord(it, "presence_update", 4)
    channels = [each async for each in worker.cache.guild_channels(guild_id, fields=["type"])]
    voice = next(each["id"] for each in channels if each["type"] == VOICE_CHANNEL)
    await worker.voice_state(guild_id, voice, self_deaf=True)
    await sent_to_discord(it, "voice_state_update")
    await worker.voice_state(guild_id, None)
    await worker.request_soundboard_sounds([guild_id])
    await sent_to_discord(it, "request_soundboard_sounds")
    await worker.request_channel_info(guild_id)
    for call, code in (
        (worker.update_presence(4), "no_such_shard"),
        (worker.update_presence(0, status="asleep"), "invalid"),
        (worker.command(1, {}, shard_id=0), "unknown_opcode"),
        (worker.request_members(guild_id, user_ids=["x"]), "invalid"),
    ):
        with pytest.raises(CommandError) as refused:
            await call
        assert refused.value.code == code


def test_a_restart_of_the_broker_doubles_and_loses_nothing_and_leaves_no_call_waiting(
    tmp_path: Path, broker: Broker
) -> None:
    names = ["MESSAGE_CREATE", "TYPING_START", "PRESENCE_UPDATE", "GUILD_MEMBER_UPDATE"]

    async def main() -> None:
        async with (
            stage(tmp_path, broker, shards=2, guilds=20) as it,
            Worker(broker.uri, queue="worker", queue_kind="quorum", events=names, prefetch=20) as worker,
        ):
            got: Counter[str | None] = Counter()

            @worker.on(*names)
            async def count(event: Event) -> None:
                # A direct message has no guild.
                guild_id = event.data.get("guild_id", "1")
                guild = await worker.cache.guild(guild_id, fields=["id"])
                assert guild == (None if guild_id == "1" else {"id": guild_id})
                got[event.message_id] += 1

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(worker.run(concurrency=8))
                await it.ready()
                await it.events(200)
                await broker.stop()
                query = tasks.create_task(worker.query("CurrentUser", timeout=60))
                await it.events(100)
                await broker.start()
                assert (await query)["id"] == str(it.sim.world.bot_id)
                await it.events(100)
                await it.all_arrived()
                wanted = {
                    f"{each.session}:{each.shard}:{each.seq}"
                    for each in it.sim.ledger.log()
                    if each.event in names
                }
                while set(got) < wanted:
                    await asyncio.sleep(LOOK)
                worker.stop()
            assert set(got) == wanted
            assert set(got.values()) == {1}

    run(main())


def test_a_query_that_waited_for_the_gateway_is_answered_when_it_starts(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with await aio_pika.connect(broker.uri) as connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange(
                topology.exchange(1), topology.EXCHANGE_TYPE, durable=True
            )
            queue = await channel.declare_queue(topology.incoming(1), durable=True)
            for key in (topology.CACHE_KEY, topology.GATEWAY_KEY):
                await queue.bind(exchange, key)
        async with stage(tmp_path, broker, shards=1, start=False) as it, Worker(broker.uri) as worker:
            queries = [worker.query("WhereIs", 1, timeout=40) for _ in range(20)]
            calls = asyncio.gather(*queries, worker.update_presence(0, timeout=40), return_exceptions=True)
            while await left_in(broker, topology.incoming(1)) < 21:
                await asyncio.sleep(LOOK)
            await it.gateway.start()
            *answers, presence = await calls
            # The gateway may not know its number of shards yet: everyone is told something.
            assert [each for each in answers if isinstance(each, NoAnswer)] == []
            assert presence is None

    run(main())
