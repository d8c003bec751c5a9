"""Discord over HTTP: the gateway's address and limits, and the application's own switches.

Every answer is a value: what the outside may do is never an exception. Rules: *Gateway: Get Gateway Bot*,
*API Reference: User Agent*, *Rate Limits*, *Application Resource: Application Flags* of Discord's documentation.
"""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec
from rateway import __version__
from rateway.backoff import Backoff
from rateway.fleet.layout import MOST_SHARDS
from rateway.secret import Secret
from rateway.transports.retry_after import believable, read_retry_after
from rateway.transports.tls import client_context
from rateway_protocol.discord.control import is_gateway_url
from rateway_protocol.discord.envelope import FAILURES
from rateway_protocol.discord.hosts import TokenHosts

__all__ = [
    "FALLBACK_GATEWAY",
    "Application",
    "DiscordRest",
    "GatewayBot",
    "RestFailure",
    "RestSettings",
    "backoff",
    "read_application",
    "read_gateway_bot",
]

# Where Discord's gateway has always been; used while nothing usable could be asked from REST.
FALLBACK_GATEWAY = "wss://gateway.discord.gg"
# Discord blocks clients at its edge that do not name themselves in this form.
USER_AGENT = f"DiscordBot (https://github.com/rateway/rateway, {__version__})"
# The answers of these routes are some hundred bytes; anything much larger is not from Discord.
MAX_BODY = 1 << 20
# Numbers of the session start limit beyond this are not believed. Discord's own are thousands, and a day in
# milliseconds.
MOST_IDENTIFIES = 10**9
MOST_RESET_MS = 10**9
# Characters of an address in an error.
LONGEST_SHOWN = 200
# A token that Discord has refused is not used again for so long by any caller: requests with it lead to a ban of the
# address. A token that sessions live with was refused by mistake, and is tried again after a longer pause
# (runtime/identify/permits.py).
UNAUTHORIZED_FOR = 60.0
# Between questions that Discord did not answer.
BACKOFF = Backoff(1.0, 60.0)

