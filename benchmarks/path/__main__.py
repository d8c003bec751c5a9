"""CPU of the whole gateway an event: socket → inflate → envelope → cache → confirmed, persistent publish.

python -m benchmarks.path [--full] [--runs N] [--broker sink,rabbitmq] [--only WORDS]

Every figure is the CPU of the gateway's process tree by the kernel's nanosecond clocks, divided by the events, and
stands beside the floor (the same frames inflated and their envelopes decoded in one loop, nothing else) measured in
the same minute: rounds of all variants are taken in turns, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.rig import child, machine
from benchmarks.rig.child import Child
from benchmarks.rig.rabbitmq import Counter, rabbitmq
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.streams import Recipe

CACHES: dict[str, dict[str, str]] = {
    "off": {"CACHE_ENABLED": "false"},
    "on": {"CACHE_MEMBERS_FROM_EVENTS": "false"},
    "all": {},
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the gateway. ``rate`` is events a second a shard, None as fast as it goes.

    ``known``: as many events have gone by before, so that most people have been heard of; else nobody has.
    """

    compression: str = "zstd"
    cache: str = "off"
    shards: int = 4
    rate: float | None = None
    broker: str = "sink"
    who: str = "rateway"
    known: bool = False
    settings: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        load = "flat out" if self.rate is None else f"{self.rate:g}/s each"
        more = "".join(f" {key}={value}" for key, value in self.settings.items())
        what = f" cache {self.cache}" if self.who == "rateway" else ""
        more += " known" if self.known else ""
        return f"{self.who} {self.compression}{what}, {self.shards} × {load}, {self.broker}{more}"


# What `make bench` takes, most telling first.
SUBSET = [
    Variant(),
    Variant(cache="on"),
    Variant(cache="all"),
    Variant(cache="all", known=True),
    Variant(compression="zlib"),
    Variant(compression="zlib", cache="all"),
    Variant(compression="zlib", cache="all", known=True),
    Variant(shards=64, rate=50),
    Variant(shards=64, rate=50, cache="all"),
    Variant(broker="rabbitmq"),
    Variant(broker="rabbitmq", cache="all"),
    Variant(who="hikari", broker="rabbitmq"),
    Variant(who="discord.py", broker="rabbitmq"),
]


def matrix() -> list[Variant]:
    """Everything."""
    found = list(SUBSET)
    for broker in ("sink", "rabbitmq"):
        for shards in (1, 8, 64):
            for compression in ("zstd", "zlib", "none"):
                found += [
                    Variant(compression=compression, cache=cache, shards=shards, broker=broker)
                    for cache in CACHES
                ]
    for cache in ("off", "all"):
        found += [
            Variant(shards=4, rate=400, cache=cache),
            Variant(shards=64, rate=50, cache=cache, settings={"SHARDS_PER_CLUSTER": "8"}),
            Variant(shards=64, rate=50, cache=cache, broker="rabbitmq"),
            Variant(cache=cache, settings={"PROCESSES": "2", "SHARDS_PER_CLUSTER": "2"}),
        ]
    for who in ("hikari", "discord.py"):
        found.append(Variant(who=who, rate=50, broker="rabbitmq"))
    return list(dict.fromkeys(found))


