"""What a former owner has kept is dropped where a later owner has published it, and published where none has."""

from __future__ import annotations

import random

import pytest
from rateway.fleet.leftovers import PATIENCE_S, Judgement, SessionPosition, event_named

S = (0, "s")


def live(through: int, name: str = "s") -> SessionPosition:
    return SessionPosition(0, name, through, is_open=True)


def ended(through: int, name: str = "s") -> SessionPosition:
    return SessionPosition(0, name, through, is_open=False)


@pytest.mark.parametrize(
    ("message_id", "named"),
    [
        ("s:0:7", ((0, "s"), 7)),
        ("a:b~2:31:100", ((31, "a:b~2"), 100)),
        ("unreadable:s:0:7", ((0, "s"), 7)),
        ("oversize:s:0:7", ((0, "s"), 7)),
        ("refused:s:0:7", ((0, "s"), 7)),
        # Of these a later owner may have none.
        ("s:0:7:r1", None),
        ("s:0:7:before", None),
        ("gap:s:0", None),
        (None, None),
        ("", None),
    ],
)
def test_an_event_and_what_stands_for_it_are_named_by_their_message_id(
    message_id: str | None, named: object
) -> None:
    assert event_named(message_id) == named


def test_what_a_live_session_has_settled_is_dropped_and_the_rest_is_waited_for() -> None:
    found = Judgement({S: 20}, 0.0)
    found.hear([live(10)], 1.0)
    assert found.waits_for == 1
    assert found.is_elsewhere("s:0:10")
    assert not found.is_elsewhere("s:0:11")
    found.hear([live(20)], 2.0)
    assert not found.waits_for
    assert found.is_elsewhere("s:0:20")


def test_a_session_that_could_not_be_resumed_has_its_only_copy_here() -> None:
    found = Judgement({S: 20}, 0.0)
    found.hear([live(10)], 1.0)
    found.hear([ended(10), live(3, "t")], 2.0)
    assert not found.waits_for
    assert [seq for seq in range(1, 21) if not found.is_elsewhere(f"s:0:{seq}")] == list(range(11, 21))
    assert not found.is_elsewhere("t:0:1")


def test_a_lost_session_with_unconfirmed_events_is_waited_for() -> None:
    found = Judgement({S: 20}, 0.0)
    found.hear([SessionPosition(0, "s", 12, is_open=True)], 1.0)
    assert found.waits_for
    found.hear([ended(15)], 2.0)
    assert not found.waits_for
    assert (found.is_elsewhere("s:0:15"), found.is_elsewhere("s:0:16")) == (True, False)


def test_a_session_that_no_owner_knows_of_and_another_shard_s_are_published() -> None:
    found = Judgement({S: 20, (1, "s"): 5}, 0.0)
    found.hear([SessionPosition(1, "s", 5, is_open=True)], 1.0)
    assert not found.waits_for
    assert (found.is_elsewhere("s:0:1"), found.is_elsewhere("s:1:5")) == (False, True)


def test_what_a_former_owner_had_settled_counts_after_its_successor_has_forgotten_it() -> None:
    found = Judgement({S: 20}, 0.0)
    found.hear([live(15)], 1.0)
    found.hear([], 2.0)
    assert not found.waits_for
    assert (found.is_elsewhere("s:0:15"), found.is_elsewhere("s:0:16")) == (True, False)


def test_it_is_not_waited_for_ever_and_only_while_there_is_no_news() -> None:
    found = Judgement({S: 20}, 0.0)
    assert not found.is_exhausted(PATIENCE_S - 1)
    found.hear([live(10)], PATIENCE_S - 1)
    found.hear([live(10)], PATIENCE_S)
    assert not found.is_exhausted(PATIENCE_S + 1)
    assert found.is_exhausted(2 * PATIENCE_S - 1)
    found.wait(2 * PATIENCE_S - 1)
    assert not found.is_exhausted(2 * PATIENCE_S)


@pytest.mark.parametrize("seed", range(200))
def test_in_whatever_way_owners_follow_one_another_each_event_is_published_once(seed: int) -> None:
    """A session's events are 1 to n. An owner settles a prefix; it is lost with a tail that it has kept; the next one
    resumes from the settled sequence, as far as Discord still has the session, is lost with a tail of its own, and so
    on. Those that return ask the last one.
    """
    chance = random.Random(seed)
    last, sent, settled = 60, 0, 0
    published = [0] * (last + 1)
    kept: list[range] = []
    is_live = True
    for _ in range(chance.randrange(1, 5)):
        sent = chance.randrange(max(sent, settled), last + 1)
        upto = chance.randrange(settled, sent + 1)
        for seq in range(settled + 1, upto + 1):
            published[seq] += 1
        kept.append(range(upto + 1, sent + 1))
        settled = upto
        if chance.random() < 0.2:
            is_live = False
            break
    if is_live:
        # Discord sends the last owner everything above what the record names.
        for seq in range(settled + 1, sent + 1):
            published[seq] += 1
    else:
        # Two that have both kept a part of a session which then ended would publish it each.
        kept = kept[-1:]
    through = sent if is_live else settled
    for each in kept:
        if each:
            found = Judgement({S: each[-1]}, 0.0)
            found.hear([SessionPosition(0, "s", through, is_open=is_live)], 1.0)
            assert not found.waits_for
            for seq in each:
                published[seq] += not found.is_elsewhere(f"s:0:{seq}")
    assert published[1 : sent + 1] == [1] * sent
