"""The stored layout holds while it can be resumed, and only a person's wish or its loss changes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.fleet.choice import Choice, StoredLayout, keep_stored, take_recommended

STORED = StoredLayout(shards=16, per_cluster=8, gateway_url="wss://gateway.discord.gg")


@pytest.mark.checklist("H16")
def test_a_stored_layout_holds_whatever_discord_recommends_by_now() -> None:
    choice = keep_stored(STORED, resumable=16, reshard=False, shards=None, per_cluster=8)
    assert isinstance(choice, Choice)
    assert choice.layout.shards == 16
    assert choice.gateway_url == STORED.gateway_url


def test_one_resumable_session_is_enough_to_keep_the_layout() -> None:
    assert isinstance(keep_stored(STORED, resumable=1, reshard=False, shards=16, per_cluster=8), Choice)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reshard": True}, "RESHARD"),
        ({"shards": 32}, "SHARDS=32"),
        ({"per_cluster": 4}, "shards a cluster"),
        ({"resumable": 0}, "no stored session"),
    ],
)
def test_what_gives_the_layout_up_is_said(changes: dict[str, object], words: str) -> None:
    asked: dict[str, object] = {"resumable": 5, "reshard": False, "shards": None, "per_cluster": 8}
    why = keep_stored(STORED, **{**asked, **changes})  # type: ignore[arg-type]  # a table of keyword arguments
    assert isinstance(why, str)
    assert words in why


def test_without_a_stored_layout_there_is_nothing_to_say() -> None:
    assert keep_stored(None, resumable=0, reshard=False, shards=None, per_cluster=8) == ""


def test_the_recommendation_gets_the_extra_shards_on_top() -> None:
    choice = take_recommended(shards=None, recommended=10, extra=8, per_cluster=8, gateway_url="wss://x")
    assert choice.layout.shards == 18
    assert len(choice.layout.clusters) == 3


def test_an_explicit_number_of_shards_takes_no_extra_ones() -> None:
    choice = take_recommended(shards=10, recommended=99, extra=8, per_cluster=8, gateway_url="wss://x")
    assert choice.layout.shards == 10


@pytest.mark.checklist("K27")
def test_a_refused_24_becomes_32_where_discord_recommends_16() -> None:
    asked = {"shards": None, "recommended": 16, "extra": 8, "per_cluster": 8, "gateway_url": "wss://x"}
    first = take_recommended(**asked)  # type: ignore[arg-type]  # a table of keyword arguments
    assert first.layout.shards == 24, "the contract's formula, until Discord refuses it"
    again = take_recommended(**asked, refused=24)  # type: ignore[arg-type]  # as above
    assert again.layout.shards == 32
    assert "refused 24" in again.words and "16" in again.words


@pytest.mark.checklist("K27", "K29")
@given(st.integers(1, 2000), st.integers(0, 64), st.integers(0, 4000))
def test_only_a_refused_total_is_rounded_up_and_to_the_next_multiple(
    recommended: int, extra: int, refused: int
) -> None:
    choice = take_recommended(
        shards=None,
        recommended=recommended,
        extra=extra,
        per_cluster=8,
        gateway_url="wss://x",
        refused=refused,
    )
    total = choice.layout.shards
    if recommended + extra > refused:
        assert total == recommended + extra
    else:
        assert total % recommended == 0
        assert refused < total <= refused + recommended
    assert choice.refused == refused


@pytest.mark.checklist("K27")
def test_a_stored_layout_that_discord_refused_does_not_hold() -> None:
    refused = StoredLayout(shards=16, per_cluster=8, gateway_url="wss://x", refused=16)
    why = keep_stored(refused, resumable=16, reshard=False, shards=None, per_cluster=8)
    assert isinstance(why, str)
    assert "refuses" in why
    later = StoredLayout(shards=32, per_cluster=8, gateway_url="wss://x", refused=16)
    kept = keep_stored(later, resumable=16, reshard=False, shards=None, per_cluster=8)
    assert isinstance(kept, Choice)
    assert kept.refused == 16
