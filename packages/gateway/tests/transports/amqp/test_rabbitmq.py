"""The publisher against RabbitMQ: what workers get, through restarts, full queues, deleted exchanges, size limits."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage
from rateway.delivery.limits import DeliveryLimits
from rateway.transports.amqp.events.publisher import EventPublisher, ShardStream
from rateway.transports.amqp.wire.uri import parse
from rateway.transports.spool import Spool
from tests.transports.amqp.publishing import Listener, begun

from tests.aio import run
from tests.rabbitmq import Broker, fresh_vhost, private_rabbitmq


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells."""
    while not condition():  # noqa: ASYNC110 - the publisher's counters have no events
        await asyncio.sleep(0.01)


@asynccontextmanager
async def publishing(
    uri: str, spool: Spool | None = None, limits: DeliveryLimits | None = None
) -> AsyncIterator[tuple[EventPublisher, Listener]]:
    listener = Listener()
    publisher = EventPublisher(
        address=parse(uri),
        exchange="rateway-1",
        cluster=1,
        limits=limits or DeliveryLimits(refused_delay=0.05, refused_delay_most=0.2),
        persistent=True,
        spool=spool,
        clock=time,
        observer=listener,
    )
    task = asyncio.get_running_loop().create_task(publisher.run())
    while not publisher.connected:
        listener.changed.clear()
        await listener.changed.wait()
    try:
        yield publisher, listener
    finally:
        publisher.stop()
        await task


class Worker:
    """A consumer as the original's examples have it: its own queue, bound to the names it wants."""

    def __init__(self, uri: str, *names: str) -> None:
        self.uri = uri
        self.names = names
        self.messages: list[AbstractIncomingMessage] = []
        self._ids: dict[str, None] = {}
        self._came = asyncio.Event()

    async def __aenter__(self) -> Worker:
        self.connection = await aio_pika.connect_robust(self.uri, reconnect_interval=0.2)
        self.channel = await self.connection.channel()
        exchange = await self.channel.declare_exchange("rateway-1", "direct", durable=True)
        self.queue = await self.channel.declare_queue("worker", durable=True)
        for name in self.names:
            await self.queue.bind(exchange, name)
        await self.queue.consume(self._take)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.connection.close()

    async def _take(self, message: AbstractIncomingMessage) -> None:
        self.messages.append(message)
        self._ids[str(message.message_id)] = None
        self._came.set()
        await message.ack()

    async def distinct(self, count: int) -> list[str]:
        """Message ids in the order of their first arrival, once there are so many."""
        while len(self._ids) < count:
            self._came.clear()
            await self._came.wait()
        return list(self._ids)


def publish_some(stream: ShardStream, first: int, last: int, name: str = "MESSAGE_CREATE") -> None:
    for seq in range(first, last + 1):
        stream.publish(name, b'{"n":%d}' % seq, seq, False)


def test_a_worker_gets_every_event_with_its_properties(broker: Broker) -> None:
    async def scenario() -> None:
        async with (
            publishing(broker.uri) as (publisher, _),
            Worker(broker.uri, "MESSAGE_CREATE", "READY") as worker,
        ):
            stream = publisher.stream(3, 8)
            stream.begin("abc")
            stream.publish("READY", b"{}", 1, False)
            publish_some(stream, 2, 500)
            stream.publish("TYPING_START", b"{}", 501, False)
            stream.publish("MESSAGE_CREATE", b"x" * 300_000, 502, True)
            assert await worker.distinct(501) == [f"abc:3:{seq}" for seq in [*range(1, 501), 502]]
            assert await publisher.drain(60) == 0 and stream.settled == 502
            first, last = worker.messages[0], worker.messages[-1]
            assert (first.type, first.content_type, first.delivery_mode) == ("READY", "application/json", 2)
            assert first.headers == {"shard_id": 3, "shard_count": 8, "seq": 1}
            assert first.timestamp is not None and abs(first.timestamp.timestamp() - time.time()) < 30
            assert last.body == b"x" * 300_000 and last.headers["replayed"] is True
            assert publisher.unrouted == {"TYPING_START"}

    run(scenario())


