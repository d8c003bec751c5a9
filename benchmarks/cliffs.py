"""Loads at which an event might suddenly cost more. ``python -m benchmarks.cliffs``

The same rate of events in other shapes: spread over more shards or fewer, with queues that are bound or read slowly,
and in events of 64 KB. Each row stands beside the plain one of its rate; taken in turns, as in ``benchmarks.path``.
"""

from __future__ import annotations

import argparse
import os
import statistics

from benchmarks.path.__main__ import Variant, measure
from benchmarks.rig import child
from benchmarks.rig.results import Report, arguments, by_round

# Events a second, all shards together; those of 64 KB would be a network of their own at the first.
RATE, LARGE_RATE = 2000.0, 200.0
LARGE = 64 * 1024
PLAIN = Variant(shards=8, rate=RATE / 8, broker="rabbitmq")
SHAPES = {
    PLAIN: [
        Variant(shards=8, rate=RATE / 8, broker="rabbitmq", queues="bound"),
        Variant(shards=8, rate=RATE / 8, broker="rabbitmq", queues="slow"),
        Variant(shards=1, rate=RATE, broker="rabbitmq"),
        Variant(shards=1000, rate=RATE / 1000, broker="rabbitmq"),
    ],
    Variant(shards=4, rate=LARGE_RATE / 4, broker="rabbitmq"): [
        Variant(shards=4, rate=LARGE_RATE / 4, broker="rabbitmq", size=LARGE),
    ],
}


def compare(report: Report) -> None:
    """How many times the plain row's cost each other one has."""
    cost = {row["label"]: row for row in report.rows}
    for plain, others in SHAPES.items():
        base = cost.get(plain.label)
        for each in others:
            row = cost.get(each.label)
            if base is None or row is None:
                continue
            own, plainly_us = by_round(row, "us"), by_round(base, "us")
            times = [own[number] / plainly_us[number] for number in own if number in plainly_us]
            if not times:
                continue
            inflated = [a - b for a, b in zip(row["us"]["runs"], row["floor_us"]["runs"], strict=True)]
            plainly = [a - b for a, b in zip(base["us"]["runs"], base["floor_us"]["runs"], strict=True)]
            # What an event of that size costs anyway, inflated and read, is no cliff of the gateway's.
            above = statistics.median(inflated) / statistics.median(plainly)
            report.row(f"{each.label}, against {plain.label}", times=times, times_above_floor=round(above, 2))


def main() -> None:
    """Measure."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", default="", help="only shapes whose label has all of these words")

    options = arguments(__doc__, add)
    os.chdir(child.ROOT)
    variants: list[Variant] = []
    for plain, others in SHAPES.items():
        wanted = [each for each in others if all(word in each.label for word in options.only.split())]
        variants += [plain, *wanted] if wanted else []
    report = Report("cliffs")
    measure(report, variants, options.runs, 0)
    compare(report)
    report.write()


if __name__ == "__main__":
    main()
