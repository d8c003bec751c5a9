"""Discord's limits as arithmetic: identify buckets, the daily budget, sliding windows.

Pure: time is an argument (monotonic seconds).
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any


class Window:
    """At most `limit` in any `seconds`, judged by the times of those before (a sliding log)."""

    __slots__ = ("_limit", "_seconds", "_times")

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._times: deque[float] = deque(maxlen=limit)

    def admit(self, now: float) -> bool:
        """Note one more; False when it is one too many."""
        times = self._times
        full = len(times) == self._limit and now - times[0] < self._seconds
        times.append(now)
        return not full


class Verdict(Enum):
    """The verdict on an identify."""

    GRANTED = "granted"
    TOO_EARLY = "too early"
    BUDGET_SPENT = "budget spent"


class IdentifyLimits:
    """The buckets and the day's budget of one bot, all its processes together."""

    def __init__(
        self,
        *,
        max_concurrency: int,
        window: float,
        total: int,
        remaining: int | None,
        reset: float,
        now: float,
    ) -> None:
        self.max_concurrency = max_concurrency
        self.total = total
        self.remaining = total if remaining is None else remaining
        self._window = window
        self._reset = reset
        self._reset_at = now + reset
        self._last: dict[int, float] = {}

    def arrived(self, shard: int, now: float) -> tuple[Verdict, float]:
        """Judge an identify; return the verdict, and the seconds since the last one of its bucket that was granted."""
        self._renew(now)
        bucket = shard % self.max_concurrency
        since = now - self._last.get(bucket, -self._window - 1.0)
        if self.remaining <= 0:
            return Verdict.BUDGET_SPENT, since
        # Refused ones count in the day's budget (api-docs#1328). They begin no window of their own: discordgo and
        # disgo identify again as soon as they are refused, and come in at Discord.
        self.remaining -= 1
        if since < self._window:
            return Verdict.TOO_EARLY, since
        self._last[bucket] = now
        return Verdict.GRANTED, since

    def _renew(self, now: float) -> None:
        if now >= self._reset_at:
            self.remaining = self.total
            self._reset_at = now + self._reset

    def session_start_limit(self, now: float) -> dict[str, Any]:
        """As in `GET /gateway/bot`; `reset_after` in milliseconds."""
        self._renew(now)
        return {
            "total": self.total,
            "remaining": self.remaining,
            "reset_after": max(0, round((self._reset_at - now) * 1000)),
            "max_concurrency": self.max_concurrency,
        }
