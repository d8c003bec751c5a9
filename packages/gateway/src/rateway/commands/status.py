"""`rateway status`: what the running gateway does, as tables, live, or as JSON."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

import msgspec
from rateway import exit_codes
from rateway.commands import configuration
from rateway.runtime.monitoring.health import stands_by
from rateway.runtime.monitoring.status import GatewayStatus
from rateway.transports import control_socket

SUMMARY = "show what the running gateway does"
DESCRIPTION = """\
Ask the gateway that runs with this state folder what it does: shards by state, events, what the broker has not
confirmed yet, the spool, event names that no queue is bound for, and what is left of the day's identifies.

It asks over a unix socket in the state folder, which only the gateway's own user can open. The gateway's work is
not disturbed by it.
"""
EPILOG = """\
examples:
  rateway status
  rateway status --watch                 drawn anew every two seconds, until interrupted
  rateway status --shards                every shard in a line of its own
  rateway status --unrouted              event names that no worker wants
  rateway status --json | jq '.shards[] | select(.state != "live")'

exit codes: 0 it answered and every shard is live, 1 it answered and some are not, 69 no gateway answers, 78 wrong
settings
"""
WATCH_EVERY_S = 2.0


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway status`."""
    configuration.add_option(parser)
    parser.add_argument("--state-dir", metavar="FOLDER", type=Path, help="the gateway's STATE_DIR")
    parser.add_argument(
        "--shards", action="store_true", help="show every shard, not only those that are not live"
    )
    parser.add_argument(
        "--unrouted", action="store_true", help="list the event names that no queue takes, in any cluster"
    )
    parser.add_argument(
        "--watch", action="store_true", help="draw it anew until interrupted, over restarts of the gateway"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the gateway's answer as one JSON object (with --watch: one a line)",
    )


def run(options: argparse.Namespace) -> int:
    """Ask and show; the exit code."""
    folder = configuration.state_dir(options.config, options.state_dir)
    if folder is None:
        return exit_codes.CONFIGURATION
    try:
        if options.watch:
            return _watch(folder, every_shard=options.shards, as_json=options.json)
        if options.json:
            return _as_json(folder)
        from rateway.commands import status_page

        status = _ask(folder)
        status_page.show(status, every_shard=options.shards, unrouted_names=options.unrouted)
        return _code(status)
    except control_socket.ControlError as error:
        print(f"rateway status: {error}", file=sys.stderr)
        return exit_codes.UNAVAILABLE


def _ask(folder: Path) -> GatewayStatus:
    answer = asyncio.run(control_socket.ask(folder, "status"))
    try:
        return msgspec.json.decode(answer, type=GatewayStatus)
    except msgspec.ValidationError as error:
        raise control_socket.ControlError(
            f"the gateway is of another version than this command: {error}"
        ) from None


def _as_json(folder: Path) -> int:
    answer = asyncio.run(control_socket.ask(folder, "status"))
    print(msgspec.json.format(answer, indent=2).decode())
    # Whatever version the gateway is of.
    said = msgspec.json.decode(answer)
    shards = said.get("shards", [])
    live = sum(1 for shard in shards if shard.get("state") == "live")
    wanted = max(len(shards), said.get("shards_here", 0))
    # A member of a fleet may have nothing to run.
    return 0 if live == wanted and (live or said.get("fleet")) else 1


def _code(status: GatewayStatus) -> int:
    live = sum(1 for shard in status.shards if shard.state == "live")
    wanted = max(len(status.shards), status.shards_here)
    return 0 if live == wanted and (live or stands_by(status)) else 1


def _watch(folder: Path, *, every_shard: bool, as_json: bool) -> int:
    """Until interrupted, over restarts of the gateway. Raises ControlError when none answers at first."""
    asyncio.run(control_socket.ask(folder, "status"))
    if as_json:
        while True:
            try:
                print(asyncio.run(control_socket.ask(folder, "status")).decode().strip(), flush=True)
            except control_socket.ControlError as error:
                print(f"rateway status: {error}", file=sys.stderr)
            time.sleep(WATCH_EVERY_S)
    from rateway.commands import status_page
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            try:
                status = _ask(folder)
                shown = (
                    status_page.page(status, every_shard=True)
                    if every_shard
                    else status_page.fitted(status, console)
                )
            except control_socket.ControlError as error:
                shown = status_page.away(str(error))
            live.update(shown, refresh=True)
            time.sleep(WATCH_EVERY_S)
