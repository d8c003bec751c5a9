"""Workers written for the original gateway, as processes of their own, run unchanged."""

from __future__ import annotations

import asyncio
import json
import re
import struct
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aio_pika
import pamqp.encode
import pytest
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage
from rateway.demo.children import Child
from rateway.demo.steering import Steering
from rateway_protocol.discord.snowflake import shard_of

from tests.aio import run
from tests.e2e.harness import LOOK, Json, Stage, stage
from tests.e2e.witness import witness
from tests.rabbitmq import Broker

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "worker_aio_pika.py"
PRESENCE = b'{"op":3,"d":{"since":null,"activities":[],"status":"idle","afk":false}}'


async def line_in(child: Child, words: str) -> str:
    """Wait until the child has written a line with *words*."""
    while (found := await child.line_with(words)) is None:
        assert child.running, child.tail()
    return found


async def say(it: Stage, content: str) -> Json:
    """A member says something in the first guild: the guild as `/simulator/guilds` shows it."""
    async with Steering(it.sim.control_url) as simulator:
        place: Json = (await simulator.guilds())[0]
        await simulator.speak(place["members"][-1], place["channel_id"], content)
        return place


async def sent_to_discord(it: Stage, command: str, count: int = 1) -> None:
    """Wait until the simulated Discord has received *count* commands of that name."""
    while it.count(f"command {command}") < count:
        await asyncio.sleep(LOOK)


def test_the_example_worker_gets_messages_and_asks_the_cache_for_their_guild(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=2, guilds=4) as it:
            await it.ready()
            worker = Child("worker", [str(EXAMPLE)], {"AMQP_URI": broker.uri}, tmp_path / "worker.log")
            await worker.start()
            await line_in(worker, "listening")
            await sent_to_discord(it, "presence_update")
            place = await say(it, "hello there")
            line = await line_in(worker, "hello there")
            assert line.startswith(f"MESSAGE_CREATE in {place['name']}: ")
            await worker.kill()

    run(main())


def test_the_example_on_our_client_gets_messages_and_sets_the_presence_of_new_sessions(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=2, guilds=4, start=False) as it:
            example = EXAMPLE.with_name("worker_client.py")
            worker = Child("worker", [str(example)], {"AMQP_URI": broker.uri}, tmp_path / "worker.log")
            await worker.start()
            await line_in(worker, "listening")
            await it.gateway.start()
            await it.ready()
            await sent_to_discord(it, "presence_update", count=2)
            place = await say(it, "hello there")
            line = await line_in(worker, "hello there")
            assert line.endswith(f" in {place['name']}: hello there")
            await worker.kill()

    run(main())


def test_a_worker_answers_over_rest_and_sets_its_presence_through_the_gateway(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=2, guilds=4, start=False) as it:
            environment = {
                "AMQP_URI": broker.uri,
                "DISCORD_API_URL": it.sim.api_url,
                "DISCORD_TOKEN": it.sim.options.token,
            }
            # The worker comes first: either side declares the exchange, with the same flags.
            worker = Child(
                "worker", ["-m", "rateway.demo.plain_worker"], environment, tmp_path / "worker.log"
            )
            await worker.start()
            await line_in(worker, "listening on rateway-1")
            await it.gateway.start()
            await it.ready()
            await sent_to_discord(it, "presence_update", count=2)
            place = await say(it, "!ping")
            line = await line_in(worker, "replied")
            assert re.fullmatch(rf"replied with 200 to \d+ in {place['channel_id']}", line)
            await worker.kill()

    run(main())


