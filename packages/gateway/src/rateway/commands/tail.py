"""`rateway tail`: what a cluster's exchange carries, live, as lines that a person can read."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from aio_pika.abc import AbstractIncomingMessage, AbstractQueue
from rateway.commands import broker_access
from rateway_protocol.contract.messages import OWN_KEYS
from rateway_protocol.discord.envelope import FAILURES
from rateway_protocol.discord.events import DOCUMENTED, EVENTS

SUMMARY = "show what a cluster's exchange carries, live"
DESCRIPTION = """\
Show the messages of one cluster's exchange as they come: time, shard, seq, event, size, guild.

A direct exchange has no wildcard, so this binds a queue of its own with every documented event name, the
gateway's own RATEWAY_* names and the names given with --also. An event that Discord invented since is seen only
when it is named. The queue is exclusive and bounded: when this terminal is too slow the oldest are dropped, and
the number is told. Workers are not disturbed: they have queues of their own.
"""
EPILOG = """\
examples:
  rateway tail                                  every event of cluster 1
  rateway tail MESSAGE_CREATE GUILD_CREATE      only these
  rateway tail --cluster 2 --json | jq .guild   one JSON object a line
  rateway tail --count 10                       end after ten

exit codes: 0 ended as asked, 69 no broker or no such exchange, 78 no broker's address
"""

#: Messages on their way to this process; beyond, they wait in the queue, where the bound holds.
PREFETCH = 500
#: The queue that collects what was dropped, to be counted, is bounded to so many times the first one's length.
DROPS_FACTOR = 10

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


class Line(msgspec.Struct, frozen=True):
    """One message of the exchange. *time* is ISO 8601 in UTC, *size* bytes of the body, *guild* an id or None."""

    time: str
    shard: int | None
    seq: int | None
    event: str
    size: int
    guild: str | None
    message_id: str | None
    replayed: bool
    republished: bool
    ahead: bool
    body: msgspec.Raw | None = None


class _WithGuildId(msgspec.Struct):
    guild_id: str | None = None


class _WithId(msgspec.Struct):
    id: str | None = None


class _WithMeta(msgspec.Struct):
    meta: _WithGuildId | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway tail`."""
    broker_access.add_options(parser)
    parser.add_argument("events", nargs="*", metavar="EVENT", help="only these event names (default: all)")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME",
        help="an undocumented name to bind beside all others",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--body", action="store_true", help="with --json: the event itself too")
    parser.add_argument("--count", type=int, metavar="N", help="end after N messages")
    parser.add_argument(
        "--length", type=int, default=10_000, metavar="N", help="messages that may wait here (default: 10000)"
    )


def run(options: argparse.Namespace) -> int:
    """Print lines until interrupted, or until --count; the exit code."""
    try:
        return asyncio.run(follow(options))
    except broker_access.Refused as refused:
        print(f"rateway tail: {refused}", file=sys.stderr)
        return refused.code
    except (KeyboardInterrupt, BrokenPipeError):
        return 0


def names_to_bind(events: list[str], also: list[str]) -> list[str]:
    """Return the routing keys to bind: the names given, or every documented one and the gateway's own."""
    if events:
        return sorted({name.upper() for name in events} | set(also))
    return sorted(DOCUMENTED | OWN_KEYS | set(also))


def guild_of(event: str, body: bytes) -> str | None:
    """Return the guild that an event's body names, by the event's documented path; None when it names none."""
    spec = EVENTS.get(event)
    path = "guild_id" if spec is None else spec.guild_id_path
    try:
        if path == "id":
            return msgspec.json.decode(body, type=_WithId).id
        if path == "meta.guild_id":
            meta = msgspec.json.decode(body, type=_WithMeta).meta
            return None if meta is None else meta.guild_id
        if path == "guild_id":
            return msgspec.json.decode(body, type=_WithGuildId).guild_id
    except FAILURES:
        return None
    return None


