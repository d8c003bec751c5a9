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


async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server's side that takes what comes and says nothing, until its peer leaves.

    It holds its writer: from Python 3.13 on one that nobody holds closes its connection.
    """
    try:
        while await reader.read(1 << 16):
            pass
    except ConnectionError:
        pass
    finally:
        writer.close()
