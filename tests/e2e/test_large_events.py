"""Events near and above what the broker takes, through the whole gateway (`docs/rabbitmq.md`, *Large events*)."""

from __future__ import annotations

from pathlib import Path

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractIncomingMessage
from rateway_simulator.world.dispatch import Dispatch

from tests.aio import run
from tests.e2e.harness import stage
from tests.e2e.witness import all_settled
from tests.rabbitmq import Broker, fresh_vhost, private_rabbitmq

#: RabbitMQ's own from 4.0 on; set here so that older ones have it too.
LIMIT = 16 * 1024 * 1024


@pytest.mark.checklist("H7")
def test_an_event_larger_than_the_broker_takes_is_told_and_the_cluster_flows_on(
    tmp_path: Path,
) -> None:
    async def main(broker: Broker) -> None:
        async with stage(tmp_path, broker, shards=2, guilds=10) as it:
            await it.ready()
            guild_id = it.sim.world.guild_ids[0]
            async with await aio_pika.connect(broker.uri) as connection:
                channel = await connection.channel()
                queue = await channel.declare_queue(exclusive=True)
                for name in ("RATEWAY_OVERSIZE", "SOUNDBOARD_SOUNDS"):
                    await queue.bind("rateway-1", name)
                await it.events(200)
                for size in (17_000_000, 16_000_000, 17_000_000):
                    # What is unconfirmed when the broker closes the channel comes twice, and rightly so.
                    await it.gateway.until(all_settled)
                    body = {"guild_id": str(guild_id), "soundboard_sounds": [], "filling": "x" * size}
                    it.sim.gateway.dispatch(Dispatch("SOUNDBOARD_SOUNDS", guild_id, body))
                    await it.events(100)
                found: list[AbstractIncomingMessage] = []
                async with queue.iterator(no_ack=True) as messages:
                    async for message in messages:
                        found.append(message)
                        if len(found) == 3:
                            break
            result = await it.settled(missing=2)
            assert (result.lost, result.doubled, result.changed, result.out_of_order) == (2, 0, 0, 0)
            assert it.count("identify") == 2 and it.count("resume") == 0
        first, taken, second = found
        assert (first.type, taken.type, second.type) == (
            "RATEWAY_OVERSIZE",
            "SOUNDBOARD_SOUNDS",
            "RATEWAY_OVERSIZE",
        )
        assert len(taken.body) > 16_000_000
        for report in (first, second):
            told = msgspec.json.decode(report.body)
            assert told["event"] == "SOUNDBOARD_SOUNDS" and told["guild_id"] == str(guild_id)
            assert told["size"] > 17_000_000 and told["limit"] == LIMIT
            assert str(report.message_id).startswith("oversize:")

    with private_rabbitmq(max_message_size=str(LIMIT)) as node, fresh_vhost(node) as broker:
        run(main(broker))
