"""Run Python's cyclic garbage collector seldom, and never over what was imported."""

from __future__ import annotations

import gc

__all__ = ["tune_garbage_collection"]

# An event makes a handful of containers that all die with their confirm; the collector's first generation at its
# default of 700 would run for every hundredth event and find nothing.
GC_THRESHOLD = (50_000, 20, 100)


def tune_garbage_collection() -> None:
    """What is imported by now stays for good: no collection need look at it again."""
    gc.set_threshold(*GC_THRESHOLD)
    gc.freeze()
