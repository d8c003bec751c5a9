"""Who may dial which host, and when: one host's trouble is nothing to another's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from picows import WSListener, WSUpgradeRequest, ws_create_server
from picows.common import WSUpgradeResponse, WSUpgradeResponseWithListener
from rateway.runtime.runner.dialer import Dialer
from rateway.transports.websocket import DialError, WebSocket

from tests.aio import keep_silent, run


class Handler:
    def __init__(self) -> None:
        self.socket: WebSocket | None = None

    def opened(self, socket: WebSocket) -> None:
        self.socket = socket

    def message(self, data: bytes, binary: bool) -> None: ...
    def closed(self, code: int | None, reason: str) -> None: ...
    def failed(self, error: Exception) -> None: ...


class Host:
    """Answers upgrades with a status, or opens them (0)."""

    def __init__(self, status: int = 0, retry_after: str | None = None) -> None:
        self.status = status
        self.retry_after = retry_after
        self.dials = 0
        self.url = ""

    def answer(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        self.dials += 1
        if not self.status:
            return WSListener()
        headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        response = WSUpgradeResponse.create_error_response(self.status, b"no", headers)
        return WSUpgradeResponseWithListener(response, None)


@contextlib.asynccontextmanager
async def listening(*hosts: Host) -> AsyncIterator[None]:
    servers = []
    for host in hosts:
        server = await ws_create_server(host.answer, "127.0.0.1", 0)
        host.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/?v=10"
        servers.append(server)
    try:
        yield
    finally:
        for server in servers:
            server.close()


@contextlib.asynccontextmanager
async def silent() -> AsyncIterator[Host]:
    """A host that accepts TCP and says nothing."""
    host = Host()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host.dials += 1
        await keep_silent(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=2048)
    host.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/?v=10"
    try:
        yield host
    finally:
        server.close()


def a_dialer() -> Dialer:
    return Dialer(user_agent="test", max_message_bytes=1 << 20, ssl_context=lambda: None)


async def dial(dialer: Dialer, url: str, other: str | None = None, *, own: bool = True) -> DialError | None:
    handler = Handler()
    try:
        await dialer.dial(url, handler, resuming=other is not None, failures=0, other=other, own=own)
    except DialError as error:
        return error
    assert handler.socket is not None
    handler.socket.close(4900)
    return None


@pytest.mark.checklist("K23")
@pytest.mark.parametrize("status", [403, 429, 500, 503, 504])
@pytest.mark.parametrize("retry_after", [None, "600", "1e18", "inf", "-4", "nan"])
def test_a_host_that_refuses_holds_no_other(status: int, retry_after: str | None) -> None:
    async def scenario() -> None:
        bad, good = Host(status, retry_after), Host()
        async with listening(bad, good):
            dialer = a_dialer()
            held: list[tuple[str, float, int]] = []
            dialer.on_refusal = lambda *told: held.append(told)
            assert await dial(dialer, bad.url) is not None
            async with asyncio.timeout(100):
                found = await asyncio.gather(*(dial(dialer, good.url) for _ in range(20)))
            assert found == [None] * 20
            assert good.dials == 20
            name = bad.url.split("/")[2]
            assert [each[0] for each in held] == [name]
            assert 0 < held[0][1] <= 86_400
            assert f"HTTP {status}" in dialer.refusal(name)
            assert dialer.refusal(good.url.split("/")[2]) == ""
            assert dialer.failures == {"5xx" if status >= 500 else str(status): 1}

    run(scenario())


@pytest.mark.checklist("K23")
def test_resumes_leave_a_host_that_answers_503_at_once_when_another_is_well() -> None:
    async def scenario() -> None:
        bad, good = Host(503), Host()
        async with listening(bad, good):
            dialer = a_dialer()

            async def shard() -> None:
                error = await dial(dialer, bad.url, good.url)
                assert error is not None and error.status == 503
                assert await dial(dialer, good.url, bad.url, own=False) is None

            async with asyncio.timeout(60):
                await asyncio.gather(*(shard() for _ in range(400)))
            assert good.dials == 400
            assert bad.dials <= 110, "what was under way when the first refusal came, and no more"

    run(scenario())


@pytest.mark.checklist("K23")
def test_resumes_leave_a_host_that_is_silent_to_one_of_them_when_another_is_well() -> None:
    async def scenario() -> None:
        good = Host()
        async with listening(good), silent() as mute:
            dialer = a_dialer()

            async def shard() -> None:
                error = await dial(dialer, mute.url, good.url)
                assert error is not None and error.silent
                assert await dial(dialer, good.url, mute.url, own=False) is None

            await asyncio.gather(*(shard() for _ in range(400)))
            assert good.dials == 400
            assert mute.dials <= 110, "what was under way in the one time-out of all, and no more"

    run(scenario())


@pytest.mark.checklist("K23")
def test_the_sessions_own_host_is_not_kept_waiting_by_a_429_of_the_main_one() -> None:
    async def scenario() -> None:
        main, own = Host(429, "600"), Host()
        async with listening(main, own):
            dialer = a_dialer()
            assert await dial(dialer, main.url) is not None
            async with asyncio.timeout(100):
                error = await dial(dialer, main.url, own.url, own=False)
                assert error is not None and error.status == 429
                assert await dial(dialer, own.url, main.url) is None
            assert main.dials == 1

    run(scenario())


@pytest.mark.checklist("K23")
def test_when_both_hosts_refuse_the_first_that_may_be_dialled_again_is_waited_for() -> None:
    async def scenario() -> float:
        own, main = Host(503, "600"), Host(503, "1")
        async with listening(own, main):
            dialer = a_dialer()
            assert await dial(dialer, own.url, main.url) is not None
            assert await dial(dialer, main.url, own.url, own=False) is not None
            main.status = 0
            loop = asyncio.get_running_loop()
            began = loop.time()
            error = await dial(dialer, own.url, main.url)
            assert error is not None and error.status == 503
            assert await dial(dialer, main.url, own.url, own=False) is None
            return loop.time() - began

    # Not the ten minutes of the other.
    assert run(scenario()) < 100.0


@pytest.mark.checklist("K23")
def test_what_another_process_was_refused_holds_that_host_only_and_names_are_bounded() -> None:
    async def scenario() -> None:
        good = Host()
        async with listening(good):
            dialer = a_dialer()
            for number in range(1000):
                dialer.hold(f"host-{number}.discord.test", 60.0, 503)
            dialer.hold("held.discord.test", 600.0, 429)
            assert "HTTP 429" in dialer.refusal("held.discord.test")
            assert len(dialer.notes()) <= 10
            async with asyncio.timeout(100):
                assert await dial(dialer, good.url) is None

    run(scenario())
