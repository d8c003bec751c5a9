"""How the tests run a coroutine: on uvloop, as the gateway does, with a bound on its time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

import uvloop

T = TypeVar("T")

#: Below pytest's own bound of 300 s, which ends the whole session's worker and says less.
TIMEOUT_S = 240.0


def run(coroutine: Coroutine[object, object, T], *, timeout: float = TIMEOUT_S) -> T:
    """Run *coroutine* to its end on a fresh loop; TimeoutError after *timeout* seconds."""

    async def bounded() -> T:
        async with asyncio.timeout(timeout):
            return await coroutine

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(bounded())
        finally:
            runner.run(_end_what_is_left())


async def _end_what_is_left() -> None:
    """Cancel tasks until none is left: one that ends may begin another (a connection's last callbacks), and a loop that
    is closed over a task makes an error in whatever test comes next."""
    loop = asyncio.get_running_loop()
    for _ in range(20):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for task in others:
            if not task.cancelled() and (error := task.exception()) is not None:
                about = {"message": "a task ended with an exception", "exception": error, "task": task}
                loop.call_exception_handler(about)


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
