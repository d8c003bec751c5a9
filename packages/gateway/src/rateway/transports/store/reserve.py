"""Reserve disk before LMDB writes to its map, so that a full disk is an error and no signal.

LMDB can write its pages in place, in the mapped file: half of what a commit costs without, where it copies each page
and hands it to the kernel. But a page for which the disk has no room ends the process (SIGBUS). So the file's blocks
are allocated up to a point behind its last page, and before a transaction writes anything it says how many pages that
may take at most; where they are not there yet more are allocated, and a disk that refuses is an ``OSError`` like any
other.

**What a transaction may take.** LMDB copies a page when a transaction changes it for the first time, and splits it in
two when it is full. A row that is put changes a leaf and splits it at most once; one that is deleted changes a leaf and
its neighbour. So leaves take two pages a row, and for many rows no more than there are leaves, and splits. Rows beyond
the last key are appended: what they weigh. A value of half a page or more has pages of its own. Branches are copied and
split along the way: at most four levels of them, and never more than there are, each once, with one more for every
sixteen leaves (a branch has room for forty keys when it is a quarter full). The list of free pages is one number of
eight bytes a page, may be read and written again as a whole, and lies in pages at worst a quarter full: less than a
sixty-fourth of the file. Free pages are used first, so that hardly anything of this comes true.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb

__all__ = ["Reserve", "kind_of_file_system", "reserves"]

# Where allocated blocks stay the file's own. Not where a write goes elsewhere (btrfs, ZFS, and XFS, whose `cp` shares
# blocks until one of both writes), nor where another layer decides (overlays, networks).
KINDS = frozenset({"ext4", "tmpfs"})

_MOUNTS = Path("/proc/self/mountinfo")

# Allocated at a time: a part of the file, within bounds (bytes).
STEP_PART = 16
LEAST_STEP, GREATEST_STEP = 4 << 20, 16 << 20

# A disk that refused is not asked again for so long: events go on meanwhile, and asking takes milliseconds.
AGAIN_S = 0.25

# Beyond its rows a transaction changes LMDB's table of tables and walks both ends of its list of free pages.
COMMIT_PAGES = 64

# Of a path from root to leaf: branches copied and split.
BRANCHES_A_ROW = 8


def kind_of_file_system(device: int, mounts: str) -> str | None:
    """Return the kind that the kernel's list (``/proc/self/mountinfo``) gives for a device; None where it has none."""
    name = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        mount, _, source = line.partition(" - ")
        places = mount.split(" ", 3)
        if len(places) > 2 and places[2] == name:
            return source.split(" ", 1)[0]
    return None


def reserves(folder: Path) -> bool:
    """Return whether disk that is allocated for a file in this folder is there whenever it is written."""
    try:
        # The folder's device: an overlay says its own there, of a file sometimes that of a layer.
        kind = kind_of_file_system(os.stat(folder).st_dev, _MOUNTS.read_text("utf-8", "replace"))
    except OSError:
        return False
    return kind in KINDS and hasattr(os, "posix_fallocate")


