"""REST for bots: the gateway's address is answered here, every other request is passed on to Discord.

Bodies are streamed both ways as they are, never decompressed; end-to-end headers are kept, but for ``Host`` and the
token. A request with another token is answered with 401 here: invalid requests lead to a ban of the address at
Discord (*Topics: Rate Limits*, "Invalid Request Limit").
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

import aiohttp
import msgspec
from aiohttp import hdrs, web
from rateway.proxy.http.tokens import Tokens
from rateway.transports.rest import USER_AGENT
from rateway.transports.tls import client_context
from yarl import URL

__all__ = ["RequestBody", "RestProxy", "host_of"]

log = logging.getLogger(__name__)

# To reach Discord, and between two parts of an answer. Discord's slowest routes take some seconds.
CONNECT_S: Final = 10.0
SILENCE_S: Final = 90.0
# A body may pause for so long in all, and each part of it gives as much back as it takes at the slowest pace.
BODY_S: Final = 30.0
SLOWEST_BYTES_PER_S: Final = 4096
# Discord closes an idle connection later than that: a request never meets one that is just being closed.
KEEP_ALIVE_S: Final = 15.0
# While requests fail, one line in so many seconds says how many.
SAY_EVERY_S: Final = 60.0
# RFC 9110, section 7.6.1: these speak of one connection, not of the message.
HOP_BY_HOP: Final = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
# Host and token are set here. Expect is answered here: Discord is sent the body as it comes.
NOT_PASSED_ON: Final = frozenset({"authorization", "expect", "host"})
# Requests that carry their own token in the path, and none in a header: Webhook Resource, Interactions.
OWN_TOKEN: Final = re.compile(
    r"(?:/api)?(?:/v\d{1,3})?/(?:webhooks/\d+/[^/]+|interactions/\d+/[^/]+/callback)(?:/.*)?"
)
_GATEWAY: Final = re.compile(r"(?:/api)?(?:/v\d{1,3})?/+gateway(/bot)?/?")
_VERSION: Final = re.compile(r"/v\d{1,3}(?:/|$)")
# The path and the query of an address in an error's text.
_PATH: Final = re.compile(r"(https?://[^/\s]+)/\S*")
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::\d{1,5})?")
# A bot may use more shards than it is recommended; there is no reason to let any of them wait.
LEAST_CONCURRENCY: Final = 16
# The identifies that a bot has left, as it reads them: libraries refuse to start with fewer than shards.
LEAST_STARTS: Final = 1000
DAY_MS: Final = 86_400_000
# READY's own part, asked for where the gateway has not stored it yet.
_QUESTION: Final = aiohttp.ClientTimeout(total=10.0)
_encode = msgspec.json.encode


class _Application(msgspec.Struct):
    id: str
    flags: int = 0


def host_of(request: web.BaseRequest) -> str | None:
    """Return the ``Host`` that *request* was sent to; None when it is none."""
    given = request.headers.get(hdrs.HOST, "")
    return given if _HOST.fullmatch(given) else None


class RestProxy:
    """Answer the requests of bots. ``async with`` holds the connections to Discord."""

    def __init__(
        self,
        tokens: Tokens,
        api_url: str,
        *,
        rest_url: str | None,
        gateway_url: Callable[[web.BaseRequest], str | None],
        shards: Callable[[], Awaitable[int | None]],
        connections: int = 0,
        body_s: float = BODY_S,
    ) -> None:
        """*api_url* is Discord's base with the version, *rest_url* what takes the place of its host; *gateway_url*
        returns the gateway's address for the bot of a request, *shards* the number of shards, None while it is unknown.
        *connections* to Discord at a time, 0 for any number; *body_s* for the pauses of a request's body."""
        self.requests: Counter[str] = Counter()
        """By what became of them: ``passed``, ``answered``, ``refused``, ``failed``."""
        self._tokens = tokens
        match = re.fullmatch(r"(.*?)(/api(?:/v\d{1,3})?)?", api_url.rstrip("/"))
        assert match is not None
        self._api_path = match[2] or ""
        self._base = rest_url if rest_url is not None else match[1]
        self._gateway_url = gateway_url
        self._shards = shards
        self._connections = connections
        self._body_s = body_s
        self._session: aiohttp.ClientSession | None = None
        # When failures were last said, and how many there were until then.
        self._said: tuple[float, int] = (float("-inf"), 0)

    async def __aenter__(self) -> RestProxy:
        tls: ssl.SSLContext | bool = client_context() if self._base.startswith("https:") else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=tls, limit=self._connections, keepalive_timeout=KEEP_ALIVE_S, enable_cleanup_closed=False
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
            auto_decompress=False,
            trust_env=True,
            # What Discord sends as headers fits, and an answer with more is passed on all the same.
            max_line_size=64 * 1024,
            max_field_size=64 * 1024,
        )
        return self

    async def __aexit__(self, *failure: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request of a bot."""
        path = request.rel_url.raw_path
        if not path.startswith("/"):
            # Behind Discord's address, "*" or "@…" would be a part of the host's name.
            self.requests["refused"] += 1
            return _json(400, {"message": "the path of a request begins with a slash", "code": 0})
        gateway = _GATEWAY.fullmatch(path) if request.method in (hdrs.METH_GET, hdrs.METH_HEAD) else None
        given = request.headers.get(hdrs.AUTHORIZATION)
        if given is None:
            admitted = bool(OWN_TOKEN.fullmatch(path)) or (gateway is not None and gateway[1] is None)
        else:
            admitted = self._tokens.admits_header(given)
        if not admitted:
            self.requests["refused"] += 1
            return _json(401, {"message": "401: Unauthorized", "code": 0})
        if gateway is not None:
            self.requests["answered"] += 1
            return await self._tell_gateway(request, whole=gateway[1] is not None)
        return await self._pass_on(request, authorized=given is not None)

    async def application(self) -> msgspec.Raw | None:
        """Return READY's ``application`` as Discord's REST tells it; None where it does not."""
        assert self._session is not None
        url = f"{self._base}{self._api_path}/applications/@me"
        try:
            headers = {hdrs.AUTHORIZATION: self._tokens.header(), hdrs.USER_AGENT: USER_AGENT}
            async with self._session.get(
                url, headers=headers, timeout=_QUESTION, skip_auto_headers=(hdrs.ACCEPT_ENCODING,)
            ) as answer:
                if answer.status != 200:
                    return None
                return msgspec.Raw(_encode(msgspec.json.decode(await answer.read(), type=_Application)))
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError) as error:
            self._fail(error)
            return None

    async def _tell_gateway(self, request: web.BaseRequest, *, whole: bool) -> web.StreamResponse:
        url = self._gateway_url(request)
        if url is None:
            return _json(400, {"message": "the Host header is not the name of a host", "code": 0})
        if not whole:
            return _json(200, {"url": url})
        shards = await self._shards()
        if shards is None:
            words = "the gateway does not answer yet: the number of shards is not known"
            return _json(503, {"message": words, "code": 0}, {hdrs.RETRY_AFTER: "2"})
        starts = max(LEAST_STARTS, 2 * shards)
        limit = {
            "total": starts,
            "remaining": starts,
            "reset_after": DAY_MS,
            "max_concurrency": max(LEAST_CONCURRENCY, shards),
        }
        return _json(200, {"url": url, "shards": shards, "session_start_limit": limit})

    async def _pass_on(self, request: web.BaseRequest, *, authorized: bool) -> web.StreamResponse:
        assert self._session is not None
        headers = [pair for pair in _end_to_end(request.headers) if pair[0].lower() not in NOT_PASSED_ON]
        if authorized:
            headers.append((hdrs.AUTHORIZATION, self._tokens.header()))
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
            # RFC 9110, section 10.1.1: the bot sends its body once it has read this.
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = RequestBody(request.content, self._body_s)
        try:
            upstream = await self._session.request(
                request.method,
                URL(self._where(request.rel_url), encoded=True),
                headers=headers,
                data=body.parts() if request.body_exists else None,
                skip_auto_headers=(hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE, hdrs.USER_AGENT),
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            if body.is_late:
                self.requests["refused"] += 1
                return _json(408, {"message": "the body of the request comes too slowly", "code": 0})
            self._fail(error)
            return _json(502, {"message": "Discord's REST cannot be reached from the proxy", "code": 0})
        try:
            response = web.StreamResponse(status=upstream.status, reason=upstream.reason)
            for name, value in _end_to_end(upstream.headers):
                response.headers.add(name, value)
            if request.body_exists and not request.content.is_eof():
                # Discord has answered before it had read everything, and what is left belongs to no next request.
                response.force_close()
            try:
                await response.prepare(request)
                async for chunk in upstream.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
            except (aiohttp.ClientPayloadError, aiohttp.ServerTimeoutError) as error:
                # The bot has to see that the answer is not whole.
                self._fail(error)
                if request.transport is not None:
                    request.transport.abort()
                return response
        except ConnectionError:
            # The bot has left.
            upstream.close()
            raise
        finally:
            upstream.release()
        self.requests["passed"] += 1
        return response

    def _where(self, url: URL) -> str:
        """Return the URL at Discord for a request. A library's base may hold the version, or leave it to Discord."""
        path = url.raw_path_qs
        if path.startswith("/api/"):
            return f"{self._base}{path}"
        if _VERSION.match(path):
            return f"{self._base}/api{path}"
        return f"{self._base}{self._api_path}{path}"

    def _fail(self, error: BaseException) -> None:
        self.requests["failed"] += 1
        now = asyncio.get_running_loop().time()
        at, before = self._said
        if now - at >= SAY_EVERY_S:
            count = self.requests["failed"] - before
            self._said = (now, self.requests["failed"])
            # No path, nor one in the error's text: that of a webhook or an interaction holds its token.
            text = _PATH.sub(r"\1", str(error))
            log.warning(
                "%d request%s of bots could not be passed on to %s: %s",
                count,
                "s" if count > 1 else "",
                URL(self._base).origin(),
                f"{type(error).__name__}: {text}" if text else type(error).__name__,
                extra={"action": "proxy_rest"},
            )


class RequestBody:
    """A request's body as it comes. A peer that stops sending would hold its connection, and one to Discord."""

    def __init__(self, content: aiohttp.StreamReader, seconds: float) -> None:
        self.is_late = False
        """Whether it came too slowly and was given up."""
        self._content = content
        self._seconds = seconds

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield it; raise TimeoutError where it comes too slowly. The time that Discord takes for it does not count."""
        loop, left = asyncio.get_running_loop(), self._seconds
        while not self._content.at_eof():
            began = loop.time()
            try:
                async with asyncio.timeout(left):
                    part = await self._content.readany()
            except TimeoutError:
                self.is_late = True
                raise
            left = min(self._seconds, left - (loop.time() - began) + len(part) / SLOWEST_BYTES_PER_S)
            if part:  # it is empty at the end
                yield part


def _end_to_end(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return *headers* without those of one connection; repeated ones stay repeated."""
    pairs = list(headers.items())
    named = {
        each.strip().lower()
        for name, value in pairs
        if name.lower() == "connection"
        for each in value.split(",")
    }
    return [(name, value) for name, value in pairs if name.lower() not in HOP_BY_HOP | named]


def _json(status: int, body: object, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=_encode(body), content_type="application/json", headers=dict(headers or {})
    )
