"""`rateway restart-shard`: one shard of the running gateway connects anew, and resumes."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from rateway.commands import configuration
from rateway.transports import control

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
EXIT_UNAVAILABLE = 69


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway restart-shard`."""
    configuration.add_option(parser)
    parser.add_argument("--state-dir", metavar="FOLDER", type=Path, help="the gateway's STATE_DIR")
    parser.add_argument("shard", type=int, metavar="SHARD", help="the shard's number, from 0")


def run(options: argparse.Namespace) -> int:
    """Ask the gateway; the exit code."""
    folder = configuration.state_dir(options.config, options.state_dir)
    if folder is None:
        return configuration.EXIT_CONFIGURATION
    try:
        answer = json.loads(asyncio.run(control.ask(folder, "restart-shard", str(options.shard))))
    except control.ControlError as error:
        print(f"rateway restart-shard: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    if "error" in answer:
        print(f"rateway restart-shard: {answer['error']}", file=sys.stderr)
        return 1
    print(answer.get("ok", "done"))
    return 0
