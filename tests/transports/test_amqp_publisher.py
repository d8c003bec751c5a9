"""The publisher against a broker that misbehaves on purpose: order, retries, limits, and what goes out instead."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pamqp.commands as spec
import pytest
from msgspec import Raw

from rateway.delivery.limits import DeliveryLimits
from rateway.transports.amqp.publisher import EventPublisher
from rateway.transports.amqp.uri import parse
from rateway.transports.spool import Spool
from tests.aio import run
from tests.transports.fake_broker import FakeBroker, Received

QUICK = DeliveryLimits(nack_delay=0.02, nack_delay_most=0.1, spool_after=0.05)


@dataclass
class Listener:
    """Hears what the publisher says; ``until`` waits for it."""

    told: list[tuple[Any, ...]] = field(default_factory=list)
    settled: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def _tell(self, *what: object) -> None:
        self.told.append(what)
        self.changed.set()

    def on_pause(self) -> None:
        self._tell("pause")

    def on_resume(self) -> None:
        self._tell("resume")

    def on_settled(self) -> None:
        self.settled += 1
        self.changed.set()

    def on_unrouted(self, name: str, routed: bool) -> None:
        self._tell("routed" if routed else "unrouted", name)

    def on_oversize(
        self, name: str, shard_id: int | None, seq: int | None, size: int, limit: int | None
    ) -> None:
        self._tell("oversize", name, shard_id, seq, size, limit)

    def on_refused(self, name: str, shard_id: int | None, seq: int | None) -> None:
        self._tell("refused", name, shard_id, seq)

    def on_state(self, up: bool, why: str) -> None:
        self._tell("up" if up else "down", why)

    def said(self, word: str) -> int:
        return sum(1 for what in self.told if what[0] == word)


@dataclass
class Cluster:
    publisher: EventPublisher
    listener: Listener
    task: asyncio.Task[None] | None = None

    async def until(self, condition: Any) -> None:
        while not condition():
            self.listener.changed.clear()
            # Not everything is told: the spool's confirms, say.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.listener.changed.wait(), 0.02)

    async def all_confirmed(self) -> None:
        assert await self.publisher.drain(20) == 0


@asynccontextmanager
async def cluster_on(
    broker: FakeBroker, limits: DeliveryLimits = QUICK, spool: Spool | None = None, wait: bool = True
) -> AsyncIterator[Cluster]:
    listener = Listener()
    publisher = EventPublisher(
        address=parse(broker.uri),
        exchange="rateway-1",
        cluster=1,
        limits=limits,
        persistent=True,
        spool=spool,
        clock=time,
        observer=listener,
    )
    cluster = Cluster(publisher, listener)
    cluster.task = asyncio.get_running_loop().create_task(publisher.run())
    if wait:
        await cluster.until(lambda: publisher.connected)
    try:
        yield cluster
    finally:
        publisher.stop()
        await cluster.task


def seqs(received: list[Received]) -> list[int]:
    return [each.seq for each in received]


@pytest.mark.checklist("H8")
@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 8176, 8177, 20_000])
def test_a_body_around_the_frame_size_arrives_whole_with_every_property(size: int) -> None:
    async def scenario() -> None:
        async with FakeBroker(frame_max=4096) as broker, cluster_on(broker) as cluster:
            stream = cluster.publisher.stream(3, 16)
            stream.begin("abc")
            body = bytes(ord("a") + index % 26 for index in range(size))
            # The first is built piece by piece, the second from what was prepared.
            for seq in (9, 10, 11):
                stream.publish("MESSAGE_CREATE", Raw(body) if seq == 11 else body, seq, False)
            stream.publish("MESSAGE_CREATE", body, 12, True)
            stream.publish("MESSAGE_CREATE", body, 13, True)
            received = await broker.publishes(5)
            for seq, publish in enumerate(received, 9):
                assert publish.body == body and publish.key == "MESSAGE_CREATE"
                properties = publish.properties
                assert properties.content_type == "application/json" and properties.delivery_mode == 2
                assert properties.message_type == "MESSAGE_CREATE" and properties.message_id == f"abc:3:{seq}"
                assert properties.timestamp is not None
                assert abs(properties.timestamp.timestamp() - time.time()) < 30
                expected = {"shard_id": 3, "shard_count": 16, "seq": seq} | (
                    {"replayed": True} if seq > 11 else {}
                )
                assert publish.headers == expected
                assert publish.frames == 2 + -(-size // 4088)
            await cluster.all_confirmed()
            assert stream.settled == 13 and cluster.publisher.unconfirmed_bytes == 0

    run(scenario())


def test_an_event_without_a_sequence_or_session_has_no_id_and_a_repeated_one_a_suffix() -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker, cluster_on(broker) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.publish("EARLY", b"{}", 1, False)
            stream.begin("s")
            stream.publish("READY", b"{}", 1, False)
            stream.publish("NEW_THING", b"{}", None, False)
            stream.publish("READY", b"[]", 1, False, 1)
            stream.publish("GUILD_CREATE", b"{}", 2, False, 0, "joined")
            received = await broker.publishes(5)
            assert [publish.properties.message_id for publish in received] == [
                None,
                "s:0:1",
                None,
                "s:0:1:r1",
                "s:0:2",
            ]
            assert ["seq" in publish.headers for publish in received] == [False, True, False, True, True]
            assert received[4].headers["cause"] == "joined"
            await cluster.all_confirmed()
            assert stream.settled == 2 and stream.received == 2

    run(scenario())


def test_sequences_keep_their_ids_over_every_number_of_digits() -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker, cluster_on(broker) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.restore("s", 7)
            assert stream.settled == 7
            numbers = [8, 9, 10, 11, 99, 100, 101, 12, 102, 999_999, 1_000_000, 1_000_001, 2**40]
            for number in numbers:
                stream.publish("TYPING_START", b"{}", number, False)
            received = await broker.publishes(len(numbers))
            assert seqs(received) == numbers
            assert [publish.properties.message_id for publish in received] == [
                f"s:0:{number}" for number in numbers
            ]
            await cluster.all_confirmed()
            assert stream.settled == 2**40

    run(scenario())


def test_events_of_one_wake_up_leave_in_one_write_and_settle_is_told_once_per_read() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, cluster_on(broker) as cluster:
            publisher = cluster.publisher
            writes: list[int] = []
            connection = publisher._connection
            assert connection is not None
            original = connection.write
            connection.write = lambda data: (writes.append(len(data)), original(data))[1]  # type: ignore[method-assign]
            streams = [publisher.stream(shard, 2) for shard in range(2)]
            for shard, stream in enumerate(streams):
                stream.begin(f"s{shard}")
            for seq in range(1, 101):
                streams[seq % 2].publish("MESSAGE_CREATE", b"{}", seq, False)
            await broker.publishes(100)
            assert writes == [publisher.bytes_out]
            broker.ack(100, True)
            await cluster.until(lambda: publisher.unconfirmed == 0)
            assert cluster.listener.settled == 1 and sum(count for _, count in publisher.latencies()) == 100

    run(scenario())


@pytest.mark.checklist("H2")
def test_confirms_in_any_order_settle_each_shard_as_far_as_it_is_whole() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, cluster_on(broker) as cluster:
            one, two = cluster.publisher.stream(0, 2), cluster.publisher.stream(1, 2)
            one.begin("a")
            two.begin("b")
            for seq in (1, 2, 3):
                one.publish("X", b"{}", seq, False)
            for seq in (1, 2):
                two.publish("X", b"{}", seq, False)
            one.skip(4)
            await broker.publishes(5)
            broker.ack(5)
            broker.ack(4)
            broker.ack(2)
            await cluster.until(lambda: two.settled == 2)
            assert one.settled == 0
            broker.ack(1)
            await cluster.until(lambda: one.settled == 2)
            broker.ack(0, True)
            await cluster.until(lambda: one.settled == 4)
            assert cluster.publisher.unconfirmed == 0

    run(scenario())


@pytest.mark.checklist("H1")
def test_after_a_broken_connection_the_unconfirmed_come_again_first_and_under_the_same_ids() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, cluster_on(broker) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            for seq in range(1, 6):
                stream.publish("X", b"{}", seq, False)
            await broker.publishes(5)
            broker.ack(2, True)
            await cluster.until(lambda: stream.settled == 2)
            await broker.drop()
            await cluster.until(lambda: not cluster.publisher.connected)
            for seq in range(6, 9):
                stream.publish("X", b"{}", seq, False)
            received = await broker.publishes(11)
            assert seqs(received[5:]) == [3, 4, 5, 6, 7, 8]
            assert [each.tag for each in received[5:]] == [1, 2, 3, 4, 5, 6]
            assert received[5].properties.message_id == received[2].properties.message_id
            assert not any("republished" in each.headers for each in received)
            broker.ack(6, True)
            await cluster.all_confirmed()
            assert stream.settled == 8 and cluster.publisher.republished == 3

    run(scenario())


def test_what_the_broker_lost_after_taking_a_later_one_is_marked() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, cluster_on(broker) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            for seq in range(1, 5):
                stream.publish("X", b'{"a":1}', seq, False)
            await broker.publishes(4)
            broker.ack(1)
            broker.ack(3)
            await cluster.until(lambda: stream.settled == 1)
            await broker.drop()
            received = await broker.publishes(6)
            assert seqs(received[4:]) == [2, 4]
            assert [each.headers.get("republished") for each in received[4:]] == [True, None]
            assert received[4].body == b'{"a":1}' and received[4].headers["shard_id"] == 0
            assert not received[4].mandatory
            broker.ack(2, True)
            await cluster.all_confirmed()
            assert stream.settled == 4

    run(scenario())


@pytest.mark.checklist("H3")
def test_a_refused_event_is_tried_again_while_what_follows_waits() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, cluster_on(broker) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            for seq in (1, 2, 3):
                stream.publish("X", b"{}", seq, False)
            await broker.publishes(3)
            broker.nack(2)
            broker.ack(3, True)
            await cluster.until(lambda: stream.settled == 1)
            for seq in (4, 5):
                stream.publish("X", b"{}", seq, False)
            await broker.publishes(4)
            began = time.monotonic()
            broker.nack(4)
            await broker.publishes(5)
            # The second try comes later than the first would have.
            assert time.monotonic() - began >= QUICK.nack_delay
            assert seqs(broker.received) == [1, 2, 3, 2, 2]
            assert stream.settled == 1
            broker.ack(5)
            await broker.publishes(6)
            broker.ack(6)
            await broker.publishes(7)
            broker.ack(7)
            await cluster.all_confirmed()
            assert seqs(broker.received) == [1, 2, 3, 2, 2, 4, 5] and stream.settled == 5
            assert [each.headers.get("republished") for each in broker.received[3:]] == [
                True,
                True,
                None,
                None,
            ]
            assert cluster.publisher.nacked == 2

    run(scenario())


@pytest.mark.checklist("H4")
def test_a_queue_that_rejects_for_long_gets_one_try_at_a_time() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, cluster_on(broker) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            for seq in range(1, 101):
                stream.publish("X", b"{}", seq, False)
            await broker.publishes(100)
            broker.nack(0, True)
            for count in range(101, 106):
                await broker.publishes(count)
                broker.nack(count)
            # Five tries cost five doubles, not five hundred.
            assert (
                seqs(broker.received[100:105]) == [1, 2, 3, 4, 5] or seqs(broker.received[100:105]) == [1] * 5
            )
            broker.confirm = True
            await broker.publishes(106)
            broker.ack(106)
            await cluster.all_confirmed()
            assert stream.settled == 100
            assert {each.properties.message_id for each in broker.received} == {
                f"s:0:{seq}" for seq in range(1, 101)
            }

    run(scenario())


def test_a_refused_event_is_given_up_after_its_patience_and_reported_in_its_place() -> None:
    async def scenario() -> None:
        limits = replace(QUICK, nack_patience=0.1)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, limits) as cluster:
            stream = cluster.publisher.stream(5, 6)
            stream.begin("s")
            stream.publish("X", b"{}", 1, False)
            stream.publish("X", b"{}", 2, False)
            tag = 2
            await broker.publishes(tag)
            broker.nack(1)
            broker.ack(2)
            while not cluster.listener.said("refused"):
                tag += 1
                await broker.publishes(tag)
                if broker.received[-1].key == "X":
                    broker.nack(tag)
            await broker.until(lambda: broker.received[-1].key == "RATEWAY_REFUSED")
            broker.confirm = True
            broker.ack(0, True)
            await cluster.all_confirmed()
            report = broker.received[-1]
            assert json.loads(report.body)["event"] == "X" and json.loads(report.body)["seq"] == 1
            assert report.properties.message_id == "refused:s:5:1"
            assert stream.settled == 2 and ("refused", "X", 5, 1) in cluster.listener.told

    run(scenario())


@pytest.mark.checklist("H5")
@pytest.mark.parametrize(
    ("code", "text"), [(404, "NOT_FOUND - no exchange"), (403, "ACCESS_REFUSED"), (406, "PRECONDITION")]
)
def test_a_closed_channel_is_opened_again_with_confirms_and_the_unconfirmed_in_order(
    code: int, text: str
) -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, cluster_on(broker) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            for seq in (1, 2, 3):
                stream.publish("X", b"{}", seq, False)
            await broker.publishes(3)
            broker.ack(1)
            broker.close_channel(code, text)
            # Until close-ok the broker ignores what we write.
            stream.publish("X", b"{}", 4, False)
            received = await broker.publishes(6)
            assert seqs(received[3:]) == [2, 3, 4] and [each.tag for each in received[3:]] == [1, 2, 3]
            kinds = [type(method).__name__ for method in broker.methods]
            tail = kinds[kinds.index("CloseOk") :]
            assert tail[:4] == ["CloseOk", "Open", "Declare", "Select"] and broker.connections == 1
            broker.ack(3, True)
            await cluster.all_confirmed()
            assert (
                stream.settled == 4
                and cluster.listener.told[-2][0] == "down"
                and text in cluster.listener.told[-2][1]
            )

    run(scenario())


@pytest.mark.checklist("H5")
def test_the_same_cause_three_times_is_said_loudly_and_retried_with_a_delay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        refusal = (406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'rateway-1' in vhost '/'")
        async with FakeBroker(refuse_declare=refusal) as broker, cluster_on(broker, wait=False) as cluster:
            await cluster.until(lambda: cluster.listener.said("down") == 3)
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            stream.publish("X", b"{}", 1, False)
            broker.refuse_declare = None
            await broker.publishes(1)
            await cluster.all_confirmed()
            assert broker.connections == 1 and cluster.listener.told[-1][0] == "up"

    with caplog.at_level("INFO"):
        run(scenario())
    loud = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(loud) == 1 and "for the 3. time in a row" in loud[0].getMessage()
    assert "must be a durable direct exchange" in loud[0].getMessage()


@pytest.mark.checklist("H7")
@pytest.mark.parametrize("size", [50_000, 3_000])
def test_an_event_above_the_brokers_limit_is_taken_out_and_reported_and_the_cluster_flows_on(
    size: int,
) -> None:
    async def scenario() -> None:
        async with FakeBroker(frame_max=4096, largest=2500) as broker, cluster_on(broker) as cluster:
            stream = cluster.publisher.stream(2, 4)
            stream.begin("s")
            large = b'{"guild_id":"77","x":"%b"}' % (b"x" * size)
            for seq, body in enumerate((b"{}", large, b"{}", large), 1):
                stream.publish("GUILD_MEMBERS_CHUNK", body, seq, False)
            await cluster.all_confirmed()
            stream.publish("GUILD_MEMBERS_CHUNK", large, 5, False)
            stream.publish("GUILD_MEMBERS_CHUNK", b"{}", 6, False)
            await cluster.all_confirmed()
            assert stream.settled == 6
            keys = [(each.key, each.headers.get("seq")) for each in broker.received]
            oversize = ("RATEWAY_OVERSIZE", None)
            name = "GUILD_MEMBERS_CHUNK"
            assert keys == [(name, 1), oversize, (name, 3), oversize, oversize, (name, 6)]
            report = json.loads(broker.received[1].body)
            assert report["event"] == name and (report["shard"], report["seq"]) == (2, 2)
            assert (report["size"], report["limit"], report["guild_id"]) == (len(large), 2500, "77")
            assert broker.received[1].properties.message_id == "oversize:s:2:2"
            assert ("oversize", name, 2, 5, len(large), 2500) in cluster.listener.told

    run(scenario())


@pytest.mark.checklist("H9")
def test_a_blocked_connection_holds_events_back_and_loses_none() -> None:
    async def scenario() -> None:
        async with FakeBroker(heartbeat=1) as broker, cluster_on(broker) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            broker.method(spec.Connection.Blocked("low on disk"), 0)
            await broker.until(lambda: broker.heartbeats >= 2)
            assert cluster.publisher.blocked
            for seq in range(1, 101):
                stream.publish("X", b"{}", seq, False)
            # Longer than the heartbeats' patience.
            await broker.until(lambda: broker.heartbeats >= 8)
            assert (
                not broker.received and cluster.publisher.unconfirmed == 100 and cluster.publisher.connected
            )
            broker.method(spec.Connection.Unblocked(), 0)
            await cluster.all_confirmed()
            assert seqs(broker.received) == list(range(1, 101)) and broker.connections == 1

    run(scenario())


@pytest.mark.checklist("H10")
def test_an_event_that_is_never_confirmed_is_reported_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        limits = replace(QUICK, stalled_after=0.1)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, limits) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            for seq, name in enumerate(("A", "STUCK", "B", "C"), 1):
                stream.publish(name, b"{}", seq, False)
            await broker.publishes(4)
            for tag in (1, 3, 4):
                broker.ack(tag)
            await cluster.until(lambda: stream.settled == 1)
            while "has not confirmed" not in caplog.text:
                await asyncio.sleep(0.02)
            oldest = cluster.publisher.oldest()
            assert oldest is not None and oldest[1] == "STUCK" and oldest[0] >= 0.1
            broker.ack(2)
            await cluster.all_confirmed()
            assert cluster.publisher.oldest() is None

    run(scenario())
    assert "has not confirmed a STUCK for" in caplog.text


def test_a_name_that_nobody_is_bound_to_is_told_and_so_is_its_return() -> None:
    async def scenario() -> None:
        limits = replace(QUICK, mandatory_every=0.3)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, limits) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            for seq in (1, 2, 3):
                stream.publish("X", b"{}", seq, False)
            first = (await broker.publishes(3))[0]
            assert [each.mandatory for each in broker.received] == [True, False, False]
            broker.give_back(first)
            broker.ack(3, True)
            await cluster.until(lambda: cluster.listener.said("unrouted") == 1)
            assert cluster.publisher.unrouted == {"X"} and cluster.publisher.returned == 1
            seq = 3
            while not broker.received[-1].mandatory:
                seq += 1
                stream.publish("X", b"{}", seq, False)
                await broker.publishes(seq)
                await asyncio.sleep(0.02)
            broker.ack(0, True)
            await cluster.until(lambda: cluster.listener.said("routed") == 1)
            assert not cluster.publisher.unrouted

    run(scenario())


def test_a_name_too_long_for_a_routing_key_is_reported_and_counts_as_settled() -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker, cluster_on(broker) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            stream.publish("N" * 255, b"{}", 1, False)
            stream.publish("N" * 256, b"{}", 2, False)
            await cluster.all_confirmed()
            assert stream.settled == 2
            assert [each.key for each in broker.received] == ["N" * 255, "RATEWAY_REFUSED"]

    run(scenario())


def test_own_messages_keep_their_place_among_the_events_and_are_told_of_their_confirm() -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker, cluster_on(broker) as cluster:
            stream = cluster.publisher.stream(0, 1)
            told: list[str] = []
            stream.begin("old")
            stream.publish("A", b"{}", 1, False)
            cluster.publisher.publish_own(
                "RATEWAY_GAP", b"{}", "gap:old:0", {"shard": 0, "why": "x"}, lambda: told.append("gap")
            )
            stream.begin("new")
            stream.publish("READY", b"{}", 1, False)
            await cluster.all_confirmed()
            assert [each.key for each in broker.received] == ["A", "RATEWAY_GAP", "READY"]
            assert broker.received[1].properties.message_id == "gap:old:0" and told == ["gap"]
            assert broker.received[1].headers == {"shard": 0, "why": "x"}
            assert stream.settled == 1

    run(scenario())


def test_without_a_spool_the_bound_pauses_reading_and_room_resumes_it() -> None:
    async def scenario() -> None:
        limits = replace(QUICK, events=100)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, limits) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            for seq in range(1, 121):
                stream.publish("X", b"{}", seq, False)
            await broker.publishes(120)
            assert cluster.listener.said("pause") == 1 and cluster.publisher.paused
            broker.ack(30, True)
            await cluster.until(lambda: stream.settled == 30)
            assert cluster.publisher.paused
            broker.ack(46, True)
            await cluster.until(lambda: cluster.listener.said("resume") == 1)
            assert not cluster.publisher.paused and cluster.publisher.unconfirmed == 74

    run(scenario())


def test_the_bytes_of_a_few_large_events_pause_as_well() -> None:
    async def scenario() -> None:
        limits = replace(QUICK, bytes=1_000_000)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, limits) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            stream.publish("X", b"x" * 1_100_000, 1, False)
            await broker.publishes(1)
            assert cluster.publisher.paused and cluster.publisher.unconfirmed_bytes > 1_100_000

    run(scenario())


def test_while_the_broker_is_away_events_go_to_the_spool_and_come_first_and_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        spool = Spool.open(tmp_path, 10_000_000)
        limits = replace(QUICK, drain_window=50)
        async with FakeBroker() as broker, cluster_on(broker, limits, spool) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            await broker.stop_listening()
            await cluster.until(lambda: not cluster.publisher.connected)
            for seq in range(1, 301):
                stream.publish("X", b"{}", seq, False)
            await cluster.until(lambda: stream.settled == 300)
            assert spool.events == 300 and cluster.publisher.unconfirmed == 300
            for seq in range(301, 401):
                stream.publish("X", b"{}", seq, False)
            await broker.listen()
            received = await broker.publishes(400)
            assert seqs(received) == list(range(1, 401))
            assert received[0].headers == {"shard_id": 0, "shard_count": 1, "seq": 1}
            await cluster.until(lambda: cluster.publisher.unconfirmed == 0)
            assert stream.settled == 400 and spool.bytes == 0

    run(scenario())


def test_what_a_former_process_left_in_the_spool_comes_before_anything_new(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker:
            spool = Spool.open(tmp_path, 10_000_000)
            async with cluster_on(broker, QUICK, spool) as cluster:
                stream = cluster.publisher.stream(0, 1)
                stream.begin("s")
                for seq in range(1, 11):
                    stream.publish("X", b'{"n":%d}' % seq, seq, False)
                await broker.publishes(10)
                broker.ack(4, True)
                await cluster.until(lambda: stream.settled >= 4)
            # The end of the process put the rest into the spool.
            assert stream.settled == 10 and spool.events == 6
            spool.close()
            broker.received.clear()
            broker.confirm = True
            again = Spool.open(tmp_path, 10_000_000)
            async with cluster_on(broker, QUICK, again, wait=False) as cluster:
                stream = cluster.publisher.stream(0, 1)
                stream.restore("s", 4)
                stream.publish("X", b"{}", 11, False)
                received = await broker.publishes(7)
                assert seqs(received) == [5, 6, 7, 8, 9, 10, 11]
                assert received[0].body == b'{"n":5}' and received[0].properties.message_id == "s:0:5"
                await cluster.until(lambda: again.events == 0 and cluster.publisher.unconfirmed == 0)

    run(scenario())


def test_at_the_bound_events_go_to_the_spool_and_a_full_spool_pauses(tmp_path: Path) -> None:
    async def scenario() -> None:
        spool = Spool.open(tmp_path, 100_000)
        limits = replace(QUICK, events=100, spool_after=60.0)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, limits, spool) as cluster:
            publisher = cluster.publisher
            stream = publisher.stream(0, 1)
            stream.begin("s")
            seq = 0
            while not publisher.paused:
                for _ in range(50):
                    seq += 1
                    stream.publish("X", b"{}", seq, False)
                await broker.publishes(seq)
            # The spool took what it had room for; the rest is in memory, in order behind it.
            assert spool.events > 400 and stream.settled == spool.events
            assert publisher.unconfirmed == seq and seqs(broker.received) == list(range(1, seq + 1))
            broker.confirm = True
            broker.ack(0, True)
            await cluster.until(lambda: not publisher.paused and publisher.unconfirmed == 0)
            assert stream.settled == seq and spool.events == 0
            assert seqs(broker.received) == list(range(1, seq + 1))

    run(scenario())


def test_an_event_never_confirmed_is_parked_in_the_spool_and_the_rest_flows(tmp_path: Path) -> None:
    async def scenario() -> None:
        spool = Spool.open(tmp_path, 1_000_000)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, QUICK, spool) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            stream.publish("STUCK", b"{}", 1, False)
            for seq in range(2, 5):
                stream.publish("X", b"{}", seq, False)
            await broker.publishes(4)
            for tag in (2, 3, 4):
                broker.ack(tag)
            await cluster.until(lambda: stream.settled == 4)
            assert spool.events == 1 and len(broker.received) == 4
            oldest = cluster.publisher.oldest()
            assert oldest is not None and oldest[1] == "STUCK"
            stream.publish("X", b"{}", 5, False)
            await broker.publishes(5)
            broker.ack(5)
            await cluster.until(lambda: stream.settled == 5)
            # It is lost with the connection: it comes again, and says so.
            await broker.drop()
            received = await broker.publishes(6)
            assert received[5].seq == 1 and received[5].headers["republished"] is True
            broker.ack(1)
            await cluster.until(lambda: spool.events == 0)

    run(scenario())


def test_refusals_during_an_outage_of_patience_wait_in_the_spool(tmp_path: Path) -> None:
    async def scenario() -> None:
        spool = Spool.open(tmp_path, 1_000_000)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, QUICK, spool) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            for seq in (1, 2, 3):
                stream.publish("X", b"{}", seq, False)
            await broker.publishes(3)
            broker.nack(1)
            broker.ack(3)
            broker.ack(2)
            stream.publish("X", b"{}", 4, False)
            count = 3
            while stream.settled < 4:
                count += 1
                await broker.publishes(count)
                broker.nack(count)
            assert spool.events == 2
            broker.confirm = True
            broker.ack(0, True)
            await cluster.until(lambda: spool.events == 0)
            assert broker.received[-1].seq == 4 and set(seqs(broker.received)) == {1, 2, 3, 4}
            assert broker.received[3].headers["republished"] is True

    run(scenario())


def test_a_broker_that_takes_smaller_frames_after_a_reconnect_gets_smaller_frames() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, cluster_on(broker) as cluster:
            stream = cluster.publisher.stream(0, 1)
            stream.begin("s")
            body = b"x" * 50_000
            stream.publish("X", body, 1, False)
            stream.publish("X", body, 2, False)
            await broker.publishes(2)
            broker.frame_max, broker.confirm = 4096, True
            await broker.drop()
            stream.publish("X", body, 3, False)
            received = await broker.publishes(5)
            assert [each.body for each in received[2:]] == [body] * 3 and received[2].frames == 2 + 13
            await cluster.all_confirmed()

    run(scenario())


def test_a_broker_that_is_away_is_said_once_and_once_more_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker:
            async with cluster_on(broker) as cluster:
                await broker.stop_listening()
                await cluster.until(lambda: cluster.listener.said("down") == 1)
                await asyncio.sleep(0.5)
                await broker.listen()
                await cluster.until(lambda: cluster.listener.said("up") == 2)

    with caplog.at_level("INFO"):
        run(scenario())
    lines = [record.getMessage() for record in caplog.records if "publish" in record.getMessage()]
    assert len(lines) == 3 and "s3cret" not in caplog.text
    assert lines[1].startswith("no connection to publish on") and lines[2].startswith(
        "publishing to rateway-1"
    )
