"""The election over RabbitMQ when others meddle with its queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aio_pika
import msgspec
import pytest
from pamqp import commands as spec
from pamqp.base import Frame
from rateway.fleet.port import has_right
from rateway.transports.amqp import fleet_queues
from rateway.transports.amqp.fleet_queues import FleetQueues, queue_of
from rateway.transports.amqp.wire.uri import parse
from rateway.transports.boot_clock import boottime
from tests.transports.amqp.fake_broker import FakeBroker

from tests.aio import run
from tests.rabbitmq import Broker

SUBJECT = "cluster-1"
QUEUE = queue_of("test", SUBJECT)
STRANGE = [
    msgspec.msgpack.encode({"epoch": 9, "number": 1, "owner": "two"} | wrong)
    for wrong in (
        {"epoch": -1},
        {"epoch": 1 << 63},
        {"number": -1},
        {"owner": "a line\nand another"},
        {"owner": "x" * 101},
    )
] + [b"\x83\xa5epoch\x01\xa6number\x01\xa5owner\xa2\xff\xfe"]


@asynccontextmanager
async def member(broker: Broker | FakeBroker, name: str) -> AsyncIterator[FleetQueues]:
    found = FleetQueues(address=parse(broker.uri), fleet="test", member=name)
    running = asyncio.ensure_future(found.run())
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.wait([running])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - counters and log lines set no event
        await asyncio.sleep(0.02)


def test_an_owner_survives_messages_that_are_no_records_and_the_end_of_its_queue(broker: Broker) -> None:
    async def scene() -> None:
        async with member(broker, "one") as one, await aio_pika.connect(broker.uri) as connection:
            owned = await one.campaign(SUBJECT, lambda why: pytest.fail(why))
            channel = await connection.channel()
            for body in (b"", b"\xc1 no msgpack", b"\x93\x01\x02\x03", b"\x81\xa5epoch\xa3one", *STRANGE):
                await channel.default_exchange.publish(aio_pika.Message(body), QUEUE)
            await until(lambda: one.unreadable == 4 + len(STRANGE))
            assert await one.write(SUBJECT, owned.epoch, b"before") == "confirmed"
            await channel.queue_delete(QUEUE)
            deleted = boottime()
            await until(lambda: (one.confirmed_at(SUBJECT) or 0.0) > deleted)
            # What it had written last is in the new queue.
            async with member(broker, "two") as two:
                waiting = asyncio.ensure_future(two.campaign(SUBJECT, lambda why: pytest.fail(why)))
                assert await one.release(SUBJECT, owned.epoch, b"after")
                heir = await waiting
                assert heir.epoch == owned.epoch + 1
                assert heir.record is not None
                assert heir.record.body == b"after"

    run(scene())


def test_a_queue_with_other_arguments_holds_up_its_subject_alone_and_the_log_says_what_to_do(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with await aio_pika.connect(broker.uri) as connection, member(broker, "one") as one:
            channel = await connection.channel()
            queue = await channel.declare_queue(QUEUE, durable=True)
            held_up = asyncio.ensure_future(one.campaign(SUBJECT, lambda why: pytest.fail(why)))
            owned = await one.campaign("governor", lambda why: pytest.fail(why))
            await until(lambda: f"delete {QUEUE}" in caplog.text)
            assert await one.write("governor", owned.epoch, b"goes on") == "confirmed"
            assert has_right(one.confirmed_at("governor"), boottime())
            await queue.delete()
            assert (await held_up).epoch == 1

    run(scene())


class Mute(FakeBroker):
    """Does not answer some methods on its first connection, as a channel whose queue lost its leader meanwhile."""

    mute: tuple[type[Frame], ...] = ()

    def _answer(self, method: Frame) -> None:
        if self.connections == 1 and isinstance(method, self.mute):
            return
        match method:
            case spec.Queue.Declare():
                self.method(spec.Queue.DeclareOk(method.queue, 1, 1), self.answering)
            case spec.Basic.Consume():
                self.method(spec.Basic.ConsumeOk("tag"), self.answering)
            case _:
                super()._answer(method)


@pytest.mark.parametrize("unanswered", [spec.Queue.Declare, spec.Basic.Consume])
def test_a_channel_that_is_not_answered_when_it_opens_ends_its_connection(
    unanswered: type[Frame], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fleet_queues, "_ANSWER_S", 0.3)

    async def scene() -> None:
        mute = Mute()
        async with mute:
            mute.mute = (unanswered,)
            async with member(mute, "one") as one:
                campaign = asyncio.ensure_future(one.campaign(SUBJECT, lambda why: None))
                await mute.until(
                    lambda: (
                        mute.connections == 2
                        and sum(isinstance(each, spec.Basic.Consume) for each in mute.methods) >= 1
                        and isinstance(mute.methods[-1], spec.Basic.Consume)
                    )
                )
                campaign.cancel()

    run(scene())
    assert f"nothing was answered about {QUEUE}" in caplog.text


def test_a_channel_that_is_not_answered_when_it_closes_ends_its_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fleet_queues, "_ANSWER_S", 0.3)

    async def scene() -> None:
        mute = Mute()
        async with mute:
            mute.mute = (spec.Channel.Close,)
            async with member(mute, "one") as one:
                campaign = asyncio.ensure_future(one.campaign(SUBJECT, lambda why: None))
                await mute.until(lambda: any(isinstance(each, spec.Basic.Consume) for each in mute.methods))
                campaign.cancel()
                await mute.until(lambda: mute.connections == 2)

    run(scene())
    assert f"nothing was answered about {QUEUE}" in caplog.text
