"""Bytes a guild, member, shard and session, and of each process. ``python -m benchmarks.memory``

Sizes are proportional set sizes (shared pages by their share). Three questions:
*processes*: supervisor and runners without guilds; *shards*: 1, 100 and 1,000 shards with both compressions, idle and
after traffic on each; *members*: what guilds and members add, in memory and in the store on disk (with what
the store has in reserve).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from rateway.demo.broker import free_ports
from rateway.runtime.runner.memory import give_back
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.world.dispatch import WorldOptions

from benchmarks.path.floor import inflater, packed
from benchmarks.rig import child, machine
from benchmarks.rig.child import Child, Hung
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import stage
from benchmarks.rig.streams import Recipe, recorded

NAMES = {"zstd": "zstd-stream", "zlib": "zlib-stream"}
# Inflated bytes that pass each shard before it is weighed once more.
TRAFFIC = 5_000_000
# And that all shards are sent at once after that, as fast as the gateway takes it.
FLOOD = 5_000_000
# Bytes of one event of the mix, about.
EVENT = 700
# Events of each shard that come at a time as long as it is no flood.
PORTION = 25
# Five gigabytes take a minute, or a few beside others.
PATIENCE_S = 400.0
# The gateway looks once a second whether it is calm.
CALM_S = 4.0


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
    http = f"127.0.0.1:{free_ports(1)[0]}"
    async with stage(options, uri, SHARDS_PER_CLUSTER="1", PROCESSES="2", HTTP_ADDRESS=http) as it:
        await it.live()
        for path in ("/metrics", "/health/ready"):
            await asyncio.to_thread(ask, f"http://{http}{path}")
        report.row("processes, with HTTP", supervisor_mb=machine.pss(it.pids[0]) / 1e6)
    async with stage(options, uri, HTTP_ADDRESS=f"127.0.0.1:{free_ports(1)[0]}") as it:
        await it.live()
        report.row("one process that does all", process_mb=it.pss() / 1e6)


def ask(url: str) -> None:
    """Have the page's server answer once; that it is not ready just then is an answer, too."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        error.read()


def shards(report: Report, uri: str, count: int, compression: str, traffic: int, flood: int) -> None:
    """So many shards: idle, after traffic, and in and after a flood of all of them at once. They are sent the same."""
    events = max(PORTION, traffic // EVENT // PORTION * PORTION)
    recipe = Recipe(shards=count, guilds=2, members=10, events=events + flood // EVENT, alike=True)
    more = {
        "COMPRESSION": NAMES[compression],
        "CACHE_ENABLED": "false",
        "SHARDS_PER_CLUSTER": str(min(count, 64)),
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        discord, port = stack.enter_context(child.discord(recipe, compression))
        api = f"http://127.0.0.1:{port}/api/v10"
        gateway = stack.enter_context(child.gateway(folder, api, uri, count, **more))
        discord.fact("live")
        idle = rested(gateway, folder)
        for _ in range(events // PORTION):
            discord.say(json.dumps({"do": "flood", "events": PORTION}))
            discord.fact("sent", PATIENCE_S)
        used = rested(gateway, folder)
        before = published(folder)
        machine.forget_peak(gateway.pid)
        discord.say(json.dumps({"do": "flood", "events": flood // EVENT}))
        flooded = rested(gateway, folder, before + discord.fact("sent", PATIENCE_S)["sent"])
        peak = machine.peak(gateway.pid)
    each = decompressor(recipe, compression)
    report.row(
        f"{count:,} shards, {compression}",
        idle_mb=idle / 1e6,
        used_mb=used / 1e6,
        peak_mb=peak / 1e6,
        flooded_mb=flooded / 1e6,
        decompressor_kb=each / 1e3,
        inflated_mb_a_shard=events * EVENT / 1e6,
    )


def rested(gateway: Child, folder: Path, events: int = 0) -> int:
    """The gateway's size once it has published so many *events* at least, everything is confirmed and it had a calm
    moment to give memory back, bytes.
    """
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        child.until_quiet([gateway.pid], quiet_ms=20.0, patience=PATIENCE_S)
        if published(folder) >= events and not published(folder, "unconfirmed"):
            time.sleep(CALM_S)
            return machine.pss(gateway.pid)
    raise Hung(f"the gateway has unconfirmed events after {PATIENCE_S:.0f} s{gateway.tail()}")


def published(folder: Path, which: str = "published") -> int:
    """Events that the gateway has published so far, or another count of its publishers; at first -1."""
    status = child.status(folder)
    return sum(each["publisher"][which] for each in status["clusters"]) if status else -1


def decompressor(recipe: Recipe, compression: str) -> float:
    """Bytes of one decompressor that has inflated the same, from the size of a hundred."""
    begin, events = packed(recorded(recipe)[0], compression)
    few = []
    before = 0
    for _ in range(101):
        inflate = inflater(compression)
        for message in (*begin, *events):
            inflate(message)
        few.append(inflate)
        if not before:
            # The first one warms up what is there once.
            give_back()
            before = machine.pss(os.getpid())
    give_back()
    return (machine.pss(os.getpid()) - before) / (len(few) - 1)


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
        parser.add_argument(
            "--traffic", type=int, default=TRAFFIC, help="inflated bytes a shard, in portions"
        )
        parser.add_argument("--flood", type=int, default=FLOOD, help="inflated bytes a shard, all at once")
        parser.add_argument("--compressions", default=",".join(NAMES))
        parser.add_argument("--only-shards", action="store_true", help="leave processes and members out")

    options = arguments(__doc__, add)
    report = Report("memory")
    report.see_load()
    with child.sink() as (_, uri):
        if not options.only_shards:
            asyncio.run(processes(report, uri))
        for count in map(int, options.shards.split(",")):
            for compression in options.compressions.split(","):
                shards(report, uri, count, compression, options.traffic, options.flood)
        if not options.only_shards:
            asyncio.run(members(report, uri, options.guilds, options.members))
    report.write()


if __name__ == "__main__":
    main()
