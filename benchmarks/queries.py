"""How fast are queries answered, and do they delay events? ``python -m benchmarks.queries``

Over RabbitMQ, with plain AMQP as a worker would ask. *per core*: a hundred queries under way of each type; CPU is the
gateway's, so that 1e6 / µs is what one core answers. *half of that*: the same queries at half of what a core answers,
evenly, beside events at a rate; a query's time counts from the moment that it was due. *events*: how long events take
from the socket to RabbitMQ's confirm, by the gateway's own histogram, alone and beside a storm of queries and beside
answers of a megabyte.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.rig.child import Child, child
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import Stage, stage
from rateway.demo.broker import PrivateBroker
from rateway.simulator.options import SimulatorOptions
from rateway.simulator.world_dispatch import WorldOptions

# What a core must answer (goal), and how long a rate is held for.
GOAL = 15_000
SECONDS = 5.0
Found = dict[str, Any]


async def ask(asker: Child, **said: Any) -> Found:
    """One run of the asker."""
    asker.say(json.dumps(said))
    found: Found = json.loads(await asyncio.to_thread(asker.hear, 150.0))
    failed = found["failed"]
    # Members leave while they are asked for.
    failed.pop("not_found", None)
    if failed.keys() - {"expired", "queue_full", "unanswered"}:
        raise RuntimeError(f"queries failed: {failed}")
    # What came too late for this machine just now is a figure, and no answer.
    return {**found, "too_late": sum(failed.values())}


def questions(it: Stage) -> dict[str, list[str]]:
    """Bodies of each type of query for single entities, about entities all over the world."""
    world = it.sim.world
    bodies: dict[str, list[str]] = {}
    for guild_id in world.guild_ids[:50]:
        state = world.state(["member", "channel", "role"], [guild_id])
        user_ids = [each["user"]["id"] for each in list(state["member"].values())[:10]]
        asked = {
            "Guild": [[str(guild_id)]],
            "Member": [[str(guild_id), user_id] for user_id in user_ids],
            "User": [[user_id] for user_id in user_ids],
            "GuildChannel": [[each["id"]] for each in list(state["channel"].values())[:5]],
            "Role": [[each["id"]] for each in list(state["role"].values())[:5]],
        }
        for kind, listed in asked.items():
            bodies.setdefault(kind, []).extend(
                json.dumps({"type": kind, "arguments": each}) for each in listed
            )
    return bodies


async def rounds(report: Report, address: str, runs: int, count: int, rate: float) -> None:
    """Each type in turns; then the paced run, the storm and the large answers beside events."""
    world = WorldOptions(guilds=200, members_per_guild=50)
    options = SimulatorOptions(world=world, shards=4, max_concurrency=4)
    async with stage(options, address) as it:
        await it.live()
        bodies = questions(it)
        with child("benchmarks.rig.asker", address) as asker:
            asker.fact("ready")
            cost = await singles(report, it, asker, bodies, runs, count)
            it.sim.set_rate(rate, recorded=True)
            await asyncio.sleep(2)
            await paced(report, it, asker, bodies, runs, 0.5e6 / cost)
            await paced(report, it, asker, bodies, runs, GOAL / 2)
            await beside(report, it, asker, bodies["Member"])


async def singles(
    report: Report, it: Stage, asker: Child, bodies: dict[str, list[str]], runs: int, count: int
) -> float:
    """µs of the gateway's CPU for each type; the mean of them all."""
    found: dict[str, list[Found]] = {kind: [] for kind in bodies}
    for kind in bodies:
        await ask(asker, bodies=bodies[kind], count=count // 10, at_once=100)
    for _ in range(runs):
        report.see_load()
        for kind in bodies:
            cpu = it.cpu()
            told = await ask(asker, bodies=bodies[kind], count=count, at_once=100)
            us = (it.cpu() - cpu) * 1e6 / count
            found[kind].append({"us": us, "per_core": 1e6 / us, "per_s": count / told["seconds"], **told})
    keys = ("us", "per_core", "per_s", "p50_ms", "p99_ms")
    for kind, each in found.items():
        report.row(f"{kind}, 100 at once", **{key: [one[key] for one in each] for key in keys})
    all_us: list[float] = [one["us"] for each in found.values() for one in each]
    return sum(all_us) / len(all_us)


async def paced(
    report: Report, it: Stage, asker: Child, bodies: dict[str, list[str]], runs: int, rate: float
) -> None:
    """All types mixed, at a rate, beside the events."""
    mixed = [body for listed in zip(*bodies.values(), strict=False) for body in listed]
    found = []
    for _ in range(runs):
        async with events_beside(it) as events:
            told = await ask(asker, bodies=mixed, count=int(rate * SECONDS), rate=rate)
        found.append({**told, **events})
    keys = ("p50_ms", "p99_ms", "too_late", "events_per_s", "event_p50_ms", "event_p99_ms")
    report.row(f"{rate:,.0f} queries a second", **{key: [one[key] for one in found] for key in keys})


async def beside(report: Report, it: Stage, asker: Child, bodies: list[str]) -> None:
    """The events' own time, alone, beside a storm, and beside answers of a megabyte."""
    async with events_beside(it) as events:
        await asyncio.sleep(SECONDS)
    report.row("events alone", **events)
    told: Found = {}
    async with events_beside(it) as events:
        told = await ask(asker, bodies=bodies, count=30_000, at_once=1_000)
    report.row("events beside a storm of queries", answered_per_s=30_000 / told["seconds"], **events)
    guild_ids = [str(guild_id) for guild_id in it.sim.world.guild_ids[:50]]
    large = json.dumps(
        {"queries": [{"type": "GuildMembers", "arguments": [each], "limit": 1000} for each in guild_ids]}
    )
    async with events_beside(it) as events:
        told = await ask(asker, bodies=[large], count=50, at_once=2)
    report.row("events beside answers of a megabyte", megabytes=told["bytes"] / 50e6, **events)


@asynccontextmanager
async def events_beside(it: Stage) -> AsyncIterator[Found]:
    """What became of the events meanwhile: how many a second, and their time from the socket to the confirm (the
    upper edges of the histogram's buckets).
    """
    found: Found = {}
    before, began = await _buckets(it), time.monotonic()
    yield found
    seconds = time.monotonic() - began
    after = await _buckets(it)
    counts = {edge: after[edge] - before.get(edge, 0) for edge in after}
    total = max(counts.values())
    found["events_per_s"] = total / seconds
    for name, share in (("event_p50_ms", 0.5), ("event_p99_ms", 0.99)):
        edge = next(edge for edge, seen in counts.items() if seen >= share * total)
        found[name] = float(edge) * 1000


async def _buckets(it: Stage) -> dict[str, int]:
    status = await it.until(lambda status: True)
    found: dict[str, int] = {}
    for each in status["clusters"]:
        for edge, seen in each["publisher"]["latency_buckets"].items():
            found[edge] = found.get(edge, 0) + seen
    return found


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--count", type=int, default=20_000, help="queries of a run")
        parser.add_argument("--rate", type=float, default=10_000.0, help="events a second beside the queries")

    options = arguments(__doc__, add)
    report = Report("queries", "python -m benchmarks.queries")
    with PrivateBroker(management=False) as broker:
        asyncio.run(rounds(report, broker.uri, options.runs, options.count, options.rate))
    report.write()


if __name__ == "__main__":
    main()
