"""The audit: lost, doubled, changed, unknown and out of order are each seen, and nothing else is."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from rateway.demo.audit import Receipts, audit


@dataclass(frozen=True)
class Line:
    session: str
    shard: int
    seq: int
    event: str
    crc32: int


def ledger(count: int, session: str = "s") -> list[Line]:
    return [Line(session, 3, seq, "MESSAGE_CREATE", zlib.crc32(body(seq))) for seq in range(1, count + 1)]


def body(seq: int) -> bytes:
    return b'{"n":%d}' % seq


def arrive(
    receipts: Receipts, seq: int, *, session: str = "s", republished: bool = False, redelivered: bool = False
) -> None:
    receipts.add(
        "MESSAGE_CREATE", f"{session}:3:{seq}", body(seq), republished=republished, redelivered=redelivered
    )


def test_all_that_was_sent_and_arrived_once_is_clean() -> None:
    receipts = Receipts()
    for seq in range(1, 11):
        arrive(receipts, seq)
    result = audit(ledger(10), receipts)
    assert (result.sent, result.delivered, result.doubled, result.clean) == (10, 10, 0, True)


def test_a_missing_event_is_lost_and_named() -> None:
    receipts = Receipts()
    for seq in (1, 3):
        arrive(receipts, seq)
    result = audit(ledger(3), receipts)
    assert (result.lost, result.clean, result.examples) == (1, False, ("lost: s:3:2 MESSAGE_CREATE",))


def test_a_second_arrival_is_a_double_unless_the_broker_gave_it_again() -> None:
    receipts = Receipts()
    for seq in (1, 2, 2, 2):
        arrive(receipts, seq)
    arrive(receipts, 1, redelivered=True)
    result = audit(ledger(2), receipts)
    assert (result.doubled, receipts.redelivered, result.clean) == (2, 1, True)


def test_a_changed_body_and_an_event_that_nobody_sent_are_seen() -> None:
    receipts = Receipts()
    receipts.add("MESSAGE_CREATE", "s:3:1", b"other", republished=False, redelivered=False)
    arrive(receipts, 7)
    result = audit(ledger(1), receipts)
    assert (result.changed, result.unknown, result.clean) == (1, 1, False)


def test_a_first_arrival_out_of_order_needs_its_mark() -> None:
    found = []
    for republished, redelivered in ((True, False), (False, True), (False, False)):
        receipts = Receipts()
        for seq in (1, 3):
            arrive(receipts, seq)
        arrive(receipts, 2, republished=republished, redelivered=redelivered)
        found.append(audit(ledger(3), receipts).out_of_order)
    assert found == [0, 0, 1]


def test_the_gateways_own_messages_and_messages_without_id_are_no_events() -> None:
    receipts = Receipts()
    receipts.add("RATEWAY_GAP", "gap:s:3", b"{}", republished=False, redelivered=False)
    receipts.add("MESSAGE_CREATE", None, b"{}", republished=False, redelivered=False)
    assert (receipts.gaps, receipts.distinct, receipts.names["RATEWAY_GAP"]) == ([b"{}"], 0, 1)


@given(st.lists(st.integers(1, 50), max_size=200), st.integers(0, 50), st.randoms(use_true_random=False))
def test_counts_agree_with_a_plain_count(arrivals: list[int], sent: int, chance: random.Random) -> None:
    receipts = Receipts()
    for seq in arrivals:
        arrive(receipts, seq, session=chance.choice("s"), republished=True)
    result = audit(ledger(sent), receipts)
    known = [seq for seq in arrivals if seq <= sent]
    assert result.delivered == len(set(known))
    assert result.lost == sent - len(set(known))
    assert result.doubled == len(known) - len(set(known))
    assert result.unknown == len({seq for seq in arrivals if seq > sent})
