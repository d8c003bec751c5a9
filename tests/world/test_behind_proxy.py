"""Libraries that others wrote connect to the gateway proxy as if to Discord, and miss nothing.

discord.py and hikari always run; the others with `make test-world`, each where its language's tools are at hand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.aio import run
from tests.world import table
from tests.world.libraries import LIBRARIES, Library
from tests.world.proxy_journey import STEPS, travel_behind_proxy
from tests.world.test_libraries import BUILD_S, WRITE, Seen
from tests.world.toolchains import ROOT, ToolMissing, prepare

TITLES = (
    "logs in", "presence", "op 8", "slash command", "all events", "connections cut", "bot killed", "proxy killed",
    "gateway killed", "RabbitMQ killed",
)  # fmt: skip


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    """Outcomes by library; written into the page at the end if that is asked for."""
    it = Seen()
    yield it
    if os.environ.get(WRITE) == "1":
        rows = [it.rows[library.name] for library in LIBRARIES if library.name in it.rows]
        text = table.table(rows, it.skipped, datetime.now(UTC).date(), STEPS, TITLES)
        table.write(text, ROOT / "docs/proxy.md")


@pytest.mark.timeout(BUILD_S)
@pytest.mark.parametrize(
    "library",
    [
        pytest.param(library, id=library.name, marks=[] if library.always else [pytest.mark.world])
        for library in LIBRARIES
    ],
)
def test_a_library_behind_the_proxy_restarts_freely_and_misses_nothing(library: Library, seen: Seen) -> None:
    try:
        folder = prepare(library.folder, library.toolchain)
    except ToolMissing as missing:
        seen.skipped[library.name] = f"{missing} is missing"
        pytest.skip(f"{library.name} needs {missing}")
    outcome = run(travel_behind_proxy(library, folder), timeout=BUILD_S)
    seen.rows[library.name] = (library, outcome)
    assert outcome.failure == ""
    assert set(outcome.steps) == set(STEPS)
    assert outcome.foreign(library) == {}, outcome.details
    assert outcome.unsimulated == []
