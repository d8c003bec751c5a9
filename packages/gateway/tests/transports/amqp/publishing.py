"""A publisher under test, and who hears what it says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from rateway.delivery.limits import DeliveryLimits
from rateway.native.ledger import Headroom
from rateway.transports.amqp.events.publisher import EventPublisher, ShardStream
from rateway.transports.amqp.wire.uri import parse
from rateway.transports.spool import Spool
from tests.transports.amqp.fake_broker import FakeBroker, Received

QUICK = DeliveryLimits(refused_delay=0.02, refused_delay_most=0.1, spool_after=0.05)


@dataclass
class Listener:
    """Hears what the publisher says; ``until`` waits for it."""

    told: list[tuple[Any, ...]] = field(default_factory=list)
    settled: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def _tell(self, *what: object) -> None:
        self.told.append(what)
        self.changed.set()

    def on_pause(self) -> None:
        self._tell("pause")

    def on_resume(self) -> None:
        self._tell("resume")

    def on_settled(self) -> None:
        self.settled += 1
        self.changed.set()

    def on_oversize(
        self, name: str, shard_id: int | None, seq: int | None, size: int, limit: int | None
    ) -> None:
        self._tell("oversize", name, shard_id, seq, size, limit)

    def on_refused(self, name: str, shard_id: int | None, seq: int | None) -> None:
        self._tell("refused", name, shard_id, seq)

    def on_state(self, up: bool, why: str) -> None:
        self._tell("up" if up else "down", why)

    def said(self, word: str) -> int:
        return sum(1 for what in self.told if what[0] == word)


@dataclass
class Cluster:
    publisher: EventPublisher
    listener: Listener
    task: asyncio.Task[None] | None = None

    async def until(self, condition: Any) -> None:
        while not condition():
            self.listener.changed.clear()
            # Not everything is told: the spool's confirms, say.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.listener.changed.wait(), 0.02)

    async def all_confirmed(self) -> None:
        assert await self.publisher.drain(60) == 0


@asynccontextmanager
async def cluster_on(
    broker: FakeBroker,
    limits: DeliveryLimits = QUICK,
    spool: Spool | None = None,
    wait: bool = True,
    headroom: Headroom | None = None,
) -> AsyncIterator[Cluster]:
    listener = Listener()
    publisher = EventPublisher(
        address=parse(broker.uri),
        exchange="rateway-1",
        cluster=1,
        limits=limits,
        persistent=True,
        spool=spool,
        clock=time,
        observer=listener,
        headroom=headroom,
    )
    cluster = Cluster(publisher, listener)
    cluster.task = asyncio.get_running_loop().create_task(publisher.run())
    if wait:
        await cluster.until(lambda: publisher.connected)
    try:
        yield cluster
    finally:
        publisher.stop()
        await cluster.task


def begun(publisher: EventPublisher) -> ShardStream:
    """The stream of the only shard, in its session ``s``."""
    stream = publisher.stream(0, 1)
    stream.begin("s")
    return stream


def publish(stream: ShardStream, numbers: Iterable[int]) -> None:
    """An event X without content for each sequence."""
    for seq in numbers:
        stream.publish("X", b"{}", seq, False)


def seqs(received: list[Received]) -> list[int]:
    return [each.seq for each in received]
