"""Memory, lag and Discord's rules over minutes of traffic. ``python -m benchmarks.soak``

Five minutes by default, an hour with ``--minutes 60``. Memory's slope comes with its standard error: flat is a slope
that its error explains. The store's pages, which the kernel maps as they are looked at, are told apart from the
process's own memory: they are the cache's size, not the gateway's.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from rateway_simulator.options import SimulatorOptions
from rateway_simulator.world.dispatch import WorldOptions

from benchmarks.rig import child, pictures
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import stage

EVERY = 2.0
# The first part of a run fills caches and pools; it is no trend.
WARM_UP = 0.2


def slope(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Least squares: rise per second, and its standard error."""
    n = len(points)
    if n < 3:
        return 0.0, 0.0
    x = statistics.fmean(at for at, _ in points)
    y = statistics.fmean(value for _, value in points)
    width = sum((at - x) ** 2 for at, _ in points)
    rise = sum((at - x) * (value - y) for at, value in points) / width
    rest = sum((value - y - rise * (at - x)) ** 2 for at, value in points)
    return rise, (rest / (n - 2) / width) ** 0.5


async def soak(minutes: float, rate: float, uri: str, report: Report) -> None:
    """One run."""
    world = WorldOptions(guilds=200, members_per_guild=50)
    options = SimulatorOptions(world=world, shards=8, max_concurrency=8, recorded=True)
    memory: list[tuple[float, float]] = []
    own: list[tuple[float, float]] = []
    lags: list[float] = []
    async with stage(options, uri) as it:
        await it.live()
        it.sim.set_rate(rate, recorded=True)
        began, cpu = time.monotonic(), it.cpu()
        while time.monotonic() < began + 60 * minutes:
            await asyncio.sleep(EVERY)
            status = await it.status()
            now = time.monotonic() - began
            memory.append((now, it.pss() / 1e6))
            own.append((now, it.pss("Pss_Anon") / 1e6))
            lags += [each["publisher"]["lag_s"] for each in status.get("clusters", [])]
        seconds = time.monotonic() - began
        it.sim.set_rate(0)
        status = await it.status()
        events = sum(each["received"] for each in status["clusters"])
        spent = it.cpu() - cpu
        # What repeats of a recording are is known to the simulator's ledger: it judged all of them.
        violations = len(it.sim.ledger.noted)
    rise, error = slope(memory[int(len(memory) * WARM_UP) :])
    own_rise, own_error = slope(own[int(len(own) * WARM_UP) :])
    report.row(
        f"{minutes:g} min at {rate:g} events/s, 8 shards, cache on",
        memory_mb=memory[-1][1],
        slope_kb_a_minute=rise * 60 * 1000,
        slope_error=error * 60 * 1000,
        own_mb=own[-1][1],
        own_slope_kb_a_minute=own_rise * 60 * 1000,
        own_slope_error=own_error * 60 * 1000,
        lag_most_s=max(lags, default=0.0),
        us_an_event=spent * 1e6 / max(1, events),
        events=events,
        seconds=seconds,
        violations=violations,
    )
    curves = {
        "proportional set size": ([at for at, _ in memory], [size for _, size in memory]),
        "of it the process's own": ([at for at, _ in own], [size for _, size in own]),
    }
    pictures.lines("soak", "Memory over the soak", curves, "seconds", "MB")


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--minutes", type=float, default=5.0)
        parser.add_argument("--rate", type=float, default=2000.0, help="events a second, all shards together")

    options = arguments(__doc__, add)
    report = Report("soak")
    report.see_load()
    with child.sink() as (_, uri):
        asyncio.run(soak(options.minutes, options.rate, uri, report))
    report.write()


if __name__ == "__main__":
    main()