def line_of(message: AbstractIncomingMessage, now: datetime, *, with_body: bool = False) -> Line:
    """Return the line of a message; *now* is used where it carries no time."""
    headers = message.headers
    event = message.routing_key or ""
    body: msgspec.Raw | None = None
    if with_body:
        try:
            body = msgspec.json.decode(message.body, type=msgspec.Raw)
        except FAILURES:
            body = None
    return Line(
        time=(message.timestamp or now).astimezone(UTC).isoformat(timespec="seconds"),
        shard=_integer(headers.get("shard_id")),
        seq=_integer(headers.get("seq")),
        event=event,
        size=len(message.body),
        guild=guild_of(event, message.body),
        message_id=message.message_id,
        replayed=bool(headers.get("replayed")),
        republished=bool(headers.get("republished")),
        ahead=bool(headers.get("ahead")),
        body=body,
    )


def text_of(line: Line) -> str:
    """Return the line for a person: columns, and marks for what came again."""
    marks = "".join(
        f"  {mark}"
        for mark, on in (
            ("replayed", line.replayed),
            ("republished", line.republished),
            ("ahead", line.ahead),
        )
        if on
    )
    shard = "-" if line.shard is None else line.shard
    seq = "-" if line.seq is None else line.seq
    event = _UNPRINTABLE.sub("?", line.event)
    guild = _UNPRINTABLE.sub("?", line.guild or "-")
    return f"{line.time[11:19]} {shard:>5} {seq:>9}  {event:<40} {line.size:>9} B  {guild}{marks}"


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None


async def follow(options: argparse.Namespace) -> int:
    """Bind, tell what is bound, and print lines until --count; Refused when there is no broker or no exchange."""
    connection = await broker_access.connect(options)
    async with connection:
        exchange = await broker_access.cluster_exchange(connection, options.cluster)
        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=PREFETCH)
        dropped = await channel.declare_queue(
            exclusive=True,
            arguments={"x-max-length": options.length * DROPS_FACTOR, "x-overflow": "drop-head"},
        )
        arguments = {
            "x-max-length": options.length,
            "x-overflow": "drop-head",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dropped.name,
        }
        queue = await channel.declare_queue(exclusive=True, arguments=arguments)
        names = names_to_bind(options.events, options.also)
        for name in names:
            await queue.bind(exchange, name)
        print(
            f"bound {len(names)} event names of {exchange.name}: "
            + (
                " ".join(names)
                if options.events
                else "every documented one, RATEWAY_* and those named with --also"
            )
            + "; an undocumented name is seen only when it is given",
            file=sys.stderr,
        )
        await _show(queue, dropped, options, _printer(options))
    return 0


def _printer(options: argparse.Namespace) -> Callable[[AbstractIncomingMessage], None]:
    if options.json:
        encode = msgspec.json.Encoder().encode

        def as_json(message: AbstractIncomingMessage) -> None:
            print(encode(line_of(message, datetime.now(UTC), with_body=options.body)).decode(), flush=True)

        return as_json
    print(f"{'time':>8} {'shard':>5} {'seq':>9}  {'event':<40} {'size':>11}  guild", flush=True)

    def as_text(message: AbstractIncomingMessage) -> None:
        print(text_of(line_of(message, datetime.now(UTC))), flush=True)

    return as_text


async def _show(
    queue: AbstractQueue,
    dropped: AbstractQueue,
    options: argparse.Namespace,
    show: Callable[[AbstractIncomingMessage], None],
) -> None:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    shown = lost = told = 0

    async def on_message(message: AbstractIncomingMessage) -> None:
        nonlocal shown, told
        if ended.done():
            return
        if lost != told:
            print(
                f"dropped {lost - told} messages: this terminal was too slow ({lost} so far)", file=sys.stderr
            )
            told = lost
        try:
            show(message)
        except BrokenPipeError as closed:
            ended.set_exception(closed)
            return
        await message.ack()
        shown += 1
        if options.count is not None and shown >= options.count:
            ended.set_result(None)

    async def on_dropped(_message: AbstractIncomingMessage) -> None:
        nonlocal lost
        lost += 1

    def on_close(_channel: object, error: BaseException | None) -> None:
        if not ended.done():
            ended.set_exception(broker_access.Refused(f"the broker closed the channel: {error}"))

    queue.channel.close_callbacks.add(on_close)
    await dropped.consume(on_dropped, no_ack=True)
    await queue.consume(on_message)
    await ended
