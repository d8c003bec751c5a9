"""A private RabbitMQ for a benchmark, and how many events it has confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aio_pika
import msgspec
from rateway.demo.broker import PrivateBroker
from rateway.transports.event_log_record import EventLogRecord

from benchmarks.rig import machine

Counter = Callable[[], int]
# Messages that a queue keeps: what nobody reads must not fill the disk.
KEEP = 50_000


@contextmanager
def rabbitmq() -> Iterator[tuple[Counter, str, list[int]]]:
    """(how many publishes it has confirmed since the start, told seconds late; its address; its processes)."""
    with PrivateBroker(settings={"collect_statistics_interval": "250"}) as broker:

        def confirmed() -> int:
            stats = broker.api("GET", "overview").get("message_stats", {})
            return int(stats.get("confirm", 0))

        assert broker.pid is not None
        yield confirmed, broker.uri, machine.tree(broker.pid)


@contextmanager
def logs_deleted(state: Path, uri: str) -> Iterator[None]:
    """Delete the event logs of a gateway that has ended inside: the next one's events would go into them as well."""
    yield
    records = [path.read_bytes() for path in state.glob("event-log-*.json")]
    names = [name for each in records for name in msgspec.json.decode(each, type=EventLogRecord).streams]

    async def delete() -> None:
        async with await aio_pika.connect(uri) as connection, connection.channel() as channel:
            for name in names:
                await channel.queue_delete(name)

    if names:
        asyncio.run(delete())
