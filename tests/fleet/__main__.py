"""``python -m tests.fleet --faults 300 --seed 7``: a long chaos run over three members and three RabbitMQ nodes."""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import sys
import tempfile
from pathlib import Path

from tests.aio import run
from tests.fleet.chaos import Outcome, chaos_fleet, kinds_for
from tests.fleet.network import why_impossible
from tests.rabbitmq_cluster import rabbitmq_cluster


def main() -> int:
    """Run, report, and tell by the exit code whether anything was lost or broken."""
    parser = argparse.ArgumentParser(prog="make chaos-fleet", description=__doc__)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None, help="the same seed gives the same faults")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--kinds", default="", help="only these faults, separated by commas")
    parser.add_argument("--rabbitmq", default="installed", help="installed, or 4 (tools/install-rabbitmq-4)")
    options = parser.parse_args()
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    impossible = why_impossible()
    possible = kinds_for(nodes=3, namespaces=not impossible)
    chosen = {name: possible[name] for name in options.kinds.split(",")} if options.kinds else possible
    print(f"{options.faults} faults over {options.members} members, seed {seed}", flush=True)
    if impossible:
        print(f"no member is unplugged: {impossible}", flush=True)
    partitions = {"cluster_partition_handling": "pause_minority"}
    with (
        tempfile.TemporaryDirectory(prefix="rateway-fleet-") as folder,
        rabbitmq_cluster(options.rabbitmq, net_ticktime=10, **partitions) as cluster,
    ):
        cluster.begin()
        outcome = run(
            chaos_fleet(
                Path(folder),
                [cluster.on(number) for number in range(len(cluster.nodes))],
                options.faults,
                seed=seed,
                cluster=cluster,
                namespaces=not impossible,
                members=options.members,
                kinds=chosen,
                say=lambda words: print(words, flush=True),
            ),
            timeout=300.0 * options.faults + 600.0,
        )
    show(outcome)
    return 0 if outcome.clean else 1


def show(outcome: Outcome) -> None:
    """The time to recover by kind, the audit, and what went wrong."""
    by_kind: dict[str, list[float]] = {}
    for name, seconds in outcome.recoveries:
        by_kind.setdefault(name if " + " not in name else "close together", []).append(seconds)
    for name, values in sorted(by_kind.items()):
        print(
            f"{name:<20} {len(values):>4} times   p50 {statistics.median(values):6.1f} s   max {max(values):6.1f} s"
        )
    audit = outcome.audit
    print(
        f"{outcome.struck} of {outcome.planned} faults in {outcome.seconds:.0f} s: {audit.happened:,} events, "
        f"lost {audit.lost}, told {audit.told}, under two ids {audit.two_ids}, doubled {audit.doubled}, changed "
        f"{audit.changed}, out of order {audit.out_of_order}, unknown {audit.unknown}; identifies "
        f"{outcome.identifies} ({outcome.identifies_allowed} required); rules broken {len(outcome.violations)}; "
        f"tracebacks {outcome.tracebacks}"
    )
    for words in (*outcome.violations[:20], *outcome.notes):
        print(words)


if __name__ == "__main__":
    sys.exit(main())
