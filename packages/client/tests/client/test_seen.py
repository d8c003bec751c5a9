"""Recognising repeated events."""

from __future__ import annotations

import pytest
from rateway_client import GatewayError, Seen


def test_ids_are_forgotten_by_number_and_by_age() -> None:
    seen = Seen(most=3, seconds=10)
    for number in range(5):
        seen.note(f"s:0:{number}", float(number))
    assert [f"s:0:{number}" in seen for number in range(5)] == [False, False, True, True, True]
    seen.note("s:0:9", 13.5)
    assert len(seen) == 2 and "s:0:3" not in seen and "s:0:4" in seen


def test_an_id_noted_again_is_young_again() -> None:
    seen = Seen(most=2)
    for name in ("a", "b", "a", "c"):
        seen.note(name, 0.0)
    assert "a" in seen and "b" not in seen and "c" in seen


@pytest.mark.parametrize(
    ("code", "again"), [("loading", True), ("queue_full", True), ("elsewhere", False), ("new", False)]
)
def test_an_error_says_whether_it_is_worth_trying_again(code: str, again: bool) -> None:
    error = GatewayError(code, "words")
    assert error.worth_trying_again is again
    assert str(error) == f"{code}: words"
