"""`rateway proxy`: what it needs, and what it refuses with a remedy."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp

from tests.aio import run

NEEDED = {"DISCORD_TOKEN": "the-bots.own.token", "AMQP_URI": "amqp://guest:password-marked@127.0.0.1:9/"}


def call(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-P", "-m", "rateway", "proxy", *arguments],
        env=kept | environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_token_and_broker_are_required_and_intents_are_not() -> None:
    said = call()
    assert said.returncode == 78
    assert "DISCORD_TOKEN" in said.stderr and "AMQP_URI" in said.stderr and "INTENTS" not in said.stderr


def test_an_address_that_is_none_is_a_mistake_of_the_command_line() -> None:
    said = call("--address", "7878", **NEEDED)
    assert said.returncode == 2 and "127.0.0.1" in said.stderr


def test_an_address_of_the_command_line_is_held_to_the_same_rules() -> None:
    said = call("--address", "0.0.0.0:7878", **NEEDED)
    assert said.returncode == 78 and "PROXY_TOKEN" in said.stderr and "PROXY_CERT" in said.stderr


def test_a_certificate_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    missing = call(PROXY_CERT=str(tmp_path / "none.pem"), **NEEDED)
    assert missing.returncode == 78 and "none.pem" in missing.stderr
    odd = tmp_path / "odd.pem"
    odd.write_text("this is no certificate")
    assert call(PROXY_CERT=str(odd), **NEEDED).returncode == 78


def test_it_serves_without_a_broker_says_what_it_waits_for_and_stops_in_order(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "log"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}

    async def it() -> None:
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "rateway", "proxy", "--address", f"127.0.0.1:{port}",
                env=kept | NEEDED, stderr=out,
            )  # fmt: skip
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.ws_connect(f"ws://127.0.0.1:{port}/?v=10&encoding=json") as bot:
                        assert '"op":10' in await bot.receive_str()
                        process.send_signal(signal.SIGTERM)
                        assert '"op":7' in await bot.receive_str()
                        break
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.05)
        assert await process.wait() == 0

    run(it())
    said = log.read_text()
    assert "127.0.0.1:9" in said and "password-marked" not in said and "bots.own" not in said
