"""The rate of answered queries, and how far they delay events. ``python -m benchmarks.queries``

As a worker would ask, in plain AMQP; the gateway has a core to itself where there are two. *over RabbitMQ* it shares
the others with RabbitMQ, which takes more of them than all else, with Discord's stand-in and with who asks. *alone*
RabbitMQ's part is played by a process that takes every event and makes the queries by hand (``rig/inquirer.py``): what
is left of a query's time is the gateway's own.

*100 at once*: a hundred queries under way of each type; CPU is the gateway's, so that 1e6 / µs is what one core
answers. *queries a second*: all types mixed, evenly, at half of what a core must answer, beside events at a rate; a
query's time counts from the moment that it was due. *events*: how long events take from the socket to the broker's
confirm, and to their write, which is the part of the gateway, by its own histograms, alone, beside a storm of
queries and beside answers of a megabyte.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rateway.demo.broker import PrivateBroker

from benchmarks.rig import child, machine
from benchmarks.rig.child import Child
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.streams import Recipe, recorded

# What a core must answer (goal).
GOAL = 15_000
# Events begin so long before the queries and end so long behind them.
AROUND_S = 0.7
SHARDS, GUILDS, MEMBERS = 4, 50, 50
Found = dict[str, Any]
Bodies = dict[str, list[str]]
Arguments = dict[str, list[list[Any]]]


@dataclass(frozen=True, slots=True)
class Scene:
    """A gateway that is live, who sends it events, and who asks."""

    discord: Child
    gateway: Child
    asker: Child
    folder: Path

    def ask(self, **said: Any) -> Found:
        """One run of queries, with the gateway's CPU."""
        pids = machine.tree(self.gateway.pid)
        cpu = machine.cpu_ns(pids)
        self.asker.say(json.dumps(said))
        found: Found = json.loads(self.asker.hear(150.0))
        spent = (machine.cpu_ns(pids) - cpu) / 1e9
        failed = found["failed"]
        # Members leave while they are asked for.
        failed.pop("not_found", None)
        if failed.keys() - {"expired", "queue_full", "unanswered"}:
            raise RuntimeError(f"queries failed: {failed}")
        # What came too late for this machine just now is a figure, and no answer.
        return {**found, "cpu": spent, "too_late": sum(failed.values())}

    def buckets(self) -> tuple[dict[str, int], ...]:
        """The gateway's histograms: how many took up to so many seconds. Of its events' times to the confirm, and to
        their write, and of its queries' times.
        """
        (cluster,) = child.status(self.folder)["clusters"]
        publisher = cluster["publisher"]
        return publisher["latency_buckets"], publisher["written_buckets"], cluster["query_buckets"]


@contextmanager
def scene(discord: Child, port: int, broker: str, asker: Child) -> Iterator[Scene]:
    """A gateway with its cache full, at rest."""
    discord.forget()
    api = f"http://127.0.0.1:{port}/api/v10"
    with (
        tempfile.TemporaryDirectory() as name,
        child.gateway(Path(name), api, broker, SHARDS) as gateway,
    ):
        discord.fact("live")
        child.until_quiet([gateway.pid])
        yield Scene(discord, gateway, asker, Path(name))


@contextmanager
def events_beside(it: Scene, rate: float, seconds: float) -> Iterator[Found]:
    """What becomes of the events meanwhile: how many a second, their time from the socket to the confirm, and to the
    write to the broker, which is the gateway's part of it; and by its own clock the queries', from its socket to its
    answer (the upper edges of the histograms' buckets).
    """
    found: Found = {}
    it.discord.say(json.dumps({"do": "pace", "rate": rate / SHARDS, "seconds": seconds + 2 * AROUND_S}))
    time.sleep(AROUND_S)
    before, began = it.buckets(), time.monotonic()
    spent = machine.cpu_ns([it.gateway.pid])
    yield found
    elapsed = time.monotonic() - began
    found["core"] = (machine.cpu_ns([it.gateway.pid]) - spent) / 1e9 / elapsed
    after = it.buckets()
    it.discord.fact("sent")
    for word, was, now in zip(("event", "written", "own"), before, after, strict=True):
        counts = {edge: seen - was.get(edge, 0) for edge, seen in now.items()}
        total = max(counts.values())
        if word == "event":
            found["events_per_s"] = total / elapsed
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99)) if total else ():
            edge = next(edge for edge, seen in counts.items() if seen >= share * total)
            found[f"{word}_{name}"] = float(edge) * 1000


def questions(recipe: Recipe) -> Bodies:
    """Bodies of each type of query for single entities, about entities all over the world."""
    chance, bodies = random.Random(1), Bodies()
    for begin, _ in recorded(recipe):
        for raw in begin[1:]:
            guild = json.loads(raw)["d"]
            members = chance.sample(guild["members"], min(10, len(guild["members"])))
            asked: Arguments = {
                "Guild": [[guild["id"]]],
                "User": [[each["user"]["id"]] for each in members],
                "GuildChannel": [[each["id"]] for each in guild["channels"][:5]],
                "Member": [[guild["id"], each["user"]["id"]] for each in members],
                "Role": [[each["id"]] for each in guild["roles"][:5]],
            }
            for kind, each_asked in asked.items():
                bodies.setdefault(kind, []).extend(
                    json.dumps({"type": kind, "arguments": each}) for each in each_asked
                )
    for listed in bodies.values():
        chance.shuffle(listed)
    return bodies


