"""The same hostile messages through a real RabbitMQ, their bytes put on the wire by hand."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp import commands as spec
from rateway.transports.amqp.wire.channel import Channel, ChannelClosed, ConnectionLost
from rateway.transports.amqp.wire.connection import BrokerUnavailable, Connection
from rateway.transports.amqp.wire.dial import dial
from rateway.transports.amqp.wire.uri import parse
from tests.runtime.requests.inbound_stage import PRESENCE, VOICE, Reader, reader_on
from tests.runtime.requests.test_inbound_boundary import GUILD, bodies, counted, hostile_properties, keys
from tests.transports.amqp.inbound_broker import field_of, fields, frames_of, properties

from tests.aio import run
from tests.rabbitmq import Broker, fresh_vhost, private_rabbitmq


class ByHand:
    """Publishes frames by hand; RabbitMQ closes the connection over some of them, and the next one is dialled."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.connection: Connection | None = None
        self.channel: Channel | None = None

    async def publish(self, exchange: bytes, key: bytes, told: bytes, body: bytes) -> None:
        method = b"\0\x3c\0\x28\0\0" + bytes((len(exchange),)) + exchange + bytes((len(key),)) + key + b"\0"
        content = struct.pack(">HHQ", 60, 0, len(body)) + told
        connection = await self._open()
        connection.write(frames_of(method, content, body, 131_064))

    async def is_settled(self) -> bool:
        """Whether RabbitMQ has taken what was published, or has closed the connection over it."""
        assert self.channel is not None
        try:
            # On the same channel: RabbitMQ reads each channel in a process of its own, which may be behind others.
            await self.channel.call(spec.Basic.Qos(0, 0, False), spec.Basic.QosOk)
        except (ChannelClosed, ConnectionLost):
            return False
        return True

    async def _open(self) -> Connection:
        while self.connection is None or self.channel is None or self.channel.closed.done():
            try:
                if self.connection is not None:
                    await self.connection.close()
                self.connection = await dial(parse(self.uri), name="by hand")
                self.channel = await self.connection.channel(1)
            except (BrokerUnavailable, ConnectionLost):
                continue
        return self.connection


class Neighbour:
    """A worker that asks with a library, as it should be."""

    def __init__(
        self, exchange: AbstractExchange, answers: asyncio.Queue[AbstractIncomingMessage], name: str
    ) -> None:
        self.exchange = exchange
        self.answers = answers
        self.name = name

    async def is_served(self) -> None:
        message = aio_pika.Message(GUILD, reply_to=self.name, correlation_id="neighbour")
        await self.exchange.publish(message, "cache")
        while (answer := await self.answers.get()).correlation_id != "neighbour":
            pass
        assert (answer.body, answer.headers["status"]) == (b'"known"', "ok")


@asynccontextmanager
async def neighbour(uri: str) -> AsyncIterator[Neighbour]:
    async with await aio_pika.connect(uri) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("answers", exclusive=True)
        answers: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await queue.consume(answers.put, no_ack=True)
        yield Neighbour(await channel.get_exchange("rateway-1"), answers, queue.name)


async def nothing_is_left(broker: Broker) -> None:
    async with await aio_pika.connect(broker.uri) as connection:
        queue = await (await connection.channel()).declare_queue("rateway-incoming-1", passive=True)
        assert queue.declaration_result.message_count == 0


@pytest.mark.checklist("K1", "K2", "K3")
# RabbitMQ takes up to seconds to close a connection over some of these; the boundary's own tests try thousands.
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(messages=st.lists(st.tuples(hostile_properties(), bodies, keys), min_size=1, max_size=5))
def test_whatever_rabbitmq_passes_on_costs_itself_alone(
    broker: Broker, messages: list[tuple[bytes, bytes, bytes]]
) -> None:
    async def scenario() -> list[tuple[str, str]]:
        reader: Reader
        async with reader_on(broker.uri) as reader, neighbour(broker.uri) as worker:
            said = reader[4]
            # A node that is slow to answer is dialled again before the queue is owned; from then on nothing changes.
            hand, owned = ByHand(broker.uri), len(said)
            for told, body, key in messages:
                # To the queue itself, for keys that it is not bound with.
                await hand.publish(b"", b"rateway-incoming-1", told, body)
                await hand.publish(b"rateway-1", key, told, body)
                await hand.is_settled()
            await worker.is_served()
            if hand.connection is not None:
                await hand.connection.close()
            since = said[owned:]
        await nothing_is_left(broker)
        return since

    assert run(scenario()) == []


@pytest.mark.checklist("K1", "K2", "K3", "K61")
@pytest.mark.parametrize(
    ("told", "body", "key", "reason"),
    [
        (properties(correlation_id=b"\xff\xfe", reply_to=b"answers"), GUILD, b"cache", "bad_correlation_id"),
        (properties(reply_to=b"\xff\xfe"), GUILD, b"cache", "bad_reply_to"),
        (properties(reply_to=b"rateway-incoming-1"), GUILD, b"cache", "bad_reply_to"),
        (
            properties(headers=field_of(b"x", b"A", counted(b"V" * 130_000)), reply_to=b"answers"), VOICE, b"gateway",
            "properties_too_large",
        ),
        (properties(headers=fields({"shard_id": 0})), b" " * (3 << 20), b"gateway", "body_too_large"),
    ],
)  # fmt: skip
def test_each_of_these_is_refused_once(
    broker: Broker, told: bytes, body: bytes, key: bytes, reason: str
) -> None:
    async def scenario() -> None:
        async with (
            reader_on(broker.uri) as (request_handler, _, _, _, said, _),
            neighbour(broker.uri) as worker,
        ):
            hand, owned = ByHand(broker.uri), len(said)
            await worker.is_served()
            for _ in range(3):
                await hand.publish(b"rateway-1", key, told, body)
            assert await hand.is_settled()
            while request_handler.refused.total() < 3:
                await worker.is_served()
            assert request_handler.refused == {reason: 3}
            assert said[owned:] == []
            assert hand.connection is not None
            await hand.connection.close()
        await nothing_is_left(broker)

    run(scenario())


