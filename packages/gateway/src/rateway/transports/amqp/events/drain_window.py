"""Bound the events read back from the spool that may be unconfirmed at once."""

from __future__ import annotations

from rateway.delivery.limits import DeliveryLimits

__all__ = ["DrainWindow"]


class DrainWindow:
    """The bound of one publisher. It grows while the spool is drained, and is small again for the next time."""

    def __init__(self, limits: DeliveryLimits) -> None:
        self.size = limits.drain_window
        """Events."""
        self._limits = limits
        self._since = 0.0

    def look(self, now: float, *, is_draining: bool) -> None:
        """Double the bound after each ``drain_grows_after`` seconds of draining; reset it while nothing is drained.

        *now* is monotonic seconds.
        """
        limits = self._limits
        if not is_draining:
            self.size, self._since = limits.drain_window, now
        elif now - self._since >= limits.drain_grows_after:
            self.size = max(limits.drain_window, min(2 * self.size, limits.drain_window_most))
            self._since = now
