"""What shards, clusters and requests rely on of delivery, held by both of its forms: AMQP and memory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from rateway.delivery.limits import DeliveryLimits
from rateway.delivery.port import EventSink, Message, RequestSource
from rateway.transports.amqp.requests.inbound import Inbound
from rateway.transports.amqp.wire.uri import parse
from tests.delivery.memory import MemoryRequests, MemorySink, Taken
from tests.transports.amqp.fake_broker import FakeBroker
from tests.transports.amqp.inbound_broker import InboundBroker, properties
from tests.transports.amqp.publishing import Listener, cluster_on

# Unconfirmed events at which reading pauses.
MOST = 8


@dataclass
class Stage:
    """A sink, and the other side of it."""

    sink: EventSink
    listener: Listener
    taken: Callable[[], list[Taken]]
    up: Callable[[], Awaitable[None]]
    down: Callable[[], Awaitable[None]]

    async def told(self, word: str) -> None:
        """Wait until the observer has been told so."""
        async with asyncio.timeout(60):
            while not self.listener.said(word):
                self.listener.changed.clear()
                await self.listener.changed.wait()

    def of_events(self) -> list[tuple[str, str | None]]:
        return [(each.key, each.message_id) for each in self.taken()]


@asynccontextmanager
async def in_memory() -> AsyncIterator[Stage]:
    listener = Listener()
    sink = MemorySink(clock=time, most=MOST, observer=listener)
    running = asyncio.create_task(sink.run())

    async def turn(up: bool) -> None:
        sink.set_up(up)

    await turn(True)
    yield Stage(sink, listener, lambda: sink.taken, lambda: turn(True), lambda: turn(False))
    sink.stop()
    await running


@asynccontextmanager
async def over_amqp() -> AsyncIterator[Stage]:
    limits = DeliveryLimits(events=MOST, resume_below=1.0)
    async with FakeBroker() as broker, cluster_on(broker, limits) as cluster:

        def taken() -> list[Taken]:
            return [
                Taken(each.key, each.body, each.properties.message_id, each.headers)
                for each in broker.received
            ]

        async def up() -> None:
            await broker.listen()
            await cluster.until(lambda: cluster.publisher.connected)

        async def down() -> None:
            await broker.stop_listening()
            await cluster.until(lambda: not cluster.publisher.connected)

        yield Stage(cluster.publisher, cluster.listener, taken, up, down)


Form = Callable[[], Any]


@pytest.fixture(params=[in_memory, over_amqp], ids=["memory", "amqp"])
def form(request: pytest.FixtureRequest) -> Any:
    return request.param


def on(form: Form, test: Callable[[Stage], Awaitable[None]]) -> None:
    async def main() -> None:
        async with form() as stage:
            await test(stage)

    asyncio.run(main())


def test_events_arrive_in_order_with_their_identity_and_are_settled(form: Form) -> None:
    async def test(stage: Stage) -> None:
        stream = stage.sink.stream(3, 16)
        assert (stream.message_id(5), stream.settled, stream.received) == (None, 0, 0)
        stream.publish("EARLY", b"0", None, False)
        stream.begin("s")
        assert stream.message_id(5) == "s:3:5"
        stream.publish("READY", b"{}", 1, False)
        stream.publish("A", b'{"a":1}', 2, False)
        stream.publish("A", b'{"a":2}', 2, True, 1)
        stream.publish("B", b"null", 3, False, 0, "join")
        assert (stream.settled, stream.received, stage.sink.is_writing) == (0, 3, True)
        assert await stage.sink.drain(60) == 0
        assert (stream.settled, stage.sink.is_writing, stage.sink.unconfirmed) == (3, False, 0)
        assert stage.of_events() == [
            ("EARLY", None), ("READY", "s:3:1"), ("A", "s:3:2"), ("A", "s:3:2:r1"), ("B", "s:3:3"),
        ]  # fmt: skip
        early, ready, first, again, last = stage.taken()
        assert [each.body for each in (first, again, last)] == [b'{"a":1}', b'{"a":2}', b"null"]
        shard = {"shard_id": 3, "shard_count": 16}
        assert dict(early.headers) == shard
        assert dict(ready.headers) == shard | {"seq": 1}
        assert dict(again.headers) == shard | {"seq": 2, "replayed": True}
        assert dict(last.headers) == shard | {"seq": 3, "cause": "join"}
        assert (stage.sink.published, stage.sink.confirmed) == (5, 5)
        assert stage.listener.settled >= 1

    on(form, test)


def test_a_wake_ups_events_go_out_together_after_what_must_be_stored_before(form: Form) -> None:
    async def test(stage: Stage) -> None:
        stored: list[tuple[int, int]] = []
        stage.sink.before_write = lambda events: stored.append((events, len(stage.taken())))
        one, other = stage.sink.stream(0, 2), stage.sink.stream(1, 2)
        one.begin("a")
        other.begin("b")
        for seq in (1, 2, 3):
            one.publish("A", b"1", seq, False)
            other.publish("B", b"2", seq, False)
        assert stage.taken() == []
        await asyncio.sleep(0)
        await stage.sink.drain(60)
        assert stored == [(6, 0)]
        found = stage.of_events()
        assert [each for each in found if each[0] == "A"] == [("A", f"a:0:{seq}") for seq in (1, 2, 3)]
        assert [each for each in found if each[0] == "B"] == [("B", f"b:1:{seq}") for seq in (1, 2, 3)]

    on(form, test)


def test_what_is_filtered_is_settled_with_what_came_before_it(form: Form) -> None:
    async def test(stage: Stage) -> None:
        stream = stage.sink.stream(0, 1)
        stream.restore("s", 10)
        assert (stream.settled, stream.received) == (10, 10)
        stream.skip(11)
        assert stream.settled == 11
        stream.publish("A", b"1", 12, False)
        stream.skip(13)
        assert (stream.settled, stream.received) == (11, 13)
        await stage.sink.drain(60)
        assert stream.settled == 13

    on(form, test)


def test_what_cannot_be_forwarded_is_told_in_its_place_and_settled(form: Form) -> None:
    async def test(stage: Stage) -> None:
        stream = stage.sink.stream(0, 1)
        stream.begin("s")
        stream.publish("A", b"1", 1, False)
        stream.pass_over("", 2, "it has no name")
        stream.publish("gateway", b"1", 3, False)
        stream.publish("A", b"1", 4, False)
        await stage.sink.drain(60)
        assert stage.of_events() == [
            ("A", "s:0:1"),
            ("RATEWAY_UNREADABLE", "unreadable:s:0:2"),
            ("RATEWAY_UNREADABLE", "unreadable:s:0:3"),
            ("A", "s:0:4"),
        ]
        told = [json.loads(each.body) for each in stage.taken()[1:3]]
        assert [each["seq"] for each in told] == [2, 3]
        assert told[0]["reason"] == "it has no name"
        assert stream.settled == 4

    on(form, test)


def test_the_gateways_own_messages_keep_their_place_and_are_told_when_they_are_safe(form: Form) -> None:
    async def test(stage: Stage) -> None:
        safe: list[str] = []
        stream = stage.sink.stream(0, 1)
        stream.begin("s")
        stream.publish("A", b"1", 1, False)
        stage.sink.publish_own(
            "RATEWAY_GAP", b"{}", "gap:1", {"x": 1}, on_confirmed=lambda: safe.append("gap")
        )
        stream.publish("A", b"1", 2, False)
        assert safe == []
        await stage.sink.drain(60)
        assert safe == ["gap"]
        assert stage.of_events() == [("A", "s:0:1"), ("RATEWAY_GAP", "gap:1"), ("A", "s:0:2")]
        assert dict(stage.taken()[1].headers) == {"x": 1}

    on(form, test)


def test_what_nobody_takes_waits_and_settles_nothing_until_it_is_taken(form: Form) -> None:
    async def test(stage: Stage) -> None:
        stream = stage.sink.stream(0, 1)
        stream.begin("s")
        await stage.down()
        assert stage.sink.connected is False
        assert stage.listener.told[-1][0] == "down"
        for seq in (1, 2, 3):
            stream.publish("A", b"1", seq, False)
        assert await stage.sink.drain(0.05) == 3
        assert (stream.settled, stream.received, stage.sink.unconfirmed) == (0, 3, 3)
        found = stage.sink.oldest()
        assert found is not None
        assert found[1] == "A"
        await stage.up()
        assert await stage.sink.drain(60) == 0
        assert (stream.settled, stage.sink.oldest()) == (3, None)
        assert stage.of_events() == [("A", f"s:0:{seq}") for seq in (1, 2, 3)]

    on(form, test)


def test_reading_pauses_at_the_bound_and_goes_on_when_there_is_room(form: Form) -> None:
    async def test(stage: Stage) -> None:
        stream = stage.sink.stream(0, 1)
        stream.begin("s")
        await stage.down()
        for seq in range(1, MOST):
            stream.publish("A", b"1", seq, False)
        stage.sink.flush()
        assert stage.listener.said("pause") == 0
        stream.publish("A", b"1", MOST, False)
        stage.sink.flush()
        held = stage.sink.paused
        assert stage.listener.said("pause") == 1
        await stage.up()
        await stage.told("resume")
        assert (held, stage.sink.paused) == (True, False)
        assert stage.listener.said("resume") == 1
        assert await stage.sink.drain(60) == 0

    on(form, test)


def test_a_new_session_begins_with_nothing_settled_whatever_the_old_one_still_awaits(form: Form) -> None:
    async def test(stage: Stage) -> None:
        stream = stage.sink.stream(0, 1)
        stream.begin("old")
        await stage.down()
        stream.publish("A", b"1", 1, False)
        stream.publish("A", b"1", 2, False)
        stage.sink.flush()
        stream.begin("new")
        assert (stream.settled, stream.received) == (0, 0)
        stream.publish("READY", b"{}", 1, False)
        await stage.up()
        await stage.sink.drain(60)
        assert stream.settled == 1
        assert stage.of_events() == [("A", "old:0:1"), ("A", "old:0:2"), ("READY", "new:0:1")]

    on(form, test)


# Requests.


@dataclass
class Asking:
    """A source of requests, and the other side of it."""

    source: RequestSource
    came: list[Message]
    ask: Callable[[bytes, str], None]
    answers: Callable[[], list[tuple[str, str | None, bytes, str]]]
    """Key, correlation id, body and the header ``status``."""
    unacknowledged: Callable[[], int]
    until: Callable[[Callable[[], bool]], Awaitable[None]]
    """Wait for something that the other side sees."""


@asynccontextmanager
async def requests_in_memory() -> AsyncIterator[Asking]:
    came: list[Message] = []
    source = MemoryRequests(came.append)

    def answers() -> list[tuple[str, str | None, bytes, str]]:
        return [(key, known, body, str(headers["status"])) for key, known, body, headers in source.answers]

    def ask(body: bytes, known: str) -> None:
        source.deliver(body, correlation_id=known.encode())

    async def at_once(condition: Callable[[], bool]) -> None:
        assert condition()

    yield Asking(source, came, ask, answers, lambda: source.unacknowledged, at_once)


@asynccontextmanager
async def requests_over_amqp() -> AsyncIterator[Asking]:
    came: list[Message] = []
    owned, arrived = asyncio.Event(), asyncio.Event()

    def took(message: Message) -> None:
        came.append(message)
        arrived.set()

    def ownership(state: str, why: str) -> None:
        if state == "owned":
            owned.set()

    broker = InboundBroker()
    async with broker:
        inbound = Inbound(
            address=parse(broker.uri), name="a test", exchange="rateway-1", queue="rateway-incoming-1",
            keys=("cache",), on_message=took, on_ownership=ownership,
        )  # fmt: skip
        running = asyncio.create_task(inbound.run())
        await owned.wait()

        async def until(condition: Callable[[], bool]) -> None:
            async with asyncio.timeout(60):
                while not condition():
                    arrived.clear()
                    sees = asyncio.create_task(broker.until(condition))
                    hears = asyncio.create_task(arrived.wait())
                    await asyncio.wait({sees, hears}, return_when=asyncio.FIRST_COMPLETED)
                    for task in (sees, hears):
                        task.cancel()

        def answers() -> list[tuple[str, str | None, bytes, str]]:
            return [
                (each.key, each.properties.correlation_id, each.body, str(each.headers["status"]))
                for each in broker.received
            ]

        def ask(body: bytes, known: str) -> None:
            broker.deliver(properties(correlation_id=known.encode(), reply_to=b"answers"), body)

        yield Asking(inbound, came, ask, answers, lambda: broker.delivered - len(broker.settled), until)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("form", [requests_in_memory, requests_over_amqp], ids=["memory", "amqp"])
def test_a_request_is_answered_where_it_says_and_acknowledged_once(form: Callable[[], Any]) -> None:
    async def main() -> None:
        async with form() as asking:
            asking.ask(b"first", "1")
            asking.ask(b"second", "2")
            await asking.until(lambda: len(asking.came) == 2)
            first, second = asking.came
            assert [each.body for each in asking.came] == [b"first", b"second"]
            assert (first.key, first.reply_to, first.correlation_id) == ("cache", b"answers", b"1")
            assert asking.unacknowledged() == 2
            # In another order than they came.
            asking.source.answer(second, b"[2]", (("status", "ok"),))
            asking.source.acknowledge(second)
            await asking.until(lambda: asking.unacknowledged() == 1)
            asking.source.publish(first, "rateway-1", "old-answers", b"[1]", (("status", "ok"),))
            asking.source.acknowledge(first)
            await asking.until(lambda: asking.unacknowledged() == 0)
            assert asking.answers() == [("answers", "2", b"[2]", "ok"), ("old-answers", "1", b"[1]", "ok")]
            assert asking.source.writable

    asyncio.run(main())


@pytest.mark.parametrize("form", [requests_in_memory, requests_over_amqp], ids=["memory", "amqp"])
def test_what_keeps_a_request_needs_no_body_to_answer_it(form: Callable[[], Any]) -> None:
    async def main() -> None:
        async with form() as asking:
            asking.ask(b"x" * 1000, "1")
            await asking.until(lambda: len(asking.came) == 1)
            kept = asking.came[0].envelope()
            assert (kept.body, kept.headers) == (b"", b"")
            assert kept.size < asking.came[0].size
            asking.source.answer(kept, b"{}", (("status", "ok"),))
            asking.source.acknowledge(kept)
            await asking.until(lambda: asking.unacknowledged() == 0)
            assert asking.answers() == [("answers", "1", b"{}", "ok")]

    asyncio.run(main())
