"""What cannot be read or forwarded, through the whole gateway: it costs itself alone, or its session once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import msgspec
import pytest
from rateway_simulator.world.dispatch import Dispatch

from tests.aio import run
from tests.e2e.harness import stage
from tests.rabbitmq import Broker


@asynccontextmanager
async def hear(broker: Broker, *names: str) -> AsyncIterator[asyncio.Queue[tuple[str, Any]]]:
    """What arrives under these names: the name, and what the body says."""
    heard: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        heard.put_nowait((str(message.routing_key), msgspec.json.decode(message.body)))

    async with await aio_pika.connect(broker.uri) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        for name in names:
            await queue.bind("rateway-1", name)
        await queue.consume(take, no_ack=True)
        yield heard


@pytest.mark.checklist("K5", "K6", "K7", "K17")
def test_dispatches_that_cannot_be_forwarded_are_told_and_nothing_reconnects(
    broker: Broker, tmp_path: Path
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=1, guilds=4) as it:
            await it.ready()
            async with hear(broker, "RATEWAY_UNREADABLE", "LAST") as heard:
                guild_id = it.sim.world.guild_ids[0]
                await it.events(100)
                for name in ("X" * 256, "", "gateway", "cache", "RATEWAY_GAP"):
                    it.sim.gateway.dispatch(Dispatch(name, guild_id, {"guild_id": str(guild_id)}))
                it.sim.gateway.dispatch(Dispatch("LAST", guild_id, {"guild_id": str(guild_id)}))
                told = [await heard.get() for _ in range(6)]
                assert [key for key, _ in told] == ["RATEWAY_UNREADABLE"] * 5 + ["LAST"]
                assert [body["reason"] for _, body in told[:5]] == [
                    "its name is longer than a routing key may be",
                    "it has no name",
                    *["its name is a key of the gateway's own"] * 3,
                ]
                numbers = [body["seq"] for _, body in told[:5]]
                assert numbers == list(range(numbers[0], numbers[0] + 5))
                status = await it.gateway.until(
                    lambda status: status["shards"][0]["settled"] == status["shards"][0]["received"]
                )
                assert status["clusters"][0]["unreadable"] == 5
                assert any("could not be forwarded" in note for note in status["notes"])
                assert it.count("identify") == 1 and it.count("resume") == 0

    run(main())


@pytest.mark.checklist("K9")
@pytest.mark.parametrize("restart", [False, True], ids=["at once", "over a kill"])
def test_a_message_beyond_the_bound_ends_its_session_after_the_second_time_with_its_reason(
    broker: Broker, tmp_path: Path, restart: bool
) -> None:
    async def main() -> None:
        async with stage(tmp_path, broker, shards=1, guilds=4, MAX_MESSAGE_BYTES="1MiB") as it:
            await it.ready()
            async with hear(broker, "RATEWAY_GAP", "LAST") as heard:
                guild_id = it.sim.world.guild_ids[0]
                await it.events(100)
                if restart:
                    # The first failure is written down before anything is dialled again; no second one follows.
                    it.sim.gateway.dispatch(Dispatch("BOMB", guild_id, {"filling": "x" * 2_000_000}))
                    await it.gateway.kill()
                    await it.gateway.start()
                else:
                    it.sim.gateway.dispatch(Dispatch("BOMB", guild_id, {"filling": "x" * 2_000_000}))
                key, gap = await heard.get()
                assert key == "RATEWAY_GAP"
                assert "twice a message that cannot be read" in gap["reason"] and "1048576" in gap["reason"]
                await it.ready()
                it.sim.gateway.dispatch(Dispatch("LAST", guild_id, {"guild_id": str(guild_id)}))
                assert (await heard.get())[0] == "LAST"
                assert it.count("identify") == 2
                assert it.count("resume") <= (3 if restart else 1)

    run(main())
