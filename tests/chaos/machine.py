"""What a machine does to a gateway: a disk that takes no more, a folder that cannot be written, a clock that jumps.

Nothing here needs more than the processes' own user, but for the folder that cannot be written: root may write
everywhere, so that takes the immutable flag of the file system, and the right to set it.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import resource
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["Clock", "cannot_be_read_only", "children", "disk_full", "immutable"]

# linux/fs.h
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_IMMUTABLE_FL = 0x10


class Clock:
    """The wall clock of processes started with :meth:`environment`, moved while they run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(struct.pack("d", 0.0))

    def move(self, seconds: float) -> None:
        """From now on it is so many seconds before or behind the machine's."""
        with self._path.open("r+b") as file:
            file.write(struct.pack("d", seconds))

    @property
    def environment(self) -> dict[str, str]:
        folder = str(Path(__file__).parent / "clock")
        others = os.environ.get("PYTHONPATH")
        return {
            "CHAOS_CLOCK": str(self._path),
            "PYTHONPATH": folder if not others else folder + os.pathsep + others,
        }


def children(pid: int | None) -> list[int]:
    """The processes that a process has started (proc(5))."""
    if pid is None:
        return []
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def disk_full(pids: Iterable[int], limit: int | None) -> None:
    """Let these processes write no file beyond ``limit`` bytes (EFBIG, part of a write may succeed); None: any."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            soft = resource.RLIM_INFINITY if limit is None else limit
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))


def cannot_be_read_only(folder: Path) -> str:
    """Why :func:`immutable` does not work in this folder; empty when it does."""
    probe = folder / "immutable-probe"
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with immutable(probe):
            try:
                os.write(descriptor, b"probe")
            except OSError:
                return ""
            return "the file system lets open files be written in spite of the immutable flag"
    except OSError as error:
        return f"the immutable flag cannot be set here ({error.strerror})"
    finally:
        os.close(descriptor)
        probe.unlink()


@contextlib.contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Meanwhile nothing below ``path`` can be written, made or removed, by files that are open already neither."""
    _set_flags(path, on=True)
    try:
        yield
    finally:
        _set_flags(path, on=False)


def _set_flags(path: Path, *, on: bool) -> None:
    each = [path]
    if path.is_dir():
        each += [Path(folder, name) for folder, *names in os.walk(path) for name in (*names[0], *names[1])]
    for one in each:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_IFMT(one.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                _set_flag(one, on=on)


def _set_flag(path: Path, *, on: bool) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = array.array("l", [0])
        fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, flags)
        flags[0] = flags[0] | FS_IMMUTABLE_FL if on else flags[0] & ~FS_IMMUTABLE_FL
        fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, flags)
    finally:
        os.close(descriptor)
