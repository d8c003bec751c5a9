"""The cost of a killed runner, and who bears it. ``python -m benchmarks.kills``

Two runners under steady traffic; one after the other is killed with -9, 50 times by default. Asked are the
time from the kill until all of its shards have RESUMED (Discord's clock), and by how much an event of the *other*
process is later at the broker than it was sent, from the kill until the shards are back; beside it stands the same
without any kill, since source, sink and gateway share the cores. No identify may be spent, and no event may be missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import time
from collections.abc import Iterable
from typing import Any

from rateway_simulator.options import SimulatorOptions
from rateway_simulator.world.dispatch import WorldOptions

from benchmarks.rig import child
from benchmarks.rig.child import Child, Hung
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import Stage, stage

LOOK_S = 0.02
PATIENCE_S = 60.0
# So long before each kill the same is measured without one, and so long after it. Each runner is then killed every
# five seconds and more: one that dies sooner, again and again, would be restarted later and later.
CALM_S = 1.0
AFTER_S = 1.5
PROCESSES = 2


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which ``share`` of all lie; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Watch:
    """When events were sent, and when the sink had them. Questions to the sink leave the simulator's loop free."""

    def __init__(self, it: Stage, sink: Child) -> None:
        self._it = it
        self._sink = sink

    async def begin(self) -> int:
        """Forget what was seen; the number of the next event."""
        self._sink.say("clear")
        await asyncio.to_thread(self._sink.hear)
        return self._it.sim.ledger.events

    async def late(self, since: int, shards: set[int]) -> list[float]:
        """Seconds from its sending to its arrival, of each event of these shards since then."""
        self._sink.say("tell")
        seen: list[tuple[int, int, int]] = json.loads(await asyncio.to_thread(self._sink.hear))
        came: dict[tuple[int, int], int] = {}
        for shard, seq, at in seen:
            came.setdefault((shard, seq), at)
        # The simulator notes wall time, the sink the monotonic clock.
        offset = time.time() - time.monotonic()
        return [
            came[sent.shard, sent.seq] / 1e9 + offset - sent.time
            for sent in self._it.sim.ledger.log(since)
            if sent.shard in shards and (sent.shard, sent.seq) in came
        ]


async def resumed(it: Stage, since: int, shards: set[int]) -> float:
    """Unix time at which the last of the shards had resumed; ``since`` counts the journal's entries before."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        at = {
            entry.shard: entry.time
            for entry in list(it.sim.ledger.journal)[since:]
            if entry.what == "resumed" and entry.shard in shards
        }
        if shards <= at.keys():
            return max(at.values())
        await asyncio.sleep(LOOK_S)
    raise Hung(f"shards {shards} have not resumed after {PATIENCE_S:.0f} s{it.gateway.tail()}")


async def runners(it: Stage) -> dict[str, tuple[int, list[int]]]:
    """By role: pid and clusters, once all processes answer."""
    status = await it.until(
        lambda status: (
            len(status["processes"]) == PROCESSES + 1
            and sum(each["shards_ready"] for each in status["clusters"]) == it.shards
        )
    )
    return {
        each["role"]: (each["pid"], each["clusters"])
        for each in status["processes"]
        if each["role"] != "supervisor"
    }


async def rounds(kills: int, shards: int, rate: float, uri: str, sink: Child, report: Report) -> None:
    """One life of the gateway, runner after runner killed."""
    each = shards // PROCESSES
    world = WorldOptions(guilds=20 * shards, members_per_guild=5)
    options = SimulatorOptions(world=world, shards=shards, max_concurrency=shards, recorded=True)
    back: list[float] = []
    calm: list[float] = []
    others: list[float] = []
    worst: list[float] = []
    settings: dict[str, Any] = {
        "SHARDS_PER_CLUSTER": str(each),
        "PROCESSES": str(PROCESSES),
        "CACHE_ENABLED": "false",
    }
    async with stage(options, uri, **settings) as it:
        await it.live()
        it.sim.set_rate(rate, recorded=True)
        watch = Watch(it, sink)
        for turn in range(kills):
            found = await runners(it)
            pid, clusters = found[f"runner {1 + turn % PROCESSES}"]
            victims = {shard for number in clusters for shard in range(each * (number - 1), each * number)}
            rest = set(range(shards)) - victims
            since = await watch.begin()
            await asyncio.sleep(CALM_S)
            calm += await watch.late(since, rest)
            entries = len(it.sim.ledger.journal)
            since = await watch.begin()
            killed = time.time()
            os.kill(pid, signal.SIGKILL)
            again = await resumed(it, entries, victims)
            await asyncio.sleep(max(0.0, killed + AFTER_S - time.time()))
            # What was sent last may still be on its way.
            await asyncio.sleep(2 * LOOK_S)
            late = await watch.late(since, rest)
            back.append(again - killed)
            others += late
            worst.append(max(late, default=0.0))
            print(
                f"  kill {turn + 1}: back after {back[-1]:.2f} s, the others' latest event {1000 * worst[-1]:.0f} ms",
                flush=True,
            )
        it.sim.set_rate(0)
        await it.settled()
        gaps = sum(one["gaps"] for one in (await it.status())["clusters"])
        ledger = it.sim.ledger
    report.row(
        f"{kills} kills of a runner, {shards} shards in {PROCESSES} processes, {rate:g} events/s",
        back_p50_s=quantile(back, 0.5),
        back_p99_s=quantile(back, 0.99),
        back_most_s=max(back),
        others_p50_ms=1000 * quantile(others, 0.5),
        others_p99_ms=1000 * quantile(others, 0.99),
        others_most_ms=1000 * max(others),
        without_p99_ms=1000 * quantile(calm, 0.99),
        without_most_ms=1000 * max(calm),
        kills_with_one_over_100_ms=sum(1 for late in worst if late > 0.1),
        gaps=gaps,
        identifies_beyond_the_start=ledger.counts["identify"] - shards,
        violations=len(ledger.noted),
    )


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--kills", type=int, default=50)
        parser.add_argument("--shards", type=int, default=8)
        parser.add_argument("--rate", type=float, default=400.0, help="events a second, all shards together")

    options = arguments(__doc__, add)
    report = Report("kills")
    report.see_load()
    with child.child("benchmarks.path.sink", "trace") as sink:
        uri = f"amqp://guest:guest@127.0.0.1:{int(sink.hear())}/"
        asyncio.run(rounds(options.kills, options.shards, options.rate, uri, sink, report))
    report.write()


if __name__ == "__main__":
    main()