@pytest.mark.checklist("H1")
def test_restarts_and_cut_connections_lose_nothing_and_keep_the_order(broker: Broker, tmp_path: Path) -> None:
    async def scenario() -> None:
        spool = Spool.open(tmp_path, 50_000_000)
        async with (
            publishing(broker.uri, spool) as (publisher, listener),
            Worker(broker.uri, "MESSAGE_CREATE") as worker,
        ):
            streams = [publisher.stream(shard, 2) for shard in range(2)]
            for stream in streams:
                stream.begin("s")
            seq = 0

            async def flow(stop: asyncio.Event) -> None:
                nonlocal seq
                while not stop.is_set():
                    publish_some(streams[0], seq + 1, seq + 3)
                    publish_some(streams[1], seq + 1, seq + 3)
                    seq += 3
                    await asyncio.sleep(0.02)

            stop = asyncio.Event()
            flowing = asyncio.ensure_future(flow(stop))
            await worker.distinct(100)
            await broker.close_connections()
            await worker.distinct(seq)
            await broker.restart()
            await worker.distinct(2 * seq)
            await broker.kill()
            await asyncio.sleep(0.3)
            await broker.start()
            stop.set()
            await flowing
            ids = await worker.distinct(2 * seq)
            await until(lambda: publisher.unconfirmed == 0)
            assert sorted(ids) == sorted(
                f"s:{shard}:{each}" for shard in (0, 1) for each in range(1, seq + 1)
            )
            marked = {message.message_id for message in worker.messages if "republished" in message.headers}
            for shard in (0, 1):
                order = [
                    int(each.split(":")[2])
                    for each in ids
                    if each.startswith(f"s:{shard}:") and each not in marked
                ]
                assert order == sorted(order)
                assert streams[shard].settled == seq
            assert listener.said("down") >= 2 and spool.events == 0

    run(scenario(), timeout=300)


@pytest.mark.checklist("H4")
def test_a_full_queue_that_rejects_holds_the_cluster_until_there_is_room_and_no_longer(
    broker: Broker,
) -> None:
    async def scenario() -> None:
        async with publishing(broker.uri) as (publisher, _), Worker(broker.uri, "MESSAGE_CREATE") as worker:
            exchange = await worker.channel.get_exchange("rateway-1")
            full = await worker.channel.declare_queue(
                "full", durable=True, arguments={"x-max-length": 5, "x-overflow": "reject-publish"}
            )
            await full.bind(exchange, "MESSAGE_CREATE")
            stream = begun(publisher)
            for seq in range(1, 41):
                stream.publish("MESSAGE_CREATE", b"{}", seq, False)
                await asyncio.sleep(0.001)
            await until(lambda: publisher.refusals > 0)
            assert publisher.unconfirmed > 0
            taken: list[str] = []
            while len(set(taken)) < 40:
                message = await full.get(fail=False)
                if message is None:
                    await asyncio.sleep(0.01)
                    continue
                taken.append(str(message.message_id))
                await message.ack()
            assert await publisher.drain(60) == 0 and stream.settled == 40
            expected = {f"s:0:{seq}" for seq in range(1, 41)}
            assert set(taken) == expected and set(await worker.distinct(40)) == expected
            # Doubles carry the same id, and say what they are.
            counts = Counter(message.message_id for message in worker.messages)
            doubled = [message for message in worker.messages if counts[message.message_id] > 1]
            assert sum("republished" in message.headers for message in doubled) >= len(doubled) - len(
                set(counts)
            )

    run(scenario())


@pytest.mark.checklist("H6")
def test_a_deleted_exchange_is_declared_again_and_unrouted_events_are_counted(broker: Broker) -> None:
    async def scenario() -> None:
        async with (
            publishing(broker.uri) as (publisher, listener),
            Worker(broker.uri, "MESSAGE_CREATE") as worker,
        ):
            stream = begun(publisher)
            publish_some(stream, 1, 100)
            await worker.distinct(100)
            await worker.channel.exchange_delete("rateway-1")
            publish_some(stream, 101, 200)
            await until(lambda: "MESSAGE_CREATE" in publisher.unrouted)
            assert await publisher.drain(60) == 0 and stream.settled == 200
            assert publisher.unrouted_events["MESSAGE_CREATE"] == 1
            assert any(what[0] == "down" and "404" in what[1] for what in listener.told)
            await worker.queue.bind("rateway-1", "MESSAGE_CREATE")
            publish_some(stream, 201, 300)
            ids = await worker.distinct(200)
            assert ids[100:] == [f"s:0:{seq}" for seq in range(201, 301)]

    run(scenario())


