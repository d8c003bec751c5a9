"""What the publisher writes, in which order, and what it makes of confirms."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path

import pamqp.commands as spec
import pytest
from msgspec import Raw
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.spool import Spool
from tests.transports.amqp.fake_broker import FakeBroker
from tests.transports.amqp.publishing import QUICK, begun, cluster_on, publish, seqs

from tests.aio import run


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


def test_events_of_one_wake_up_leave_in_one_write_and_settle_is_told_once_per_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, cluster_on(broker) as cluster:
            publisher = cluster.publisher
            writes: list[int] = []
            original = Connection.write

            def write(connection: Connection, data: bytes) -> None:
                writes.append(len(data))
                original(connection, data)

            monkeypatch.setattr(Connection, "write", write)
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
            assert sum(count for _, count in publisher.writings()) == 100

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
            stream = begun(cluster.publisher)
            publish(stream, range(1, 6))
            await broker.publishes(5)
            broker.ack(2, True)
            await cluster.until(lambda: stream.settled == 2)
            await broker.drop()
            await cluster.until(lambda: not cluster.publisher.connected)
            publish(stream, range(6, 9))
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
            stream = begun(cluster.publisher)
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
            broker.ack(2, True)
            await cluster.all_confirmed()
            assert stream.settled == 4

    run(scenario())


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
            stream = begun(cluster.publisher)
            broker.method(spec.Connection.Blocked("low on disk"), 0)
            await broker.until(lambda: broker.heartbeats >= 2)
            assert cluster.publisher.blocked
            publish(stream, range(1, 101))
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
            stream = begun(cluster.publisher)
            for seq, name in enumerate(("A", "STUCK", "B", "C"), 1):
                stream.publish(name, b"{}", seq, False)
            await broker.publishes(4)
            for tag in (1, 3, 4):
                broker.ack(tag)
            await cluster.until(lambda: stream.settled == 1)
            await cluster.until(lambda: "has not confirmed" in caplog.text)
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
            stream = begun(cluster.publisher)
            publish(stream, (1, 2, 3))
            first = (await broker.publishes(3))[0]
            assert [each.mandatory for each in broker.received] == [True, False, False]
            broker.give_back(first)
            broker.ack(3, True)
            await cluster.until(lambda: cluster.publisher.unrouted == {"X"})
            assert cluster.publisher.returned == 1
            seq = 3
            while not broker.received[-1].mandatory:
                seq += 1
                stream.publish("X", b"{}", seq, False)
                await broker.publishes(seq)
                await asyncio.sleep(0.02)
            broker.ack(0, True)
            await cluster.until(lambda: not cluster.publisher.unrouted)
            assert cluster.publisher.routed == {"X"}

    run(scenario())


def test_one_event_of_a_name_asks_in_each_round_whichever_shard_it_comes_from() -> None:
    async def scenario() -> None:
        limits = replace(QUICK, mandatory_every=0.3)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, limits) as cluster:
            streams = [cluster.publisher.stream(shard, 3) for shard in range(3)]
            for stream in streams:
                stream.begin("s")
                stream.publish("X", b"{}", 1, False)
            await broker.publishes(3)
            assert [each.mandatory for each in broker.received] == [True, False, False]
            seq = 1
            while sum(each.mandatory for each in broker.received) < 3:
                seq += 1
                for stream in reversed(streams):
                    stream.publish("X", b"{}", seq, False)
                await broker.publishes(3 * seq)
                await asyncio.sleep(0.02)
            # The round's question is the first shard's that has an event, and all events are told apart as ever.
            assert [each.headers["shard_id"] for each in broker.received if each.mandatory] == [0, 2, 2]
            assert [each.seq for each in broker.received] == [n for n in range(1, seq + 1) for _ in range(3)]
            broker.ack(0, True)
            await cluster.until(lambda: all(stream.settled == seq for stream in streams))

    run(scenario())


def test_a_name_that_came_back_is_asked_about_more_often_until_a_queue_takes_it() -> None:
    async def scenario() -> None:
        limits = replace(QUICK, accused_every=0.3)  # and a minute for the others
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, limits) as cluster:
            stream = begun(cluster.publisher)
            stream.publish("A", b"{}", 1, False)
            stream.publish("B", b"{}", 2, False)
            broker.give_back((await broker.publishes(2))[0])
            broker.ack(2, True)
            await cluster.until(lambda: cluster.publisher.unrouted == {"A"})
            seq = 2
            while sum(each.mandatory for each in broker.received) < 3:
                seq += 2
                stream.publish("B", b"{}", seq - 1, False)
                stream.publish("A", b"{}", seq, False)
                await broker.publishes(seq)
                await asyncio.sleep(0.02)
            assert [each.key for each in broker.received if each.mandatory] == ["A", "B", "A"]
            broker.ack(0, True)
            await cluster.until(lambda: not cluster.publisher.unrouted)

    run(scenario())


def test_an_accusation_ends_some_time_after_the_last_return_though_no_event_of_the_name_comes() -> None:
    async def scenario() -> None:
        limits = replace(QUICK, accusation_lasts=0.3)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, limits) as cluster:
            stream = begun(cluster.publisher)
            stream.publish("A", b"{}", 1, False)
            broker.give_back((await broker.publishes(1))[0])
            broker.ack(1, True)
            await cluster.until(lambda: cluster.publisher.unrouted == {"A"})
            await cluster.until(lambda: not cluster.publisher.unrouted)
            assert not cluster.publisher.routed, "nothing is known of it"

    run(scenario())


def test_a_name_too_long_for_a_routing_key_is_reported_and_counts_as_settled() -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker, cluster_on(broker) as cluster:
            stream = begun(cluster.publisher)
            stream.publish("N" * 255, b"{}", 1, False)
            stream.publish("N" * 256, b"{}", 2, False)
            await cluster.all_confirmed()
            assert stream.settled == 2
            assert [each.key for each in broker.received] == ["N" * 255, "RATEWAY_UNREADABLE"]

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


def test_an_own_message_that_cannot_be_published_is_an_error_and_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        spool = Spool.open(tmp_path, 1 << 20)
        async with FakeBroker() as broker, cluster_on(broker, spool=spool) as cluster:
            stream = begun(cluster.publisher)
            await broker.stop_listening()
            await cluster.until(lambda: not cluster.publisher.connected)
            publish(stream, [1])
            with pytest.raises(ValueError, match="255"):
                cluster.publisher.publish_own("RATEWAY_GAP", b"{}", "g" * 256)
            publish(stream, [2])
            cluster.publisher.spool_now()
            assert (spool.events, stream.settled) == (2, 2)
            await broker.listen()
            await cluster.all_confirmed()
            await cluster.until(lambda: spool.events == 0)
            assert seqs(broker.received) == [1, 2]

    run(scenario())


def test_the_bytes_of_a_few_large_events_pause_as_well() -> None:
    async def scenario() -> None:
        limits = replace(QUICK, bytes=1_000_000)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, limits) as cluster:
            stream = begun(cluster.publisher)
            stream.publish("X", b"x" * 1_100_000, 1, False)
            await broker.publishes(1)
            assert cluster.publisher.paused and cluster.publisher.unconfirmed_bytes > 1_100_000

    run(scenario())


def test_a_broker_that_reads_slowly_is_not_fed_into_the_sockets_memory() -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker, cluster_on(broker) as cluster:
            publisher = cluster.publisher
            stream = begun(publisher)
            broker.asleep = True
            seq = 0
            for _ in range(400):
                for _ in range(10):
                    seq += 1
                    stream.publish("X", b"x" * 10_000, seq, False)
                await asyncio.sleep(0)
            publisher.flush()
            # 40 MB were published; what the kernel does not take waits with us, where it is counted.
            assert publisher.unconfirmed == seq and publisher.bytes_out < 20_000_000
            broker.wake()
            await cluster.all_confirmed()
            assert seqs(broker.received) == list(range(1, seq + 1)) and stream.settled == seq

    run(scenario())


def test_a_broker_that_takes_smaller_frames_after_a_reconnect_gets_smaller_frames() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, cluster_on(broker) as cluster:
            stream = begun(cluster.publisher)
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
        async with FakeBroker() as broker, cluster_on(broker) as cluster:
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
