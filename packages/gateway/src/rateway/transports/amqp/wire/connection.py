"""One connection to the broker: handshake, heartbeats, and acknowledgements read in bulk.

AMQP 0-9-1 with RabbitMQ's extensions (publisher confirms, ``basic.nack``, ``connection.blocked``). What comes
for every event, ``basic.ack``, and for every query, a delivery, is read by hand; everything else is pamqp's.
``transports/amqp/events/publisher.py`` writes its own frames through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import socket
import struct
from collections.abc import Callable
from typing import Final

import pamqp.commands as spec
from pamqp import frame as framing
from pamqp.base import Frame
from rateway.transports.amqp.wire.channel import (
    BODY,
    HEADER,
    Acks,
    Channel,
    ConnectionLost,
    DeliveryTaker,
)
from rateway.transports.amqp.wire.deliveries import DELIVER, delivered
from rateway.transports.amqp.wire.remedy import HTTP_SPOKEN
from rateway.transports.amqp.wire.uri import LEAST_FRAME_MAX, AmqpAddress

__all__ = ["BrokerRefused", "BrokerTrouble", "BrokerUnavailable", "Connection", "words_of"]


_ACK_HEAD: Final = (
    b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50"  # method frame on channel 1, 13 bytes, basic.ack
)
_ACK_LENGTH: Final = 21
_acks = struct.Struct(">11sQBB").iter_unpack
_frame = struct.Struct(">BHI").unpack_from
_FRAME_END: Final = 0xCE
# Messages taken from one read, which may hold two thousand: about a millisecond's work, then the loop goes round.
_AT_ONCE: Final = 100
# A content header's frame up to the body's size.
_HEADER_KNOWN: Final = 7 + 12
_METHOD, _BEAT = 1, 8
_HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
# Above it the transport says stop; a broker that reads slowly is not fed into our own memory twice.
_WRITE_HIGH: Final = 1024 * 1024
# What a broker answers when it has no opinion (0 in tune): AMQP's own bound for channels, RabbitMQ's default frame.
_FRAME_MAX: Final = 131_072
# Brokers refuse these for good reasons; another try in a few seconds is answered the same.
_REFUSALS: Final = (403, 530)
# Seconds, where the address names no other: RabbitMQ's default of 60 finds a dead machine after two minutes.
HEARTBEAT_S: Final = 10
# Looks at the connection in one heartbeat interval: the broker's silence is found between 15 and 16 of them later.
_LOOKS: Final = 8
_SILENT_LOOKS: Final = 2 * _LOOKS - 1
# RabbitMQ expects something at least every half interval.
_QUIET_LOOKS: Final = _LOOKS // 2 - 1


class BrokerTrouble(Exception):
    """There is no connection. The text says what was tried, what happened, and what to do where that is known.

    ``what`` and ``remedy`` are its two halves.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what}; {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


class BrokerUnavailable(BrokerTrouble):
    """No healthy broker answers at the address: try again later."""


class BrokerRefused(BrokerTrouble):
    """The broker answers with a refusal: a wrong password, a virtual host that does not exist."""


class Connection(asyncio.Protocol):
    """An open connection; ``connect.py`` makes it. ``closed`` resolves to the reason, in words, when it has ended."""

    def __init__(self, address: AmqpAddress, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.blocked = False
        self.writable = True
        self.frame_max = _FRAME_MAX
        # 0: no bound.
        self.channel_max = 0
        self.heartbeat = 0
        self.server = ""
        # Nodes that the address named when this one was dialled.
        self.nodes = 1
        # What the node calls the RabbitMQ cluster that it belongs to; a single node is one of its own.
        self.cluster_name = ""
        self.on_blocked: Callable[[bool, str], None] = lambda blocked, why: None
        self.on_writable: Callable[[], None] = lambda: None
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[str] = loop.create_future()
        self._address = address
        self._name = name
        self._transport: asyncio.Transport | None = None
        self._channels: dict[int, Channel] = {}
        self._one: Channel | None = None
        self._takers: dict[int, DeliveryTaker] = {}
        self._rest = b""
        # Bytes still to come of a frame that is not read.
        self._unread = 0
        self._heard = self._wrote = True
        # Looks since something came, and since something was written.
        self._silent = self._quiet = 0
        self._beat: asyncio.TimerHandle | None = None
        self._reason: str | None = None

    @property
    def address(self) -> AmqpAddress:
        """The address of the connected node."""
        return self._address

    def __repr__(self) -> str:
        return f"<Connection {self._address} {'closed' if self.closed.done() else 'open'}>"

    async def channel(self, number: int) -> Channel:
        """Open a channel; one that has this number is closed first, and nobody may use it any more."""
        while (before := self._channels.get(number)) is not None and not before.closed.done():
            before.close()
            await asyncio.shield(before.closed)
        if self.closed.done():
            raise ConnectionLost(self.closed.result())
        channel = Channel(self, number)
        self._channels[number] = channel
        if number == 1:
            self._one = channel
        await channel.call(spec.Channel.Open(), spec.Channel.OpenOk)
        return channel

    def add_taker(self, number: int, taker: DeliveryTaker) -> None:
        """Give the deliveries of a channel to *taker*, as frames."""
        self._takers[number] = taker

    def write(self, data: bytes) -> None:
        """Write whole frames. Look at ``writable`` first where there is much."""
        self._wrote = True
        if self._transport is not None:
            self._transport.write(data)

    def write_parts(self, parts: list[bytes]) -> None:
        """The same for frames in several parts, without joining them."""
        self._wrote = True
        if self._transport is not None:
            self._transport.writelines(parts)

    async def close(self, timeout: float = 2.0) -> None:
        """Close in order; the broker has ``timeout`` seconds to answer."""
        if not self.closed.done():
            self._reason = self._reason or "closed by us"
            self.write(framing.marshal(spec.Connection.Close(200, "done", 0, 0), 0))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await asyncio.shield(self.closed)
        self.abort("closed by us")

    def abort(self, why: str) -> None:
        """End at once, without AMQP's close."""
        self._reason = self._reason or why
        if self._transport is not None:
            self._transport.abort()
        self._end()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports do not inherit from asyncio's
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)  # type: ignore[union-attr]  # as above
        plug = transport.get_extra_info("socket")
        if plug is not None and plug.family in (socket.AF_INET, socket.AF_INET6):
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # While the broker blocks us its heartbeats are not watched; a host that is gone is noticed by
            # TCP's own probes.
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
                plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
                plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        self.write(b"AMQP\x00\x00\x09\x01")

    def connection_lost(self, error: Exception | None) -> None:
        if self._reason is None:
            self._reason = (
                "the broker closed the connection"
                if error is None
                else f"the connection broke: {words_of(error)}"
            )
        self._end()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.on_writable()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._unread:
            passed = min(self._unread, len(data))
            self._unread -= passed
            data = data[passed:]
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, size, taken = 0, len(data), 0
        one = self._one
        while size - at >= 8:
            if one is not None and data.startswith(_ACK_HEAD, at):
                if size - at < _ACK_LENGTH:
                    break
                acks: Acks = []
                for head, tag, multiple, end in _acks(data[at : size - (size - at) % _ACK_LENGTH]):
                    if head != _ACK_HEAD or end != _FRAME_END:
                        break
                    acks.append((tag, multiple))
                if not acks:
                    self._broken("a frame without its end")
                    return
                at += _ACK_LENGTH * len(acks)
                one.on_acks(acks)
                # What it did may have ended the channel.
                one = self._one
                continue
            if one is not None and data.startswith(DELIVER, at + 7):
                try:
                    message = delivered(data, at, 1, self.frame_max)
                except Exception:  # noqa: BLE001  # below it is read frame by frame, and said which one is wrong
                    message = None
                if message is not None:
                    method, told, body, at = message
                    one.on_delivery(method, told, body)
                    if self._transport is None:
                        return
                    one = self._one
                    taken += 1
                    if taken >= _AT_ONCE and at < size:
                        self._rest = data[at:]
                        self._transport.pause_reading()
                        self.loop.call_soon(self._read_on)
                        return
                    continue
            kind, number, length = _frame(data, at)
            if number in self._takers:
                past = self._takers[number].take_run(data, at, self.frame_max)
                if past > at:
                    if self._transport is None:
                        return
                    at = past
                    continue
            if length > self.frame_max:
                if data.startswith(b"HTTP/", at):
                    self.abort(HTTP_SPOKEN)
                    return
                if data.startswith(b"AMQP", at):
                    self._broken("the broker does not speak AMQP 0-9-1")
                    return
                channel = self._channels.get(number)
                if kind == HEADER and channel is not None and channel.body_max is not None:
                    # A broker passes a message's properties on in one frame, whatever the two of us agreed on.
                    if size - at < _HEADER_KNOWN:
                        break
                    channel.take_large_header(data[at : at + _HEADER_KNOWN])
                    channel.complete()
                    if self._transport is None:
                        return
                    one = self._one
                    self._unread = max(0, at + length + 8 - size)
                    at = min(size, at + length + 8)
                    continue
                self._broken(f"a frame of {length} bytes where {self.frame_max} were agreed")
                return
            if size - at < length + 8:
                break
            if data[at + length + 7] != _FRAME_END:
                self._broken("a frame without its end")
                return
            self._take(kind, number, data[at : at + length + 8])
            if self._transport is None:
                return
            one = self._one
            at += length + 8
        self._rest = data[at:]

    def _read_on(self) -> None:
        """Take more of what was read already, and then of what comes."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self.data_received(b"")

    # What came

    def _take(self, kind: int, number: int, data: bytes) -> None:
        if kind == _BEAT:
            return
        if kind not in (_METHOD, HEADER, BODY):
            self._broken(f"a frame of the unknown type {kind}")
            return
        channel = self._channels.get(number)
        is_content = number > 0 and (kind != _METHOD or data.startswith(DELIVER, 7))
        frame = None
        try:
            if not is_content:
                _, _, frame = framing.unmarshal(data)
            elif channel is not None:
                channel.take_content(kind, data)
        except Exception as error:  # noqa: BLE001  # pamqp raises its own, struct's, and what a malformed table leads to
            self._broken(f"a frame that cannot be read ({type(error).__name__})")
            return
        if is_content:
            if channel is not None:
                channel.complete()
        elif not isinstance(frame, Frame):
            return
        elif number == 0:
            self._control(frame)
        elif channel is not None:
            channel.take(frame)
            if channel.closed.done() and self._channels.get(number) is channel:
                del self._channels[number]
                self._takers.pop(number, None)
                if number == 1:
                    self._one = None

    def _control(self, method: Frame) -> None:
        match method:
            case spec.Connection.Start():
                self._start(method)
            case spec.Connection.Tune():
                self._tune(method)
            case spec.Connection.OpenOk():
                if self.heartbeat:
                    self._beat = self.loop.call_later(self.heartbeat / _LOOKS, self._tick)
                if not self.opened.done():
                    self.opened.set_result(None)
            case spec.Connection.Close():
                code, text = method.reply_code, str(method.reply_text)
                self._reason = f"the broker closed the connection: {code} {text}"
                self.write(framing.marshal(spec.Connection.CloseOk(), 0))
                if not self.opened.done():
                    # A virtual host that is down comes back by itself, with its node or its majority.
                    refused = (code in _REFUSALS or "ACCESS_REFUSED" in text) and "is down" not in text
                    self.opened.set_exception(
                        (BrokerRefused if refused else BrokerUnavailable)(f"{code} {text}")
                    )
                if self._transport is not None:
                    self._transport.close()
            case spec.Connection.CloseOk():
                if self._transport is not None:
                    self._transport.close()
            case spec.Connection.Blocked():
                self.blocked = True
                self.on_blocked(True, str(method.reason))
            case spec.Connection.Unblocked():
                self.blocked, self._silent = False, 0
                self.on_blocked(False, "")

    def _start(self, method: spec.Connection.Start) -> None:
        address = self._address
        offered = str(method.mechanisms).encode()
        wanted = "EXTERNAL" if address.external else "PLAIN"
        known = method.server_properties or {}
        self.server = f"{_text(known.get('product'))} {_text(known.get('version'))}".strip()
        self.cluster_name = _text(known.get("cluster_name"))
        if wanted.encode() not in offered.split():
            if not self.opened.done():
                words = f"it does not offer the mechanism {wanted}, only {offered.decode('ascii', 'replace')}"
                self.opened.set_exception(BrokerRefused(words))
            return
        response = "" if address.external else f"\x00{address.user}\x00{address.password}"
        capabilities: dict[str, object] = dict.fromkeys(
            (
                "publisher_confirms",
                "basic.nack",
                "connection.blocked",
                "consumer_cancel_notify",
                "authentication_failure_close",
            ),
            True,
        )
        about: dict[str, object] = {
            "product": "rateway", "platform": f"Python {platform.python_version()}", "connection_name": self._name,
            "capabilities": capabilities,
        }  # fmt: skip
        self.write(framing.marshal(spec.Connection.StartOk(about, wanted, response, "en_US"), 0))  # type: ignore[arg-type]  # pamqp's table type is closed over its own values

    def _tune(self, method: spec.Connection.Tune) -> None:
        address = self._address
        # RabbitMQ refuses 0 for channels where it offers a number: what the server offers is the most that
        # may be answered.
        channels = self.channel_max = _least(method.channel_max, address.channel_max)
        if method.frame_max and method.frame_max < LEAST_FRAME_MAX:
            if not self.opened.done():
                words = f"it offers frames of {method.frame_max} bytes, and AMQP's least is {LEAST_FRAME_MAX}"
                self.opened.set_exception(BrokerRefused(words))
            return
        self.frame_max = _least(method.frame_max, address.frame_max) or _FRAME_MAX
        offered = method.heartbeat or 0
        # A broker that offers 0 has them switched off, on purpose.
        wanted = HEARTBEAT_S if offered else 0
        self.heartbeat = _least(offered, wanted if address.heartbeat is None else address.heartbeat)
        if address.heartbeat == 0:
            self.heartbeat = 0
        self.write(framing.marshal(spec.Connection.TuneOk(channels, self.frame_max, self.heartbeat), 0))
        self.write(framing.marshal(spec.Connection.Open(address.vhost), 0))

    def _tick(self) -> None:
        """Write a beat after nearly half an interval without a write; end after nearly two without a read."""
        if self._transport is None:
            return
        self._quiet = 0 if self._wrote else self._quiet + 1
        if self._quiet >= _QUIET_LOOKS:
            self._transport.write(_HEARTBEAT)
            self._quiet = 0
        self._silent = 0 if self._heard or self.blocked else self._silent + 1
        self._heard = self._wrote = False
        if self._silent >= _SILENT_LOOKS:
            self.abort(f"the broker was silent for {2 * self.heartbeat} s")
            return
        self._beat = self.loop.call_later(self.heartbeat / _LOOKS, self._tick)

    def _broken(self, what: str) -> None:
        self.abort(f"what the broker sent is not AMQP: {what}")

    def _end(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        self._transport = None
        reason = self._reason or "the connection ended"
        if not self.opened.done():
            self.opened.set_exception(BrokerUnavailable(reason))
        if not self.closed.done():
            self.closed.set_result(reason)
        for channel in self._channels.values():
            channel.end(ConnectionLost(reason))
        self._channels.clear()
        self._takers.clear()
        self._one = None


def _least(offered: int | None, wanted: int | None) -> int:
    """Return the lower of two numbers, where 0 is no bound: AMQP's negotiation."""
    numbers = [number for number in (offered, wanted) if number]
    return min(numbers) if numbers else 0


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value or "")


def words_of(error: Exception) -> str:
    """Return what the operating system or TLS says of a connection that failed."""
    if getattr(error, "reason", None) == "WRONG_VERSION_NUMBER":
        # What is not a TLS record: the peer answered in AMQP.
        return "no TLS is spoken there"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
