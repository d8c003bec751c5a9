"""The latency of an event: from its last byte on the socket to the broker and to a worker's hands.

python -m benchmarks.latency

Events come at random moments on 4 shards at 10, 50 and 90 % of what the gateway carries here (measured first, flat
out). *sink*: until the sink, which confirms at once, has it: the gateway's own part. *rabbitmq*: until a worker that
reads from a queue bound to everything has it, and beside it what RabbitMQ alone takes to confirm one message of the
same size at the same load.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from rateway.demo.broker import PrivateBroker

from benchmarks.rig import child, pictures
from benchmarks.rig.child import Child
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.streams import Recipe

SHARES = (0.1, 0.5, 0.9)
SHARDS = 4
GUILDS = 20
# Events sent before anything is timed: names are prepared, buffers have grown.
WARM_UP = 500
Arrivals = dict[tuple[int, int], int]


@contextmanager
def gateway(discord: Child, port: int, broker: str) -> Iterator[Child]:
    """The gateway, live and warm."""
    discord.forget()
    api = f"http://127.0.0.1:{port}/api/v10"
    with (
        tempfile.TemporaryDirectory() as name,
        child.gateway(Path(name), api, broker, SHARDS, CACHE_ENABLED="false") as found,
    ):
        discord.fact("live")
        discord.say(json.dumps({"do": "flood", "events": WARM_UP}))
        discord.fact("sent")
        child.until_quiet([found.pid])
        yield found


def capacity(uri: str, tap: Child, runs: int) -> float:
    """Events a second flat out until ``tap`` has the last of them, the median of some runs."""
    recipe = Recipe(shards=SHARDS, guilds=GUILDS, events=WARM_UP + 20_000)
    speeds = []
    with child.discord(recipe, "zstd") as (discord, port):
        for _ in range(runs):
            with gateway(discord, port, uri) as found:
                tap.say("clear")
                tap.hear()
                began = time.monotonic_ns()
                discord.say(json.dumps({"do": "flood", "events": 20_000}))
                sent = int(discord.fact("sent")["sent"])
                # A gateway that waits for a broker without a core is quiet as well.
                ends: list[int] = []
                while len(ends) < sent:
                    child.until_quiet([found.pid])
                    tap.say("tell")
                    ends = [at for _, _, at in json.loads(tap.hear())]
                speeds.append(1e9 * sent / (max(ends) - began))
    return statistics.median(speeds)


def at_rate(rate: float, seconds: float, uri: str, tap: Child, runs: int) -> Iterator[list[float]]:
    """Of each run: milliseconds of each event; ``tap`` tells when it saw which."""
    recipe = Recipe(shards=SHARDS, guilds=GUILDS, events=WARM_UP + int(rate / SHARDS * seconds * 1.3) + 100)
    with child.discord(recipe, "zstd") as (discord, port):
        for _ in range(runs):
            with gateway(discord, port, uri) as found:
                tap.say("clear")
                tap.hear()
                pace = {"do": "pace", "rate": rate / SHARDS, "seconds": seconds, "times": True}
                discord.say(json.dumps(pace))
                times = discord.fact("times")["times"]
                child.until_quiet([found.pid], quiet_ms=5.0)
                tap.say("tell")
                seen: Arrivals = {(shard, seq): at for shard, seq, at in json.loads(tap.hear())}
            yield list(_between(times, seen))


def _between(times: dict[str, list[int]], seen: Arrivals) -> Iterator[float]:
    for shard, sent in times.items():
        first = GUILDS + 2 + WARM_UP
        # READY, the guilds, and what warmed up had the numbers before.
        base = min((seq for number, seq in seen if number == int(shard)), default=first)
        for place, at in enumerate(sent):
            arrived = seen.get((int(shard), base + place))
            if arrived is not None:
                yield (arrived - at) / 1e6


def quantiles(values: list[float]) -> dict[str, float]:
    """p50, p99, p99.9 in ms."""
    ordered = sorted(values)
    return {
        name: ordered[min(len(ordered) - 1, int(share * len(ordered)))]
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999))
    }


def row(report: Report, label: str, runs: list[list[float]], rate: float) -> None:
    """Medians over the runs of each run's quantiles."""
    each = [quantiles(values) for values in runs if values]
    if each:
        report.row(label, **{key: [one[key] for one in each] for key in each[0]}, events_per_s=round(rate))


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--seconds", type=float, default=4.0, help="of each run")

    options = arguments(__doc__, add)
    report = Report("latency")
    samples: dict[str, list[float]] = {}
    with child.child("benchmarks.path.sink", "trace") as tap:
        uri = f"amqp://guest:guest@127.0.0.1:{int(tap.hear())}/"
        most = capacity(uri, tap, 3)
        report.row("capacity, sink that notes each event", events_per_s=round(most))
        for share in SHARES:
            runs = []
            for run in at_rate(most * share, options.seconds, uri, tap, options.runs):
                report.see_load()
                runs.append(run)
            row(report, f"socket → sink at {share:.0%}", runs, most * share)
            samples[f"sink, {share:.0%}"] = list(chain.from_iterable(runs))
    with (
        PrivateBroker(management=False) as broker,
        child.child("benchmarks.rig.worker", broker.uri) as worker,
    ):
        worker.hear()
        most = capacity(broker.uri, worker, 3)
        report.row("capacity, RabbitMQ and a worker", events_per_s=round(most))
        for share in SHARES:
            runs, own = [], []
            for run in at_rate(most * share, options.seconds, broker.uri, worker, options.runs):
                report.see_load()
                runs.append(run)
                worker.say("confirms")
                own.append(json.loads(worker.hear()))
            row(report, f"socket → worker over RabbitMQ at {share:.0%}", runs, most * share)
            row(report, f"RabbitMQ's own confirm at {share:.0%}", own, most * share)
            samples[f"RabbitMQ, worker, {share:.0%}"] = list(chain.from_iterable(runs))
    report.write()
    pictures.histograms("latency", "Socket to sink, and over RabbitMQ to a worker", samples, "milliseconds")


if __name__ == "__main__":
    main()
