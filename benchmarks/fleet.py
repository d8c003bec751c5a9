"""What each failure costs a fleet: two gateways and three RabbitMQ nodes. ``python -m benchmarks.fleet``

Each scene is played ``--runs`` times on one stage, the owner of each cluster in turns. The figures of a scene are the
worst of its runs: the time until the shards were live elsewhere, the longest pause of a shard's events, the longest
time without an answer to a worker's query (one for each cluster every 100 ms), identifies, and of all that happened
what was lost without a RATEWAY_GAP, told with one, published under two ids, or twice under one. The simulated Discord
counts identifies that came too early. Network namespaces are used where they are allowed.

``--parallel`` plays so many scenes at a time, each in a process with nodes, members and a Discord of its own. A run
that fails is told and counted, and the scene goes on with a new stage; no scene lasts for ever. In *all of RabbitMQ
away* (``--outage`` seconds) shards are asked to reconnect every 80 s, and each time counts as a run.

``--without`` leaves FLEET unset, for comparison: gateways that wait for each other's inbound queue.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.rig.results import PUBLISHED, Report
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
START_S = 240.0
# A run beside what it lasts itself, seconds: far above what it takes on a machine that does nothing else.
RUN_S = 240.0
# Failed runs after which a scene is given up.
MOST_FAILED = 3
# The records of a cluster are counted for so long, in one scene: the management's samples come about every 5 s.
RECORDS_S = 60.0
RECORDS_IN = "sigterm"
# A child that is told to end removes its nodes and namespaces first.
END_S = 60.0
COLUMNS = (
    ("live elsewhere s", "live_s"),
    ("pause s", "pause_s"),
    ("queries' hole s", "hole_s"),
    ("identifies", "identifies"),
    ("lost", "lost"),
    ("told", "told"),
    ("two ids", "two_ids"),
    ("doubled", "doubled"),
    ("identify-concurrency", "concurrency"),
    ("other rules", "violations"),
)
BY_NAME = {scene.name: scene for scene in SCENES}
# The longest first, so that the last to end is a short one.
LONGEST_FIRST = (
    "broker_away", "nodes_restarted", "frozen", "cut_from_broker", "network_gone", "node_partitioned", "node_killed",
    "rolling_upgrade", "kill", "drain", "move", "sigterm",
)  # fmt: skip


class Played(msgspec.Struct):
    """What a scene's process found."""

    runs: list[Measured] = []
    failures: list[str] = []
    records_per_s: float = 0.0
    """Writes of the first cluster's fleet record, before the first strike."""


def strikes(played: Played) -> int:
    return sum(each.strikes for each in played.runs)


def away_s(options: argparse.Namespace, scene: Scene) -> float:
    return float(options.outage if scene.name == "broker_away" else options.away)


async def rounds(
    options: argparse.Namespace, scene: Scene, cluster: RabbitCluster, namespaces: bool
) -> Played:
    """Play a scene until it was struck so many times, on a stage of its own, and a new one after each failure."""
    played = Played()
    while strikes(played) < options.runs and len(played.failures) < MOST_FAILED:
        await asyncio.to_thread(cluster.begin)
        with tempfile.TemporaryDirectory(prefix="rateway-fleet-") as folder:
            try:
                await on_stage(options, scene, cluster, Path(folder), namespaces, played)
            except (AssertionError, TimeoutError, OSError) as error:
                words = f"{type(error).__name__}: {error}"
                played.failures.append(words[:2000])
                print(f"  {scene.name} FAILED: {words}", flush=True)
    return played


async def on_stage(
    options: argparse.Namespace,
    scene: Scene,
    cluster: RabbitCluster,
    folder: Path,
    namespaces: bool,
    played: Played,
) -> None:
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
        try:
            async with asyncio.timeout(START_S):
                await it.whole()
                it.sim.set_rate(RATE_PER_SHARD, per_shard=True)
                await it.flowing()
            if it.fleet and scene.name == RECORDS_IN and not played.records_per_s:
                played.records_per_s = await records(cluster)
            while strikes(played) < options.runs:
                began, turn = time.monotonic(), strikes(played)
                found = await one(it, scene, turn, cluster, away_s(options, scene))
                played.runs.append(found)
                took = time.monotonic() - began
                print(
                    f"  {scene.name} {strikes(played)}/{options.runs} ({took:.0f} s): {line(found)}",
                    flush=True,
                )
                if found.lost or found.two_ids or found.identifies:
                    lost = [
                        words for member in it.members for words in member.lines() if "session lost" in words
                    ]
                    broken = [f"{each.rule}: {each.detail}" for each in it.sim.ledger.noted]
                    for words in (*found.examples[:3], *lost[-5:], *broken[-5:]):
                        print(f"      {words}", flush=True)
        except (AssertionError, TimeoutError):
            for member in it.members:
                print(f"{member.name}:\n{member.tail(60)}", flush=True)
            raise


