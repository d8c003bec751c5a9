"""Commands of workers: what is sent on, what is refused, and in which words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway_protocol.contract.commands import (
    ALLOWED,
    CommandRequest,
    command_answer,
    deadline,
    identifier,
    parse_command,
)
from rateway_protocol.contract.errors import ErrorCode, Fault

PRESENCE: dict[str, Any] = {"since": None, "activities": [], "status": "idle", "afk": False}
GUILD = 613425648685547541  # shard 8 of 16


def parse(payload: Any, headers: dict[str, object] | None, shards: int = 16) -> CommandRequest | Fault:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return parse_command(body, headers, shard_count=shards)


def fault(payload: Any, headers: dict[str, object] | None = None) -> ErrorCode:
    answer = parse(payload, {"shard_id": 0} if headers is None else headers)
    assert isinstance(answer, Fault), answer
    assert answer.message
    return answer.code


def test_the_original_worker_command_is_sent_on() -> None:
    command = parse(
        b'{"op":3,"d":{"since":null,"activities":[],"status":"idle","afk":false}}', {"shard_id": 3}
    )
    assert isinstance(command, CommandRequest)
    assert (command.shard_id, command.op, command.d) == (3, 3, PRESENCE)
    assert json.loads(command.payload) == {"op": 3, "d": PRESENCE}


@pytest.mark.parametrize("guild_id", [GUILD, str(GUILD)])
def test_a_guild_chooses_the_shard(guild_id: object) -> None:
    d = {"guild_id": str(GUILD), "channel_id": None, "self_mute": False, "self_deaf": False}
    command = parse({"op": 4, "d": d}, {"guild_id": guild_id})
    assert isinstance(command, CommandRequest)
    assert command.shard_id == 8


def test_what_is_no_part_of_a_payload_is_not_sent_on() -> None:
    command = parse({"t": "X", "s": 3, "d": PRESENCE, "op": 3, "extra": 1}, {"shard_id": 0})
    assert isinstance(command, CommandRequest)
    assert json.loads(command.payload) == {"op": 3, "d": PRESENCE}


@pytest.mark.parametrize("op", [-1, 0, 1, 2, 5, 6, 7, 9, 10, 11, 12, 14, 30, 32, 42, 44, 4000])
def test_the_gateway_own_conversation_and_unknown_opcodes_are_refused(op: int) -> None:
    assert op not in ALLOWED
    assert fault({"op": op, "d": {}}) == ErrorCode.UNKNOWN_OPCODE


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, ErrorCode.NO_TARGET),
        ({"shard": 0}, ErrorCode.NO_TARGET),
        ({"shard_id": 16}, ErrorCode.NO_SUCH_SHARD),
        ({"shard_id": -1}, ErrorCode.NO_SUCH_SHARD),
        ({"shard_id": 2**63}, ErrorCode.NO_SUCH_SHARD),
        ({"shard_id": True}, ErrorCode.INVALID),
        ({"shard_id": "0"}, ErrorCode.INVALID),
        ({"shard_id": 0.0}, ErrorCode.INVALID),
        ({"guild_id": True}, ErrorCode.INVALID),
        ({"guild_id": "x"}, ErrorCode.INVALID),
        ({"guild_id": -5}, ErrorCode.INVALID),
        ({"guild_id": 2**64}, ErrorCode.INVALID),
        ({"guild_id": "٣"}, ErrorCode.INVALID),
    ],
)
def test_headers_that_name_no_shard_are_told_apart(headers: dict[str, object], code: ErrorCode) -> None:
    assert fault({"op": 3, "d": PRESENCE}, headers) == code


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b"3", b'{"d":{}}', b'{"op":"3","d":{}}', b'{"op":true}', b"\xff\xfe"]
)
def test_a_body_that_is_no_payload_is_bad_json(body: bytes) -> None:
    assert fault(body) == ErrorCode.BAD_JSON


@pytest.mark.checklist("C14")
def test_4097_bytes_are_refused_and_4096_are_not() -> None:
    def payload(size: int) -> bytes:
        text = (
            b'{"op":3,"d":'
            + json.dumps(
                PRESENCE | {"activities": [{"name": "PAD", "type": 0}]}, separators=(",", ":")
            ).encode()
            + b"}"
        )
        return text.replace(b"PAD", b"x" * (size - len(text) + 3))

    assert len(payload(4096)) == 4096
    assert isinstance(parse(payload(4096), {"shard_id": 0}), CommandRequest)
    assert fault(payload(4097)) == ErrorCode.TOO_LARGE
    assert fault(b"x" * 100_000) == ErrorCode.TOO_LARGE
    # What counts is what goes to Discord: white space does not.
    assert isinstance(parse(payload(4096).replace(b":", b" : "), {"shard_id": 0}), CommandRequest)


@pytest.mark.checklist("A14")
@pytest.mark.parametrize("activities", [None, "none"])
def test_a_presence_that_would_cost_the_session_is_refused(activities: object) -> None:
    assert fault({"op": 3, "d": PRESENCE | {"activities": activities}}) == ErrorCode.INVALID


@pytest.mark.checklist("D15")
def test_a_members_request_for_a_guild_of_another_shard_is_refused() -> None:
    request = {"op": 8, "d": {"guild_id": str(GUILD), "query": "", "limit": 0}}
    assert fault(request, {"shard_id": 7}) == ErrorCode.INVALID
    assert isinstance(parse(request, {"shard_id": 8}), CommandRequest)


@given(
    st.binary(max_size=200),
    st.dictionaries(st.sampled_from(["shard_id", "guild_id"]), st.integers() | st.text() | st.none()),
)
def test_whatever_comes_is_a_command_or_a_fault(body: bytes, headers: dict[str, object]) -> None:
    answer = parse_command(body, headers, shard_count=4)
    assert isinstance(answer, CommandRequest | Fault)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3)
)


@given(
    st.sampled_from(sorted(ALLOWED)),
    st.dictionaries(st.sampled_from(["guild_id", "status", "activities", "query"]), JSON),
)
def test_whatever_d_holds_is_judged_and_never_raises(op: int, d: dict[str, object]) -> None:
    assert isinstance(parse({"op": op, "d": d}, {"shard_id": 0}), CommandRequest | Fault)


@pytest.mark.parametrize(
    ("expiration", "seconds"),
    [
        ("5000", 5.0),
        ("0", 0.0),
        (b"250", 0.25),
        (None, 60.0),
        ("soon", 60.0),
        ("-1", 60.0),
        (5000, 60.0),
        ("9" * 30, 60.0),
    ],
)
def test_a_deadline_is_the_expiration_in_milliseconds_or_the_default(
    expiration: object, seconds: float
) -> None:
    assert deadline(expiration, 60.0) == seconds


@pytest.mark.checklist("K14", "K15")
@pytest.mark.parametrize("expiration", ["4233600000", b"4233600000", "60001", None, "soon", "9" * 30])
def test_a_deadline_has_its_own_bound_whatever_is_asked_for(expiration: object) -> None:
    assert deadline(expiration, 90.0, 60.0) == 60.0
    assert deadline("100", 90.0, 60.0) == 0.1


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_an_id_is_an_integer_or_a_decimal_string(number: int) -> None:
    assert identifier(number) == identifier(str(number)) == identifier(str(number).encode()) == number


def test_the_answer_to_a_command_names_its_shard() -> None:
    assert json.loads(command_answer(7)) == {"shard_id": 7}
