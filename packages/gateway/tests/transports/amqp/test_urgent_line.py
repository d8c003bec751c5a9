"""Urgent events overtake those that wait for the broker: at once, in order among themselves, and nothing is lost."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import aio_pika
import pamqp.commands as spec
import pytest
from aio_pika.abc import AbstractIncomingMessage
from rateway.delivery.limits import DeliveryLimits
from rateway.delivery.message import Publish
from rateway.delivery.port import Clock
from rateway.demo.relay import Relay
from rateway.native.ledger import Cursor, Run
from rateway.transports.amqp.events.line import keep_line
from rateway.transports.amqp.events.publisher import EventPublisher, ShardStream
from rateway.transports.amqp.events.urgent_line import UrgentLine
from rateway.transports.amqp.log.log_keeper import LogKeeper
from rateway.transports.amqp.settings import EventLogSettings
from rateway.transports.amqp.wire import frames
from rateway.transports.amqp.wire.uri import AmqpAddress, parse
from rateway.transports.event_log_record import EventLogRecord
from rateway.transports.spool import Spool
from tests.transports.amqp.fake_broker import FakeBroker
from tests.transports.amqp.publishing import Listener, publish
from tests.transports.amqp.test_rabbitmq import until

from tests.aio import run
from tests.event_log import read_log
from tests.rabbitmq import Broker

URGENT = "INTERACTION_CREATE"
#: One event of the spool at a time is on its way: a backlog that lasts.
SLOW = DeliveryLimits(drain_window=1, drain_window_most=1)


def left_in_spool(folder: Path, count: int) -> None:
    """What a former process could not publish: events 1 to *count* of shard 0's session ``s``."""
    former = EventPublisher(
        address=parse("amqp://guest:guest@127.0.0.1:1/"),
        exchange="rateway-1",
        cluster=1,
        limits=DeliveryLimits(),
        persistent=True,
        spool=Spool.open(folder, 1 << 30),
        clock=time,
        observer=Listener(),
    )
    stream = former.stream(0, 1)
    stream.begin("s")
    publish(stream, range(1, count + 1))
    former.spool_now()
    assert former.spool is not None
    former.spool.close()


def send(stream: ShardStream, seqs: Iterable[int], urgent: int) -> None:
    """An event for each sequence, every so many of them an urgent one."""
    for seq in seqs:
        stream.publish("X" if seq % urgent else URGENT, b"{}", seq, False)


@dataclass
class Arrivals:
    """All that came through a queue that is bound to everything, in order."""

    uri: str
    seqs: list[int] = field(default_factory=list)
    ahead: list[int] = field(default_factory=list)
    republished: list[int] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Arrivals]:
        async with await aio_pika.connect_robust(self.uri) as connection:
            channel = await connection.channel()
            await channel.set_qos(1_000)
            exchange = await channel.declare_exchange("rateway-1", "direct", durable=True)
            queue = await channel.declare_queue("all", durable=True)
            for name in ("X", URGENT):
                await queue.bind(exchange, name)
            await queue.consume(self._take)
            yield self

    async def _take(self, message: AbstractIncomingMessage) -> None:
        seq = int(str(message.headers["seq"]))
        self.seqs.append(seq)
        if message.headers.get("ahead"):
            self.ahead.append(seq)
        if message.headers.get("republished"):
            self.republished.append(seq)
        await message.ack()


@asynccontextmanager
async def publishing(
    uri: str, folder: Path, *, clock: Clock = time, event_log: LogKeeper | None = None, backlog: int = 1_000
) -> AsyncIterator[tuple[EventPublisher, ShardStream]]:
    """A publisher with a backlog of events 1 to *backlog*, connected."""
    left_in_spool(folder, backlog)
    publisher = EventPublisher(
        address=parse(uri),
        exchange="rateway-1",
        cluster=1,
        limits=SLOW,
        persistent=True,
        spool=Spool.open(folder, 1 << 30),
        clock=clock,
        observer=Listener(),
        event_log=event_log,
        urgent=frozenset({URGENT}),
    )
    stream = publisher.stream(0, 1)
    stream.restore("s", backlog)
    task = asyncio.get_running_loop().create_task(publisher.run())
    try:
        yield publisher, stream
    finally:
        publisher.stop()
        await task


