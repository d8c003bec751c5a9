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
    said, _ = await asyncio.wait_for(process.communicate(), 30.0)
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
