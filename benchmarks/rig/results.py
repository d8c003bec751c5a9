"""One file of results: every figure with its runs, their spread, the load they met, and what was measured on what."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.rig import machine

FILE = Path(__file__).parents[1] / "results.json"
PICTURES = Path(__file__).parents[1] / "pictures"


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Median, extremes, and the standard error of the median (1.2533 σ/√n), of some runs."""
    runs = [value for value in values if not math.isnan(value)]
    deviation = statistics.stdev(runs) if len(runs) > 1 else 0.0
    return {
        "median": round(statistics.median(runs), 4),
        "low": round(min(runs), 4),
        "high": round(max(runs), 4),
        "error": round(1.2533 * deviation / math.sqrt(len(runs)), 4),
        "runs": [round(value, 4) for value in runs],
    }


class Report:
    """What one benchmark found; ``write`` puts it into the file beside the others'."""

    def __init__(self, name: str, command: str) -> None:
        self.name = name
        self.began = time.time()
        self.rows: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {
            "command": command,
            "machine": machine.facts(),
            "load": [],
            "others": [],
        }
        self._others = machine.Others()

    def see_load(self) -> float:
        """Note the load before a run, and what others have used of the cores since the last one."""
        if self.facts["load"]:
            self.facts["others"].append(round(self._others.share(), 3))
        load = machine.load()
        self.facts["load"].append(round(load, 2))
        return load

    def row(self, label: str, **figures: Any) -> None:
        """One line of the table. Lists become medians with their spread."""
        made = {
            key: spread(value) if isinstance(value, list) and value else value
            for key, value in figures.items()
        }
        self.rows.append({"label": label, **made})
        words = "  ".join(f"{key} {_short(value)}" for key, value in made.items())
        print(f"{label:<44} {words}", flush=True)

    def write(self) -> None:
        """Into ``results.json`` (or the file that RESULTS names)."""
        path = Path(os.environ.get("RESULTS", FILE))
        every = json.loads(path.read_text()) if path.exists() else {}
        self.facts["others"].append(round(self._others.share(), 3))
        most = max(self.facts["others"])
        noisy = most > machine.NOISY_SHARE
        every[self.name] = self.facts | {
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.began)),
            "seconds": round(time.time() - self.began, 1),
            "noisy": noisy,
            "rows": self.rows,
        }
        path.write_text(json.dumps(every, indent=1) + "\n")
        if noisy:
            print(f"NOISY: others used up to {most:.0%} of the cores; take ratios, not figures")


def _short(value: Any) -> str:
    if isinstance(value, dict) and "median" in value:
        return f"{value['median']:.4g} ±{value['error']:.2g}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def arguments(
    about: str | None, add: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """The command line that all benchmarks share: how many runs, and the subset or the whole.

    From here on this process and what it starts keep away from the gateway's core.
    """
    machine.keep_away()
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="runs of each figure (default 5)")
    parser.add_argument("--full", action="store_true", help="the whole matrix instead of the subset")
    if add is not None:
        add(parser)
    return parser.parse_args()
