"""The event log at RabbitMQ: whatever reaches a queue is in it, and where that cannot be, it is said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import aio_pika
import pytest
from rateway.delivery.limits import DeliveryLimits
from rateway.delivery.port import Clock
from rateway.transports.amqp.events.publisher import EventPublisher
from rateway.transports.amqp.log.log_keeper import LogKeeper
from rateway.transports.amqp.settings import EventLogSettings
from rateway.transports.amqp.wire.uri import parse
from rateway.transports.event_log_record import EventLogRecord, EventLogRecords
from rateway.transports.spool import Spool
from rateway.transports.state import StateDir
from rateway_protocol.contract import messages
from tests.transports.amqp.fake_broker import FakeBroker
from tests.transports.amqp.publishing import Listener, begun, publish
from tests.transports.amqp.test_rabbitmq import publish_some, until

from tests.aio import run
from tests.event_log import read_log
from tests.rabbitmq import VERSIONS, Broker, fresh_vhost, private_rabbitmq

ON = EventLogSettings(form="stream", age=900.0, bytes=64 << 20)
OFF = EventLogSettings(form="off", age=900.0, bytes=64 << 20)


class Hurried:
    """A clock on which a minute passes in two seconds."""

    def monotonic(self) -> float:
        return time.monotonic() * 30

    def time(self) -> float:
        return time.time()


@dataclass
class Gateway:
    """A publisher with its event log, and the record that outlives it."""

    uri: str
    settings: EventLogSettings = ON
    clock: Clock = time
    record: EventLogRecord = field(default_factory=EventLogRecord)

    def keeper(self) -> LogKeeper:
        def write(record: EventLogRecord) -> None:
            self.record = record

        return LogKeeper(
            exchange="rateway-1", cluster=1, settings=self.settings, record=self.record, write=write, clock=self.clock
        )  # fmt: skip

    @asynccontextmanager
    async def running(
        self, spool: Spool | None = None, *, owner: bool = True
    ) -> AsyncIterator[tuple[EventPublisher, LogKeeper]]:
        keeper = self.keeper()
        publisher = EventPublisher(
            address=parse(self.uri),
            exchange="rateway-1",
            cluster=1,
            limits=DeliveryLimits(refused_delay=0.05, refused_delay_most=0.2),
            persistent=True,
            spool=spool,
            clock=time,
            observer=Listener(),
            event_log=keeper,
        )
        if owner:
            publisher.begin_log()
        task = asyncio.get_running_loop().create_task(publisher.run())
        try:
            await until(lambda: publisher.connected or keeper.state == "waiting")
            yield publisher, keeper
        finally:
            publisher.stop()
            await task

    @property
    def log(self) -> str:
        assert self.record.log is not None
        return self.record.log

    async def ids(self) -> list[str]:
        """The message ids in the log."""
        receipts = (await read_log(self.uri, self.log)).receipts
        return [
            f"{session}:{receipt.shard}:{seq}"
            for session, receipt in receipts.sessions.items()
            for seq, times in enumerate(receipt.times)
            if times
        ]


async def streams(broker: Broker) -> list[str]:
    """The event logs that are at the broker."""
    found = await broker.api("GET", f"queues/{quote(broker.vhost, safe='')}")
    return sorted(each["name"] for each in found if each["name"].startswith("rateway-log-"))


async def exchange_without_a_queue(uri: str) -> None:
    """Delete the exchange and declare it again, as an operator and a worker do one after the other."""
    async with await aio_pika.connect(uri) as connection:
        channel = await connection.channel()
        await channel.exchange_delete("rateway-1")
        await channel.declare_exchange("rateway-1", "direct", durable=True)


def test_every_event_is_in_the_log_and_what_no_proxy_needs_is_not(broker: Broker) -> None:
    async def scenario() -> None:
        gateway = Gateway(broker.uri)
        async with gateway.running() as (publisher, keeper):
            stream = begun(publisher)
            publish_some(stream, 1, 300)
            publisher.publish_own("RATEWAY_SHARD_STATUS", b"{}")
            publisher.publish_own("MESSAGE_DELETE.before", b"{}")
            publisher.publish_own(messages.Gap.key, b"{}", "gap:s:0")
            stream.publish("MESSAGE_DELETE", b"{}", 301, False)
            assert await publisher.drain(60) == 0
            assert keeper.state == "kept" and keeper.begun == 1
            log = await read_log(broker.uri, gateway.log)
            names = [line.name for line in log.lines]
            assert names == [*["MESSAGE_CREATE"] * 300, "RATEWAY_GAP", "MESSAGE_DELETE"]
            assert await gateway.ids() == [f"s:0:{seq}" for seq in range(1, 302)]

    run(scenario())


def test_the_first_event_of_a_name_that_was_never_seen_is_in_the_log(broker: Broker) -> None:
    async def scenario() -> None:
        gateway = Gateway(broker.uri)
        async with gateway.running() as (publisher, _):
            stream = begun(publisher)
            for seq in range(1, 200):
                stream.publish(f"DISCORD_INVENTED_{seq // 3}", b"{}", seq, False)
                publisher.flush()
            assert await publisher.drain(60) == 0
            assert await gateway.ids() == [f"s:0:{seq}" for seq in range(1, 200)]

    run(scenario())


def test_what_a_former_process_left_in_the_spool_is_in_the_log(broker: Broker, tmp_path: Path) -> None:
    async def scenario() -> None:
        former = EventPublisher(
            address=parse("amqp://guest:guest@127.0.0.1:1/"),
            exchange="rateway-1",
            cluster=1,
            limits=DeliveryLimits(),
            persistent=True,
            spool=Spool.open(tmp_path, 1 << 20),
            clock=time,
            observer=Listener(),
        )
        publish(begun(former), range(1, 50))
        former.spool_now()
        assert former.spool is not None
        former.spool.close()
        gateway = Gateway(broker.uri)
        # Nothing says yet that this gateway owns the cluster: what is in the spool goes out all the same.
        async with gateway.running(Spool.open(tmp_path, 1 << 20), owner=False) as (publisher, _):
            assert await publisher.drain(60) == 0
            await until(lambda: publisher.unconfirmed == 0)
            assert await gateway.ids() == [f"s:0:{seq}" for seq in range(1, 50)]

    run(scenario())


def test_a_gateway_that_waits_for_another_one_begins_no_log(broker: Broker) -> None:
    async def scenario() -> None:
        gateway = Gateway(broker.uri)
        async with gateway.running(owner=False) as (publisher, keeper):
            assert (keeper.state, await streams(broker)) == ("idle", [])
            # The other one has left.
            publisher.begin_log()
            publish_some(begun(publisher), 1, 100)
            assert await publisher.drain(60) == 0
            assert await gateway.ids() == [f"s:0:{seq}" for seq in range(1, 101)]

    run(scenario())


def test_the_next_process_goes_on_with_the_same_log(broker: Broker) -> None:
    async def scenario() -> None:
        gateway = Gateway(broker.uri)
        async with gateway.running() as (publisher, _):
            publish_some(begun(publisher), 1, 100)
            assert await publisher.drain(60) == 0
        first = gateway.log
        async with gateway.running() as (publisher, keeper):
            stream = publisher.stream(0, 1)
            stream.restore("s", 100)
            publish_some(stream, 101, 200)
            assert await publisher.drain(60) == 0
            assert (gateway.log, keeper.begun) == (first, 0)
            assert await gateway.ids() == [f"s:0:{seq}" for seq in range(1, 201)]

    run(scenario())


def test_a_log_that_was_deleted_is_followed_by_one_of_another_name(broker: Broker) -> None:
    async def scenario() -> None:
        gateway = Gateway(broker.uri)
        async with gateway.running() as (publisher, keeper):
            stream = begun(publisher)
            publish_some(stream, 1, 100)
            assert await publisher.drain(60) == 0
            first = gateway.log
            await broker.api("DELETE", f"queues/{quote(broker.vhost, safe='')}/{first}")
            await until(lambda: keeper.begun >= 2 and keeper.state == "kept" and publisher.connected)
            publish_some(stream, 101, 200)
            assert await publisher.drain(60) == 0
            assert gateway.log != first and await streams(broker) == [gateway.log]
            assert await gateway.ids() == [f"s:0:{seq}" for seq in range(101, 201)]

    run(scenario())


def test_a_new_name_finds_out_at_once_that_the_log_was_deleted_and_loses_nothing(broker: Broker) -> None:
    async def scenario() -> None:
        gateway = Gateway(broker.uri)
        async with gateway.running() as (publisher, _):
            stream = begun(publisher)
            first = gateway.log
            await broker.api("DELETE", f"queues/{quote(broker.vhost, safe='')}/{first}")
            stream.publish("DISCORD_INVENTED", b"{}", 1, False)
            publish_some(stream, 2, 100)
            assert await publisher.drain(60) == 0
            assert gateway.log != first
            assert await gateway.ids() == [f"s:0:{seq}" for seq in range(1, 101)]

    run(scenario())


def test_an_exchange_that_was_deleted_and_declared_again_is_bound_again(broker: Broker) -> None:
    async def scenario() -> None:
        gateway = Gateway(broker.uri)
        async with gateway.running() as (publisher, keeper):
            stream = begun(publisher)
            publish_some(stream, 1, 100)
            assert await publisher.drain(60) == 0
            await exchange_without_a_queue(broker.uri)
            # The first event of a name asks whether anything is bound to it.
            stream.publish("TYPING_START", b"{}", 101, False)
            await until(lambda: not publisher.connected)
            await until(lambda: publisher.connected)
            publish_some(stream, 102, 200)
            assert await publisher.drain(60) == 0
            assert set(await gateway.ids()) >= {f"s:0:{seq}" for seq in (*range(1, 101), *range(102, 201))}
            assert keeper.begun == 1

    run(scenario())


def test_changed_bounds_begin_another_log_and_the_former_one_is_deleted(broker: Broker) -> None:
    async def scenario() -> None:
        gateway = Gateway(broker.uri)
        async with gateway.running():
            first = gateway.log
        gateway.settings = EventLogSettings(form="stream", age=300.0, bytes=64 << 20)
        async with gateway.running():
            await until(lambda: not gateway.record.unwanted)
            assert gateway.log != first and await streams(broker) == [gateway.log]
            arguments = (await broker.queue(gateway.log))["arguments"]
            assert (arguments["x-max-age"], arguments["x-max-length-bytes"]) == ("300s", 64 << 20)
            assert arguments["x-stream-max-segment-size-bytes"] == 4 << 20

    run(scenario())


def test_without_the_setting_the_log_of_a_former_process_is_deleted_and_none_begun(broker: Broker) -> None:
    async def scenario() -> None:
        gateway = Gateway(broker.uri)
        async with gateway.running():
            assert await streams(broker) == [gateway.log]
        gateway.settings = OFF
        async with gateway.running() as (publisher, _):
            publish_some(begun(publisher), 1, 100)
            assert await publisher.drain(60) == 0
            await until(lambda: not gateway.record.streams)
            assert await streams(broker) == []
        assert not gateway.keeper().has_streams

    run(scenario())


@pytest.mark.parametrize("version", VERSIONS)
def test_events_wait_for_a_log_that_is_down_and_go_into_another_when_it_stays_so(version: str) -> None:
    async def scenario(broker: Broker) -> None:
        gateway = Gateway(broker.uri, clock=Hurried())
        async with gateway.running() as (publisher, keeper):
            stream = begun(publisher)
            first = gateway.log
            # RabbitMQ does not bring a stream back whose node is killed right after its declaration.
            await broker.kill()
            publish_some(stream, 1, 500)
            await broker.start()
            await until(lambda: keeper.state == "waiting")
            assert not publisher.connected and "down" in keeper.why
            await until(lambda: publisher.connected)
            assert await publisher.drain(60) == 0
            assert keeper.state == "kept" and gateway.log != first and keeper.begun == 2
            assert first in gateway.record.unwanted
            assert await gateway.ids() == [f"s:0:{seq}" for seq in range(1, 501)]

    with private_rabbitmq(version=version) as node, fresh_vhost(node) as broker:
        run(scenario(broker))


def test_a_broker_that_refuses_the_log_gets_the_events_without_it(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        await broker.api("PUT", "users/no-streams", {"password": "pw", "tags": ""})
        rights = {"configure": "^rateway-[0-9]+$", "write": ".*", "read": ".*"}
        await broker.api("PUT", f"permissions/{quote(broker.vhost, safe='')}/no-streams", rights)
        gateway = Gateway(broker.uri.replace("guest:guest@", "no-streams:pw@"))
        async with gateway.running() as (publisher, keeper):
            publish_some(begun(publisher), 1, 100)
            assert await publisher.drain(60) == 0
            assert keeper.state == "without" and "403" in keeper.why and "docs/rabbitmq.md" in keeper.why
            assert gateway.record.log is None
        assert sum("without an event log" in line for line in caplog.messages) == 1

    run(scenario())


def test_a_broker_that_is_older_than_streams_gets_the_events_and_no_declaration() -> None:
    async def scenario() -> None:
        async with FakeBroker(product=("RabbitMQ", "3.8.9")) as old:
            gateway = Gateway(old.uri)
            async with gateway.running() as (publisher, keeper):
                publish(begun(publisher), range(1, 10))
                assert await publisher.drain(60) == 0
                assert keeper.state == "without" and "3.9" in keeper.why
            assert not [each for each in old.methods if each.name.startswith("Queue.")]

    run(scenario())


def test_the_record_of_a_log_is_read_by_every_process_and_outlives_them(tmp_path: Path) -> None:
    with StateDir.open(tmp_path / "state") as state:
        records = EventLogRecords(state, 3)
        assert records.read() == EventLogRecord()
        records.write(EventLogRecord("rateway-log-3-a", 900, 1 << 30, tuple(f"old-{n}" for n in range(20))))
        with StateDir.shared(tmp_path / "state") as other:
            found = EventLogRecords(other, 3).read()
        assert found.log == "rateway-log-3-a" and found.unwanted == tuple(f"old-{n}" for n in range(4, 20))
        state.write("event-log-3.json", b"torn")
        assert records.read() == EventLogRecord()
