"""`rateway proxy`: serve Discord's gateway and REST to bots of any library."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import os
import signal

import uvloop
from rateway import __version__, exit_codes, hardening, logs
from rateway.commands import configuration
from rateway.config import ConfigurationError, Settings, load, values
from rateway.config.table import REQUIRED, ROWS
from rateway.native.form import form
from rateway.proxy.proxy import Proxy, tune_memory

SUMMARY = "serve Discord's gateway and REST to bots of any library, from the events of a running gateway"
DESCRIPTION = """\
Bots of any library connect here as if to Discord: they are given this one address. Events come from the clusters' event
logs in RabbitMQ, guilds from the gateway's cache, REST is passed on to Discord. A bot that reconnects misses nothing,
and no restart of it spends an identify.

It reaches the gateway through RabbitMQ alone and keeps no state: run any number of them, on any machine. It takes the
gateway's settings; DISCORD_TOKEN and AMQP_URI are enough. The gateway writes its event logs with EVENT_LOG=stream.

SIGHUP reads the certificate again, which otherwise happens within half a minute after its files changed. SIGTERM and
SIGINT stop it: its bots are told to reconnect, and resume at another proxy or at the next one.
"""
EPILOG = """\
examples:
  DISCORD_TOKEN=… AMQP_URI=amqp://localhost/ rateway proxy
  rateway proxy -c /etc/rateway.toml --address 127.0.0.1:7879      a second one on this machine
  PROXY_ADDRESS=127.0.0.1:7878 rateway                             the gateway starts one by itself

exit codes: 0 stopped as it was told to, 2 the command line is wrong, 78 wrong settings, or the gateway is set so that
it cannot serve bots
"""

log = logging.getLogger(__name__)

# A proxy identifies with nothing: what the gateway does with them is no affair of its own.
_ROWS = tuple(
    dataclasses.replace(row, default=0) if row.name == "intents" and row.default is REQUIRED else row
    for row in ROWS
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway proxy`."""
    configuration.add_option(parser)
    parser.add_argument(
        "--address", metavar="HOST:PORT", type=_address, help="listen here, in place of PROXY_ADDRESS"
    )


def _address(text: str) -> str:
    try:
        return values.address(text)
    except values.Wrong as error:
        raise argparse.ArgumentTypeError(f"{error}; {error.instead}") from None


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop; the exit code."""
    environ = dict(os.environ)
    if options.address is not None:
        environ["PROXY_ADDRESS"] = options.address
    try:
        settings = load(options.config, environ, rows=_ROWS, record=Settings)
    except ConfigurationError as error:
        configuration.explain(error)
        return exit_codes.CONFIGURATION
    logs.configure(settings.log.level, settings.log.format, secrets=settings.secrets())
    log.info("rateway %s, %s: gateway proxy", __version__, form(), extra={"action": "start"})
    hardening.ignore_ending_signals()
    tune_memory()
    return uvloop.run(_run(settings))


async def _run(settings: Settings) -> int:
    proxy = Proxy(settings)
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, proxy.stop)
    loop.add_signal_handler(signal.SIGHUP, proxy.reload)
    return await proxy.run()
