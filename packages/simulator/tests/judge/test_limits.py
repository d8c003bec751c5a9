"""Sliding windows, identify buckets and the daily budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway_simulator.judge.limits import IdentifyLimits, Verdict, Window


@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 5))
def test_a_window_admits_exactly_what_leaves_every_window_within_the_limit(
    gaps: list[float], limit: int
) -> None:
    window, now = Window(limit, 10.0), 0.0
    times: list[float] = []
    for gap in gaps:
        now += gap
        within = sum(now - earlier < 10.0 for earlier in times)
        assert window.admit(now) is (within < limit)
        times.append(now)


def _limits(**changes: float) -> IdentifyLimits:
    values = {"max_concurrency": 2, "window": 5.0, "total": 10, "remaining": None, "reset": 100.0, "now": 0.0}
    return IdentifyLimits(**(values | changes))  # type: ignore[arg-type]


def test_a_bucket_admits_one_identify_in_five_seconds_by_arrival() -> None:
    limits = _limits()
    assert limits.arrived(0, 1.0)[0] is Verdict.GRANTED
    assert limits.arrived(1, 1.0)[0] is Verdict.GRANTED
    verdict, since = limits.arrived(2, 5.9)
    assert verdict is Verdict.TOO_EARLY and abs(since - 4.9) < 1e-9
    assert limits.arrived(0, 5.95)[0] is Verdict.TOO_EARLY


@pytest.mark.checklist("K53")
def test_a_refused_identify_begins_no_window_so_that_a_library_that_tries_again_at_once_comes_in() -> None:
    limits = _limits()
    assert limits.arrived(0, 1.0)[0] is Verdict.GRANTED
    # disgo and discordgo after op 9: again as soon as they are refused.
    verdicts = [limits.arrived(0, at)[0] for at in (2.0, 4.5, 7.0, 9.5)]
    assert verdicts == [Verdict.TOO_EARLY, Verdict.TOO_EARLY, Verdict.GRANTED, Verdict.TOO_EARLY]
    assert limits.remaining == 5


def test_the_budget_counts_refused_identifies_and_is_full_again_after_its_time() -> None:
    limits = _limits(remaining=2)
    limits.arrived(0, 0.0)
    limits.arrived(0, 0.0)
    assert limits.arrived(1, 1.0)[0] is Verdict.BUDGET_SPENT
    assert limits.session_start_limit(40.0) == {
        "total": 10,
        "remaining": 0,
        "reset_after": 60_000,
        "max_concurrency": 2,
    }
    assert limits.arrived(1, 100.0)[0] is Verdict.GRANTED
    assert limits.session_start_limit(100.0)["remaining"] == 9
