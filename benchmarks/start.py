"""The cost of a start: CPU and time to take the GUILD_CREATEs of 10,000 guilds. ``python -m benchmarks.start``

From the gateway's process start until all of them are confirmed by the sink and in the cache. *ready* is the part
before the first guild: imports, stores, identifies.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from rateway_simulator.options import SimulatorOptions
from rateway_simulator.world.dispatch import WorldOptions

from benchmarks.rig import child
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import stage


async def once(guilds: int, members: int, shards: int, cache: bool, uri: str) -> dict[str, float]:
    """One start."""
    world = WorldOptions(guilds=guilds, members_per_guild=members)
    options = SimulatorOptions(world=world, shards=shards, max_concurrency=shards)
    began = time.monotonic()
    async with stage(options, uri, CACHE_ENABLED=str(cache).lower()) as it:
        ended = await it.live()
        status = await it.status()
        stored = sum((each["cache"] or {}).get("disk_bytes", 0) for each in status["clusters"])
        return {
            "cpu_s": it.cpu(),
            "seconds": ended - began,
            "us_a_guild": it.cpu() * 1e6 / guilds,
            "memory_mb": it.pss() / 1e6,
            "stored_bytes_a_member": stored / (guilds * members),
        }


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--guilds", type=int, default=10_000)
        parser.add_argument("--members", type=int, default=20)
        parser.add_argument("--shards", type=int, default=8)

    options = arguments(__doc__, add)
    report = Report("start")
    with child.sink() as (_, uri):
        for cache in (False, True):
            runs = []
            for _ in range(options.runs):
                report.see_load()
                runs.append(asyncio.run(once(options.guilds, options.members, options.shards, cache, uri)))
            report.row(
                f"{options.guilds:,} guilds of {options.members}, cache {'on' if cache else 'off'}",
                **{key: [run[key] for run in runs] for key in runs[0]},
            )
    report.write()


if __name__ == "__main__":
    main()
