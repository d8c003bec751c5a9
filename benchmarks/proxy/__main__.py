"""What the gateway proxy costs: ``python -m benchmarks.proxy [--runs N] [--only WORDS]``

*CPU* is the proxy process's by the kernel's own clock, divided by the events that its bots were delivered: a stand-in
for Discord, the gateway (with cache and event log), a RabbitMQ of its own, the proxy on the core that is measured, and
a plain reader as the bots. Beside it in the same turns: *twilight proxy by queues* of ``benchmarks.peers``
(gateway-proxy's own way inside), which holds the gateway connections itself and gives no guarantee. What the gateway
and the broker spend on an event meanwhile stands in the same row.

*Latency* is from the write to Discord's socket to the read from the bot's, at half of the highest rate at which the
reader keeps up with so many connections. *Start* is from IDENTIFY to the last GUILD_CREATE. *Resume* is from RESUME to
RESUMED over entries that came while the bots were away, all bots at once after a kill -9 of the proxy.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rateway.demo.broker import PrivateBroker

from benchmarks.path.__main__ import PACED_SECONDS, WARM_UP, Stands, Variant, recipe_of, round_of
from benchmarks.peers import build
from benchmarks.peers.__main__ import CLIENT, QUEUES, Peers
from benchmarks.rig import child, machine
from benchmarks.rig.child import Child
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.streams import TOKEN, Recipe

OURS = "rateway proxy"
# (shards, events a second a shard; None: as fast as it goes)
LOADS: list[tuple[int, float | None]] = [(4, None), (64, None), (64, 50)]
# Of one round flat out.
EVENTS = 80_000
# (shards, guilds of each, members of each guild)
STARTS = [(1, 1_000, 100), (64, 16, 100)]
# (connections, entries of the cluster's log that came while they were away)
RESUMES = [(1, 10_000), (64, 10_000)]
# Longer than the largest start takes by far.
PATIENCE = 180.0
# Between two looks at whether all has arrived, seconds.
LOOK = 0.05


@dataclass(frozen=True, slots=True)
class Place:
    """Where the proxy is measured: everything around it."""

    discord: Child
    gateway: Child
    broker: str
    broker_pids: list[int]
    folder: Path
    shards: int

    def send(self, **command: Any) -> dict[str, Any]:
        """Have Discord send events; what it says of them."""
        self.discord.say(json.dumps(command))
        told: dict[str, Any] = self.discord.fact("sent", PATIENCE)
        return told


class Broker:
    """A RabbitMQ, of which each round gets a virtual host of its own: event logs of other rounds cost nothing there."""

    def __init__(self, node: PrivateBroker) -> None:
        assert node.pid is not None
        self.pids = machine.tree(node.pid)
        self._node = node
        self._numbers = itertools.count(1)

    @contextmanager
    def vhost(self) -> Iterator[str]:
        """An address."""
        name = f"round-{next(self._numbers)}"
        address = self._node.create_vhost(name)
        try:
            yield address
        finally:
            self._node.delete_vhost(name)


@contextmanager
def place(recipe: Recipe, broker: Broker, cores: set[int] = machine.AROUND) -> Iterator[Place]:
    """The gateway on these cores, with all shards live, quiet, and a fresh event log."""
    with (
        broker.vhost() as address,
        tempfile.TemporaryDirectory() as name,
        child.discord(recipe, "zstd") as (discord, port),
    ):
        folder, api = Path(name), f"http://127.0.0.1:{port}/api/v10"
        environment = child.settings(api, address, folder, recipe.shards, EVENT_LOG="stream")
        gateway = child.child("rateway", environment=environment, log=folder / "gateway.log", cores=cores)
        with gateway as running:
            discord.fact("live", PATIENCE)
            child.until_quiet(machine.tree(running.pid), patience=PATIENCE)
            yield Place(discord, running, address, broker.pids, folder, recipe.shards)


@contextmanager
def proxy(at: Place, port: int, cores: set[int] = machine.MEASURED) -> Iterator[Child]:
    """The proxy, on a core of its own unless others are named."""
    environment = {
        "DISCORD_TOKEN": TOKEN, "AMQP_URI": at.broker, "PROXY_ADDRESS": f"127.0.0.1:{port}", "LOG_FORMAT": "text",
        "STATE_DIR": str(at.folder / "proxy"),
    }  # fmt: skip
    log = at.folder / "proxy.log"
    with child.child("rateway", "proxy", environment=environment, log=log, cores=cores) as found:
        yield found


@contextmanager
def reader() -> Iterator[Child]:
    """The bots."""
    with child.child("benchmarks.proxy.client") as found:
        yield found


def ask(bots: Child, **command: Any) -> dict[str, Any]:
    """What the bots answer to a command; Hung when a connection was refused."""
    bots.say(json.dumps(command))
    told: dict[str, Any] = json.loads(bots.hear(PATIENCE))
    if "refused" in told:
        raise child.Hung(f"the bots were refused: {told['refused']}")
    return told


def arrived(bots: Child, due: int) -> tuple[float, int]:
    """Wait for so many frames; when that was (monotonic), and how many are missing where nothing more comes."""
    before, since = -1, time.monotonic()
    while True:
        told, now = ask(bots, do="count"), time.monotonic()
        if told["gone"]:
            raise child.Hung(f"{told['gone']} bots lost their connection")
        count = int(told["count"])
        if count >= due:
            return now, 0
        if count != before:
            before, since = count, now
        elif now > since + 10:
            return since, due - count
        time.sleep(LOOK)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def shards_of(count: int) -> list[list[int]]:
    """What each bot identifies as."""
    return [[shard, count] for shard in range(count)]


# Figures.


def cost(shards: int, rate: float | None, broker: Broker) -> dict[str, float]:
    """One round: what an event costs the proxy, the gateway and the broker."""
    variant = Variant(shards=shards, rate=rate, broker="rabbitmq", cache="all")
    with (
        place(recipe_of(variant, EVENTS), broker) as at,
        proxy(at, port := free_port()) as found,
        reader() as bots,
    ):
        ask(bots, do="identify", port=port, shards=shards_of(shards))
        begun = int(ask(bots, do="count")["count"])
        _, missing = arrived(bots, begun + int(at.send(do="flood", events=WARM_UP)["sent"]))
        trees = machine.tree(found.pid), machine.tree(at.gateway.pid), at.broker_pids
        child.until_quiet(trees[0], beside=[*trees[1], *trees[2]])
        count = int(ask(bots, do="count")["count"]) + missing
        before, began = [machine.cpu_ns(each) for each in trees], time.monotonic()
        if rate is None:
            told = at.send(do="flood", events=EVENTS // shards)
        else:
            told = at.send(do="pace", rate=rate, seconds=PACED_SECONDS)
        sent = int(told["sent"])
        ended, missing = arrived(bots, count + sent)
        child.until_quiet(trees[0], quiet_ms=3.0, beside=[*trees[1], *trees[2]])
        us = [(machine.cpu_ns(each) - was) / 1000 / sent for each, was in zip(trees, before, strict=True)]
        return {
            "us": us[0], "gateway_us": us[1], "broker_us": us[2], "per_s": sent / (ended - began), "missing": missing,
        }  # fmt: skip


def latency(shards: int, rate: float, broker: Broker) -> list[float]:
    """Milliseconds from Discord's socket to the bot's, of every event of one round at so many a second in all."""
    each = rate / shards
    recipe = recipe_of(Variant(shards=shards, rate=each), EVENTS)
    with (
        place(recipe, broker, machine.ALL) as at,
        proxy(at, port := free_port(), machine.ALL) as found,
        reader() as bots,
    ):
        ask(bots, do="identify", port=port, shards=shards_of(shards))
        count = int(ask(bots, do="count")["count"])
        count += int(at.send(do="flood", events=50)["sent"])
        arrived(bots, count)
        child.until_quiet(machine.tree(found.pid), beside=at.broker_pids)
        ask(bots, do="note")
        told = at.send(do="pace", rate=each, seconds=PACED_SECONDS, times=True)
        arrived(bots, count + int(told["sent"]))
        came = ask(bots, do="times")["times"]
    found_ms: list[float] = []
    for shard, sent in told["times"].items():
        if len(came[shard]) != len(sent):
            raise child.Hung(f"shard {shard}: {len(sent)} events were sent, {len(came[shard])} have come")
        found_ms += [(after - before) / 1e6 for before, after in zip(sent, came[shard], strict=True)]
    return sorted(found_ms)


def latency_alone(shards: int, rate: float) -> list[float]:
    """The same on all cores, at a node of its own: RabbitMQ deletes logs of rounds before for a while."""
    with machine.on_all_cores(), PrivateBroker(management=True) as node:
        return latency(shards, rate, Broker(node))


def start(shards: int, guilds: int, members: int, broker: Broker) -> dict[str, float]:
    """Seconds from IDENTIFY to the last GUILD_CREATE, and what a connection weighs."""
    recipe = Recipe(shards=shards, guilds=guilds, members=members, events=10)
    with place(recipe, broker) as at, proxy(at, port := free_port()) as found, reader() as bots:
        # The process itself: with one connection that has come and gone.
        ask(bots, do="identify", port=port, shards=[[0, shards]])
        ask(bots, do="leave")
        child.until_quiet(machine.tree(found.pid))
        before = machine.pss(found.pid)
        told = ask(bots, do="identify", port=port, shards=shards_of(shards))
        child.until_quiet(machine.tree(found.pid))
        grown = (machine.pss(found.pid) - before) / 1e6 / shards
        return {"seconds": told["seconds"][-1], "mb_each": grown}


def resume(shards: int, entries: int, broker: Broker) -> dict[str, float]:
    """Seconds from the first RESUME to the last RESUMED after a kill -9 of the proxy."""
    recipe = Recipe(shards=shards, guilds=8, members=20, events=entries // shards + 50)
    with place(recipe, broker) as at, reader() as bots:
        with proxy(at, port := free_port()) as first:
            ask(bots, do="identify", port=port, shards=shards_of(shards))
            count = int(ask(bots, do="count")["count"])
            arrived(bots, count + int(at.send(do="flood", events=20)["sent"]))
            first.process.kill()
        ask(bots, do="leave")
        sent = int(at.send(do="flood", events=entries // shards)["sent"])
        child.until_quiet(machine.tree(at.gateway.pid), beside=at.broker_pids)
        with proxy(at, port := free_port()) as second:
            # It listens and knows the layout: a bot of its own has been served.
            with reader() as early:
                ask(early, do="identify", port=port, shards=[[0, shards]])
            child.until_quiet(machine.tree(second.pid), beside=at.broker_pids)
            told = ask(bots, do="resume", port=port)
        return {"seconds": told["seconds"][-1], "missing": sent - int(told["replayed"])}


def percentile(values: list[float], share: float) -> float:
    """Of sorted values."""
    return values[min(len(values) - 1, int(len(values) * share))]


def wanted(only: str, label: str) -> bool:
    """Whether a row is asked for."""
    return all(word in label for word in only.split())


def costs(report: Report, runs: int, only: str, broker: Broker) -> dict[int, float]:
    """Rows of the cost, ours and the peer's in turns; the rates that ours was read at flat out, by connections."""
    labels = [
        f"{OURS}, {shards} × {'flat out' if rate is None else f'{rate:g}/s each'}" for shards, rate in LOADS
    ]
    # The first build takes minutes: not for rows that nobody asked for.
    peer = any(wanted(only, label) for label in labels) and bool(build.rust())
    rates: dict[int, float] = {}
    rows: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        client = stack.enter_context(child.child("benchmarks.peers.client"))
        stands = Stands(stack, {QUEUES: Peers(client).start})
        for _ in range(runs):
            for shards, rate in LOADS:
                load = "flat out" if rate is None else f"{rate:g}/s each"
                label = f"{OURS}, {shards} × {load}"
                if not wanted(only, label):
                    continue
                report.see_load()
                try:
                    found = cost(shards, rate, broker)
                except child.Hung as hung:
                    print(f"{label}: {hung}")
                    continue
                rows.setdefault(label, []).append(found)
                if rate is None:
                    rates[shards] = max(found["per_s"], rates.get(shards, 0.0))
                print(f"  {label}: {found}", flush=True)
                if peer:
                    variant = Variant(compression="zlib", shards=shards, rate=rate, broker=CLIENT, who=QUEUES)
                    other = round_of(
                        variant, recipe_of(variant, EVENTS), stands, client.count, "", [client.pid]
                    )
                    rows.setdefault(f"{QUEUES}, {shards} × {load}", []).append(other)
                    rows.setdefault(f"ratio, {shards} × {load}", []).append(
                        {"ratio": found["us"] / other["us"]}
                    )
                    print(
                        f"  {variant.label}: {other['us']:.2f} µs, ratio {found['us'] / other['us']:.2f}",
                        flush=True,
                    )
    for label, found_rows in rows.items():
        report.row(label, **{key: [each[key] for each in found_rows] for key in found_rows[0]})
    return rates


