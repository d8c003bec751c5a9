"""Count durations by upper edge, in a few integers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["Histogram", "milliseconds"]


class Histogram:
    """Counts by upper edge in seconds, and the sum of the durations."""

    __slots__ = ("_counts", "_edges", "total")

    def __init__(self, edges: Sequence[float]) -> None:
        """*edges* are ascending; a last one, infinite, is added."""
        self.total = 0.0
        """Seconds, all durations together."""
        self._edges = tuple(edges)
        self._counts = [0] * (len(edges) + 1)

    def add(self, seconds: float, count: int = 1) -> None:
        """Count so many durations of *seconds* each."""
        self.total += seconds * count
        self._counts[bisect_left(self._edges, seconds)] += count

    def counts(self) -> list[tuple[float, int]]:
        """Return (upper edge in seconds, durations between it and the edge before)."""
        return list(zip((*self._edges, float("inf")), self._counts, strict=True))


def milliseconds(value: float | None) -> str:
    """Return a duration as a person reads it: ``0.5 ms``, ``38 ms``, ``2.1 s``; ``–`` when it is not known."""
    if value is None:
        return "–"
    if value < 9.95:
        return f"{value:.1f} ms"
    return f"{value:.0f} ms" if value < 999.5 else f"{value / 1000:.1f} s"
