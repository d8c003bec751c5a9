"""Read a cluster's event log from its first entry to a mark behind its last, as `rateway.demo.audit` reads a queue."""

from __future__ import annotations

import asyncio
import secrets
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from rateway.demo.audit import Audit, Receipts, Sent, audit

#: Entries on their way; a stream asks for a bound.
PREFETCH = 1_000


@dataclass(frozen=True, slots=True)
class LogLine:
    """One entry of a log."""

    offset: int
    name: str
    message_id: str
    crc32: int


@dataclass(slots=True)
class Log:
    """What a log holds."""

    receipts: Receipts = field(default_factory=Receipts)
    lines: list[LogLine] = field(default_factory=list)

    def audit(self, sent: Iterable[Sent]) -> Audit:
        """Hold the entries against what was sent."""
        return audit(sent, self.receipts)


async def read_log(uri: str, name: str) -> Log:
    """Every entry of the stream *name*. What is confirmed when this is called is in front of the mark that it sets."""
    found = Log()
    mark = secrets.token_hex(8)
    done = asyncio.Event()

    async def take(message: AbstractIncomingMessage) -> None:
        if message.message_id == mark:
            done.set()
        elif not done.is_set() and message.exchange:
            found.lines.append(
                LogLine(
                    int(str(message.headers["x-stream-offset"])),
                    message.routing_key or "",
                    message.message_id or "",
                    zlib.crc32(message.body),
                )
            )
            found.receipts.add(
                message.routing_key or "",
                message.message_id,
                message.body,
                republished=bool(message.headers.get("republished")),
                redelivered=False,
                ahead=bool(message.headers.get("ahead")),
            )
        await message.ack()

    async with await aio_pika.connect(uri) as connection:
        channel = await connection.channel()
        await channel.set_qos(PREFETCH)
        queue = await channel.get_queue(name)
        await channel.default_exchange.publish(aio_pika.Message(b"", message_id=mark), name)
        await queue.consume(take, arguments={"x-stream-offset": "first"})
        await done.wait()
    offsets = [line.offset for line in found.lines]
    assert offsets == sorted(set(offsets))
    return found
