"""The server: who gets in, under which names, and what bad neighbours can do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from dataclasses import replace

import aiohttp
import pytest
from rateway.runtime.monitoring.http_views import FRESH_S, HttpViews
from rateway.secret import Secret
from rateway.transports.http.answers import Answer, Route
from rateway.transports.http.server import HttpServer, Limits
from tests.http.fleet import Fleet, get, served

from tests.aio import run

SECRET_PATHS = ("/metrics", "/status", "/events")
STRICT = Limits(connections=8, head_s=1.0, answer_s=2.0, requests_per_s=10_000, burst=10_000)


async def say(port: int, data: bytes, *, wait_s: float = 60.0) -> bytes:
    """What the server says to these bytes until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        async with asyncio.timeout(wait_s):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def test_the_page_needs_no_token_and_holds_no_data() -> None:
    async def scene() -> None:
        async with served(Fleet(), token="open-sesame") as (port, _):
            status, page = await get(port, "/")
            assert status == 200
            assert "c0ffee" not in page and "rateway-1" not in page

    run(scene())


@pytest.mark.parametrize("path", SECRET_PATHS)
def test_what_tells_something_needs_the_token(path: str) -> None:
    async def scene() -> None:
        async with served(Fleet(), token="open-sesame") as (port, _):
            refused = [
                await get(port, path),
                await get(port, path, Authorization="Bearer open-sesam"),
                await get(port, path, Authorization="Basic open-sesame"),
                await get(port, path, Authorization="Bearer ööö"),
                await get(port, path + "?token=open-sesame"),
            ]
            assert {status for status, _ in refused} == {401}
            assert not any("sesame" in body for _, body in refused)
            async with (
                aiohttp.ClientSession() as session,
                session.get(
                    f"http://127.0.0.1:{port}{path}", headers={"Authorization": "Bearer open-sesame"}
                ) as answer,
            ):
                assert answer.status == 200

    run(scene())


def test_a_wrong_token_is_refused_even_where_none_is_needed() -> None:
    async def scene() -> None:
        async with served(Fleet(), token="open-sesame") as (port, _):
            assert (await get(port, "/health/live", Authorization="Bearer x"))[0] == 401

    run(scene())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8650", "LOCALHOST", "[::1]:80", "127.3.4.5:1"])
def test_loopback_is_asked_under_its_own_names(host: str) -> None:
    async def scene() -> None:
        async with served(Fleet()) as (port, _):
            assert (await get(port, "/status", Host=host))[0] == 200

    run(scene())


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "a b", "localhost@x"]
)
def test_a_page_of_the_web_cannot_reach_it_under_a_name_of_its_own(host: str) -> None:
    async def scene() -> None:
        async with served(Fleet()) as (port, _):
            request = f"GET /status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            answer = await say(port, request)
            assert answer.split(b" ")[1] in (b"421", b"400"), answer

    run(scene())


