"""How the tests run a simulated Discord: small, on free ports, for the time of a block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from rateway_simulator.faults import Fault, parse_word
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator
from rateway_simulator.world.dispatch import WorldOptions

SMALL = WorldOptions(guilds=3, members_per_guild=6, channels_per_guild=3, online=1.0)


@asynccontextmanager
async def simulator(**changes: Any) -> AsyncIterator[Simulator]:
    """A simulated Discord; all options can be changed, and `guilds` as well."""
    world = replace(SMALL, guilds=changes.pop("guilds", SMALL.guilds))
    async with Simulator(SimulatorOptions(**({"world": world} | changes))) as running:
        yield running


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that has no event of its own; the test's time-out bounds it."""
    while not condition():  # noqa: ASYNC110 - the ledger is for auditors and has no events of its own
        await asyncio.sleep(0.002)


def fault(word: str) -> Fault:
    """A fault as on the command line."""
    return parse_word(word).fault
