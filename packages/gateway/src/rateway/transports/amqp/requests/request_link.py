"""One queue's requests, read on one channel, and their answers, which go out on the same."""

from __future__ import annotations

import asyncio
import functools
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pamqp.commands as spec
from rateway.delivery.port import MAX_BODY, Headers, Message, Refusal
from rateway.transports.amqp.requests.forwarding import FORWARDING, Forwarding
from rateway.transports.amqp.wire.channel import Channel
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.amqp.wire.deliveries import Delivery, Properties
from rateway.transports.amqp.wire.frames import CHANNEL, END, short
from rateway_protocol.contract.topology import is_own_queue

__all__ = ["PLACES", "PREFETCH", "RequestLink", "RequestTaker"]

log = logging.getLogger(__name__)

# Unacknowledged messages: commands that wait for their turn hold up neither queries nor other shards' commands.
PREFETCH: Final = 5_000
# No query waits for its answer for longer.
ANSWER_EXPIRES_MS: Final = 60_000
# RabbitMQ's own bound; with a larger one it closes the channel.
_MOST_EXPIRATION_MS: Final = 0xFFFF_FFFF
# Between two lines about mistakes of our own in reading messages, seconds.
_SAY_FAILURE_EVERY_S: Final = 60.0

_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE = 0x8000, 0x2000, 0x1000
_CORRELATION_ID, _REPLY_TO, _EXPIRATION = 0x0400, 0x0200, 0x0100
# Frames of answers: a method (basic.publish), a content header (class basic), a piece of the body, basic.ack.
_METHOD: Final = struct.Struct(">BHI6s")
_PUBLISH: Final = b"\x00\x3c\x00\x28\x00\x00"
_HEADER: Final = struct.Struct(">BHIIQH")
_CLASS_BASIC: Final = 60 << 16
_BODY: Final = struct.Struct(">BHI")
_ACK: Final = struct.Struct(">BHIHHQ?B")
_JSON: Final = b"\x10application/json"
_TRANSIENT: Final = b"\x01"
_EXPIRES: Final = short(b"%d" % ANSWER_EXPIRES_MS)
# Places that answers go to, whose frames are remembered: one or a few for each worker.
PLACES: Final = 1_024


@dataclass(slots=True)
class RequestTaker:
    """What takes the requests of a cluster, through whichever queue they come."""

    on_message: Callable[[Message], None]
    on_refused: Callable[[Message, Refusal], None]
    on_unrouted: Callable[[Message, str], None]
    on_writable: Callable[[], None]
    failure_said_at: float = -_SAY_FAILURE_EVERY_S
    """When the log last told of a mistake of the gateway's own."""