@pytest.mark.checklist("H5")
def test_an_exchange_declared_otherwise_is_named_and_events_wait(broker: Broker, tmp_path: Path) -> None:
    async def scenario() -> None:
        connection = await aio_pika.connect(broker.uri)
        channel = await connection.channel()
        await channel.declare_exchange("rateway-1", "fanout", durable=True)
        listener = Listener()
        spool = Spool.open(tmp_path, 1_000_000)
        publisher = EventPublisher(
            address=parse(broker.uri),
            exchange="rateway-1",
            cluster=1,
            limits=DeliveryLimits(spool_after=0.1),
            persistent=True,
            spool=spool,
            clock=time,
            observer=listener,
        )
        task = asyncio.get_running_loop().create_task(publisher.run())
        stream = begun(publisher)
        publish_some(stream, 1, 10)
        await until(lambda: listener.said("down") >= 3 and stream.settled == 10)
        assert all("inequivalent arg 'type'" in why for state, why in listener.told if state == "down")
        assert spool.events == 10 and not publisher.connected
        await channel.exchange_delete("rateway-1")
        await until(lambda: publisher.unconfirmed == 0)
        assert spool.events == 0
        publisher.stop()
        await task
        await connection.close()

    run(scenario())


@pytest.mark.checklist("H7", "H9")
def test_a_node_with_a_small_message_limit_and_a_memory_alarm() -> None:
    async def size(broker: Broker) -> None:
        async with (
            publishing(broker.uri) as (publisher, _),
            Worker(broker.uri, "GUILD_CREATE", "RATEWAY_OVERSIZE") as worker,
        ):
            stream = begun(publisher)
            large = b'{"id":"42","x":"%b"}' % (b"x" * 17_000_000)
            for seq, body in enumerate((b"{}", large, b"{}", b'{"x":"%b"}' % (b"x" * 15_000_000)), 1):
                stream.publish("GUILD_CREATE", body, seq, False)
            assert await worker.distinct(4) == ["s:0:1", "oversize:s:0:2", "s:0:3", "s:0:4"]
            assert len(worker.messages[-1].body) > 15_000_000
            report = json.loads(
                next(each for each in worker.messages if each.type == "RATEWAY_OVERSIZE").body
            )
            assert (report["event"], report["size"], report["guild_id"]) == ("GUILD_CREATE", len(large), "42")
            assert await publisher.drain(60) == 0 and stream.settled == 4

    async def alarm(broker: Broker) -> None:
        async with (
            publishing(broker.uri + "?heartbeat=5") as (publisher, listener),
            Worker(broker.uri, "MESSAGE_CREATE") as worker,
        ):
            stream = publisher.stream(0, 1)
            stream.begin("t")
            publish_some(stream, 1, 10)
            await worker.distinct(10)
            await broker.ctl("set_vm_memory_high_watermark", "0.00001")
            seq = 10
            while not publisher.blocked:
                seq += 1
                publish_some(stream, seq, seq)
                await asyncio.sleep(0.02)
            publish_some(stream, seq + 1, seq + 500)
            # Longer than two heartbeats: the broker does not read, and nobody reconnects because of it.
            await asyncio.sleep(11)
            assert publisher.unconfirmed >= 500
            assert (publisher.blocked, listener.said("down")) == (True, 0)
            await broker.ctl("set_vm_memory_high_watermark", "0.6")
            assert await worker.distinct(seq + 500) == [f"t:0:{each}" for each in range(1, seq + 501)]
            assert await publisher.drain(60) == 0
            assert listener.told[-1] == ("up", "")

    with private_rabbitmq(max_message_size="16777216") as node:
        with fresh_vhost(node) as broker:
            run(size(broker))
        with fresh_vhost(node) as broker:
            run(alarm(broker))
