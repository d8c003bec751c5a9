"""When names without a queue are logged."""

from __future__ import annotations

from rateway.runtime.runner.unrouted_names import (
    FIRST_LINE_AFTER_S,
    MOST_NAMES,
    NEXT_LINE_AFTER_S,
    UnroutedNames,
)


def test_names_are_collected_into_one_line() -> None:
    names = UnroutedNames()
    assert names.note("B", False, 100.0) == 100.0 + FIRST_LINE_AFTER_S
    assert names.note("A", False, 101.0) is None
    assert names.line(110.0).startswith(
        "no queue is bound for 2 event names, the broker drops these events: A, B."
    )


def test_a_name_that_has_a_queue_by_then_is_not_logged() -> None:
    names = UnroutedNames()
    due = names.note("A", False, 0.0)
    assert due is not None
    names.note("A", True, 1.0)
    assert names.line(due) == ""
    # Nothing was logged, so the next line need not wait.
    assert names.note("A", False, 20.0) == 20.0 + FIRST_LINE_AFTER_S


def test_lines_keep_their_distance() -> None:
    names = UnroutedNames()
    due = names.note("A", False, 0.0)
    assert due is not None and names.line(due)
    assert names.note("B", False, due + 1) == due + NEXT_LINE_AFTER_S


def test_a_line_has_room_for_some_names_and_counts_all() -> None:
    names = UnroutedNames()
    for number in range(MOST_NAMES + 1):
        names.note(f"NAME_{number:02}", False, 0.0)
    line = names.line(10.0)
    assert f"for {MOST_NAMES + 1} event names" in line and "NAME_11 …" in line and "NAME_12" not in line