async def records(cluster: RabbitCluster) -> float:
    """Return how often a second the first cluster's fleet record is written, between two of the management's samples,
    of which one comes every 5 s.
    """

    async def sample(count: int = -1) -> tuple[int, float]:
        """Wait until the management counts other than *count*; the number of writes, and when it was told."""
        while True:
            told = await cluster.queue(0, "rateway-fleet-bench-cluster-1")
            found = int(told.get("message_stats", {}).get("publish", 0))
            if found not in (0, count):
                return found, time.monotonic()
            await asyncio.sleep(0.2)

    async with asyncio.timeout(START_S):
        before, began = await sample((await sample())[0])
        after, ended = before, began
        while ended - began < RECORDS_S:
            after, ended = await sample(after)
    return (after - before) / (ended - began)


async def one(it: FleetStage, scene: Scene, turn: int, cluster: RabbitCluster, away: float) -> Measured:
    """Strike the owner of each cluster in turn."""
    owners = await it.owners()
    victim = owners[1 + turn % len(it.layout.clusters)]
    return await play(it, scene, victim, cluster=cluster, away_s=away, asks=True)


def line(found: Measured) -> str:
    return "  ".join(f"{label} {_short(getattr(found, name))}" for label, name in COLUMNS)


def _short(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def table(found: dict[str, Played]) -> Table:
    """The worst of each scene's runs."""
    result = Table(title="worst of all runs")
    result.add_column("scene")
    for label in ("runs", "failed", *(label for label, _ in COLUMNS), "records/s"):
        result.add_column(label, justify="right")
    for name, played in found.items():
        worst = [
            _short(max((getattr(each, attribute) for each in played.runs), default="–"))
            for _, attribute in COLUMNS
        ]
        failed = str(len(played.failures))
        result.add_row(
            BY_NAME[name].words, str(strikes(played)), failed, *worst, _short(played.records_per_s)
        )
    return result


# One scene, in this process.


def play_alone(options: argparse.Namespace, scene: Scene) -> Played:
    """Play one scene on nodes of its own."""
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    partitions = {"cluster_partition_handling": "pause_minority"}
    with rabbitmq_cluster(options.rabbitmq, net_ticktime=NET_TICKTIME, **partitions) as cluster:
        return run(
            rounds(options, scene, cluster, not why_impossible()),
            timeout=seconds_of(options, scene),
        )


def seconds_of(options: argparse.Namespace, scene: Scene) -> float:
    """The most that a scene may take."""
    worst: float = START_S * (1 + MOST_FAILED) + options.runs * (away_s(options, scene) + RUN_S)
    return worst


# All of them, each in a process.


@dataclass
class Child:
    """A scene's process."""

    scene: Scene
    process: subprocess.Popen[bytes]
    result: Path
    until: float
    log: IO[bytes]

    def end(self) -> None:
        """Have it end, and remove what it made."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(END_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def begin(options: argparse.Namespace, scene: Scene, folder: Path) -> Child:
    result, log = folder / f"{scene.name}.json", (folder / f"{scene.name}.log").open("wb")
    command = [sys.executable, "-m", "benchmarks.fleet", *sys.argv[1:], "--alone", scene.name]
    process = subprocess.Popen(
        [*command, "--into", str(result)], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )
    return Child(scene, process, result, time.monotonic() + seconds_of(options, scene) + START_S, log)


def play_all(options: argparse.Namespace, scenes: list[Scene], folder: Path) -> dict[str, Played]:
    """Play the scenes, so many at a time; what they say is shown as it comes."""
    waiting = deque(sorted(scenes, key=lambda scene: LONGEST_FIRST.index(scene.name)))
    running: list[Child] = []
    found: dict[str, Played] = {}
    shown: dict[str, int] = {}
    try:
        while waiting or running:
            while waiting and len(running) < options.parallel:
                running.append(begin(options, waiting.popleft(), folder))
            time.sleep(0.5)
            for child in list(running):
                has_ended = child.process.poll() is not None
                _show(child, shown)
                if not has_ended and time.monotonic() < child.until:
                    continue
                child.end()
                _show(child, shown)
                running.remove(child)
                child.log.close()
                found[child.scene.name] = _result(child)
                print(
                    f"{child.scene.words}: ended, {len(waiting) + len(running)} scenes are left", flush=True
                )
    finally:
        with ThreadPoolExecutor() as threads:
            list(threads.map(Child.end, running))
    return {scene.name: found[scene.name] for scene in scenes}


def _show(child: Child, shown: dict[str, int]) -> None:
    with Path(child.log.name).open("rb") as said:
        said.seek(shown.get(child.scene.name, 0))
        words = said.read()
        words = words[: words.rfind(b"\n") + 1]
    shown[child.scene.name] = shown.get(child.scene.name, 0) + len(words)
    sys.stdout.write(words.decode(errors="replace"))
    sys.stdout.flush()


def _result(child: Child) -> Played:
    try:
        return msgspec.json.decode(child.result.read_bytes(), type=Played)
    except OSError:
        return Played(failures=[f"its process ended with {child.process.returncode}, and without a result"])


def main() -> int:
    """Measure; the exit code tells whether all runs ended and nothing was lost untold, under two ids, or refused."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet", description=str(__doc__).partition("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=20, help="how often each scene is played (default 20)")
    parser.add_argument("--parallel", type=int, default=1, help="scenes at a time (default 1)")
    parser.add_argument("--gateways", type=int, default=2)
    parser.add_argument("--shards", type=int, default=24, help="in three clusters (default 24)")
    parser.add_argument("--away", type=float, default=30.0, help="seconds that a member or node is away")
    parser.add_argument("--outage", type=float, default=30.0, help="seconds that all of RabbitMQ is away")
    parser.add_argument(
        "--scenes",
        default="",
        help="only these, separated by commas, each with a number of runs if it has one of its own "
        f"(kill,frozen=5): {', '.join(BY_NAME)}",
    )
    parser.add_argument("--without", action="store_true", help="without FLEET")
    parser.add_argument("--rabbitmq", default="installed", help="installed, or 4 (tools/install-rabbitmq-4)")
    parser.add_argument(
        "--publish", action="store_true", help="results into benchmarks/results.json, which the docs print"
    )
    parser.add_argument("--alone", default="", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # A shell that starts it in the background has SIGINT ignored; ended either way it removes what it made.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.default_int_handler)
    asked = dict(each.partition("=")[::2] for each in options.scenes.split(",")) if options.scenes else {}
    if options.alone:
        options.runs = int(asked.get(options.alone) or options.runs)
        played = play_alone(options, BY_NAME[options.alone])
        options.into.write_bytes(msgspec.json.encode(played))
        return 0
    if options.publish:
        os.environ["RESULTS"] = str(PUBLISHED)
    names = list(asked or BY_NAME)
    if unknown := [name for name in names if name not in BY_NAME]:
        parser.error(f"there is no scene {', '.join(unknown)}")
    if wrong := [runs for runs in asked.values() if runs and not (runs.isdigit() and int(runs))]:
        parser.error(f"that is no number of runs: {', '.join(wrong)}")
    impossible = why_impossible()
    scenes = []
    for name in names:
        if BY_NAME[name].needs_namespaces and impossible:
            print(f"not measured: {BY_NAME[name].words}: {impossible}")
        else:
            scenes.append(BY_NAME[name])
    report = Report("fleet")
    report.see_load()
    with tempfile.TemporaryDirectory(prefix="rateway-bench-fleet-") as folder:
        found = play_all(options, scenes, Path(folder))
    for name, played in found.items():
        if played.runs:
            write_row(report, BY_NAME[name], played)
    Console(width=200).print(table(found))
    for name, played in found.items():
        for words in played.failures:
            print(f"{name} failed: {words}")
    if not options.without and any(played.runs for played in found.values()):
        # Scenes that were not played keep the rows that they have.
        made = {row["scene"]: row for row in [*report.written_rows(), *report.rows]}
        report.rows = [made[name] for name in BY_NAME if name in made]
        report.write()
    clean = all(
        not played.failures and not any(each.lost or each.two_ids or each.concurrency for each in played.runs)
        for played in found.values()
    )
    return 0 if clean else 1


def write_row(report: Report, scene: Scene, played: Played) -> None:
    runs = played.runs
    report.row(
        scene.words,
        scene=scene.name,
        runs=strikes(played),
        failed=len(played.failures),
        live_s=[each.live_s for each in runs],
        pause_s=[each.pause_s for each in runs],
        hole_s=[each.hole_s for each in runs],
        **{name: max(getattr(each, name) for each in runs) for _, name in COLUMNS[3:]},
        happened=sum(each.happened for each in runs),
        records_per_s=round(played.records_per_s, 2),
        commit=report.facts["machine"]["commit"],
    )


if __name__ == "__main__":
    raise SystemExit(main())
