"""What does a restart cost? Time and CPU until 1,000 shards have RESUMED. ``python -m benchmarks.resume``

The gateway is killed with -9 and started again; Discord holds a few events for each shard. No identify may be spent.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rig import child
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import stage
from rateway.simulator.options import SimulatorOptions
from rateway.simulator.world_dispatch import WorldOptions


async def rounds(shards: int, runs: int, uri: str, report: Report) -> list[dict[str, float]]:
    """Start once, then kill and resume so many times."""
    options = SimulatorOptions(
        world=WorldOptions(guilds=shards, members_per_guild=5), shards=shards, max_concurrency=shards,
        identifies_total=2 * shards + 1000, replay_seconds=600.0,
    )  # fmt: skip
    settings = {"SHARDS_PER_CLUSTER": "64", "CACHE_ENABLED": "false"}
    found = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with stage(options, uri, folder=folder, **settings) as it:
            await it.live()
            await asyncio.sleep(1.0)
            for _ in range(runs):
                report.see_load()
                resumed = it.sim.ledger.counts["resume"]
                identified = it.sim.ledger.counts["identify"]
                it.gateway.process.kill()
                it.gateway.process.wait()
                it.sim.set_rate(5000, events=2 * shards)
                while it.sim.source.left:  # noqa: ASYNC110  # the source announces nothing
                    await asyncio.sleep(0.02)
                began = time.monotonic()
                it.gateway = child.Child(
                    "rateway",
                    environment=child.settings(it.sim.api_url, uri, folder, shards, **settings),
                    log=folder / "gateway.log",
                )
                await it.until(
                    lambda status: sum(each["shards_ready"] for each in status["clusters"]) == shards
                )
                seconds = time.monotonic() - began
                await it.settled()
                found.append(
                    {
                        "seconds": seconds,
                        "cpu_s": it.cpu(),
                        "ms_a_shard": 1000 * it.cpu() / shards,
                        "resumed": it.sim.ledger.counts["resume"] - resumed,
                        "identifies": it.sim.ledger.counts["identify"] - identified,
                        "violations": len(it.sim.ledger.violations),
                    }
                )
            it.gateway.end()
    return found


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--shards", type=int, default=1000)

    options = arguments(__doc__, add)
    report = Report("resume", "python -m benchmarks.resume")
    with child.sink() as (_, uri):
        runs = asyncio.run(rounds(options.shards, options.runs, uri, report))
        report.row(
            f"{options.shards:,} shards resume", **{key: [run[key] for run in runs] for key in runs[0]}
        )
    report.write()


if __name__ == "__main__":
    main()
