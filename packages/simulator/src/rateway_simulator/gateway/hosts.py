"""The ports of the simulated gateway: the main one and those of resume_gateway_url, each of which can fail."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from enum import Enum

from picows import WSListener, WSUpgradeRequest, ws_create_server
from picows.common import WSUpgradeResponseWithListener

Upgrade = Callable[[int, WSUpgradeRequest], WSListener | WSUpgradeResponseWithListener | None]

MAIN = -1
BACKLOG = 4096
# A payload above Discord's 4,096 bytes has to arrive to be refused with 4002.
MOST_FRAME_BYTES = 1 << 20
# A listening socket is closed by the event loop some rounds after we ask for it.
REBIND_TRIES = 200


class Mode(Enum):
    """How a host answers dials. Open connections are not affected."""

    OPEN = "open"
    DEAD = "dead"
    REFUSING = "refusing"
    SILENT = "silent"


class _Mute(asyncio.Protocol):
    """Accepts and never says anything."""


class Host:
    """One port. `number` is MAIN or the number of a resume host."""

    def __init__(
        self, number: int, address: str, upgrade: Upgrade, ssl_context: ssl.SSLContext | None
    ) -> None:
        self.number = number
        self.address = address
        self.port = 0
        # The port in addresses, where a proxy stands in front; 0: the simulator's own.
        self.announced = 0
        self.mode = Mode.OPEN
        self.status = 503
        # No dial of this host in between, after it answered 429 with Retry-After.
        self.retry_from = 0.0
        self.retry_at = 0.0
        self._upgrade = upgrade
        self._ssl = ssl_context
        self._server: asyncio.AbstractServer | None = None
        self._placeholder: socket.socket | None = None
        self._changing = asyncio.Lock()
        self._stopped = False

    @property
    def url(self) -> str:
        """Bare, as Discord gives it."""
        return f"{'wss' if self._ssl else 'ws'}://{self.address}:{self.announced or self.port}"

    async def start(self, port: int) -> None:
        """Listen; port 0 takes a free one. Raises OSError when the port is taken."""
        await self._listen(self._bound(port))

    def _bound(self, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self.address, port))
        except OSError:
            bound.close()
            raise
        bound.setblocking(False)
        self.port = bound.getsockname()[1]
        return bound

    async def _listen(self, bound: socket.socket) -> None:
        self._server = await ws_create_server(
            lambda request: self._upgrade(self.number, request),
            sock=bound,
            backlog=BACKLOG,
            ssl=self._ssl,
            max_frame_size=MOST_FRAME_BYTES,
            read_buffer_init_size=4096,
            websocket_handshake_timeout=30,
            logger_name="simulator",
            # aiofastnet 1.2 tells a failed TLS handshake to the loop in a form that no handler can print.
            use_aiofastnet=None if self._ssl is None else False,
        )

    async def set_mode(self, mode: Mode) -> None:
        """Change the behaviour; done when it returns."""
        async with self._changing:
            if not self._stopped:
                await self._set_mode(mode)

    async def _set_mode(self, mode: Mode) -> None:
        listening = (Mode.OPEN, Mode.REFUSING)
        if not (self.mode in listening and mode in listening) and self.mode is not mode:
            bound = await self._unbind()
            if mode is Mode.DEAD:
                # Bound without listening: the port stays ours and connections are refused.
                self._placeholder = bound
            elif mode is Mode.SILENT:
                self._server = await asyncio.get_running_loop().create_server(
                    _Mute, sock=bound, backlog=BACKLOG
                )
            else:
                await self._listen(bound)
        self.mode = mode

    async def _unbind(self) -> socket.socket:
        placeholder, self._placeholder = self._placeholder, None
        if placeholder is not None:
            return placeholder
        if self._server is not None:
            self._server.close()
            self._server = None
        for _ in range(REBIND_TRIES):
            await asyncio.sleep(0)
            try:
                return self._bound(self.port)
            except OSError:
                continue
        return self._bound(self.port)

    async def stop(self) -> None:
        """Stop listening; open connections are the gateway's to close."""
        async with self._changing:
            self._stopped = True
            if self._server is not None:
                self._server.close()
                self._server = None
            if self._placeholder is not None:
                self._placeholder.close()
                self._placeholder = None
