"""One WebSocket connection to a gateway host: whole messages in, bytes out, closed with the code we choose.

The doorway to picows. picows delivers frames, and its payload view lives only as long as the callback; this
module joins fragments (RFC 6455, section 5.4), bounds a message's size, and turns every way a connection can
fail to open into one :class:`DialError`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Mapping
from typing import Protocol

from picows import (
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

BINARY = WSMsgType.BINARY
TEXT = WSMsgType.TEXT
CONTINUATION = WSMsgType.CONTINUATION
CLOSE = WSMsgType.CLOSE

# picows doubles its buffer whenever a read fills it, so the kernel's receive buffer is what bounds a wake-up: without
# a bound (tcp_rmem: 6 MB) one read under load is ten thousand events, whose first is published only after the last
# (docs/performance.md, "Receiving"). A shard's usual traffic is a hundredth of what this lets through.
RECEIVE_BYTES = 64 * 1024

# picows makes an enum member of a frame's type whenever it is asked for it, which takes longer than copying the frame.
# Hence it is asked only where it is not plain: a control frame is no longer than this (RFC 6455, section 5.5), and what
# does not begin like JSON is no text of Discord's. (A long continuation of nothing is taken for data by that, and the
# stream fails a step later.)
CONTROL_BYTES = 125
JSON_BEGINS = frozenset(b'{["-0123456789tfn \t\r\n\xef')

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
    """What the owner of a connection is told. ``message`` is called for every event: it must be quick."""

    def opened(self, socket: WebSocket) -> None:
        """The connection is open; messages may follow within the same read."""

    def message(self, data: bytes, binary: bool) -> None:
        """A whole message."""

    def closed(self, code: int | None, reason: str) -> None:
        """The connection is gone; ``code`` is the peer's close code, None when TCP ended without one."""


class _Listener(WSListener):
    """picows' callbacks; one per connection, so that an old connection can never touch a new one's state."""

    def __init__(self, handler: MessageHandler, max_message_bytes: int) -> None:
        self._handler = handler
        self._message = handler.message
        self._max_message_bytes = max_message_bytes
        self._fragments: list[bytes] | None = None
        self._fragments_bytes = 0
        self._fragments_binary = False
        self._close_code: int | None = None
        self._close_reason = ""
        self.connected = False
        self.silenced = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.connected = True
        plug = transport.underlying_transport.get_extra_info("socket")
        if plug is not None:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._handler.opened(WebSocket(transport, self))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self.silenced:
            return
        if frame.payload_size > CONTROL_BYTES and frame.fin and self._fragments is None:
            # A whole message. A copy of some hundred bytes costs half of what a view of them does.
            data = frame.get_payload_as_bytes()
            if data[0] not in JSON_BEGINS or frame.msg_type is BINARY:
                self._message(data, True)
                return
        kind = frame.msg_type
        if kind is BINARY and frame.fin:
            self._message(frame.get_payload_as_bytes(), True)
        else:
            self._rare(transport, frame, kind)

    def _rare(self, transport: WSTransport, frame: WSFrame, kind: WSMsgType) -> None:
        if kind is CLOSE:
            payload = frame.get_payload_as_bytes()
            self._close_code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else NO_STATUS
            self._close_reason = payload[2:].decode("utf-8", "replace")
            if not transport.is_close_frame_sent:
                transport.send(CLOSE, payload[:2])
            transport.disconnect()
        elif kind is CONTINUATION:
            self._continue(transport, frame)
        elif kind is BINARY or kind is TEXT:
            if frame.fin:
                self._message(frame.get_payload_as_bytes(), kind is BINARY)
            else:
                self._fragments = [frame.get_payload_as_bytes()]
                self._fragments_bytes = frame.payload_size
                self._fragments_binary = kind is BINARY

    def _continue(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._fragments is None:
            self._refuse(transport, 1002, "a continuation frame without a beginning")
            return
        self._fragments.append(frame.get_payload_as_bytes())
        self._fragments_bytes += frame.payload_size
        if self._fragments_bytes > self._max_message_bytes:
            self._refuse(transport, 1009, f"a message of more than {self._max_message_bytes} bytes")
        elif frame.fin:
            whole = b"".join(self._fragments)
            self._fragments = None
            self._message(whole, self._fragments_binary)

    def _refuse(self, transport: WSTransport, code: int, reason: str) -> None:
        # Our own verdict on the peer's frames. The wire carries a private code: 1002 and 1009 are not known to
        # keep a session (Discord documents only what 1000 and 1001 do), 4900 is in the range that does.
        self._close_reason = f"{reason} (would be {code})"
        transport.send(CLOSE, struct.pack(">H", 4900))
        transport.disconnect(graceful=False)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if not self.silenced:
            self.silenced = True
            self._handler.closed(self._close_code, self._close_reason)


class WebSocket:
    """An open connection. All methods are for the loop's own thread and never wait."""

    def __init__(self, transport: WSTransport, listener: _Listener) -> None:
        self._transport = transport
        self._listener = listener
        self._reading = True

    def send(self, data: bytes) -> None:
        """Send one text message (Discord takes JSON uncompressed). Nothing happens on a connection that is gone."""
        if not self._transport.is_disconnected:
            self._transport.send(TEXT, data)

    def pause_reading(self) -> None:
        """Stop reading from the socket; the kernel's buffer fills and the peer waits."""
        if self._reading and not self._transport.is_disconnected:
            self._reading = False
            self._transport.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading and not self._transport.is_disconnected:
            self._reading = True
            self._transport.underlying_transport.resume_reading()

    def close(self, code: int) -> None:
        """Close with this code; the handler hears nothing more, not even ``closed``. TCP is dropped after 2 s."""
        self._listener.silenced = True
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
    listener = _Listener(handler, max_message_bytes)
    try:
        async with asyncio.timeout(timeout):
            await ws_connect(
                lambda: listener,
                url,
                ssl_context=ssl_context,
                websocket_handshake_timeout=timeout,
                enable_auto_pong=True,
                max_frame_size=max_message_bytes,
                max_redirects=0,
                extra_headers=dict(headers),
            )
    except TimeoutError:
        raise DialError(f"no WebSocket upgrade within {timeout:g} s", silent=True) from None
    except WSHandshakeError as error:
        status, retry_after = None, None
        if error.response is not None:
            status = int(error.response.status)
            retry_after = _seconds(error.response.headers.get("Retry-After"))
        reason = f"the upgrade was answered with HTTP {status}" if status else f"the upgrade failed: {error}"
        raise DialError(reason, status, retry_after) from None
    except ssl.SSLCertVerificationError as error:
        # The words that OpenSSL has for it come last: "self-signed certificate", "certificate has expired" …
        raise DialError(f"the host's certificate is not trusted: {str(error).rpartition(': ')[2]}") from None
    except (WSError, OSError, ssl.SSLError) as error:
        raise DialError(f"{type(error).__name__}: {error}") from None
    if not listener.connected:
        # picows returns all the same when TCP ends first.
        raise DialError("the host closed the connection before it answered the upgrade")


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; the HTTP-date form is not used by Discord and counts as absent."""
    try:
        return max(0.0, float(text)) if text is not None else None
    except ValueError:
        return None
