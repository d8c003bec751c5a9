"""REST through the proxy: what Discord gets of a request and a bot of an answer, byte for byte; who gets in."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from rateway import logs
from rateway.proxy.http.rest import SLOWEST_BYTES_PER_S, RequestBody, RestProxy
from rateway.proxy.http.server import BotSocket, Conversation, ProxyServer, Upgrade
from rateway.proxy.http.tokens import Tokens
from rateway.secret import Secret
from tests.proxy import virtual_time

from tests.aio import run

BOT, WORKER = "bot.to.ken-of-the-bot-itself", "a-token-that-only-workers-hold"
GATEWAY = "/api/v10/gateway/bot"


@dataclass
class Seen:
    """One request as Discord got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known.lower() == name.lower()]


Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Discord:
    """Discord's REST: keeps what it was asked, answers as it is told."""

    seen: list[Seen] = field(default_factory=list)
    answer: Answer | None = None
    application: tuple[int, bytes] = (404, b"")
    port: int = 0

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.answer is not None and request.path.endswith("/answered"):
            return await self.answer(request)
        if request.path == "/api/v10/applications/@me":
            status, text = self.application
            return web.Response(status=status, body=text)
        body = await request.read()
        headers = [(name.decode(), value.decode()) for name, value in request.raw_headers]
        self.seen.append(Seen(request.method, request.raw_path, headers, body))
        return web.json_response({"id": "1"})


