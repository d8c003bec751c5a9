"""Delay a repeated attempt: twice as long after each failure, up to a bound."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Backoff"]

# After so many doublings any bound is reached; a larger exponent would only overflow.
MOST_DOUBLINGS = 32


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds. The caller counts its failures, and adds chance where many would try at once."""

    first: float
    longest: float

    def delay(self, failures: int) -> float:
        """Return the delay before the next attempt after *failures* earlier ones: *first* for none."""
        return min(self.longest, self.first * 2.0 ** min(max(0, failures), MOST_DOUBLINGS))
