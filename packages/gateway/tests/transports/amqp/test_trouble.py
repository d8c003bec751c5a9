"""The publisher when the broker refuses, closes channels or is away: retries, reports, the spool."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pamqp.commands as spec
import pytest
from rateway.transports.spool import Spool
from tests.transports.amqp.fake_broker import FakeBroker
from tests.transports.amqp.publishing import QUICK, begun, cluster_on, publish, seqs

from tests.aio import run


@pytest.mark.checklist("H3")
def test_a_refused_event_is_tried_again_while_what_follows_waits() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, cluster_on(broker) as cluster:
            stream = begun(cluster.publisher)
            publish(stream, (1, 2, 3))
            await broker.publishes(3)
            broker.nack(2)
            broker.ack(3, True)
            await cluster.until(lambda: stream.settled == 1)
            publish(stream, (4, 5))
            await broker.publishes(4)
            began = time.monotonic()
            broker.nack(4)
            await broker.publishes(5)
            # The second try comes later than the first would have.
            assert time.monotonic() - began >= QUICK.refused_delay
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
            assert cluster.publisher.refusals == 2

    run(scenario())


@pytest.mark.checklist("H4")
def test_a_queue_that_rejects_for_long_gets_one_try_at_a_time() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, cluster_on(broker) as cluster:
            stream = begun(cluster.publisher)
            publish(stream, range(1, 101))
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
        limits = replace(QUICK, refused_patience=0.1)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, limits) as cluster:
            stream = cluster.publisher.stream(5, 6)
            stream.begin("s")
            publish(stream, [1, 2])
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
            stream = begun(cluster.publisher)
            publish(stream, (1, 2, 3))
            await broker.publishes(3)
            broker.ack(1)
            broker.close_channel(code, text)
            # Until close-ok the broker ignores what we write.
            publish(stream, [4])
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
            stream = begun(cluster.publisher)
            publish(stream, [1])
            broker.refuse_declare = None
            await broker.publishes(1)
            await cluster.all_confirmed()
            assert broker.connections == 1 and cluster.listener.told[-1][0] == "up"

    with caplog.at_level("INFO"):
        run(scenario())
    loud = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(loud) == 1 and "for the 3. time in a row" in loud[0].getMessage()
    assert "must be a durable direct exchange" in loud[0].getMessage()


def test_without_a_spool_the_bound_pauses_reading_and_room_resumes_it() -> None:
    async def scenario() -> None:
        limits = replace(QUICK, events=100)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, limits) as cluster:
            stream = begun(cluster.publisher)
            publish(stream, range(1, 121))
            await broker.publishes(120)
            assert cluster.listener.said("pause") == 1
            broker.ack(30, True)
            await cluster.until(lambda: stream.settled == 30)
            assert cluster.publisher.paused
            broker.ack(46, True)
            await cluster.until(lambda: cluster.listener.said("resume") == 1)
            assert cluster.publisher.unconfirmed == 74

    run(scenario())


def test_while_the_broker_is_away_events_go_to_the_spool_and_come_first_and_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        spool = Spool.open(tmp_path, 10_000_000)
        limits = replace(QUICK, drain_window=50)
        async with FakeBroker() as broker, cluster_on(broker, limits, spool) as cluster:
            stream = begun(cluster.publisher)
            await broker.stop_listening()
            await cluster.until(lambda: not cluster.publisher.connected)
            publish(stream, range(1, 301))
            await cluster.until(lambda: stream.settled == 300)
            assert spool.events == 300 and cluster.publisher.unconfirmed == 300
            publish(stream, range(301, 401))
            await broker.listen()
            received = await broker.publishes(400)
            assert seqs(received) == list(range(1, 401))
            assert received[0].headers == {"shard_id": 0, "shard_count": 1, "seq": 1}
            await cluster.until(lambda: cluster.publisher.unconfirmed == 0)
            assert stream.settled == 400 and spool.bytes == 0

    run(scenario())


def test_a_spool_goes_out_in_a_window_that_widens_the_longer_it_takes(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        spool = Spool.open(tmp_path, 10_000_000)
        limits = replace(QUICK, drain_window=50, drain_grows_after=0.1, drain_window_most=150)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, limits, spool) as cluster:
            stream = begun(cluster.publisher)
            for last in (400, 800):
                await broker.stop_listening()
                await cluster.until(lambda: not cluster.publisher.connected)
                broker.received.clear()
                publish(stream, range(last - 399, last + 1))
                await cluster.until(lambda last=last: stream.settled == last)
                await broker.listen()
                # Nothing is confirmed: as much as may be unanswered is written, and no more.
                received = await broker.publishes(150)
                assert seqs(received) == list(range(last - 399, last - 249))
                broker.confirm = True
                broker.ack(0, True)
                await broker.publishes(400)
                await cluster.until(lambda: cluster.publisher.unconfirmed == 0)
                broker.confirm = False

    run(scenario())


def test_what_a_former_process_left_in_the_spool_comes_before_anything_new(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker:
            spool = Spool.open(tmp_path, 10_000_000)
            async with cluster_on(broker, QUICK, spool) as cluster:
                stream = begun(cluster.publisher)
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
                publish(stream, [11])
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
            stream = begun(publisher)
            seq = 0
            while not publisher.paused:
                for _ in range(50):
                    seq += 1
                    stream.publish("X", b"{}", seq, False)
                await broker.publishes(seq)
            # The spool took what it had room for; the rest is in memory, in order behind it.
            assert spool.events > 400 and stream.settled == spool.events
            assert publisher.unconfirmed == seq
            assert seqs(broker.received) == list(range(1, seq + 1))
            broker.confirm = True
            broker.ack(0, True)
            await cluster.until(lambda: cluster.listener.said("resume") == 1 and publisher.unconfirmed == 0)
            assert stream.settled == seq and spool.events == 0
            assert seqs(broker.received) == list(range(1, seq + 1))

    run(scenario())


def test_an_event_never_confirmed_is_parked_in_the_spool_and_the_rest_flows(tmp_path: Path) -> None:
    async def scenario() -> None:
        spool = Spool.open(tmp_path, 1_000_000)
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, QUICK, spool) as cluster:
            stream = begun(cluster.publisher)
            stream.publish("STUCK", b"{}", 1, False)
            publish(stream, range(2, 5))
            await broker.publishes(4)
            for tag in (2, 3, 4):
                broker.ack(tag)
            await cluster.until(lambda: stream.settled == 4)
            assert spool.events == 1 and len(broker.received) == 4
            oldest = cluster.publisher.oldest()
            assert oldest is not None and oldest[1] == "STUCK"
            publish(stream, [5])
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
            stream = begun(cluster.publisher)
            publish(stream, (1, 2, 3))
            await broker.publishes(3)
            broker.nack(1)
            broker.ack(3)
            broker.ack(2)
            publish(stream, [4])
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


@pytest.mark.checklist("K39")
def test_a_broker_that_confirms_nothing_is_seen_to_hold_events_up_until_it_confirms_again() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, cluster_on(broker) as cluster:
            publisher = cluster.publisher
            assert publisher.held_up == 0 and publisher.address == f"127.0.0.1:{broker.port}"
            stream = begun(publisher)
            stream.publish("X", b"{}", 1, False)
            await broker.publishes(1)
            await cluster.until(lambda: publisher.held_up > 0.3)
            # Others behind it do not make it younger.
            stream.publish("Y", b"{}", 2, False)
            await broker.publishes(2)
            assert publisher.held_up > 0.3
            broker.ack(2, True)
            await cluster.until(lambda: publisher.held_up == 0)
            broker.method(spec.Connection.Blocked("low on memory"), 0)
            await cluster.until(lambda: publisher.blocked)
            stream.publish("X", b"{}", 3, False)
            assert publisher.held_up == 0

    run(scenario())
