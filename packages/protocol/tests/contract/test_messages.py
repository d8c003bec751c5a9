"""Bodies of the gateway's own messages, and answers that tell of a failure."""

from __future__ import annotations

import json

import pytest
from rateway_protocol.contract import messages
from rateway_protocol.contract.errors import ErrorCode, Fault, error_body, error_headers

GAP = messages.Gap(shard=3, old_session="abc", settled=10, received=14, reason="op 9", since=1700000000.5)


def test_a_gap_says_what_may_be_missing() -> None:
    assert json.loads(messages.encode(GAP)) == {
        "shard": 3,
        "old_session": "abc",
        "settled": 10,
        "received": 14,
        "new_session": None,
        "reason": "op 9",
        "since": 1700000000.5,
    }


@pytest.mark.checklist("H14")
def test_a_gap_keeps_its_id_when_it_is_told_again_with_its_new_session() -> None:
    body = messages.encode(GAP)
    again = messages.with_new_session(body, "def")
    assert messages.gap_id(body) == messages.gap_id(again) == messages.gap_id(GAP) == "gap:abc:3"
    assert json.loads(again) == json.loads(body) | {"new_session": "def"}


def test_ids_are_strings_and_what_is_not_known_is_null() -> None:
    oversize = messages.Oversize(event="GUILD_CREATE", shard=1, seq=2, size=17_000_000, guild_id="42")
    assert json.loads(messages.encode(oversize)) == {
        "event": "GUILD_CREATE", "shard": 1, "seq": 2, "size": 17_000_000, "limit": None, "guild_id": "42",
    }  # fmt: skip
    left = messages.GuildLeft(shard=0, guild_id="42")
    assert json.loads(messages.encode(left)) == {"shard": 0, "guild_id": "42"}
    assert messages.guild_left_id("abc", 42) == "left:abc:42"


def test_a_fault_is_answered_with_code_and_message() -> None:
    fault = Fault(ErrorCode.NO_SUCH_SHARD, "there is no shard 9")
    assert json.loads(error_body(fault)) == {
        "error": {"code": "no_such_shard", "message": "there is no shard 9"}
    }
    assert error_headers(fault) == {"status": "error", "error": "no_such_shard: there is no shard 9"}