class Reserve:
    """The allocated part of a store's file, and what the open transaction may take of it."""

    def __init__(self, file: Path, pages: int, page: int, map_size: int) -> None:
        """Allocate a file of so many pages, holes included, and the first step behind it. Raises OSError."""
        self.page = page
        self._descriptor = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        # What LMDB says of its environment.
        self._info: Callable[[], Any] = lambda: {"last_pgno": pages - 1, "map_size": map_size}
        self._branches_now: Callable[[], int] = lambda: 0
        self._branches = 0
        self._first = self._around = self._room = self._leaves = self._rows = self._rough = 0
        self._refused: OSError | None = None
        self._ask_again = 0.0
        self.allocated = 0
        """Pages from the file's beginning that are there."""
        try:
            self.look()
            self._allocate(0)
        except OSError:
            self.close()
            raise

    def follow(self, env: lmdb.Environment, branches: Callable[[], int]) -> None:
        """Whose transactions these are; ``branches`` counts the branch pages that its tables have now."""
        self._info = env.info
        self._branches_now = branches
        self._branches = branches()

    def begin(self) -> None:
        """A transaction begins. LMDB is asked where its file ends when that may matter, no other call is made."""
        rough = self._rough
        if rough:
            # The one before may have taken all that it was granted, and some branches are new.
            self._room -= rough + self._around
            self._branches += (self._leaves >> 4) + 1
            self._leaves = self._rows = self._rough = 0
        if self._room < COMMIT_PAGES:
            self.look()

    def look(self) -> None:
        """Read where the file ends, between transactions or as one begins."""
        first = self._info()["last_pgno"] + 1
        self._first = first
        self._around = COMMIT_PAGES + (first >> 6)
        self._room = self.allocated - first - self._around
        self._leaves = self._rows = self._rough = 0

    def take(self, leaves: int, rows: int) -> None:
        """Ahead of writing so many rows, whose leaves and values take so many pages at most. Raises OSError."""
        self._leaves += leaves
        self._rows += rows
        # Never less than is needed, and quickly said.
        rough = self._rough = self._rough + leaves + (leaves >> 6) + 1 + BRANCHES_A_ROW * rows
        if rough > self._room:
            leaves, rows = self._leaves, self._rows
            self.look()
            self._leaves, self._rows, self._rough = leaves, rows, rough
            if self._needed() > self._room:
                self._branches = self._branches_now()
                needed = self._needed()
                if needed > self._room:
                    self._allocate(needed)

    def _needed(self) -> int:
        leaves = self._leaves
        # What is changed is freed, and the list of it written down.
        return (
            leaves
            + (leaves >> 6)
            + min(BRANCHES_A_ROW * self._rows, 2 * self._branches + (leaves >> 4) + COMMIT_PAGES)
        )

    def _allocate(self, needed: int) -> None:
        """Disk for so many pages of this transaction, and a step more if there is plenty."""
        last = self._info()["map_size"] // self.page
        wanted = min(self._first + self._around + needed, last)
        if wanted <= self.allocated:
            return  # LMDB itself refuses to go beyond its map.
        if self._refused is not None and time.monotonic() < self._ask_again:
            raise OSError(self._refused.errno, self._refused.strerror)
        step = self._step()
        space = os.fstatvfs(self._descriptor)
        free = space.f_bfree * space.f_frsize
        # A tmpfs without a bound has no blocks and no free ones.
        if space.f_blocks and free < wanted * self.page - os.fstat(self._descriptor).st_blocks * 512:
            raise self._not_now(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        if not space.f_blocks or free >= 8 * step:
            wanted = min(wanted + step // self.page, last)
        try:
            os.posix_fallocate(
                self._descriptor, self.allocated * self.page, (wanted - self.allocated) * self.page
            )
        except OSError as error:
            # A part may have been allocated, of what others need.
            self._cut(max(self.allocated, self._first))
            raise self._not_now(error) from None
        self._room += wanted - self.allocated
        self.allocated = wanted
        self._refused = None

    def _step(self) -> int:
        """Bytes that are allocated at a time."""
        return min(max(self._first * self.page // STEP_PART, LEAST_STEP), GREATEST_STEP)

    def _not_now(self, error: OSError) -> OSError:
        self._refused, self._ask_again = error, time.monotonic() + AGAIN_S
        return OSError(error.errno, error.strerror)

    def trim(self) -> None:
        """Between transactions: give back what one large transaction needed, or might have."""
        self.look()
        step = self._step() // self.page
        if self._room > 4 * step:
            self._cut(self.allocated - self._room + 2 * step)

    def _cut(self, pages: int) -> None:
        """Free the blocks behind so many pages; the file looks as large as the map again at once."""
        size = os.fstat(self._descriptor).st_size
        os.ftruncate(self._descriptor, pages * self.page)
        self.allocated = min(self.allocated, pages)
        os.ftruncate(self._descriptor, size)

    def end(self) -> None:
        """LMDB has closed the file in order: it ends with its last page."""
        try:
            os.ftruncate(self._descriptor, self._first * self.page)
        finally:
            self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
