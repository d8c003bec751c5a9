"""One channel of a connection: calls and their replies, content put together from its frames, and its end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import pamqp.commands as spec
from pamqp import frame as framing
from pamqp.base import Frame
from rateway.transports.amqp.wire.deliveries import (
    PROPERTIES_TOO_LARGE,
    Delivery,
    Properties,
    body_size_of,
    delivery_of,
    properties_of,
)

__all__ = ["BODY", "HEADER", "Acks", "Channel", "ChannelClosed", "ConnectionLost", "DeliveryTaker"]

# (delivery tag, 1 when it stands for all up to it)
Acks = list[tuple[int, int]]
Reply = TypeVar("Reply", bound=Frame)
# Types of frames (AMQP 0-9-1, 4.2.6).
HEADER: Final = 2
BODY: Final = 3
_CLOSED_BY_US: Final = (200, "closed by us")


class ConnectionLost(Exception):
    """The connection has ended; the text says why."""


class ChannelClosed(Exception):
    """The broker has closed the channel: ``code`` and ``text`` are its own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


class Carrier(Protocol):
    """The connection that a channel belongs to."""

    loop: asyncio.AbstractEventLoop

    def write(self, data: bytes) -> None:
        """Write whole frames."""

    def add_taker(self, number: int, taker: DeliveryTaker) -> None:
        """Give the deliveries of a channel to *taker*, as frames."""


class DeliveryTaker(Protocol):
    """Takes what is delivered on a channel as the frames that came, in place of the channel's ``on_delivery``."""

    def take_run(self, data: bytes, at: int, room: int) -> int:
        """Take the whole deliveries that stand one behind the other from *at* on, and return where they end; *at*
        itself where none is whole. ``room`` is the most bytes that a frame's payload may have."""

    def take_parts(self, method: bytes, header: bytes, body: bytes) -> None:
        """Take a delivery that came in pieces: the frames of its method and of its content header, and the body."""


