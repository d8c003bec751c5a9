"""Measure this process: the lag of its event loop, its CPU time and its memory."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections import deque
from pathlib import Path

from rateway.runtime.monitoring.status import ProcessStatus

__all__ = ["LoopLag", "Pace"]

LOOP_LAG_EVERY_S = 0.5
# Rates are those of the last seconds: a glance shows now, and one busy moment is not the whole of it.
PACE_OVER_S = 5.0


class Pace:
    """The rate of a counter over the last PACE_OVER_S seconds, from values noted now and then."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def note(self, at: float, count: float) -> None:
        """The counter said ``count`` at ``at`` (seconds)."""
        seen = self._seen
        seen.append((at, count))
        # One that is older than the span stays, so that the span is whole.
        while len(seen) > 2 and seen[1][0] <= at - PACE_OVER_S:
            seen.popleft()

    @property
    def rate(self) -> float:
        """A second; 0 until it is known."""
        if len(self._seen) < 2:
            return 0.0
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        return (last - first) / (ended - began) if ended > began else 0.0


class LoopLag:
    """The lag of the event loop: by how many seconds its last wake-up was late."""

    def __init__(self) -> None:
        self.lag = 0.0
        self.moved_at = time.monotonic()
        self.began_at = time.monotonic()
        self._cpu = Pace()

    async def run(self) -> None:
        """Measure, until cancelled."""
        while True:
            before = time.monotonic()
            self._cpu.note(before, time.process_time())
            await asyncio.sleep(LOOP_LAG_EVERY_S)
            self.moved_at = time.monotonic()
            self.lag = max(0.0, self.moved_at - before - LOOP_LAG_EVERY_S)

    def process(self, role: str, clusters: list[int]) -> ProcessStatus:
        """This process's row of the status."""
        now = time.monotonic()
        return ProcessStatus(
            pid=os.getpid(),
            role=role,
            clusters=clusters,
            cpu_s=time.process_time(),
            cpu_share=self._cpu.rate,
            memory_bytes=_resident_bytes(),
            loop_lag_ms=self.lag * 1000,
            uptime_s=now - self.began_at,
            silent_s=now - self.moved_at,
        )


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()
