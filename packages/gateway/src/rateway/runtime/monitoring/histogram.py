"""A histogram of durations in a few integers."""

from __future__ import annotations

from bisect import bisect_left

__all__ = ["Histogram"]

# Upper edges in seconds: a query takes some microseconds, a batch of a thousand a few turns of the loop.
EDGES = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)


class Histogram:
    """Counts by upper edge, and their sum."""

    def __init__(self) -> None:
        self.total = 0.0
        self._counts = [0] * (len(EDGES) + 1)

    def add(self, seconds: float) -> None:
        """One more."""
        self.total += seconds
        self._counts[bisect_left(EDGES, seconds)] += 1

    def counts(self) -> list[tuple[float, int]]:
        """(upper edge in seconds, how many between it and the edge before); the last edge is infinite."""
        return list(zip((*EDGES, float("inf")), self._counts, strict=True))
