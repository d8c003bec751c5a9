"""`rateway health`: an exit code for probes that have no shell."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from tests.http.fleet import Fleet, served

from tests.aio import run


async def health(*words: str, **environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rateway", "health", *words,
        env={"PATH": os.environ["PATH"], **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), 90.0)
    assert process.returncode is not None
    return process.returncode, said.decode()


def test_live_and_ready_are_told_apart() -> None:
    async def scene() -> None:
        fleet = Fleet()
        fleet.publishers[1] = {"connected": False, "why": "refused"}
        async with served(fleet) as (port, _):
            assert await health(HTTP_ADDRESS=f"127.0.0.1:{port}") == (0, "ok\n")
            code, said = await health("--ready", "--address", f"127.0.0.1:{port}")
            assert (code, said) == (1, "failing (503)\n  the broker is away for cluster 1: refused\n")

    run(scene())


def test_whoever_listens_everywhere_is_asked_on_loopback_and_needs_no_token() -> None:
    async def scene() -> None:
        async with served(Fleet(), token="open-sesame") as (port, _):
            assert await health(HTTP_ADDRESS=f"0.0.0.0:{port}") == (0, "ok\n")

    run(scene())


def test_the_address_is_taken_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rateway.toml"

    async def scene() -> None:
        async with served(Fleet()) as (port, _):
            file.write_text(
                f'token = "a.b.c"\nintents = 1\namqp = "amqp://x/"\nhttp_address = "127.0.0.1:{port}"\n'
            )
            assert await health("-c", str(file)) == (0, "ok\n")

    run(scene())


@pytest.mark.parametrize(("address", "code"), [("127.0.0.1:1", 1), ("nonsense", 78)])
def test_where_nothing_answers_the_answer_is_no(address: str, code: int) -> None:
    found, said = run(health("--address", address))
    assert found == code and "rateway health:" in said and "Traceback" not in said


@pytest.mark.checklist("K73")
@pytest.mark.parametrize(
    "address", ["a..b:80", f"{'a' * 64}:80", "x y:80", "a\x01b:80", "127.0.0.1:²", ":", "no port"]
)
def test_an_address_that_is_none_is_told(address: str) -> None:
    code, said = run(health("--address", address))
    assert code == 78 and "is no host:port" in said and "Traceback" not in said


@pytest.mark.checklist("K71")
@pytest.mark.parametrize(
    "body", ["5", "[]", '{"reasons": 5}', '{"reasons": [1, null, {}]}', "[" * 100_000, "", "<html>"]
)
def test_whatever_answers_is_shown_or_is_no_gateway(body: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 503 No\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    async def scene() -> tuple[int, str]:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            return await health("--address", f"127.0.0.1:{server.sockets[0].getsockname()[1]}")

    code, said = run(scene())
    assert code == 1 and "Traceback" not in said