class OldWorker:
    """What the original's guide tells a worker to do, call by call."""

    def __init__(self, channel: AbstractChannel, exchange: AbstractExchange) -> None:
        self.channel = channel
        self.exchange = exchange

    async def command(self, shard_id: object, body: bytes = PRESENCE) -> None:
        headers: Any = {"shard_id": shard_id}
        await self.exchange.publish(aio_pika.Message(body, headers=headers), "gateway")

    async def query(self, kind: str, *arguments: object) -> bytes:
        """The cache's answer, by `return_routing_key`. Processes learn of each other's shards within about a second;
        one that still takes a shard for starting is asked again."""
        while (answer := await self._query(kind, *arguments)) is None:
            pass
        return answer

    async def _query(self, kind: str, *arguments: object) -> bytes | None:
        key = uuid.uuid4().hex
        queue = await self.channel.declare_queue(exclusive=True)
        await queue.bind(self.exchange, key)
        body = {"type": kind, "arguments": list(arguments), "return_routing_key": key}
        await self.exchange.publish(aio_pika.Message(json.dumps(body).encode()), "cache")
        answer: asyncio.Future[AbstractIncomingMessage] = asyncio.get_running_loop().create_future()

        async def on_answer(message: AbstractIncomingMessage) -> None:
            answer.set_result(message)

        await queue.consume(on_answer, no_ack=True)
        found = await answer
        if str(found.headers.get("error", "")).startswith("loading"):
            return None
        # An old worker does not look at it, but a test that fails should say why.
        assert found.headers.get("status") != "error", found.headers
        return found.body


async def old_worker(connection: aio_pika.abc.AbstractConnection, cluster: int = 1) -> OldWorker:
    channel = await connection.channel()
    exchange = await channel.declare_exchange(f"rateway-{cluster}", "direct", durable=True, auto_delete=False)
    return OldWorker(channel, exchange)


def test_the_inbound_queue_is_durable_and_takes_both_keys(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=4, per_cluster=2) as it:
            await it.ready()
            for cluster in (1, 2):
                queue = await broker.queue(f"rateway-incoming-{cluster}")
                assert (queue["durable"], queue["auto_delete"], queue["exclusive"]) == (True, False, False)
                bindings = await broker.api(
                    "GET",
                    f"bindings/{quote(broker.vhost, safe='')}/e/rateway-{cluster}/q/rateway-incoming-{cluster}",
                )
                keys = {binding["routing_key"] for binding in bindings}
                assert keys == {"cache", "gateway"}

    run(main())


def test_a_command_goes_out_on_the_shard_of_its_header(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=4, per_cluster=2, guilds=40) as it:
            await it.ready()
            async with await aio_pika.connect(broker.uri) as connection:
                for cluster, shards in ((1, (0, 1)), (2, (2, 3))):
                    worker = await old_worker(connection, cluster)
                    for shard in shards:
                        guild_id = next(each for each in it.sim.world.guild_ids if shard_of(each, 4) == shard)
                        request = {"op": 8, "d": {"guild_id": str(guild_id), "query": "", "limit": 0}}
                        await worker.command(shard, json.dumps(request).encode())
            # The simulated Discord counts a request on another shard than the guild's as a violation.
            await sent_to_discord(it, "request_guild_members", count=4)
            await it.all_arrived()
            asked = {each.shard for each in it.sim.ledger.log() if each.event == "GUILD_MEMBERS_CHUNK"}
            assert asked == {0, 1, 2, 3}

    run(main())


# How AMQP writes an integer of a header, as RabbitMQ reads it (AMQP 0-9-1 errata, section 3), and for struct.
WIDTHS = {b"b": ">b", b"B": ">B", b"s": ">h", b"u": ">H", b"I": ">i", b"i": ">I", b"l": ">q"}


