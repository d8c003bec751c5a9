"""Libraries that others wrote connect to the gateway proxy as if to Discord, and miss nothing.

discord.py and hikari always run; the others with `make test-world`, each where its language's tools are at hand.
"""

from __future__ import annotations

import pytest

from tests.aio import run
from tests.world.libraries import LIBRARIES, Library
from tests.world.proxy_journey import STEPS, travel_behind_proxy
from tests.world.toolchains import ToolMissing, prepare

# A first build of a library in Rust takes minutes on a small machine.
BUILD_S = 3600


@pytest.mark.timeout(BUILD_S)
@pytest.mark.parametrize(
    "library",
    [
        pytest.param(library, id=library.name, marks=[] if library.always else [pytest.mark.world])
        for library in LIBRARIES
    ],
)
def test_a_library_behind_the_proxy_restarts_freely_and_misses_nothing(library: Library) -> None:
    try:
        folder = prepare(library.folder, library.toolchain)
    except ToolMissing as missing:
        pytest.skip(f"{library.name} needs {missing}")
    outcome = run(travel_behind_proxy(library, folder), timeout=BUILD_S)
    assert outcome.failure == ""
    assert set(outcome.steps) == set(STEPS)
    assert outcome.foreign(library) == {}, outcome.details
    assert outcome.unsimulated == []
