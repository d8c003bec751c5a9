"""The broker's side of an inbound queue: it gives the consumer whatever bytes a test wants, in well-formed frames."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from pamqp import commands as spec
from pamqp import frame, header
from pamqp.base import Frame
from rateway.transports.amqp.requests.forwarding import FORWARDING
from tests.transports.amqp.fake_broker import FakeBroker, Received

NO_PROPERTIES = b"\0\0"


@dataclass
class InboundBroker(FakeBroker):
    """Takes the declarations of an inbound connection, and delivers by hand."""

    confirm: bool = False
    consuming: bool = False
    delivered: int = 0
    """The last delivery tag."""
    settled: set[int] = field(default_factory=set)
    """Tags that were acknowledged or given back."""
    given_back: list[int] = field(default_factory=list)
    queued: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Properties and bodies of queries that are delivered as soon as somebody consumes."""
    on_content: Callable[[bytes], None] = lambda frame: None
    """Called with each content header's frame that comes."""
    refused: set[str] = field(default_factory=set)
    """Exchanges whose declaration closes the channel."""
    on_forward: Callable[[int], None] | None = None
    """Called with the number of each publish that is forwarded, in place of a confirm."""
    _open: set[int] = field(default_factory=set)
    _publishing: int = 1
    _forwarded: int = 0

    def deliver(
        self,
        properties: bytes = NO_PROPERTIES,
        body: bytes = b"{}",
        key: bytes = b"cache",
        *,
        redelivered: bool = False,
    ) -> int:
        """One message; *properties* are the content header from the flags on. Returns its tag."""
        self.delivered += 1
        method = (
            b"\0\x3c\0\x3c\x02me"
            + struct.pack(">QB", self.delivered, redelivered)
            + b"\x09rateway-1"
            + bytes((len(key),))
            + key
        )
        content = struct.pack(">HHQ", 60, 0, len(body)) + properties
        self.send(frames_of(method, content, body, self.frame_max - 8))
        return self.delivered

    @property
    def all_settled(self) -> bool:
        """Whether every message that was delivered is dealt with."""
        return len(self.settled) == self.delivered

    def answers_to(self, correlation_id: str) -> list[Received]:
        return [each for each in self.received if each.properties.correlation_id == correlation_id]

    async def _frame(self, reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
        found = await super()._frame(reader)
        kind, channel, data = found
        if kind == 2:
            self._publishing = channel
            self.on_content(data)
            try:
                frame.unmarshal(data)
            except Exception:  # noqa: BLE001  # pamqp reads less than a broker does: what it cannot read has no properties
                data = _frame(2, data[7:19] + NO_PROPERTIES)
        return kind, channel, data

    def _publish(self, taken: Received) -> None:
        super()._publish(taken)
        if self._publishing == FORWARDING:
            self._forwarded += 1
            if self.on_forward is not None:
                self.on_forward(self._forwarded)
            else:
                self.method(spec.Basic.Ack(self._forwarded), FORWARDING)

    def _answer(self, method: Frame) -> None:
        number = self.answering
        match method:
            case spec.Exchange.Declare() if method.exchange in self.refused:
                words = f"PRECONDITION_FAILED - inequivalent arg 'type' for exchange '{method.exchange}'"
                # What follows on channel 1 is not read until it is closed.
                self._closing = number == 1
                self.method(spec.Channel.Close(406, words, 40, 10), number)
            case spec.Exchange.Declare():
                self.method(spec.Exchange.DeclareOk(), number)
            case spec.Confirm.Select():
                self._forwarded = 0
                self.method(spec.Confirm.SelectOk(), number)
            case spec.Channel.Open() if number in self._open:
                self.close_connection(504, "CHANNEL_ERROR - second 'channel.open' seen")
            case spec.Channel.Open():
                self._open.add(number)
                if number == 1:
                    # Tags are the channel's.
                    self.delivered = 0
                    self.settled.clear()
                self.channels += 1
                self.method(spec.Channel.OpenOk(), number)
            case spec.Channel.Close():
                self._open.discard(number)
                self.method(spec.Channel.CloseOk(), number)
            case spec.Channel.CloseOk():
                self._open.discard(number)
                super()._answer(method)
            case spec.Connection.Open():
                self._open.clear()
                super()._answer(method)
            case spec.Queue.Declare():
                self.method(spec.Queue.DeclareOk(method.queue, 0, 0), number)
            case spec.Queue.Bind():
                self.method(spec.Queue.BindOk(), number)
            case spec.Basic.Qos():
                self.method(spec.Basic.QosOk(), number)
            case spec.Basic.Consume():
                if number == 1:
                    self.consuming = True
                    self.method(spec.Basic.ConsumeOk("me"), number)
                    queued, self.queued = self.queued, []
                    for told, body in queued:
                        self.deliver(told, body)
                else:
                    words = f"ACCESS_REFUSED - queue '{method.queue}' in vhost '/' in exclusive use"
                    self.method(spec.Channel.Close(403, words, 60, 20), number)
            case spec.Basic.Ack():
                tag = method.delivery_tag
                self.settled |= set(range(1, tag + 1)) if method.multiple else {tag}
            case spec.Basic.Reject():
                self.settled.add(int(method.delivery_tag or 0))
                self.given_back.append(int(method.delivery_tag or 0))
            case _:
                super()._answer(method)


def _frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"


def frames_of(method: bytes, content: bytes, body: bytes, room: int) -> bytes:
    """The frames of one message on channel 1; *room* is the most bytes of body in one."""
    pieces = [_frame(3, body[at : at + room]) for at in range(0, len(body), room)]
    return b"".join([_frame(1, method), _frame(2, content), *pieces])


def properties(
    *,
    headers: bytes | None = None,
    correlation_id: bytes | None = None,
    reply_to: bytes | None = None,
    expiration: bytes | None = None,
) -> bytes:
    """A content header from the flags on; *headers* are the fields of the table."""
    flags, parts = 0, []
    if headers is not None:
        flags |= 0x2000
        parts.append(struct.pack(">I", len(headers)) + headers)
    for flag, value in ((0x0400, correlation_id), (0x0200, reply_to), (0x0100, expiration)):
        if value is not None:
            flags |= flag
            parts.append(bytes((len(value),)) + value)
    return struct.pack(">H", flags) + b"".join(parts)


def fields(headers: dict[str, object]) -> bytes:
    """The fields of a header table, as a library writes them."""
    told = spec.Basic.Properties(headers=headers)  # type: ignore[arg-type]  # pamqp's table type is closed over its own values
    found = frame.marshal(header.ContentHeader(0, 0, told), 1)
    # Frame head, class, weight, size and flags; then the table with its length; then the frame's end.
    return found[7 + 12 + 2 + 4 : -1]


def field_of(name: bytes, kind: bytes, value: bytes) -> bytes:
    """One field of a table, whatever is in it."""
    return bytes((len(name),)) + name + kind + value
