"""One WebSocket connection to a gateway host: whole messages in, bytes out, closed with a chosen code.

The only module that imports picows, which delivers frames; its payload view lives only as long as the callback. This
module joins fragments (RFC 6455, section 5.4), bounds what a peer can make it keep, and turns every way a connection
can fail to open into one :class:`DialError`. What breaks a bound or the protocol ends the connection with a code that
keeps the session; nothing that a peer sends raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
from collections.abc import Mapping
from typing import Any, Protocol

from picows import (
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)
from rateway.native.frames import MessageReader
from rateway.transports.retry_after import read_retry_after

BINARY = WSMsgType.BINARY
TEXT = WSMsgType.TEXT
CONTINUATION = WSMsgType.CONTINUATION
CLOSE = WSMsgType.CLOSE
PING = WSMsgType.PING

# picows doubles its buffer whenever a read fills it, so the kernel's receive buffer is what bounds a wake-up: without
# a bound (tcp_rmem: 6 MB) one read under load is ten thousand events, whose first is published only after the last
# (docs/decisions/receiving.md). A shard's usual traffic is a hundredth of what this lets through.
RECEIVE_BYTES = 64 * 1024

# The largest message on the wire, in one frame or many. A message of Discord's takes some megabytes at most (17 MB are
# known, unpacked); a frame is kept whole in a buffer that doubles, so its length is judged by its header.
MOST_WIRE_BYTES = 64 * 1024 * 1024
# Continuations without a byte, in one message: no server needs one.
MOST_EMPTY_FRAMES = 100
# Written and not taken by the peer, beyond what the kernel holds. A minute's commands and heartbeats are half of it: a
# peer that does not read them is as good as gone, and the answers to its pings are not kept for it.
MOST_UNREAD_BYTES = 1024 * 1024
# Ours, in the range that keeps the session (Discord documents what 1000 and 1001 do; 1002 and 1009 are not known).
REFUSED = 4900

# A peer that does not answer our close frame keeps the connection (Discord: no promise); then TCP is dropped.
CLOSE_GRACE_S = 2.0

# RFC 6455, 7.4.1: reserved, never on the wire.
NO_STATUS = 1005


class DialError(Exception):
    """A connection could not be opened.

    ``status`` is the HTTP status when the host answered the upgrade with anything but 101; ``retry_after`` its
    Retry-After header in seconds. ``silent``: nothing was answered in the time there was.
    """

    def __init__(
        self,
        reason: str,
        status: int | None = None,
        retry_after: float | None = None,
        *,
        silent: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.retry_after = retry_after
        self.silent = silent


class MessageHandler(Protocol):
    """The owner of a connection. ``message`` is called for every event: it must be quick."""

    def opened(self, socket: WebSocket) -> None:
        """The connection is open; messages may follow within the same read."""

    def message(self, data: bytes, binary: bool) -> None:
        """A whole message."""

    def closed(self, code: int | None, reason: str) -> None:
        """The connection is gone; ``code`` is the peer's close code, None when TCP ended without one, or when we have
        refused what came (:attr:`WebSocket.refusal`)."""

    def failed(self, error: Exception) -> None:
        """``opened``, ``message`` or ``closed`` has raised. The connection is kept."""


class _Listener(WSListener):
    """picows' callbacks; one per connection, so that an old connection can never touch a new one's state."""

    def __init__(self, handler: MessageHandler, max_message_bytes: int) -> None:
        self._handler = handler
        self._message = handler.message
        self._reader = MessageReader(handler.message, handler.failed, self._take)
        # picows looks it up with every frame, and calls what it finds: compiled, without a frame of Python's.
        self.on_ws_frame = self._reader.read  # type: ignore[method-assign]
        self._max_message_bytes = max_message_bytes
        self._fragments: bytearray | None = None
        self._fragments_binary = False
        self._empty_fragments = 0
        self._close_code: int | None = None
        self._close_reason = ""
        self._transport: WSTransport | None = None
        self._told = False
        self._ending: asyncio.Task[None] | None = None
        self.connected = False
        self.silenced = False
        # What the peer sent that could not be taken.
        self.refusal = ""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.connected = True
        self._transport = transport
        plug = transport.underlying_transport.get_extra_info("socket")
        if plug is not None:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        try:
            self._handler.opened(WebSocket(transport, self))
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends here
            self._handler.failed(error)

    def _take(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame that is no usual message."""
        if self.silenced:
            return
        try:
            self._take_by_kind(transport, frame, frame.msg_type)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends here
            self._handler.failed(error)

    def _take_by_kind(self, transport: WSTransport, frame: WSFrame, kind: WSMsgType) -> None:
        if kind is CLOSE:
            payload = frame.get_payload_as_bytes()
            self._close_code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else NO_STATUS
            self._close_reason = payload[2:].decode("utf-8", "replace")
            if not transport.is_close_frame_sent:
                transport.send(CLOSE, payload[:2])
            # Nothing after it counts (RFC 6455, section 5.5.1), so it is no reason to refuse what came before.
            self._stop_reading()
            transport.disconnect()
        elif kind is CONTINUATION:
            self._continue(transport, frame)
        elif kind is PING:
            if self.unread() > MOST_UNREAD_BYTES:
                self.give_up(transport)
            else:
                transport.send_pong(frame.get_payload_as_bytes())
        elif kind is BINARY or kind is TEXT:
            if self._fragments is not None:
                self.refuse("a message within another")
            elif frame.fin:
                self._message(frame.get_payload_as_bytes(), kind is BINARY)
            else:
                self._fragments = bytearray(frame.get_payload_as_bytes())
                self._fragments_binary = kind is BINARY
                self._empty_fragments = 0
                self._reader.open = False

    def _continue(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._fragments is None:
            self.refuse("a continuation frame without a beginning")
            return
        self._empty_fragments += frame.payload_size == 0
        if len(self._fragments) + frame.payload_size > self._max_message_bytes:
            self.refuse(f"a message of more than {self._max_message_bytes} bytes")
        elif self._empty_fragments > MOST_EMPTY_FRAMES:
            self.refuse(f"more than {MOST_EMPTY_FRAMES} empty frames in a message")
        else:
            self._fragments += frame.get_payload_as_bytes()
            if frame.fin:
                whole = bytes(self._fragments)
                self._fragments = None
                self._reader.open = True
                self._message(whole, self._fragments_binary)

    def refuse(self, reason: str) -> None:
        """End the connection, in a way that keeps the session: what the peer sent cannot be read."""
        if self._transport is not None and not self.silenced:
            self.refusal = reason
            self._end(self._transport, reason)
            self._ending = asyncio.get_running_loop().create_task(_ended(self._transport))

    def give_up(self, transport: WSTransport) -> None:
        """End the connection, because the peer does not read. What it sent is not refused."""
        if not self.silenced:
            self._end(transport, "the host does not read what it is sent")

    def silence(self) -> None:
        """Call the handler no more."""
        self._told = True
        self._stop_reading()

    def _end(self, transport: WSTransport, reason: str) -> None:
        self._close_reason = reason
        self._fragments = None
        self._stop_reading()
        transport.send_close(REFUSED)  # type: ignore[arg-type]  # any number will do
        transport.disconnect(graceful=False)

    def _stop_reading(self) -> None:
        """Take no more frames; picows may still have some of this read."""
        self.silenced = True
        self._reader.open = False

    def unread(self) -> int:
        """Bytes that were written and not taken by the peer, the kernel's buffer aside."""
        if self._transport is None:
            return 0
        waiting: int = self._transport.underlying_transport.get_write_buffer_size()
        return waiting

    def pause_writing(self) -> None:
        """The event loop's: judged where something is written."""

    def resume_writing(self) -> None:
        """The same."""

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._told:
            return
        self._told = True
        self._stop_reading()
        try:
            self._handler.closed(self._close_code, self._close_reason)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends here
            self._handler.failed(error)


async def _ended(transport: WSTransport) -> None:
    """Retrieve the exception of picows's own for this connection: asyncio would log it as a traceback."""
    with contextlib.suppress(Exception):
        await transport.wait_disconnected()


class _ProtocolFaults(logging.LoggerAdapter[logging.Logger]):
    """Receives what picows logs when a frame breaks the protocol, which it reports nowhere else: it closes with a code
    of its own, and goes on reading for a while.
    """

    def __init__(self, listener: _Listener) -> None:
        super().__init__(logging.getLogger("picows.client"), {})
        self._listener = listener

    def error(self, msg: object, *args: Any, **how: Any) -> None:
        """Refuse the frame that picows reports."""
        reason = args[0][1] if args and isinstance(args[0], tuple) and len(args[0]) > 1 else str(msg)
        if str(reason).startswith("Received CLOSE"):
            # It ends the connection in any case, and nothing after it is missed.
            return
        self._listener.refuse(str(reason))

    def exception(self, msg: object, *args: Any, **how: Any) -> None:
        """The parser failed."""
        self._listener.refuse(str(msg))


class WebSocket:
    """An open connection. All methods are for the loop's own thread and never wait."""

    def __init__(self, transport: WSTransport, listener: _Listener) -> None:
        self._transport = transport
        self._listener = listener
        self._is_paused = False
        self._is_waiting = False

    def send(self, data: bytes) -> None:
        """Send one text message (Discord takes JSON uncompressed). Nothing happens on a connection that is gone."""
        if self._transport.is_disconnected or self._listener.silenced:
            return
        if self._listener.unread() > MOST_UNREAD_BYTES:
            self._listener.give_up(self._transport)
        else:
            self._transport.send(TEXT, data)

    @property
    def refusal(self) -> str:
        """The reason that the peer's data could not be read, if that ended the connection."""
        return self._listener.refusal

    @property
    def is_reading(self) -> bool:
        """Whether nothing keeps it from being read."""
        return not self._is_paused and not self._is_waiting

    @property
    def unused_buffer(self) -> memoryview:
        """The part of the read buffer that holds nothing until the next read. picows doubles the buffer whenever a read
        fills it and never makes it smaller, so after a flood most of it is this.
        """
        if self._transport.is_disconnected:
            return memoryview(b"")
        protocol: Any = self._transport.underlying_transport.get_protocol()
        unused: memoryview = protocol.get_buffer(-1)
        return unused

    def pause_reading(self) -> None:
        """Stop reading from the socket; the kernel's buffer fills and the peer waits."""
        self._is_paused = True
        self._read_or_not()

    def resume_reading(self) -> None:
        """End what :meth:`pause_reading` began."""
        self._is_paused = False
        self._read_or_not()

    def wait(self) -> None:
        """Do not read until :meth:`read_on`, whatever else pauses and resumes reading."""
        self._is_waiting = True
        self._read_or_not()

    def read_on(self) -> None:
        """End what :meth:`wait` began."""
        self._is_waiting = False
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self._transport.is_disconnected:
            return
        if self.is_reading:
            self._transport.underlying_transport.resume_reading()
        else:
            self._transport.underlying_transport.pause_reading()

    def close(self, code: int) -> None:
        """Close with this code; the handler is not called any more, not even ``closed``. TCP is dropped after 2 s."""
        self._listener.silence()
        if self._transport.is_disconnected:
            return
        if not self._transport.is_close_frame_sent:
            self._transport.send(CLOSE, struct.pack(">H", code))
        self._transport.disconnect()
        asyncio.get_running_loop().call_later(CLOSE_GRACE_S, self._transport.disconnect, False)


async def dial(
    url: str,
    handler: MessageHandler,
    *,
    timeout: float,
    max_message_bytes: int,
    headers: Mapping[str, str],
    ssl_context: ssl.SSLContext | None = None,
) -> None:
    """Open ``url`` (ws:// or wss://) within ``timeout`` seconds; raises DialError and nothing else.

    ``handler.opened`` has been called when this returns, before the first message: Hello often comes in the same
    read as the answer to the upgrade.

    permessage-deflate is not offered: Discord compresses by itself (Discord documentation, "Gateway":
    "Encoding and Compression").
    """
    most = min(max_message_bytes, MOST_WIRE_BYTES)
    listener = _Listener(handler, most)
    try:
        async with asyncio.timeout(timeout):
            await ws_connect(
                lambda: listener,
                url,
                ssl_context=ssl_context,
                websocket_handshake_timeout=timeout,
                logger_name=_ProtocolFaults(listener),
                enable_auto_pong=False,
                max_frame_size=most,
                max_redirects=0,
                extra_headers=dict(headers),
            )
    except TimeoutError:
        raise DialError(f"no WebSocket upgrade within {timeout:g} s", silent=True) from None
    except WSHandshakeError as error:
        status, retry_after = None, None
        if error.response is not None:
            status = int(error.response.status)
            retry_after = read_retry_after(error.response.headers.get("Retry-After"))
        reason = f"the upgrade was answered with HTTP {status}" if status else f"the upgrade failed: {error}"
        raise DialError(reason, status, retry_after) from None
    except ssl.SSLCertVerificationError as error:
        # The words that OpenSSL has for it come last: "self-signed certificate", "certificate has expired" …
        raise DialError(f"the host's certificate is not trusted: {str(error).rpartition(': ')[2]}") from None
    except (WSError, OSError, ssl.SSLError, ValueError) as error:
        # ValueError: an address that Python or picows cannot make a connection of, a host's name that is too long say.
        raise DialError(f"{type(error).__name__}: {error}") from None
    if not listener.connected:
        # picows returns all the same when TCP ends first.
        raise DialError("the host closed the connection before it answered the upgrade")
