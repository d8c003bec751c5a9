"""The proxy that the gateway starts: a process of its own, replaced when it dies, ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from rateway import hardening, logs
from rateway.config import Settings, load
from rateway.config.handover import encode_settings
from rateway.demo.broker import free_ports
from rateway.runtime.proxy_child import ProxyChild
from rateway.transports.proxy_line import ProxyLine, ProxyStatus

from tests.aio import run

TOKEN, PROXY_TOKEN = "bot.token.of-the-proxys-tests", "token-of-workers-of-the-test"


def settings(port: int, **more: str) -> Settings:
    """Of a gateway whose broker is not there: bots can connect, and wait."""
    given = {
        "DISCORD_TOKEN": TOKEN,
        "INTENTS": "1",
        "AMQP_URI": "amqp://guest:password-of-the-broker@127.0.0.1:9/",
        "PROXY_ADDRESS": f"127.0.0.1:{port}",
        "PROXY_TOKEN": PROXY_TOKEN,
    }
    return load(None, given | more)


def free_port() -> int:
    """Return a port that is free now, below those of outgoing connections."""
    return free_ports(1)[0]


@contextlib.asynccontextmanager
async def running(child: ProxyChild) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(child.run())
    try:
        yield task
    finally:
        await child.stop()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def status(child: ProxyChild, other_than: int = 0) -> ProxyStatus:
    """What it says, once it says something."""
    while child.status is None or child.status.pid == other_than:  # noqa: ASYNC110 - it announces itself nowhere
        await asyncio.sleep(0.02)
    return child.status


async def hello(port: int) -> None:
    """A bot connects and is greeted, as soon as somebody listens."""
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.ws_connect(f"ws://127.0.0.1:{port}/?v=10&encoding=json") as bot:
                    assert '"op":10' in await bot.receive_str()
                    return
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.02)


def test_it_serves_bots_says_how_it_is_and_ends_with_the_gateway() -> None:
    async def it() -> None:
        port = free_port()
        child = ProxyChild(settings(port))
        async with running(child) as task:
            await hello(port)
            said = await status(child)
            assert said.address == f"127.0.0.1:{port}" and said.memory_bytes > 1_000_000
            assert said.pid != os.getpid() and child.notes() == []
            await child.stop()
            await task
            assert child.status is None
            with pytest.raises(ProcessLookupError):
                os.kill(said.pid, 0)

    run(it())


def test_no_secret_is_in_its_arguments_or_environment() -> None:
    async def it() -> None:
        child = ProxyChild(settings(free_port()))
        os.environ["PROXY_TOKEN"] = PROXY_TOKEN
        try:
            async with running(child):
                pid = (await status(child)).pid
                seen = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        finally:
            del os.environ["PROXY_TOKEN"]
        for secret in (TOKEN, PROXY_TOKEN, "password-of-the-broker"):
            assert secret.encode() not in seen

    run(it())


def test_one_that_is_killed_is_replaced() -> None:
    async def it() -> None:
        port = free_port()
        child = ProxyChild(settings(port))
        async with running(child):
            first = (await status(child)).pid
            os.kill(first, signal.SIGKILL)
            second = (await status(child, first)).pid
            assert second != first and child.restarts == 1
            await hello(port)

    run(it())


async def connects(host: str, port: int) -> bool:
    """Dial; whether the system takes the connection."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_no_dial_is_refused_while_a_dead_one_is_replaced_and_each_is_once_it_has_stopped(host: str) -> None:
    async def it() -> None:
        port = free_port()
        child = ProxyChild(settings(port, PROXY_ADDRESS=f"{host}:{port}"))
        bare = host.strip("[]")
        async with running(child) as task:
            first = (await status(child)).pid
            while not await connects(bare, port):  # noqa: ASYNC110 - it announces itself nowhere
                await asyncio.sleep(0.02)
            os.kill(first, signal.SIGKILL)
            while child.status is None or child.status.pid == first:
                assert await connects(bare, port)
                await asyncio.sleep(0.02)
            assert child.restarts == 1
            await child.stop()
            await task
            assert not await connects(bare, port)

    run(it())


def test_a_host_that_is_a_name_is_the_proxys_alone() -> None:
    async def it() -> None:
        port = free_port()
        child = ProxyChild(settings(port, PROXY_ADDRESS=f"localhost:{port}"))
        async with running(child):
            await hello(port)
            os.kill((await status(child)).pid, signal.SIGKILL)
            await hello(port)

    run(it())


def test_one_whose_settings_are_wrong_is_given_up_and_noted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def it() -> None:
        port = free_port()
        child = ProxyChild(settings(port, PROXY_CERT=str(tmp_path / "missing.pem")))
        async with running(child) as task:
            await task
            (note,) = child.notes()
            assert "settings" in note and child.restarts == 0
            assert not await connects("127.0.0.1", port)

    logs.hide(TOKEN)
    run(it())
    assert "PROXY_CERT" in capfd.readouterr().err


def test_when_the_gateway_is_gone_it_serves_on_until_it_is_told_to_leave() -> None:
    """The end of the line is all that it knows of a gateway that was killed."""

    async def it() -> None:
        ours, theirs = socket.socketpair()
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            *hardening.child_command("rateway.proxy.process", str(theirs.fileno())),
            pass_fds=(theirs.fileno(),),
            stderr=asyncio.subprocess.PIPE,
        )
        theirs.close()
        line = await ProxyLine.open(ours)
        line.send(encode_settings(settings(port)))
        assert (await line.read_status()) is not None
        process.send_signal(signal.SIGTERM)
        assert (await line.read_status()) is not None, "with the gateway there, the gateway alone decides"
        line.close()
        assert process.stderr is not None
        while b"the gateway is gone" not in await process.stderr.readline():
            pass
        # The signal that came before counts now.
        assert await process.wait() == 0

    run(it())


def test_the_next_gateways_proxy_shares_the_address_with_the_one_that_was_left_behind() -> None:
    async def it() -> None:
        port = free_port()
        ours, theirs = socket.socketpair()
        left = await asyncio.create_subprocess_exec(
            *hardening.child_command("rateway.proxy.process", str(theirs.fileno())),
            pass_fds=(theirs.fileno(),),
            stderr=asyncio.subprocess.DEVNULL,
        )
        theirs.close()
        line = await ProxyLine.open(ours)
        line.send(encode_settings(settings(port)))
        await hello(port)
        line.close()
        child = ProxyChild(settings(port))
        async with running(child):
            await status(child)
            left.send_signal(signal.SIGTERM)
            assert await left.wait() == 0
            await hello(port)

    run(it())
