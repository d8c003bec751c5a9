"""The stored layout holds while it can be resumed, and only a person's wish or its loss changes it."""

from __future__ import annotations

import pytest
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
