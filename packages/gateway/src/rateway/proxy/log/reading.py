"""One reading of a log: the pass that is under way, and the one timer beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from rateway.backoff import Backoff
from rateway.delivery.proxy_port import LogPass, LogReader, LogSink, LogStart

__all__ = ["Reading", "Timer", "Timers"]

# Seconds between a pass that ended by itself and the next attempt.
BACKOFF: Final = Backoff(0.1, 5.0)


class Timer(Protocol):
    """A call that may be cancelled, also after it was made."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """An event loop is one."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer: ...


class Reading:
    """A pass over a log, begun again after growing delays where it ends by itself. One timer at a time runs beside it:
    that of the next attempt, or one for what the pass should have brought."""

    __slots__ = ("_failures", "_log", "_pass", "_reader", "_sink", "_timer", "_timers")

    def __init__(self, log: str, reader: LogReader, timers: Timers, sink: LogSink) -> None:
        self._log = log
        self._reader = reader
        self._timers = timers
        self._sink = sink
        self._pass: LogPass | None = None
        self._timer: Timer | None = None
        # Passes in a row that ended without an entry.
        self._failures = 0

    @property
    def is_open(self) -> bool:
        """Whether a pass is under way."""
        return self._pass is not None

    def begin(self, start: LogStart) -> None:
        """Begin a pass."""
        self._pass = self._reader.read(self._log, start, self._sink)

    def acknowledge(self, offset: int) -> None:
        """Let more come after the entry at ``offset``."""
        if self._pass is not None:
            self._pass.acknowledge(offset)

    def note_entries(self) -> None:
        """Shorten the delay before the next attempt: entries have come."""
        self._failures = 0

    def note_end(self) -> None:
        """Note that the pass has ended by itself."""
        self._pass = None
        self.stop_waiting()

    def try_again(self, begin: Callable[[], None]) -> None:
        """Call *begin* after a delay in seconds that grows with each failure."""
        self.wait(BACKOFF.delay(self._failures), begin)
        self._failures += 1

    def wait(self, seconds: float, then: Callable[[], None]) -> None:
        """Call *then* after so many seconds, in place of what was to be called before."""
        self.stop_waiting()
        self._timer = self._timers.call_later(seconds, then)

    def stop_waiting(self) -> None:
        """Call nothing later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Stop: nothing more is delivered or called."""
        self.stop_waiting()
        if self._pass is not None:
            self._pass.close()
            self._pass = None
