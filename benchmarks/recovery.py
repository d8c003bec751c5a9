"""The time until the lag of a broker outage is gone, with every event audited. ``python -m benchmarks.recovery``

The broker (RabbitMQ) is frozen with SIGSTOP, so that connections stay open and nothing is answered, and thawed. The
lag is gone when nothing is unconfirmed, in memory or in the spool. A durable queue takes every event; it is read once
the lag is gone and held against what was sent. ``--seconds 600`` is the long one; its spool needs more than the
default for that.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import signal
import time

import aio_pika
from rateway.demo.audit import Audit, audit
from rateway.demo.broker import PrivateBroker
from rateway.demo.collector import Collector
from rateway_protocol.contract import topology
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.world.dispatch import WorldOptions

from benchmarks.rig import pictures
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import Stage, stage

# What an event takes in the spool here, with room to spare: its record is its body, its id and its properties.
SPOOL_BYTES_AN_EVENT = 2_000
SPOOL_DEFAULT = 1 << 30
# So long without an arrival means that nothing more comes, seconds.
SILENCE = 20.0

Status = dict[str, list[dict[str, dict[str, float]]]]


def of_publishers(status: Status, name: str) -> float:
    """A figure of all clusters' publishers together."""
    return sum(each["publisher"][name] for each in status["clusters"])


async def outage(it: Stage, pid: int, seconds: float, curve: list[tuple[float, float]]) -> dict[str, float]:
    """One outage; ``curve`` gets (time, unconfirmed events)."""
    before = it.pss()
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    worst = memory = spool = 0.0

    def look(status: Status) -> float:
        nonlocal worst, memory, spool
        left = of_publishers(status, "unconfirmed")
        worst, memory = max(worst, left), max(memory, it.pss())
        spool = max(spool, of_publishers(status, "spool_bytes"))
        curve.append((time.monotonic() - began, left))
        return left

    while time.monotonic() < began + seconds:
        await asyncio.sleep(0.25)
        status = await it.status()
        if status:
            look(status)
    os.kill(pid, signal.SIGCONT)
    thawed, cpu = time.monotonic(), it.cpu()
    while True:
        status = await it.status()
        # What is in flight at any moment at this rate is no lag.
        if (
            status
            and look(status) < 200
            and max((each["publisher"]["lag_s"] for each in status["clusters"]), default=0) < 0.5
        ):
            break
        await asyncio.sleep(0.05)
    return {
        "gone_after_s": time.monotonic() - thawed,
        "unconfirmed_most": worst,
        "cpu_s": it.cpu() - cpu,
        "memory_before_mb": before / 1e6,
        "memory_most_mb": memory / 1e6,
        "spool_most_mb": spool / 1e6,
    }


async def bind(uri: str, collector: Collector) -> None:
    """Make the collector's queues before it reads: what it has to take on meanwhile would slow the gateway down."""
    async with await aio_pika.connect(uri) as connection, connection.channel() as channel:
        for cluster in collector.clusters:
            exchange = await channel.declare_exchange(
                topology.exchange(cluster), topology.EXCHANGE_TYPE, durable=True
            )
            queue = await channel.declare_queue(collector.queue_name(cluster), durable=True)
            for name in collector.names:
                await queue.bind(exchange, name)


async def arrived(it: Stage, collector: Collector) -> Audit:
    """Read the queues to their end, and hold them against what was sent."""
    async with collector.running():
        while collector.receipts.distinct < it.sim.ledger.events:
            collector.arrival.clear()
            try:
                async with asyncio.timeout(SILENCE):
                    await collector.arrival.wait()
            except TimeoutError:
                break
        return audit(it.sim.ledger.log(), collector.receipts)


async def rounds(runs: int, seconds: float, rate: float, uri: str, pid: int, report: Report) -> bool:
    """Outages one after another in one life of the gateway; whether nothing was lost."""
    world = WorldOptions(guilds=100, members_per_guild=20)
    options = SimulatorOptions(world=world, shards=8, max_concurrency=8, rate=rate, recorded=True)
    spool = max(SPOOL_DEFAULT, math.ceil(seconds * rate * SPOOL_BYTES_AN_EVENT))
    found, curves = [], {}
    collector = Collector(uri, [1])
    await bind(uri, collector)
    async with stage(options, uri, SPOOL_BYTES=str(spool)) as it:
        await it.until(lambda status: sum(each["shards_ready"] for each in status["clusters"]) == 8)
        for turn in range(runs):
            await asyncio.sleep(3)
            report.see_load()
            curve: list[tuple[float, float]] = []
            found.append(await outage(it, pid, seconds, curve))
            curves[f"outage {turn + 1}"] = ([at for at, _ in curve], [left for _, left in curve])
            print(
                f"outage {turn + 1}:", {key: round(value, 1) for key, value in found[-1].items()}, flush=True
            )
        it.sim.set_rate(0)
        await it.settled()
        gaps = sum(each["gaps"] for each in (await it.status())["clusters"])
        result = await arrived(it, collector)
    report.row(
        f"{seconds:g} s without the broker at {rate:g} events/s, 8 shards",
        **{key: [each[key] for each in found] for key in found[0]},
        sent=result.sent,
        lost=result.lost,
        doubled=result.doubled,
        out_of_order=result.out_of_order,
        gaps=gaps,
        violations=len(it.sim.ledger.noted),
        spool_bytes=spool,
    )
    pictures.lines("recovery", "Unconfirmed events over an outage", curves, "seconds", "events")
    return result.clean


def main() -> None:
    """Measure; ends with an error when an event is missing."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--seconds", type=float, default=30.0, help="length of the outage")
        parser.add_argument("--rate", type=float, default=2000.0, help="events a second, all shards together")

    options = arguments(__doc__, add)
    report = Report("recovery")
    with PrivateBroker(management=False) as broker:
        assert broker.pid is not None
        clean = asyncio.run(
            rounds(options.runs, options.seconds, options.rate, broker.uri, broker.pid, report)
        )
    report.write()
    if not clean:
        raise SystemExit("events are missing, changed or out of order")


if __name__ == "__main__":
    main()
