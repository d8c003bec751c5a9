"""The node of a cluster's inbound queue is dead: a fleet goes on answering requests, and each only once."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from rateway_protocol.contract import topology

from tests.aio import run
from tests.e2e.harness import LOOK
from tests.fleet.scenes import home_of_first
from tests.fleet.stage import FleetStage, Member, fleet_stage
from tests.rabbitmq import VERSIONS
from tests.rabbitmq_cluster import RabbitCluster, rabbitmq_cluster

QUERY_EVERY_S = 0.02
# Discord takes 120 commands a minute of a shard.
QUERIES_FOR_A_COMMAND = 50
QUERY = msgspec.json.encode({"type": "Guild", "arguments": ["1"]})


class Worker:
    """Sends queries and some commands to the first cluster, and counts the answers to each."""

    def __init__(self, channel: AbstractChannel, guild_id: int) -> None:
        """*guild_id*: a guild of shard 0, whose voice state the commands change."""
        voice = {"guild_id": str(guild_id), "channel_id": None, "self_mute": False, "self_deaf": False}
        self._command = msgspec.json.encode({"op": 4, "d": voice})
        self._channel = channel
        self.sent: list[str] = []
        self.commands: set[str] = set()
        self.answers: Counter[str] = Counter()

    async def send(self) -> None:
        replies = await self._channel.declare_queue(exclusive=True)
        await replies.consume(self._answered, no_ack=True)
        exchange = await self._channel.get_exchange(topology.exchange(1), ensure=False)
        for number in itertools.count(1):
            name = str(number)
            is_command = number % QUERIES_FOR_A_COMMAND == 0
            message = aio_pika.Message(
                self._command if is_command else QUERY,
                headers={"shard_id": 0} if is_command else {},
                correlation_id=name,
                reply_to=replies.name,
                expiration=60,
            )
            await exchange.publish(message, topology.GATEWAY_KEY if is_command else topology.CACHE_KEY)
            self.sent.append(name)
            if is_command:
                self.commands.add(name)
            await asyncio.sleep(QUERY_EVERY_S)

    async def _answered(self, message: AbstractIncomingMessage) -> None:
        self.answers[str(message.correlation_id)] += 1

    async def is_answered(self) -> None:
        """Wait until something that is sent from now on is answered."""
        since = len(self.sent)
        while self.answers.keys().isdisjoint(self.sent[since:]):  # noqa: ASYNC110  # an answer wakes nobody
            await asyncio.sleep(LOOK)


@asynccontextmanager
async def working(cluster: RabbitCluster, nodes: Iterable[int], guild_id: int) -> AsyncIterator[Worker]:
    """A worker that sends through the first of *nodes* that takes its connection."""
    async with cluster.connected(*nodes) as connection:
        worker = Worker(await connection.channel(publisher_confirms=False), guild_id)
        task = asyncio.create_task(worker.send())
        try:
            yield worker
        finally:
            task.cancel()
            await asyncio.wait([task])


async def substituted(owner: Member) -> None:
    """Wait until the owner's status says where requests come from."""
    words = f"requests come through {topology.substitute(1)} since"
    await owner.until(
        lambda status: (
            any(words in note for note in status["notes"])
            and all(each["owned"] for each in status["clusters"] if each["cluster"] == 1)
        )
    )


async def returned(owner: Member) -> None:
    await owner.until(lambda status: not any(topology.incoming(1) in note for note in status["notes"]))


@pytest.mark.checklist("K37")
@pytest.mark.parametrize("version", VERSIONS)
def test_queries_and_commands_are_answered_once_while_the_node_of_the_inbound_queue_is_dead_and_after_that(
    tmp_path: Path, version: str
) -> None:
    async def scenario(it: FleetStage) -> None:
        await it.whole()
        owner = (await it.owners())[1]
        home = await home_of_first(cluster)
        guild_id = next(iter(it.sim.gateway.guilds_of(0, it.layout.shards)))
        others = {0, 1, 2} - {home}
        async with working(cluster, others, guild_id) as worker:
            await worker.is_answered()
            await cluster.kill(home)
            # It stays away until requests are answered without it.
            await substituted(owner)
            await worker.is_answered()
            since = len(worker.sent)
            await worker.is_answered()
            await cluster.start(home)
            await returned(owner)
            await worker.is_answered()
        sent = worker.sent[since:]
        while worker.answers.keys() < set(sent):  # noqa: ASYNC110  # an answer wakes nobody
            await asyncio.sleep(LOOK)
        await it.whole()
        assert {name: times for name, times in worker.answers.items() if times > 1} == {}
        carried_out = it.count("command voice_state_update")
        assert len(worker.commands & worker.answers.keys()) <= carried_out <= len(worker.commands)

    async def main() -> None:
        async with fleet_stage(
            tmp_path, [cluster.on(number) for number in range(len(cluster.nodes))], fleet="nodes"
        ) as it:
            await scenario(it)

    with rabbitmq_cluster(version, net_ticktime=10, cluster_partition_handling="pause_minority") as cluster:
        cluster.begin()
        run(main())
