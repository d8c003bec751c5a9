"""What arrived from a fleet is held against what happened, in however many sessions it was sent."""

from __future__ import annotations

import msgspec
from rateway.demo.audit import Receipts
from rateway_protocol.contract.messages import Gap
from rateway_simulator.judge.ledger import Ledger, SessionRecord

from tests.fleet.audit import FleetAudit, audit_fleet

BODIES = [b'{"id":"%d"}' % number for number in range(4)]


def sent(*sessions: str) -> Ledger:
    """A ledger in which each of these sessions of one shard was sent the same four events, one after another."""
    ledger = Ledger(limit=1000, wall=lambda: 0.0)
    for session in sessions:
        ledger.session_started(SessionRecord(session, 0, 1, 0, "none", 0.0))
    for number, body in enumerate(BODIES, 1):
        for session in sessions:
            ledger.sent(session, number, "MESSAGE_CREATE", body)
    return ledger


def arrive(receipts: Receipts, session: str, *numbers: int) -> None:
    for number in numbers:
        receipts.add(
            "MESSAGE_CREATE",
            f"{session}:0:{number}",
            BODIES[number - 1],
            republished=False,
            redelivered=False,
        )


def audited(ledger: Ledger, receipts: Receipts) -> FleetAudit:
    return audit_fleet(ledger.log(), receipts, lost_below=ledger.events)


def tell_gap(receipts: Receipts, session: str | None, received: int) -> None:
    gap = Gap(shard=0, old_session=session, settled=received, received=received, reason="test", since=0.0)
    receipts.add("RATEWAY_GAP", None, msgspec.json.encode(gap), republished=False, redelivered=False)


def test_what_one_session_or_the_other_delivered_is_not_lost() -> None:
    receipts = Receipts()
    arrive(receipts, "old", 1, 2)
    arrive(receipts, "new", 3, 4)
    found = audited(sent("old", "new"), receipts)
    assert (found.happened, found.lost, found.two_ids) == (4, 0, 0)
    assert found.clean


def test_what_arrived_in_two_sessions_is_under_two_ids() -> None:
    receipts = Receipts()
    arrive(receipts, "old", 1, 2, 3)
    arrive(receipts, "new", 3, 4)
    found = audited(sent("old", "new"), receipts)
    assert (found.lost, found.two_ids, found.doubled) == (0, 1, 0)
    assert not found.clean


def test_what_arrived_in_no_session_is_lost_unless_a_gap_that_names_its_session_tells_so() -> None:
    receipts = Receipts()
    arrive(receipts, "old", 1)
    tell_gap(receipts, None, 0)
    assert (audited(sent("old"), receipts).lost, audited(sent("old"), receipts).told) == (3, 0)
    tell_gap(receipts, "old", 2)
    found = audited(sent("old"), receipts)
    assert (found.lost, found.told) == (1, 2)


def test_what_came_twice_under_one_id_or_from_nowhere_is_counted() -> None:
    receipts = Receipts()
    arrive(receipts, "old", 1, 2, 2, 3, 4)
    arrive(receipts, "another", 1)
    found = audited(sent("old"), receipts)
    assert (found.doubled, found.unknown, found.lost) == (1, 1, 0)


def test_a_changed_body_is_seen() -> None:
    receipts = Receipts()
    arrive(receipts, "old", 1, 2, 3)
    receipts.add("MESSAGE_CREATE", "old:0:4", b"{}", republished=False, redelivered=False)
    assert audited(sent("old"), receipts).changed == 1


def test_what_happened_last_may_still_be_on_its_way() -> None:
    receipts, ledger = Receipts(), sent("old")
    arrive(receipts, "old", 1, 2, 3)
    assert audit_fleet(ledger.log(), receipts, lost_below=3).lost == 0
    assert audit_fleet(ledger.log(), receipts, lost_below=4).lost == 1


def test_what_a_returning_owner_publishes_after_its_successor_is_a_fault_and_what_a_death_doubles_is_none() -> (
    None
):
    receipts = Receipts()
    arrive(receipts, "old", 1, 2)
    for number in (2, 3, 4):
        receipts.add(
            "MESSAGE_CREATE",
            f"old:0:{number}",
            BODIES[number - 1],
            republished=False,
            redelivered=False,
            replayed=True,
        )
    found = audited(sent("old"), receipts)
    assert (found.doubled, found.returned, found.clean) == (1, 0, True)
    arrive(receipts, "old", 4)
    found = audited(sent("old"), receipts)
    assert (found.doubled, found.returned, found.clean) == (2, 1, False)


def test_what_happened_after_a_member_was_struck_may_not_come_twice() -> None:
    receipts = Receipts()
    arrive(receipts, "old", 1, 2, 2, 3, 4)
    assert audit_fleet(sent("old").log(), receipts, lost_below=4, struck_at=2).clean
    found = audit_fleet(sent("old").log(), receipts, lost_below=4, struck_at=1)
    assert (found.after_strike, found.clean) == (1, False)
