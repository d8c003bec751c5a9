"""What a publisher holds back, leaves behind when its cluster is another gateway's, and publishes late."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rateway.delivery.message import Publish
from rateway.transports.amqp.wire import frames
from rateway.transports.spool import Spool
from tests.transports.amqp.fake_broker import FakeBroker
from tests.transports.amqp.publishing import begun, cluster_on, publish, seqs

from tests.aio import run


def seqs_left(left: list[Publish]) -> list[int | None]:
    return [frames.event_of(each.properties)[1] for each in left]


def test_held_events_wait_though_the_broker_takes_them_and_go_out_in_order() -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker, cluster_on(broker) as cluster:
            stream = begun(cluster.publisher)
            publish(stream, [1, 2])
            await broker.publishes(2)
            cluster.publisher.hold(True)
            for seq in (3, 4):
                publish(stream, [seq])
                await asyncio.sleep(0)
            # Another channel does not change it.
            await broker.drop()
            await cluster.until(lambda: not cluster.publisher.connected)
            await cluster.until(lambda: cluster.publisher.connected)
            publish(stream, [5])
            await cluster.until(lambda: not cluster.publisher.is_writing)
            assert seqs(broker.received) == [1, 2]
            cluster.publisher.hold(False)
            assert seqs(await broker.publishes(5)) == [1, 2, 3, 4, 5]
            await cluster.all_confirmed()
            assert stream.settled == 5

    run(scenario())


@pytest.mark.parametrize("spooled", [False, True])
def test_what_is_unconfirmed_is_left_behind_and_neither_published_nor_settled_by_late_confirms(
    tmp_path: Path, *, spooled: bool
) -> None:
    async def scenario() -> None:
        spool = Spool.open(tmp_path / "s", 1 << 24) if spooled else None
        async with FakeBroker(confirm=False) as broker, cluster_on(broker, spool=spool) as cluster:
            publisher = cluster.publisher
            stream = begun(publisher)
            publish(stream, [1, 2, 3])
            await broker.publishes(3)
            broker.ack(1)
            await cluster.until(lambda: publisher.confirmed == 1)
            publisher.hold(True)
            publish(stream, [4, 5])
            left = publisher.leave_behind()
            assert seqs_left(left) == ([] if spooled else [2, 3, 4, 5])
            if spool is not None:
                kept = spool.split_off(tmp_path / "left")
                assert seqs_left([each for _, each in kept.read(100, 1 << 20)]) == [2, 3, 4, 5]
                kept.close()
            assert (publisher.unconfirmed, publisher.unconfirmed_bytes, publisher.flying) == (0, 0, 0)
            publisher.hold(False)
            broker.ack(3, multiple=True)
            stream.begin("t")
            publish(stream, [1, 2])
            received = await broker.publishes(5)
            assert [each.properties.message_id for each in received[3:]] == ["t:0:1", "t:0:2"]
            assert stream.settled == 0
            broker.ack(5, multiple=True)
            await cluster.until(lambda: stream.settled == 2)
            assert publisher.unconfirmed == 0
            await broker.drop()
            await cluster.until(lambda: not publisher.connected)
            await cluster.until(lambda: publisher.connected)
            publish(stream, [3])
            assert [each.properties.message_id for each in (await broker.publishes(6))[5:]] == ["t:0:3"]
        if spool is not None:
            spool.close()

    run(scenario())


def test_what_is_published_late_is_marked_and_told_of_once_the_broker_has_all_of_it() -> None:
    async def scenario() -> None:
        async with FakeBroker(confirm=False) as broker, cluster_on(broker) as cluster:
            late = [
                Publish(
                    b"X", frames.event_properties(b"X", 0, 1, seq, b"s:0:%d" % seq, 0, False, True), b"{}"
                )
                for seq in (1, 2)
            ]
            told: list[bool] = []
            cluster.publisher.publish_again(late, lambda: told.append(True))
            received = await broker.publishes(2)
            assert [(each.properties.message_id, each.headers["republished"]) for each in received] == [
                ("s:0:1", True),
                ("s:0:2", True),
            ]
            broker.ack(1)
            await cluster.until(lambda: cluster.publisher.confirmed == 1)
            assert told == []
            broker.ack(2)
            await cluster.until(lambda: told == [True])
            # What is not confirmed when the tenure ends is left to whoever gave it.
            cluster.publisher.publish_again(late, lambda: told.append(True))
            await broker.publishes(4)
            assert cluster.publisher.leave_behind() == []
            broker.ack(4, multiple=True)
            publish(begun(cluster.publisher), [1])
            await broker.publishes(5)
            assert (told, cluster.publisher.unconfirmed) == ([True], 1)

    run(scenario())
