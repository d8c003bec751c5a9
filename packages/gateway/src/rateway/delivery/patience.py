"""Decide when a refused event is tried again, and when it is given up."""

from __future__ import annotations

from rateway.backoff import Backoff

__all__ = ["Patience", "Repeats"]


class Patience:
    """The retries of refused events: with a growing delay, a single event first.

    Other queues have taken it already and get a double with each try. What follows goes out in batches that
    grow from one event on, so that a queue that has room for a few does not cost hundreds of doubles.
    """

    def __init__(self, first: float, most: float, limit: float | None) -> None:
        self._backoff = Backoff(first, most)
        self._limit = limit
        self._tries = 0
        self._since: float | None = None
        # Events that may be unanswered at once; None: no bound.
        self.window: int | None = None
        # Monotonic seconds of the next try; None: nothing is refused.
        self.retry_at: float | None = None

    def refused(self, now: float) -> None:
        """An event was refused."""
        if self._since is None:
            self._since = now
        self.window = 1
        if self.retry_at is None:
            self.retry_at = now + self._backoff.delay(self._tries)
            self._tries += 1

    def retrying(self) -> None:
        """A try has been written."""
        self.retry_at = None

    def accepted(self) -> None:
        """All of the window was taken."""
        self._since, self._tries = None, 0
        if self.window is not None:
            self.window *= 2
            if self.window > 4096:
                self.window = None

    def exhausted(self, now: float) -> bool:
        """Whether the oldest refused event is to be given up."""
        return self._limit is not None and self._since is not None and now - self._since >= self._limit

    def given_up(self) -> None:
        """The oldest is out of the way; the next one's time begins with its own refusal."""
        self._since = None

    def renewed(self) -> None:
        """A new channel, opened because of refusals: what waits goes out on it from one event on."""
        self.window, self.retry_at = 1, None

    def reset(self) -> None:
        """A new channel: everything refused is written again with the rest. The delay keeps its length."""
        self.window = self.retry_at = None


class Repeats:
    """Count repeated failures of one cause, and delay the next try."""

    # The same cause this many times is no accident any more.
    LOUD = 3

    def __init__(self, first: float = 1.0, most: float = 30.0) -> None:
        self._backoff = Backoff(first, most)
        self._cause: object = None
        self.count = 0

    def happened(self, cause: object) -> float:
        """Count a failure; return the seconds before the next try, 0 for the first two times."""
        self.count = self.count + 1 if cause == self._cause else 1
        self._cause = cause
        if self.count < self.LOUD:
            return 0.0
        return self._backoff.delay(self.count - self.LOUD)

    @property
    def loud(self) -> bool:
        """Whether this time is worth a log line: the third, and then each time the delay has doubled."""
        beyond = self.count - self.LOUD
        return beyond >= 0 and beyond & (beyond - 1) == 0