class RequestLink:
    """The channel of one consumer: makes messages of its deliveries, and takes their answers and acknowledgements."""

    def __init__(self, connection: Connection, channel: Channel, queue: str, taker: RequestTaker) -> None:
        """*channel* has the number :data:`CHANNEL`."""
        self.connection = connection
        self.channel = channel
        self.is_copy: Callable[[Delivery, Properties, bytes], bool] | None = None
        """Whether a delivery is a copy of a request that was taken through another queue: it is acknowledged unread."""
        self.delivered = 0
        """The tag of the latest delivery that was taken."""
        self._queue = queue
        self._taker = taker
        self._is_open = True
        self._out: list[bytes] = []
        # Frames that say where to, by exchange and key.
        self._places: dict[tuple[bytes, bytes], bytes] = {}
        self._forwarding = Forwarding(
            connection, on_done=self.acknowledge, on_refused=taker.on_unrouted, on_return=self._returned
        )
        # Delivery tags dealt with since the last write; above the highest below which all are, those before that.
        self._done: list[int] = []
        self._early: set[int] = set()
        self._all_up_to = 0
        connection.on_writable = taker.on_writable
        channel.body_max = MAX_BODY
        # The consumer is ended by the broker when the queue is deleted or moves: begin again.
        channel.on_cancel = self._cancelled

    @property
    def is_open(self) -> bool:
        """See :class:`~rateway.delivery.port.Link`."""
        return self._is_open

    @property
    def is_idle(self) -> bool:
        """Whether every message that was taken is dealt with."""
        return self._all_up_to == self.delivered and not self._done

    def end(self) -> None:
        """Forget the channel, which has ended: nothing can be answered on it."""
        self._is_open = False
        self._forwarding.end()
        self._out.clear()
        self._done.clear()
        self._taker.on_writable()

    def _cancelled(self, tag: str) -> None:
        # Nothing may be written on a channel that is closing.
        self.end()
        self.channel.close()

    def give_back(self, tag: int) -> None:
        """Return a message to the queue, unread."""
        self.delivered = max(self.delivered, tag)
        self.channel.send(spec.Basic.Reject(tag, True))
        # The broker counts it as dealt with, and delivers it again under another number.
        self._early.add(tag)

    def deliver(self, delivery: Delivery, told: Properties, body: bytes) -> None:
        """Make a message of a delivery. Every fault of a delivery ends here."""
        self.delivered = delivery.tag
        if self.is_copy is not None and self.is_copy(delivery, told, body):
            self._settle(delivery.tag)
            return
        refusal: Refusal | None = told.fault
        reply_to, correlation_id = told.reply_to, told.correlation_id
        if reply_to is not None and (not _is_text(reply_to) or is_own_queue(reply_to)):
            refusal, reply_to = "bad_reply_to", None
        # It is given back as it came, to a library that may end its connection over what is no text.
        if correlation_id is not None and not _is_text(correlation_id):
            refusal, correlation_id = refusal or "bad_correlation_id", None
        message = Message(
            delivery.tag,
            delivery.key,
            body,
            told.headers,
            reply_to,
            correlation_id,
            told.expiration,
            delivery.redelivered,
            self,
        )
        try:
            if refusal is None:
                self._taker.on_message(message)
                return
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the connection, or it comes for ever
            self._say_failure(error)
            if message.receipt in self._done:
                return  # it was answered before that
            refusal = "failed"
        self._taker.on_refused(message, refusal)

    def _say_failure(self, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._taker.failure_said_at + _SAY_FAILURE_EVERY_S:
            self._taker.failure_said_at = now
            log.error(
                "a message of %s could not be dealt with, a mistake of the gateway's own; it is refused, others are "
                "served. Please report this",
                self._queue,
                exc_info=error,
                extra={"action": "message_refused"},
            )

    # Answers. They are written once per wake-up, and never when the connection that asked is gone.

    def acknowledge(self, message: Message) -> None:
        """Acknowledge a message; once its connection has ended, the broker delivers it again."""
        if self._is_open:
            self._settle(message.receipt)

    def _settle(self, tag: int) -> None:
        self._write_soon()
        self._done.append(tag)

    def answer(self, message: Message, body: bytes, headers: Headers) -> None:
        """Send an answer to the message's ``reply_to``: transient, and gone after a minute if it is not fetched."""
        assert message.reply_to is not None
        self._publish(message, b"", message.reply_to, body, headers, expires=True)

    def publish(self, message: Message, exchange: str, key: str, body: bytes, headers: Headers) -> None:
        """Send an answer under a routing key of at most 255 bytes, as the original rateway did."""
        self._publish(message, exchange.encode(), key.encode(), body, headers, expires=False)

    def _publish(
        self, message: Message, exchange: bytes, key: bytes, body: bytes, headers: Headers, *, expires: bool
    ) -> None:
        """Send an answer on the connection that the question came on."""
        if not self._is_open:
            return
        out, size, correlation_id = self._out, len(body), message.correlation_id
        if not out:
            self._write_soon()
        flags, properties = _HEADERS, _table(headers)
        if body:
            flags |= _CONTENT_TYPE
            properties = _JSON + properties
        if expires:
            flags |= _DELIVERY_MODE | _EXPIRATION
            properties += _TRANSIENT
        if correlation_id is not None:
            flags |= _CORRELATION_ID
            properties += short(correlation_id)
        if expires:
            properties += _EXPIRES
        where = self._places.get((exchange, key)) or self._place(exchange, key)
        head = _HEADER.pack(2, CHANNEL, 14 + len(properties), _CLASS_BASIC, size, flags)
        room = self.connection.frame_max - 8
        if size <= room and body:
            out += (where, head, properties, END, _BODY.pack(3, CHANNEL, size), body, END)
            return
        out += (where, head, properties, END)
        out += _pieces(CHANNEL, body, room)

    def _place(self, exchange: bytes, key: bytes) -> bytes:
        """Return the frame of a ``basic.publish`` to there."""
        if len(self._places) >= PLACES:
            self._places.clear()
        place = self._places[exchange, key] = _publish_frame(CHANNEL, exchange, key, mandatory=False)
        return place

    def _returned(self, code: int, key: str, size: int, told: Properties) -> None:
        """Handle a forwarded message that no queue took."""
        self._taker.on_unrouted(
            Message(0, key, b"", b"", told.reply_to, told.correlation_id, told.expiration, False, self), ""
        )

    def forward(self, message: Message, exchange: str, headers: bytes) -> bool:
        """Publish the message again, as it is but for its headers, to the same key of another exchange.

        The exchange is declared first. The message is acknowledged once the broker has it. What no queue takes there
        comes back, to ``on_unrouted``, as does what the broker refuses. False when its properties do not fit into a
        frame of this connection.
        """
        if not self._is_open:
            return True
        flags, properties = _HEADERS, struct.pack(">I", len(headers)) + headers
        for bit, value in (
            (_CORRELATION_ID, message.correlation_id),
            (_REPLY_TO, message.reply_to),
            (_EXPIRATION, _valid_expiration(message.expiration)),
        ):
            if value is not None:
                flags |= bit
                properties += short(value)
        room = self.connection.frame_max - 8
        if 14 + len(properties) > room:
            return False
        size = len(message.body)
        where = _publish_frame(FORWARDING, exchange.encode(), message.key.encode(), mandatory=True)
        head = _HEADER.pack(2, FORWARDING, 14 + len(properties), _CLASS_BASIC, size, flags)
        frames = (where, head, properties, END, *_pieces(FORWARDING, message.body, room))
        self._forwarding.send(message, exchange, b"".join(frames))
        return True

    def _write_soon(self) -> None:
        if not self._out and not self._done:
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        out, self._out = self._out, []
        if not self._is_open:
            return
        if self._done:
            out.append(self._acknowledgements())
        if out:
            self.connection.write(b"".join(out))

    def _acknowledgements(self) -> bytes:
        """One frame for all messages that are dealt with and have none before them that is not, and one for each
        other. A frame for many names the highest of *these*: the broker knows no tag that it was told of already."""
        done, self._done = self._done, []
        early, up_to = self._early, self._all_up_to
        if not early and max(done) == up_to + len(done):  # in order, as nearly always
            self._all_up_to = up_to = up_to + len(done)
            return _ACK.pack(1, CHANNEL, 13, 60, 80, up_to, len(done) > 1, 0xCE)
        early.update(done)
        while up_to + 1 in early:
            up_to += 1
            early.remove(up_to)
        self._all_up_to = up_to
        below = [tag for tag in done if tag <= up_to]
        frames = [_ACK.pack(1, CHANNEL, 13, 60, 80, tag, 0, 0xCE) for tag in done if tag > up_to]
        if below:
            frames.append(_ACK.pack(1, CHANNEL, 13, 60, 80, max(below), len(below) > 1, 0xCE))
        return b"".join(frames)


def _is_text(value: bytes) -> bool:
    """Return whether the bytes are UTF-8, as AMQP's short strings are by definition (4.2.5.3)."""
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _valid_expiration(value: bytes | None) -> bytes | None:
    """Return an expiration that a broker takes: with any other it closes the channel that publishes."""
    valid = value is not None and value.isdigit() and len(value) <= 10 and int(value) <= _MOST_EXPIRATION_MS
    return value if valid else None


def _publish_frame(channel: int, exchange: bytes, key: bytes, *, mandatory: bool) -> bytes:
    where = short(exchange) + short(key) + (b"\1" if mandatory else b"\0")
    return _METHOD.pack(1, channel, len(_PUBLISH) + len(where), _PUBLISH) + where + END


def _pieces(channel: int, body: bytes, room: int) -> list[bytes]:
    """Return a body's frames."""
    frames = []
    for start in range(0, len(body), room):
        part = body[start : start + room]
        frames += [_BODY.pack(3, channel, len(part)), part, END]
    return frames


@functools.lru_cache(64)
def _table(headers: Headers) -> bytes:
    """Return AMQP's table of an answer's headers; most hold ``status`` = ``ok``."""
    fields = b"".join([short(name.encode()) + _field(value) for name, value in headers])
    return struct.pack(">I", len(fields)) + fields


def _field(value: str | int) -> bytes:
    if isinstance(value, int):
        return b"l" + struct.pack(">q", value)
    text = value.encode("utf-8", "replace")
    return b"S" + struct.pack(">I", len(text)) + text
