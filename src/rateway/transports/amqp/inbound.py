"""Who owns this cluster? The one whose exclusive consumer reads its inbound queue; and what it reads, and answers.

The second connection of a cluster (docs/contract.md, "Connections"): a broker that blocks publishers blocks their
connection alone, so that queries are answered while events wait. Consuming is exclusive: a second gateway on the
same cluster is refused by the broker until the first has left (``docs/architecture.md``, "Who owns a cluster").
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import pamqp.commands as spec
from pamqp import frame as framing
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from rateway.transports.amqp.connection import (
    BrokerRefused,
    BrokerUnavailable,
    Channel,
    ChannelClosed,
    Connection,
    ConnectionLost,
    connect,
)
from rateway.transports.amqp.frames import CHANNEL, Publish, pieces, short
from rateway.transports.amqp.uri import AmqpAddress

__all__ = ["Inbound", "Message", "Ownership"]

# Unacknowledged messages: commands that wait for their turn hold up neither queries nor other shards' commands.
PREFETCH: Final = 5_000
# Another gateway's consumer leaves without a word to us: RabbitMQ refuses, and has to be asked again.
ASK_AGAIN_S: Final = 0.5
# Somebody must change something at the broker.
PATIENT_S: Final = 15.0
RECONNECT_MOST_S: Final = 10.0

Ownership = Literal["owned", "elsewhere", "away", "refused"]

_CORRELATION_ID, _CONTENT_TYPE, _HEADERS = 0x0400, 0x8000, 0x2000
# Beside the consumer's: for questions whose answer may be that the channel is closed.
_ASKING: Final = 2
_ACCESS_REFUSED, _RESOURCE_LOCKED, _PRECONDITION_FAILED = 403, 405, 406


@dataclass(frozen=True, slots=True)
class Message:
    """A query or a command as it came. ``expiration`` is AMQP's own (milliseconds as text)."""

    tag: int
    key: str
    body: bytes
    headers: Mapping[str, Any]
    reply_to: str | None
    correlation_id: str | None
    expiration: str | None
    redelivered: bool
    channel: Channel


