"""Messages that no gateway sends: the worker's connection lives, its events and answers come, none comes for ever."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from typing import Any

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.message import IncomingMessage
from aiormq.abc import DeliveredMessage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp import commands as spec
from pamqp import frame
from rateway_client import Event, QueryError, Worker
from rateway_client.event import event_of
from rateway_client.sound_frames import MAX_PROPERTIES, Unreadable, sound_header, sound_method
from tests.client.stand_in import event, gateway, left_in
from tests.runtime.requests.test_inbound_boundary import bodies, counted, hostile_properties
from tests.runtime.requests.test_inbound_rabbitmq import ByHand
from tests.transports.amqp.inbound_broker import field_of, fields, properties

from tests.aio import run
from tests.rabbitmq import Broker

FIXED = struct.pack(">HHQ", 60, 0, 2)


def framed(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"


def read(payload: bytes) -> Event:
    """An event, as the library and then the worker read it; raises what the library raises."""
    _, _, header = frame.unmarshal(framed(2, payload))
    delivery = spec.Basic.Deliver("me", 1, False, "rateway-1", "MESSAGE_CREATE")
    delivered = DeliveredMessage(delivery=delivery, header=header, body=b"{}", channel=None)  # type: ignore[arg-type]  # what came
    return event_of(IncomingMessage(delivered))


@pytest.mark.checklist("K1", "K2", "K3")
@settings(max_examples=400)
@given(hostile_properties())
def test_whatever_properties_come_the_library_reads_what_is_passed_on_to_it(told: bytes) -> None:
    payload, wrong = sound_header(FIXED + told)
    found = read(payload)
    assert found.name and len(payload) <= max(len(FIXED + told), len(FIXED) + 2)
    assert not wrong or payload != FIXED + told


@given(
    st.sampled_from([b"\0\x3c\0\x3c", b"\0\x3c\0\x32", b"\0\x3c\0\x1e", b"\0\x14\0\x28"]),
    st.binary(max_size=60),
    st.lists(st.binary(max_size=60), min_size=3, max_size=3),
)
def test_whatever_names_a_method_quotes_it_keeps_its_length_and_the_library_reads_it(
    index: bytes, torn: bytes, texts: list[bytes]
) -> None:
    assert len(sound_method(index + torn)) == len(index + torn)
    one, two, three = (bytes((len(text),)) + text for text in texts)
    delivered = b"\0\x3c\0\x3c\x02me" + bytes(8) + b"\0" + one + two
    _, _, found = frame.unmarshal(framed(1, sound_method(delivered)))
    assert isinstance(found, spec.Basic.Deliver)
    assert len((found.routing_key or "").encode()) == len(texts[1])
    returned = b"\0\x3c\0\x32\x01\x38" + one + two + three
    _, _, back = frame.unmarshal(framed(1, sound_method(returned)))
    assert isinstance(back, spec.Basic.Return)


def test_what_the_gateway_sends_is_read_as_it_is() -> None:
    told = spec.Basic.Properties(
        content_type="application/json", delivery_mode=2, message_id="s:3:17", timestamp=at(1_700_000_000),
        message_type="GUILD_CREATE",
        headers={"shard_id": 3, "shard_count": 8, "seq": 17, "replayed": True, "cause": "start", "x": [1, {"y": 2}]},
    )  # fmt: skip
    payload = FIXED + told.marshal()
    found = read(sound_header(payload)[0])
    assert found == Event(
        "GUILD_CREATE", b"{}", "s:3:17", shard_id=3, shard_count=8, seq=17, replayed=True, cause="start",
        received=1_700_000_000.0, cluster=1,
    )  # fmt: skip
    assert sound_header(payload)[1] == ""


def at(second: int) -> Any:
    return aio_pika.message.encode_timestamp(second)


def test_messages_that_cannot_be_read_are_counted_and_said_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 100.0
    unreadable = Unreadable(lambda: now)
    for _ in range(50):
        unreadable.add("a length is wrong")
    now = 161.0
    unreadable.add("an id is no text")
    assert unreadable.count == 51
    said = [record.getMessage() for record in caplog.records]
    assert (
        len(said) == 2 and "a length is wrong (1 messages)" in said[0] and "no text (50 messages)" in said[1]
    )


@pytest.mark.checklist("K1", "K2", "K3")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(messages=st.lists(st.tuples(hostile_properties(), bodies), min_size=1, max_size=5))
def test_hostile_events_through_rabbitmq_leave_the_worker_its_connection_and_its_events(
    broker: Broker, messages: list[tuple[bytes, bytes]]
) -> None:
    async def scenario() -> None:
        async with (
            gateway(broker) as exchange,
            Worker(broker.uri, queue="w", events=["MESSAGE_CREATE"]) as worker,
        ):
            events, hand, last = worker.events(), ByHand(broker.uri), f"last-{time.monotonic_ns()}"
            for told, body in messages:
                await hand.publish(b"rateway-1", b"MESSAGE_CREATE", told, body)
                await hand.publish(b"", b"w", told, body)
                await hand.is_settled()
            mine = event(1)
            mine.message_id = last
            await exchange.publish(mine, "MESSAGE_CREATE")
            async for found in events:
                await found.done()
                # The connection broke if it came a second time.
                assert not found.redelivered
                if found.message_id == last:
                    break
            if hand.connection is not None:
                await hand.connection.close()
        assert await left_in(broker, "w") == 0

    run(scenario())


@pytest.mark.checklist("K1", "K3")
@pytest.mark.parametrize(
    "told",
    [
        properties(correlation_id=b"\xff\xfe"),
        properties(headers=field_of(b"x", b"A", counted(b"V" * 120_000))),
        properties(headers=field_of(b"x", b"S", counted(b"y" * (MAX_PROPERTIES + 1)))),
        b"\x00\x80\x02\xff\xfe",
        b"\x00\x40" + b"\xff" * 8,
    ],
)
def test_an_event_with_properties_that_cannot_be_read_comes_without_them_and_is_counted(
    broker: Broker, told: bytes
) -> None:
    async def scenario() -> None:
        async with gateway(broker), Worker(broker.uri, queue="w", events=["MESSAGE_CREATE"]) as worker:
            hand = ByHand(broker.uri)
            await hand.publish(b"rateway-1", b"MESSAGE_CREATE", told, b'{"content":"hello"}')
            assert await hand.is_settled()
            found = await anext(worker.events())
            assert (found.name, found.data, found.message_id) == (
                "MESSAGE_CREATE",
                {"content": "hello"},
                None,
            )
            await found.done()
            await worker.query("Guild", 1)
            assert worker.unreadable == 1
            assert hand.connection is not None
            await hand.connection.close()
        assert await left_in(broker, "w") == 0

    async def main() -> None:
        async with asyncio.timeout(30):
            await answered_by(broker, lambda message: (b'"known"', "ok"), scenario)

    run(main())


async def answered_by(
    broker: Broker,
    answer: Callable[[AbstractIncomingMessage], tuple[bytes, str]],
    scenario: Callable[[], Any],
) -> None:
    async with gateway(broker, answer):
        await scenario()


@pytest.mark.checklist("K1")
@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"{",
        b"[" * 100_000,
        b"1" * 5_000,
        b'"\\ud800"',
        b'{"error":{"code":[1],"message":null}}',
        b"1",
    ],
)
def test_answers_that_are_none_end_their_own_request_and_the_next_is_answered(
    broker: Broker, body: bytes
) -> None:
    answers = [(body, "error"), (b'{"id":"1"}', "ok"), (body, "ok"), (b'{"id":"1"}', "ok")]

    async def scenario() -> None:
        async with Worker(broker.uri) as worker:
            with pytest.raises(QueryError):
                await worker.query("Guild", 1)
            assert await worker.query("Guild", 1) == {"id": "1"}
            with pytest.raises(QueryError):
                await worker.queries([{"type": "Guild", "arguments": ["1"]}])
            assert await worker.query("Guild", 1) == {"id": "1"}

    async def main() -> None:
        async with asyncio.timeout(30):
            await answered_by(broker, lambda message: answers.pop(0), scenario)

    run(main())


@pytest.mark.checklist("K1")
@pytest.mark.parametrize(
    "body", [b"\xff", b"[" * 100_000, b"1" * 5_000, b'{"opcode":8,"retry_after":-1e300}']
)
def test_chunks_and_limits_that_are_none_leave_a_request_for_members_alone(
    broker: Broker, body: bytes
) -> None:
    async def scenario() -> None:
        commands: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        def answer(message: AbstractIncomingMessage) -> tuple[bytes, str]:
            if message.routing_key == "cache":
                return b'{"cluster":1,"shard":0,"shard_count":1}', "ok"
            commands.put_nowait(msgspec.json.decode(message.body)["d"])
            return b'{"shard_id":0}', "ok"

        async with gateway(broker, answer) as exchange, Worker(broker.uri) as worker:
            request = asyncio.create_task(worker.request_members(1, timeout=60))
            d = await commands.get()
            for key in ("GUILD_MEMBERS_CHUNK", "RATE_LIMITED", "RATEWAY_GAP"):
                await exchange.publish(aio_pika.Message(body), key)
            chunk = {"guild_id": "1", "members": [], "chunk_index": 0, "chunk_count": 1, "nonce": d["nonce"]}
            await exchange.publish(aio_pika.Message(msgspec.json.encode(chunk)), "GUILD_MEMBERS_CHUNK")
            assert (await request).members == []

    run(scenario())


def test_the_headers_that_are_needed_are_kept_in_their_types_alone() -> None:
    odd = fields({"shard_id": "3", "seq": 1.5, "replayed": 1, "cause": "join", "shard_count": 8})
    found = read(sound_header(FIXED + properties(headers=odd))[0])
    assert (found.shard_id, found.seq, found.replayed, found.cause, found.shard_count) == (
        None,
        None,
        False,
        "join",
        8,
    )
