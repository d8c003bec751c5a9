"""Small texts that all proxies of a bot share, in RabbitMQ: one durable queue a key, which holds its newest message.

A reader takes the message without acknowledging it: it goes back when the reader's channel closes, and makes way for a
newer one where one has come meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Final

import pamqp.body
import pamqp.commands as spec
import pamqp.header
from pamqp import frame as framing
from pamqp.common import FieldTable
from rateway.transports.amqp.wire.channel import Channel, ChannelClosed, ConnectionLost
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.amqp.wire.deliveries import Delivery, Properties
from rateway.transports.amqp.wire.frames import CHANNEL
from rateway.transports.amqp.wire.kept_connection import KeptConnection
from rateway.transports.amqp.wire.uri import AddressSource

__all__ = ["AmqpPositions"]

log = logging.getLogger(__name__)

_PREFIX: Final = "rateway-proxy-"
# A bot that has been away for longer than any log is kept (EVENT_LOG_AGE) leaves nothing behind.
_EXPIRES_MS: Final = 30 * 86_400 * 1_000
_ARGUMENTS: Final[FieldTable] = {
    "x-queue-type": "classic", "x-max-length": 1, "x-overflow": "drop-head", "x-expires": _EXPIRES_MS,
}  # fmt: skip
# Seconds for one call.
PATIENCE: Final = 5.0
_READERS: Final = range(CHANNEL + 1, 1_000)
# Between a channel that the broker closed and the next.
_RENEW_S: Final = 0.1


class AmqpPositions:
    """:class:`~rateway.delivery.proxy_port.Positions` over a connection of its own, which :meth:`run` keeps."""

    def __init__(self, *, address: AddressSource, name: str) -> None:
        """``name`` is what the broker's management shows."""
        self._kept = KeptConnection(
            address,
            name,
            lost="places of bots in the event logs cannot be kept: %s; trying again until they can",
            back="places of bots in the event logs can be kept again (%s)",
        )
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._connected = asyncio.Event()
        # Queues that were declared on this channel.
        self._declared: set[str] = set()
        self._numbers = itertools.cycle(_READERS)

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        await self._kept.run(self._serve)

    async def _serve(self, connection: Connection) -> str:
        """One connection's life; why it ended."""
        try:
            while True:
                channel = await connection.channel(CHANNEL)
                self._kept.say_back(connection)
                self._connection, self._channel = connection, channel
                self._declared.clear()
                self._connected.set()
                reason = await asyncio.shield(channel.closed)
                self._connected.clear()
                if isinstance(reason, ConnectionLost):
                    return str(reason)
                log.warning("the broker closed a channel: %s", reason, extra={"action": "channel_closed"})
                await asyncio.sleep(_RENEW_S)
        except (ConnectionLost, ChannelClosed) as ended:
            return str(ended)
        finally:
            self._connected.clear()
            self._connection = self._channel = None

    async def keep(self, key: str, position: bytes) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                connection, channel = await self._ready()
                queue = await self._declare(channel, key)
                properties = spec.Basic.Properties(content_type="application/json", delivery_mode=2)
                connection.write(
                    b"".join(
                        framing.marshal(each, channel.number)
                        for each in (
                            spec.Basic.Publish(0, "", queue),
                            pamqp.header.ContentHeader(0, len(position), properties),
                            pamqp.body.ContentBody(position),
                        )
                    )
                )
        except (TimeoutError, ConnectionLost, ChannelClosed):
            # The next heartbeat keeps the next place.
            return

    async def read(self, key: str) -> bytes | None:
        try:
            async with asyncio.timeout(PATIENCE):
                connection, channel = await self._ready()
                queue = await self._declare(channel, key)
                return await _newest(await connection.channel(next(self._numbers)), queue)
        except (TimeoutError, ConnectionLost, ChannelClosed) as error:
            log.warning(
                "the place of a bot in the event log cannot be read (%s): what it missed is not sent again",
                str(error) or f"no answer in {PATIENCE:g} s", extra={"action": "proxy"},
            )  # fmt: skip
            return None

    async def _ready(self) -> tuple[Connection, Channel]:
        await self._connected.wait()
        if self._connection is None or self._channel is None:
            raise ConnectionLost("the connection has just ended")
        return self._connection, self._channel

    async def _declare(self, channel: Channel, key: str) -> str:
        queue = f"{_PREFIX}{key}"
        if queue not in self._declared:
            declare = spec.Queue.Declare(0, queue, durable=True, arguments=_ARGUMENTS)
            await channel.call(declare, spec.Queue.DeclareOk)
            self._declared.add(queue)
        return queue


async def _newest(channel: Channel, queue: str) -> bytes | None:
    """Return the one message of a queue, which stays there; None of an empty queue. Closes the channel."""
    try:
        found = await channel.call(spec.Queue.Declare(0, queue, passive=True), spec.Queue.DeclareOk)
        if not found.message_count:
            return None
        came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def on_delivery(delivery: Delivery, properties: Properties, body: bytes) -> None:
            if not came.done():
                came.set_result(body)

        channel.on_delivery = on_delivery
        await channel.call(spec.Basic.Consume(0, queue), spec.Basic.ConsumeOk)
        return await came
    finally:
        channel.close()
