"""Delay the event loop's next wake-up by a moment, so that one wake-up serves many shards.

At fifty events a second on each of many shards nearly every event would be a wake-up of its own: a read, a write to
the broker, a confirm, each with its system calls and its switch of process, together several times the cost of the
event. A network card has the same trouble with its interrupts, and the same cure: while events come steadily and a
wake-up is short, the loop sleeps before it looks at its sockets again. What arrives meanwhile is read, stored, written
and confirmed together (``docs/decisions/wakeup_batching.md``).

The sleep blocks the loop on purpose. It lasts until about :data:`ENOUGH` events of each cluster have come (with the
cache :data:`ENOUGH_WITH_CACHE`), and between :data:`SHORTEST_S` and :data:`LONGEST_S`: an event's latency grows by no
more than that. It is not taken when events are rare (nothing to gather), many (there is work already) or read and not
yet written: what is in our hands never waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

__all__ = ["ENOUGH", "ENOUGH_WITH_CACHE", "LONGEST_S", "SHORTEST_S", "WakeupBatching", "wait_for"]

# At this many events of a cluster its commit, its write and its confirm are a smaller part of their cost than they are
# themselves. Each cluster that has events in a wake-up has these of its own.
ENOUGH: Final = 16
# The cache's work for an event makes them a small part of its cost sooner. And a proxy's bots, which need the
# cache, have an event over a second socket after this one.
ENOUGH_WITH_CACHE: Final = 8
# Where more than enough come in a millisecond nothing is to be gained by waiting longer, and the kernel's timers are
# up to 0.1 ms late.
SHORTEST_S: Final = 0.0009
# What batching may add to an event's way: a small part of what Discord's own network takes.
LONGEST_S: Final = 0.005
# Events are steady while one wake-up follows another within so many waits: in a shorter time than that a sleep would
# gather less than one event more.
_STEADY: Final = 2
# A wake-up that works for more than this part of the wait has gathered enough.
_LONG: Final = 0.5
# The part of the events' rate that is taken from the last wake-up; the rest is that of those before.
_WEIGHT: Final = 0.125


def wait_for(interval: float, enough: float = ENOUGH) -> float:
    """Return the seconds to wait for *enough* events that come *interval* seconds apart."""
    return min(LONGEST_S, max(SHORTEST_S, enough * interval))


class WakeupBatching:
    """One for all clusters of a process, and for its loop's thread."""

    def __init__(
        self,
        enough: int = ENOUGH,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """*enough*: the events of each cluster that a wait is for."""
        self.taken = 0
        """The number of waits so far."""
        self._enough = enough
        self._clock = clock
        self._sleep = sleep
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._since = 0.0
        # When the last wake-up ended, before and after its wait.
        self._worked_until = self._waited_until = 0.0
        # Events since then, and the seconds between two of them, lately.
        self._events = 0
        self._interval = LONGEST_S / enough
        # Clusters that had events since then, and how many have them in a wake-up, lately.
        self._clusters = 0
        self._together = 1.0
        self._writers: list[Callable[[], bool]] = []

    def watch(self, is_writing: Callable[[], bool]) -> None:
        """Ask this before each wait: whether something is about to be written."""
        self._writers.append(is_writing)

    def worked(self, since: float, events: int) -> None:
        """Record that this wake-up served *events* of a cluster, the first of which came at ``since`` (monotonic
        seconds). Each cluster says so once.
        """
        self._events += events
        self._clusters += 1
        if not self._scheduled:
            self._scheduled = True
            self._since = since
            # In the loop's next turn: by then what this one wrote is on its way.
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._gather)

    def _gather(self) -> None:
        self._scheduled = False
        now, enough = self._clock(), self._enough * self._together
        if self._events:
            self._together += _WEIGHT * (self._clusters - self._together)
            # A pause says nothing of the rate at which events come again. Rarer ones are waited for no longer.
            interval = min(LONGEST_S / enough, (now - self._worked_until) / self._events)
            self._interval += _WEIGHT * (interval - self._interval)
        self._events = self._clusters = 0
        self._worked_until = now
        wait = wait_for(self._interval, enough)
        if (
            now - self._waited_until < _STEADY * wait
            and now - self._since < _LONG * wait
            and not self._in_hand()
        ):
            self._sleep(wait)
            self.taken += 1
            now = self._clock()
        self._waited_until = now

    def _in_hand(self) -> bool:
        # Between a write and this turn the loop has looked at its sockets once.
        return any(is_writing() for is_writing in self._writers)