def singles(report: Report, it: Scene, where: str, bodies: Bodies, runs: int, count: int) -> None:
    """µs of the gateway's CPU for each type."""
    found: dict[str, list[Found]] = {kind: [] for kind in bodies}
    for listed in bodies.values():
        it.ask(bodies=listed, count=count // 10, at_once=100)
    for _ in range(runs):
        report.see_load()
        for kind, listed in bodies.items():
            told = it.ask(bodies=listed, count=count, at_once=100)
            us = told["cpu"] * 1e6 / count
            found[kind].append({"us": us, "per_core": 1e6 / us, "per_s": count / told["seconds"], **told})
    keys = ("us", "per_core", "per_s", "p50_ms", "p99_ms")
    for kind, each in found.items():
        report.row(f"{where}: {kind}, 100 at once", **{key: [one[key] for one in each] for key in keys})


def beside(
    report: Report,
    begin: Callable[[], AbstractContextManager[Scene]],
    where: str,
    bodies: Bodies,
    runs: int,
    rate: float,
    seconds: float,
) -> None:
    """Queries beside events, and events beside queries; each run with a gateway of its own."""
    chance = random.Random(2)
    mixed = [chance.choice(listed) for _ in range(800) for listed in bodies.values()]
    asked: list[Found] = []
    for _ in range(runs):
        report.see_load()
        with begin() as it:
            it.ask(bodies=mixed, count=2_000, at_once=100)
            with events_beside(it, rate, seconds) as events:
                told = it.ask(bodies=mixed, count=int(GOAL / 2 * seconds), rate=GOAL / 2)
            asked.append({**told, **events})
    keys = (
        "p50_ms",
        "p99_ms",
        "own_p99_ms",
        "too_late",
        "core",
        "events_per_s",
        "event_p50_ms",
        "event_p99_ms",
        "written_p50_ms",
        "written_p99_ms",
    )
    report.row(
        f"{where}: {GOAL / 2:,.0f} queries a second", **{key: [one[key] for one in asked] for key in keys}
    )
    alone, storm, large = list[Found](), list[Found](), list[Found]()
    batch = [
        {"type": "GuildMembers", "arguments": json.loads(each)["arguments"], "limit": 1000}
        for each in bodies["Guild"][:50]
    ]
    for _ in range(runs):
        with begin() as it, events_beside(it, rate, seconds) as events:
            time.sleep(seconds)
        alone.append(events)
        with begin() as it, events_beside(it, rate, seconds) as events:
            count = int(6_000 * seconds)
            told = it.ask(bodies=mixed, count=count, at_once=1_000)
        storm.append({**events, "answered_per_s": count / told["seconds"]})
        with begin() as it, events_beside(it, rate, seconds) as events:
            count = int(10 * seconds)
            told = it.ask(bodies=[json.dumps({"queries": batch})], count=count, at_once=2)
        large.append({**events, "megabytes": told["bytes"] / count / 1e6})
    for words, each in (
        ("events alone", alone),
        ("events beside a storm of queries", storm),
        ("events beside answers of a megabyte", large),
    ):
        report.row(f"{where}: {words}", **{key: [one[key] for one in each] for key in each[0]})


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--count", type=int, default=20_000, help="queries of a run")
        parser.add_argument("--rate", type=float, default=10_000.0, help="events a second beside the queries")
        parser.add_argument("--seconds", type=float, default=5.0, help="that a rate is held for")
        parser.add_argument("--broker", default="rabbitmq,alone", help="which of rabbitmq, alone")

    options = arguments(__doc__, add)
    report = Report("queries")
    span = options.seconds + 2 * AROUND_S
    recipe = Recipe(SHARDS, GUILDS, MEMBERS, int(options.rate / SHARDS * span * 1.1) + 100)
    bodies = questions(recipe)

    def measure(where: str, broker: str, asker: Child) -> None:
        told = json.dumps(asdict(recipe))
        with child.child("benchmarks.rig.discord", told, "zstd", cores=machine.AROUND) as discord:
            port = discord.fact("port")["port"]

            def begin() -> AbstractContextManager[Scene]:
                return scene(discord, port, broker, asker)

            with begin() as it:
                singles(report, it, where, bodies, options.runs, options.count)
            beside(report, begin, where, bodies, options.runs, options.rate, options.seconds)

    if "alone" in options.broker.split(","):
        with child.child("benchmarks.rig.inquirer", cores=machine.AROUND) as inquirer:
            measure("alone", f"amqp://guest:guest@127.0.0.1:{int(inquirer.hear())}/", inquirer)
    if "rabbitmq" in options.broker.split(","):
        with (
            PrivateBroker(management=False) as broker,
            child.child("benchmarks.rig.asker", broker.uri, cores=machine.AROUND) as asker,
        ):
            asker.fact("ready")
            measure("over RabbitMQ", broker.uri, asker)
    report.write()


if __name__ == "__main__":
    main()
