"""How fast are questions answered, and do they delay events? ``python -m benchmarks.queries``

Over RabbitMQ: one asker keeps a number of questions on their way and counts what comes back. CPU is the gateway's.
 *storm*: what a storm of questions does to the time that events take, from the gateway's own histogram.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import deque
from typing import Any

from pamqp import commands as spec
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import Stage, stage
from rateway.demo.broker import PrivateBroker
from rateway.simulator.options import SimulatorOptions
from rateway.simulator.world_dispatch import WorldOptions
from rateway.transports.amqp import uri
from rateway.transports.amqp.connection import Channel, connect

# The contract's exchange and key of queries for cluster 1.
EXCHANGE, KEY, REPLIES = "rateway-1", "cache", "bench-replies"


class Asker:
    """Keeps ``at_once`` questions under way on one channel."""

    def __init__(self, channel: Channel, write: Any, bodies: list[bytes], at_once: int) -> None:
        self.times: list[float] = []
        self.failed = 0
        self._channel, self._write, self._bodies = channel, write, bodies
        self._turn = 0
        self._left = 0
        self._began: deque[float] = deque()
        self._done = asyncio.Event()
        self._at_once = at_once
        channel.on_delivery = self._answered

    async def ask(self, count: int) -> float:
        """So many questions; seconds until the last answer."""
        self.times, self._left = [], count
        self._done.clear()
        began = time.monotonic()
        for _ in range(min(self._at_once, count)):
            self._send()
        async with asyncio.timeout(120):
            await self._done.wait()
        return time.monotonic() - began

    def _send(self) -> None:
        body = self._bodies[self._turn % len(self._bodies)]
        self._turn += 1
        self._left -= 1
        properties = spec.Basic.Properties(reply_to=REPLIES, correlation_id=str(self._turn))
        self._began.append(time.monotonic())
        self._write(
            frame.marshal(spec.Basic.Publish(0, EXCHANGE, KEY), 1)
            + frame.marshal(ContentHeader(0, len(body), properties), 1)
            + frame.marshal(ContentBody(body), 1)
        )

    def _answered(self, method: object, properties: spec.Basic.Properties, body: bytes) -> None:
        self.times.append(time.monotonic() - self._began.popleft())
        if (properties.headers or {}).get("status") not in (None, "ok"):
            self.failed += 1
        if self._left > 0:
            self._send()
        elif not self._began:
            self._done.set()


async def rounds(report: Report, address: str, runs: int, count: int, rate: float) -> None:
    """Each kind of question in turns, then a storm beside events."""
    world = WorldOptions(guilds=200, members_per_guild=50)
    options = SimulatorOptions(world=world, shards=4, max_concurrency=4)
    async with stage(options, address) as it:
        await it.live()
        guild_id = str(it.sim.world.guild_ids[0])
        state = it.sim.world.state(["member"], [int(guild_id)])["member"]
        user_id = next(iter(state.values()))["user"]["id"]
        questions = {"Guild": [guild_id], "Member": [guild_id, user_id], "User": [user_id]}
        connection = await connect(uri.parse(address), name="benchmark: queries")
        channel = await connection.channel(1)
        await channel.call(spec.Queue.Declare(0, REPLIES, exclusive=True), spec.Queue.DeclareOk)
        await channel.call(spec.Basic.Consume(0, REPLIES, "", no_ack=True), spec.Basic.ConsumeOk)
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in questions}
        for _ in range(runs):
            report.see_load()
            for kind, arguments_ in questions.items():
                body = json.dumps({"type": kind, "arguments": arguments_}).encode()
                asker = Asker(channel, connection.write, [body], 100)
                await asker.ask(count // 10)
                cpu = it.cpu()
                seconds = await asker.ask(count)
                times = sorted(asker.times)
                found[kind].append(
                    {
                        "per_s": count / seconds,
                        "us": (it.cpu() - cpu) * 1e6 / count,
                        "p50_ms": times[len(times) // 2] * 1000,
                        "p99_ms": times[int(len(times) * 0.99)] * 1000,
                        "failed": asker.failed,
                    }
                )
        for kind, each in found.items():
            report.row(f"{kind}, 100 at once", **{key: [one[key] for one in each] for key in each[0]})
        await storm(report, it, Asker(channel, connection.write, [body], 100), rate)
        await connection.close()


async def storm(report: Report, it: Stage, asker: Asker, rate: float) -> None:
    """Events at a rate, without and with questions beside them."""
    it.sim.set_rate(rate, recorded=True)
    await asyncio.sleep(2)
    for label, asking in (("events alone", False), ("events beside a storm of questions", True)):
        before = await _buckets(it)
        deadline = time.monotonic() + 4
        answered = 0
        while time.monotonic() < deadline:
            if asking:
                await asker.ask(2000)
                answered += 2000
            else:
                await asyncio.sleep(0.2)
        after = await _buckets(it)
        counts = {edge: after[edge] - before.get(edge, 0) for edge in after}
        total = max(counts.values())
        edges = {
            name: next(edge for edge, seen in counts.items() if seen >= share * total)
            for name, share in (("confirm_p50_s", 0.5), ("confirm_p99_s", 0.99))
        }
        report.row(label, events_per_s=total / 4, answered_per_s=answered / 4, **edges)


async def _buckets(it: Stage) -> dict[str, int]:
    status = await it.status()
    found: dict[str, int] = {}
    for each in status["clusters"]:
        for edge, seen in each["publisher"]["latency_buckets"].items():
            found[edge] = found.get(edge, 0) + seen
    return found


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--count", type=int, default=20_000, help="questions of a run")
        parser.add_argument("--rate", type=float, default=2000.0, help="events a second beside the storm")

    options = arguments(__doc__, add)
    report = Report("queries", "python -m benchmarks.queries")
    with PrivateBroker(management=False) as broker:
        asyncio.run(rounds(report, broker.uri, options.runs, options.count, options.rate))
    report.write()


if __name__ == "__main__":
    main()
