"""Where durations are counted."""

from __future__ import annotations

import math

from rateway.histogram import Histogram


def test_a_duration_counts_up_to_its_edge_and_the_longest_under_an_infinite_one() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.1, 0.5, 1.0, 7.0):
        histogram.add(seconds)
    assert histogram.counts() == [(0.1, 1), (1.0, 2), (math.inf, 1)]


def test_many_durations_of_one_length_are_added_at_once() -> None:
    histogram = Histogram((0.1,))
    histogram.add(0.5, 4)
    assert (histogram.total, histogram.counts()) == (2.0, [(0.1, 0), (math.inf, 4)])