def test_a_shard_may_be_named_by_an_integer_of_any_width(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each client library has its own favourite; aio-pika's is the smallest that the number fits in."""

    async def main() -> None:
        async with (
            stage(tmp_path, broker, shards=2, guilds=8) as it,
            witness(broker, 1, names=frozenset()) as worker,
        ):
            await it.ready()
            guild_id = next(each for each in it.sim.world.guild_ids if shard_of(each, 2) == 1)
            request = {"op": 8, "d": {"guild_id": str(guild_id), "user_ids": ["1"], "limit": 0}}
            for code, form in WIDTHS.items():
                monkeypatch.setattr(
                    pamqp.encode, "table_integer", lambda value, c=code, f=form: c + struct.pack(f, value)
                )
                answer = await worker.ask(1, "gateway", request, {"shard_id": 1})
                assert answer == ("ok", {"shard_id": 1}), code
            assert it.count("command request_guild_members") == len(WIDTHS)

    run(main())


def test_faulty_commands_and_queries_leave_the_reader_alive(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=1) as it:
            await it.ready()
            async with await aio_pika.connect(broker.uri) as connection:
                worker = await old_worker(connection)
                for shard_id, body in (
                    (7, PRESENCE),
                    ("x", PRESENCE),
                    (0, b"{"),
                    (0, b'{"op":99,"d":{}}'),
                    (None, PRESENCE),
                ):
                    await worker.command(shard_id, body)
                for text in (b"", b"{", b"[]", b'{"type":"Guild"}', b'{"type":"Member","arguments":[1]}'):
                    await worker.exchange.publish(aio_pika.Message(text), "cache")
                for _ in range(60):
                    await worker.command(7)
                await worker.command(0)
                await sent_to_discord(it, "presence_update")
                assert it.count("command presence_update") == 1
                # Each is counted, and told as long as that does not fill the log.
                (cluster,) = (await it.ready())["clusters"]
                assert cluster["commands"]["no_such_shard"] == 61
                assert 10 < it.gateway.log.read_text().count("was refused") <= 20
                guild_id = it.sim.world.guild_ids[0]
                assert json.loads(await worker.query("Guild", guild_id))["id"] == str(guild_id)

    run(main())


def test_the_cache_answers_old_style_queries_from_any_cluster(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=4, per_cluster=2, guilds=12) as it:
            await it.ready()
            await it.all_arrived()
            async with (
                await aio_pika.connect(broker.uri) as connection,
                Steering(it.sim.control_url) as simulator,
            ):
                worker = await old_worker(connection, 2)
                for place in await simulator.guilds():
                    guild = json.loads(await worker.query("Guild", int(place["id"])))
                    assert (guild["id"], guild["name"]) == (place["id"], place["name"])
                    assert not [
                        key
                        for key, value in guild.items()
                        if key in ("channels", "roles", "members", "emojis")
                    ]
                    # Ids may come as decimal strings as well.
                    member = json.loads(await worker.query("Member", place["id"], place["members"][-1]))
                    assert (member["user"]["id"], member["guild_id"]) == (place["members"][-1], place["id"])
                    channel = json.loads(await worker.query("GuildChannel", int(place["channel_id"])))
                    assert (channel["id"], channel["guild_id"]) == (place["channel_id"], place["id"])
                own = json.loads(await worker.query("CurrentUser"))
                assert own["id"] == str(it.sim.world.bot_id)
                assert await worker.query("Guild", 1) == b""
                assert await worker.query("Group", 1) == b""

    run(main())


@pytest.mark.parametrize("key", ["gateway", "cache", "RATEWAY_GAP", "MESSAGE_CREATE"])
@pytest.mark.checklist("H23")
def test_an_answer_is_never_sent_under_a_key_of_the_contract(
    tmp_path: Path, broker: Broker, key: str
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=1) as it:
            await it.ready()
            async with await aio_pika.connect(broker.uri) as connection:
                worker = await old_worker(connection)
                spy = await worker.channel.declare_queue(exclusive=True)
                await spy.bind(worker.exchange, key)
                body = {"type": "Guild", "arguments": [it.sim.world.guild_ids[0]], "return_routing_key": key}
                await worker.exchange.publish(aio_pika.Message(json.dumps(body).encode()), "cache")
                # Queries are answered in order, so when this one is, the one before has been dealt with.
                assert await worker.query("CurrentUser") != b""
                found = await spy.get(fail=False, no_ack=True)
                # The query itself goes through the spied key "cache"; nothing else may.
                while found is not None:
                    assert key == "cache" and b'"arguments"' in found.body
                    found = await spy.get(fail=False, no_ack=True)

    run(main())
