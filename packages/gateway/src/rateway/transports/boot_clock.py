"""The clock of a fleet's rights: it goes on while the machine is suspended or a virtual machine is paused."""

from __future__ import annotations

import time

__all__ = ["boottime"]


def boottime() -> float:
    """Return seconds since the machine has booted, with those in which it was suspended.

    Where the system has no such clock (only Linux has), the monotonic one.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
