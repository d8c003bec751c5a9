"""The whole gateway as a process, against the simulated Discord and a real RabbitMQ."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractIncomingMessage
from rateway_simulator.faults import Fault

from tests.aio import run
from tests.e2e.harness import LOOK, Json, stage
from tests.rabbitmq import Broker


def test_every_event_arrives_once_unchanged_and_in_order(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=4, per_cluster=2, guilds=40) as it:
            await it.ready()
            await it.events(2000)
            result = await it.all_arrived()
            assert result.doubled == 0
            assert result.sent > 2000
            assert it.count("identify") == 4

    run(main())


def test_an_event_carries_what_the_contract_promises(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=1, guilds=2) as it:
            found: list[AbstractIncomingMessage] = []
            async with await aio_pika.connect(broker.uri) as connection:
                channel = await connection.channel()
                queue = await channel.declare_queue(exclusive=True)
                await queue.bind("rateway-1", "READY")
                await it.ready()
                async with queue.iterator(no_ack=True) as messages:
                    async for message in messages:
                        found.append(message)
                        break
            ready = msgspec.json.decode(found[0].body)
            message = found[0]
            assert ready["shard"] == [0, 1]
            assert message.message_id == f"{ready['session_id']}:0:1"
            assert (message.type, message.content_type, message.delivery_mode) == (
                "READY",
                "application/json",
                2,
            )
            assert message.headers == {"shard_id": 0, "shard_count": 1, "seq": 1}
            assert message.timestamp is not None

    run(main())


def test_a_gateway_killed_in_the_middle_loses_nothing_and_spends_no_identify(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        simulator = {"heartbeat_interval_ms": 1000}
        async with stage(tmp_path, broker, shards=2, guilds=80, simulator=simulator) as it:
            await it.ready()
            # A heartbeat names only what is written down: from here on a killed gateway leaves its sessions.
            while not all(session.named for session in it.sim.ledger.sessions.values()):
                await asyncio.sleep(LOOK)
            for _ in range(3):
                await it.events(300)
                await it.gateway.kill()
                await it.gateway.start()
            await it.events(300)
            await it.all_arrived()
            assert it.count("identify") == 2

    run(main())


def test_a_stopped_gateway_keeps_its_sessions_for_the_next_one(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=2, guilds=80) as it:
            await it.ready()
            await it.events(300)
            await it.gateway.stop()
            await it.events(50)
            await it.gateway.start()
            await it.ready()
            result = await it.all_arrived()
            assert (it.count("identify"), result.doubled) == (2, 0)

    run(main())


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="cut"),
        Fault(kind="op7"),
        Fault(kind="op9", resumable=True),
        Fault(kind="close", code=4000),
        Fault(kind="corrupt"),
        Fault(kind="op1"),
    ],
    ids=lambda fault: fault.kind,
)
def test_a_broken_connection_is_resumed_and_nothing_is_lost(
    tmp_path: Path, broker: Broker, fault: Fault
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=2, guilds=80) as it:
            await it.ready()
            await it.events(200)
            assert await it.sim.inject(fault) == 2
            await it.events(200)
            await it.all_arrived()
            assert it.count("identify") == 2

    run(main())


@pytest.mark.checklist("H22")
def test_a_refused_upgrade_holds_every_shard_of_the_host_and_costs_no_session(
    tmp_path: Path, broker: Broker
) -> None:
    """Also those of another process: the judge counts a dial before the Retry-After as a violation."""

    async def main() -> None:
        async with stage(tmp_path, broker, shards=4, per_cluster=2, guilds=40, PROCESSES="2") as it:
            await it.ready()
            await it.events(100)
            await it.sim.inject(Fault(kind="upgrade", status=429, retry_after=8.0, count=1))
            await it.sim.inject(Fault(kind="cut", shards="0"))
            await it.gateway.logged("answers connections with HTTP 429")
            assert await it.sim.inject(Fault(kind="cut", shards="1-3")) == 3
            await it.events(100)
            await it.gateway.until(lambda status: all(map(is_held, status["shards"][1:])))
            await it.gateway.until(lambda status: all(map(is_live, status["shards"])))
            await it.all_arrived()
            assert (it.count("upgrade 429"), it.count("identify"), it.count("resume")) == (1, 4, 4)

    run(main())


def is_held(shard: Json) -> bool:
    return "so all shards of this machine wait" in shard["why"]


def is_live(shard: Json) -> bool:
    return bool(shard["state"] == "live")


def test_a_broker_that_restarts_loses_nothing(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=2, guilds=80) as it:
            await it.ready()
            await it.events(200)
            await broker.kill()
            await it.events(400)
            await broker.start()
            await it.events(200)
            await it.all_arrived()
            assert it.count("identify") == 2

    run(main())
