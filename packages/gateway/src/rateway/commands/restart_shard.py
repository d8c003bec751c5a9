"""`rateway restart-shard`: reconnect one shard of the running gateway, which resumes or begins a new session."""

from __future__ import annotations

import argparse

from rateway.commands import running

SUMMARY = "reconnect one shard of the running gateway"
DESCRIPTION = """\
Let one shard of the running gateway close its connection, connect anew and resume: no event is missed and no
identify is spent. A shard that was stopped because it crash-looped gets its identifies again.

With --new-session it gives its session up and identifies: for a session that lives but gets no events any more, or
whose guilds never came. That spends one identify of the day, is refused when none may be spent, and what Discord sends
meanwhile is missed: RATEWAY_GAP tells the workers.
"""
EPILOG = """\
examples:
  rateway restart-shard 3
  rateway restart-shard 3 -c /etc/rateway.toml
  rateway restart-shard 3 --new-session

exit codes: 0 done, 1 refused (the reason is printed), 69 no gateway answers, 78 wrong settings
"""

# Discord is asked how many identifies are left before one is spent.
PATIENCE_S = 25.0


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway restart-shard`."""
    running.add_options(parser)
    parser.add_argument("shard", type=int, metavar="SHARD", help="the shard's number, from 0")
    parser.add_argument(
        "--new-session",
        action="store_true",
        help="give the session up and identify: one identify is spent, and a gap told",
    )


def run(options: argparse.Namespace) -> int:
    """Ask the gateway; the exit code."""
    how = ("new-session",) if options.new_session else ()
    return running.request(options, "restart-shard", options.shard, *how, patience=PATIENCE_S)
