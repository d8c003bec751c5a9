"""The time until all shards are live again after a zone of Discord died. ``python -m benchmarks.zones``

Every session's own host dies at once, its connections with it: it refuses TCP, answers upgrades with 503, or accepts
TCP and says nothing. The main host is well. The time is from the moment of the fault to the last RESUMED of Discord's;
no identify may be spent and no event may be lost while shards have 5 events/s each (1,000 of them) or 50 (64 of them).
Then the zone comes back, and the same begins anew.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rateway_simulator.faults import Fault
from rateway_simulator.gateway.hosts import Mode
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.world.dispatch import WorldOptions

from benchmarks.rig import child
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.stage import Stage, stage

# (shards, events a second of each)
LOADS = ((1000, 5.0), (64, 50.0))
# Fault → what is allowed for it, seconds.
ZONES = {"dead_host": 10.0, "refusing_host": 10.0, "silent_host": 20.0}
WORDS = {"dead_host": "refuses TCP", "refusing_host": "answers 503", "silent_host": "is silent"}
# What Discord keeps for the resume of a busy shard.
BUFFER = 3500
# Between two looks at the simulated Discord.
LOOK_S = 0.02
PATIENCE_S = 120.0


async def fault(it: Stage, kind: str) -> dict[str, float]:
    """One fault of the zone; what it came to."""
    sim, ledger = it.sim, it.sim.ledger
    identified, entries = ledger.counts["identify"], len(ledger.journal)
    ended = sum(1 for record in ledger.sessions.values() if record.ended)
    dials = ledger.counts["dial"]
    cpu = it.cpu()
    await sim.inject(Fault(kind=kind, status=503))
    began, wall = time.monotonic(), time.time()
    await sim.inject(Fault(kind="cut"))
    while time.monotonic() - began < PATIENCE_S:
        await asyncio.sleep(LOOK_S)
        if (
            sum(1 for session in sim.gateway.sessions.values() if sim.gateway.connection_of(session))
            == it.shards
        ):
            break
    at = [entry.time for entry in list(ledger.journal)[entries:] if entry.what == "resumed"]
    status = await it.until(
        lambda status: sum(each["shards_ready"] for each in status["clusters"]) == it.shards
    )
    seconds = max(at, default=wall + PATIENCE_S) - wall
    for host in sim.gateway.hosts[1:]:
        await host.set_mode(Mode.OPEN)
    lost = sum(1 for record in ledger.sessions.values() if record.ended) - ended
    return {
        "seconds": seconds,
        "median_s": sorted(at)[len(at) // 2] - wall if at else PATIENCE_S,
        "resumed": len(at),
        "dials": ledger.counts["dial"] - dials,
        "identifies": ledger.counts["identify"] - identified,
        "sessions_lost": lost,
        "gaps": sum(each["gaps"] for each in status["clusters"]),
        "cpu_s": it.cpu() - cpu,
    }


async def lost(it: Stage) -> int:
    """How many of the events sent the gateway has not received, once all is settled."""
    it.sim.set_rate(0)
    await it.settled()
    status = await it.status()
    sent = {session.id: session.seq for session in it.sim.gateway.sessions.values()}
    received = {shard["session"]: shard["received"] for shard in status["shards"]}
    return sum(seq - received.get(session, 0) for session, seq in sent.items())


async def again(it: Stage, environment: dict[str, str]) -> None:
    """Start the gateway anew: a session that was resumed at the main host stays there as long as its process lives."""
    it.gateway.process.terminate()
    await asyncio.to_thread(it.gateway.process.wait)
    it.gateway = child.Child("rateway", environment=environment, log=it.folder / "gateway.log")
    await it.live()


async def rounds(
    shards: int, rate: float, kinds: list[str], runs: int, processes: int, uri: str, report: Report
) -> bool:
    """All kinds of fault, each so many times, in one life of the gateway; whether all was as it has to be."""
    options = SimulatorOptions(
        world=WorldOptions(guilds=shards, members_per_guild=5), shards=shards, max_concurrency=shards,
        identifies_total=2 * shards + 1000, replay_events=BUFFER, replay_seconds=600.0, recorded=True,
    )  # fmt: skip
    settings = {"SHARDS_PER_CLUSTER": "64", "CACHE_ENABLED": "false", "PROCESSES": str(processes)}
    well = True
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with stage(options, uri, folder=folder, **settings) as it:
            await it.live()
            environment = child.settings(it.sim.api_url, uri, folder, shards, **settings)
            for kind in kinds:
                found, missing, sent = [], 0, it.sim.ledger.events
                for _ in range(runs):
                    await again(it, environment)
                    it.sim.set_rate(rate, per_shard=True, recorded=True)
                    flowing = it.sim.ledger.events + 2 * shards * rate
                    while it.sim.ledger.events < flowing:  # noqa: ASYNC110  # the source announces nothing
                        await asyncio.sleep(LOOK_S)
                    report.see_load()
                    found.append(await fault(it, kind))
                    print(
                        f"  {kind}:", {key: round(value, 2) for key, value in found[-1].items()}, flush=True
                    )
                    missing += await lost(it)
                figures = {key: [run[key] for run in found] for key in found[0]}
                report.row(
                    f"{shards:,} shards at {rate:g}/s each, the zone {WORDS[kind]}",
                    **figures,
                    allowed_s=ZONES[kind],
                    sent=it.sim.ledger.events - sent,
                    lost=missing,
                    violations=len(it.sim.ledger.noted),
                )
                well = well and missing == 0 and max(figures["seconds"]) <= ZONES[kind]
                well = well and not any(figures["identifies"]) and not any(figures["sessions_lost"])
            it.gateway.end()
    return well


def main() -> None:
    """Measure; ends with an error when a bound is exceeded."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--kinds", default=",".join(ZONES), help="of the zone's death")
        parser.add_argument("--loads", default="1000:5,64:50", help="shards:events a second of each")
        parser.add_argument("--processes", type=int, default=1)

    options = arguments(__doc__, add)
    report = Report("zones")
    well = True
    with child.sink() as (_, uri):
        for load in options.loads.split(","):
            shards, rate = load.split(":")
            well &= asyncio.run(
                rounds(
                    int(shards), float(rate), options.kinds.split(","), options.runs, options.processes, uri,
                    report,
                )
            )  # fmt: skip
    report.write()
    if not well:
        raise SystemExit("a bound was exceeded")


if __name__ == "__main__":
    main()
