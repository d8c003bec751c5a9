"""The proxy's socket: HTTP requests, and the WebSockets of bots, within limits.

Who connects has to send a request's head in time and a bot to identify in time; connections are bounded, and so is
what waits for a bot that does not read. aiohttp reads HTTP and the handshake; from then on the frames are the proxy's
own (``wire``).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import re
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from aiohttp import hdrs, http_exceptions, web
from rateway.proxy.http import wire
from rateway.proxy.http.wire import Compression

__all__ = ["BotSocket", "Conversation", "Limits", "ProxyServer", "Upgrade"]

log = logging.getLogger(__name__)
_requests = logging.getLogger(f"{__name__}.requests")

# Seconds until a heartbeat is acknowledged. discord.py and those made from it note the time of a heartbeat in a thread
# that wakes once it is sent: an answer from the same machine is read before that in every second case, counted from
# the heartbeat before, and logged as "Can't keep up, websocket is 41.3s behind". Discord is never nearer than this.
ACKNOWLEDGE_S: Final = 0.05
# RFC 6455, section 1.3.
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Discord's own default is a version that no library speaks any more.
DEFAULT_VERSION: Final = "10"
# "Gateway Close Event Codes". The reason says what it is about; libraries stop at 4012 and log it.
INVALID_VERSION: Final = 4012
NOT_AUTHENTICATED: Final = 4003
# Connections that wait to be taken; all bots of a proxy that has died may come at once.
BACKLOG: Final = 1024
# Another program may hold the port for a while.
RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the server; seconds and bytes."""

    connections: int = 4096
    """Gateway connections of bots, and as many of other requests."""
    unidentified: int = 256
    """Gateway connections that have neither identified nor resumed; the oldest makes room."""
    head_s: float = 10.0
    """From a connection's first moment to the head of its first request, the handshake of TLS included."""
    idle_s: float = 75.0
    """Between two requests of a connection."""
    identify_s: float = 30.0
    """From the handshake to IDENTIFY or RESUME."""
    unread_s: float = 60.0
    """A peer that takes nothing of what is written for so long is gone."""
    close_s: float = 3.0
    """From a close frame to the bot's own."""
    full_bytes: int = 1 << 20
    """What waits for a bot beyond this asks for a pause (:attr:`BotSocket.is_full`)."""
    unread_bytes: int = 32 << 20
    """What waits for a bot beyond this ends its connection: it can resume."""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The form of connection that a bot's handshake asked for."""

    version: int
    """Of the API; 0 for what is no number."""
    compression: Compression
    url: str
    """The address at which the bot resumes."""


class Conversation(Protocol):
    """The gateway protocol of a bot's connection, over its :class:`BotSocket`."""

    def on_message(self, payload: bytes) -> None:
        """Take a payload of at most 4,096 bytes from the bot."""

    def on_closed(self, code: int | None) -> None:
        """End with the connection; *code* is of the bot's close frame, None without one. No call follows."""

    def on_writable(self) -> None:
        """Go on with what waited: the socket was full and has room again."""


