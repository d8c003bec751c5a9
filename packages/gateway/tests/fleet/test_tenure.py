"""A broker that delivers nothing to a candidate, or refuses what it writes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from rateway.fleet.port import FleetRecord
from rateway.fleet.tenure import (
    LOOK_S,
    MOST_SILENT_S,
    SILENT_S,
    UNANSWERED_S,
    Answer,
    Order,
    Publish,
    Reopen,
    SubjectElection,
    Won,
)

NOBODY = Publish(FleetRecord(0, 0, ""))


def ticked(election: SubjectElection, until: float) -> list[tuple[float, Order]]:
    """What is ordered by the election's own timer, which channels follow at once."""
    found: list[tuple[float, Order]] = []
    while (at := election.wake_at()) is not None and at <= until:
        for order in election.tick(at):
            found.append((at, order))
            match order:
                case Publish():
                    assert election.confirmed(at, 1, False) == []
                case Reopen(after):
                    assert election.opened(at + after, False) == []
    return found


def waiting() -> SubjectElection:
    election = SubjectElection("one")
    election.campaign()
    assert election.opened(0.0, False) == []
    return election


def test_it_asks_who_is_active_and_then_goes_to_the_end_of_the_line_seldomer_each_time() -> None:
    found = ticked(waiting(), 400.0)
    first, second = SILENT_S, SILENT_S + UNANSWERED_S
    assert found[:4] == [
        (first, NOBODY),
        (second, Reopen(0.0)),
        (second + 2 * SILENT_S, NOBODY),
        (second + 2 * SILENT_S + UNANSWERED_S, Reopen(0.0)),
    ]
    reopened = [at for at, order in found if order == Reopen(0.0)]
    pauses = [after - before for before, after in pairwise(reopened)]
    assert max(pauses) == pauses[-1] == MOST_SILENT_S + UNANSWERED_S


def test_what_is_delivered_to_the_new_channel_is_taken_as_ever() -> None:
    election = waiting()
    (_, last) = ticked(election, SILENT_S + UNANSWERED_S)
    now = last[0]
    kept = FleetRecord(7, 3, "two", released=True, body=b"sessions")
    (claim,) = election.delivered(now, 1, kept)
    assert claim == Publish(FleetRecord(8, 0, "one"))
    # It is the first silence again when it waits the next time.
    election.closed(now)
    election.opened(now, False)
    assert election.wake_at() == now + SILENT_S


def owning() -> SubjectElection:
    """The owner of a subject that nobody had before; its record is publish 2 of the channel."""
    election = SubjectElection("one")
    election.campaign()
    assert election.opened(0.0, True) == [NOBODY]
    assert election.confirmed(0.1, 1, False) == [] and election.delivered(0.1, 1, NOBODY.record) == []
    (claim,) = election.tick(1.2)
    assert claim == Publish(FleetRecord(1, 0, "one"))
    (first,) = election.delivered(1.3, 2, claim.record)
    assert first == Publish(FleetRecord(1, 1, "one"))
    election.confirmed(1.4, 3, True)
    (_, won) = election.delivered(1.4, 3, first.record)
    assert isinstance(won, Won) and election.epoch == 1
    return election


@pytest.mark.parametrize("is_delivered", [False, True])
def test_a_candidate_whose_first_record_is_refused_takes_another_channel(is_delivered: bool) -> None:
    election = waiting()
    kept = FleetRecord(7, 3, "two", released=True)
    (claim,) = election.delivered(1.0, 1, kept)
    assert isinstance(claim, Publish)
    (first,) = election.delivered(1.1, 2, claim.record)
    assert first == Publish(FleetRecord(8, 1, "one"))
    if is_delivered:
        assert election.delivered(1.2, 3, first.record) == []
    assert election.refused(2, True) == [Reopen(LOOK_S)]
    assert election.epoch is None and not election.is_idle
    # What it knows of epochs stays.
    assert election.opened(2.0, False) == []
    assert election.delivered(2.0, 1, kept) == [Publish(FleetRecord(9, 0, "one"))]


def test_an_owner_whose_record_is_refused_writes_it_on_another_channel_and_stays_the_owner() -> None:
    election = owning()
    assert election.write(2.0, 1, b"newer", 5) == [Publish(FleetRecord(1, 2, "one", body=b"newer"))]
    assert election.refused(4, False) == [Answer(5, "away"), Reopen(LOOK_S)]
    assert election.is_doubtful and election.epoch == 1
    (again,) = election.opened(2.5, False)
    assert again == Publish(FleetRecord(1, 3, "one", body=b"newer"))
    assert election.confirmed(2.6, 1, False) == []
    election.delivered(2.6, 1, again.record)
    assert election.confirmed_order == (1, 3) and not election.is_doubtful


def test_a_refusal_of_nothing_that_is_known_changes_nothing() -> None:
    election = owning()
    assert election.refused(17, False) == []
    assert election.confirmed_order == (1, 1) and not election.is_doubtful
