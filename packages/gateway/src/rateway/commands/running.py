"""Ask the running gateway: one request over the control socket, one answer."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from rateway import exit_codes, logs
from rateway.commands import configuration
from rateway.transports import control_socket

__all__ = ["add_options", "request"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which gateway is meant."""
    configuration.add_option(parser)
    parser.add_argument("--state-dir", metavar="FOLDER", type=Path, help="the gateway's STATE_DIR")


def request(
    options: argparse.Namespace, command: str, *arguments: object, patience: float = control_socket.PATIENCE_S
) -> int:
    """Send ``command arguments`` to the gateway that *options* mean, print its answer; the exit code.

    ``patience`` is how many seconds it may take.
    """
    folder = configuration.state_dir(options.config, options.state_dir)
    if folder is None:
        return exit_codes.CONFIGURATION
    try:
        answer = json.loads(
            asyncio.run(control_socket.ask(folder, command, *map(str, arguments), patience=patience))
        )
    except control_socket.ControlError as error:
        print(f"rateway {command}: {error}", file=sys.stderr)
        return exit_codes.UNAVAILABLE
    if "error" in answer:
        print(f"rateway {command}: {logs.escape(str(answer['error']))}", file=sys.stderr)
        return exit_codes.FAILED
    print(logs.escape(str(answer.get("ok", "done"))))
    return 0
