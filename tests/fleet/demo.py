"""``make demo-fleet``: three gateways that are one bot, on three RabbitMQ nodes; one is killed, one upgraded, a node of
RabbitMQ is killed, and at the end every event is accounted for.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

from rateway.demo.broker import free_ports

from tests.aio import run
from tests.fleet.scenes import SCENES, play
from tests.fleet.stage import FleetStage, fleet_stage
from tests.rabbitmq_cluster import RabbitCluster, rabbitmq_cluster

MEMBERS = 3
SHARDS = 12
RATE_PER_SHARD = 5.0
# What happens, in this order.
COURSE = ("kill", "sigterm", "node_killed", "rolling_upgrade")
# So long the fleet may take to be whole at the start.
START_S = 120.0
BETWEEN_S = 5.0


async def owners(it: FleetStage) -> str:
    """Who owns what, in words."""
    found = await it.owners()
    of = {
        member.name: [number for number, owner in sorted(found.items()) if owner is member]
        for member in it.members
    }
    return ", ".join(
        f"{name} has {' and '.join(map(str, numbers)) or 'nothing'}" for name, numbers in of.items()
    )


async def show(folder: Path, cluster: RabbitCluster) -> bool:
    """Play the course; whether nothing was lost and nothing spent."""
    ports = free_ports(MEMBERS)
    nodes = [cluster.on(number) for number in range(len(cluster.nodes))]
    async with fleet_stage(
        folder,
        nodes,
        members=MEMBERS,
        shards=SHARDS,
        per_cluster=2,
        guilds=10 * SHARDS,
        fleet="demo",
        start=False,
    ) as it:
        for member, port in zip(it.members, ports, strict=True):
            member.environment["HTTP_ADDRESS"] = f"127.0.0.1:{port}"
            await member.start()
        pages = ", ".join(f"http://127.0.0.1:{port}/" for port in ports)
        print(f"three gateways start; each has the page of all: {pages}", flush=True)
        async with asyncio.timeout(START_S):
            await it.whole()
            it.sim.set_rate(RATE_PER_SHARD, per_shard=True)
            await it.flowing()
        print(f"{SHARDS} shards are live, clusters are spread: {await owners(it)}", flush=True)
        begun = it.count("identify")
        for name in COURSE:
            await asyncio.sleep(BETWEEN_S)
            scene = next(scene for scene in SCENES if scene.name == name)
            victim = (await it.owners())[1]
            who = f" ({victim.name})" if name in ("kill", "sigterm") else ""
            print(f"{time.strftime('%H:%M:%S')} {scene.words}{who}", flush=True)
            found = await play(it, scene, victim, cluster=cluster)
            moved = f"live elsewhere after {found.live_s:.1f} s, " if found.live_s else ""
            print(
                f"         {moved}{found.happened} events, lost {found.lost}, under two ids {found.two_ids}, "
                f"identifies {found.identifies}; {await owners(it)}",
                flush=True,
            )
        it.sim.set_rate(0)
        whole = await it.arrived()
        spent = it.count("identify") - begun
        print(
            f"{whole.happened:,} events in all: lost {whole.lost}, under two ids {whole.two_ids}, came twice "
            f"{whole.doubled}; identifies beyond the start {spent}"
        )
        return whole.clean and not spent


def main() -> int:
    """Show it; the exit code tells whether nothing was lost."""
    argparse.ArgumentParser(prog="make demo-fleet", description=__doc__).parse_args()
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    partitions = {"cluster_partition_handling": "pause_minority"}
    print("three RabbitMQ nodes start", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="rateway-fleet-") as folder,
        rabbitmq_cluster(net_ticktime=10, **partitions) as cluster,
    ):
        cluster.begin()
        return 0 if run(show(Path(folder), cluster), timeout=1200.0) else 1


if __name__ == "__main__":
    sys.exit(main())
