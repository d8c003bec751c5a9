"""The delay of one cluster's events beside messages that are refused on another. ``python -m benchmarks.refused``

Two clusters in one process, their events into RabbitMQ at a rate. For some seconds nothing is asked; for as many,
somebody publishes 100,000 messages a minute to the second cluster that have to be refused: slips, bad JSON, ids that
are no text, properties over the bound, batches of unknown types, commands without a shard. *p99* is of the first
cluster's events, from the socket to the broker's confirm, by its own histogram (inside a bucket, whose edges are a
factor of two apart, interpolated); *write p99* of them from the socket to our write.

The broker has to carry the refused messages too, and on two cores it shares one with the simulator and the flood. So a
third turn has the same messages taken by a program that only acknowledges them: what the first cluster's events lose
beside that is the broker's. The three take turns; ratios are of the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
from typing import Any

from rateway.demo.broker import PrivateBroker
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.world.dispatch import WorldOptions

from benchmarks.rig import child, machine
from benchmarks.rig.child import Child
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import Stage, stage

# Messages a second that are refused: 100,000 a minute (goal).
REFUSED = 100_000 / 60
# So many times as long (goal).
GOAL = 1.5
QUIET, TAKEN, REFUSALS = "quiet", "beside messages that another takes", "beside refusals"


def quantile(buckets: dict[str, int], share: float) -> float:
    """Seconds, from cumulative counts by upper edge; inside a bucket by the logarithm."""
    edges = sorted((float(edge), count) for edge, count in buckets.items())
    wanted = share * edges[-1][1]
    below, before = 0.0, 0
    for edge, count in edges:
        if count >= wanted and count > before:
            low = below or edge / 2
            if math.isinf(edge):
                return low
            return float(low * (edge / low) ** ((wanted - before) / (count - before)))
        below, before = edge, count
    return math.nan


async def look(it: Stage) -> dict[str, Any]:
    """Latencies of the first cluster, and what was refused on the second."""
    status = await it.until(lambda status: len(status["clusters"]) == 2)
    first, second = sorted(status["clusters"], key=lambda cluster: int(cluster["cluster"]))
    refused = sum(second["commands"].values()) + sum(second["queries"].values())
    publisher = first["publisher"]
    return {
        "confirmed": publisher["latency_buckets"],
        "written": publisher["written_buckets"],
        "refused": refused,
        "cpu": it.cpu(),
    }


async def span(it: Stage, flood: Child | None, seconds: float) -> dict[str, float]:
    """One run: what the first cluster's events took in it."""
    before = await look(it)
    if flood is None:
        await asyncio.sleep(seconds)
    else:
        flood.say(f"{int(REFUSED * seconds)} {REFUSED}")
        said = await asyncio.to_thread(flood.hear, 4 * seconds + 30)
        assert said.strip() == "sent", said
    after = await look(it)
    counts, written = (
        {edge: seen - before[what].get(edge, 0) for edge, seen in after[what].items()}
        for what in ("confirmed", "written")
    )
    return {
        "p50_ms": 1000 * quantile(counts, 0.5),
        "p99_ms": 1000 * quantile(counts, 0.99),
        "write_p99_ms": 1000 * quantile(written, 0.99),
        "events": max(counts.values()),
        "refused": after["refused"] - before["refused"],
        "cpu_s": after["cpu"] - before["cpu"],
    }


async def measure(report: Report, uri: str, runs: int, rate: float, seconds: float) -> None:
    """Quiet and flooded in turns."""
    options = SimulatorOptions(
        world=WorldOptions(guilds=20, members_per_guild=20), shards=2, max_concurrency=2
    )
    found: dict[str, list[dict[str, float]]] = {QUIET: [], TAKEN: [], REFUSALS: []}
    async with stage(options, uri, SHARDS_PER_CLUSTER="1") as it:
        await it.live()
        with (
            child.child("benchmarks.rig.refusals", uri, "2", cores=machine.AROUND) as flood,
            child.child("benchmarks.rig.refusals", uri, "3", "--taken", cores=machine.AROUND) as taken,
        ):
            assert flood.hear().strip() == taken.hear().strip() == "ready"
            it.sim.set_rate(rate)
            await asyncio.sleep(2.0)
            # The first of each is not counted: connections, templates and the log's first lines.
            for run in range(runs + 1):
                report.see_load()
                for name, who in ((QUIET, None), (TAKEN, taken), (REFUSALS, flood)):
                    told = await span(it, who, seconds)
                    if run:
                        found[name].append(told)
    for name, spans in found.items():
        report.row(name, **{key: [one[key] for one in spans] for key in spans[0]})
    median = {name: statistics.median(one["p99_ms"] for one in spans) for name, spans in found.items()}
    report.row(f"{REFUSALS} / {QUIET}", ratio=median[REFUSALS] / median[QUIET], goal=GOAL)
    report.row(f"{TAKEN} / {QUIET}", ratio=median[TAKEN] / median[QUIET])
    report.row(f"{REFUSALS} / {TAKEN}", ratio=median[REFUSALS] / median[TAKEN])


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rate", type=float, default=1_000.0, help="events a second, of both clusters")
        parser.add_argument("--seconds", type=float, default=10.0, help="of one run")

    options = arguments(__doc__, add)
    report = Report("refused")
    with PrivateBroker(management=False) as broker:
        asyncio.run(measure(report, broker.uri, options.runs, options.rate, options.seconds))
    report.write()


if __name__ == "__main__":
    main()
