"""How long interactions take while a spool of a million events drains. ``python -m benchmarks.urgent``

The gateway starts with the events in its spool, as after an outage of the broker (RabbitMQ). While they drain, the
simulated Discord goes on sending, interactions among the rest. The time of an interaction is from its dispatch there to
its delivery from a durable queue that is bound to that name alone; both ends are in one process, so no clocks differ. A
second durable queue is bound for the others and keeps the newest, so that the broker writes what drains to its disk.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import msgspec
from aio_pika.abc import AbstractIncomingMessage
from rateway.delivery.message import Publish
from rateway.demo.broker import PrivateBroker
from rateway.transports.amqp.wire import frames
from rateway.transports.spool import Spool
from rateway_protocol.contract import topology
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.world.dispatch import Dispatch, WorldOptions

from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import Stage, stage

NAME = "INTERACTION_CREATE"
# An interaction each so many seconds: hundreds of them while a spool drains, and never a queue of their own.
EVERY_S = 0.02
# Events that are appended to the spool in one write.
BATCH = 1_000
# What the second queue keeps.
KEPT = 10_000


class _Identified(msgspec.Struct):
    id: str


_decode = msgspec.json.Decoder(_Identified).decode


def fill(folder: Path, count: int) -> int:
    """Write *count* messages of a thousand bytes into a spool, as a gateway without a broker does; its bytes."""
    spool = Spool.open(folder, 8 << 30)
    body = msgspec.json.encode({"id": "1", "content": "x" * 960})
    for first in range(1, count + 1, BATCH):
        batch = []
        for seq in range(first, min(first + BATCH, count + 1)):
            properties = frames.event_properties(
                b"MESSAGE_CREATE", 0, 1, seq, b"before:0:%d" % seq, int(time.time()), False, True
            )
            batch.append(Publish(b"MESSAGE_CREATE", properties, body))
        spool.append(batch)
    size = spool.bytes
    spool.close()
    return size


@asynccontextmanager
async def deliveries(uri: str, arrived: dict[str, float], ahead: set[str]) -> AsyncIterator[None]:
    """Note when each interaction is delivered."""

    async def take(message: AbstractIncomingMessage) -> None:
        found = _decode(message.body).id
        arrived.setdefault(found, time.monotonic())
        if message.headers.get("ahead"):
            ahead.add(found)
        await message.ack()

    async with await aio_pika.connect(uri) as connection:
        channel = await connection.channel()
        await channel.set_qos(1_000)
        exchange = await channel.declare_exchange(topology.exchange(1), topology.EXCHANGE_TYPE, durable=True)
        others = await channel.declare_queue("others", durable=True, arguments={"x-max-length": KEPT})
        await others.bind(exchange, "MESSAGE_CREATE")
        queue = await channel.declare_queue("interactions", durable=True)
        await queue.bind(exchange, NAME)
        await queue.consume(take)
        yield


def interact(it: Stage, number: int) -> str:
    """A user interacts with the bot; the interaction's id."""
    guild_id = it.sim.world.guild_ids[number % len(it.sim.world.guild_ids)]
    user = {
        "id": str(number),
        "username": "somebody",
        "discriminator": "0",
        "avatar": None,
        "global_name": None,
    }
    found = {
        "id": str(number << 22),
        "application_id": "1",
        "type": 2,
        "token": "x" * 200,
        "version": 1,
        "guild_id": str(guild_id),
        "channel_id": str(guild_id),
        "member": {"user": user, "roles": [], "permissions": "2248473465835073", "flags": 0},
        "data": {"id": "2", "name": "ping", "type": 1, "options": []},
        "locale": "en-US",
        "entitlements": [],
    }
    it.sim.dispatch(Dispatch(NAME, guild_id, found))
    return str(found["id"])


async def drained(events: int, rate: float, uri: str, **settings: str) -> dict[str, float]:
    """One spool, drained; the interactions' times in milliseconds, those of the backlog's time alone."""
    options = SimulatorOptions(world=WorldOptions(guilds=20, members_per_guild=20), shards=1, rate=rate)
    sent: dict[str, float] = {}
    arrived: dict[str, float] = {}
    ahead: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spool = folder / "state" / "clusters" / "1" / "spool"
        spool.parent.mkdir(parents=True, mode=0o700)
        size = fill(spool, events)
        async with deliveries(uri, arrived, ahead), stage(options, uri, folder=folder, **settings) as it:
            began = time.monotonic()
            await it.until(lambda status: sum(each["shards_ready"] for each in status["clusters"]) == 1)
            left, looked, ended = 1, 0.0, 0.0
            while left:
                now = time.monotonic()
                sent[interact(it, len(sent) + 1)] = now
                await asyncio.sleep(EVERY_S)
                if time.monotonic() - looked > 1.0:
                    looked = time.monotonic()
                    status = await it.status()
                    left = (
                        sum(each["publisher"]["spool_events"] for each in status["clusters"]) if status else 1
                    )
                    ended = time.monotonic()
            await it.settled()
            await it.until(lambda _: arrived.keys() >= sent.keys(), patience=30.0)
    times = sorted(1000 * (arrived[each] - sent[each]) for each in sent)
    return {
        "spool_mb": size / 1e6,
        "drained_in_s": ended - began,
        "interactions": len(times),
        "ahead": len(ahead & sent.keys()),
        "p50_ms": times[len(times) // 2],
        "p99_ms": times[int(len(times) * 0.99)],
        "worst_ms": times[-1],
    }


def main() -> None:
    """Measure with URGENT and, once for comparison, without."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--events", type=int, default=1_000_000, help="events in the spool")
        parser.add_argument("--rate", type=float, default=200.0, help="events a second beside them")

    options = arguments(__doc__, add)
    # The broker needs what it can get: it is the broker's time as well.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    report = Report("urgent")
    limit = {"SPOOL_BYTES": str(8 << 30)}
    for label, settings, runs in (
        ("URGENT=INTERACTION_CREATE", limit | {"URGENT": NAME}, options.runs),
        ("URGENT and an event log", limit | {"URGENT": NAME, "EVENT_LOG": "stream"}, 1),
        ("without", limit, 1),
    ):
        found = []
        for _ in range(runs):
            with PrivateBroker(management=False) as broker:
                report.see_load()
                found.append(asyncio.run(drained(options.events, options.rate, broker.uri, **settings)))
            print(label, {key: round(value, 1) for key, value in found[-1].items()}, flush=True)
        report.row(label, **{key: [each[key] for each in found] for key in found[0]})
    report.write()


if __name__ == "__main__":
    main()
