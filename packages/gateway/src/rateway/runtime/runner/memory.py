"""Keep a process's memory small: tune Python's cyclic garbage collector, and give back what a flood needed.

What events occupied is free once they are confirmed, but the C library keeps it: between what is free lies what lives
on (a connection's buffer, a prepared head), and only the end of the heap goes back by itself. A hundred shards that
had five megabytes each at once kept 180 MB so. ``malloc_trim`` gives such pages back. It holds the heap's lock for
some milliseconds, so it is called in a calm moment, and only when there is something to gain.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

__all__ = [
    "MemoryTrimmer", "anonymous_bytes", "give_back", "give_back_pages", "keep_free_memory", "spare_untouched_memory",
    "tune_garbage_collection",
]  # fmt: skip

# Less than this is not worth a look through the heap.
GROWN_BYTES: Final = 16 * 1024 * 1024
# An event makes a handful of containers that all die with their confirm; the collector's first generation at its
# default of 700 would run for every hundredth event and find nothing.
GC_THRESHOLD: Final = (50_000, 20, 100)
# What the C library keeps at the heap's end before it gives it back, and from which size on an allocation has pages of
# its own. At its defaults a flood gives pages back with every write and takes them again for the next one,
# each with a page fault: a tenth of its CPU. A calm process gives back what is more than GROWN_BYTES in any case.
KEPT_BYTES: Final = 64 * 1024 * 1024
OWN_PAGES_BYTES: Final = 32 * 1024 * 1024
# The C library's own default. It raises that by itself to the size of what is freed, so that blocks of that size come
# from the heap from then on, where those that have to be zero are written; pages of their own are zero without.
UNTOUCHED_BYTES: Final = 128 * 1024
# mallopt(3).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
# madvise(2).
_MADV_DONTNEED: Final = 4
# The process is calm while it works for less than this part of the time.
CALM_SHARE: Final = 0.1


def tune_garbage_collection() -> None:
    """Collect garbage seldom, and exclude everything that is imported by now."""
    gc.set_threshold(*GC_THRESHOLD)
    gc.freeze()


class MemoryTrimmer:
    """One for a process. :meth:`look` is called about once a second."""

    def __init__(
        self,
        *,
        size: Callable[[], int] | None = None,
        trim: Callable[[], None] | None = None,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self.given_back = 0
        """How often."""
        self._size = size or anonymous_bytes
        self._give_back = trim or give_back
        self._cpu = cpu
        self._worked = cpu()
        self._base = self._size()
        self._freed = 0

    def look(self, seconds: float, freed: int = 0) -> None:
        """``seconds`` have passed since the last look, and so many bytes were *freed* that had been in use when memory
        was given back the last time: give back these and what has grown, if it was calm and they are worth it.
        """
        self._freed += freed
        worked = self._cpu()
        calm = worked - self._worked < CALM_SHARE * seconds
        self._worked = worked
        if not calm:
            return
        size = self._size()
        if size - self._base + self._freed >= GROWN_BYTES:
            self._give_back()
            self.given_back += 1
            self._freed = 0
            size = self._size()
            # Not the next look's work.
            self._worked = self._cpu()
            self._base = size
        elif size < self._base:
            self._base = size


def anonymous_bytes() -> int:
    """Return resident memory of this process that is no file's: the cache's mapped pages are the system's to take."""
    try:
        _, resident, shared = Path("/proc/self/statm").read_text().split()[:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * resource.getpagesize()


def spare_untouched_memory() -> None:
    """Give large blocks pages of their own until :func:`keep_free_memory`: LMDB allocates 3 MB for each store at the
    start, of which it fills hardly anything. Nothing where the C library has no ``mallopt(3)``.
    """
    option = _library_function("mallopt")
    if option is not None:
        option(_M_MMAP_THRESHOLD, UNTOUCHED_BYTES)


def keep_free_memory() -> None:
    """Have the C library keep what is freed until :func:`give_back`; nothing where it has no ``mallopt(3)``."""
    option = _library_function("mallopt")
    if option is not None:
        option(_M_TRIM_THRESHOLD, KEPT_BYTES)
        option(_M_MMAP_THRESHOLD, OWN_PAGES_BYTES)


def give_back() -> None:
    """``malloc_trim(3)``; nothing where the C library has none."""
    trim = _library_function("malloc_trim")
    if trim is not None:
        trim(0)


def give_back_pages(buffers: Iterable[memoryview]) -> None:
    """Give back the whole pages of buffers whose contents are not needed: they are zeros from now on, and take memory
    again as they are written. Nothing where the C library has no ``madvise(2)``.
    """
    import ctypes

    advise = _library_function("madvise")
    if advise is None or sys.platform != "linux":
        # Elsewhere the advice means something else.
        return
    page = resource.getpagesize()
    for buffer in buffers:
        if buffer.nbytes >= page:
            at = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
            begin, end = -(-at // page) * page, (at + buffer.nbytes) // page * page
            if begin < end:
                advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)


def _library_function(name: str) -> Callable[..., int] | None:
    # Half a megabyte, which a supervisor does not need.
    import ctypes

    found: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return found