class BotSocket:
    """One bot's WebSocket: payloads out, one write for all of a wake-up; closed by either side."""

    def __init__(self, server: ProxyServer, transport: asyncio.Transport, upgrade: Upgrade) -> None:
        self.identified = False
        """Whether the bot has shown who it is: until then it may be closed to make room, or for its silence."""
        self._server = server
        self._limits = server.limits
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._frames = wire.frames(upgrade.compression)
        self._is_compressed = upgrade.compression != "none"
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._conversation: Conversation | None = None
        self._code: int | None = None
        self._closing = False
        self._lost = False
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(
            self._limits.identify_s, self._judge_silence
        )
        self.ended: asyncio.Future[None] = self._loop.create_future()

    # Out.

    def compress_payloads(self) -> None:
        """Send large payloads compressed, as ``compress: true`` of IDENTIFY asks for; void with a compressed stream."""
        if not self._is_compressed:
            self._frames = wire.Payloads()

    def send(self, payload: bytes) -> None:
        """Send one payload with the others of this wake-up. Nothing happens once the connection is closing."""
        if self._closing:
            return
        frame = self._frames.frame(payload)
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(frame)
        self._pending_bytes += len(frame)

    def acknowledge(self, payload: bytes) -> None:
        """Send the answer to a heartbeat in a moment."""
        self._loop.call_later(ACKNOWLEDGE_S, self.send, payload)

    @property
    def waiting(self) -> int:
        """Bytes that were sent and that the bot's socket has not taken yet."""
        return self._pending_bytes + (0 if self._lost else self._transport.get_write_buffer_size())

    @property
    def is_full(self) -> bool:
        """Whether what can wait should; ``on_writable`` is called when there is room again."""
        return self.waiting > self._limits.full_bytes

    def _flush(self) -> None:
        if not self._pending:
            return
        if self.is_full:
            # The socket may take it all at once: then the transport neither pauses nor tells that there is room again.
            self._loop.call_soon(self._look_for_room)
        data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        if self._lost:
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > self._limits.unread_bytes:
            self._server.turned_away["slow"] += 1
            self.abort()

    def close(self, code: int, reason: str = "") -> None:
        """Send what waits and a close frame; the bot has some seconds for its own."""
        if self._closing:
            return
        self._flush()
        self._closing = True
        if not self._lost:
            self._transport.write(wire.close_frame(code, reason))
            self._clock(self._limits.close_s, self.abort)

    def abort(self) -> None:
        """End the connection at once."""
        self._closing = True
        self._transport.abort()

    # In.

    def begin(self, conversation: Conversation) -> None:
        """Hand what comes to *conversation*."""
        self._conversation = conversation

    def on_payload(self, payload: bytes) -> None:
        if self._conversation is not None and not self._closing:
            self._conversation.on_message(payload)

    def on_ping(self, data: bytes) -> None:
        if not self._lost and not self.is_full:
            self._transport.write(wire.pong_frame(data))

    def on_close(self, code: int | None) -> None:
        self._code = code
        if self._closing:
            self._transport.close()
            return
        self._flush()
        self._closing = True
        self._transport.write(wire.close_frame(code if code is not None and 1000 <= code < 5000 else 1000))
        self._transport.close()
        self._clock(self._limits.close_s, self.abort)

    def on_fault(self, code: int, reason: str) -> None:
        self._server.turned_away["fault"] += 1
        self.close(code, reason)

    # What the transport tells.

    def on_lost(self) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._clock(None)
        if self._conversation is not None:
            self._conversation.on_closed(self._code)
            self._conversation = None
        if not self.ended.done():
            self.ended.set_result(None)

    def on_drained(self) -> None:
        if self._conversation is not None and not self._closing:
            self._conversation.on_writable()

    def _look_for_room(self) -> None:
        # All is written by then: a transport that still has too much tells by itself, and a later flush looks again.
        if not self._lost and not self.is_full:
            self.on_drained()

    # Time.

    def _judge_silence(self) -> None:
        self._timer = None
        if not self.identified:
            self._server.turned_away["silent"] += 1
            self.close(NOT_AUTHENTICATED, "no IDENTIFY and no RESUME came in time")

    def _clock(self, seconds: float | None, then: Callable[[], None] = lambda: None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, then)


