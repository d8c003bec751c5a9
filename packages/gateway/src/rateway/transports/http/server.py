"""The HTTP server of one gateway: a table of routes, one token, and no request that another site could misuse.

Only GET and HEAD are answered, no body is read. Without a token the server stands on loopback and answers to the names
of loopback alone, so that no page of the web can reach it under a name of its own (DNS rebinding); with one, requests
that carry it are answered. Answers never repeat a request's content.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import re
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import http_exceptions, web
from rateway.secret import Secret
from rateway.transports.http.answers import Answer, Route, Stream
from rateway.transports.http.connection_limiter import ConnectionLimiter, Limits, Pace, RequestKind

__all__ = ["HttpServer", "Limits"]

log = logging.getLogger(__name__)


def _ours(record: logging.LogRecord) -> bool:
    """Keep faults of requests out of the log: any peer could fill it with them."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, http_exceptions.HttpProcessingError)


_requests = logging.getLogger(f"{__name__}.requests")
_requests.addFilter(_ours)

# Another program may hold the port for a while: the gateway before this one, for instance.
RETRY_S: Final = 5.0
STREAM_WRITE_S: Final = 10.0
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "rateway",
    "X-Content-Type-Options": "nosniff",
}
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::\d{1,5})?")


class HttpServer:
    """Serves ``routes`` (path → route) on ``address`` (host:port) until cancelled."""

    def __init__(
        self,
        address: str,
        token: Secret | None,
        routes: Mapping[str, Route | Stream],
        limits: Limits | None = None,
    ) -> None:
        self.host, self.port = _split(address)
        self.limits = limits or Limits()
        self._token = token
        self._routes = routes
        self._watchers = 0
        self._pace = Pace(self.limits.requests_per_s, self.limits.burst)
        self._server = web.Server(
            self._serve,
            access_log=None,
            handler_cancellation=True,  # who left is not waited for
            logger=_requests,
            keepalive_timeout=3600.0,  # the limiter keeps the time
            lingering_time=0.0,
            max_line_size=self.limits.line_bytes,
            max_field_size=self.limits.field_bytes,
            auto_decompress=False,
        )
        self._limiter = ConnectionLimiter(self._server, self.limits)

    @property
    def rejected(self) -> Mapping[str, int]:
        """Requests that found no slot, by kind; the mapping changes as they are counted."""
        return self._limiter.rejected

    async def run(self, on_bound: Callable[[int], None] = lambda port: None) -> None:
        """Serve until cancelled. A port that is taken is asked for again; the gateway runs on meanwhile."""
        listener = await self._listen()
        port = listener.sockets[0].getsockname()[1]
        log.info("http://%s:%d shows this gateway", self.host, port, extra={"action": "http"})
        on_bound(port)
        try:
            await asyncio.Event().wait()
        finally:
            listener.close()
            # Answers under way end with their connections; aiohttp then waits for none.
            self._limiter.close()
            await self._server.shutdown(0.5)

    async def _listen(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        said = False
        while True:
            try:
                return await loop.create_server(self._limiter, self.host.strip("[]"), self.port, backlog=128)
            except OSError as error:
                if not said:
                    log.error(
                        "HTTP_ADDRESS %s:%d cannot be listened on (%s): health, metrics and the page are "
                        "missing until it can; it is tried again every %d s",
                        self.host,
                        self.port,
                        error.strerror or "no such address",
                        RETRY_S,
                        extra={"action": "http"},
                    )
                said = True
                await asyncio.sleep(RETRY_S)

    # One request.

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = self._limiter.of(request.protocol)
        if connection is None:
            # The connection has just ended; aiohttp finds out when it writes.
            return web.Response(status=503)
        route = self._routes.get(request.path)
        kind: RequestKind = "probe" if isinstance(route, Route) and route.probe else "page"
        # A request above the rate waits without a slot, which others may need.
        pace = connection.probes if kind == "probe" else self._pace
        wait = pace.wait(asyncio.get_running_loop().time())
        if wait:
            connection.wait(self.limits.answer_s)
            await asyncio.sleep(wait)
        if not connection.begin_answer(kind, self.limits.answer_s):
            return self._no_slot()
        refusal = self._refuse(request, route)
        if refusal is None and isinstance(route, Stream):
            connection.begin_answer(kind, None)
            return await self._stream(request, route)
        if refusal is not None:
            answer = refusal
        else:
            assert isinstance(route, Route)
            answer = await route.answer(self._trusts(request))
        response = web.Response(
            status=answer.status,
            body=b"" if request.method == "HEAD" else answer.body,
            headers={**_HEADERS, **answer.headers, "Content-Type": answer.content_type},
        )
        if request.body_exists:
            response.force_close()  # its body is not read
        try:
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:
            connection.end()
        else:
            connection.end_answer()
        return response

    @staticmethod
    def _no_slot() -> web.Response:
        """Return a 503, short enough for any send buffer: its connection is free for the next request at once."""
        response = web.Response(
            status=503, text="too many are answered already\n", headers={**_HEADERS, "Retry-After": "2"}
        )
        response.force_close()
        return response

    def _refuse(self, request: web.BaseRequest, route: Route | Stream | None) -> Answer | None:
        if not self._known_host(request.headers.get("Host", "")):
            words = b"this name does not belong to the gateway: ask under its address\n"
            return Answer(words, status=421)
        site = request.headers.get("Sec-Fetch-Site", "none")
        if site == "cross-site" and request.headers.get("Sec-Fetch-Mode") != "navigate":
            return Answer(b"not for other sites\n", status=403)
        if route is None:
            return Answer(b"there is nothing here\n", status=404)
        if request.method not in ("GET", "HEAD"):
            return Answer(b"only GET\n", status=405, headers={"Allow": "GET, HEAD"})
        if self._trusts(request):
            return None
        if isinstance(route, Route) and route.open and "Authorization" not in request.headers:
            return None
        words = b"send HTTP_TOKEN as a bearer token\n"
        return Answer(words, status=401, headers={"WWW-Authenticate": 'Bearer realm="rateway"'})

    def _trusts(self, request: web.BaseRequest) -> bool:
        if self._token is None:
            return True
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        wanted = self._token.reveal().encode()
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode("utf-8", "replace"), wanted
        )

    def _known_host(self, given: str) -> bool:
        match = _HOST.fullmatch(given)
        if match is None:
            return False
        if self._token is not None:
            return True  # the token is what lets in, and no foreign page has it
        host = match[1].strip("[]").rstrip(".").lower()
        if host == "localhost":
            return True
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(host).is_loopback
        return False

    async def _stream(self, request: web.BaseRequest, route: Stream) -> web.StreamResponse:
        if self._watchers >= self.limits.watchers:
            headers = {**_HEADERS, "Retry-After": "10"}
            return web.Response(status=503, text="too many watch already\n", headers=headers)
        headers = {**_HEADERS, "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        self._watchers += 1
        try:
            async with contextlib.aclosing(route.follow()) as events:
                await response.prepare(request)
                async for event in events:
                    async with asyncio.timeout(STREAM_WRITE_S):
                        await response.write(event)
        except (ConnectionError, TimeoutError):
            response.force_close()
        finally:
            self._watchers -= 1
        connection = self._limiter.of(request.protocol)
        if connection is not None:
            connection.end()
        return response


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
