"""`rateway send`: one gateway command to Discord, through the gateway that runs, and its answer."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from aio_pika.abc import AbstractIncomingMessage
from rateway import exit_codes, logs
from rateway.commands import broker_access
from rateway_protocol.contract import topology

SUMMARY = "send a gateway command to Discord through the running gateway"
DESCRIPTION = """\
Publish one gateway command (presence, voice state, members request) for a shard, as a worker would, and print
the gateway's answer. The command is a whole gateway payload, as Discord documents it; '-' reads it from standard
input. Any cluster of the gateway takes it and passes it to the cluster that runs the shard.
"""
EPILOG = """\
examples:
  rateway send --shard 0 '{"op":3,"d":{"since":null,"activities":[],"status":"idle","afk":false}}'
  rateway send --guild 290926798626357250 '{"op":8,"d":{"guild_id":"290926798626357250","query":"","limit":0}}'
  rateway send --shard 3 - < command.json

exit codes: 0 sent, 1 refused by the gateway, 69 no gateway or no broker, 78 no broker's address
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway send`."""
    broker_access.add_options(parser)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--shard", type=int, metavar="N", help="the shard to send it on")
    target.add_argument("--guild", type=int, metavar="ID", help="the guild whose shard is meant")
    parser.add_argument(
        "--timeout",
        type=float,
        default=65.0,
        metavar="S",
        help="how long to wait for the answer (default: 65 s)",
    )
    parser.add_argument("--json", action="store_true", help="print the answer as one JSON object")
    parser.add_argument("payload", help="the command as JSON, or - for standard input")


def run(options: argparse.Namespace) -> int:
    """Send the command and print the answer; the exit code."""
    try:
        payload = sys.stdin.read() if options.payload == "-" else options.payload
        try:
            json.loads(payload)
        except ValueError as error:
            raise broker_access.Refused(f"the command is not JSON: {error}", 1) from None
        return asyncio.run(_send(options, payload.encode()))
    except broker_access.Refused as refused:
        print(f"rateway send: {refused}", file=sys.stderr)
        return refused.code
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED


async def _send(options: argparse.Namespace, payload: bytes) -> int:
    found = await broker_access.request(
        options,
        topology.GATEWAY_KEY,
        payload,
        kind="commands",
        unread=f"the command waits in {topology.incoming(options.cluster)}, and no gateway reads it",
        headers={"shard_id": options.shard} if options.shard is not None else {"guild_id": options.guild},
    )
    return _report(found, as_json=options.json)


def _report(message: AbstractIncomingMessage, *, as_json: bool) -> int:
    status = str(message.headers.get("status", "ok"))
    try:
        body = json.loads(message.body) if message.body else None
    except (ValueError, RecursionError):
        body = message.body.decode(errors="replace")
    if as_json:
        print(json.dumps({"status": status, "body": body}))
    elif isinstance(body, dict) and isinstance(error := body.get("error"), dict):
        print(logs.escape(f"{status}: {error.get('code')}: {error.get('message')}"))
    else:
        print(logs.escape(status if body in (None, {}) else f"{status}: {json.dumps(body)}"))
    return 0 if status == "ok" else 1
