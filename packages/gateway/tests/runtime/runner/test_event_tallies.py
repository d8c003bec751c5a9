"""What is counted of events whose names come for the first time."""

from __future__ import annotations

from rateway.native.fast_path import EventPipeline
from rateway.runtime.runner.event_tallies import MOST_EVENT_NAMES, EventTallies
from rateway_protocol.discord.envelope import Envelope, UnreadableDispatch


def test_a_new_name_gets_a_counter_of_its_own() -> None:
    pipeline = EventPipeline()
    tallies = EventTallies(pipeline)
    assert tallies.count_new_name("MESSAGE_CREATE", Envelope(0, t="MESSAGE_CREATE")) == ""
    assert pipeline.events == {"MESSAGE_CREATE": 1}
    assert tallies.received == 1


def test_names_beyond_the_bound_are_counted_together_and_documented_ones_still_by_name() -> None:
    pipeline = EventPipeline()
    tallies = EventTallies(pipeline)
    for number in range(MOST_EVENT_NAMES + 5):
        assert tallies.count_new_name(f"ODD_{number}", Envelope(0)) == ""
    assert len(pipeline.events) == MOST_EVENT_NAMES and pipeline.other == 5
    tallies.count_new_name("MESSAGE_CREATE", Envelope(0))
    assert pipeline.events["MESSAGE_CREATE"] == 1
    assert tallies.received == MOST_EVENT_NAMES + 6


def test_what_cannot_be_published_is_counted_as_unreadable_with_its_reason() -> None:
    pipeline = EventPipeline()
    tallies = EventTallies(pipeline)
    assert tallies.count_new_name("", UnreadableDispatch(0, why="its name is not UTF-8"))
    assert pipeline.unreadable_why == "its name is not UTF-8"
    why = tallies.count_new_name("X" * 256, Envelope(0))
    assert why and pipeline.unreadable_why == why
    assert (pipeline.unreadable, pipeline.events, tallies.received) == (2, {}, 2)
