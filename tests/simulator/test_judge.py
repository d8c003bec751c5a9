"""What a client's payloads must be; garbage of any shape is a fault in words, never an exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rateway.simulator import judge

PRESENCE: dict[str, Any] = {"since": None, "activities": [], "status": "online", "afk": False}
VOICE: dict[str, Any] = {"guild_id": "1", "channel_id": "2", "self_mute": False, "self_deaf": True}
IDENTIFY: dict[str, Any] = {
    "token": "t",
    "intents": 0,
    "properties": {"os": "linux", "browser": "b", "device": "d"},
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
FIELDS = [
    "token", "intents", "properties", "shard", "presence", "large_threshold", "activities", "since", "status", "afk",
    "guild_id", "channel_id", "self_mute", "self_deaf", "query", "limit", "user_ids", "guild_ids", "fields",
]  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [
        judge.identify_fault,
        judge.shard_fault,
        judge.presence_fault,
        judge.voice_fault,
        judge.members_fault,
        judge.sounds_fault,
        judge.channel_info_fault,
    ],
)
@given(d=JSON | st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_anything_at_all_gets_a_verdict(fault: Callable[[Any], str | None], d: Any) -> None:
    assert isinstance(fault(d), str | None)


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({}, True),
        ({"since": 91879201}, True),
        ({"activities": [{"name": "n", "type": 0, "url": "https://twitch.tv/x"}]}, True),
        ({"activities": None}, False),
        ({"activities": [{"name": "n"}]}, False),
        ({"activities": [{"name": "n", "type": 0, "url": None}]}, False),
        ({"status": "away"}, False),
        ({"status": []}, False),
        ({"afk": None}, False),
        ({"since": "now"}, False),
    ],
)
def test_a_presence_has_its_documented_fields(changes: dict[str, Any], right: bool) -> None:
    assert (judge.presence_fault(PRESENCE | changes) is None) is right
    assert (judge.identify_fault(IDENTIFY | {"presence": PRESENCE | changes}) is None) is right


@pytest.mark.parametrize("missing", ["since", "status", "afk", "activities"])
def test_no_field_of_a_presence_may_be_missing(missing: str) -> None:
    assert judge.presence_fault({name: value for name, value in PRESENCE.items() if name != missing})


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({}, True),
        ({"channel_id": None}, True),
        ({"guild_id": 1}, False),
        ({"guild_id": str(1 << 64)}, False),
        ({"channel_id": 2}, False),
        ({"self_deaf": 0}, False),
    ],
)
def test_a_voice_state_has_its_documented_fields(changes: dict[str, Any], right: bool) -> None:
    assert (judge.voice_fault(VOICE | changes) is None) is right


@pytest.mark.parametrize(
    ("d", "right"),
    [
        ({"guild_id": "1", "query": "", "limit": 0}, True),
        ({"guild_id": "1", "query": "a", "limit": 100}, True),
        ({"guild_id": "1", "user_ids": ["1"] * 100}, True),
        ({"guild_id": "1", "user_ids": "5"}, True),
        ({"guild_id": ["1"], "query": "", "limit": 0}, False),
        ({"guild_id": "1", "query": "a", "limit": 0}, False),
        ({"guild_id": "1", "query": "a", "limit": 101}, False),
        ({"guild_id": "1", "query": ""}, False),
        ({"guild_id": "1"}, False),
        ({"guild_id": "1", "query": "", "limit": 0, "user_ids": ["1"]}, False),
        ({"guild_id": "1", "user_ids": ["1"] * 101}, False),
        ({"guild_id": "1", "user_ids": [1]}, False),
    ],
)
def test_a_member_request_is_one_of_two_kinds(d: dict[str, Any], right: bool) -> None:
    assert (judge.members_fault(d) is None) is right


@pytest.mark.parametrize(
    ("shard", "right"),
    [
        ([0, 1], True),
        (None, True),
        ([1, 1], False),
        ([0, 0], False),
        ([-1, 2], False),
        ([0], False),
        ("0", False),
    ],
)
def test_a_shard_is_below_the_number_of_shards(shard: Any, right: bool) -> None:
    assert (judge.shard_fault(shard) is None) is right


def test_a_nonce_is_measured_in_bytes() -> None:
    assert judge.nonce_fault({"nonce": "x" * 32}) is None and judge.nonce_fault({}) is None
    assert judge.nonce_fault({"nonce": "x" * 33}) and judge.nonce_fault({"nonce": "é" * 17})
    assert judge.nonce_fault({"nonce": 5})