@dataclass
class Scene:
    discord: Discord
    rest: RestProxy
    port: int
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, token: str | None = BOT, **given: Any) -> tuple[int, bytes]:
        headers = {**given.pop("headers", {})}
        if token is not None:
            headers["Authorization"] = f"Bot {token}"
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.session.request(method, url, headers=headers, **given) as answer:
            return answer.status, await answer.read()

    async def raw(self, data: bytes) -> bytes:
        """What the proxy says to these bytes until it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        try:
            return await reader.read()
        finally:
            writer.close()


def no_bots(socket: BotSocket, upgrade: Upgrade) -> Conversation:
    raise AssertionError("no WebSocket is opened in these tests")


@contextlib.asynccontextmanager
async def scene(
    *,
    shards: int | None = 3,
    url: str | None = None,
    reachable: bool = True,
    api: str = "/api/v10",
    body_s: float = 60.0,
) -> AsyncIterator[Scene]:
    discord = Discord()
    upstream = web.ServerRunner(web.Server(discord.serve, auto_decompress=False, handler_cancellation=True))
    await upstream.setup()
    site = web.TCPSite(upstream, "127.0.0.1", 0)
    await site.start()
    assert upstream.addresses
    discord.port = upstream.addresses[0][1]

    async def count() -> int | None:
        return shards

    def told(request: web.BaseRequest) -> str | None:
        return url or f"ws://{request.headers['Host']}"

    base = f"http://127.0.0.1:{discord.port if reachable else 9}{api}"
    rest = RestProxy(
        Tokens(Secret(BOT), Secret(WORKER)), base, rest_url=None, gateway_url=told, shards=count, body_s=body_s
    )  # fmt: skip
    bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with rest, aiohttp.ClientSession(auto_decompress=False) as session:
        server = ProxyServer("127.0.0.1:0", None, rest.answer, no_bots, told)
        serving = asyncio.create_task(server.run(bound.set_result))
        try:
            yield Scene(discord, rest, await bound, session)
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            await upstream.cleanup()


@pytest.mark.parametrize(
    "path", ["/gateway/bot", "/api/gateway/bot", GATEWAY, "/api/v9/gateway/bot", "/v10/gateway/bot/"]
)
def test_the_gateway_is_told_with_starts_enough(path: str) -> None:
    async def it() -> None:
        async with scene(shards=64) as s:
            status, body = await s.ask("GET", path)
            told = json.loads(body)
            assert status == 200
            assert told["url"] == f"ws://127.0.0.1:{s.port}" and told["shards"] == 64
            limit = told["session_start_limit"]
            assert limit["remaining"] == limit["total"] >= 128
            assert limit["max_concurrency"] >= 64 and limit["reset_after"] > 0
            assert s.discord.seen == []

    run(it())


def test_the_address_alone_is_told_to_anybody_and_a_setting_goes_over_the_host_header() -> None:
    async def it() -> None:
        async with scene(url="wss://bots.example.org") as s:
            status, body = await s.ask("GET", "/api/v10/gateway", token=None)
            assert (status, json.loads(body)) == (200, {"url": "wss://bots.example.org"})

    run(it())


def test_while_the_gateway_does_not_answer_its_shards_are_told_later() -> None:
    async def it() -> None:
        async with scene(shards=None) as s:
            status, body = await s.ask("GET", GATEWAY)
            assert status == 503 and "gateway" in json.loads(body)["message"]

    run(it())


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("/api/v10/channels/1/messages?limit=5&after=%40me", "/api/v10/channels/1/messages?limit=5&after=%40me"),
        ("/api/v9/users/@me", "/api/v9/users/@me"),
        ("/v9/users/@me", "/api/v9/users/@me"),
        ("/channels/1/reactions/%F0%9F%91%8D/@me", "/api/v10/channels/1/reactions/%F0%9F%91%8D/@me"),
        ("/api/v10/a%2Fb//c", "/api/v10/a%2Fb//c"),
        ("/api/v10/gateway/bots", "/api/v10/gateway/bots"),
    ],
)  # fmt: skip
def test_a_path_reaches_discord_as_it_was_written(asked: str, wanted: str) -> None:
    async def it() -> None:
        async with scene() as s:
            head = f"GET {asked} HTTP/1.1\r\nHost: x\r\nAuthorization: Bot {BOT}\r\nConnection: close\r\n\r\n"
            assert (await s.raw(head.encode())).startswith(b"HTTP/1.1 200")
            (seen,) = s.discord.seen
            assert seen.target == wanted

    run(it())


@pytest.mark.parametrize("first", [b"", b"a"])
def test_a_body_that_stops_coming_is_given_up_there_and_at_discord(first: bytes) -> None:
    """Whoever names a webhook needs no token: its connections would be held for ever."""

    async def it() -> None:
        async with scene(body_s=0.1) as s:
            head = b"POST /api/v10/webhooks/1/token HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
            answer = await s.raw(head + first)
            assert answer.split()[1] == b"408" and b"too slowly" in answer
            assert s.discord.seen == [] and s.rest.requests == {"refused": 1}

    run(it())


@pytest.mark.parametrize(("part_bytes", "taken"), [(SLOWEST_BYTES_PER_S, 100), (1, 30)])
def test_a_part_of_a_body_gives_back_the_time_that_it_takes_at_the_slowest_pace(
    part_bytes: int, taken: int
) -> None:
    """One part a second, and then the end. Thirty seconds of pauses are allowed in all."""

    async def it() -> None:
        loop = asyncio.get_running_loop()
        protocol = BaseProtocol(loop)
        protocol.connection_made(asyncio.Transport())
        content = aiohttp.StreamReader(protocol, 1 << 16, loop=loop)
        for second in range(1, 101):
            loop.call_later(second, content.feed_data, b"a" * part_bytes)
        loop.call_later(100.5, content.feed_eof)
        body, parts = RequestBody(content, 30.0), 0
        with contextlib.suppress(TimeoutError):
            async for _ in body.parts():
                parts += 1
        assert (parts, body.is_late) == (taken, taken < 100)

    virtual_time.run(it())


@pytest.mark.parametrize("target", ["*", "@127.0.0.1:1/users/@me", "", "users/@me"])
def test_what_is_no_path_is_refused_and_never_a_part_of_another_hosts_name(target: str) -> None:
    async def it() -> None:
        async with scene(api="") as s:
            head = f"OPTIONS {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bot {WORKER}\r\n\r\n"
            assert (await s.raw(head.encode())).split()[1] == b"400"
            assert s.discord.seen == [] and s.rest.requests["failed"] == 0

    run(it())


def test_end_to_end_headers_are_kept_and_those_of_the_connection_are_not() -> None:
    async def it() -> None:
        async with scene() as s:
            request = (
                f"POST /api/v10/x HTTP/1.1\r\nHost: proxy.example\r\nauthorization: bot {WORKER}\r\n"
                "user-agent: DiscordBot (x, 1)\r\nX-Audit-Log-Reason: caf%C3%A9\r\nx-twice: 1\r\nx-twice: 2\r\n"
                "Accept-Encoding: br\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\n"
                "Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x01{}"
            )
            assert (await s.raw(request.encode("latin-1"))).startswith(b"HTTP/1.1 200")
            (seen,) = s.discord.seen
            assert seen.body == b"\x1f\x01{}"
            assert seen.all("host") == [f"127.0.0.1:{s.discord.port}"]
            assert seen.all("authorization") == [f"Bot {BOT}"]
            assert seen.all("x-audit-log-reason") == ["caf%C3%A9"] and seen.all("x-twice") == ["1", "2"]
            assert seen.all("user-agent") == ["DiscordBot (x, 1)"] and seen.all("accept-encoding") == ["br"]
            assert seen.all("content-length") == ["4"] and seen.all("content-encoding") == ["gzip"]
            for gone in ("x-hop", "te", "keep-alive", "transfer-encoding", "accept", "x-forwarded-for"):
                assert seen.all(gone) == []

    run(it())


def test_a_bot_that_asks_whether_to_send_its_body_is_told_to() -> None:
    async def it() -> None:
        async with scene() as s:
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            head = f"POST /api/v10/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bot {BOT}\r\nConnection: close\r\n"
            writer.write(f"{head}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"hello")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            (seen,) = s.discord.seen
            assert seen.body == b"hello" and seen.all("expect") == []
            writer.close()

    run(it())


def test_the_head_of_an_answer_has_its_length_and_no_body() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(
            body=b"" if request.method == "HEAD" else b"12345", headers={"Content-Length": "5"}
        )

    async def it() -> None:
        async with scene() as s:
            s.discord.answer = answer
            url = f"http://127.0.0.1:{s.port}/api/v10/answered"
            async with s.session.head(url, headers={"Authorization": f"Bot {BOT}"}) as got:
                assert got.headers["Content-Length"] == "5" and await got.read() == b""
            assert await s.ask("GET", "/api/v10/answered") == (200, b"12345")

    run(it())


def test_a_request_without_a_body_gets_none() -> None:
    async def it() -> None:
        async with scene() as s:
            for method in ("GET", "DELETE", "PUT"):
                assert (await s.ask(method, "/api/v10/x"))[0] == 200
            assert [seen.body for seen in s.discord.seen] == [b"", b"", b""]
            assert s.discord.seen[0].all("content-length") == s.discord.seen[0].all("transfer-encoding") == []

    run(it())


def test_an_answer_reaches_the_bot_as_discord_wrote_it() -> None:
    packed = gzip.compress(b'{"retry_after": 0.5}')

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(status=429, reason="Slow Down", body=packed)
        response.headers["Content-Type"] = "application/json"
        response.headers["Content-Encoding"] = "gzip"
        response.headers["X-RateLimit-Bucket"] = "abc"
        response.headers["Server"] = "cloudflare"
        response.headers.add("Set-Cookie", "__dcfduid=1; Path=/")
        response.headers.add("Set-Cookie", "__sdcfduid=2; Path=/")
        return response

    async def it() -> None:
        async with scene() as s:
            s.discord.answer = answer
            url = f"http://127.0.0.1:{s.port}/api/v10/answered"
            async with s.session.get(url, headers={"Authorization": f"Bot {BOT}"}) as got:
                assert (got.status, got.reason) == (429, "Slow Down")
                assert await got.read() == packed
                assert got.headers["Content-Encoding"] == "gzip"
                assert got.headers["Content-Length"] == str(len(packed))
                assert got.headers["X-RateLimit-Bucket"] == "abc" and got.headers.getall("Server") == [
                    "cloudflare"
                ]
                assert len(got.headers.getall("Set-Cookie")) == 2

    run(it())


def test_a_redirection_is_the_bots_to_follow() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "https://elsewhere.example/"})

    async def it() -> None:
        async with scene() as s:
            s.discord.answer = answer
            status, _ = await s.ask("GET", "/api/v10/answered", allow_redirects=False)
            assert status == 302

    run(it())


def test_bodies_are_streamed_both_ways() -> None:
    """Each side goes on only once the other has seen the piece before."""

    async def it() -> None:
        pieces: asyncio.Queue[bytes] = asyncio.Queue()

        async def echo(request: web.BaseRequest) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            async for chunk in request.content.iter_any():
                await response.write(chunk)
            return response

        async def upload() -> AsyncIterator[bytes]:
            yield b"first"
            while (piece := await pieces.get()) != b"":
                yield piece

        async with scene() as s:
            s.discord.answer = echo
            url = f"http://127.0.0.1:{s.port}/api/v10/answered"
            headers = {"Authorization": f"Bot {BOT}"}
            async with s.session.post(url, data=upload(), headers=headers) as got:
                assert await got.content.readexactly(5) == b"first"
                for number in range(20):
                    pieces.put_nowait(b"%04d" % number * 10_000)
                    assert await got.content.readexactly(40_000) == b"%04d" % number * 10_000
                pieces.put_nowait(b"")
                assert await got.content.read() == b""

    run(it())


@pytest.mark.parametrize(
    "header",
    [
        "Bot another.to.ken",
        f"Bearer {BOT}",
        f"Bearer {WORKER}",
        BOT,
        "Bot",
        "Bot ",
        "",
        f"Bot {BOT}x",
        "Bot ä\udcff",
    ],
)
@pytest.mark.parametrize("path", ["/api/v10/users/@me", GATEWAY, "/api/v10/webhooks/1/token"])
def test_another_token_is_refused_here_and_never_reaches_discord(header: str, path: str) -> None:
    async def it() -> None:
        async with scene() as s:
            encoded = header.encode("utf-8", "surrogateescape")
            head = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: %s\r\n\r\n"
            said = await s.raw(head % (path.encode(), encoded))
            assert said.startswith(b"HTTP/1.1 401") and b'"message":"401: Unauthorized"' in said
            assert s.discord.seen == [] and s.rest.requests["refused"] == 1

    run(it())


def test_without_a_token_only_what_carries_its_own_is_passed_on() -> None:
    async def it() -> None:
        async with scene() as s:
            for path in (
                "/api/v10/webhooks/1/tok",
                "/webhooks/1/tok/messages/2",
                "/api/interactions/1/tok/callback",
            ):
                assert (await s.ask("POST", path, token=None))[0] == 200
            assert (
                all(seen.all("authorization") == [] for seen in s.discord.seen) and len(s.discord.seen) == 3
            )
            for path in ("/api/v10/users/@me", "/api/v10/webhooks/1", "/api/v10/interactions/1/tok", GATEWAY):
                assert (await s.ask("GET", path, token=None))[0] == 401
            assert len(s.discord.seen) == 3

    run(it())


def test_a_discord_that_cannot_be_reached_is_told_and_no_secret_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def it() -> None:
        with caplog.at_level(logging.DEBUG):
            async with scene(reachable=False) as s:
                for _ in range(5):
                    status, body = await s.ask("POST", "/api/v10/webhooks/1/secret-of-a-hook")
                    assert status == 502 and "reached" in json.loads(body)["message"]
                assert s.rest.requests["failed"] == 5

    logs.hide(BOT)
    run(it())
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1, "one line for a time, not one for each request"
    everything = "\n".join(record.getMessage() for record in caplog.records if "rateway" in record.name)
    assert "127.0.0.1:9" in everything
    assert BOT not in everything and "secret-of-a-hook" not in everything


async def no_http(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    request.transport.close()
    return web.Response()


def test_the_token_in_a_path_is_not_logged_with_what_failed(caplog: pytest.LogCaptureFixture) -> None:
    async def it() -> None:
        async with scene() as s:
            s.discord.answer = no_http
            path = "/api/v10/webhooks/1/secret-of-a-hook/answered?thread_id=5"
            status, _ = await s.ask("POST", path, token=None)
            assert status == 502

    run(it())
    (line,) = [record.getMessage() for record in caplog.records if "passed on" in record.getMessage()]
    assert "127.0.0.1" in line
    assert "secret-of-a-hook" not in line and "thread_id" not in line


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one() -> None:
    async def broken(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"only this")
        assert request.transport is not None
        request.transport.abort()
        return response

    async def it() -> None:
        async with scene() as s:
            s.discord.answer = broken
            with pytest.raises(aiohttp.ClientError):
                await s.ask("GET", "/api/v10/answered")
            assert s.rest.requests["failed"] == 1

    run(it())


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, b'{"id": "81", "name": "x", "flags": 8953856}', {"id": "81", "flags": 8953856}),
        (200, b"<html>", None),
        (401, b'{"message": "401: Unauthorized"}', None),
    ],
)
def test_the_application_is_asked_for_where_ready_lacks_it(status: int, body: bytes, found: object) -> None:
    async def it() -> None:
        async with scene() as s:
            s.discord.application = (status, body)
            told = await s.rest.application()
            assert (None if told is None else json.loads(bytes(told))) == found

    run(it())


def test_a_bot_that_leaves_ends_its_request_at_discord() -> None:
    async def it() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def slow(request: web.BaseRequest) -> web.StreamResponse:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

        async with scene() as s:
            s.discord.answer = slow
            asking = asyncio.create_task(s.ask("GET", "/api/v10/answered"))
            await begun.wait()
            asking.cancel()
            await ended.wait()

    run(it())
