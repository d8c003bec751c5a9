"""``python -m tests.chaos --faults 1000 --seed 7 --processes 2``: a long chaos run with its report."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.aio import run
from tests.chaos.plan import KINDS, plan
from tests.chaos.report import draw, show, write_json
from tests.chaos.runner import chaos
from tests.rabbitmq import fresh_vhost, private_rabbitmq


def main() -> int:
    """Run, report, and tell by the exit code whether anything was lost or broken."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="the same seed gives the same faults")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kinds", default="", help="only these faults, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("build/chaos"), help="folder for picture and JSON")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    kinds = {kind: KINDS[kind] for kind in options.kinds.split(",")} if options.kinds else KINDS
    console = Console()
    console.print(f"{options.faults} faults, seed {seed}, {options.processes} processes")
    with tempfile.TemporaryDirectory() as folder, private_rabbitmq() as node, fresh_vhost(node) as broker:
        result = run(
            chaos(
                Path(folder),
                broker,
                plan(seed, options.faults, kinds=kinds),
                seed=seed,
                processes=options.processes,
                say=lambda words: console.print(words, highlight=False),
            ),
            timeout=60.0 * options.faults + 600.0,
        )
    options.out.mkdir(parents=True, exist_ok=True)
    draw(result, options.out / "timeline.png")
    write_json(result, options.out / "result.json")
    show(result, console)
    console.print(f"picture and JSON in {options.out}")
    return 0 if result.clean else 1


if __name__ == "__main__":
    sys.exit(main())