def main() -> None:
    """Measure and write the results."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", default="", help="only rows whose label has all of these words")
        parser.add_argument("--rate", type=float, help="events a second for the latency, in place of half")

    options = arguments(__doc__, add)
    os.chdir(child.ROOT)
    report = Report("proxy")
    with PrivateBroker(management=True) as node:
        broker = Broker(node)
        most = costs(report, options.runs, options.only, broker)
        for shards in (4, 64):
            label = f"latency, {shards} shards"
            rate = options.rate or most.get(shards, 0.0) / 2
            if not rate or not wanted(options.only, label):
                continue
            rounds = [latency_alone(shards, rate) for _ in range(options.runs)]
            shares = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}
            figures = {name: [percentile(each, share) for each in rounds] for name, share in shares.items()}
            report.row(label, rate=rate, **figures)
        for shards, guilds, members in STARTS:
            label = f"start, {shards} × {guilds} guilds of {members}"
            if wanted(options.only, label):
                starts = [start(shards, guilds, members, broker) for _ in range(options.runs)]
                report.row(label, **{key: [each[key] for each in starts] for key in starts[0]})
        for connections, entries in RESUMES:
            label = f"resume, {connections} over {entries:,} entries"
            if wanted(options.only, label):
                resumes = [resume(connections, entries, broker) for _ in range(options.runs)]
                report.row(label, **{key: [each[key] for each in resumes] for key in resumes[0]})
    report.write()


if __name__ == "__main__":
    main()
