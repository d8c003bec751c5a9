"""`rateway restart-shard`: one shard of the running gateway connects anew, and resumes."""

from __future__ import annotations

import argparse

from rateway.commands import running

SUMMARY = "reconnect one shard of the running gateway"
DESCRIPTION = """\
Let one shard of the running gateway close its connection, connect anew and resume: no event is missed and no
identify is spent. A shard that was stopped because it crash-looped gets its identifies again.
"""
EPILOG = """\
examples:
  rateway restart-shard 3
  rateway restart-shard 3 -c /etc/rateway.toml

exit codes: 0 done, 1 refused (no such shard), 69 no gateway answers, 78 wrong settings
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway restart-shard`."""
    running.add_options(parser)
    parser.add_argument("shard", type=int, metavar="SHARD", help="the shard's number, from 0")


def run(options: argparse.Namespace) -> int:
    """Ask the gateway; the exit code."""
    return running.request(options, "restart-shard", options.shard)
