"""Decide when a runner hangs."""

from __future__ import annotations

__all__ = ["HANGS_AFTER_S", "LOOK_EVERY_S", "Liveness"]

# A runner beats every second; a loop that stands still for so long is replaced: Discord would soon end its sessions.
HANGS_AFTER_S = 20.0
# Between two looks at a runner; a look that is late by more than that much again was the supervisor's own standstill.
LOOK_EVERY_S = 1.0
# Starting Python and reading the stores of a large cluster.
STARTS_WITHIN_S = 60.0


class Liveness:
    """One life of a runner's process. Times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.began_at = now
        self._heard_at = now
        self._looked_at = now
        self._has_spoken = False

    def hear(self, now: float) -> None:
        """Note a message of the runner's."""
        self._has_spoken = True
        self._heard_at = now

    def quiet(self, now: float) -> float:
        """Return how long the runner has been silent for, without the time in which the supervisor stood still."""
        return now - self._heard_at

    def look(self, now: float) -> float:
        """Return the seconds until the next look; 0 when the runner hangs. One that still starts gets longer.

        A supervisor that was stopped itself has heard no runner: that time counts against none.
        """
        if now - self._looked_at > 2 * LOOK_EVERY_S:
            self._heard_at += now - self._looked_at
        self._looked_at = now
        patience = HANGS_AFTER_S if self._has_spoken else STARTS_WITHIN_S
        return max(0.0, min(LOOK_EVERY_S, patience - self.quiet(now)))