# Application flags: the plain flag for verified bots, the limited one for those below the threshold.
PRIVILEGED_FLAGS = (
    (1 << 12 | 1 << 13, 1 << 8),  # GATEWAY_PRESENCE(_LIMITED) → GUILD_PRESENCES
    (1 << 14 | 1 << 15, 1 << 1),  # GATEWAY_GUILD_MEMBERS(_LIMITED) → GUILD_MEMBERS
    (1 << 18 | 1 << 19, 1 << 15),  # GATEWAY_MESSAGE_CONTENT(_LIMITED) → MESSAGE_CONTENT
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestSettings:
    """The settings of Discord's REST, and of the hosts that the token may be sent to."""

    api_url: str
    """With the version, without a slash at the end."""
    hosts: frozenset[str]
    """Domains beside the API's own that the token may be sent to."""


@dataclass(frozen=True, slots=True)
class GatewayBot:
    """The answer of ``GET /gateway/bot``. ``reset_after_ms`` is in milliseconds, as Discord sends it."""

    url: str
    shards: int
    total: int
    remaining: int
    reset_after_ms: int
    max_concurrency: int


@dataclass(frozen=True, slots=True)
class Application:
    """The answer of ``GET /applications/@me``: which privileged intents are switched on."""

    id: int
    name: str
    privileged_intents: int
    """The intents' bits (``GUILD_MEMBERS``, ``GUILD_PRESENCES``, ``MESSAGE_CONTENT``) that are switched on."""


@dataclass(frozen=True, slots=True)
class RestFailure:
    """No usable answer. ``retry_after`` is in seconds, ``None`` when Discord named no time.

    ``unauthorized``: the token is dead, asking again is harmful. The other kinds may be asked again after a while.
    """

    kind: Literal["unauthorized", "rate_limited", "unavailable", "invalid"]
    text: str
    retry_after: float | None = None
    status: int | None = None


class _SessionStartLimit(msgspec.Struct):
    total: int
    remaining: int
    reset_after: int
    max_concurrency: int


class _GatewayBotBody(msgspec.Struct):
    url: str
    shards: int
    session_start_limit: _SessionStartLimit


class _ApplicationBody(msgspec.Struct):
    id: str
    name: str
    flags: int = 0


class _RateLimitBody(msgspec.Struct):
    retry_after: float
    message: str = ""


_Body = TypeVar("_Body", bound=msgspec.Struct)


def backoff(failure: RestFailure, attempt: int, chance: float) -> float:
    """Return seconds to wait before the next question after *attempt* failures in a row (1 …); *chance* in [0, 1).

    1, 2, 4 … 60 s, the upper half of it by chance, and never less than Discord's own ``Retry-After``.
    """
    waited = BACKOFF.delay(attempt - 1) * (0.5 + chance / 2)
    return waited if failure.retry_after is None else max(failure.retry_after + chance, waited, 1.0)


class DiscordRest:
    """A client of the few REST routes that a gateway needs: a question at its start, and a few a day.

    *api_url* is the base with the version (``https://discord.com/api/v10``), *timeout* the seconds for a whole answer.
    The environment's proxies are used.

    Each question is the standard library's, in a thread of its own: an asynchronous HTTP library would be a third of
    the supervising process's memory for the sake of so little.
    """

    def __init__(
        self,
        api_url: str,
        token: Secret,
        user_agent: str | None = None,
        *,
        timeout: float = 15.0,
        hosts: Iterable[str] = (),
    ) -> None:
        """*hosts*: domains beside the API's own that the gateway's address may have."""
        self._api_url = api_url.rstrip("/")
        self._hosts = TokenHosts(api_url, hosts)
        self._token = token
        self._user_agent = user_agent or USER_AGENT
        self._timeout = timeout
        # What a refused token was answered with, and until when that is the answer (monotonic seconds).
        self._unauthorized: tuple[RestFailure, float] | None = None

    async def gateway_bot(self) -> GatewayBot | RestFailure:
        """``GET /gateway/bot``, once."""
        body = await self._get("/gateway/bot")
        answer = body if isinstance(body, RestFailure) else read_gateway_bot(body)
        if isinstance(answer, RestFailure):
            return answer
        fault = self._hosts.fault(answer.url)
        if fault:
            text = (
                f"/gateway/bot names the gateway {answer.url[:LONGEST_SHOWN]}, which gets no token: {fault}"
            )
            return RestFailure("invalid", text, None, 200)
        return answer

    async def application(self) -> Application | RestFailure:
        """``GET /applications/@me``, once."""
        body = await self._get("/applications/@me")
        return body if isinstance(body, RestFailure) else read_application(body)

    async def _get(self, route: str) -> bytes | RestFailure:
        if self._unauthorized is not None and time.monotonic() < self._unauthorized[1]:
            return self._unauthorized[0]
        where = f"{self._api_url}{route}"
        silence = RestFailure("unavailable", f"{where} did not answer within {self._timeout:g} s")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes | RestFailure] = loop.create_future()

        def tell(said: bytes | RestFailure) -> None:
            if not answer.done():
                answer.set_result(said)

        def ask() -> None:
            said = self._ask(where, silence)
            try:
                loop.call_soon_threadsafe(tell, said)
            except RuntimeError:
                pass  # the loop was closed meanwhile

        # A daemon: a process that gets a signal to stop must not stay for the thread, which may wait for a name server.
        threading.Thread(target=ask, name="discord-rest", daemon=True).start()
        try:
            async with asyncio.timeout(self._timeout):
                said = await answer
        except TimeoutError:
            return silence
        if isinstance(said, RestFailure) and said.kind == "unauthorized":
            self._unauthorized = (said, time.monotonic() + UNAUTHORIZED_FOR)
        return said

    def _ask(self, where: str, silence: RestFailure) -> bytes | RestFailure:
        """One request, in a thread; blocks at most as long as the timeout, the search for the host's address aside."""
        deadline = time.monotonic() + self._timeout
        request = urllib.request.Request(where, headers={"User-Agent": self._user_agent})
        # Not for a proxy's eyes.
        request.add_unredirected_header("Authorization", f"Bot {self._token.reveal()}")
        try:
            with _opener().open(request, timeout=self._timeout) as answer:
                body = bytearray()
                while chunk := answer.read1(65536):
                    body += chunk
                    if len(body) > MAX_BODY:
                        text = f"{where} answered more than {MAX_BODY} bytes"
                        return RestFailure("invalid", text, None, answer.status)
                    if time.monotonic() >= deadline:
                        return silence
                if answer.length:
                    return RestFailure("unavailable", f"{where}: the answer broke off", None, answer.status)
                return _judge(where, answer.status, answer.headers, bytes(body))
        except TimeoutError:
            return silence
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                return silence
            return RestFailure("unavailable", f"no connection to {where}: {error.reason}")
        except (http.client.HTTPException, OSError, ValueError) as error:
            return RestFailure("unavailable", f"{where}: {type(error).__name__}: {error}")


