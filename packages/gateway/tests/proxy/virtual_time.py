"""An event loop whose time passes when nothing else is to be done: tests of minutes take no time, and none is real."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jumping(selectors.SelectSelector):
    """Never waits: what would be waited for has come. Sockets get *grace* real seconds before time is put forward."""

    def __init__(self, grace: float) -> None:
        super().__init__()
        self.now = 0.0
        self._grace = grace

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout == 0 else self._grace)
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        elif not ready and timeout is None:
            raise AssertionError("everything waits for nothing")
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; ``time()`` begins at 0."""

    def __init__(self, grace: float = 0.0) -> None:
        self._jumping = _Jumping(grace)
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(coroutine: Coroutine[Any, Any, T], *, grace: float = 0.0) -> T:
    """Run to the end in virtual time. *grace*: real seconds that what comes over a socket may take."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(grace)) as runner:
        return runner.run(coroutine)


async def pass_time(seconds: float = 0.01) -> None:
    """Let everything happen that happens within so many seconds."""
    await asyncio.sleep(seconds)
