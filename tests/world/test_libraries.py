"""Libraries that others wrote connect to the simulated Discord, and come back from what goes wrong.

discord.py and hikari always run; the others with `make test-world`, each where its language's tools are at hand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.aio import run
from tests.world import table
from tests.world.journey import Outcome, travel
from tests.world.libraries import LIBRARIES, Library
from tests.world.toolchains import BOTS, ToolMissing, prepare

# Set by `make test-world`: what this run sees is written into docs/simulator.md.
WRITE = "RATEWAY_WORLD_TABLE"
# A first build of a library in Rust takes minutes on a small machine.
BUILD_S = 3600


class Seen:
    """What one run of the tests has seen of all libraries."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[Library, Outcome]] = {}
        self.skipped: dict[str, str] = {}


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    """Outcomes by library; written into the page at the end if that is asked for."""
    it = Seen()
    yield it
    if os.environ.get(WRITE) == "1":
        rows = [it.rows[library.name] for library in LIBRARIES if library.name in it.rows]
        table.write(table.table(rows, it.skipped, datetime.now(UTC).date()))


@pytest.mark.checklist("K46", "K47", "K48", "K53")
@pytest.mark.timeout(BUILD_S)
@pytest.mark.parametrize(
    "library",
    [
        pytest.param(library, id=library.name, marks=[] if library.always else [pytest.mark.world])
        for library in LIBRARIES
    ],
)
def test_a_library_connects_gets_members_answers_a_command_and_comes_back(
    library: Library, seen: Seen
) -> None:
    try:
        folder = prepare(library.folder, library.toolchain)
    except ToolMissing as missing:
        seen.skipped[library.name] = f"{missing} is missing"
        pytest.skip(f"{library.name} needs {missing}")
    outcome = run(travel(library, folder), timeout=BUILD_S)
    seen.rows[library.name] = (library, outcome)
    assert outcome.failure == ""
    assert set(outcome.steps) == set(table.STEPS)
    assert outcome.foreign(library) == {}, outcome.details
    assert outcome.unsimulated == []


def test_every_librarys_version_is_pinned() -> None:
    versions = {
        library.folder: library.toolchain.version(BOTS / library.folder, library.package)
        for library in LIBRARIES
    }
    assert [name for name, version in versions.items() if not version[0].isdigit()] == []
    # The bot of a framework is test_framework_behind_proxy.py's.
    assert {folder.name for folder in BOTS.iterdir()} - {"discord_js_framework"} == set(versions)


def test_the_table_names_what_a_library_did_not_do() -> None:
    library = LIBRARIES[0]
    outcome = Outcome(library.name, "1.0", {"connects": "yes"}, warnings={"payload-form": 3})
    text = table.table(
        [(library, outcome)], {"JDA": "mvn is missing"}, datetime(2026, 1, 2, tzinfo=UTC).date()
    )
    lines = text.splitlines()
    assert lines[0] == "Run on 2026-01-02."
    assert lines[-1] == "Not tried: JDA (mvn is missing)."
    assert lines[4].count("**no**") == len(table.STEPS) - 1
    assert lines[4].endswith("| – | `payload-form` |")
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