class Channel:
    """A channel. The callbacks are the owner's to set; ``closed`` resolves to the reason when it has ended."""

    def __init__(self, connection: Carrier, number: int) -> None:
        self.number = number
        self.on_acks: Callable[[Acks], None] = lambda acks: None
        self.on_nack: Callable[[int, bool], None] = lambda tag, multiple: None
        # (reply code, routing key, body size, properties), called when the returned message has arrived in full.
        self.on_return: Callable[[int, str, int, Properties], None] = lambda code, key, size, properties: None
        self.on_delivery: Callable[[Delivery, Properties, bytes], None] = lambda delivery, properties, body: (
            None
        )
        self.on_cancel: Callable[[str], None] = lambda consumer_tag: None
        # Called at once when the channel has ended: nothing may be written on it from here on.
        self.on_end: Callable[[], None] = lambda: None
        # Bodies of deliveries above it are not kept: the message comes without a body, its fault says why.
        self.body_max: int | None = None
        self._taker: DeliveryTaker | None = None
        self.closed: asyncio.Future[ChannelClosed | ConnectionLost] = connection.loop.create_future()
        self._connection = connection
        self._is_closing = False
        self._waiting: deque[tuple[tuple[type[Frame], ...], asyncio.Future[Frame]]] = deque()
        self._method: spec.Basic.Return | Delivery | None = None
        self._properties: Properties | None = None
        # The frames of a delivery's method and content header.
        self._method_frame = self._header = b""
        self._body: list[bytes] = []
        self._size = 0
        self._missing = 0

    def give_to(self, taker: DeliveryTaker) -> None:
        """Have deliveries taken as they came, until the channel's end. Not on channel 1."""
        self._taker = taker
        if not self.closed.done():
            self._connection.add_taker(self.number, taker)

    async def call(self, method: Frame, reply: type[Reply]) -> Reply:
        """Send a method and wait for its reply; :class:`ChannelClosed` or :class:`ConnectionLost`."""
        if self.closed.done():
            raise self.closed.result()
        if self._is_closing:
            raise ChannelClosed(*_CLOSED_BY_US)
        answer: asyncio.Future[Frame] = self._connection.loop.create_future()
        self._waiting.append(((reply,), answer))
        self.send(method)
        result = await answer
        assert isinstance(result, reply)
        return result

    def send(self, method: Frame) -> None:
        """Send a method that has no reply."""
        self._connection.write(framing.marshal(method, self.number))

    def close(self) -> None:
        """Ask the broker to close the channel."""
        if not self.closed.done() and not self._is_closing:
            self._is_closing = True
            self.send(spec.Channel.Close(200, "done", 0, 0))

    def end(self, reason: ChannelClosed | ConnectionLost) -> None:
        """End the channel: the connection has lost it, or the broker has closed it."""
        if not self.closed.done():
            self.closed.set_result(reason)
            self.on_end()
        for _, answer in self._waiting:
            if not answer.done():
                answer.set_exception(reason)
        self._waiting.clear()

    def take(self, method: Frame) -> None:
        """Take a method from the broker."""
        match method:
            case spec.Basic.Ack():
                self.on_acks([(method.delivery_tag, int(method.multiple))])
            case spec.Basic.Nack():
                self.on_nack(method.delivery_tag, bool(method.multiple))
            case spec.Basic.Return():
                self._method, self._properties, self._body = method, None, []
            case spec.Basic.Cancel():
                self.on_cancel(str(method.consumer_tag))
            case spec.Channel.Close():
                self.send(spec.Channel.CloseOk())
                self.end(ChannelClosed(method.reply_code or 0, str(method.reply_text)))
            # Otherwise it answers a Close of the channel that had this number before, which crossed the broker's own.
            case spec.Channel.CloseOk() if self._is_closing:
                self.end(ChannelClosed(*_CLOSED_BY_US))
            case spec.Channel.Flow():
                # RabbitMQ never sends it; the answer is required all the same.
                self.send(spec.Channel.FlowOk(method.active))
            case _:
                if self._waiting and isinstance(method, self._waiting[0][0]):
                    answer = self._waiting.popleft()[1]
                    if not answer.done():
                        answer.set_result(method)

    def take_content(self, kind: int, frame: bytes) -> None:
        """Take a ``basic.deliver``, or the header or a piece of the body of a returned or delivered message."""
        if kind == BODY:
            part = frame[7:-1]
            self._missing -= len(part)
            # The body of a returned message is ours already; of one that is refused for its size none is kept.
            if isinstance(self._method, Delivery) and not self._is_too_large():
                self._body.append(part)
        elif kind == HEADER:
            self._size = self._missing = body_size_of(frame)
            self._properties = properties_of(frame)
            self._header = frame if isinstance(self._method, Delivery) else b""
        else:
            self._method, self._properties, self._body = delivery_of(frame), None, []
            self._method_frame = frame

    def take_large_header(self, beginning: bytes) -> None:
        """Take the first bytes of a content header that is larger than any agreed frame; the rest is not read."""
        self._size = self._missing = body_size_of(beginning)
        self._properties = PROPERTIES_TOO_LARGE

    def _is_too_large(self) -> bool:
        return self.body_max is not None and self._size > self.body_max

    def complete(self) -> None:
        """Hand a message that is there in full to the owner, if there is one."""
        method, told, parts = self._method, self._properties, self._body
        if told is None or self._missing > 0:
            return
        self._method, self._properties, self._body = None, None, []
        if isinstance(method, Delivery):
            if self._taker is not None:
                whole = parts[0] if len(parts) == 1 else b"".join(parts)
                self._taker.take_parts(self._method_frame, self._header, whole)
                return
            if self._is_too_large():
                told = Properties(
                    told.headers,
                    told.correlation_id,
                    told.reply_to,
                    told.expiration,
                    told.fault or "body_too_large",
                )
            self.on_delivery(method, told, parts[0] if len(parts) == 1 else b"".join(parts))
        elif method is not None:
            self.on_return(method.reply_code or 0, str(method.routing_key), self._size, told)
