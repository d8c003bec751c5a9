"""Child processes of the demonstration: started with a log file, ended in order, never left behind."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

#: prctl(2), PR_SET_PDEATHSIG: the kernel ends the child when the thread that started it ends, however it ends.
PR_SET_PDEATHSIG = 1
#: What a child inherits; everything else of the environment could change what the demonstration shows.
INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "PYTHONPATH",
    "SSL_CERT_FILE",
    "COVERAGE_PROCESS_START",
)

#: Between two looks at a child's log, seconds.
LOOK = 0.05

_prctl = ctypes.CDLL(None).prctl if sys.platform.startswith("linux") else None


def _in_the_child() -> None:
    """Between fork and exec: a group of its own, and an end with the parent."""
    # A Ctrl-C at the terminal is for the demonstration, which ends its children in order.
    os.setpgid(0, 0)
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """One process that runs `python ARGUMENTS` with an environment of its own; output goes to *log*."""

    def __init__(self, name: str, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.arguments = arguments
        self.environment = {key: os.environ[key] for key in INHERITED if key in os.environ} | dict(
            environment
        )
        self.log = log
        #: A command that starts the program given to it, such as `nsenter --net=…`; usually none.
        self.started_by: list[str] = []
        self.process: asyncio.subprocess.Process | None = None
        #: How often it was started.
        self.starts = 0

    @property
    def pid(self) -> int | None:
        return None if self.process is None or self.process.returncode is not None else self.process.pid

    @property
    def running(self) -> bool:
        return self.pid is not None

    async def start(self, *, pipe: bool = False) -> asyncio.subprocess.Process:
        """Start it; with *pipe* its standard output is read by the caller instead of going to the log."""
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.started_by,
                sys.executable,
                # Nothing of the working directory, which any user may write to.
                "-P",
                *self.arguments,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if pipe else log,
                stderr=log,
                preexec_fn=_in_the_child,
            )
        self.starts += 1
        return self.process

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it still runs."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            await self.process.wait()

    async def terminate(self, patience: float = 15.0) -> int:
        """SIGTERM, then SIGKILL after *patience* seconds; the exit code (negative: ended by that signal)."""
        if self.process is None:
            return 0
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience):
                return await self.process.wait()
        except TimeoutError:
            await self.kill()
            return -signal.SIGKILL

    def lines(self) -> list[str]:
        """What it has logged until now."""
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []

    async def line_with(self, words: str, patience: float = 15.0) -> str | None:
        """The first line with *words* in its log; None when it has ended or *patience* seconds are over without one."""
        until = time.monotonic() + patience
        while True:
            # Looked at before the log: what it wrote last is still seen.
            over = not self.running or time.monotonic() >= until
            found = next((line for line in self.lines() if words in line), None)
            if found is not None or over:
                return found
            # A new line in a file announces itself nowhere.
            await asyncio.sleep(LOOK)

    def tail(self, lines: int = 20) -> str:
        """Return the end of what it logged."""
        return "\n".join(self.lines()[-lines:])


def memory_of(pid: int | None) -> int:
    """Return resident bytes of a process and its descendants, 0 when it is gone (proc(5), /proc/PID/statm)."""
    if pid is None:
        return 0
    total = 0
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        try:
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            waiting += [int(word) for word in Path(f"/proc/{each}/task/{each}/children").read_text().split()]
        except (OSError, IndexError):
            continue
    return total