def recipe_of(variant: Variant, events: int) -> Recipe:
    """Streams long enough for the flood of one round, or for its seconds at a rate."""
    shards = variant.shards
    guilds = 50 if shards <= 8 else 8
    each = (
        max(400, events // shards)
        if variant.rate is None
        else int(variant.rate * PACED_SECONDS * 1.5) + 50 + WARM_UP
    )
    return Recipe(shards=shards, guilds=guilds, members=100, events=each * (2 if variant.known else 1))


# How long a rate is held in one round.
PACED_SECONDS = 5.0
# Events a shard before a rate is held: sequences then have three digits.
WARM_UP = 150
# A gateway that rests still looks after its timers: 5 ms in 0.2 s would be 2.5 % of a core.
QUIET_MS = 3.0


@contextmanager
def standing(variant: Variant, recipe: Recipe, folder: Path, broker: str) -> Iterator[tuple[Child, Child]]:
    """(Discord, gateway), all shards live and quiet."""
    with child.discord(recipe, variant.compression) as (discord, port), ExitStack() as stack:
        api = f"http://127.0.0.1:{port}/api/v10"
        if variant.who == "rateway":
            more = {"COMPRESSION": NAMES[variant.compression]} | CACHES[variant.cache] | variant.settings
            gateway = stack.enter_context(child.gateway(folder, api, broker, variant.shards, **more))
        else:
            told = json.dumps({"api": api, "port": port, "broker": broker, "shards": variant.shards})
            log = folder / "naive.log"
            gateway = stack.enter_context(
                child.child("benchmarks.path.naive", variant.who, told, log=log, cores=machine.MEASURED)
            )
        try:
            discord.fact("live")
        except child.Hung as hung:
            raise child.Hung(f"{hung}{gateway.tail()}") from None
        child.until_quiet(machine.tree(gateway.pid))
        yield discord, gateway


NAMES = {"zstd": "zstd-stream", "zlib": "zlib-stream", "none": "none"}


def round_of(variant: Variant, events: int, counter: Counter, address: str) -> dict[str, float]:
    """One round: a fresh gateway, a fresh store, one load; what an event cost."""
    recipe = recipe_of(variant, events)
    with (
        tempfile.TemporaryDirectory() as name,
        standing(variant, recipe, Path(name), address) as (discord, gateway),
    ):
        pids = machine.tree(gateway.pid)
        if variant.rate is not None:
            # A shard's numbers have as many digits for weeks, and its names are known.
            discord.say(json.dumps({"do": "flood", "events": WARM_UP}))
            discord.fact("sent")
            child.until_quiet(pids)
        flooded = recipe.events
        if variant.known:
            flooded //= 2
            discord.say(json.dumps({"do": "flood", "events": flooded}))
            discord.fact("sent")
            child.until_quiet(pids)
        before, asleep, began = machine.cpu_ns(pids), machine.switches(pids[-1]), time.monotonic()
        base = counter()
        if variant.rate is None:
            discord.say(json.dumps({"do": "flood", "events": flooded}))
        else:
            discord.say(json.dumps({"do": "pace", "rate": variant.rate, "seconds": PACED_SECONDS}))
        sent = discord.fact("sent")
        after, ended = child.until_quiet(pids, quiet_ms=QUIET_MS)
        # Asked over HTTP, RabbitMQ tells its count late; only work of the gateway moves the end.
        while counter() - base < sent["sent"]:
            again, later = child.until_quiet(pids, quiet_ms=QUIET_MS)
            if again - after > 5e6:
                after, ended = again, later
        return {
            "us": (after - before) / 1000 / sent["sent"],
            "per_s": sent["sent"] / (ended - began),
            "wakeups": (machine.switches(pids[-1]) - asleep) / sent["sent"],
        }


def floor_of(variant: Variant, events: int) -> float:
    """The floor for a variant's frames, µs an event."""
    told = json.dumps(asdict(recipe_of(variant, events)))
    measured = machine.MEASURED
    with child.child("benchmarks.path.floor", told, variant.compression, "3", cores=measured) as found:
        return float(statistics.median(json.loads(found.hear())))


def measure(report: Report, variants: list[Variant], runs: int, events: int) -> None:
    """All variants in turns, ``runs`` times; a row for each."""
    found: dict[Variant, list[dict[str, float]]] = {variant: [] for variant in variants}
    floors: dict[Variant, list[float]] = {variant: [] for variant in variants}
    brokers = {variant.broker for variant in variants}
    with ExitStack() as stack:
        address: dict[str, tuple[Counter, str]] = {}
        if "sink" in brokers:
            process, uri = stack.enter_context(child.sink())
            address["sink"] = (_ask(process), uri)
        if "rabbitmq" in brokers:
            address["rabbitmq"] = stack.enter_context(rabbitmq())
        for turn in range(runs):
            for variant in variants:
                load = report.see_load()
                few = events // 8 if variant.who != "rateway" else events
                try:
                    result = round_of(variant, few, *address[variant.broker])
                except child.Hung as hung:
                    print(f"{variant.label}: {hung}")
                    continue
                floor = floor_of(replace(variant, who="rateway"), few)
                found[variant].append(result)
                floors[variant].append(floor)
                print(
                    f"  round {turn + 1}: {variant.label}: {result['us']:.2f} µs, floor {floor:.2f}, "
                    f"{result['us'] / floor:.2f} ×, {result['per_s']:,.0f}/s, load {load:.1f}",
                    flush=True,
                )
    print()
    for variant in variants:
        results = found[variant]
        if results:
            report.row(
                variant.label,
                us=[each["us"] for each in results],
                floor_us=floors[variant],
                ratio=[each["us"] / floor for each, floor in zip(results, floors[variant], strict=True)],
                events_per_s=[each["per_s"] for each in results],
                wakeups=[each["wakeups"] for each in results],
                variant=asdict(variant),
            )


def _ask(process: Child) -> Counter:
    def count() -> int:
        process.say("")
        return int(process.hear())

    return count


def draw(rows: list[dict[str, Any]]) -> None:
    """A bar for each row, in multiples of its floor."""
    from benchmarks.rig import pictures

    pictures.bars(
        "path",
        "CPU an event, whole gateway, in multiples of inflating and reading its envelope",
        [(row["label"], row["ratio"]) for row in rows],
        "× floor",
    )


def main() -> None:
    """Take the rounds, write results and picture."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--broker", default="sink,rabbitmq", help="which of sink, rabbitmq")
        parser.add_argument("--only", default="", help="only variants whose label has all of these words")
        parser.add_argument("--events", type=int, default=80_000, help="events of one round flat out")

    options = arguments(__doc__, add)
    variants = [
        each
        for each in (matrix() if options.full else SUBSET)
        if each.broker in options.broker.split(",")
        and all(word in each.label for word in options.only.split())
    ]
    os.chdir(child.ROOT)
    machine.keep_away()
    report = Report("path", "python -m benchmarks.path" + (" --full" if options.full else ""))
    measure(report, variants, options.runs, options.events)
    report.write()
    draw(report.rows)


if __name__ == "__main__":
    main()
