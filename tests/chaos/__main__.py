"""``python -m tests.chaos --faults 1000 --seed 7``: a long chaos run with its report. Two lanes, side by side."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console

from tests.aio import run
from tests.chaos.lanes import run_lanes
from tests.chaos.outages import SCENES
from tests.chaos.plan import BOTS_KINDS, KINDS
from tests.chaos.report import draw, show, write_json
from tests.chaos.runner import Result, chaos
from tests.rabbitmq import Broker, fresh_vhost, private_rabbitmq


def main() -> int:
    """Run, report, and tell by the exit code whether anything was lost or broken."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="the same seed gives the same faults")
    parser.add_argument(
        "--processes", default="2,1", help="gateway processes of each lane (default 2,1: two lanes)"
    )
    parser.add_argument("--kinds", default="", help="only these faults, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("build/chaos"), help="folder for picture and JSON")
    parser.add_argument(
        "--outages", action="store_true", help="Discord's outages scene by scene, in their long form"
    )
    parser.add_argument("--lane", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--event-log", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    if options.lane:
        result = one_lane(options.faults, seed, int(options.processes), options.kinds, options.event_log)
        (options.out / "result.json").write_bytes(msgspec.json.encode(result))
        return 0 if result.clean else 1
    if options.outages:
        return outages({name for name in options.kinds.split(",") if name})
    processes = tuple(int(number) for number in options.processes.split(","))
    console = Console(width=max(110, Console().width))
    console.print(f"{options.faults} faults, seed {seed}, --processes {options.processes}", highlight=False)
    results = asyncio.run(
        run_lanes(
            options.out,
            options.faults,
            seed,
            processes,
            kinds=options.kinds,
            say=lambda words: console.print(words, highlight=False, markup=False),
        )
    )
    write_json(results, options.out / "result.json")
    draw(results, options.out / "timeline.png")
    show(results, console)
    console.print(f"picture and JSON in {options.out}", highlight=False)
    return 0 if all(result.clean for result in results) else 1


def outages(chosen: set[str]) -> int:
    """Each scene of Discord's outages in its long form, one after the other."""
    clean = True
    with private_rabbitmq() as node:
        for scene in SCENES:
            if chosen and scene.name not in chosen:
                continue
            with tempfile.TemporaryDirectory(prefix="rateway-outage-") as folder, fresh_vhost(node) as broker:
                end = run(scene.play(Path(folder), broker, scene.long_s), timeout=scene.long_s + 900.0)
            clean = clean and end.clean
            print("well:" if end.clean else "FAILED:", end, flush=True)
    return 0 if clean else 1


def one_lane(faults: int, seed: int, processes: int, kinds: str, event_log: bool) -> Result:
    """One run in this process, with a broker of its own."""
    chosen = {kind: (KINDS | BOTS_KINDS)[kind] for kind in kinds.split(",")} if kinds else None
    with (
        tempfile.TemporaryDirectory(prefix="rateway-chaos-") as folder,
        private_rabbitmq(management=False) as node,
    ):
        return run(
            chaos(
                Path(folder),
                Broker(node, "/", node.uri),
                faults,
                seed=seed,
                processes=processes,
                kinds=chosen,
                event_log=event_log,
                say=lambda words: print(words, flush=True),
            ),
            timeout=120.0 * faults + 600.0,
        )


if __name__ == "__main__":
    sys.exit(main())