class _Peer(asyncio.Protocol):
    """One connection, between the socket and aiohttp's protocol: keeps the time, knows what is not read."""

    def __init__(self, server: ProxyServer) -> None:
        self.socket: BotSocket | None = None
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's by descent.
        self._transport = cast(asyncio.Transport, transport)
        inner = self._server.admit(self)
        if inner is None:
            self._transport.abort()
            return
        self._inner = inner
        self.wait(self._server.limits.head_s)
        inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        if self._unread is None:
            self._unread = self._loop.call_later(self._server.limits.unread_s, self._abandon)
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._read()
        if self._inner is not None:
            self._inner.resume_writing()
        if self.socket is not None:
            self.socket.on_drained()

    def connection_lost(self, exc: Exception | None) -> None:
        self.wait(None)
        self._read()
        if self.socket is not None:
            self.socket.on_lost()
        if self._inner is not None:
            self._server.forget(self._inner)
            self._inner.connection_lost(exc)

    def take_over(self, upgrade: Upgrade) -> BotSocket:
        """Return the WebSocket that this connection is from now on."""
        assert self._transport is not None
        full = self._server.limits.full_bytes
        self._transport.set_write_buffer_limits(high=full, low=full // 4)
        self.socket = BotSocket(self._server, self._transport, upgrade)
        return self.socket

    def wait(self, seconds: float | None) -> None:
        """Allow so many seconds until the next request's head; None: a request is being answered."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, self.leave)

    def leave(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _abandon(self) -> None:
        self._unread = None
        self._server.turned_away["unread"] += 1
        self.leave()

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


class ProxyServer:
    """Serve bots on ``host:port`` until cancelled."""

    def __init__(
        self,
        address: str,
        tls: ssl.SSLContext | None,
        rest: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        connect: Callable[[BotSocket, Upgrade], Conversation],
        gateway_url: Callable[[web.BaseRequest], str | None],
        limits: Limits | None = None,
        stranger: Callable[[], Awaitable[str]] | None = None,
        held: socket.socket | None = None,
    ) -> None:
        """*rest* answers a request that is no WebSocket, *connect* begins the conversation with a bot, *gateway_url*
        returns the gateway's address for the bot of a request, *stranger* returns what listens at the address
        already and may not share it with this proxy; empty where nothing does. *held* is listened with: another
        process holds it too, and what a proxy before this one had bound stays so."""
        host, _, port = address.rpartition(":")
        self.host, self.port = host, int(port)
        self.limits = limits or Limits()
        self.turned_away: Counter[str] = Counter()
        """Connections refused or ended, by why: ``full``, ``silent``, ``unread``, ``slow``, ``fault``, ``refused``."""
        self._tls = tls
        self._rest = rest
        self._connect = connect
        self._gateway_url = gateway_url
        self._stranger = stranger
        self._held = held
        self._peers: dict[asyncio.BaseProtocol, _Peer] = {}
        self._sockets: dict[BotSocket, None] = {}
        self._is_open = True
        self._listener: asyncio.Server | None = None
        self._server = web.Server(
            self._serve,
            access_log=None,
            handler_cancellation=True,  # who left is not waited for
            logger=_requests,
            keepalive_timeout=3600.0,  # the peers keep the time
            lingering_time=5.0,
            auto_decompress=False,
        )

    @property
    def connections(self) -> int:
        """Gateway connections of bots that are held now."""
        return len(self._sockets)

    async def run(self, on_bound: Callable[[int], None] = lambda port: None) -> None:
        """Serve until cancelled. A port that is taken is asked for again and again."""
        listener = self._listener = await self._listen()
        port = listener.sockets[0].getsockname()[1]
        log.info(
            "bots connect to %s://%s:%d",
            "wss" if self._tls is not None else "ws",
            self.host,
            port,
            extra={"action": "proxy"},
        )
        on_bound(port)
        try:
            await asyncio.Event().wait()
        finally:
            self.turn_away()
            for peer in list(self._peers.values()):
                peer.leave()
            await self._server.shutdown(0.5)

    def turn_away(self) -> None:
        """Take no more connections; those that are there go on."""
        self._is_open = False
        if self._listener is not None:
            self._listener.close()

    async def _listen(self) -> asyncio.Server:
        loop, said = asyncio.get_running_loop(), False
        host, port = self.host.strip("[]"), self.port
        timeouts: dict[str, Any] = {}
        if self._tls is not None:
            timeouts = {
                "ssl_handshake_timeout": self.limits.head_s,
                "ssl_shutdown_timeout": self.limits.close_s,
            }
        while True:
            is_bound = self._held is not None and self._held.getsockname()[1] != 0
            why = await self._stranger() if self._stranger is not None and not is_bound else ""
            if not why:
                try:
                    if self._held is not None:
                        if not is_bound:
                            self._held.bind((host, port))
                        return await loop.create_server(
                            lambda: _Peer(self), sock=self._held, ssl=self._tls, backlog=BACKLOG, **timeouts
                        )
                    # Several proxies of one user may share an address: the system gives each new connection to one of
                    # them, and a bot whose proxy dies or is replaced is never refused.
                    return await loop.create_server(
                        lambda: _Peer(self),
                        host,
                        port,
                        ssl=self._tls,
                        backlog=BACKLOG,
                        reuse_port=True,
                        **timeouts,
                    )
                except OSError as error:
                    why = error.strerror or "no such address"
            if not said:
                log.error(
                    "PROXY_ADDRESS %s:%d cannot be listened on (%s); it is tried again every second",
                    self.host,
                    self.port,
                    why,
                    extra={"action": "proxy"},
                )
            said = True
            await asyncio.sleep(RETRY_S)

    # Connections.

    def admit(self, peer: _Peer) -> asyncio.Protocol | None:
        """Return aiohttp's protocol for a new connection, None when there is no room."""
        if not self._is_open or len(self._peers) >= 2 * self.limits.connections:
            self.turned_away["full"] += 1
            return None
        inner: asyncio.Protocol = self._server()
        self._peers[inner] = peer
        return inner

    def forget(self, inner: asyncio.BaseProtocol) -> None:
        """Forget a connection that has ended."""
        self._peers.pop(inner, None)

    def _makes_room(self) -> bool:
        """Return whether one more bot may connect; the oldest that has not identified makes room for it."""
        waiting = [socket for socket in self._sockets if not socket.identified]
        if len(waiting) >= self.limits.unidentified:
            self.turned_away["silent"] += 1
            waiting[0].abort()
        return self._is_open and len(self._sockets) < self.limits.connections

    # One request.

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        peer = self._peers.get(request.protocol)
        if peer is None:
            # The connection has just ended; aiohttp finds out when it writes.
            return web.Response(status=503)
        peer.wait(None)
        try:
            if request.headers.get(hdrs.UPGRADE, "").strip().lower() == "websocket":
                return await self._open(request, peer)
            return await self._rest(request)
        finally:
            if request.protocol in self._peers:
                # A timer of one that has ended would keep its memory, a bot's compression included.
                peer.wait(self.limits.idle_s)

    async def _open(self, request: web.BaseRequest, peer: _Peer) -> web.StreamResponse:
        accept = _accept(request.headers)
        if request.method != hdrs.METH_GET or accept is None or request.version < (1, 1):
            self.turned_away["refused"] += 1
            return web.Response(status=400, text="this is no handshake of a WebSocket (RFC 6455)\n")
        if not self._makes_room():
            self.turned_away["full"] += 1
            return web.Response(
                status=503,
                text="too many bots are connected (PROXY_CONNECTIONS)\n",
                headers={hdrs.RETRY_AFTER: "5"},
            )
        url = self._gateway_url(request)
        if url is None:
            self.turned_away["refused"] += 1
            return web.Response(status=400, text="the Host header is not the name of a host\n")
        upgrade, refusal = _read_query(request.query, url)
        response = web.StreamResponse(
            status=101,
            headers={
                hdrs.UPGRADE: "websocket",
                hdrs.CONNECTION: "upgrade",
                hdrs.SEC_WEBSOCKET_ACCEPT: accept,
            },
        )
        response.force_close()
        await response.prepare(request)
        socket = peer.take_over(upgrade)
        self._sockets[socket] = None
        try:
            if refusal:
                self.turned_away["refused"] += 1
                socket.close(INVALID_VERSION, refusal)
            else:
                socket.begin(self._connect(socket, upgrade))
            # What aiohttp has read beyond the handshake comes first.
            request.protocol.set_parser(cast(Any, wire.FrameReader(socket)))
            await socket.ended
        finally:
            self._sockets.pop(socket, None)
            socket.abort()
            socket.on_lost()
        return response


def _accept(headers: Mapping[str, str]) -> str | None:
    """Return the answer to the handshake's key; None when it is no handshake."""
    if headers.get(hdrs.SEC_WEBSOCKET_VERSION, "").strip() != "13":
        return None
    key = headers.get(hdrs.SEC_WEBSOCKET_KEY, "").strip()
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            return None
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def _read_query(query: Mapping[str, str], url: str) -> tuple[Upgrade, str]:
    """Return what the handshake asks for, and why it cannot be had, in at most 123 bytes; empty where it can."""
    version, compression = query.get("v", DEFAULT_VERSION), query.get("compress", "").lower()
    refusal = ""
    if query.get("encoding", "json").lower() != "json":
        refusal = "this proxy speaks encoding=json only, no etf: set the library to json"
    elif compression not in ("", "zlib-stream", "zstd-stream"):
        refusal = "this proxy knows compress=zlib-stream and zstd-stream only"
    number = int(version) if re.fullmatch("[0-9]{1,4}", version) else 0
    spoken = "none" if refusal else compression or "none"
    return Upgrade(number, cast(Compression, spoken), url), refusal


def _is_ours(record: logging.LogRecord) -> bool:
    """Leave out what is wrong with a client's request: any client could fill the log with it."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, http_exceptions.HttpProcessingError)


_requests.addFilter(_is_ours)
