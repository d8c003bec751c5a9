"""The cost of a process by the kernel's own clocks and sizes, and the machine it ran on."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from rateway.native.form import form

# Whose versions decide a figure.
PARTS = (
    *(("backports.zstd",) if sys.version_info < (3, 14) else ()),
    "lmdb", "msgspec", "picows", "uvloop", "zlib-ng", "zstandard",
)  # fmt: skip
# A benchmark beside which others used more than this share of all cores was disturbed.
NOISY_SHARE = 0.1
# A process that others push off its core pays for what they left in its caches, so the one that is measured has a core
# to itself where there are two.
_CORES = sorted(os.sched_getaffinity(0))
MEASURED = {_CORES[-1]}
AROUND = set(_CORES[:-1]) or MEASURED
ALL = MEASURED | AROUND
# clock_getcpuclockid(3): the clock of a whole process, threads that have ended included.
_CPUCLOCK_SCHED = 2


def tree(pid: int) -> list[int]:
    """A process and all its descendants that live."""
    found, waiting = [], [pid]
    while waiting:
        each = waiting.pop()
        found.append(each)
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                waiting += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def cpu_ns(pids: list[int]) -> int:
    """CPU time of processes, user and system, in nanoseconds; one that has ended counts nothing."""
    total = 0
    for pid in pids:
        try:
            total += time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
        except OSError:
            continue
    return total


def system_share(pid: int) -> float:
    """Which part of a process's CPU time was spent in the kernel, by its ticks of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return system / max(1, user + system)


def switches(pid: int) -> int:
    """How often a process's threads have gone to sleep: each is a wake-up later on."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            total += int(status.read_text().split("voluntary_ctxt_switches:")[1].split()[0])
        except OSError:
            continue
    return total


def pss(pid: int, which: str = "Pss") -> int:
    """Proportional set size in bytes: shared pages counted by their share (proc(5), smaps_rollup). ``Pss_Anon``: only
    the process's own memory, without pages of files, of which the kernel takes back what it needs.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) * 1024
    return 0


def forget_peak(pid: int) -> None:
    """Let :func:`peak` begin with what the process has now (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid: int) -> int:
    """The largest resident set that a process has had, bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def keep_away() -> None:
    """Leave the gateway's core to the gateway: for this process and all that it starts from here on."""
    os.sched_setaffinity(0, AROUND)


@contextmanager
def on_all_cores() -> Iterator[None]:
    """Where an event's time is measured, not a process's CPU: nothing is kept off a core that rests, for this process
    and all that it starts meanwhile without naming cores.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, ALL)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def load() -> float:
    """Running processes, averaged over a minute."""
    return os.getloadavg()[0]


def busy_s() -> float:
    """CPU seconds that the whole machine has worked since it started."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def ours_s() -> float:
    """CPU seconds of this process and of all that it has started, also of what has ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return cpu_ns(tree(os.getpid())) / 1e9 + ended.ru_utime + ended.ru_stime


class Others:
    """Which share of all cores do other programs use meanwhile?"""

    def __init__(self) -> None:
        self._since = (time.monotonic(), busy_s(), ours_s())

    def share(self) -> float:
        """Since it was asked for the last time."""
        before, self._since = self._since, (time.monotonic(), busy_s(), ours_s())
        passed, busy, ours = (now - then for now, then in zip(self._since, before, strict=True))
        return max(0.0, busy - ours) / max(0.01, passed) / (os.cpu_count() or 1)


def facts() -> dict[str, Any]:
    """Machine, versions and commit, for the results."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "measured_on": sorted(MEASURED),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "form": form(),
        "versions": {name: metadata.version(name) for name in PARTS},
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--", "packages")),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.processor()


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
