"""How long until the lag is gone after a broker outage of 30 s under load? ``python -m benchmarks.recovery``

The broker (RabbitMQ) is frozen with SIGSTOP, so that connections stay open and nothing is answered, and thawed. The
lag is gone when nothing is unconfirmed, in memory or in the spool.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time

from benchmarks.rig import pictures
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import Stage, stage
from rateway.demo.broker import PrivateBroker
from rateway.simulator.options import SimulatorOptions
from rateway.simulator.world_dispatch import WorldOptions


def behind(status: dict[str, list[dict[str, dict[str, float]]]]) -> float:
    """Unconfirmed events."""
    return sum(each["publisher"]["unconfirmed"] for each in status["clusters"])


async def outage(it: Stage, pid: int, seconds: float, curve: list[tuple[float, float]]) -> dict[str, float]:
    """One outage; ``curve`` gets (time, unconfirmed events)."""
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    worst = 0.0
    while time.monotonic() < began + seconds:
        await asyncio.sleep(0.25)
        status = await it.status()
        if status:
            worst = max(worst, behind(status))
            curve.append((time.monotonic() - began, behind(status)))
    os.kill(pid, signal.SIGCONT)
    thawed, cpu = time.monotonic(), it.cpu()
    while True:
        status = await it.status()
        if status:
            left = behind(status)
            worst = max(worst, left)
            curve.append((time.monotonic() - began, left))
            # What is in flight at any moment at this rate is no lag.
            if (
                left < 200
                and max((each["publisher"]["lag_s"] for each in status["clusters"]), default=0) < 0.5
            ):
                break
        await asyncio.sleep(0.05)
    return {
        "gone_after_s": time.monotonic() - thawed,
        "unconfirmed_most": worst,
        "cpu_s": it.cpu() - cpu,
        "memory_mb": it.pss() / 1e6,
    }


async def rounds(runs: int, seconds: float, rate: float, uri: str, pid: int, report: Report) -> None:
    """Outages one after another in one life of the gateway."""
    world = WorldOptions(guilds=100, members_per_guild=20)
    options = SimulatorOptions(world=world, shards=8, max_concurrency=8, rate=rate, recorded=True)
    found, curves = [], {}
    async with stage(options, uri) as it:
        await it.until(lambda status: sum(each["shards_ready"] for each in status["clusters"]) == 8)
        for turn in range(runs):
            await asyncio.sleep(3)
            report.see_load()
            curve: list[tuple[float, float]] = []
            found.append(await outage(it, pid, seconds, curve))
            curves[f"outage {turn + 1}"] = ([at for at, _ in curve], [left for _, left in curve])
        gaps = sum(each["gaps"] for each in (await it.status())["clusters"])
    report.row(
        f"{seconds:g} s without the broker at {rate:g} events/s, 8 shards",
        **{key: [each[key] for each in found] for key in found[0]},
        gaps=gaps,
        violations=len(it.sim.ledger.violations),
    )
    pictures.lines("recovery", "Unconfirmed events over an outage", curves, "seconds", "events")


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--seconds", type=float, default=30.0, help="length of the outage")
        parser.add_argument("--rate", type=float, default=2000.0, help="events a second, all shards together")

    options = arguments(__doc__, add)
    report = Report("recovery", "python -m benchmarks.recovery")
    with PrivateBroker(management=False) as broker:
        assert broker.pid is not None
        asyncio.run(rounds(options.runs, options.seconds, options.rate, broker.uri, broker.pid, report))
    report.write()


if __name__ == "__main__":
    main()
