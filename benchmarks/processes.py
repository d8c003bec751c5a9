"""The throughput of two runners against one. ``python -m benchmarks.processes``

The same four shards in two clusters, in one process and in two, in turns, without the cache. The source (frames
compressed beforehand) and the sink (confirms at about 1 µs an event together) need cores as well, and on a machine
with two of them two busy runners have none for themselves. So what is carried is told in two ways: ``per_s`` is what
the clock on the wall says; ``carries_per_s`` is events by the CPU seconds of the busiest runner, which is what the
gateway carries once each of its processes has a core. There are three pairs:

*flat out*: as much as the machine gives. On two cores two busy runners leave nothing for source and sink; ``allowed``
is what the cores divided by the CPU of all three an event would give, as a multiple of one process on one core.
*half speed*: each runner is let run for half of the time, the two in turns (SIGSTOP and SIGCONT every 10 ms), as if
it had a core of half the speed of its own. So two of them have room beside source and sink, and what is measured is
what the gateway itself loses by being two.
*RabbitMQ*: flat out into a broker that takes more of the cores than the gateway.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rig import child, machine
from benchmarks.rig.rabbitmq import Counter, rabbitmq
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.streams import Recipe

SHARDS = 4
PER_CLUSTER = 2
# One turn of a runner that runs at half speed.
SLICE_S = 0.01
QUIET_MS = 3.0
# Between two looks at how many events are confirmed.
LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the gateway."""

    processes: int
    broker: str = "sink"
    half_speed: bool = False

    @property
    def label(self) -> str:
        speed = "half speed" if self.half_speed else "flat out"
        return f"{self.processes} process{'es' if self.processes > 1 else ''}, {speed} → {self.broker}"


PAIRS = [
    (Variant(1), Variant(2)),
    (Variant(1, half_speed=True), Variant(2, half_speed=True)),
    (Variant(1, "rabbitmq"), Variant(2, "rabbitmq")),
]


@contextmanager
def at_half_speed(pids: list[int]) -> Iterator[None]:
    """Let each of two processes run in every other slice, one of them when the other does not."""
    over = threading.Event()

    def take_turns() -> None:
        turn = 0
        while not over.wait(SLICE_S):
            turn += 1
            for place, pid in enumerate(pids):
                os.kill(pid, signal.SIGCONT if (turn + place) % 2 else signal.SIGSTOP)

    thread = threading.Thread(target=take_turns, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def runners_of(pid: int) -> list[int]:
    """The processes that hold clusters: all but the supervisor, if there is one."""
    pids = machine.tree(pid)
    return pids[1:] or pids


def round_of(
    variant: Variant, events: int, counter: Counter, address: str, broker: list[int]
) -> dict[str, float]:
    """One flood through a fresh gateway."""
    recipe = Recipe(shards=SHARDS, guilds=50, members=100, events=events // SHARDS, alike=True)
    settings = {
        "CACHE_ENABLED": "false",
        "PROCESSES": str(variant.processes),
        "SHARDS_PER_CLUSTER": str(PER_CLUSTER),
        "COMPRESSION": "zstd-stream",
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        discord, port = stack.enter_context(child.discord(recipe, "zstd"))
        api = f"http://127.0.0.1:{port}/api/v10"
        gateway = stack.enter_context(child.gateway(folder, api, address, SHARDS, **settings))
        discord.fact("live")
        pids = machine.tree(gateway.pid)
        child.until_quiet(pids)
        beside = machine.cpu_ns([discord.pid, *broker])
        runners = runners_of(gateway.pid)
        worked = [machine.cpu_ns([pid]) for pid in runners]
        before, supervised, base = machine.cpu_ns(pids), machine.cpu_ns([gateway.pid]), counter()
        with ExitStack() as slowly:
            if variant.half_speed:
                slowly.enter_context(at_half_speed(runners))
            began = time.monotonic()
            discord.say(json.dumps({"do": "flood", "events": recipe.events}))
            sent = discord.fact("sent")["sent"]
            if variant.broker != "sink":
                # It tells its count seconds late, but rests once it has taken all.
                after, ended = child.until_quiet(pids, quiet_ms=QUIET_MS, beside=broker)
            while counter() - base < sent:
                time.sleep(LOOK_S)
            if variant.broker == "sink":
                ended = time.monotonic()
        if variant.broker == "sink":
            after, _ = child.until_quiet(pids, quiet_ms=QUIET_MS)
        busiest = max(machine.cpu_ns([pid]) - was for pid, was in zip(runners, worked, strict=True))
        found = {
            "per_s": sent / (ended - began),
            "carries_per_s": 1e9 * sent / busiest,
            "us": (after - before) / 1000 / sent,
            "beside_us": (machine.cpu_ns([discord.pid, *broker]) - beside) / 1000 / sent,
        }
        if variant.processes > 1:
            found["supervisor_us"] = (machine.cpu_ns([gateway.pid]) - supervised) / 1000 / sent
        return found


def measure(report: Report, pairs: list[tuple[Variant, Variant]], runs: int, events: int) -> None:
    """All variants in turns, a row for each and one for each pair."""
    found: dict[Variant, list[dict[str, float]]] = {each: [] for pair in pairs for each in pair}
    with ExitStack() as stack:
        brokers: dict[str, tuple[Counter, str, list[int]]] = {}
        process, uri = stack.enter_context(child.sink())
        brokers["sink"] = (process.count, uri, [process.pid])
        if any(pair[0].broker == "rabbitmq" for pair in pairs):
            brokers["rabbitmq"] = stack.enter_context(rabbitmq())
        for turn in range(runs):
            for variant in found:
                load = report.see_load()
                result = round_of(variant, events, *brokers[variant.broker])
                found[variant].append(result)
                print(
                    f"  round {turn + 1}: {variant.label}: {result['per_s']:,.0f}/s, {result['us']:.2f} µs, "
                    f"source and {variant.broker} {result['beside_us']:.2f} µs, load {load:.1f}",
                    flush=True,
                )
    for one, two in pairs:
        for each in (one, two):
            keys = found[each][0]
            report.row(each.label, **{key: [run[key] for run in found[each]] for key in keys})
        ratios = {
            key: [b[key] / a[key] for a, b in zip(found[one], found[two], strict=True)]
            for key in ("per_s", "carries_per_s", "us")
        }
        # At the most, if all of the machine's cores did nothing else.
        all_us = statistics.median(run["us"] + run["beside_us"] for run in found[two])
        allowed = (os.cpu_count() or 1) * statistics.median(run["us"] for run in found[one]) / all_us
        report.row(f"  two of one: {two.label.partition(', ')[2]}", **ratios, allowed=allowed)


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--events", type=int, default=200_000, help="of one round")
        parser.add_argument("--broker", default="sink,rabbitmq", help="which of sink, rabbitmq")

    options = arguments(__doc__, add)
    report = Report("processes")
    pairs = [pair for pair in PAIRS if pair[0].broker in options.broker.split(",")]
    measure(report, pairs, options.runs, options.events)
    report.write()


if __name__ == "__main__":
    main()
