"""How long a repeated attempt waits."""

from __future__ import annotations

from rateway.backoff import Backoff


def test_delays_double_up_to_the_bound_whatever_the_count() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.delay(failures) for failures in (0, 1, 2, 3, 10_000)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_count_below_nought_is_none() -> None:
    assert Backoff(0.1, 30.0).delay(-3) == 0.1


def test_a_first_delay_beyond_the_bound_is_the_bound() -> None:
    assert Backoff(5.0, 3.0).delay(0) == 3.0
