"""CPU of the whole gateway an event: socket → inflate → envelope → cache → confirmed, persistent publish.

python -m benchmarks.path [--full] [--runs N] [--broker sink,rabbitmq] [--only WORDS]

Every figure is the CPU of the gateway's process tree by the kernel's nanosecond clocks, divided by the events, and
stands beside the floor (the same frames inflated and their envelopes decoded in one loop, nothing else) measured in
the same minute: rounds of all variants are taken in turns, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.rig import child, machine
from benchmarks.rig.child import Child
from benchmarks.rig.rabbitmq import Counter, logs_deleted, rabbitmq
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
    ``queues`` is what the broker does with events: unbound, bound (a worker reads them), slow (one that does not keep
    up). ``size``: the least bytes that an event has.
    """

    compression: str = "zstd"
    cache: str = "off"
    shards: int = 4
    rate: float | None = None
    broker: str = "sink"
    who: str = "rateway"
    known: bool = False
    queues: str = "unbound"
    size: int = 0
    settings: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        load = "flat out" if self.rate is None else f"{self.rate:g}/s each"
        more = "".join(f" {key}={value}" for key, value in self.settings.items())
        what = f" cache {self.cache}" if self.who == "rateway" else ""
        more += " known" if self.known else ""
        if self.queues != "unbound":
            more += f", queues {self.queues}"
        if self.size:
            more += f", {self.size // 1024} KB events"
        return f"{self.who} {self.compression}{what}, {self.shards} × {load}, {self.broker}{more}"


# All other rows have one cluster, and so one connection to the broker.
DEFAULT_LAYOUT = {"SHARDS_PER_CLUSTER": "8"}
# What `make bench` takes, most telling first.
SUBSET = [
    Variant(),
    Variant(cache="on"),
    Variant(cache="all"),
    Variant(cache="all", known=True),
    Variant(compression="zlib"),
    Variant(compression="zlib", cache="all"),
    Variant(shards=64, rate=50),
    Variant(shards=64, rate=50, cache="all"),
    Variant(shards=64, rate=50, settings=DEFAULT_LAYOUT),
    Variant(shards=64, rate=50, cache="all", settings=DEFAULT_LAYOUT),
    Variant(compression="zlib", shards=1000, rate=5),
    Variant(broker="rabbitmq"),
    Variant(broker="rabbitmq", settings={"EVENT_LOG": "stream"}),
    Variant(who="hikari", broker="rabbitmq"),
    Variant(who="discord.py", broker="rabbitmq"),
    Variant(rate=400, broker="rabbitmq"),
    Variant(who="hikari", rate=400, broker="rabbitmq"),
    Variant(who="discord.py", rate=400, broker="rabbitmq"),
]


def matrix() -> list[Variant]:
    """Everything."""
    found = list(SUBSET)
    found += [Variant(compression="zlib", cache="all", known=True), Variant(broker="rabbitmq", cache="all")]
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
            Variant(shards=64, rate=50, cache=cache, broker="rabbitmq"),
            Variant(cache=cache, settings={"PROCESSES": "2", "SHARDS_PER_CLUSTER": "2"}),
        ]
    return list(dict.fromkeys(found))


