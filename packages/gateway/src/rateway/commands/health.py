"""`rateway health`: ask the running gateway over HTTP whether it is live or ready; for probes that have no shell."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys

from rateway import exit_codes, logs
from rateway.commands import configuration
from rateway_protocol.discord.hosts import is_host_name

SUMMARY = "ask the running gateway over HTTP whether it is live or ready"
DESCRIPTION = """\
Ask the gateway that runs on this machine, over HTTP, whether it is live (its event loops move; Discord or the broker
away never makes it false), or with --ready whether events flow. It takes a connection of its own and no token; the
reasons are on the page, in `rateway status`, and, with the token, in /health/ready.
"""
EPILOG = """\
examples:
  rateway health                          in a container's health check
  rateway health --ready && deploy-the-next-one
  HTTP_ADDRESS=127.0.0.1:9000 rateway health

exit codes: 0 yes, 1 no, or nothing answers, 78 wrong settings
"""
TIMEOUT_S = 12.0
DEFAULT = "127.0.0.1:8650"


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway health`."""
    configuration.add_option(parser)
    parser.add_argument(
        "--ready", action="store_true", help="ask whether events flow, not only whether it lives"
    )
    parser.add_argument("--address", metavar="HOST:PORT", help="the gateway's HTTP_ADDRESS")


def run(options: argparse.Namespace) -> int:
    """Ask; the exit code."""
    address = options.address or os.environ.get("HTTP_ADDRESS") or None
    if address is None and options.config is not None:
        settings = configuration.load_or_explain(options.config)
        if settings is None:
            return exit_codes.CONFIGURATION
        address = settings.http.address
        if address is None:
            print("rateway health: HTTP is switched off (http_address is empty)", file=sys.stderr)
            return exit_codes.FAILED
    host, _, port = (address or DEFAULT).rpartition(":")
    if not port.isdecimal() or not is_host_name(_reachable(host)):
        print(f"rateway health: {address!r} is no host:port", file=sys.stderr)
        return exit_codes.CONFIGURATION
    return _ask(_reachable(host), int(port), "/health/ready" if options.ready else "/health/live")


def _reachable(host: str) -> str:
    """Return the address to ask: a server that listens on all addresses is asked on loopback."""
    host = host.strip("[]")
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _ask(host: str, port: int, path: str) -> int:
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = json.loads(answer.read(1 << 20))
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        print(
            f"rateway health: no gateway answers at {host}:{port} ({type(error).__name__})", file=sys.stderr
        )
        return exit_codes.FAILED
    finally:
        connection.close()
    status, reasons = (said.get("status"), said.get("reasons")) if isinstance(said, dict) else (None, None)
    print(logs.escape(str(status) if answer.status == 200 else f"{status} ({answer.status})"))
    for reason in reasons if isinstance(reasons, list) else []:
        print(logs.escape(f"  {reason.get('text') if isinstance(reason, dict) else reason}"))
    return 0 if answer.status == 200 else 1
