"""`rateway demo`: the whole of it on this machine, with faults in the middle and an audit at the end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from rateway import exit_codes
from rateway.demo import script
from rateway.demo.broker import BrokerUnavailable
from rateway.demo.scene import BotGone, Options, SimulatorGone, WorkerGone
from rateway.secret import Secret
from rateway.transports.amqp.wire.uri import parse
from rich.console import Console

SUMMARY = "see it work: simulated Discord, gateway, workers, faults"
DESCRIPTION = """\
Run a simulated Discord, a RabbitMQ, the gateway with two clusters, two workers that share a queue, and an unmodified
discord.py bot behind the gateway's proxy; let events flow; cut two shards, take the broker away, kill the proxy, the
bot, one of the gateway's processes and then all of it with -9; and at the end hold every event that was sent against
what arrived, and every message against what the bot has seen. All shards of the bot have to resume.

RabbitMQ is a private node on free loopback ports that ends with the demonstration. With AMQP_URI set, that broker
is used instead, and its connections are cut in place of a restart. Nothing outside this machine is talked to.
"""
EPILOG = """\
examples:
  rateway demo                    30 seconds
  rateway demo --seconds 0        until Ctrl-C, the faults again every minute
  rateway demo --rate 3000        more events a second
  rateway demo --faults none      only the flow
  rateway demo --faults proxy,bot only what concerns a bot behind the proxy

exit codes: 0 nothing was lost, no rule of Discord's broken and every shard of the bot resumed; 1 otherwise;
69 there is no broker
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway demo`."""
    defaults = Options()
    parser.add_argument(
        "--seconds", type=float, default=defaults.seconds, metavar="S",
        help="end so many seconds after the first event, 0 for never (default: 30)",
    )  # fmt: skip
    parser.add_argument(
        "--rate",
        type=float,
        default=defaults.rate,
        metavar="N",
        help="events a second over all shards (default: 1000)",
    )
    parser.add_argument(
        "--shards", type=int, default=defaults.shards, metavar="N", help="shards (default: 16)"
    )
    parser.add_argument(
        "--guilds", type=int, default=defaults.guilds, metavar="N", help="guilds (default: 480)"
    )
    parser.add_argument(
        "--faults",
        default=",".join(sorted(defaults.faults)),
        metavar="NAMES",
        help="what goes wrong: bot, broker, cut, kill, proxy, runner, or none (default: all)",
    )
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the processes' logs there")


def run(options: argparse.Namespace) -> int:
    """Run the demonstration; the exit code."""
    if unknown := sorted(set(options.faults.split(",")) - Options().faults - {"none"}):
        print(
            f"rateway demo: no fault is called {unknown[0]!r}; there are bot, broker, cut, kill, proxy, runner",
            file=sys.stderr,
        )
        return exit_codes.USAGE
    # The client library complains of each attempt to reach a broker that is away on purpose.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)
    uri = os.environ.get("AMQP_URI")
    try:
        if uri:
            parse(uri)
    except ValueError as error:
        print(f"rateway demo: AMQP_URI cannot be used: {error}", file=sys.stderr)
        return exit_codes.USAGE
    wanted = Options(
        seconds=options.seconds,
        rate=options.rate,
        shards=options.shards,
        guilds=options.guilds,
        faults=frozenset(options.faults.split(",")) - {"none"},
        amqp_uri=Secret(uri) if uri else None,
        keep=options.logs,
    )
    try:
        return asyncio.run(_run(wanted))
    except (BotGone, BrokerUnavailable, SimulatorGone, WorkerGone) as error:
        print(f"rateway demo: {error}", file=sys.stderr)
        return exit_codes.UNAVAILABLE
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED


async def _run(options: Options) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await script.run(options, Console())
    except asyncio.CancelledError:
        return exit_codes.INTERRUPTED
