"""Delay the event loop's next wake-up by a moment, so that one wake-up serves many shards.

At fifty events a second on each of many shards nearly every event would be a wake-up of its own: a read, a write to
the broker, a confirm, each with its system calls and its switch of process, together several times the cost of the
event. A network card has the same trouble with its interrupts, and the same cure: while events come steadily and a
wake-up is short, the loop sleeps for :data:`GATHER_S` before it looks at its sockets again. What arrives meanwhile is
read, stored, written and confirmed together (``docs/performance.md``, "Wake-ups").

The sleep blocks the loop on purpose. It is shorter than a millisecond, adds to an event's latency no more than
itself, and is not taken when events are rare (nothing to gather), many (there is work already) or read and not yet
written: what is in our hands never waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

__all__ = ["GATHER_S", "WakeupBatching"]

# Nothing that is done for batching may add more than a millisecond; the kernel's timers are up to 0.1 ms late.
GATHER_S: Final = 0.0009
# Events are steady while one wake-up follows another within so long: in a shorter time than that a sleep would
# gather less than one event more.
_STEADY_S: Final = 2 * GATHER_S
# A wake-up that works for so long has gathered enough.
_LONG_S: Final = GATHER_S / 2


class WakeupBatching:
    """One for all clusters of a process, and for its loop's thread."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.taken = 0
        """The number of waits so far."""
        self._clock = clock
        self._sleep = sleep
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._since = 0.0
        self._last = 0.0
        self._writers: list[Callable[[], bool]] = []

    def watch(self, is_writing: Callable[[], bool]) -> None:
        """Ask this before each wait: whether something is about to be written."""
        self._writers.append(is_writing)

    def worked(self, since: float) -> None:
        """Record that this wake-up served events, the first of which came at ``since`` (monotonic seconds)."""
        if not self._scheduled:
            self._scheduled = True
            self._since = since
            # In the loop's next turn: by then what this one wrote is on its way.
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._gather)

    def _gather(self) -> None:
        self._scheduled = False
        now = self._clock()
        if now - self._last < _STEADY_S and now - self._since < _LONG_S and not self._in_hand():
            self._sleep(GATHER_S)
            self.taken += 1
            now = self._clock()
        self._last = now

    def _in_hand(self) -> bool:
        # Between a write and this turn the loop has looked at its sockets once.
        return any(is_writing() for is_writing in self._writers)
