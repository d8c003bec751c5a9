"""Messages between the members of a fleet through the broker: to one of them, or to all.

A direct exchange ``rateway-fleet-<fleet>`` and an exclusive queue for each member, bound to the member's name and to
:data:`EVERYONE`. Nothing is confirmed or kept: what must arrive is asked for again by who needs it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import struct
from collections.abc import Callable, Sequence
from typing import Final

import pamqp.commands as spec
from rateway.delivery.message import Publish
from rateway.fleet.membership import Membership
from rateway.transports.amqp.wire.channel import Channel, ChannelClosed, ConnectionLost
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.amqp.wire.deliveries import Delivery, Properties
from rateway.transports.amqp.wire.frames import CHANNEL, pieces, short
from rateway.transports.amqp.wire.kept_connection import KeptConnection
from rateway.transports.amqp.wire.uri import AddressSource

__all__ = ["EVERYONE", "MOST_BODY", "FleetWire", "exchange_of"]

log = logging.getLogger(__name__)

# The routing key of what all members are to read. No member's name, which has a hyphen, is like it.
EVERYONE: Final = "everyone"
# Bytes of a message; the announcement of a thousand clusters has some hundred thousand.
MOST_BODY: Final = 1 << 20
# Messages that wait for a member that does not read, and for how long (ms): a frozen one must not find an old world.
_MOST_WAITING: Final = 5_000
_OLD_MS: Final = 10_000
# Between two tries of a channel that the broker closes.
_AGAIN_S: Final = 1.0
_CONTENT_TYPE, _DELIVERY_MODE = 0x8000, 0x1000
_PROPERTIES: Final = struct.pack(">H", _CONTENT_TYPE | _DELIVERY_MODE) + short(b"application/json") + b"\x01"


def exchange_of(fleet: str) -> str:
    """Return the exchange of a fleet's messages."""
    return f"rateway-fleet-{fleet}"


class FleetWire:
    """A :class:`~rateway.runtime.fleet.line.Wire` over a connection of its own, which :meth:`run` keeps."""

    def __init__(
        self,
        address: AddressSource,
        membership: Membership,
        keys: Sequence[str] = (),
        name: str = "",
    ) -> None:
        """*keys*: what else is read under; without any it is what is sent to the member or to all. *name* is what the
        broker's management shows.
        """
        self._membership = membership
        self._keys = tuple(keys) or (membership.member, EVERYONE)
        self._exchange = exchange_of(membership.fleet)
        self._kept = KeptConnection(
            address,
            name or f"rateway: fleet {membership.fleet}",
            lost="the other members of the fleet cannot be reached: %s; trying again until they can",
            back="the members of the fleet can be reached again (%s)",
        )
        self._connection: Connection | None = None
        self.on_message: Callable[[bytes], None] = lambda data: None
        self.on_up: Callable[[], None] = lambda: None

    @property
    def is_up(self) -> bool:
        """Whether messages can be sent."""
        return self._connection is not None

    def send(self, member: str, data: bytes) -> bool:
        """Send to *member*, or to all members (this one too) when it is empty; whether it was sent.

        It is not while there is no connection, or while the broker reads too slowly.
        """
        connection = self._connection
        if connection is None or not connection.writable or len(data) > MOST_BODY:
            return False
        key = (member or EVERYONE).encode()
        parts = pieces(self._exchange.encode(), Publish(key, _PROPERTIES, data), connection.frame_max)
        connection.write(b"".join(parts))
        return True

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        try:
            await self._kept.run(self._serve)
        finally:
            self._connection = None

    async def _serve(self, connection: Connection) -> str:
        """One connection's life; why it ended."""
        said = ""
        while True:
            try:
                channel = await self._open(connection)
            except ConnectionLost as lost:
                return str(lost)
            except ChannelClosed as closed:
                reason: ChannelClosed | ConnectionLost = closed
            else:
                self._kept.say_back(connection)
                self._connection = connection
                self.on_up()
                reason = await asyncio.shield(channel.closed)
            self._connection = None
            if isinstance(reason, ConnectionLost):
                return str(reason)
            if str(reason) != said:
                said = str(reason)
                log.warning(
                    "the broker closed the channel to the members of the fleet: %s; it is tried again until it works. "
                    "The gateway's user needs all rights for rateway-.* (docs/rabbitmq.md)",
                    reason,
                    extra={"action": "channel_closed"},
                )
            await asyncio.wait([connection.closed], timeout=_AGAIN_S)

    async def _open(self, connection: Connection) -> Channel:
        channel = await connection.channel(CHANNEL)
        channel.body_max = MOST_BODY
        channel.on_delivery = self._on_delivery
        # The consumer is gone with its queue: another channel has both again.
        channel.on_cancel = lambda tag: channel.close()
        # A queue of the connection before this one may still be there: another name.
        queue = f"{self._exchange}-{self._membership.member}-{secrets.token_hex(3)}"
        await channel.call(
            spec.Exchange.Declare(0, self._exchange, "direct", auto_delete=True), spec.Exchange.DeclareOk
        )
        arguments = {"x-max-length": _MOST_WAITING, "x-message-ttl": _OLD_MS}
        declare = spec.Queue.Declare(0, queue, exclusive=True, auto_delete=True, arguments=arguments)  # type: ignore[arg-type]  # pamqp's table type is closed over its own values
        await channel.call(declare, spec.Queue.DeclareOk)
        for key in self._keys:
            await channel.call(spec.Queue.Bind(0, queue, self._exchange, key), spec.Queue.BindOk)
        await channel.call(spec.Basic.Consume(0, queue, no_ack=True, exclusive=True), spec.Basic.ConsumeOk)
        return channel

    def _on_delivery(self, delivery: Delivery, properties: Properties, body: bytes) -> None:
        if properties.fault is None:
            self.on_message(body)
        else:
            # Not ours: a member writes no such message. The line counts what it cannot read.
            self.on_message(b"")
