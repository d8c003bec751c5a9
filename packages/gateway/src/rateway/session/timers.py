"""The timers of a shard on its way to a live session.

For Hello, READY or the next replayed event, each with a deadline; for the time of its next attempt; and, while reading
is paused, for delivery to take events again, for less time than Discord waits for a heartbeat. A pause stops the other
two: what is not read cannot meet a deadline, and no connection is opened that would not be read.
"""

from __future__ import annotations

import math

from rateway.backoff import Backoff
from rateway.session.heartbeat import DEFAULT_INTERVAL
from rateway.session.options import SessionOptions

__all__ = ["Timers"]

# A Discord that is this slow is not waited for any longer, however many Hellos were missed.
LONGEST_HELLO = 60.0


class Timers:
    """One shard's, over all of its connections. Times are monotonic seconds."""

    __slots__ = ("_deadline", "_missed_hellos", "_options", "_paused_at", "_retry_at")

    def __init__(self, options: SessionOptions) -> None:
        self._options = options
        self._deadline: float | None = None
        self._retry_at: float | None = None
        self._paused_at: float | None = None
        self._missed_hellos = 0

    # What is expected of Discord.

    def for_hello(self, now: float) -> None:
        first = self._options.hello_timeout
        self._deadline = now + Backoff(first, max(LONGEST_HELLO, first)).delay(self._missed_hellos)

    def for_ready(self, now: float) -> None:
        self._deadline = now + self._options.ready_timeout

    def for_replay(self, now: float) -> None:
        """For RESUMED, or the next event before it."""
        self._deadline = now + self._options.replay_timeout

    def for_nothing(self) -> None:
        """Expect nothing further: what was expected has come."""
        self._deadline = None

    def greeted(self) -> None:
        """Hello came."""
        self._missed_hellos = 0

    def hello_missed(self) -> None:
        self._missed_hellos += 1

    def overdue(self, now: float) -> bool:
        """Return whether the deadline of what is expected has passed."""
        return self._deadline is not None and self._paused_at is None and now >= self._deadline

    # The next attempt.

    def for_attempt(self, at: float | None) -> None:
        """The next attempt comes then; None: not without help."""
        self._retry_at = at

    def attempt_due(self, now: float) -> bool:
        return self._retry_at is not None and now >= self._retry_at

    def over(self) -> None:
        """The connection has ended: nothing is expected of it any more."""
        self._deadline = self._retry_at = None

    # A pause in reading.

    @property
    def paused(self) -> bool:
        return self._paused_at is not None

    def pause(self, now: float) -> None:
        """Delivery takes no more; one pause within another is the same."""
        if self._paused_at is None:
            self._paused_at = now

    def go_on(self, now: float) -> None:
        """Delivery takes events again: what was not read gets the time of a Hello at the least."""
        self._paused_at = None
        if self._deadline is not None:
            self._deadline = max(self._deadline, now + self._options.hello_timeout)

    def pause_is_over(self, now: float, interval: float | None) -> bool:
        """Return whether reading has paused for almost as long as Discord waits; *interval* is its heartbeat's (None
        before Hello).
        """
        return self._paused_at is not None and now >= self._pause_ends(interval)

    def _pause_ends(self, interval: float | None) -> float:
        assert self._paused_at is not None
        interval = DEFAULT_INTERVAL if interval is None else interval
        return self._paused_at + interval * self._options.pause_share

    # All of them.

    def wake_at(self, *, connected: bool, interval: float | None) -> float:
        """Return when the first of them is over; inf for none. *connected*: with an open WebSocket."""
        if self._paused_at is not None:
            return self._pause_ends(interval) if connected else math.inf
        return min(
            math.inf if self._deadline is None else self._deadline,
            math.inf if self._retry_at is None else self._retry_at,
        )
