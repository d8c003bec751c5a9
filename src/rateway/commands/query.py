"""`rateway query`: ask the running gateway's cache, as a worker would, and show the answer."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import uuid
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError

from rateway import logs
from rateway.commands import broker_access
from rateway.contract import topology
from rateway.contract.errors import Fault
from rateway.contract.queries import QUERY_TYPES, QueryRequest, QueryType, parse_query

SUMMARY = "ask the running gateway's cache"
DESCRIPTION = """\
Ask the gateway's cache about one entity, or list many, as a worker would, and show the answer as a table or as
Discord's own JSON. A query on any cluster's exchange is answered for every entity that the gateway knows.
"""


def _usage(kind: QueryType) -> str:
    words = [name.upper() for name in kind.arguments]
    return " ".join(word if turn < kind.required else f"[{word}]" for turn, word in enumerate(words))


EPILOG = (
    "types and their arguments (ids); lists take --limit and --after:\n"
    + "".join(
        f"  {f'{kind.name} {_usage(kind)}':<40} {kind.help}{' (list)' if kind.lists else ''}\n"
        for kind in QUERY_TYPES.values()
    )
    + """
examples:
  rateway query Guild 290926798626357250
  rateway query Guild 290926798626357250 --fields name,owner_id
  rateway query GuildMembers 290926798626357250 --limit 10
  rateway query GuildMembers 290926798626357250 --after 80351110224678912 --json
  rateway query MemberPermissions 290926798626357250 80351110224678912
  rateway query Stats --json

exit codes: 0 found, 1 refused, 4 not found, 69 no gateway or no broker, 78 no broker's address
"""
)
EXIT_NOT_FOUND = 4
# Columns that tell one entry of a list from another, where it has them.
COLUMNS = (
    "id",
    "name",
    "username",
    "global_name",
    "nick",
    "type",
    "status",
    "channel_id",
    "member_count",
    "joined_at",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway query`."""
    broker_access.add_options(parser)
    parser.add_argument("type", metavar="TYPE", help="what is asked for (see below)")
    parser.add_argument("arguments", metavar="ID", nargs="*", help="its ids, in the order given below")
    parser.add_argument(
        "--fields", metavar="A,B", help="only these fields, also those that a guild leaves out"
    )
    parser.add_argument(
        "--limit", metavar="N", type=int, help="entries of a list (default: 100, at most 1000)"
    )
    parser.add_argument("--after", metavar="ID", help="entries of a list after this id")
    parser.add_argument(
        "--timeout", metavar="S", type=float, default=10.0, help="how long to wait (default: 10 s)"
    )
    parser.add_argument("--json", action="store_true", help="print the answer's JSON")


def run(options: argparse.Namespace) -> int:
    """Ask, and show the answer; the exit code."""
    said: dict[str, Any] = {"type": options.type, "arguments": options.arguments}
    if options.fields:
        said["fields"] = [name.strip() for name in options.fields.split(",") if name.strip()]
    said |= {name: value for name in ("limit", "after") if (value := getattr(options, name)) is not None}
    body = json.dumps(said).encode()
    try:
        wrong = _what_is_wrong(body)
        if wrong is not None:
            raise broker_access.Refused(wrong, 1)
        return asyncio.run(_ask(options, body))
    except broker_access.Refused as refused:
        print(f"rateway query: {refused}", file=sys.stderr)
        return refused.code


def _what_is_wrong(body: bytes) -> str | None:
    """What the gateway would answer anyway; told without asking it."""
    request = parse_query(body, has_reply_to=True)
    found = request.queries[0] if isinstance(request, QueryRequest) else request
    return found.message if isinstance(found, Fault) else None


async def _ask(options: argparse.Namespace, body: bytes) -> int:
    async with await broker_access.connect(options) as connection:
        exchange = await broker_access.cluster_exchange(connection, options.cluster)
        channel = await connection.channel()
        answers = await channel.declare_queue(exclusive=True)
        correlation = uuid.uuid4().hex
        answer: asyncio.Future[AbstractIncomingMessage] = asyncio.get_running_loop().create_future()

        async def on_answer(message: AbstractIncomingMessage) -> None:
            if message.correlation_id == correlation and not answer.done():
                answer.set_result(message)

        await answers.consume(on_answer, no_ack=True)
        message = aio_pika.Message(
            body,
            correlation_id=correlation,
            reply_to=answers.name,
            content_type="application/json",
            expiration=options.timeout,
        )
        try:
            await exchange.publish(message, topology.CACHE_KEY, mandatory=True)
        except DeliveryError:
            why = f"no queue takes queries of {exchange.name}: no gateway has run cluster {options.cluster} here"
            raise broker_access.Refused(why) from None
        try:
            async with asyncio.timeout(options.timeout):
                found = await answer
        except TimeoutError:
            why = f"no answer within {options.timeout:g} s: does a gateway read {topology.incoming(options.cluster)}?"
            raise broker_access.Refused(why) from None
    return _report(found.headers.get("status"), found.body, as_json=options.json)


def _report(status: object, body: bytes, *, as_json: bool) -> int:
    """Print an answer; the exit code."""
    try:
        said = json.loads(body) if body else None
    except ValueError:
        print(f"rateway query: the answer is not JSON: {body[:80]!r}", file=sys.stderr)
        return 1
    if status == "not_found":
        print("null" if as_json else "not found", file=sys.stdout if as_json else sys.stderr)
        return EXIT_NOT_FOUND
    if status == "error":
        error = said.get("error", {}) if isinstance(said, dict) else {}
        print(
            f"rateway query: {error.get('code')}: {logs.escape(str(error.get('message')))}", file=sys.stderr
        )
        return 1
    if as_json:
        print(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        _show(said)
    return 0


def _show(said: object) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    def cell(value: object) -> str:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return escape(logs.escape(text if len(text) <= 300 else f"{text[:299]}…"))

    page = Console(highlight=False)
    if isinstance(said, dict):
        table = Table(show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in said.items():
            table.add_row(cell(name), cell(value))
        page.print(table)
    elif isinstance(said, list) and said and all(isinstance(row, dict) for row in said):
        rows = [_flat(row) for row in said]
        names = [name for name in COLUMNS if any(name in row for row in rows)]
        names = names or list(dict.fromkeys(name for row in rows for name in row))[:6]
        table = Table(*names)
        for row in rows:
            table.add_row(*(cell(row[name]) if name in row else "" for name in names))
        page.print(table)
        page.print(f"{len(rows)} entries")
    else:
        print(logs.escape(json.dumps(said, ensure_ascii=False)))


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A member, presence or voice state with its user's id and name beside its own fields."""
    user = row.get("user")
    if not isinstance(user, dict):
        return row if "id" in row or "user_id" not in row else {"id": row["user_id"], **row}
    return {**{name: user[name] for name in ("id", "username", "global_name") if name in user}, **row}
