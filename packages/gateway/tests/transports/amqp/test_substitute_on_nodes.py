"""A cluster of three nodes loses the one that has the inbound queue, and gets it back: what is asked meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import aio_pika
import aiormq
import pytest
from tests.transports.amqp.test_inbound_queue import QUEUE, SUBSTITUTE, Owner

from tests.aio import run
from tests.rabbitmq import VERSIONS
from tests.rabbitmq_cluster import RabbitCluster, rabbitmq_cluster

HOME, ELSEWHERE = 0, (1, 2)
EVERY_S = 0.02
LOOK_S = 0.1
SAME = b"the same each time"


@pytest.fixture(scope="module", params=VERSIONS)
def nodes(request: pytest.FixtureRequest) -> Iterator[RabbitCluster]:
    partitions = {"cluster_partition_handling": "pause_minority"}
    with rabbitmq_cluster(request.param, net_ticktime=10, **partitions) as started:
        yield started


@pytest.fixture
def cluster(nodes: RabbitCluster) -> RabbitCluster:
    nodes.begin()
    return nodes


class Worker:
    """Sends commands through a node that stays: one with a number, and one that is always the same."""

    def __init__(self, cluster: RabbitCluster) -> None:
        self._cluster = cluster
        self._numbers = itertools.count(1)
        self.sent: list[bytes] = []

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[Worker]:
        async with self._cluster.connected(*ELSEWHERE) as connection:
            channel = await connection.channel(publisher_confirms=False)
            exchange = await channel.get_exchange("rateway-1", ensure=False)
            task = asyncio.create_task(self._send(exchange))
            try:
                yield self
            finally:
                task.cancel()
                await asyncio.wait([task])

    async def _send(self, exchange: aio_pika.abc.AbstractExchange) -> None:
        while True:
            for body in (b"%d" % next(self._numbers), SAME):
                message = aio_pika.Message(body, delivery_mode=2, expiration=60)
                await exchange.publish(message, "gateway")
                self.sent.append(body)
            await asyncio.sleep(EVERY_S)


async def is_gone(cluster: RabbitCluster, queue: str) -> bool:
    async with cluster.connected(*ELSEWHERE) as connection:
        channel = await connection.channel()
        try:
            await channel.get_queue(queue)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return True
        return False


async def home_at(cluster: RabbitCluster, number: int) -> None:
    """Declare the inbound queue on that node."""
    async with cluster.connected(number) as connection:
        channel = await connection.channel()
        await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "classic"})


async def taken_since(owner: Owner, worker: Worker, since: int) -> None:
    """Wait until something is taken that was sent from then on."""
    while {message.body for message in owner.taken}.isdisjoint(set(worker.sent[since:]) - {SAME}):
        owner.changed.clear()
        await owner.changed.wait()


async def scenario(
    cluster: RabbitCluster, strike: Callable[[], Awaitable[None]], mend: Callable[[], Awaitable[None]]
) -> None:
    await home_at(cluster, HOME)
    owner = Owner(cluster.uri(), home="fleet", in_fleet=True)
    worker = Worker(cluster)
    async with owner.running():
        await owner.until("owned")
        async with worker.sending():
            await taken_since(owner, worker, len(worker.sent))
            struck = time.monotonic()
            await strike()
            # What no queue is bound for is lost, so nothing of that time is counted.
            while f"requests come through {SUBSTITUTE}" not in owner.said[-1][1]:
                owner.changed.clear()
                await owner.changed.wait()
            taken_before = {message.body for message in owner.taken}
            await taken_since(owner, worker, len(worker.sent))
            print(f"\nrequests are answered {time.monotonic() - struck:.1f} s after the strike")
            served, before = len(worker.sent), Counter(message.body for message in owner.taken)
            await mend()
            await owner.until("owned")
            returned = time.monotonic()
            while not await is_gone(cluster, SUBSTITUTE):  # noqa: ASYNC110  # no event tells of it
                await asyncio.sleep(LOOK_S)
            print(f"the substitute was deleted {time.monotonic() - returned:.1f} s after the return")
            await taken_since(owner, worker, len(worker.sent))
        await taken_since(owner, worker, len(worker.sent) - 2)
    # What was taken before, and its acknowledgement lost with the node, comes again as from any queue.
    again = [message for message in owner.taken if message.redelivered and message.body in taken_before]
    taken = Counter(message.body for message in owner.taken) - Counter(message.body for message in again)
    assert [body for body, times in taken.items() if times > 1 and body != SAME] == []
    sent = Counter(worker.sent[served:])
    assert [body for body in sent if body != SAME and taken[body] != 1] == []
    # Of equal ones as many are answered as were sent: what was sent before the substitute stood in may have been kept
    # by the inbound queue, or lost, and the newest may be under way.
    assert sent[SAME] - 1 <= taken[SAME] - before[SAME] <= worker.sent.count(SAME) - before[SAME]


@pytest.mark.checklist("K37")
def test_requests_are_answered_while_the_node_of_the_inbound_queue_is_dead_and_once_when_it_is_back(
    cluster: RabbitCluster,
) -> None:
    async def mend() -> None:
        await cluster.start(HOME)

    run(scenario(cluster, lambda: cluster.kill(HOME), mend), timeout=200)


def test_requests_are_answered_while_the_node_of_the_inbound_queue_is_parted_from_the_others(
    cluster: RabbitCluster,
) -> None:
    run(scenario(cluster, lambda: cluster.part(HOME), lambda: cluster.join(HOME)), timeout=200)


@pytest.mark.world
def test_requests_are_answered_once_the_silent_node_of_the_inbound_queue_is_given_up(
    cluster: RabbitCluster,
) -> None:
    async def freeze() -> None:
        cluster.freeze(HOME)

    async def thaw() -> None:
        cluster.thaw(HOME)

    run(scenario(cluster, freeze, thaw), timeout=240)
