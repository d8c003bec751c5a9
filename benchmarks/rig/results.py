"""One file of results: every figure with its runs, their spread, the load they met, and what was measured on what."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.rig import machine

# What the documentation prints, and where other runs go: both under the root of the repository.
PUBLISHED = Path(__file__).parents[1] / "results.json"
LATEST = Path(__file__).parents[2] / ".cache" / "bench" / "results.json"
# Of a row, what is for programs.
UNSPOKEN = ("variant", "rounds")


def destination() -> Path:
    """The file that results go into: the one that the variable RESULTS names, else :data:`LATEST`."""
    return Path(os.environ.get("RESULTS", LATEST))


def picture_folder() -> Path:
    """The folder of pictures, beside the results that they show."""
    return destination().parent / "pictures"


def command_line() -> str:
    """The command that started this process, as a person would type it."""
    spec = sys.modules["__main__"].__spec__
    module = (spec.name if spec else "").removesuffix(".__main__")
    return shlex.join(["python", "-m", module, *(word for word in sys.argv[1:] if word != "--publish")])


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


def by_round(row: dict[str, Any], key: str) -> dict[int, float]:
    """A figure of a row of ``benchmarks.path``'s kind, by the number of the round that found it."""
    return dict(zip(row["rounds"], row[key]["runs"], strict=True))


def ratio(one: dict[str, Any], other: dict[str, Any], key: str = "us") -> dict[str, Any] | None:
    """How many times *other*'s figure *one*'s is: of each round that both have, with the spread; None without any."""
    ones, others = by_round(one, key), by_round(other, key)
    shared = [ones[number] / others[number] for number in ones if number in others]
    return spread(shared) if shared else None


class Report:
    """What one benchmark found; ``write`` puts it into the file beside the others'."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = time.time()
        self.rows: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {
            "command": command_line(),
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
        words = "  ".join(f"{key} {_short(value)}" for key, value in made.items() if key not in UNSPOKEN)
        print(f"{label:<44} {words}", flush=True)

    def written_rows(self) -> list[dict[str, Any]]:
        """What :func:`destination` has of the same benchmark."""
        rows: list[dict[str, Any]] = _written().get(self.name, {}).get("rows", [])
        return rows

    def write(self) -> None:
        """Put the results into :func:`destination`, in place of the same benchmark's earlier ones."""
        path = destination()
        path.parent.mkdir(parents=True, exist_ok=True)
        every = _written()
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
        print(f"results: {path}")
        if noisy:
            print(f"NOISY: others used up to {most:.0%} of the cores; take ratios, not figures")


def _written() -> dict[str, Any]:
    path = destination()
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _short(value: Any) -> str:
    if isinstance(value, dict) and "median" in value:
        return f"{value['median']:.4g} ±{value['error']:.2g}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _ended(number: int, _frame: object) -> NoReturn:
    # As a shell reports it.
    sys.exit(128 + number)


def arguments(
    about: str | None, add: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """The command line that all benchmarks share: how many runs, the subset or the whole, and where results go.

    From here on this process and what it starts keep away from the gateway's core, and SIGTERM (of timeout(1), say)
    ends what it has started as well.
    """
    machine.keep_away()
    signal.signal(signal.SIGTERM, _ended)
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="runs of each figure (default 5)")
    parser.add_argument("--full", action="store_true", help="the whole matrix instead of the subset")
    parser.add_argument(
        "--publish", action="store_true", help="results into benchmarks/results.json, which the docs print"
    )
    if add is not None:
        add(parser)
    options = parser.parse_args()
    if options.publish:
        os.environ["RESULTS"] = str(PUBLISHED)
    return options