@pytest.mark.checklist("K2")
def test_a_command_for_a_cluster_that_no_gateway_runs_is_refused_once_and_costs_no_other(
    broker: Broker,
) -> None:
    async def scenario() -> None:
        reader: Reader
        async with reader_on(broker.uri) as reader, neighbour(broker.uri) as worker:
            handler, said, owned = reader[0], reader[4], len(reader[4])
            message = aio_pika.Message(
                PRESENCE, headers={"shard_id": 8}, reply_to=worker.name, correlation_id="lost"
            )
            await worker.exchange.publish(message, "gateway")
            answer = await worker.answers.get()
            assert (answer.correlation_id, answer.headers["status"]) == ("lost", "error")
            assert msgspec.json.decode(answer.body)["error"]["code"] == "unavailable"
            await worker.is_served()
            # The channel is the same, on which a publish to an exchange that is not there would have ended it.
            assert said[owned:] == []
            assert handler.commands == {"handed_on": 1, "unavailable": 1}
        await nothing_is_left(broker)

    run(scenario())


@pytest.mark.checklist("K2")
def test_a_command_for_a_cluster_whose_exchange_is_another_kind_is_refused_once_and_costs_no_other(
    broker: Broker,
) -> None:
    async def scenario() -> None:
        reader: Reader
        async with (
            reader_on(broker.uri) as reader,
            neighbour(broker.uri) as worker,
            await aio_pika.connect(broker.uri) as other,
        ):
            await (await other.channel()).declare_exchange("rateway-2", "fanout", durable=True)
            said, owned = reader[4], len(reader[4])
            for number in ("1", "2"):
                message = aio_pika.Message(
                    PRESENCE, headers={"shard_id": 8}, reply_to=worker.name, correlation_id=number
                )
                await worker.exchange.publish(message, "gateway")
                answer = await worker.answers.get()
                assert (answer.correlation_id, answer.headers["status"]) == (number, "error")
                told = msgspec.json.decode(answer.body)["error"]
                assert told["code"] == "unavailable" and "inequivalent arg 'type'" in told["message"]
                await worker.is_served()
            assert said[owned:] == []
        await nothing_is_left(broker)

    run(scenario())


@pytest.mark.checklist("K2")
def test_a_command_for_another_process_keeps_its_odd_headers_through_rabbitmq(broker: Broker) -> None:
    async def scenario() -> None:
        async with (
            reader_on(broker.uri),
            neighbour(broker.uri) as worker,
            await aio_pika.connect(broker.uri) as other,
        ):
            channel = await other.channel()
            exchange = await channel.declare_exchange("rateway-2", "direct", durable=True)
            queue = await channel.declare_queue("rateway-incoming-2", durable=True)
            await queue.bind(exchange, "gateway")
            hand = ByHand(broker.uri)
            headers = fields({"shard_id": 8}) + field_of(b"ratio", b"d", struct.pack(">d", 1e300))
            headers += field_of(b"text", b"S", counted(b"\xff\xfe"))
            await hand.publish(
                b"rateway-1", b"gateway", properties(headers=headers, expiration=b"60000"), PRESENCE
            )
            async with queue.iterator() as messages:
                found = await anext(messages)
                assert found.headers == {
                    "shard_id": 8,
                    "ratio": 1e300,
                    "text": b"\xff\xfe",
                    "rateway_hops": 1,
                }
                assert (found.body, found.expiration) == (PRESENCE, 60.0)
                await found.ack()
            await worker.is_served()
            assert hand.connection is not None
            await hand.connection.close()

    run(scenario())


@pytest.mark.checklist("K15")
def test_a_consumer_timeout_of_rabbitmq_is_known_for_what_it_is_and_outlived() -> None:
    async def scenario(broker: Broker) -> None:
        async with reader_on(broker.uri) as reader, neighbour(broker.uri) as worker:
            request_handler, inbound, shards, _, said, changed = reader
            shards.sends = False
            told = aio_pika.Message(
                VOICE, headers={"shard_id": 0}, reply_to="answers", correlation_id="waits"
            )
            await worker.exchange.publish(told, "gateway")
            while not any("consumer_timeout" in why for _, why in said):
                changed.clear()
                await changed.wait()
            assert not any("delete" in why for _, why in said)
            assert inbound.consumer_timeout is not None
            # It comes again, and ends before RabbitMQ's patience does.
            while (answer := await worker.answers.get()).correlation_id != "waits":
                pass
            assert msgspec.json.decode(answer.body)["error"]["code"] == "expired"
            await worker.is_served()
            assert said[-1][0] == "owned" and request_handler.commands == {"expired": 1}

    with private_rabbitmq(consumer_timeout="8000") as node, fresh_vhost(node) as broker:
        # RabbitMQ looks once a minute.
        node.ctl("eval", "application:set_env(rabbit, channel_tick_interval, 1000).")
        run(scenario(broker))
