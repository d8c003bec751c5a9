"""The texts that all proxies of a bot share, at a real broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from rateway.transports.amqp.log.positions import AmqpPositions
from rateway.transports.amqp.wire.uri import parse

from tests.aio import run
from tests.rabbitmq import Broker


@contextlib.asynccontextmanager
async def positions(broker: Broker) -> AsyncIterator[AmqpPositions]:
    """One proxy's."""
    begun = AmqpPositions(address=parse(broker.uri), name="test")
    task = asyncio.create_task(begun.run())
    try:
        yield begun
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_the_newest_text_is_read_by_every_proxy_as_often_as_it_likes(broker: Broker) -> None:
    async def scenario() -> None:
        async with positions(broker) as one, positions(broker) as other:
            assert await other.read("80-0-1") is None
            for text in (b"first", b"second"):
                await one.keep("80-0-1", text)
                async with asyncio.timeout(60):
                    while await other.read("80-0-1") != text:
                        pass
                assert [await each.read("80-0-1") for each in (one, other, one)] == [text] * 3
            assert await one.read("80-1-2") is None
            await one.keep("80-1-2", b"another shard")
            async with asyncio.timeout(60):
                while await other.read("80-1-2") is None:
                    pass
            assert await other.read("80-0-1") == b"second"

    run(scenario())


def test_a_text_that_is_kept_while_another_proxy_reads_is_the_newest(broker: Broker) -> None:
    async def scenario() -> None:
        async with positions(broker) as one, positions(broker) as other:
            for number in range(30):
                text = b"%d" % number
                await asyncio.gather(one.keep("80-0-1", text), other.read("80-0-1"), one.read("80-0-1"))
            async with asyncio.timeout(60):
                while await other.read("80-0-1") != b"29":
                    pass

    run(scenario())
