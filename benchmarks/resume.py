"""The cost of a restart: time and CPU until 1,000 shards have RESUMED. ``python -m benchmarks.resume``

The gateway is stopped (SIGTERM) or killed with -9, and started again; Discord holds a few events for each shard. The
time is from the start of the new process to the last RESUMED that Discord sent. No identify may be spent.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rateway_simulator.options import SimulatorOptions
from rateway_simulator.world.dispatch import WorldOptions

from benchmarks.rig import child
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import stage


async def rounds(shards: int, runs: int, uri: str, report: Report) -> dict[str, list[dict[str, float]]]:
    """Start once, then end and resume so many times, by the two ways to end in turn."""
    options = SimulatorOptions(
        world=WorldOptions(guilds=shards, members_per_guild=5), shards=shards, max_concurrency=shards,
        identifies_total=2 * shards + 1000, replay_seconds=600.0,
    )  # fmt: skip
    settings = {"SHARDS_PER_CLUSTER": "64", "CACHE_ENABLED": "false"}
    found: dict[str, list[dict[str, float]]] = {"after SIGTERM": [], "after kill -9": []}
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with stage(options, uri, folder=folder, **settings) as it:
            await it.live()
            await asyncio.sleep(1.0)
            for turn in range(len(found) * runs):
                report.see_load()
                ending = list(found)[turn % len(found)]
                resumed = it.sim.ledger.counts["resume"]
                identified = it.sim.ledger.counts["identify"]
                entries = len(it.sim.ledger.journal)
                leaving = time.monotonic()
                if ending == "after SIGTERM":
                    it.gateway.process.terminate()
                else:
                    it.gateway.process.kill()
                await asyncio.to_thread(it.gateway.process.wait)
                left = time.monotonic() - leaving
                it.sim.set_rate(5000, events=2 * shards)
                while it.sim.source.left:  # noqa: ASYNC110  # the source announces nothing
                    await asyncio.sleep(0.02)
                began = time.time()
                it.gateway = child.Child(
                    "rateway",
                    environment=child.settings(it.sim.api_url, uri, folder, shards, **settings),
                    log=folder / "gateway.log",
                )
                await it.until(
                    lambda status: sum(each["shards_ready"] for each in status["clusters"]) == shards
                )
                at = [
                    entry.time
                    for entry in list(it.sim.ledger.journal)[entries:]
                    if entry.what == "resumed" and entry.time >= began
                ]
                await it.settled()
                found[ending].append(
                    {
                        "seconds": max(at) - began,
                        "ending_s": left,
                        "cpu_s": it.cpu(),
                        "ms_a_shard": 1000 * it.cpu() / shards,
                        "resumed": it.sim.ledger.counts["resume"] - resumed,
                        "identifies": it.sim.ledger.counts["identify"] - identified,
                        "violations": len(it.sim.ledger.noted),
                    }
                )
            it.gateway.end()
    return found


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--shards", type=int, default=1000)

    options = arguments(__doc__, add)
    report = Report("resume")
    with child.sink() as (_, uri):
        runs = asyncio.run(rounds(options.shards, options.runs, uri, report))
        for ending, found in runs.items():
            figures = {key: [run[key] for run in found] for key in found[0]}
            report.row(f"{options.shards:,} shards resume {ending}", **figures)
    report.write()


if __name__ == "__main__":
    main()
