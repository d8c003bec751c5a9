"""What is delivered is read as pamqp reads it, and acknowledged each once, in whatever order it is dealt with."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from typing import Any

import aio_pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands as spec
from pamqp import encode, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from rateway.transports.amqp.requests.inbound import Inbound, Message
from rateway.transports.amqp.wire.deliveries import (
    DELIVER,
    Delivery,
    Properties,
    body_size_of,
    delivered,
    delivery_of,
    properties_of,
)
from rateway.transports.amqp.wire.frames import short
from rateway.transports.amqp.wire.uri import parse
from rateway_protocol.contract.header_table import fields_of
from tests.transports.amqp.unconnected import channel_to_nowhere

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
    read = properties_of(found)
    assert read == Properties(
        read.headers, raw(told.correlation_id), raw(told.reply_to), raw(told.expiration), None, read.rest
    )
    # What makes one message another one, and is not looked at.
    assert read.rest == b"".join(
        short(text.encode()) for text in (told.message_id, told.message_type, told.app_id) if text is not None
    )
    # What stands in the table, and a few fields of it.
    names = {name.encode() for name in told.headers or {}}
    assert len(read.headers) == (len(table(told.headers)) if told.headers else 0)
    assert fields_of(read.headers, names) == {
        name: value.encode() if isinstance(value, str) else value
        for name, value in (told.headers or {}).items()
    }


def raw(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def table(headers: Any) -> bytes:
    """The fields of a table, as pamqp writes them."""
    return encode.field_table(headers)[4:]


def message(tag: int, body: bytes, pieces: int = 1, channel: int = 1) -> bytes:
    """A delivered message's frames."""
    told = spec.Basic.Properties(correlation_id=f"c{tag}", reply_to="answers", headers={"a": 1})
    size = -(-len(body) // pieces) or 1
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(
        [
            frame.marshal(spec.Basic.Deliver("me", tag, False, "rateway-1", "cache"), channel),
            frame.marshal(ContentHeader(0, len(body), told), channel),
            *(frame.marshal(ContentBody(part), channel) for part in parts),
        ]
    )


@given(st.integers(1, 2**40), st.binary(min_size=1, max_size=200), st.binary(max_size=60), st.data())
def test_a_message_is_read_at_once_when_it_is_there_whole_and_left_alone_otherwise(
    tag: int, body: bytes, behind: bytes, data: st.DataObject
) -> None:
    whole = message(tag, body)
    before = data.draw(st.binary(max_size=20))
    told = Properties(table({"a": 1}), b"c%d" % tag, b"answers", None)
    wanted = (Delivery(tag, False, "cache"), told, body, len(before) + len(whole))
    assert delivered(before + whole + behind, len(before), 1, 131_072) == wanted
    cut = data.draw(st.integers(8, len(whole) - 1))
    assert delivered(before + whole[:cut], len(before), 1, 131_072) is None
    assert delivered(whole, 0, 2, 131_072) is None
    assert delivered(whole, 0, 1, len(body) - 1) is None


@pytest.mark.parametrize(
    "odd",
    [message(7, b"", 1), message(7, b"ab", 2), message(7, b"x")[:-1] + b"\0", b"\2" + message(7, b"x")[1:]],
)
def test_a_message_without_a_body_or_in_pieces_or_without_its_end_is_left_to_who_reads_frames(
    odd: bytes,
) -> None:
    assert delivered(odd + message(8, b"x"), 0, 1, 131_072) is None


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(1, 3)), max_size=6), st.data())
def test_messages_arrive_in_order_however_the_stream_is_cut(
    bodies: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    stream = b"".join(message(tag, body, pieces) for tag, (body, pieces) in enumerate(bodies, 1))

    async def scenario() -> list[tuple[int, bytes]]:
        connection, channel = await channel_to_nowhere()
        seen: list[tuple[int, bytes]] = []
        channel.on_delivery = lambda delivery, told, body: seen.append((delivery.tag, body))
        rest = stream
        while rest:
            some = data.draw(st.integers(1, len(rest)))
            connection.data_received(rest[:some])
            rest = rest[some:]
        return seen

    assert run(scenario()) == [(tag, body) for tag, (body, _) in enumerate(bodies, 1)]


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

        def refused(message: Message, reason: str) -> None:
            raise AssertionError(f"{reason}: {message}")

        states: list[str] = []

        def ownership(state: str, why: str) -> None:
            states.append(f"{state} {why}".strip())
            if state == "owned":
                owned.set()

        inbound = Inbound(
            address=parse(broker.uri), name="rateway: inbound", exchange="rateway-1", queue="rateway-incoming-1",
            keys=("cache",), on_message=take, on_refused=refused, on_ownership=ownership,
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
                inbound.answer(message, b"1", (("status", "ok"),))
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

    again, kept = run(scenario())
    assert again == kept
