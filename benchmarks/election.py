"""What the election of a fleet costs, and how fast it hands over. ``python -m benchmarks.election``

Members without a gateway campaign for ``--subjects`` subjects on one RabbitMQ node, or on a cluster of three with
``--nodes 3``. Measured are a write (from the call to its confirm and delivery) at two a second and subject, what broker
and owner spend on that, a planned release (from the call to the next owner), and the death of an owner's process by
SIGKILL, up to the last subject's next owner: three seconds of it are the wait for the dead owner's right to end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from rateway.demo.broker import PrivateBroker
from rateway.fleet.port import Owned, cluster_subject
from rateway.transports.amqp.fleet_queues import FleetQueues
from rateway.transports.amqp.wire.uri import parse

from benchmarks.rig import machine
from benchmarks.rig.results import PUBLISHED, Report
from tests.aio import run
from tests.rabbitmq import private_rabbitmq
from tests.rabbitmq_cluster import rabbitmq_cluster

FLEET = "benchmark"
# The records of sixteen shards have about as many bytes.
BODY = bytes(range(256)) * 8
WRITES_A_SECOND = 2.0
READY = "owner of all\n"
PATIENCE_S = 120.0


@contextmanager
def brokers(nodes: int) -> Iterator[tuple[str, list[PrivateBroker]]]:
    """The address of one node or of three, and the nodes."""
    if nodes == 1:
        with private_rabbitmq() as node:
            yield node.uri_of("/"), [node]
    else:
        with rabbitmq_cluster() as cluster:
            yield cluster.uri(), cluster.nodes


@asynccontextmanager
async def member(uri: str, name: str) -> AsyncIterator[FleetQueues]:
    """A member that is connected, or about to be."""
    found = FleetQueues(address=parse(uri), fleet=FLEET, member=name)
    running = asyncio.ensure_future(found.run())
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.wait([running])


def lost(why: str) -> None:
    raise AssertionError(f"a tenure was lost: {why}")


async def own(elections: FleetQueues, subjects: list[str]) -> dict[str, Owned]:
    """Own all subjects."""
    async with asyncio.timeout(PATIENCE_S):
        found = await asyncio.gather(*(elections.campaign(each, lost) for each in subjects))
    return dict(zip(subjects, found, strict=True))


async def write_on(
    elections: FleetQueues, subject: str, epoch: int, until: float, offset: float
) -> list[float]:
    """Write twice a second until then; the seconds of each write."""
    found = []
    await asyncio.sleep(offset)
    while time.monotonic() < until:
        began = time.monotonic()
        if await elections.write(subject, epoch, BODY) != "confirmed":
            raise AssertionError(f"a write of {subject} was not confirmed")
        found.append(time.monotonic() - began)
        await asyncio.sleep(max(0.0, began + 1 / WRITES_A_SECOND - time.monotonic()))
    return found


async def steady(
    report: Report, uri: str, nodes: list[PrivateBroker], subjects: list[str], seconds: float
) -> None:
    """Writes at their usual rate, and releases one after the other."""
    async with member(uri, "one") as one, member(uri, "two") as two:
        owned = await own(one, subjects)
        waiting = {each: asyncio.ensure_future(two.campaign(each, lost)) for each in subjects}
        await asyncio.sleep(2)
        pids = [pid for node in nodes if node.pid is not None for pid in machine.tree(node.pid)]
        began, until = time.monotonic(), time.monotonic() + seconds
        before = machine.cpu_ns(pids), machine.cpu_ns([os.getpid()])
        taken = await asyncio.gather(
            *(
                write_on(one, each, owned[each].epoch, until, number / len(subjects) / WRITES_A_SECOND)
                for number, each in enumerate(subjects)
            )
        )
        elapsed = time.monotonic() - began
        broker, owner = machine.cpu_ns(pids) - before[0], machine.cpu_ns([os.getpid()]) - before[1]
        writes = sorted(1000 * each for some in taken for each in some)
        report.row(
            "writes",
            count=len(writes),
            p50_ms=round(statistics.median(writes), 2),
            p99_ms=round(writes[int(len(writes) * 0.99)], 2),
            worst_ms=round(writes[-1], 2),
            broker_cores=round(broker / 1e9 / elapsed, 3),
            members_cores=round(owner / 1e9 / elapsed, 3),
        )
        handed = []
        for each in subjects:
            began = time.monotonic()
            if not await one.release(each, owned[each].epoch, BODY):
                raise AssertionError(f"the release of {each} was not confirmed")
            await waiting[each]
            handed.append(1000 * (time.monotonic() - began))
        report.row(
            "planned releases",
            count=len(handed),
            p50_ms=round(statistics.median(handed), 2),
            worst_ms=round(max(handed), 2),
        )
        for each in subjects:
            await two.release(each, owned[each].epoch + 1, BODY)


async def dies(report: Report, uri: str, subjects: list[str], runs: int) -> None:
    """Kill the process that owns all subjects."""
    last = []
    async with member(uri, "heir") as heir:
        for _ in range(runs):
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.election", "--own", uri, "--subjects", str(len(subjects)),
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert child.stdout is not None
            async with asyncio.timeout(PATIENCE_S):
                while await child.stdout.readline() != READY.encode():
                    pass
            campaigns = [asyncio.ensure_future(heir.campaign(each, lost)) for each in subjects]
            await asyncio.sleep(2)
            began = time.monotonic()
            child.kill()
            owned = await asyncio.gather(*campaigns)
            last.append(time.monotonic() - began)
            if any(each.record is None or each.record.body != BODY for each in owned):
                raise AssertionError("a record of the dead owner is missing")
            await child.wait()
            for subject, each in zip(subjects, owned, strict=True):
                await heir.release(subject, each.epoch, BODY)
    report.row("owner killed", count=runs, last_owner_s=last, worst_s=round(max(last), 2))


async def own_for_ever(uri: str, subjects: list[str]) -> None:
    """What the process does that is killed."""
    async with member(uri, "victim") as victim:
        owned = await own(victim, subjects)
        for each in subjects:
            await victim.write(each, owned[each].epoch, BODY)
        sys.stdout.write(READY)
        sys.stdout.flush()
        await asyncio.Event().wait()


async def measure(
    options: argparse.Namespace, report: Report, uri: str, nodes: list[PrivateBroker], subjects: list[str]
) -> None:
    await steady(report, uri, nodes, subjects, options.seconds)
    await dies(report, uri, subjects, options.runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1)
    parser.add_argument("--subjects", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=20.0, help="of writes at their usual rate")
    parser.add_argument("--runs", type=int, default=5, help="how often the owner is killed")
    parser.add_argument(
        "--publish", action="store_true", help="results into benchmarks/results.json, which the docs print"
    )
    parser.add_argument("--own", metavar="URI", help=argparse.SUPPRESS)
    options = parser.parse_args()
    subjects = [cluster_subject(number) for number in range(1, options.subjects + 1)]
    if options.own:
        run(own_for_ever(options.own, subjects), timeout=3600)
        return
    if options.publish:
        os.environ["RESULTS"] = str(PUBLISHED)
    name = "election" if options.nodes == 1 else "election-cluster"
    report = Report(name)
    report.see_load()
    with brokers(options.nodes) as (uri, nodes):
        run(measure(options, report, uri, nodes, subjects), timeout=3600)
    report.write()


if __name__ == "__main__":
    main()
