"""What is delivered is read as pamqp reads it, and acknowledged each once, in whatever order it is dealt with."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct

import aio_pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands as spec
from pamqp import frame
from pamqp.header import ContentHeader

from rateway.transports.amqp.deliveries import (
    DELIVER,
    Delivery,
    Properties,
    body_size_of,
    delivery_of,
    properties_of,
)
from rateway.transports.amqp.inbound import Inbound, Message
from rateway.transports.amqp.uri import parse
from tests.aio import run
from tests.rabbitmq import Broker

texts = st.text(max_size=40).filter(lambda text: 0 < len(text.encode()) < 128)
some = st.none() | texts
tables = st.dictionaries(
    st.text("abcdefgh_", min_size=1, max_size=12),
    st.integers(-(2**31), 2**63 - 1) | texts | st.booleans(),
    max_size=4,
)


@given(st.integers(0, 2**63 - 1), st.booleans(), texts, texts, texts)
def test_a_delivery_is_read_as_pamqp_reads_it(
    tag: int, redelivered: bool, consumer: str, exchange: str, key: str
) -> None:
    # pamqp checks names of exchanges, where the broker has its own say.
    data = frame.marshal(spec.Basic.Deliver(consumer, tag, redelivered, "rateway-1", key), 1)
    assert data.startswith(DELIVER, 7)
    assert delivery_of(data) == Delivery(tag, redelivered, key)


@given(st.integers(0, 2**40), st.data())
def test_properties_are_read_as_pamqp_reads_them(size: int, data: st.DataObject) -> None:
    told = spec.Basic.Properties(
        content_type=data.draw(some),
        content_encoding=data.draw(some),
        headers=data.draw(st.none() | tables),  # type: ignore[arg-type]  # pamqp's table type is closed over its own values
        delivery_mode=data.draw(st.none() | st.sampled_from([1, 2])),
        priority=data.draw(st.none() | st.integers(1, 255)),
        correlation_id=data.draw(some),
        reply_to=data.draw(some),
        expiration=data.draw(st.none() | st.integers(0, 10**6).map(str)),
        message_id=data.draw(some),
        message_type=data.draw(some),
        app_id=data.draw(some),
    )
    found = frame.marshal(ContentHeader(0, size, told), 1)
    assert body_size_of(found) == size
    assert properties_of(found) == Properties(
        told.headers or {}, told.correlation_id, told.reply_to, told.expiration
    )


@given(st.binary(min_size=8, max_size=60))
def test_a_torn_frame_raises_only_what_its_reader_expects(torn: bytes) -> None:
    for read in (delivery_of, body_size_of):
        with contextlib.suppress(IndexError, ValueError, struct.error):
            read(torn)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_dealt_with_in_any_order_is_acknowledged_and_the_rest_comes_again(
    broker: Broker, seed: int
) -> None:
    chance = random.Random(seed)
    count = 300

    async def scenario() -> tuple[list[bytes], list[bytes]]:
        taken: list[Message] = []
        owned, all_there = asyncio.Event(), asyncio.Event()

        def take(message: Message) -> None:
            taken.append(message)
            if len(taken) == count:
                all_there.set()

        states: list[str] = []

        def ownership(state: str, why: str) -> None:
            states.append(f"{state} {why}".strip())
            if state == "owned":
                owned.set()

        inbound = Inbound(
            address=parse(broker.uri), name="rateway: inbound", exchange="rateway-1", queue="rateway-incoming-1",
            keys=("cache",), on_message=take, on_ownership=ownership,
        )  # fmt: skip
        task = asyncio.create_task(inbound.run())
        await owned.wait()
        async with await aio_pika.connect(broker.uri) as connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange("rateway-1")
            answers = await channel.declare_queue(exclusive=True)
            for number in range(count):
                asked = aio_pika.Message(b"%d" % number, reply_to=answers.name)
                await exchange.publish(asked, "cache")
            await all_there.wait()
            order = list(taken)
            chance.shuffle(order)
            kept = set(chance.sample(range(count), 20))
            for message in order:
                if int(message.body) in kept:
                    continue
                inbound.publish(message, "", message.reply_to or "", b"1", (("status", "ok"),), None)
                inbound.acknowledge(message)
                if chance.random() < 0.2:
                    await asyncio.sleep(0)
            async with answers.iterator(no_ack=True) as answered:
                for _ in range(count - len(kept)):
                    await anext(answered)
            assert states == ["owned"], "a wrong acknowledgement would have ended the channel"
            task.cancel()
            await asyncio.wait({task})
            left = await channel.get_queue("rateway-incoming-1")
            again = []
            async with left.iterator() as messages:
                for _ in range(len(kept)):
                    found = await anext(messages)
                    again.append(found.body)
                    await found.ack()
            assert await left.get(fail=False) is None
            return sorted(again), sorted(b"%d" % number for number in kept)

    again, kept = run(scenario(), timeout=60)
    assert again == kept
