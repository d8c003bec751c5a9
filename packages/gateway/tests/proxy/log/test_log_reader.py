"""What the proxy relies on of event logs, held by both forms of the reader: memory and RabbitMQ's streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pamqp.commands as spec
import pytest
from rateway.delivery.message import Publish
from rateway.delivery.proxy_port import Age, EndReason, LogEntry, LogReader, LogStart, Newest, Next, Offset
from rateway.transports.amqp.log.event_log import PREFETCH, AmqpLogReader
from rateway.transports.amqp.wire import frames
from rateway.transports.amqp.wire.channel import Acks, Channel
from rateway.transports.amqp.wire.connect import connect
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.amqp.wire.uri import parse
from tests.proxy.memory import Collected, MemoryReader

from tests.aio import run
from tests.rabbitmq import VERSIONS, Broker, fresh_vhost, private_rabbitmq

EXCHANGE = "rateway-1"
# Of the logs that roll: small segments, of which some are kept.
SEGMENT, KEPT = 1_000_000, 8_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """What is written to a log."""

    name: str
    body: bytes = b"{}"
    shard_id: int = 3
    session: str = "s"
    seq: int = 1
    repeat: int = 0
    is_out_of_order: bool = False


@dataclass
class Stage:
    """A reader of logs, and the other side of it. The log ``log`` is there; all that is written stands in it."""

    reader: LogReader
    write: Callable[[Sequence[Event]], Awaitable[None]]
    delete: Callable[[], Awaitable[None]]
    disconnect: Callable[[], Awaitable[None]]
    """Loses the connection to the broker, which comes back by itself."""
    ahead: int

    async def begin(self, start: LogStart, log: str = "log") -> tuple[Collected, Any]:
        """A pass that stands at its start."""
        sink = Collected()
        begun = self.reader.read(log, start, sink)
        await sink.until(lambda told: told.has_begun)
        return sink, begun

    async def read(self, start: LogStart, count: int) -> list[LogEntry]:
        """The first entries of a pass, begun again as long as the connection is lost."""
        while True:
            sink = Collected()
            begun = self.reader.read("log", start, sink)
            await sink.until(lambda told: len(told.entries) >= count or told.ended is not None)
            begun.close()
            if sink.ended is None:
                return sink.entries[:count]
            assert sink.ended[0] == "disconnected"

    async def write_until(self, written: Callable[[], bool]) -> int:
        """Write large entries until that is so; how many."""
        count = 0
        while not written():
            await self.write([Event("BIG", b"x" * (SEGMENT // 2), seq=count + 1)])
            count += 1
            assert count < 1_000
        return count


@asynccontextmanager
async def in_memory(broker: Broker | None) -> AsyncIterator[Stage]:
    loop = asyncio.get_running_loop()
    reader = MemoryReader(loop.call_soon)
    log = reader.log("log")

    async def write(events: Sequence[Event]) -> None:
        for each in events:
            log.now = int(time.time())
            if each.name == "BIG" and log.next_offset % 3 == 0:
                log.roll()
                log.retain(KEPT // SEGMENT)
            log.append(
                each.name, each.body, shard_id=each.shard_id, session=each.session, seq=each.seq,
                repeat=each.repeat, is_out_of_order=each.is_out_of_order,
            )  # fmt: skip

        await asyncio.sleep(0)

    async def delete() -> None:
        reader.delete("log")

    async def disconnect() -> None:
        reader.disconnect()
        reader.is_connected = True

    yield Stage(reader, write, delete, disconnect, reader.ahead)


class Writer:
    """Publishes to the exchange that logs are bound to, as the gateway does, and knows what was confirmed."""

    def __init__(self, connection: Connection, channel: Channel) -> None:
        self.connection = connection
        self.channel = channel
        self._published = self._confirmed = 0
        self._changed = asyncio.Event()
        channel.on_acks = self._on_acks

    def _on_acks(self, acks: Acks) -> None:
        self._confirmed = max([self._confirmed, *(tag for tag, _ in acks)])
        self._changed.set()

    async def publish(self, publishes: Sequence[Publish]) -> None:
        """Return when they stand in the logs."""
        for each in publishes:
            self.connection.write(b"".join(frames.pieces(EXCHANGE.encode(), each, self.connection.frame_max)))
            self._published += 1
        async with asyncio.timeout(60):
            while self._confirmed < self._published:
                self._changed.clear()
                await self._changed.wait()


def event_of(event: Event, at: int | None = None) -> Publish:
    """As the gateway publishes it."""
    message_id = f"{event.session}:{event.shard_id}:{event.seq}"
    if event.repeat:
        message_id += f":r{event.repeat}"
    name = event.name.encode()
    properties = frames.event_properties(
        name, event.shard_id, 16, event.seq, message_id.encode(), at or int(time.time()), False, True
    )
    if event.is_out_of_order:
        properties = frames.republished(properties)
    return Publish(name, properties, event.body)


@asynccontextmanager
async def writing(broker: Broker, names: Sequence[str] = ("A", "B", "BIG")) -> AsyncIterator[Writer]:
    """A writer, and a log that is bound to these names."""
    connection = await connect(parse(broker.uri), name="writer")
    try:
        channel = await connection.channel(1)
        await channel.call(
            spec.Exchange.Declare(0, EXCHANGE, "direct", durable=True), spec.Exchange.DeclareOk
        )
        await channel.call(
            spec.Queue.Declare(
                0, "log", durable=True,
                arguments={
                    "x-queue-type": "stream", "x-stream-max-segment-size-bytes": SEGMENT,
                    "x-max-length-bytes": KEPT,
                },
            ),
            spec.Queue.DeclareOk,
        )  # fmt: skip
        for name in names:
            await channel.call(spec.Queue.Bind(0, "log", EXCHANGE, name), spec.Queue.BindOk)
        await channel.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
        yield Writer(connection, channel)
    finally:
        await connection.close()


@asynccontextmanager
async def reading(broker: Broker) -> AsyncIterator[AmqpLogReader]:
    reader = AmqpLogReader(address=parse(broker.uri))
    running = asyncio.create_task(reader.run())
    try:
        yield reader
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def over_amqp(broker: Broker | None) -> AsyncIterator[Stage]:
    assert broker is not None
    async with writing(broker) as writer, reading(broker) as reader:

        async def write(events: Sequence[Event]) -> None:
            await writer.publish([event_of(each) for each in events])

        async def delete() -> None:
            await writer.channel.call(spec.Queue.Delete(0, "log"), spec.Queue.DeleteOk)

        yield Stage(reader, write, delete, broker.close_connections, PREFETCH)


Form = Callable[[Callable[[Stage], Awaitable[None]]], None]


@pytest.fixture(scope="module", params=["memory", *VERSIONS])
def node(request: pytest.FixtureRequest) -> Iterator[Any]:
    """None for memory; else a RabbitMQ of that version."""
    if request.param == "memory":
        yield None
        return
    with private_rabbitmq(version=request.param) as each:
        yield each


@pytest.fixture
def on(node: Any) -> Iterator[Form]:
    """Runs a test on a stage of this form."""

    def runs(broker: Broker | None) -> Form:
        form: Callable[[Broker | None], AbstractAsyncContextManager[Stage]] = (
            in_memory if broker is None else over_amqp
        )

        def given(test: Callable[[Stage], Awaitable[None]]) -> None:
            async def main() -> None:
                async with form(broker) as stage:
                    await test(stage)

            run(main())

        return given

    if node is None:
        yield runs(None)
        return
    with fresh_vhost(node) as broker:
        yield runs(broker)


@pytest.fixture
def broker_of(node: Any) -> Iterator[Broker]:
    """A virtual host of the node, for tests of the AMQP form alone."""
    if node is None:
        pytest.skip("a memory has no broker")
    with fresh_vhost(node) as broker:
        yield broker


def test_what_was_written_is_delivered_in_order_as_it_was_written(on: Form) -> None:
    async def test(stage: Stage) -> None:
        before = int(time.time())
        await stage.write(
            [
                Event("A", b'{"a":1}'),
                Event("B", b"", 0, "other~2", 7),
                Event("A", b'{"a":"\xc3\xa4"}', 3, "s", 2, 12),
                Event("A", b"null", 3, "s", 3, is_out_of_order=True),
            ]
        )
        entries = await stage.read(Offset(0), 4)
        told = [msgspec.structs.astuple(each)[:-1] for each in entries]
        assert told == [
            (0, "A", b'{"a":1}', 3, "s", 1, 0, False),
            (1, "B", b"", 0, "other~2", 7, 0, False),
            (2, "A", b'{"a":"\xc3\xa4"}', 3, "s", 2, 12, False),
            (3, "A", b"null", 3, "s", 3, 0, True),
        ]
        assert all(before <= each.timestamp <= time.time() for each in entries)

    on(test)


def test_a_pass_begins_with_what_is_written_after_it_stands_at_its_start(on: Form) -> None:
    async def test(stage: Stage) -> None:
        await stage.write([Event("A", b"before")])
        sink, _ = await stage.begin(Next())
        await stage.write([Event("A", b"after"), Event("B", b"last")])
        await sink.until(lambda told: len(told.entries) == 2)
        assert [(each.offset, each.body) for each in sink.entries] == [(1, b"after"), (2, b"last")]

    on(test)


def test_a_pass_that_begins_with_an_offset_delivers_that_very_entry_first(on: Form) -> None:
    async def test(stage: Stage) -> None:
        await stage.write([Event("A", b"%d" % number, seq=number + 1) for number in range(50)])
        for offset in (0, 1, 31, 49):
            first, *_ = await stage.read(Offset(offset), 1)
            assert (first.offset, first.body) == (offset, b"%d" % offset)

    on(test)


def test_an_offset_beyond_the_end_waits_for_that_very_entry(on: Form) -> None:
    async def test(stage: Stage) -> None:
        await stage.write([Event("A")] * 3)
        sink, _ = await stage.begin(Offset(5))
        await stage.write([Event("A", b"%d" % number) for number in (3, 4, 5, 6)])
        await sink.until(lambda told: len(told.entries) == 2)
        assert [each.body for each in sink.entries] == [b"5", b"6"]

    on(test)


def test_an_offset_that_is_gone_begins_with_the_first_entry_that_is_left(on: Form) -> None:
    async def test(stage: Stage) -> None:
        seq = 0
        # In turns: RabbitMQ 3.10 closes the connection of who reads what it is just deleting (541 INTERNAL_ERROR).
        while seq == 0 or (await stage.read(Offset(0), 1))[0].seq == 1:
            seq += 1
            await stage.write([Event("BIG", b"x" * (SEGMENT // 2), seq=seq)])
            assert seq < 1_000
        first, second = await stage.read(Offset(0), 2)
        assert 0 < first.offset < second.offset
        assert second.seq == first.seq + 1

    on(test)


def test_offsets_only_grow_where_segments_begin_and_nothing_is_missing(on: Form) -> None:
    async def test(stage: Stage) -> None:
        sink, begun = await stage.begin(Next())
        count = await stage.write_until(lambda: len(sink.entries) >= 8)
        await sink.until(lambda told: len(told.entries) == count)
        begun.close()
        offsets = [each.offset for each in sink.entries]
        assert offsets == sorted(set(offsets))
        assert [each.seq for each in sink.entries] == list(range(1, count + 1))
        # Each beginning of a segment takes an offset for itself.
        assert offsets[-1] > count - 1

    on(test)


def test_an_age_begins_with_all_that_is_as_young_as_that(on: Form) -> None:
    async def test(stage: Stage) -> None:
        await stage.write([Event("A", b"%d" % number) for number in range(10)])
        entries = await stage.read(Age(600), 10)
        assert [each.offset for each in entries] == list(range(10))

    on(test)


def test_the_newest_entry_is_among_those_that_a_pass_from_the_newest_on_begins_with(on: Form) -> None:
    async def test(stage: Stage) -> None:
        await stage.write([Event("A", b"%d" % number) for number in range(10)])
        first = (await stage.read(Newest(), 1))[0].offset
        entries = await stage.read(Newest(), 10 - first)
        assert [each.offset for each in entries] == list(range(first, 10))

    on(test)


def test_a_log_that_is_not_there_ends_the_pass_as_missing(on: Form) -> None:
    async def test(stage: Stage) -> None:
        sink = Collected()
        stage.reader.read("nowhere", Offset(0), sink)
        await sink.until(lambda told: told.ended is not None)
        assert sink.ended is not None
        assert sink.ended[0] == "missing"
        assert "nowhere" in sink.ended[1]

    on(test)


def test_the_log_is_deleted_under_its_readers(on: Form) -> None:
    async def test(stage: Stage) -> None:
        await stage.write([Event("A")])
        sink, _ = await stage.begin(Offset(0))
        await sink.until(lambda told: bool(told.entries))
        await stage.delete()
        await sink.until(lambda told: told.ended is not None)
        assert sink.ended is not None
        assert sink.ended[0] == "missing"

    on(test)


def test_a_reader_gets_a_bounded_number_of_entries_beyond_what_it_has_acknowledged(on: Form) -> None:
    async def test(stage: Stage) -> None:
        count = stage.ahead * 2 + 500
        await stage.write([Event("A", b"%d" % number) for number in range(count)])
        slow, passing = await stage.begin(Offset(0))
        await slow.until(lambda told: len(told.entries) >= stage.ahead)
        # Another reader, which acknowledges, has all of it; RabbitMQ ends a chunk that it has begun.
        quick, other = await stage.begin(Offset(0))
        while len(quick.entries) < count:
            seen = len(quick.entries)
            other.acknowledge(quick.entries[-1].offset if quick.entries else -1)
            await quick.until(lambda told, seen=seen: len(told.entries) > seen)  # type: ignore[misc]  # a lambda's default
        assert stage.ahead <= len(slow.entries) < stage.ahead + 500
        while len(slow.entries) < count:
            seen = len(slow.entries)
            passing.acknowledge(slow.entries[-1].offset)
            await slow.until(lambda told, seen=seen: len(told.entries) > seen)  # type: ignore[misc]  # as above
        assert [int(each.body) for each in slow.entries] == list(range(count))
        assert slow.entries == quick.entries

    on(test)


def test_what_is_acknowledged_up_to_the_middle_of_a_batch_makes_room_for_as_much(on: Form) -> None:
    async def test(stage: Stage) -> None:
        count = stage.ahead + stage.ahead // 2
        await stage.write([Event("A", b"%d" % number) for number in range(count)])
        sink, begun = await stage.begin(Offset(0))
        await sink.until(lambda told: len(told.entries) >= stage.ahead)
        first = sink.batches[0]
        begun.acknowledge(first + sink.batches[1] // 2)
        begun.acknowledge(stage.ahead // 2 + 200)
        await sink.until(lambda told: len(told.entries) == count)

    on(test)


def test_a_pass_that_was_closed_is_told_nothing_more(on: Form) -> None:
    async def test(stage: Stage) -> None:
        await stage.write([Event("A", b"%d" % number) for number in range(500)])
        closed, begun = await stage.begin(Offset(0))
        begun.close()
        seen = len(closed.entries)
        begun.close()
        begun.acknowledge(400)
        early = Collected()
        stage.reader.read("log", Offset(0), early).close()
        other, _ = await stage.begin(Offset(0))
        await stage.write([Event("B")])
        await other.until(lambda told: told.entries[-1:] != [] and told.entries[-1].name == "B")
        await stage.disconnect()
        await other.until(lambda told: told.ended is not None)
        assert (len(closed.entries), closed.ended) == (seen, None)
        assert (early.has_begun, early.entries, early.ended) == (False, [], None)

    on(test)


def test_several_passes_over_one_log_each_have_all_of_it(on: Form) -> None:
    async def test(stage: Stage) -> None:
        passes = [await stage.begin(Offset(each)) for each in (0, 0, 2, 4)]
        await stage.write([Event("A", b"%d" % number) for number in range(6)])
        for (sink, _), first in zip(passes, (0, 0, 2, 4), strict=True):
            await sink.until(lambda told, first=first: len(told.entries) == 6 - first)  # type: ignore[misc]  # a lambda's default
            assert [each.offset for each in sink.entries] == list(range(first, 6))

    on(test)


def test_a_lost_connection_ends_every_pass_and_new_ones_are_served_by_the_next(on: Form) -> None:
    async def test(stage: Stage) -> None:
        await stage.write([Event("A", b"1")])
        first, _ = await stage.begin(Offset(0))
        second, _ = await stage.begin(Next())
        await first.until(lambda told: bool(told.entries))
        await stage.disconnect()
        for sink in (first, second):
            await sink.until(lambda told: told.ended is not None)
            assert sink.ended is not None
            assert sink.ended[0] == "disconnected"
        # Whoever is told so may read again at once.
        again: list[Collected] = []
        while not again or again[-1].ended is not None:
            sink = Collected()
            again.append(sink)
            stage.reader.read("log", Offset(0), sink)
            await sink.until(lambda told: bool(told.entries) or told.ended is not None)
        assert again[-1].entries[0].body == b"1"

    on(test)


@pytest.mark.parametrize("size", [0, 1, 100_000, 131_064, 131_065, 5_000_000])
def test_entries_of_any_size_arrive_whole_between_their_neighbours(on: Form, size: int) -> None:
    async def test(stage: Stage) -> None:
        body = bytes(range(256)) * (size // 256 + 1)
        await stage.write(
            [Event("A", b"before"), Event("A", body[:size], seq=2), Event("A", b"after", seq=3)]
        )
        entries = await stage.read(Offset(0), 3)
        assert [each.body for each in entries] == [b"before", body[:size], b"after"]
        assert [each.seq for each in entries] == [1, 2, 3]

    on(test)


# What only a broker can do.


def test_messages_of_others_in_the_log_are_entries_of_no_shard(broker_of: Broker) -> None:
    async def main() -> None:
        async with writing(broker_of) as writer, reading(broker_of) as reader:
            own = frames.own_properties
            await writer.publish(
                [
                    Publish(b"A", b"\x00\x00", b"bare"),
                    Publish(
                        b"A", own(b"A", {"x-stream-offset": 99, "shard_id": 1}, "gap:s:1", 5, True), b"offset"
                    ),
                    Publish(b"A", own(b"A", {"shard_id": "1", "ahead": True}, "s:1:2", 6, True), b"text"),
                    Publish(b"A", own(b"A", {"shard_id": 1}, "s:2:3", 7, True), b"another shard"),
                    Publish(b"A", own(b"A", {"shard_id": -1}, "s:-1:3", 8, True), b"below"),
                    event_of(Event("A", b"usual")),
                ]
            )
            sink = Collected()
            reader.read("log", Offset(0), sink)
            await sink.until(lambda told: len(told.entries) == 6)
            told = [
                (each.offset, each.body, each.shard_id, each.session, each.seq, each.is_out_of_order)
                for each in sink.entries
            ]
            assert told == [
                (0, b"bare", -1, "", 0, False),
                (1, b"offset", 1, "", 0, False),
                (2, b"text", -1, "", 0, True),
                (3, b"another shard", 1, "", 0, False),
                (4, b"below", -1, "", 0, False),
                (5, b"usual", 3, "s", 1, False),
            ]
            assert [each.timestamp for each in sink.entries][:5] == [0, 5, 6, 7, 8]

    run(main())


def test_a_queue_that_is_no_stream_is_no_log_and_keeps_its_messages(broker_of: Broker) -> None:
    async def main() -> None:
        async with writing(broker_of, ()) as writer, reading(broker_of) as reader:
            await writer.channel.call(spec.Queue.Declare(0, "queue", durable=True), spec.Queue.DeclareOk)
            await writer.channel.call(spec.Queue.Bind(0, "queue", EXCHANGE, "A"), spec.Queue.BindOk)
            await writer.publish([event_of(Event("A"))])
            sink = Collected()
            reader.read("queue", Offset(0), sink)
            await sink.until(lambda told: told.ended is not None)
            assert sink.entries == []
            assert sink.ended is not None
            assert sink.ended[0] == "missing"
            got = spec.Queue.DeclareOk
            while True:
                found = await writer.channel.call(
                    spec.Queue.Declare(0, "queue", passive=True, durable=True), got
                )
                if found.message_count == 1:
                    break

    run(main())


def test_a_restarted_broker_is_read_from_where_the_reader_stood(broker_of: Broker) -> None:
    async def main() -> None:
        async with reading(broker_of) as reader:
            async with writing(broker_of) as writer:
                await writer.publish([event_of(Event("A", b"%d" % number)) for number in range(100)])
            sink = Collected()
            reader.read("log", Offset(0), sink)
            await sink.until(lambda told: len(told.entries) == 100)
            await broker_of.restart()
            await sink.until(lambda told: told.ended is not None)
            assert sink.ended is not None
            assert sink.ended[0] in ("disconnected", "down", "missing")
            reasons: list[EndReason] = []
            while True:
                after = Collected()
                reader.read("log", Offset(99), after)
                await after.until(lambda told: bool(told.entries) or told.ended is not None)
                if after.ended is None:
                    break
                reasons.append(after.ended[0])
            assert after.entries[0] == sink.entries[99]
            # A log that comes up with its node is not told to be missing.
            assert set(reasons) <= {"disconnected", "down"}

    run(main())


def test_a_broker_that_refuses_the_reader_is_told_as_refused(broker_of: Broker) -> None:
    async def main() -> None:
        wrong = broker_of.uri.replace("guest:guest", "guest:Tr0ubadour")
        reader = AmqpLogReader(address=parse(wrong))
        sink = Collected()
        reader.read("log", Next(), sink)
        running = asyncio.create_task(reader.run())
        await sink.until(lambda told: told.ended is not None)
        assert sink.ended is not None
        assert sink.ended[0] == "refused"
        assert "Tr0ubadour" not in sink.ended[1]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(main())


def test_the_end_of_a_reader_ends_its_passes(broker_of: Broker) -> None:
    async def main() -> None:
        async with writing(broker_of):
            async with reading(broker_of) as reader:
                sink = Collected()
                reader.read("log", Next(), sink)
                await sink.until(lambda told: told.has_begun)
            assert sink.ended is not None
            assert sink.ended[0] == "disconnected"

    run(main())