class Inbound:
    """The consuming connection of one cluster; it reconnects by itself, for ever."""

    def __init__(
        self,
        *,
        address: AmqpAddress,
        name: str,
        exchange: str,
        queue: str,
        keys: tuple[str, ...],
        on_message: Callable[[Message], None],
        on_ownership: Callable[[Ownership, str], None],
    ) -> None:
        """``on_ownership(state, why)`` is called when the state changes; ``on_message`` must not wait or raise."""
        self._address = address
        self._name = name
        self._exchange = exchange
        self._queue = queue
        # Exclusive to the connection that holds the consumer: as long as it is there, so is that connection.
        self._flag = f"{queue}-held-{secrets.token_hex(8)}"
        self._keys = keys
        self._on_message = on_message
        self._on_ownership = on_ownership
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._said: tuple[Ownership, str] | None = None
        self._out: list[bytes] = []

    async def run(self) -> None:
        """Own the queue, or wait until that is possible, until cancelled."""
        delay = 0.0
        while True:
            if delay:
                await asyncio.sleep(delay)
            try:
                connection = await connect(self._address, name=self._name)
            except BrokerUnavailable as error:
                self._say("away", str(error))
                delay = min(RECONNECT_MOST_S, max(0.5, delay * 2)) * random.uniform(0.5, 1)
                continue
            except BrokerRefused as error:
                self._say("refused", str(error))
                delay = PATIENT_S
                continue
            try:
                delay = await self._hold(connection)
            finally:
                self._drop()
                await connection.close()

    async def _hold(self, connection: Connection) -> float:
        """One connection's life. Returns after how many seconds to try again."""
        while True:
            try:
                channel = await connection.channel(CHANNEL)
                # What waits in the queue is delivered with the broker's word that we consume, before we have read
                # that: it is answered on this channel.
                self._connection, self._channel = connection, channel
                await self._consume(channel)
                await self._ask(connection, spec.Queue.Declare(0, self._flag, exclusive=True))
            except ChannelClosed as closed:
                self._drop()
                ghost = _is_taken(closed) and await self._flag_stands(connection)
                delay = self._refused(closed, ghost)
            except ConnectionLost as lost:
                self._say("away", str(lost))
                return 0.5
            else:
                self._say("owned", "")
                reason = await asyncio.shield(channel.closed)
                self._drop()
                if isinstance(reason, ConnectionLost):
                    self._say("away", str(reason))
                    return 0.1
                delay = self._refused(reason, False)
            await asyncio.sleep(delay)
            if connection.closed.done():
                self._say("away", connection.closed.result())
                return 0.1

    def _drop(self) -> None:
        """The channel has ended: nothing can be answered on it any more."""
        self._channel = None
        self._out.clear()

    async def bind_again(self) -> None:
        """Bind the queue to the exchange, which may have been deleted and declared again: its bindings are gone
        then, and nobody tells the channel that consumes.
        """
        channel = self._channel
        if channel is not None and self._said == ("owned", ""):
            # A channel that ends meanwhile is noticed, and replaced, where it is held.
            with contextlib.suppress(ChannelClosed, ConnectionLost):
                await self._bind(channel)

    async def _bind(self, channel: Channel) -> None:
        for key in self._keys:
            await channel.call(spec.Queue.Bind(0, self._queue, self._exchange, key), spec.Queue.BindOk)

    async def _consume(self, channel: Channel) -> None:
        channel.on_delivery = lambda method, header, body: self._deliver(channel, method, header, body)
        # The consumer is ended by the broker when the queue is deleted or moves: begin again.
        channel.on_cancel = lambda tag: channel.close()
        await channel.call(
            spec.Exchange.Declare(0, self._exchange, "direct", durable=True), spec.Exchange.DeclareOk
        )
        await channel.call(spec.Queue.Declare(0, self._queue, durable=True), spec.Queue.DeclareOk)
        await self._bind(channel)
        await channel.call(spec.Basic.Qos(0, PREFETCH, False), spec.Basic.QosOk)
        await channel.call(spec.Basic.Consume(0, self._queue, "", False, False, True), spec.Basic.ConsumeOk)

    async def _flag_stands(self, connection: Connection) -> bool:
        """Whether the consumer in our way is our own: its connection broke, and the broker does not know that yet."""
        try:
            closed = await self._ask(connection, spec.Queue.Declare(0, self._flag, passive=True))
        except ConnectionLost:
            return False
        return closed is not None and closed.code == _RESOURCE_LOCKED

    async def _ask(self, connection: Connection, method: spec.Queue.Declare) -> ChannelClosed | None:
        """What the broker has against it; None when it is done. Harms no other channel."""
        channel = await connection.channel(_ASKING)
        try:
            await channel.call(method, spec.Queue.DeclareOk)
            channel.close()
            await asyncio.shield(channel.closed)
        except ChannelClosed as closed:
            return closed
        return None

    def _refused(self, closed: ChannelClosed, ghost: bool) -> float:
        if ghost:
            self._say(
                "away", f"our former connection still reads {self._queue}: the broker has not missed it yet"
            )
            return ASK_AGAIN_S
        if _is_taken(closed):
            self._say("elsewhere", f"another gateway reads {self._queue}")
            return ASK_AGAIN_S
        if closed.code == _PRECONDITION_FAILED:
            self._say(
                "refused",
                f"{self._queue} or {self._exchange} exists with other properties ({closed.text}). Delete what an "
                f"older version left: rabbitmqctl delete_queue {self._queue}",
            )
            return PATIENT_S
        if closed.code == 200:
            return ASK_AGAIN_S
        self._say("refused", f"the broker closed the channel of {self._queue}: {closed}")
        return PATIENT_S if closed.code == _ACCESS_REFUSED else ASK_AGAIN_S

    def _say(self, state: Ownership, why: str) -> None:
        if self._said != (state, why):
            self._said = (state, why)
            self._on_ownership(state, why)

    def _deliver(
        self, channel: Channel, method: spec.Basic.Deliver, header: spec.Basic.Properties, body: bytes
    ) -> None:
        self._on_message(
            Message(
                tag=method.delivery_tag or 0,
                key=str(method.routing_key),
                body=body,
                headers=header.headers or {},
                reply_to=header.reply_to or None,
                correlation_id=header.correlation_id or None,
                expiration=header.expiration or None,
                redelivered=bool(method.redelivered),
                channel=channel,
            )
        )

    # Answers. They are written once per wake-up, and never when the connection that asked is gone.

    def acknowledge(self, message: Message) -> None:
        """The message is dealt with; after its connection ended the broker delivers it again."""
        self._put(message, struct.pack(">BHIHHQB", 1, CHANNEL, 13, 60, 80, message.tag, 0) + b"\xce")

    def publish(
        self,
        message: Message,
        exchange: str,
        key: str,
        body: bytes,
        headers: Mapping[str, str | int],
        correlation_id: str | None,
    ) -> None:
        """Send an answer on the connection that the question came on. ``key`` and ids are at most 255 bytes."""
        assert self._connection is not None
        flags, fields = _HEADERS, b""
        if body:
            flags |= _CONTENT_TYPE
        if correlation_id is not None:
            flags |= _CORRELATION_ID
        for name, value in headers.items():
            fields += short(name.encode()) + _field(value)
        properties = b"".join(
            (
                struct.pack(">H", flags),
                short(b"application/json") if body else b"",
                struct.pack(">I", len(fields)),
                fields,
                short(correlation_id.encode()) if correlation_id is not None else b"",
            )
        )
        publish = Publish(key.encode(), properties, body)
        begin, content, end = pieces(exchange.encode(), publish, self._connection.frame_max)
        self._put(message, begin + content + end)

    def forward(self, message: Message, exchange: str, headers: Mapping[str, Any]) -> None:
        """Publish the message again, as it is but for its headers, to the same key of another exchange."""
        assert self._connection is not None
        about = spec.Basic.Properties(
            headers=dict(headers),
            correlation_id=message.correlation_id,
            reply_to=message.reply_to,
            expiration=message.expiration,
        )
        room = self._connection.frame_max - 8
        parts = [framing.marshal(spec.Basic.Publish(0, exchange, message.key), CHANNEL)]
        parts.append(framing.marshal(ContentHeader(0, len(message.body), about), CHANNEL))
        parts += [
            framing.marshal(ContentBody(message.body[start : start + room]), CHANNEL)
            for start in range(0, len(message.body), room)
        ]
        self._put(message, b"".join(parts))

    def _put(self, message: Message, data: bytes) -> None:
        if message.channel is not self._channel:
            return
        if not self._out:
            asyncio.get_running_loop().call_soon(self._write)
        self._out.append(data)

    def _write(self) -> None:
        out, self._out = self._out, []
        if out and self._channel is not None and self._connection is not None:
            self._connection.write(b"".join(out))


def _is_taken(closed: ChannelClosed) -> bool:
    """Whether a consumer was refused because another one is exclusive."""
    return closed.code in (_ACCESS_REFUSED, _RESOURCE_LOCKED) and "exclusive" in closed.text


def _field(value: str | int) -> bytes:
    if isinstance(value, int):
        return b"l" + struct.pack(">q", value)
    text = value.encode()
    return b"S" + struct.pack(">I", len(text)) + text
