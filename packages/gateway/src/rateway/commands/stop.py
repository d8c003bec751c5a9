"""`rateway stop`: end the running gateway, keeping its sessions or, on request, ending them."""

from __future__ import annotations

import argparse
import os
import re
import select
import signal
import sys
from pathlib import Path

from rateway import exit_codes
from rateway.commands import configuration
from rateway.transports.state import StateDir, StateError

SUMMARY = "stop the running gateway, keeping its sessions"
DESCRIPTION = """\
Tell the gateway that runs with this state folder to stop (SIGTERM), and wait until it has left.

It waits for the broker to confirm what is still out and closes its connections in a way that keeps the sessions
at Discord for a few minutes: the next start resumes them, no event is missed and no identify is spent. With
--end-sessions they end at once: the bot goes offline now, and the next start identifies every shard.
"""
EPILOG = """\
examples:
  rateway stop                          the gateway of the default state folder
  STATE_DIR=/var/lib/rateway rateway stop
  rateway stop -c /etc/rateway.toml --timeout 30
  rateway stop --end-sessions           for good: the bot shows as offline at once

exit codes: 0 it has left (or none was running), 1 it did not leave in time or may not be signalled, 78 wrong settings
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway stop`."""
    configuration.add_option(parser)
    parser.add_argument("--state-dir", metavar="FOLDER", type=Path, help="the gateway's STATE_DIR")
    parser.add_argument("--end-sessions", action="store_true", help="end the sessions at Discord as well")
    parser.add_argument(
        "--timeout", metavar="S", type=float, default=60.0, help="how long to wait for it (default: 60 s)"
    )


def run(options: argparse.Namespace) -> int:
    """Stop it; the exit code."""
    folder = configuration.state_dir(options.config, options.state_dir)
    if folder is None:
        return exit_codes.CONFIGURATION
    try:
        visited = StateDir.visit(folder)
        if visited is None:
            print(f"no gateway runs with the state folder {folder}: none ever ran there")
            return 0
        with visited as state:
            return _stop(state, end_sessions=options.end_sessions, timeout=options.timeout)
    except StateError as error:
        print(f"rateway stop: {error}", file=sys.stderr)
        return exit_codes.FAILED


def _stop(state: StateDir, *, end_sessions: bool, timeout: float) -> int:
    pid = state.holder()
    if pid is None:
        print(f"no gateway runs with the state folder {state.path}")
        return 0
    try:
        # A file descriptor of the process itself: its number cannot come to mean another one meanwhile.
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        print(f"the gateway (pid {pid}) has just left")
        return 0
    except OSError as error:
        print(f"rateway stop: the gateway (pid {pid}) cannot be reached: {error.strerror}", file=sys.stderr)
        return exit_codes.FAILED
    try:
        if _user_of(pid) != state.lock_owner():
            # What the file says is only as good as who may write it.
            print(
                f"rateway stop: pid {pid} in {state.path} is no gateway of this folder's user",
                file=sys.stderr,
            )
            return exit_codes.FAILED
        if end_sessions:
            state.request_end_sessions()
        signal.pidfd_send_signal(process, signal.SIGTERM)
        ready, _, _ = select.select([process], [], [], timeout)
    except ProcessLookupError:
        ready = [process]
    except PermissionError:
        state.take_end_sessions()
        print(f"rateway stop: the gateway (pid {pid}) belongs to another user", file=sys.stderr)
        return exit_codes.FAILED
    finally:
        os.close(process)
    if not ready:
        print(f"rateway stop: the gateway (pid {pid}) has not left after {timeout:g} s", file=sys.stderr)
        return exit_codes.FAILED
    print(f"the gateway (pid {pid}) has left; its sessions {'ended' if end_sessions else 'are kept'}")
    return 0


def _user_of(pid: int) -> int | None:
    """Return the effective user (uid) of a process; None once it is gone."""
    try:
        # The owner of /proc/PID is root's where a process keeps its memory to itself.
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = re.search(r"^Uid:\t\d+\t(\d+)", text, re.MULTILINE)
    return int(found[1]) if found is not None else None
