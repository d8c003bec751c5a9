"""The tables of libraries in docs/simulator.md and docs/proxy.md: each written from the outcomes of one run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Final

from tests.world.journey import FAULTS, Outcome
from tests.world.libraries import Library
from tests.world.toolchains import ROOT

PAGE: Final = ROOT / "docs/simulator.md"
BEGIN: Final = "<!-- libraries: written by `make test-world` -->"
END: Final = "<!-- end of libraries -->"
STEPS: Final = ("connects", "members", "command", "events", *FAULTS)
TITLES: Final = ("connects", "op 8", "slash command", "all events", *FAULTS)


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"`{rule}`" for rule in sorted(counts)) or "–"


def row(library: Library, outcome: Outcome, steps: Sequence[str] = STEPS) -> str:
    """One library's line."""
    steps = [outcome.steps.get(step, "**no**") for step in steps]
    cells = [library.name, outcome.version, library.toolchain.language, *steps]
    return f"| {' | '.join([*cells, _words(outcome.violations), _words(outcome.warnings)])} |"


def table(
    rows: Sequence[tuple[Library, Outcome]],
    skipped: dict[str, str],
    day: date,
    steps: Sequence[str] = STEPS,
    titles: Sequence[str] = TITLES,
) -> str:
    """All of it: when, each library's line, and what could not be tried."""
    titles = ["Library", "Version", "Language", *titles, "Violations", "Warnings"]
    text = [
        f"Run on {day.isoformat()}.",
        "",
        f"| {' | '.join(titles)} |",
        "|" + "---|" * len(titles),
        *(row(library, outcome, steps) for library, outcome in rows),
    ]
    if skipped:
        text += ["", "Not tried: " + ", ".join(f"{name} ({why})" for name, why in skipped.items()) + "."]
    return "\n".join(text)


def write(text: str, page: Path = PAGE) -> None:
    """Put the table where the page has its place."""
    whole = page.read_text()
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    changed, times = pattern.subn(lambda _: f"{BEGIN}\n{text}\n{END}", whole)
    if times != 1:
        raise ValueError(f"{page} has {times} places for the table instead of one")
    page.write_text(changed)