def new_log() -> LogKeeper:
    """The keeper of an event log that nothing was written about yet."""
    return LogKeeper(
        exchange="rateway-1",
        cluster=1,
        settings=EventLogSettings(form="stream", age=900.0, bytes=64 << 20),
        record=EventLogRecord(),
        write=lambda record: None,
        clock=time,
    )


def test_urgent_events_come_before_the_backlog_in_their_own_order_and_each_once(
    broker: Broker, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with (
            Arrivals(broker.uri).running() as arrivals,
            publishing(broker.uri, tmp_path) as (publisher, stream),
        ):
            await until(lambda: len(arrivals.seqs) > 10)
            for first in range(1_001, 1_301, 10):
                send(stream, range(first, first + 10), urgent=5)
                publisher.flush()
                await asyncio.sleep(0)
            await until(lambda: len(arrivals.ahead) >= 60)
            assert len(arrivals.seqs) < 700
            await until(lambda: publisher.unconfirmed == 0 and len(arrivals.seqs) >= 1_300)
            assert stream.settled == 1_300 and publisher.ahead == 60
        assert arrivals.ahead == [*range(1_005, 1_301, 5)]
        assert [seq for seq in arrivals.seqs if seq not in set(arrivals.ahead)] == [
            seq for seq in range(1, 1_301) if seq <= 1_000 or seq % 5
        ]
        assert len(arrivals.seqs) == 1_300 and not arrivals.republished

    run(scenario())


def test_without_a_backlog_an_urgent_event_keeps_its_place(broker: Broker, tmp_path: Path) -> None:
    async def scenario() -> None:
        arrivals = Arrivals(broker.uri)
        async with arrivals.running(), publishing(broker.uri, tmp_path, backlog=0) as (publisher, stream):
            await until(lambda: publisher.connected)
            for first in range(1, 1_001, 50):
                send(stream, range(first, first + 50), urgent=3)
                publisher.flush()
                assert await publisher.drain(60) == 0
            await until(lambda: len(arrivals.seqs) >= 1_000)
            assert arrivals.seqs == [*range(1, 1_001)] and not arrivals.ahead
            assert publisher.ahead == 0 and stream.settled == 1_000

    run(scenario())


class Stoppable:
    """A clock that can be stopped."""

    def __init__(self) -> None:
        self._stopped_at: float | None = None
        self._leap = 0.0

    def stop(self) -> None:
        self._stopped_at = self.monotonic()

    def go_on(self, leap: float = 0.0) -> None:
        """Go on, *leap* seconds ahead."""
        self._stopped_at = None
        self._leap = leap

    def monotonic(self) -> float:
        return time.monotonic() + self._leap if self._stopped_at is None else self._stopped_at

    def time(self) -> float:
        return time.time()


def test_an_urgent_event_that_came_while_the_broker_was_away_is_the_first_when_it_is_back(
    broker: Broker, tmp_path: Path
) -> None:
    async def scenario() -> None:
        clock = Stoppable()
        async with (
            Arrivals(broker.uri).running() as arrivals,
            Relay("127.0.0.1", broker.port) as relay,
            publishing(broker.uri.replace(f":{broker.port}/", f":{relay.port}/"), tmp_path, clock=clock) as (
                publisher,
                stream,
            ),
        ):
            await until(lambda: len(arrivals.seqs) > 10)
            # The backlog stands from here on: its first event is refused.
            await broker.add_full_queue(["X"])
            await until(lambda: publisher.refusals > 0)
            relay.refuse(True)
            await until(lambda: not publisher.connected)
            # However long both connections take to come back.
            clock.stop()
            send(stream, range(1_001, 1_101), urgent=10)
            publisher.flush()
            publisher.spool_now()
            relay.refuse(False)
            await until(lambda: len(set(arrivals.ahead)) == 10)
            assert publisher.unconfirmed > 90
            clock.go_on()
            await broker.delete_full_queue()
            await until(lambda: publisher.unconfirmed == 0)
            assert stream.settled == 1_100
            await until(lambda: set(arrivals.seqs) == {*range(1, 1_101)})

    run(scenario())


def test_an_event_that_has_waited_for_three_seconds_and_a_replayed_one_keep_their_places(
    broker: Broker, tmp_path: Path
) -> None:
    class Leaping:
        """A clock that can be put forward."""

        leap = 0.0

        def monotonic(self) -> float:
            return time.monotonic() + self.leap

        def time(self) -> float:
            return time.time()

    async def scenario() -> None:
        clock, arrivals = Leaping(), Arrivals(broker.uri)
        async with arrivals.running(), publishing(broker.uri, tmp_path, clock=clock) as (publisher, stream):
            stream.publish(URGENT, b"{}", 1_001, False)
            publisher.flush()
            clock.leap = 4.0
            stream.publish(URGENT, b"{}", 1_002, True)
            publisher.flush()
            await until(lambda: len(arrivals.seqs) >= 1_002)
            assert arrivals.seqs == [*range(1, 1_003)] and not arrivals.ahead and publisher.ahead == 0

    run(scenario())


def test_what_overtakes_goes_into_the_event_log_as_well(broker: Broker, tmp_path: Path) -> None:
    async def scenario() -> None:
        keeper = new_log()
        # The backlog stands: its first event is refused.
        await broker.add_full_queue(["X"])
        async with publishing(broker.uri, tmp_path, event_log=keeper, backlog=1_000) as (publisher, stream):
            await until(lambda: publisher.refusals > 0)
            last = 1_000
            while publisher.ahead < 10:
                last += 1
                send(stream, [last], urgent=2)
                publisher.flush()
                await asyncio.sleep(0.001)
            await broker.delete_full_queue()
            await until(lambda: publisher.unconfirmed == 0)
            assert keeper.name is not None
            log = await read_log(broker.uri, keeper.name)
        assert log.receipts.distinct == last and not log.receipts.out_of_order

    run(scenario())


def test_nothing_overtakes_while_it_is_not_decided_which_event_log_takes_it(
    broker: Broker, tmp_path: Path
) -> None:
    async def scenario() -> None:
        keeper = new_log()
        async with publishing(broker.uri, tmp_path, event_log=keeper, backlog=300) as (publisher, stream):
            await until(lambda: publisher.connected)
            first = keeper.name
            await broker.api("DELETE", f"queues/{quote(broker.vhost, safe='')}/{first}")
            # A new name finds out at once, when its turn comes.
            stream.publish("DISCORD_INVENTED", b"{}", 301, False)
            publisher.flush()
            # The channel is away for a moment, which a look may miss.
            await until(lambda: not publisher.connected or keeper.name != first)
            for seq in range(302, 502):
                send(stream, [seq], urgent=2)
                publisher.flush()
                await asyncio.sleep(0.001)
            await until(lambda: publisher.unconfirmed == 0 and keeper.begun >= 2)
            assert keeper.name is not None and keeper.name != first
            log = await read_log(broker.uri, keeper.name)
        assert {*range(301, 502)} <= {seq for seq in range(1, 502) if log.receipts.times("s", seq)}

    run(scenario())


# The line alone, against a broker that answers as a test wants.


@dataclass
class Line:
    """An urgent line, and what it says of its copies."""

    urgent: UrgentLine
    taken: list[Run] = field(default_factory=list)
    sent: set[Run] = field(default_factory=set)

    def wait_in_place(self, seq: int, body: bytes = b"{}") -> Run:
        """An event that waits in its place."""
        each = Run(Cursor(0), 0.0)
        each.left = 1
        properties = frames.event_properties(b"U", 0, 1, seq, b"s:0:%d" % seq, 0, False, True)
        self.urgent.note(each, Publish(b"U", properties, body))
        return each


@asynccontextmanager
async def line_to(broker: FakeBroker, clock: Clock = time) -> AsyncIterator[Line]:
    taken: list[Run] = []
    sent: set[Run] = set()

    def take(place: Run) -> None:
        place.left = 0
        taken.append(place)

    urgent = UrgentLine(
        names=frozenset({"U"}),
        exchange="rateway-1",
        clock=clock,
        event_log=None,
        is_sent=sent.__contains__,
        on_taken=take,
    )
    task = asyncio.create_task(
        keep_line(urgent, parse(broker.uri), "rateway-1", 1, urgent, what="urgent events")
    )
    try:
        yield Line(urgent, taken, sent)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("together", [True, False], ids=["one answer for all", "an answer each"])
def test_a_confirmed_copy_answers_for_its_place_and_one_without_an_answer_does_not(together: bool) -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, line_to(broker) as line:
            runs = [line.wait_in_place(seq) for seq in range(1, 5)]
            line.urgent.hurry()
            received = await broker.publishes(4)
            assert [each.seq for each in received] == [1, 2, 3, 4]
            assert all(each.headers["ahead"] is True for each in received)
            assert line.taken == []
            for tag in [3] if together else [3, 1, 2]:
                broker.ack(tag, together)
            await until(lambda: len(line.taken) == 3)
            assert set(line.taken) == set(runs[:3])
            # The answered ones are done; nothing is written twice.
            line.urgent.hurry()
            assert line.urgent.count == 4

    run(scenario())


def test_a_refused_copy_is_not_tried_again_and_one_whose_channel_was_lost_is() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, line_to(broker) as line:
            line.wait_in_place(1)
            line.wait_in_place(2)
            line.urgent.hurry()
            await broker.publishes(2)
            broker.nack(1)
            broker.close_channel(320, "CONNECTION_FORCED - a test")
            assert [each.seq for each in (await broker.publishes(3))[2:]] == [2]
            broker.ack(1)
            await until(lambda: len(line.taken) == 1)

    run(scenario())


def test_an_event_whose_run_is_still_filled_has_no_place_to_overtake_from() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, line_to(broker) as line:
            line.wait_in_place(1)
            line.urgent.hurry()
            await broker.publishes(1)
            filled = line.wait_in_place(2)
            filled.left = -1
            line.urgent.hurry()
            assert line.urgent.count == 1
            # The end of the wake-up.
            filled.left = 1
            line.urgent.hurry()
            assert [each.seq for each in await broker.publishes(2)] == [1, 2]

    run(scenario())


def test_one_that_is_written_in_its_place_goes_first_when_a_later_one_waits() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, line_to(broker) as line:
            first = line.wait_in_place(1)
            line.sent.add(first)
            # A confirm of its place is on its way: there is nothing to overtake.
            line.urgent.hurry()
            line.wait_in_place(2)
            line.urgent.hurry()
            assert [each.seq for each in await broker.publishes(2)] == [1, 2]

    run(scenario())


def test_a_broker_that_blocks_is_written_no_copies_until_it_unblocks() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, line_to(broker) as line:
            line.wait_in_place(1)
            line.urgent.hurry()
            await broker.publishes(1)
            broker.method(spec.Connection.Blocked("low on memory"), 0)
            broker.ack(1)
            await until(lambda: len(line.taken) == 1)
            line.wait_in_place(2)
            line.urgent.hurry()
            assert line.urgent.count == 1
            broker.method(spec.Connection.Unblocked(), 0)
            assert [each.seq for each in await broker.publishes(2)] == [1, 2]

    run(scenario())


def test_a_full_socket_is_written_no_copies_until_there_is_room() -> None:
    async def scenario() -> None:
        clock = Stoppable()
        async with FakeBroker(confirm=False) as broker, line_to(broker, clock) as line:
            line.wait_in_place(1)
            line.urgent.hurry()
            await broker.publishes(1)
            # However long the broker takes to read it.
            clock.stop()
            for seq in range(2, 301):
                line.wait_in_place(seq, bytes(100_000))
                line.urgent.hurry()
            assert line.urgent.count < 200
            assert [each.seq for each in await broker.publishes(300)] == [*range(1, 301)]

    run(scenario())


def test_a_broker_that_answers_nothing_is_written_a_bounded_number_of_copies() -> None:
    async def scenario() -> None:
        clock = Stoppable()
        clock.stop()
        async with FakeBroker(confirm=False) as broker, line_to(broker, clock) as line:
            for seq in range(1, 1_502):
                line.wait_in_place(seq)
            line.urgent.hurry()
            await broker.publishes(1_000)
            line.urgent.hurry()
            assert line.urgent.count == 1_000
            broker.ack(500, True)
            await until(lambda: len(line.taken) == 500)
            line.urgent.hurry()
            assert [each.seq for each in await broker.publishes(1_500)] == [*range(1, 1_501)]

    run(scenario())


@pytest.mark.parametrize("answer", ["ack", "nack", "none"])
def test_behind_a_copy_without_an_answer_nothing_is_kept_that_has_no_hurry_any_more(answer: str) -> None:
    async def scenario() -> None:
        clock = Stoppable()
        clock.stop()
        async with FakeBroker(confirm=False) as broker, line_to(broker, clock) as line:
            bodies = [bytes(1_000), bytes(2_000)]
            # Only this list holds them.
            before = [sys.getrefcount(each) for each in bodies]
            first = line.wait_in_place(1, bodies[0])
            line.urgent.hurry()
            await broker.publishes(1)
            # It is confirmed in its place.
            line.wait_in_place(2, bodies[1]).left = 0
            clock.go_on(4.0)
            clock.stop()
            line.urgent.hurry()
            assert [sys.getrefcount(each) for each in bodies] == before
            # The place of the first one is answered for all the same, if an answer comes.
            match answer:
                case "ack":
                    broker.ack(1)
                    await until(lambda: line.taken == [first])
                case "nack":
                    broker.nack(1)
                case "none":
                    broker.close_channel(320, "CONNECTION_FORCED - a test")
            line.wait_in_place(3)
            line.urgent.hurry()
            assert [each.seq for each in await broker.publishes(2)] == [1, 3]

    run(scenario())


@dataclass
class InTurn:
    """Each attempt to connect goes to the next of these brokers."""

    brokers: list[FakeBroker]
    dialled: int = 0

    def current(self) -> AmqpAddress:
        self.dialled += 1
        return parse(self.brokers[(self.dialled - 1) % len(self.brokers)].uri)


def test_an_event_that_is_refused_in_its_place_is_not_given_up_when_its_copy_is_taken() -> None:
    async def scenario() -> None:
        clock, listener = Stoppable(), Listener()
        # Its place is on one connection and its copy on the other.
        async with FakeBroker(confirm=False) as places, FakeBroker(confirm=False) as copies:
            publisher = EventPublisher(
                address=InTurn([places, copies]),
                exchange="rateway-1",
                cluster=1,
                limits=DeliveryLimits(refused_delay=1.0, refused_patience=2.0),
                persistent=True,
                spool=None,
                clock=clock,
                observer=listener,
                urgent=frozenset({URGENT}),
            )
            task = asyncio.create_task(publisher.run())
            await until(lambda: publisher.connected)
            clock.stop()
            stream = publisher.stream(0, 1)
            stream.begin("s")
            stream.publish(URGENT, b"{}", 1, False)
            await places.publishes(1)
            places.nack(1)
            await until(lambda: publisher.refusals == 1)
            # A later one waits behind it, so both have copies.
            stream.publish(URGENT, b"{}", 2, False)
            assert [each.seq for each in await copies.publishes(2)] == [1, 2]
            copies.ack(1)
            await until(lambda: publisher.confirmed == 1)
            # Its next try is due, and its patience is over.
            clock.go_on(60.0)
            await until(lambda: task.done() or len(places.received) == 2)
            places.ack(2)
            await until(lambda: task.done() or publisher.unconfirmed == 0)
            assert not task.done() and stream.settled == 2
            assert [each.seq for each in places.received] == [1, 2] and not listener.said("refused")
            publisher.stop()
            await task

    run(scenario())
