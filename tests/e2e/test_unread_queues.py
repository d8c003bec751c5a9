"""What nobody reads is said: a drained cluster that no gateway has, and a worker's queue without a worker."""

from __future__ import annotations

from pathlib import Path

import aio_pika
from rateway.transports import control_socket

from tests.aio import run
from tests.e2e.harness import stage
from tests.rabbitmq import Broker

# Starts the gateway with more frequent looks at queues.
WATCHFUL = """
import sys
from rateway.cli import main
from rateway.runtime.monitoring import queue_watch
queue_watch.LOOK_EVERY_S = 1.0
sys.exit(main([]))
"""


def test_after_a_drain_the_status_says_that_nobody_has_the_cluster_and_that_a_queue_is_unread(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        connection = await aio_pika.connect(broker.uri)
        async with (
            connection,
            stage(
                tmp_path, broker, shards=2, per_cluster=1, guilds=4, PROCESSES="2", WORKER_QUEUES="bot,other",
                start=False,
            ) as it,
        ):  # fmt: skip
            channel = await connection.channel()
            await channel.declare_queue("bot", durable=True)
            it.gateway.arguments = ["-c", WATCHFUL]
            await it.gateway.start()
            await it.ready()
            said = await control_socket.ask(it.gateway.state_dir, "drain 2")
            assert b"`rateway status` says so while no gateway has it" in said
            status = await it.gateway.until(lambda status: bool(status["unheld"]))
            assert (status["unheld"], [each["name"] for each in status["unread_queues"]]) == ([2], ["bot"])
            # Another gateway takes it.
            queue = await channel.declare_queue("rateway-incoming-2", durable=True, passive=True)

            async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
                """Read it as a gateway would."""

            await queue.consume(take, exclusive=True)
            await it.gateway.until(lambda status: status["unheld"] == [])

    run(main())
