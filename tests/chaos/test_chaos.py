"""A short chaos run of each form of the gateway; ``make chaos`` runs longer ones. A failing seed is added here."""

from __future__ import annotations

from pathlib import Path

import pytest
from rateway.proxy.sessions.session_id import Session

from tests.aio import run
from tests.chaos.faults import FAULTS
from tests.chaos.lanes import run_lanes
from tests.chaos.plan import BOTS_KINDS, KINDS, LAST, plan
from tests.chaos.stream_audit import BotSession, Entry, audit_merged, audit_session

FAULTS_IN_SHORT = 60


def test_a_seed_gives_the_same_faults_and_every_kind_comes() -> None:
    steps = plan(7, 100)
    assert steps == plan(7, 100)
    assert steps != plan(8, 100)
    assert {step.kind for step in steps} == set(KINDS)
    assert set(KINDS | BOTS_KINDS) == set(FAULTS)
    assert not any(step.together for step in steps if step.kind in LAST)
    assert not steps[-1].together


@pytest.mark.timeout(1500)
def test_nothing_is_lost_and_nothing_spent_whatever_fails(tmp_path: Path) -> None:
    results = run(run_lanes(tmp_path, FAULTS_IN_SHORT, 1, (2, 1), say=print), timeout=1480)
    assert sum(result.faults for result in results) == FAULTS_IN_SHORT, [result.notes for result in results]
    for result in results:
        assert result.lost == 0, result.notes
        assert result.violations == [], result.notes
        assert result.identifies <= result.identifies_allowed, result.notes
        assert result.tracebacks == 0, result.notes
        assert result.log_missing == 0, result.notes
        assert result.bot_missing == result.bot_doubled == 0, result.notes
        assert result.clean, result.notes
    assert [result.event_log for result in results] == [True, False]


def _session(*dispatches: tuple[int, str], complete_at: int = 0) -> BotSession:
    """A session with two guilds that began behind offset 10; the CRC-32 of a dispatch is the length of its name."""
    session = BotSession(Session(1, "log", 10, 2, 0, 1, 1, 0, 50, 1), {"1", "2"})
    for seq, name in dispatches:
        session.add(seq, len(name), name, complete_at, str(seq - 1) if name == "GUILD_CREATE" else "")
    return session


_ENTRIES = {
    offset: Entry(offset, name, len(name), offset)
    for offset, name in (
        (11, "TYPING_START"),
        (12, "MESSAGE_CREATE"),
        (14, "MESSAGE_DELETE"),
        (15, "CHANNEL_UPDATE"),
    )
}
_BEGIN = ((1, "READY"), (2, "GUILD_CREATE"), (3, "GUILD_CREATE"))
_REST = ((5, "MESSAGE_CREATE"), (7, "MESSAGE_DELETE"), (8, "CHANNEL_UPDATE"))


@pytest.mark.parametrize(
    ("dispatches", "missing", "doubled", "wrong"),
    [
        ((*_BEGIN, *_REST), 0, 0, 0),
        ((*_BEGIN[:2], (2, "TYPING_START"), _BEGIN[2], *_REST), 0, 0, 0),
        ((*_BEGIN, (2, "MESSAGE_CREATE"), (2, "TYPING_START"), *_REST[1:]), 0, 0, 0),
        ((*_BEGIN, _REST[0], (5, "RESUMED"), *_REST[1:]), 0, 0, 0),
        ((*_BEGIN, _REST[0], _REST[2]), 1, 0, 0),
        ((*_BEGIN, *_REST[:2]), 1, 0, 0),
        ((*_BEGIN, _REST[0], *_REST), 0, 1, 0),
        ((*_BEGIN, _REST[1], _REST[0], _REST[2]), 0, 0, 1),
        ((*_BEGIN, *_REST, (3, "GUILD_CREATE")), 0, 0, 1),
        ((*_BEGIN, _REST[0], (7, "MESSAGE_UPDATES"), _REST[2]), 1, 0, 1),
    ],
)  # fmt: skip
def test_the_audit_of_a_bot_finds_what_is_missing_comes_twice_or_is_none_of_the_log(
    dispatches: tuple[tuple[int, str], ...], missing: int, doubled: int, wrong: int
) -> None:
    found = audit_session(_session(*dispatches, complete_at=12), _ENTRIES, {})
    assert (found.missing, found.doubled, found.wrong) == (missing, doubled, wrong), found.examples


def test_a_session_that_another_one_followed_needs_no_events_after_its_last() -> None:
    session = _session(*_BEGIN, _REST[0])
    session.is_last = False
    assert audit_session(session, _ENTRIES, {}).missing == 1
    session.complete_at = 12
    assert audit_session(session, _ENTRIES, {}).missing == 0


@pytest.mark.parametrize(
    ("names", "missing", "doubled", "wrong"),
    [
        (("MESSAGE_DELETE", "CHANNEL_UPDATE"), 0, 0, 0),
        (("CHANNEL_UPDATE", "MESSAGE_DELETE"), 0, 0, 0),
        (("MESSAGE_DELETE", "GUILD_DELETE", "CHANNEL_UPDATE"), 0, 0, 0),
        (("CHANNEL_UPDATE",), 1, 0, 0),
        (("MESSAGE_DELETE", "CHANNEL_UPDATE", "CHANNEL_UPDATE"), 0, 1, 0),
        (("MESSAGE_DELETE", "CHANNEL_UPDATE", "MESSAGE_UPDATES"), 0, 0, 1),
    ],
)  # fmt: skip
def test_the_audit_of_a_session_over_all_shards_counts(
    names: tuple[str, ...], missing: int, doubled: int, wrong: int
) -> None:
    session = _session(*_BEGIN, *((4, name) for name in names), complete_at=14)
    entries = {0: {key: each for key, each in _ENTRIES.items() if key != 15}, 1: {15: _ENTRIES[15]}}
    found = audit_merged(session, entries)
    assert (found.missing, found.doubled, found.wrong) == (missing, doubled, wrong), found.examples
