"""How the tests run a coroutine: on uvloop, as the gateway does, with a bound on its time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

import uvloop

T = TypeVar("T")


def run(coroutine: Coroutine[object, object, T], *, timeout: float = 60.0) -> T:
    """Run *coroutine* to its end on a fresh loop; TimeoutError after *timeout* seconds."""

    async def bounded() -> T:
        async with asyncio.timeout(timeout):
            return await coroutine

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bounded())
