"""What each failure costs a fleet: two gateways and three RabbitMQ nodes. ``python -m benchmarks.fleet``

Each scene is played ``--runs`` times on one stage, the owner of each cluster in turns. The figures of a scene are the
worst of its runs: the time until the shards were live elsewhere, the longest pause of a shard's events, identifies,
and of all that happened what was lost without a RATEWAY_GAP, told with one, published under two ids, or twice under
one. The simulated Discord counts identifies that came too early. Network namespaces are used where they are allowed.

``--without`` leaves FLEET unset, for comparison: gateways that wait for each other's inbound queue.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.rig.results import Report
from tests.aio import run
from tests.fleet.network import why_impossible
from tests.fleet.scenes import SCENES, Measured, Scene, play
from tests.fleet.stage import FleetStage, fleet_stage
from tests.rabbitmq_cluster import RabbitCluster, rabbitmq_cluster

# Erlang's time until a silent node is given up, as docs/fleet.md advises; seconds.
NET_TICKTIME = 10
RATE_PER_SHARD = 5.0
GUILDS_PER_SHARD = 20
MEMBERS_PER_GUILD = 100
START_S = 180.0
COLUMNS = (
    ("live elsewhere s", "live_s"),
    ("pause s", "pause_s"),
    ("identifies", "identifies"),
    ("lost", "lost"),
    ("told", "told"),
    ("two ids", "two_ids"),
    ("doubled", "doubled"),
    ("identify-concurrency", "concurrency"),
    ("other rules", "violations"),
)


async def rounds(
    options: argparse.Namespace, scene: Scene, cluster: RabbitCluster, folder: Path, namespaces: bool
) -> list[Measured]:
    """Play a scene so many times on a stage of its own."""
    found: list[Measured] = []
    async with fleet_stage(
        folder,
        [cluster.on(number) for number in range(len(cluster.nodes))],
        members=options.gateways,
        shards=options.shards,
        per_cluster=max(1, options.shards // 3),
        guilds=GUILDS_PER_SHARD * options.shards,
        people=MEMBERS_PER_GUILD,
        fleet="" if options.without else "bench",
        namespaces=namespaces,
        simulator={"max_concurrency": max(1, options.shards // 3)},
    ) as it:
        async with asyncio.timeout(START_S):
            await it.whole()
            it.sim.set_rate(RATE_PER_SHARD, per_shard=True)
            await it.flowing()
        for turn in range(options.runs):
            found.append(await one(it, scene, turn, cluster, options.away))
            print(f"  {scene.name} {turn + 1}/{options.runs}: {line(found[-1])}", flush=True)
            for words in found[-1].examples[:3]:
                print(f"      {words}", flush=True)
    return found


async def one(it: FleetStage, scene: Scene, turn: int, cluster: RabbitCluster, away_s: float) -> Measured:
    """Strike the owner of each cluster in turn."""
    owners = await it.owners()
    victim = owners[1 + turn % len(it.layout.clusters)]
    return await play(it, scene, victim, cluster=cluster, away_s=away_s)


def line(found: Measured) -> str:
    return "  ".join(f"{label} {_short(getattr(found, name))}" for label, name in COLUMNS)


def _short(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def table(found: dict[str, list[Measured]]) -> Table:
    """The worst of each scene's runs."""
    result = Table(title="worst of all runs")
    result.add_column("scene")
    for label in ("runs", *(label for label, _ in COLUMNS)):
        result.add_column(label, justify="right")
    for name, runs in found.items():
        worst = [_short(max(getattr(each, attribute) for each in runs)) for _, attribute in COLUMNS]
        result.add_row(name, str(len(runs)), *worst)
    return result


def main() -> int:
    """Measure; the exit code tells whether anything was lost untold, published under two ids, or refused."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet", description=str(__doc__).partition("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=20, help="how often each scene is played (default 20)")
    parser.add_argument("--gateways", type=int, default=2)
    parser.add_argument("--shards", type=int, default=24, help="in three clusters (default 24)")
    parser.add_argument("--away", type=float, default=30.0, help="seconds that a member or node is away")
    parser.add_argument("--scenes", default="", help="only these, separated by commas")
    parser.add_argument("--without", action="store_true", help="without FLEET")
    options = parser.parse_args()
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    impossible = why_impossible()
    chosen = [scene for scene in SCENES if not options.scenes or scene.name in options.scenes.split(",")]
    report = Report("fleet", "python -m benchmarks.fleet")
    found: dict[str, list[Measured]] = {}
    partitions = {"cluster_partition_handling": "pause_minority"}
    with rabbitmq_cluster(net_ticktime=NET_TICKTIME, **partitions) as cluster:
        for scene in chosen:
            if scene.needs_namespaces and impossible:
                print(f"not measured: {scene.words}: {impossible}")
                continue
            cluster.begin()
            report.see_load()
            with tempfile.TemporaryDirectory(prefix="rateway-fleet-") as folder:
                measuring = rounds(options, scene, cluster, Path(folder), not impossible)
                runs = found[scene.words] = run(
                    measuring, timeout=START_S + options.runs * (options.away + 240.0)
                )
            report.row(
                scene.words,
                runs=len(runs),
                live_s=[each.live_s for each in runs],
                pause_s=[each.pause_s for each in runs],
                **{name: max(getattr(each, name) for each in runs) for _, name in COLUMNS[2:]},
                happened=sum(each.happened for each in runs),
            )
    Console(width=160).print(table(found))
    if not options.without:
        report.write()
    clean = all(
        not (each.lost or each.two_ids or each.concurrency) for runs in found.values() for each in runs
    )
    return 0 if clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
