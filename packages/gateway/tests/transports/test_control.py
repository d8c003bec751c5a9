"""A running gateway is asked over a socket in its state folder, by its owner alone."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway import logs
from rateway.transports import control_socket

from tests.aio import run


async def echo(words: list[str]) -> object:
    return {"words": words}


def test_a_request_is_answered_with_one_json_document(tmp_path: Path) -> None:
    async def scenario() -> bytes:
        async with control_socket.serve(tmp_path, echo):
            return await control_socket.ask(tmp_path, "restart-shard", "7")

    assert json.loads(run(scenario())) == {"words": ["restart-shard", "7"]}


def test_only_the_owner_can_open_the_socket(tmp_path: Path) -> None:
    async def scenario() -> int:
        async with control_socket.serve(tmp_path, echo):
            return stat.S_IMODE((tmp_path / control_socket.SOCKET_NAME).stat().st_mode)

    assert run(scenario()) == 0o600


def test_a_state_path_too_long_for_a_socket_address_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)

    async def scenario() -> bytes:
        async with control_socket.serve(deep, echo):
            return await control_socket.ask(deep, "status")

    assert json.loads(run(scenario())) == {"words": ["status"]}


def test_a_socket_left_by_a_killed_gateway_is_replaced(tmp_path: Path) -> None:
    (tmp_path / control_socket.SOCKET_NAME).touch()

    async def scenario() -> bytes:
        async with control_socket.serve(tmp_path, echo):
            return await control_socket.ask(tmp_path, "status")

    assert b"status" in run(scenario())


def test_without_a_gateway_the_error_says_what_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(control_socket.ControlError, match="STATE_DIR"):
        run(control_socket.ask(tmp_path, "status"))


@pytest.mark.parametrize("request_line", [b"\n", b"x" * 10_000 + b"\n", b"\xff\xfe\n"])
def test_a_malformed_request_gets_an_answer_and_harms_nobody(tmp_path: Path, request_line: bytes) -> None:
    async def scenario() -> tuple[bytes, bytes]:
        async with control_socket.serve(tmp_path, echo):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / control_socket.SOCKET_NAME))
            writer.write(request_line)
            answer = await reader.readline()
            writer.close()
            return answer, await control_socket.ask(tmp_path, "status")

    answer, after = run(scenario())
    assert json.loads(answer)
    assert json.loads(after) == {"words": ["status"]}


async def said(path: Path, data: bytes) -> bytes:
    """What the socket answers to these bytes, until it closes."""
    reader, writer = await asyncio.open_unix_connection(str(path / control_socket.SOCKET_NAME))
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def test_hostile_requests_are_answered_or_closed_and_the_next_one_is_served(tmp_path: Path) -> None:
    async def fragile(words: list[str]) -> object:
        if words != ["status"]:
            raise KeyError(words[0])
        return {"words": words}

    async def scenario(requests: list[bytes]) -> list[bytes]:
        async with control_socket.serve(tmp_path, fragile):
            answers = [await said(tmp_path, request) for request in requests]
            return [*answers, await control_socket.ask(tmp_path, "status")]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.binary(max_size=60) | st.binary(min_size=5000, max_size=9000), max_size=5))
    def check(requests: list[bytes]) -> None:
        *answers, last = run(scenario(requests))
        assert json.loads(last) == {"words": ["status"]}
        for answer in answers:
            assert not answer or set(json.loads(answer)) & {"error", "words"}

    check()


def test_a_handler_that_raises_costs_its_request_only(tmp_path: Path) -> None:
    async def broken(words: list[str]) -> object:
        raise RuntimeError("no")

    async def scenario() -> bytes:
        async with control_socket.serve(tmp_path, broken):
            return await control_socket.ask(tmp_path, "status")

    assert "RuntimeError" in json.loads(run(scenario()))["error"]


def test_more_requests_than_there_are_seats_are_told_so_and_the_others_are_served(tmp_path: Path) -> None:
    async def scenario() -> tuple[list[bytes], bytes]:
        go_on = asyncio.Event()

        async def slow(words: list[str]) -> object:
            await go_on.wait()
            return {"words": words}

        async with control_socket.serve(tmp_path, slow):
            asking = [
                asyncio.create_task(said(tmp_path, b"status\n"))
                for _ in range(control_socket.MOST_CONNECTIONS)
            ]
            refused = b""
            while b"more than" not in refused:
                # Those before it may not all have been taken yet.
                one_more = asyncio.create_task(said(tmp_path, b"status\n"))
                done, _ = await asyncio.wait([one_more], timeout=0.5)
                if done:
                    refused = one_more.result()
                else:
                    asking.append(one_more)
            go_on.set()
            return await asyncio.gather(*asking), refused

    served, refused = run(scenario())
    assert b"64 ask at once" in refused
    assert sum(b"words" in answer for answer in served) >= control_socket.MOST_CONNECTIONS


@pytest.mark.checklist("K76")
def test_an_answer_shows_no_secret_that_a_peer_repeated(tmp_path: Path) -> None:
    logs.hide('sw0rd "fish"/marked', "amqp://user:other-s3cret@host/")
    said = {
        "why": 'ACCESS_REFUSED for sw0rd "fish"/marked',
        "notes": ["other-s3cret", "amqp://u:third-s3cret@h"],
        "token": "MTMxMzg5MjUyOTU3MzIwMDc2Nw.Gmarked.never-show-this-token-0123456789abcdef",
    }

    async def repeating(words: list[str]) -> object:
        return said

    async def scenario() -> bytes:
        async with control_socket.serve(tmp_path, repeating):
            return await control_socket.ask(tmp_path, "status")

    answer = run(scenario())
    assert set(json.loads(answer)) == set(said)
    for secret in (b"fish", b"s3cret", b"never-show"):
        assert secret not in answer
