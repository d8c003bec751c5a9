"""Count what waits in queues and who reads them, on a connection of its own. Passive declarations change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import pamqp.commands as spec
from rateway.delivery.port import QueueCount
from rateway.transports.amqp.wire.channel import ChannelClosed, ConnectionLost
from rateway.transports.amqp.wire.connection import BrokerRefused, BrokerUnavailable
from rateway.transports.amqp.wire.dial import dial
from rateway.transports.amqp.wire.uri import AddressSource

__all__ = ["count_queues"]

_CHANNEL: Final = 1
# A silent node answers nothing about its queues.
_ANSWER_S: Final = 10.0


async def count_queues(source: AddressSource, names: Iterable[str]) -> list[QueueCount] | None:
    """Return the counts of those of the queues that are there and may be asked about; None when the broker is away."""
    try:
        connection = await dial(source, name="rateway: looks at queues")
    except (BrokerUnavailable, BrokerRefused):
        return None
    found = []
    try:
        async with asyncio.timeout(_ANSWER_S):
            for name in names:
                # The broker closes the channel to say that there is no such queue.
                channel = await connection.channel(_CHANNEL)
                try:
                    said = await channel.call(spec.Queue.Declare(0, name, passive=True), spec.Queue.DeclareOk)
                    found.append(QueueCount(name, said.message_count or 0, said.consumer_count or 0))
                    channel.close()
                    await asyncio.shield(channel.closed)
                except ChannelClosed:
                    continue
    except (ConnectionLost, TimeoutError):
        return None
    finally:
        await connection.close()
    return found
