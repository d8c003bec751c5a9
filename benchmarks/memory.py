"""What does it weigh? Bytes a guild, member, shard and session, and of each process. ``python -m benchmarks.memory``

Sizes are proportional set sizes (shared pages by their share). Three questions:
*processes*: supervisor and workers without guilds; *shards*: 1, 100 and 1,000 shards with both compressions, idle and
after traffic on each; *members*: what guilds and members add, in memory and in the store on disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.rig import child, machine
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import stage
from benchmarks.rig.streams import Recipe
from rateway.demo.broker import free_ports
from rateway.simulator.options import SimulatorOptions
from rateway.simulator.world_dispatch import WorldOptions

NAMES = {"zstd": "zstd-stream", "zlib": "zlib-stream"}
# Inflated bytes that pass each shard before it is weighed once more.
TRAFFIC = 5_000_000
# Bytes of one event of the mix, about.
EVENT = 700


async def processes(report: Report, uri: str) -> None:
    """A supervisor and two workers that hold hardly anything."""
    options = SimulatorOptions(world=WorldOptions(guilds=2, members_per_guild=2), shards=2, max_concurrency=2)
    async with stage(options, uri, SHARDS_PER_CLUSTER="1", PROCESSES="2") as it:
        await it.live()
        supervisor, *workers = it.pids
        report.row(
            "processes",
            supervisor_mb=machine.pss(supervisor) / 1e6,
            worker_mb=[machine.pss(pid) / 1e6 for pid in workers],
        )
    async with stage(options, uri, HTTP_ADDRESS=f"127.0.0.1:{free_ports(1)[0]}") as it:
        await it.live()
        report.row("one process that does all", process_mb=it.pss() / 1e6)


def shards(report: Report, uri: str, count: int, compression: str, traffic: int) -> None:
    """So many shards, idle and after traffic; the stand-in replays, so that it can feed a thousand."""
    events = max(200, traffic // EVENT)
    # The streams of 1,000 shards with 5 MB each would be 5 GB: shards beyond the eighth get less, and it is said.
    each = events if count <= 8 else max(200, min(events, 800_000 // count))
    recipe = Recipe(shards=count, guilds=2, members=10, events=each)
    more = {
        "COMPRESSION": NAMES[compression],
        "CACHE_ENABLED": "false",
        "SHARDS_PER_CLUSTER": str(min(count, 64)),
    }
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory())
        discord, port = stack.enter_context(child.discord(recipe, compression))
        api = f"http://127.0.0.1:{port}/api/v10"
        gateway = stack.enter_context(child.gateway(Path(name), api, uri, count, **more))
        discord.fact("live")
        child.until_quiet([gateway.pid], quiet_ms=20.0)
        idle = machine.pss(gateway.pid)
        discord.say(json.dumps({"do": "flood", "events": each}))
        discord.fact("sent")
        child.until_quiet([gateway.pid], quiet_ms=20.0)
        used = machine.pss(gateway.pid)
    report.row(
        f"{count:,} shards, {compression}",
        idle_mb=idle / 1e6,
        used_mb=used / 1e6,
        used_kb_a_shard=used / 1e3 / count,
        inflated_mb_a_shard=each * EVENT / 1e6,
    )


async def members(report: Report, uri: str, guilds: int, each: int) -> None:
    """What guilds and members add to an empty gateway."""
    found = []
    for count in (1, guilds):
        world = WorldOptions(guilds=count, members_per_guild=each)
        options = SimulatorOptions(world=world, shards=1)
        async with stage(options, uri) as it:
            await it.live()
            status = await it.status()
            stored = sum((one["cache"] or {}).get("disk_bytes", 0) for one in status["clusters"])
            found.append((it.pss(), stored))
    memory, disk = (found[1][place] - found[0][place] for place in (0, 1))
    report.row(
        f"{guilds:,} guilds of {each} members, cached",
        memory_bytes_a_member=memory / guilds / each,
        disk_bytes_a_member=disk / guilds / each,
        memory_mb=memory / 1e6,
    )


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--shards", default="1,100,1000")
        parser.add_argument("--guilds", type=int, default=1000)
        parser.add_argument("--members", type=int, default=100)
        parser.add_argument("--traffic", type=int, default=TRAFFIC, help="inflated bytes a shard")

    options = arguments(__doc__, add)
    report = Report("memory", "python -m benchmarks.memory")
    report.see_load()
    with child.sink() as (_, uri):
        asyncio.run(processes(report, uri))
        for count in map(int, options.shards.split(",")):
            for compression in NAMES:
                shards(report, uri, count, compression, options.traffic)
        asyncio.run(members(report, uri, options.guilds, options.members))
    report.write()


if __name__ == "__main__":
    main()
