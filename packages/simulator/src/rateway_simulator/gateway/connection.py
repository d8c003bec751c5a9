"""One client's WebSocket connection at the simulated Discord: messages in, bytes out, and how it can fail.

What a message means is not known here; see `operations.py`. All that is sent within one wake-up of the event
loop goes out in one write.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from dataclasses import dataclass
from typing import Protocol

from picows import WSFrame, WSListener, WSMsgType, WSTransport
from rateway_simulator.gateway import wire
from rateway_simulator.gateway.sessions import Session
from rateway_simulator.judge.limits import Window

# RFC 6455, 7.4.1: a close frame without a code. Reserved, never on the wire.
NO_STATUS = 1005
# A client that does not answer our close frame is dropped.
CLOSE_GRACE_S = 5.0
# How often a slowed connection may write.
SLOW_STEP_S = 0.05
# Payload compression (identify's `compress`) is used for large messages only, as Discord does.
PAYLOAD_COMPRESSION_BYTES = 4096
WRITE_HIGH_WATER = 1 << 20


@dataclass(frozen=True, slots=True)
class Query:
    """The query string of the gateway URL; empty where a parameter is missing."""

    version: str
    encoding: str
    compress: str

    @property
    def compression(self) -> str:
        """The compression that this connection gets."""
        return self.compress if self.compress in wire.COMPRESSIONS else "none"

    def key(self) -> tuple[str, str, str]:
        """Return the identity that a resume must repeat."""
        return (self.version, self.encoding, self.compress)


class Owner(Protocol):
    """The gateway as a connection knows it."""

    def opened(self, connection: Connection) -> None:
        """The upgrade was answered with 101."""
        ...

    def received(self, connection: Connection, data: bytes) -> None:
        """A whole message from the client."""
        ...

    def gone(self, connection: Connection, code: int | None) -> None:
        """Closed by the client with this code, or TCP ended (None). Called once, also after our own close."""
        ...

    def drained(self, connection: Connection) -> None:
        """The client has caught up: more can be written."""
        ...


class Connection(WSListener):
    """One socket. `session` is the session that it carries, None before READY or RESUMED."""

    def __init__(self, owner: Owner, host: int, query: Query, sends: Window, backlog_bytes: int) -> None:
        self.host = host
        self.query = query
        self.sends = sends
        self.session: Session | None = None
        # The shard of its identify or session, for faults and violations.
        self.shard: int | None = None
        # An identify or a resume was taken.
        self.authenticated = False
        # Op 9 was sent: what the client had under way is passed over.
        self.invalidated = False
        self.compress_payloads = False
        self.closing = False
        self.paused = False
        self.hello_at = 0.0
        self.beat_at: float | None = None
        self.beat_asked_at: float | None = None
        self.split_bytes = 0
        self.fragment_bytes = 0
        self._owner = owner
        self._stream = wire.stream(query.compression)
        self._backlog_bytes = backlog_bytes
        self._loop = asyncio.get_running_loop()
        self._transport: WSTransport | None = None
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._scheduled = False
        self._silent = False
        self._slow_bytes = 0
        self._timers: list[asyncio.TimerHandle] = []
        self._trickling: asyncio.TimerHandle | None = None
        self._fragments: list[bytes] = []
        self._gone = False

    # picows' callbacks

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The upgrade is done."""
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        self._owner.opened(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A frame of the client; fragments are joined (RFC 6455, section 5.4)."""
        kind = frame.msg_type
        if kind is WSMsgType.CLOSE:
            payload = frame.get_payload_as_bytes()
            code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else NO_STATUS
            self._closed_by_client(transport, payload[:2], code)
        elif self.closing or kind is WSMsgType.PONG:
            return
        elif frame.fin and not self._fragments:
            self._owner.received(self, frame.get_payload_as_bytes())
        else:
            self._fragments.append(frame.get_payload_as_bytes())
            if frame.fin:
                message, self._fragments = b"".join(self._fragments), []
                self._owner.received(self, message)

    def _closed_by_client(self, transport: WSTransport, code: bytes, number: int) -> None:
        self.flush()
        if not self._silent:
            if not transport.is_close_frame_sent:
                transport.send(WSMsgType.CLOSE, code)
            transport.disconnect()
            self._timers.append(self._loop.call_later(CLOSE_GRACE_S, transport.disconnect, False))
        # An echo of our own close frame says nothing about what the client wants.
        number_of_theirs = None if self.closing else number
        self.closing = True
        self._tell_gone(number_of_theirs)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """TCP has ended."""
        self.closing = True
        for timer in (*self._timers, self._trickling):
            if timer is not None:
                timer.cancel()
        self._outbox.clear()
        self._tell_gone(None)

    def _tell_gone(self, code: int | None) -> None:
        if not self._gone:
            self._gone = True
            self._owner.gone(self, code)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self.paused = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.paused = False
        self.flush()
        if not self.closing:
            self._owner.drained(self)

    # Sending

    def send(self, payload: bytes) -> None:
        """Send one gateway message; it leaves with the others of this wake-up."""
        if self.closing:
            return
        stream = self._stream
        if self.split_bytes and self.query.compression == "zlib-stream":
            packed = stream.pack(payload)
            size = self.split_bytes
            pieces = (packed[at : at + size] for at in range(0, len(packed), size))
            self._queue(b"".join(self._frame(wire.BINARY, piece) for piece in pieces))
        elif (
            self.compress_payloads and stream.opcode == wire.TEXT and len(payload) > PAYLOAD_COMPRESSION_BYTES
        ):
            self._queue(self._frame(wire.BINARY, zlib.compress(payload)))
        else:
            self._queue(self._frame(stream.opcode, stream.pack(payload)))

    def _frame(self, opcode: int, payload: bytes) -> bytes:
        if self.fragment_bytes:
            return wire.fragments(opcode, payload, self.fragment_bytes)
        return wire.frame(opcode, payload)

    def send_run(self, run: wire.Run) -> None:
        """Send messages that were compressed beforehand."""
        if not self.closing:
            self._queue(run.after(self._stream.leave()))

    def _queue(self, data: bytes) -> None:
        self._outbox.append(data)
        self._outbox_bytes += len(data)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush_scheduled)

    def _flush_scheduled(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Write what waits, unless a fault or a slow reader holds it back."""
        if self._silent or self._slow_bytes or self.paused:
            if self._outbox_bytes > self._backlog_bytes:
                self.cut()
            return
        self._write_all()

    def _write_all(self) -> None:
        transport = self._transport
        if self._outbox and transport is not None and not transport.is_disconnected:
            data = b"".join(self._outbox)
            self._outbox.clear()
            self._outbox_bytes = 0
            transport.underlying_transport.write(data)

    @property
    def writable(self) -> bool:
        """Whether more may be written now that can wait."""
        return not (self.closing or self.paused or self._silent or self._slow_bytes)

    # Ends

    def close(self, code: int, reason: str = "") -> None:
        """Send what waits and a close frame; TCP is dropped if the client does not answer."""
        transport = self._transport
        if self.closing or transport is None:
            return
        self.closing = True
        if not self._silent:
            self._write_all()
            transport.send(WSMsgType.CLOSE, struct.pack("!H", code) + reason.encode()[:123])
        self._timers.append(self._loop.call_later(CLOSE_GRACE_S, transport.disconnect, False))

    def cut(self) -> None:
        """Drop TCP without a close frame."""
        self.closing = True
        if self._transport is not None:
            self._transport.disconnect(False)

    # Faults

    def silence(self, seconds: float) -> None:
        """Send nothing for `seconds`, or without an end (0); what would be sent waits."""
        self._silent = True
        if seconds:
            self._timers.append(self._loop.call_later(seconds, self._speak))

    def _speak(self) -> None:
        self._silent = False
        self.flush()
        if not self.closing:
            self._owner.drained(self)

    def slow(self, bytes_per_second: int, seconds: float) -> None:
        """Send at most so many bytes a second, for `seconds` or without an end (0)."""
        started = not self._slow_bytes
        self._slow_bytes = bytes_per_second
        if started:
            self._trickle()
        if seconds:
            self._timers.append(self._loop.call_later(seconds, self._hurry))

    def _hurry(self) -> None:
        self._slow_bytes = 0
        self.flush()
        if not self.closing:
            self._owner.drained(self)

    def _trickle(self) -> None:
        transport = self._transport
        if not self._slow_bytes or transport is None or transport.is_disconnected:
            return
        if self._outbox and not self._silent:
            data = b"".join(self._outbox)
            amount = max(1, int(self._slow_bytes * SLOW_STEP_S))
            transport.underlying_transport.write(data[:amount])
            self._outbox = [data[amount:]] if len(data) > amount else []
            self._outbox_bytes = max(0, len(data) - amount)
        self._trickling = self._loop.call_later(SLOW_STEP_S, self._trickle)

    def corrupt(self) -> None:
        """Send a message that cannot be decompressed or decoded."""
        if not self.closing:
            self._queue(wire.corrupt(self.query.compression))
