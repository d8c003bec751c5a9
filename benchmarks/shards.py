"""The heartbeats of a thousand shards over minutes of simulated Discord. ``python -m benchmarks.shards``

1,000 shards for 10 minutes by default, with Discord's interval of 41.25 s and some events on all of them. Discord is
stricter here than it is: a heartbeat more than a second late counts as a broken rule, and no rule may be broken. Its
clock and the gateway's run on the same cores, so that what this machine does besides counts as the gateway's lateness.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from typing import Any

from rateway_simulator.options import SimulatorOptions
from rateway_simulator.world.dispatch import WorldOptions

from benchmarks.rig import child
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import stage

EVERY_S = 5.0
# How late a heartbeat may be.
LATE_S = 1.0


async def stand(shards: int, minutes: float, rate: float, processes: int, uri: str, report: Report) -> None:
    """Start, wait until all are live, hold them."""
    options = SimulatorOptions(
        world=WorldOptions(guilds=shards, members_per_guild=5), shards=shards, max_concurrency=shards,
        identifies_total=2 * shards + 1000, heartbeat_tolerance=LATE_S, recorded=True,
    )  # fmt: skip
    settings: dict[str, Any] = {
        "SHARDS_PER_CLUSTER": "64",
        "CACHE_ENABLED": "false",
        "PROCESSES": str(processes),
    }
    memory: list[float] = []
    loops: list[float] = []
    async with stage(options, uri, **settings) as it:
        began = time.monotonic()
        await it.live()
        started = time.monotonic() - began
        it.sim.set_rate(rate, recorded=True)
        began, cpu = time.monotonic(), it.cpu()
        while (held := time.monotonic() - began) < 60 * minutes:
            await asyncio.sleep(EVERY_S)
            status = await it.status()
            memory.append(it.pss() / 1e6)
            loops += [each["loop_lag_ms"] for each in status.get("processes", [])]
            if len(memory) % 12 == 0:
                late = it.sim.gateway.latest_beat
                print(
                    f"  {held / 60:.0f} min: latest heartbeat {late:+.3f} s, {memory[-1]:.0f} MB", flush=True
                )
        seconds, spent = time.monotonic() - began, it.cpu() - cpu
        it.sim.set_rate(0)
        await it.settled()
        status = await it.status()
        ledger, late = it.sim.ledger, it.sim.gateway.latest_beat
        broken = Counter(each.rule for each in ledger.noted)
    report.row(
        f"{shards:,} shards for {minutes:g} min, {processes} processes",
        latest_heartbeat_s=late,
        violations=len(ledger.noted),
        identifies=ledger.counts["identify"],
        reconnects=ledger.counts["dial"] - shards,
        live_after_s=started,
        events=sum(each["received"] for each in status["clusters"]),
        cpu_share=spent / seconds,
        loop_late_most_ms=max(loops, default=0.0),
        memory_mb=memory[-1],
        kb_a_shard=1000 * memory[-1] / shards,
    )
    for rule, count in broken.most_common():
        print(f"  broken {count} times: {rule}")


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--minutes", type=float, default=10.0)
        parser.add_argument("--shards", type=int, default=1000)
        parser.add_argument("--processes", type=int, default=2)
        parser.add_argument("--rate", type=float, default=1000.0, help="events a second, all shards together")

    options = arguments(__doc__, add)
    report = Report("shards")
    report.see_load()
    with child.sink() as (_, uri):
        asyncio.run(stand(options.shards, options.minutes, options.rate, options.processes, uri, report))
    report.write()


if __name__ == "__main__":
    main()