def _opener() -> urllib.request.OpenerDirector:
    """Every status is an answer, and no redirection is followed: the token is for one host."""
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler(context=client_context()))
    return opener


def _judge(where: str, status: int, headers: Mapping[str, str], body: bytes) -> bytes | RestFailure:
    """Return the body of a 200, or what an other status means."""
    if status == 200:
        return body
    if status == 401:
        return RestFailure(
            "unauthorized", f"{where} answered 401: Discord does not know this token", None, 401
        )
    if status == 429:
        wait = _retry_after(headers.get("Retry-After"), body)
        again = "" if wait is None else f"; again in {wait:g} s"
        return RestFailure("rate_limited", f"{where} answered 429: asked too often{again}", wait, 429)
    wait_named = read_retry_after(headers.get("Retry-After"))
    if status == 403:
        # The edge's answer to a blocked address or user agent; a bot's token has no part in it.
        return RestFailure(
            "unavailable", f"{where} answered 403: this address may be blocked for a while", wait_named, 403
        )
    kind: Literal["unavailable", "invalid"] = "unavailable" if status >= 500 or status == 408 else "invalid"
    return RestFailure(kind, f"{where} answered {status}", wait_named, status)


def _retry_after(header: str | None, body: bytes) -> float | None:
    """Seconds, from the header or the body (which has the fraction), whichever is longer; None when neither names any.

    The edge in front of Discord answers without either: then the wait grows as after any other failure.
    """
    named = read_retry_after(header)
    limited = _decoded(body, _RateLimitBody)
    told = None if isinstance(limited, str) else believable(limited.retry_after)
    return max((wait for wait in (named, told) if wait is not None), default=None)


def _not_ours(route: str, body: bytes, why: str) -> RestFailure:
    """A 200 that is not the answer to the question: a rate limit from a cache at the edge, a proxy's page."""
    limited = _decoded(body, _RateLimitBody)
    if not isinstance(limited, str):
        wait = believable(limited.retry_after) or 0.0
        return RestFailure(
            "rate_limited", f"{route} answered 200 with a rate limit; again in {wait:g} s", wait, 200
        )
    start = bytes(body[:60]).decode("utf-8", "replace")
    text = "a page of HTML" if start.lstrip().startswith("<") else f"something else ({why})"
    return RestFailure(
        "invalid", f"{route} answered 200 with {text}: it was not Discord that answered", None, 200
    )


def _decoded(body: bytes, kind: type[_Body]) -> _Body | str:
    """Return a body of that kind, or why it is none."""
    try:
        return msgspec.json.decode(body, type=kind)
    except FAILURES as error:
        return str(error)


def read_gateway_bot(body: bytes) -> GatewayBot | RestFailure:
    """Read the body of ``GET /gateway/bot``. Never raises: one that makes no sense is a failure."""
    said = _decoded(body, _GatewayBotBody)
    if isinstance(said, str):
        return _not_ours("/gateway/bot", body, said)
    limit = said.session_start_limit
    wrong = ""
    if not is_gateway_url(said.url):
        wrong = "the address of the gateway is none"
    elif said.shards < 1 or limit.max_concurrency < 1:
        wrong = "shards and max_concurrency are at least 1"
    elif said.shards > MOST_SHARDS:
        wrong = f"{said.shards} shards are recommended, and no bot has more than {MOST_SHARDS:,}"
    elif limit.total < 0 or limit.remaining < 0 or limit.reset_after < 0:
        wrong = "a limit is negative"
    elif max(limit.total, limit.remaining) > MOST_IDENTIFIES or limit.reset_after > MOST_RESET_MS:
        wrong = "a limit is larger than any of Discord's"
    if wrong:
        return RestFailure("invalid", f"/gateway/bot answered nonsense: {wrong}", None, 200)
    return GatewayBot(
        said.url, said.shards, limit.total, limit.remaining, limit.reset_after, limit.max_concurrency
    )


def read_application(body: bytes) -> Application | RestFailure:
    """Read the body of ``GET /applications/@me``. Never raises: one that makes no sense is a failure."""
    said = _decoded(body, _ApplicationBody)
    if isinstance(said, str):
        return _not_ours("/applications/@me", body, said)
    # A snowflake has twenty digits at most.
    if not (said.id.isascii() and said.id.isdigit() and len(said.id) <= 20):
        return _not_ours("/applications/@me", body, "the id is not a number")
    number = int(said.id)
    switched_on = sum(bit for flags, bit in PRIVILEGED_FLAGS if said.flags & flags)
    return Application(number, said.name, switched_on)
