"""What a client's payloads must be; garbage of any shape is a fault in words, never an exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway_simulator.judge import identify as judge

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
FIELDS = ["token", "intents", "properties", "shard", "presence", "large_threshold"]


@pytest.mark.parametrize("fault", [judge.identify_fault, judge.shard_fault])
@given(d=JSON | st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_anything_at_all_gets_a_verdict(fault: Callable[[Any], str | None], d: Any) -> None:
    assert isinstance(fault(d), str | None)


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({}, True),
        ({"large_threshold": None, "shard": None, "compress": None}, True),
        ({"properties": {"$os": "linux", "$browser": "b", "$device": "d"}}, True),
        ({"large_threshold": 250}, True),
        ({"large_threshold": 251}, False),
        ({"token": None}, False),
        ({"intents": "1"}, False),
        ({"properties": {}}, False),
    ],
)
def test_an_identify_has_its_documented_fields(changes: dict[str, Any], right: bool) -> None:
    assert (judge.identify_fault(IDENTIFY | changes) is None) is right


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
