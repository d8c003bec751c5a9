"""The queues that a worker may choose: what `docs/rabbitmq.md` says of them, on the RabbitMQ at hand."""

from __future__ import annotations

import asyncio

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue
from rateway.transports.amqp.events.publisher import EventPublisher, ShardStream
from tests.transports.amqp.test_rabbitmq import publish_some, publishing

from tests.aio import run
from tests.rabbitmq import Broker


async def declared(channel: AbstractChannel, **arguments: int | str) -> AbstractQueue:
    exchange = await channel.declare_exchange("rateway-1", "direct", durable=True)
    queue = await channel.declare_queue(
        "worker", durable=True, arguments={key.replace("_", "-"): each for key, each in arguments.items()}
    )
    await queue.bind(exchange, "MESSAGE_CREATE")
    return queue


async def taken(queue: AbstractQueue, count: int) -> list[str]:
    """The ids of *count* messages, acknowledged one by one."""
    ids: list[str] = []
    async with queue.iterator() as messages:
        async for message in messages:
            ids.append(str(message.message_id))
            await message.ack()
            if len(ids) == count:
                break
    return ids


async def full(publisher: EventPublisher) -> None:
    """Until the broker has refused something."""
    while not publisher.refusals:  # noqa: ASYNC110  # a counter, which sets no event
        await asyncio.sleep(0.01)
    assert publisher.unconfirmed


def begun(stream: ShardStream) -> ShardStream:
    stream.begin("s")
    return stream


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_what_was_confirmed_survives_the_brokers_death_in_order(broker: Broker, kind: str) -> None:
    async def scenario() -> None:
        async with publishing(broker.uri) as (publisher, listener):
            async with await aio_pika.connect(broker.uri) as connection:
                await declared(await connection.channel(), x_queue_type=kind)
            await broker.write_down()
            stream = begun(publisher.stream(0, 1))
            publish_some(stream, 1, 500)
            assert await publisher.drain(60) == 0 and stream.settled == 500
            await broker.kill()
            await broker.start()
            while listener.said("up") < 2:
                listener.changed.clear()
                await listener.changed.wait()
            publish_some(stream, 501, 600)
            async with await aio_pika.connect(broker.uri) as connection:
                queue = await declared(await connection.channel(), x_queue_type=kind)
                assert await taken(queue, 600) == [f"s:0:{seq}" for seq in range(1, 601)]

    run(scenario())


@pytest.mark.checklist("H4")
@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_full_queue_that_rejects_makes_events_wait_whatever_its_type(broker: Broker, kind: str) -> None:
    async def scenario() -> None:
        async with (
            publishing(broker.uri) as (publisher, _),
            await aio_pika.connect(broker.uri) as connection,
        ):
            bounds: dict[str, int | str] = {"x_max_length": 20, "x_overflow": "reject-publish"}
            queue = await declared(await connection.channel(), x_queue_type=kind, **bounds)
            stream = begun(publisher.stream(0, 1))
            for seq in range(1, 201):
                publish_some(stream, seq, seq)
                await asyncio.sleep(0.001)
            await full(publisher)
            found: set[str] = set()
            async with queue.iterator() as messages:
                async for message in messages:
                    found.add(str(message.message_id))
                    await message.ack()
                    if len(found) == 200:
                        break
            assert await publisher.drain(60) == 0 and stream.settled == 200

    run(scenario())


def test_a_quorum_queue_gives_up_an_event_that_its_worker_keeps_returning(broker: Broker) -> None:
    async def scenario() -> None:
        async with (
            publishing(broker.uri) as (publisher, _),
            await aio_pika.connect(broker.uri) as connection,
        ):
            channel = await connection.channel()
            await channel.set_qos(1)
            dead = await channel.declare_queue("dead", durable=True)
            queue = await declared(
                channel,
                x_queue_type="quorum",
                x_delivery_limit=3,
                x_dead_letter_exchange="",
                x_dead_letter_routing_key="dead",
            )
            publish_some(begun(publisher.stream(0, 1)), 1, 2)
            tries: list[str] = []
            async with queue.iterator() as messages:
                async for message in messages:
                    tries.append(str(message.message_id))
                    if message.message_id == "s:0:2":
                        await message.ack()
                        break
                    await message.nack(requeue=True)
            assert tries[-1] == "s:0:2" and 3 <= tries.count("s:0:1") <= 4
            assert await taken(dead, 1) == ["s:0:1"]

    run(scenario())
