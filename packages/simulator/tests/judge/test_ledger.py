"""The ledger: columns that give back what was put in, bounded."""

from __future__ import annotations

from array import array
from itertools import count

import pytest
from rateway_simulator.judge.ledger import Ledger, SessionRecord, digest, lines


def _ledger(limit: int = 1000) -> Ledger:
    clock = count()
    ledger = Ledger(limit=limit, wall=lambda: float(next(clock)))
    for shard, session in enumerate("ab"):
        ledger.session_started(SessionRecord(session, shard, 2, 1, "none", 0.0))
    return ledger


def test_single_events_and_runs_stand_in_one_order() -> None:
    ledger = _ledger()
    ledger.sent("a", 1, "READY", b"{}")
    names = array("H", [ledger.name_index("TYPING_START"), ledger.name_index("READY")])
    ledger.sent_many("b", 5, names, array("I", [digest(b"1"), digest(b"2")]))
    ledger.sent("a", 2, "TYPING_START", b"3")
    assert [(e.index, e.session, e.shard, e.seq, e.event, e.crc32) for e in ledger.log()] == [
        (0, "a", 0, 1, "READY", digest(b"{}")),
        (1, "b", 1, 5, "TYPING_START", digest(b"1")),
        (2, "b", 1, 6, "READY", digest(b"2")),
        (3, "a", 0, 2, "TYPING_START", digest(b"3")),
    ]
    assert [sent.seq for sent in ledger.log(session="b")] == [5, 6]
    assert list(ledger.log(session="unknown")) == []
    assert ledger.sessions["a"].sent == 2 and ledger.sessions["b"].sent == 6


def test_a_full_ledger_drops_its_oldest_events_and_keeps_their_indexes() -> None:
    ledger = _ledger(limit=20)
    for seq in range(1, 101):
        ledger.sent("a", seq, "E", b"")
    kept = list(ledger.log())
    assert ledger.events == 100 and len(kept) <= 20 and ledger.dropped == 100 - len(kept)
    assert [(sent.index, sent.seq) for sent in kept] == [(n, n + 1) for n in range(ledger.dropped, 100)]
    assert [sent.seq for sent in ledger.log(since=98)] == [99, 100]


def test_a_session_ends_once() -> None:
    ledger = _ledger()
    ledger.session_ended("a", "first")
    ledger.session_ended("a", "second")
    assert ledger.sessions["a"].ended == "first"
    assert ledger.summary()["sessions_alive"] == 1


def test_violations_are_of_known_rules_and_are_told_with_the_rule_once() -> None:
    ledger = _ledger()
    ledger.violation("send-rate", "121 in 60 s", session="a", shard=0)
    ledger.violation("send-rate", "122 in 60 s", session="a", shard=0)
    with pytest.raises(KeyError):
        ledger.violation("politeness", "said nothing")
    assert ledger.summary()["rules_broken"] == {"send-rate": 2}
    text = lines(ledger.violations)
    assert text[0] == "send-rate shard 0: 121 in 60 s" and text[1].startswith("    rule: At most 120")
    assert len(text) == 3


def test_warnings_are_apart_from_violations() -> None:
    ledger = _ledger()
    ledger.violation("members-rate", "1 s too early", shard=0)
    summary = ledger.summary()
    assert (summary["violations"], summary["rules_broken"]) == (0, {})
    assert (summary["warnings"], summary["rules_warned"]) == (1, {"members-rate": 1})
    assert [warning.detail for warning in ledger.warnings] == ["1 s too early"]
