"""A running gateway is asked over a socket in its state folder, by its owner alone."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest

from rateway.transports import control
from tests.aio import run


async def echo(words: list[str]) -> object:
    return {"words": words}


def test_a_request_is_answered_with_one_json_document(tmp_path: Path) -> None:
    async def scenario() -> bytes:
        async with control.serve(tmp_path, echo):
            return await control.ask(tmp_path, "restart-shard", "7")

    assert json.loads(run(scenario())) == {"words": ["restart-shard", "7"]}


def test_only_the_owner_can_open_the_socket(tmp_path: Path) -> None:
    async def scenario() -> int:
        async with control.serve(tmp_path, echo):
            return stat.S_IMODE((tmp_path / control.SOCKET_NAME).stat().st_mode)

    assert run(scenario()) == 0o600


def test_a_state_path_too_long_for_a_socket_address_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)

    async def scenario() -> bytes:
        async with control.serve(deep, echo):
            return await control.ask(deep, "status")

    assert json.loads(run(scenario())) == {"words": ["status"]}


def test_a_socket_left_by_a_killed_gateway_is_replaced(tmp_path: Path) -> None:
    (tmp_path / control.SOCKET_NAME).touch()

    async def scenario() -> bytes:
        async with control.serve(tmp_path, echo):
            return await control.ask(tmp_path, "status")

    assert b"status" in run(scenario())


def test_without_a_gateway_the_error_says_what_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(control.ControlError, match="STATE_DIR"):
        run(control.ask(tmp_path, "status"))


@pytest.mark.parametrize("request_line", [b"\n", b"x" * 10_000 + b"\n", b"\xff\xfe\n"])
def test_a_malformed_request_gets_an_answer_and_harms_nobody(tmp_path: Path, request_line: bytes) -> None:
    async def scenario() -> tuple[bytes, bytes]:
        async with control.serve(tmp_path, echo):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / control.SOCKET_NAME))
            writer.write(request_line)
            answer = await reader.readline()
            writer.close()
            return answer, await control.ask(tmp_path, "status")

    answer, after = run(scenario())
    assert json.loads(answer)
    assert json.loads(after) == {"words": ["status"]}
