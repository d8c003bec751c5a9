"""Limit what a process of the gateway takes from its surroundings, and what it gives away to them.

Nothing is imported from the working directory, memory that holds secrets goes into no core file, a signal without a
meaning ends nothing, and child processes get neither secrets nor the working directory on their way.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

__all__ = [
    "ENDING",
    "child_command",
    "child_environment",
    "forget_working_directory",
    "ignore_ending_signals",
    "keep_memory_private",
    "open_as_many_files_as_allowed",
]

# prctl(2): no core file, also where the kernel hands it to a program (there RLIMIT_CORE does not count), and neither
# memory nor environment for other processes of the same user (ptrace, /proc/PID/mem, /proc/PID/environ).
PR_SET_DUMPABLE = 4

# Where this package is found.
_ROOT = str(Path(__file__).resolve().parents[1])

# In the environment of a gateway that profilers and debuggers of the same user are to see.
DEBUGGABLE = "RATEWAY_DEBUGGABLE"

# signal(7): of what ends a process by default, these tell of a fault in the process itself.
_FAULTS = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")
# These end nothing by default, cannot be ignored, are ignored by Python, or mean something to the gateway.
_OTHERS = (
    "SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGKILL", "SIGSTOP", "SIGPIPE",
    "SIGXFSZ", "SIGHUP", "SIGINT", "SIGTERM",
)  # fmt: skip
ENDING = frozenset(signal.valid_signals()) - {
    getattr(signal, name) for name in (*_FAULTS, *_OTHERS) if hasattr(signal, name)
}
"""Signals that would end the process and mean nothing to it: SIGUSR1, SIGQUIT, SIGALRM, the real-time ones …"""


def forget_working_directory() -> None:
    """Take the working directory from the places of modules, where ``python -m`` and an odd PYTHONPATH put it.

    Not where this package is installed in it. What ``python -m`` loads ahead of this cannot be helped from here;
    ``python -P -m`` and the command ``rateway`` do not look there at all.
    """
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:
        # It has been removed: nothing can be loaded from there.
        here = ""
    if here != _ROOT:
        sys.path[:] = [
            place for place in sys.path if os.path.isabs(place) and os.path.realpath(place) != here
        ]


def keep_memory_private() -> None:
    """Let this process's memory, which holds secrets, go into no core file and to no debugger of the same user.

    Unless :data:`DEBUGGABLE` is set in the environment, for debugging.
    """
    if os.environ.get(DEBUGGABLE, "") not in ("", "0"):
        return
    # Not allowed under some filters of system calls, whose owner sets the limit for us (LimitCORE=0).
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def open_as_many_files_as_allowed() -> None:
    """Raise the limit of open files to the highest that may be had without rights, for this process and its children.

    Each shard, cluster and bot of the proxy takes one or more; a login shell's limit of 1,024 is there for programs
    that call select(2), which none of these does.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def ignore_ending_signals() -> None:
    """Ignore them without a word, until :data:`ENDING` have handlers that say something."""
    for number in ENDING:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)


def child_command(module: str, *arguments: str) -> list[str]:
    """Return a command that runs a module in another Python, which does not look into the working directory."""
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment(
    environ: Mapping[str, str], settings: Collection[str], redacted: Callable[[str], str]
) -> dict[str, str]:
    """Return the environment for a child that gets its settings in another way.

    Without the variables named in *settings*, and without any whose value *redacted* would change: it holds a secret.
    Places of modules that are relative to the working directory are left out.
    """
    kept = {
        name: value for name, value in environ.items() if name not in settings and redacted(value) == value
    }
    places = [place for place in kept.pop("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(place)]
    # A package that was itself found through the working directory.
    if os.path.realpath(os.curdir) == _ROOT or _ROOT not in map(os.path.realpath, sys.path):
        places.append(_ROOT)
    if places:
        kept["PYTHONPATH"] = os.pathsep.join(places)
    # For what it starts in turn.
    kept["PYTHONSAFEPATH"] = "1"
    return kept