def test_other_sites_may_link_here_but_not_read() -> None:
    async def scene() -> None:
        async with served(Fleet()) as (port, _):
            assert (await get(port, "/status", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors"))[0] == 403
            assert (await get(port, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate"))[0] == 200

    run(scene())


def test_answers_forbid_what_a_browser_could_be_tricked_into() -> None:
    async def scene() -> None:
        async with served(Fleet()) as (port, _), aiohttp.ClientSession() as session:
            for path in ("/", "/status", "/nothing"):
                async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                    policy = answer.headers["Content-Security-Policy"]
                    assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
                    assert "unsafe" not in policy
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"
                    assert answer.headers["Cache-Control"] == "no-store"
                    assert answer.headers["Server"] == "rateway"
                    assert "Access-Control-Allow-Origin" not in answer.headers

    run(scene())


def test_only_reading_is_possible_and_bodies_are_not_read() -> None:
    async def scene() -> None:
        async with served(Fleet()) as (port, _), aiohttp.ClientSession() as session:
            for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
                async with session.request(method, f"http://127.0.0.1:{port}/status") as answer:
                    assert answer.status == 405
            async with session.head(f"http://127.0.0.1:{port}/status") as answer:
                assert answer.status == 200 and await answer.read() == b""
            head = b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
            assert b"405" in await say(port, head + b"x" * 1000)
            chunked = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n"
            assert b"200 OK" in await say(port, chunked)

    run(scene())


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(500)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 5000,
    ],
)
def test_malformed_requests_are_refused_and_leave_nothing(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        with caplog.at_level(logging.INFO):
            async with served(Fleet(), limits=STRICT) as (port, _):
                answer = await say(port, data)
                assert answer == b"" or answer.split(b" ")[1].startswith(b"4"), answer[:200]
                assert (await get(port, "/health/live"))[0] == 200
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

    run(scene())


def test_a_head_that_does_not_come_ends_the_connection() -> None:
    async def scene() -> None:
        async with served(Fleet(), limits=STRICT) as (port, _):
            for start in (b"", b"GET / HTTP/1.1\r\nHost: loc"):
                assert await say(port, start) == b""

    run(scene())


def test_a_head_that_comes_a_byte_at_a_time_ends_as_well() -> None:
    async def scene() -> None:
        async with served(Fleet(), limits=STRICT) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            reading = asyncio.create_task(reader.read())
            sent = 0
            with contextlib.suppress(ConnectionError):
                for byte in b"GET / HTTP/1.1\r\nX: " + b"a" * 200:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    sent += 1
                    done, _ = await asyncio.wait([reading], timeout=0.02)
                    if done:
                        break
            assert sent < 100
            with contextlib.suppress(ConnectionError):
                await reading

    run(scene())


def test_a_thousand_idle_connections_do_not_keep_a_probe_out() -> None:
    async def scene() -> None:
        async with served(Fleet(), limits=STRICT) as (port, _):
            held = []
            for _ in range(300):
                sock = socket.socket()
                sock.setblocking(False)
                with contextlib.suppress(ConnectionError):
                    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
                held.append(sock)
            assert (await get(port, "/health/live"))[0] == 200
            for sock in held:
                sock.close()

    run(scene())


async def ask_and_not_read(port: int, request: bytes, times: int) -> socket.socket:
    """A peer that asks and takes nothing: its buffer is as small as the kernel allows."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    with contextlib.suppress(TimeoutError, ConnectionError):
        # What the server does not read stays here; the requests that it has read are enough.
        async with asyncio.timeout(0.05):
            await loop.sock_sendall(sock, request * times)
    return sock


ASKED_AND_NOT_READ = {
    "the page": ("/", 200),
    "health": ("/health/ready", 5000),
    "nothing": ("/nothing", 2000),
    "much": ("/much", 4),
}


@pytest.mark.checklist("K21")
@pytest.mark.parametrize("what", ASKED_AND_NOT_READ)
def test_peers_that_ask_and_do_not_read_never_make_a_probe_fail(what: str) -> None:
    path, times = ASKED_AND_NOT_READ[what]

    async def scene() -> None:
        async def much(trusted: bool) -> Answer:
            return Answer(b"x" * 4_000_000)

        http_views = HttpViews(Fleet(), patience_s=180.0)
        server = HttpServer("127.0.0.1:0", None, {**http_views.routes(), "/much": Route(much)})
        bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(server.run(bound.set_result))
        port = await bound
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        held = [await ask_and_not_read(port, request, times) for _ in range(80)]
        try:
            # Each on a connection of its own, as kubelets and load balancers ask.
            for number in range(60):
                status, _ = await get(port, ("/health/live", "/health/ready")[number % 2])
                assert status == 200, number
            # A stream of metrics and pages goes on, too, once their readers have had their time.
            async with asyncio.timeout(server.limits.unread_s + 60.0):
                while (await get(port, "/metrics"))[0] != 200:
                    await asyncio.wait([serving], timeout=0.05)
            # Where the peers' own requests are probes, too many of them may come at once.
            assert path.startswith("/health") or server.rejected.get("probe", 0) == 0
        finally:
            for sock in held:
                sock.close()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    run(scene())


@pytest.mark.checklist("K21")
def test_a_request_that_finds_no_slot_is_refused_at_once_and_counted() -> None:
    async def scene() -> None:
        begun, go_on = asyncio.Semaphore(0), asyncio.Event()

        async def slow(trusted: bool) -> Answer:
            begun.release()
            await go_on.wait()
            return Answer(b"done")

        async def quick(trusted: bool) -> Answer:
            return Answer(b"ok")

        routes = {"/slow": Route(slow), "/health/live": Route(quick, open=True, probe=True)}
        server = HttpServer("127.0.0.1:0", None, routes, Limits(connections=3))
        bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(server.run(bound.set_result))
        port = await bound
        asking = [asyncio.create_task(get(port, "/slow")) for _ in range(3)]
        for _ in asking:
            await begun.acquire()
        assert (await get(port, "/slow"))[0] == 503
        assert (await get(port, "/health/live"))[0] == 200
        go_on.set()
        assert [await each for each in asking] == [(200, "done")] * 3
        assert (await get(port, "/slow"))[0] == 200
        assert server.rejected == {"page": 1}
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    run(scene())


@pytest.mark.checklist("K21")
def test_a_probe_that_nobody_reads_makes_room_for_another() -> None:
    async def scene() -> None:
        limits = Limits(connections=8, probes=2, requests_per_s=10_000, burst=10_000)
        async with served(Fleet(), limits=limits) as (port, _):
            request = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
            held = [await ask_and_not_read(port, request, 20_000) for _ in range(6)]
            for _ in range(20):
                assert (await get(port, "/health/live"))[0] == 200
            for sock in held:
                sock.close()

    run(scene())


def test_an_answer_that_nobody_takes_ends_the_connection() -> None:
    async def scene() -> None:
        async def much(trusted: bool) -> Answer:
            return Answer(b"x" * 64_000_000)

        async def little(trusted: bool) -> Answer:
            return Answer(b"x")

        limits = replace(STRICT, connections=1)
        server = HttpServer("127.0.0.1:0", None, {"/": Route(much), "/little": Route(little)}, limits)
        bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(server.run(bound.set_result))
        port = await bound
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        await asyncio.get_running_loop().sock_sendall(sock, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        # Its place, the only one, is another's then.
        question = b"GET /little HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        while not (await say(port, question)).startswith(b"HTTP/1.1 200"):
            await asyncio.wait([serving], timeout=0.02)
        sock.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    run(scene())


def test_requests_beyond_the_pace_wait_their_turn() -> None:
    async def scene() -> None:
        limits = Limits(requests_per_s=50, burst=5)
        fleet = Fleet()
        async with served(fleet, limits=limits) as (port, _), aiohttp.ClientSession() as session:
            began = time.monotonic()
            for _ in range(20):
                async with session.get(f"http://127.0.0.1:{port}/status") as answer:
                    assert answer.status == 200
            took = time.monotonic() - began
            assert took > 0.25
            assert fleet.asked <= 2 + took / FRESH_S  # one look serves all that come within its time

    run(scene())


def test_watchers_are_bounded_and_a_place_is_free_again() -> None:
    async def scene() -> None:
        limits = Limits(watchers=2)
        async with served(Fleet(), limits=limits) as (port, _), aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/events"
            first, second = await session.get(url), await session.get(url)
            async with session.get(url) as third:
                assert third.status == 503
            first.close()
            async with asyncio.timeout(60):
                while True:
                    again = await session.get(url)
                    if again.status == 200:
                        break
                    again.close()
                    await asyncio.sleep(0.02)
            again.close()
            second.close()

    run(scene())


def test_a_port_that_is_taken_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        monkeypatch.setattr("rateway.transports.http.server.RETRY_S", 0.05)
        holder = socket.socket()
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        server = HttpServer(f"127.0.0.1:{port}", Secret("x"), {})
        serving = asyncio.create_task(server.run(bound.set_result))
        await asyncio.wait([bound], timeout=0.1)
        assert not bound.done()
        holder.close()
        assert await asyncio.wait_for(bound, 60.0) == port
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    run(scene())
