"""The reader of event logs against a broker that says what a test wants: torn frames, refusals, silence."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pamqp.commands as spec
import pytest
from pamqp import frame as framing
from pamqp.base import Frame
from rateway.delivery.proxy_port import Age, Next, Offset
from rateway.transports.amqp.log.event_log import PREFETCH, AmqpLogReader
from rateway.transports.amqp.wire.uri import parse
from tests.proxy.log.test_log_entries import delivery, properties
from tests.proxy.memory import Collected
from tests.transports.amqp.fake_broker import FakeBroker

from tests.aio import run

DOWN = "NOT_FOUND - home node 'rabbit@b' of durable queue 'log' in vhost '/' is down or inaccessible"


@dataclass
class LogBroker(FakeBroker):
    """Serves consumers of one log, each on its channel."""

    # (code, text) that answers basic.consume, and queue.declare.
    refuse_consume: tuple[int, str] | None = None
    refuse_look: tuple[int, str] | None = None
    silent: bool = False
    consumers: list[int] = field(default_factory=list)

    async def __aenter__(self) -> LogBroker:
        await super().__aenter__()
        return self

    def _answer(self, method: Frame) -> None:
        channel = self.answering
        match method:
            case spec.Channel.Open():
                self.method(spec.Channel.OpenOk(), channel)
            case spec.Channel.Close():
                self.method(spec.Channel.CloseOk(), channel)
            case spec.Basic.Qos():
                self.method(spec.Basic.QosOk(), channel)
            case spec.Basic.Consume() | spec.Queue.Declare() if self.silent:
                return
            case spec.Basic.Consume():
                if self.refuse_consume is not None:
                    self.method(spec.Channel.Close(*self.refuse_consume, 60, 20), channel)
                else:
                    self.consumers.append(channel)
                    self.method(spec.Basic.ConsumeOk("tag"), channel)
            case spec.Queue.Declare():
                if self.refuse_look is not None:
                    self.method(spec.Channel.Close(*self.refuse_look, 50, 10), channel)
                else:
                    self.method(spec.Queue.DeclareOk("log", 0, 0), channel)
            case _:
                super()._answer(method)

    def acks(self) -> list[int]:
        """What was acknowledged up to."""
        return [each.delivery_tag or 0 for each in self.methods if isinstance(each, spec.Basic.Ack)]

    def starts(self) -> list[object]:
        return [
            dict(each.arguments or {}).get("x-stream-offset")
            for each in self.methods
            if isinstance(each, spec.Basic.Consume)
        ]


def entry(offset: int, channel: int, body: bytes = b"{}") -> bytes:
    """A delivery; its tag is one more than the offset."""
    told = properties(offset=offset)
    return delivery(body, told, tag=offset + 1, channel=channel)


@asynccontextmanager
async def reading(broker: LogBroker, seconds: float = 30.0) -> AsyncIterator[AmqpLogReader]:
    reader = AmqpLogReader(address=parse(broker.uri), answer_seconds=seconds)
    running = asyncio.create_task(reader.run())
    try:
        yield reader
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def ended(reader: AmqpLogReader) -> tuple[str, str]:
    """Why a pass ends."""
    sink = Collected()
    reader.read("log", Offset(0), sink)
    await sink.until(lambda told: told.ended is not None)
    assert sink.ended is not None
    return sink.ended


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (404, DOWN, "down"),
        (404, "NOT_FOUND - queue 'log' in vhost '/' process is stopped by supervisor", "down"),
        (404, "NOT_FOUND - no queue 'log' in vhost '/'", "missing"),
        (403, "ACCESS_REFUSED - read access to queue 'log' in vhost '/' refused for user 'u'", "refused"),
        (406, "PRECONDITION_FAILED - delivery acknowledgement on channel 2 timed out", "disconnected"),
    ],
)
def test_what_a_broker_has_against_a_reader_is_told(code: int, text: str, reason: str) -> None:
    async def main() -> None:
        async with LogBroker() as broker, reading(broker) as reader:
            broker.refuse_consume = code, text
            assert await ended(reader) == (reason, f"{code} {text}")
            # Its connection and the next reader are none the worse for it.
            broker.refuse_consume = None
            sink = Collected()
            reader.read("log", Next(), sink)
            await sink.until(lambda told: told.has_begun)
            assert broker.connections == 1

    run(main())


@pytest.mark.parametrize(
    ("look", "reason"),
    [
        ((404, DOWN), "down"),
        ((404, "NOT_FOUND - no queue 'log' in vhost '/'"), "missing"),
        (None, "disconnected"),
    ],
)
def test_a_reader_that_the_broker_ends_is_told_what_has_become_of_the_log(
    look: tuple[int, str] | None, reason: str
) -> None:
    async def main() -> None:
        async with LogBroker() as broker, reading(broker) as reader:
            sink = Collected()
            reader.read("log", Next(), sink)
            await sink.until(lambda told: told.has_begun)
            broker.refuse_look = look
            channel = broker.consumers[0]
            broker.send(entry(0, channel) + framing.marshal(spec.Basic.Cancel("tag", True), channel))
            await sink.until(lambda told: told.ended is not None)
            assert sink.ended is not None
            assert (len(sink.entries), sink.ended[0]) == (1, reason)

    run(main())


def test_a_log_that_the_broker_says_nothing_about_is_down() -> None:
    async def main() -> None:
        async with LogBroker(silent=True) as broker, reading(broker, 0.2) as reader:
            reason, text = await ended(reader)
            assert (reason, "log" in text) == ("down", True)

    run(main())


def test_more_passes_than_the_broker_has_channels_are_refused() -> None:
    async def main() -> None:
        async with LogBroker(channel_max=3) as broker, reading(broker) as reader:
            passes = []
            for _ in range(2):
                sink = Collected()
                passes.append(reader.read("log", Next(), sink))
                await sink.until(lambda told: told.has_begun)
            reason, text = await ended(reader)
            assert (reason, "3 channels" in text) == ("refused", True)
            # A channel that is closed is free again.
            passes[0].close()
            sink = Collected()
            while not sink.has_begun:
                sink = Collected()
                reader.read("log", Next(), sink)
                await sink.until(lambda told: told.has_begun or told.ended is not None)

    run(main())


@pytest.mark.parametrize("seed", range(8))
def test_entries_arrive_whole_however_the_socket_cuts_them(seed: int) -> None:
    async def main() -> None:
        chance = random.Random(seed)
        async with LogBroker(frame_max=4_096) as broker, reading(broker) as reader:
            sinks = []
            for _ in range(2):
                sink = Collected()
                sinks.append(sink)
                reader.read("log", Offset(0), sink)
                await sink.until(lambda told: told.has_begun)
            bodies = [
                bytes([number % 251]) * chance.choice((0, 1, 300, 4_088, 4_089, 9_000))
                for number in range(60)
            ]
            streams = [
                [entry(number, channel, body) for number, body in enumerate(bodies)]
                for channel in broker.consumers
            ]
            data = b""
            while any(streams):
                stream = chance.choice([each for each in streams if each])
                count = chance.randrange(1, 5)
                data += b"".join(stream[:count])
                del stream[:count]
                if chance.random() < 0.2:
                    data += b"\x08\x00\x00\x00\x00\x00\x00\xce"
            while data:
                cut = chance.choice((1, 7, 20, 500, 5_000, 50_000))
                broker.send(data[:cut])
                data = data[cut:]
                await asyncio.sleep(0)
            for sink in sinks:
                await sink.until(lambda told: len(told.entries) == len(bodies))
                assert [each.body for each in sink.entries] == bodies
                assert [each.offset for each in sink.entries] == list(range(len(bodies)))

    run(main())


def test_a_pass_says_where_it_begins_and_acknowledges_together() -> None:
    async def main() -> None:
        async with LogBroker() as broker, reading(broker) as reader:
            sink = Collected()
            begun = reader.read("log", Offset(1 << 40), sink)
            await sink.until(lambda told: told.has_begun)
            for start in (Age(900), Next()):
                other = Collected()
                reader.read("log", start, other)
                await other.until(lambda told: told.has_begun)
            assert broker.starts() == [1 << 40, "900s", "next"]
            channel, count = broker.consumers[0], PREFETCH
            broker.send(b"".join(entry(number, channel) for number in range(count)))
            await sink.until(lambda told: len(told.entries) == count)
            for number in range(count):
                begun.acknowledge(number)
            await broker.until(lambda: broker.acks()[-1:] == [count])
            # Not one by one.
            assert len(broker.acks()) <= 8
            assert broker.acks() == sorted(broker.acks())

    run(main())
