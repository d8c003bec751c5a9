"""Decide when to log the event names that no queue is bound for."""

from __future__ import annotations

import math

__all__ = ["UnroutedNames"]

# Names are collected for so long before a line: a worker that has not started yet leaves all of them without a queue.
FIRST_LINE_AFTER_S = 10.0
# Between two lines.
NEXT_LINE_AFTER_S = 300.0
# Names that one line has room for.
MOST_NAMES = 12


class UnroutedNames:
    """The names of one cluster. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._line_at: float | None = None
        self._last_line_at = -math.inf

    def note(self, name: str, routed: bool, now: float) -> float | None:
        """Take in whether a queue is bound for *name*.

        Returns:
            When the caller must ask :meth:`line`; None when no line is due, or one is due already.
        """
        if routed:
            self._names.discard(name)
            return None
        self._names.add(name)
        if self._line_at is not None:
            return None
        self._line_at = max(now + FIRST_LINE_AFTER_S, self._last_line_at + NEXT_LINE_AFTER_S)
        return self._line_at

    def line(self, now: float) -> str:
        """Return the line that is due; empty when every name has a queue by now."""
        self._line_at = None
        if not self._names:
            return ""
        self._last_line_at = now
        more = " …" if len(self._names) > MOST_NAMES else ""
        names = ", ".join(sorted(self._names)[:MOST_NAMES]) + more
        return (
            f"no queue is bound for {len(self._names)} event names, the broker drops these events: {names}. Does the "
            "worker bind them? EVENTS / EVENTS_EXCEPT keep them from being sent"
        )