def recipe_of(variant: Variant, events: int) -> Recipe:
    """Streams long enough for the flood of one round, or for its seconds at a rate."""
    shards = variant.shards
    guilds = 50 if shards <= 8 else 8 if shards <= 64 else 1
    each = (
        max(400, events // shards)
        if variant.rate is None
        else int(variant.rate * PACED_SECONDS * 1.5) + 50 + WARM_UP
    )
    each *= 2 if variant.known else 1
    return Recipe(
        shards=shards, guilds=guilds, members=100 if guilds > 1 else 10, events=each, size=variant.size
    )


# Starts a gateway that is not ours: (variant, the stand-in's port, a folder for its log, the broker's address).
Starter = Callable[[Variant, int, Path, str], AbstractContextManager[Child]]
# How often, and after how many seconds each, events are looked for that have not arrived although all rests.
LOOKS, LOOK_S = 50, 0.2
# How long a rate is held in one round.
PACED_SECONDS = 4.0
# Events a shard before a rate is held: its numbers keep their digits for weeks, and its names are known.
WARM_UP = 150
# A gateway that rests still looks after its timers: 5 ms in 0.2 s would be 2.5 % of a core.
QUIET_MS = 3.0


class Stands:
    """What rounds of the same streams share: the stand-in for Discord and the floor, each started once. ``starters``:
    who else can be started than ours.
    """

    def __init__(self, stack: ExitStack, starters: Mapping[str, Starter]) -> None:
        self._stack = stack
        self.starters = starters
        self._discords: dict[tuple[Recipe, str], tuple[Child, int]] = {}
        self._floors: dict[tuple[Recipe, str], Child] = {}

    def discord(self, recipe: Recipe, compression: str) -> tuple[Child, int]:
        """The stand-in and its port."""
        key = (recipe, compression)
        if key not in self._discords:
            self._discords[key] = self._stack.enter_context(child.discord(recipe, compression))
        return self._discords[key]

    def floor(self, recipe: Recipe, compression: str, per_s: float | None = None) -> float:
        """What an event costs at least, µs: the median of three rounds just now. With ``per_s`` (events a second, all
        shards together) it is one round at that rate, with sleeps between.
        """
        key = (recipe, compression)
        if key not in self._floors:
            told = json.dumps(asdict(recipe))
            found = child.child("benchmarks.path.floor", told, compression, cores=machine.MEASURED)
            self._floors[key] = self._stack.enter_context(found)
        self._floors[key].say("3" if per_s is None else f"1 {per_s}")
        return float(statistics.median(json.loads(self._floors[key].hear())))


def ours(variant: Variant, port: int, folder: Path, broker: str) -> AbstractContextManager[Child]:
    """The gateway itself."""
    more = {"COMPRESSION": NAMES[variant.compression]} | CACHES[variant.cache] | variant.settings
    return child.gateway(folder, f"http://127.0.0.1:{port}/api/v10", broker, variant.shards, **more)


def naive(variant: Variant, port: int, folder: Path, broker: str) -> AbstractContextManager[Child]:
    """One as one would write it in Python."""
    api = f"http://127.0.0.1:{port}/api/v10"
    told = json.dumps({"api": api, "port": port, "broker": broker, "shards": variant.shards})
    log = folder / "naive.log"
    return child.child("benchmarks.path.naive", variant.who, told, log=log, cores=machine.MEASURED)


# They need so long for an event that they get fewer of them.
NAIVE: dict[str, Starter] = {"hikari": naive, "discord.py": naive}


@contextmanager
def standing(
    variant: Variant, starter: Starter, discord: Child, port: int, folder: Path, broker: str
) -> Iterator[Child]:
    """The gateway, all shards live and quiet."""
    with starter(variant, port, folder, broker) as gateway:
        try:
            discord.fact("live")
        except child.Hung as hung:
            raise child.Hung(f"{hung}{gateway.tail()}") from None
        child.until_quiet(machine.tree(gateway.pid))
        yield gateway


NAMES = {"zstd": "zstd-stream", "zlib": "zlib-stream", "none": "none"}


def round_of(
    variant: Variant, recipe: Recipe, stands: Stands, counter: Counter, address: str, place: list[int]
) -> dict[str, float]:
    """One round: a fresh gateway, a fresh store, one load; what an event cost.

    ``counter``, ``address`` and ``place`` (its processes) are where the events go.
    """
    discord, port = stands.discord(recipe, variant.compression)
    discord.forget()
    # RabbitMQ tells its count seconds late, so it is not asked again before the end: what begins each session is
    # published as well.
    due = counter() + recipe.shards * (1 + recipe.guilds)
    with (
        tempfile.TemporaryDirectory() as name,
        _readers(variant, address),
        logs_deleted(Path(name) / "state", address),
        standing(
            variant, stands.starters.get(variant.who, ours), discord, port, Path(name), address
        ) as gateway,
    ):
        pids = machine.tree(gateway.pid)
        if variant.rate is not None:
            discord.say(json.dumps({"do": "flood", "events": WARM_UP}))
            due += int(discord.fact("sent")["sent"])
            child.until_quiet(pids)
        flooded = recipe.events
        if variant.known:
            flooded //= 2
            discord.say(json.dumps({"do": "flood", "events": flooded}))
            due += int(discord.fact("sent")["sent"])
            child.until_quiet(pids)
        before, asleep, began = machine.cpu_ns(pids), machine.switches(pids[-1]), time.monotonic()
        broker_before = machine.cpu_ns(place)
        if variant.rate is None:
            discord.say(json.dumps({"do": "flood", "events": flooded}))
        else:
            discord.say(json.dumps({"do": "pace", "rate": variant.rate, "seconds": PACED_SECONDS}))
        sent = int(discord.fact("sent")["sent"])
        due += sent
        after, ended = child.until_quiet(pids, quiet_ms=QUIET_MS, beside=place)
        for _ in range(LOOKS):
            missing = due - counter()
            if missing <= 0:
                break
            time.sleep(LOOK_S)
        broker_spent = machine.cpu_ns(place) - broker_before
        return {
            "us": (after - before) / 1000 / sent,
            "broker_us": broker_spent / 1000 / sent,
            "per_s": sent / (ended - began),
            "wakeups": (machine.switches(pids[-1]) - asleep) / sent,
            "missing": missing,
        }


@contextmanager
def _readers(variant: Variant, address: str) -> Iterator[None]:
    if variant.queues == "unbound":
        yield
        return
    slow = ["slow"] if variant.queues == "slow" else []
    with child.child("benchmarks.rig.worker", address, *slow) as worker:
        worker.hear()
        yield


def measure(
    report: Report,
    variants: list[Variant],
    runs: int,
    events: int,
    within: float = math.inf,
    starters: Mapping[str, Starter] = NAIVE,
    places: Mapping[str, tuple[Counter, str, list[int]]] = {},
    floors: bool = True,
) -> None:
    """All variants in turns, ``runs`` times; a row for each. No turn is begun that would not end ``within`` seconds.

    ``starters``: who is started how, when it is not ours; ``places``: (how many have arrived there, its address,
    its processes) of what stands in a broker's place, by name; ``floors``: whether the floor is measured as well.
    Every other turn goes backwards, so that a machine that grows slower favours none. A round that fails is left out.
    """
    began = time.monotonic()
    found: dict[Variant, dict[int, dict[str, float]]] = {variant: {} for variant in variants}
    brokers = {variant.broker for variant in variants}
    with ExitStack() as stack:
        address = dict(places)
        stands = Stands(stack, starters)
        if "sink" in brokers:
            process, uri = stack.enter_context(child.sink())
            address["sink"] = (process.count, uri, [process.pid])
        if "rabbitmq" in brokers:
            address["rabbitmq"] = stack.enter_context(rabbitmq())
        for turn in range(runs):
            spent = time.monotonic() - began
            if turn and spent + spent / turn > within:
                print(f"  {turn} of {runs} rounds: another would take longer than {within:g} s")
                break
            for place, variant in enumerate(variants if turn % 2 == 0 else reversed(variants)):
                load = report.see_load()
                recipe = recipe_of(variant, events // 8 if variant.who in NAIVE else events)
                try:
                    result = round_of(variant, recipe, stands, *address[variant.broker])
                    if floors:
                        result |= _floors(variant, recipe, stands, result["us"])
                except (child.Hung, OSError) as error:
                    print(f"  round {turn + 1} of {runs}: {variant.label}: left out: {error}", flush=True)
                    continue
                found[variant][turn + 1] = result
                done, all_of_them = turn * len(variants) + place + 1, runs * len(variants)
                spent = time.monotonic() - began
                floor = f"{result['ratio']:.2f} × floor, " if floors else ""
                print(
                    f"  round {turn + 1} of {runs}, {done} of {all_of_them}: {variant.label}: {result['us']:.2f} µs, "
                    f"{floor}{result['per_s']:,.0f}/s, load {load:.1f}; {spent:.0f} s, "
                    f"{spent / done * (all_of_them - done):.0f} s to go",
                    flush=True,
                )
    print()
    for variant in variants:
        results = list(found[variant].values())
        if results:
            figures = {
                ("events_per_s" if key == "per_s" else key): [each[key] for each in results]
                for key in results[0]
                if key != "missing"
            }
            # More than were sent is no loss: ours also publishes messages of its own.
            if any(each["missing"] > 0 for each in results):
                figures["missing"] = [each["missing"] for each in results]
            report.row(variant.label, **figures, rounds=tuple(found[variant]), variant=asdict(variant))


def _floors(variant: Variant, recipe: Recipe, stands: Stands, us: float) -> dict[str, float]:
    """The floor in this minute and *us* in multiples of it; at a rate also what sleeping between events costs."""
    floor = stands.floor(recipe, variant.compression)
    found = {"floor_us": floor, "ratio": us / floor}
    if variant.rate is not None:
        per_s = variant.rate * variant.shards
        found["paced_floor_us"] = stands.floor(recipe, variant.compression, per_s)
    return found


def main() -> None:
    """Take the rounds, write the results."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--broker", default="sink,rabbitmq", help="which of sink, rabbitmq")
        parser.add_argument("--only", default="", help="only variants whose label has all of these words")
        parser.add_argument("--events", type=int, default=80_000, help="events of one round flat out")
        parser.add_argument(
            "--within", type=float, default=math.inf, help="begin no turn that ends later, seconds"
        )

    options = arguments(__doc__, add)
    variants = [
        each
        for each in (matrix() if options.full else SUBSET)
        if each.broker in options.broker.split(",")
        and all(word in each.label for word in options.only.split())
    ]
    os.chdir(child.ROOT)
    report = Report("path")
    measure(report, variants, options.runs, options.events, options.within)
    report.write()


if __name__ == "__main__":
    main()
