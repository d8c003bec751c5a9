"""A request that two queues hold is taken once; equal requests are taken as often as they were sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.transports.amqp.requests.request_copies import (
    AWAY_MARGIN_S,
    KEPT_S,
    LATE_S,
    MOST_KEPT,
    RequestCopies,
    digest_of,
)
from rateway.transports.amqp.wire.deliveries import Delivery, Properties

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


def inbound(copies: RequestCopies, digest: bytes, now: float = 0.0, *, redelivered: bool = False) -> bool:
    return copies.came_through_inbound(digest, now, redelivered=redelivered)


def substitute(copies: RequestCopies, digest: bytes, now: float = 0.0, *, redelivered: bool = False) -> bool:
    return copies.came_through_substitute(digest, now, redelivered=redelivered)


def test_each_request_that_was_taken_accounts_for_one_equal_copy() -> None:
    copies = RequestCopies()
    assert [substitute(copies, each) for each in (A, A, B)] == [False] * 3
    copies.hold(4, -LATE_S)
    assert [inbound(copies, each) for each in (A, A, A, B)] == [True, True, False, True]
    assert copies.dropped == 3


def test_what_the_inbound_queue_got_after_the_substitute_was_unbound_is_no_copy() -> None:
    copies = RequestCopies()
    assert not substitute(copies, A)
    copies.hold(1, -LATE_S)
    assert not inbound(copies, B)
    assert not inbound(copies, A)


def test_a_copy_whose_acknowledgement_was_lost_is_one_again_and_what_is_taken_again_counts_once() -> None:
    copies = RequestCopies()
    assert not substitute(copies, A)
    assert not substitute(copies, A, redelivered=True)
    copies.hold(2, -LATE_S)
    assert inbound(copies, A)
    assert not inbound(copies, A)
    assert inbound(copies, A, redelivered=True)


def test_what_another_consumer_had_of_the_inbound_queue_may_be_a_copy_though_it_was_not_counted() -> None:
    copies = RequestCopies()
    assert not substitute(copies, A)
    copies.hold(0, -LATE_S)
    assert inbound(copies, A, redelivered=True)
    assert not inbound(copies, B, redelivered=True)


def test_what_is_left_in_a_substitute_is_no_copy_unless_the_inbound_queue_held_an_equal_one() -> None:
    copies = RequestCopies()
    copies.hold(1, -LATE_S)
    assert not inbound(copies, A)
    assert not inbound(copies, B)
    assert substitute(copies, A)
    assert not substitute(copies, A)
    assert not substitute(copies, B)


def test_while_a_substitute_that_may_be_bound_is_out_of_reach_all_that_is_taken_may_be_in_it() -> None:
    copies = RequestCopies()
    copies.notes_inbound = True
    assert [inbound(copies, A), inbound(copies, B)] == [False, False]
    assert substitute(copies, A)
    copies.note_ended()
    assert [inbound(copies, C), substitute(copies, B), substitute(copies, C)] == [False] * 3


def test_what_was_on_its_way_to_the_inbound_queue_may_be_a_copy_for_some_seconds() -> None:
    copies = RequestCopies()
    assert [substitute(copies, each) for each in (A, B)] == [False, False]
    copies.hold(0, 0.0)
    assert inbound(copies, A, LATE_S - 1)
    assert not inbound(copies, B, LATE_S)


def test_what_was_taken_before_the_broker_said_that_the_inbound_queue_is_away_has_no_copy_there() -> None:
    copies = RequestCopies()
    assert [substitute(copies, A, 1.0), substitute(copies, B, 2.0)] == [False, False]
    copies.note_away(1.5 + AWAY_MARGIN_S)
    copies.hold(2, 3.0)
    assert [inbound(copies, A, 3.0), inbound(copies, B, 3.0)] == [False, True]


def test_requests_that_went_to_the_substitute_alone_have_no_copy() -> None:
    copies = RequestCopies()
    copies.note_single(10.0)
    assert [substitute(copies, A, 9.0), substitute(copies, B, 10.0)] == [False, False]
    copies.hold(2, -LATE_S)
    assert [inbound(copies, A, 11.0), inbound(copies, B, 11.0)] == [True, False]
    copies.note_double()
    assert not substitute(copies, C, 12.0)
    copies.hold(1, -LATE_S)
    assert inbound(copies, C, 12.0)


def test_what_was_taken_is_remembered_for_a_time_and_to_a_number() -> None:
    copies = RequestCopies()
    assert not substitute(copies, A, 0.0)
    copies.hold(10, -LATE_S)
    assert not inbound(copies, A, KEPT_S)
    for number in range(MOST_KEPT + 1):
        substitute(copies, number.to_bytes(16), KEPT_S + 1)
    assert not inbound(copies, (0).to_bytes(16), KEPT_S + 2)
    assert inbound(copies, (1).to_bytes(16), KEPT_S + 2)
    assert not copies.is_idle


def test_nothing_is_looked_for_once_nothing_can_be_found() -> None:
    copies = RequestCopies()
    idle = [copies.is_idle]
    substitute(copies, A, 0.0)
    copies.hold(1, -LATE_S)
    idle.append(copies.is_idle)
    for now in (1.0, KEPT_S):
        inbound(copies, B, now)
        idle.append(copies.is_idle)
    assert idle == [True, False, False, True]


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.booleans()), max_size=20), st.integers(0, 20))
def test_of_requests_that_both_queues_got_each_is_taken_once_in_whatever_order_they_are_read(
    requests: list[tuple[bytes, bool]], at: int
) -> None:
    """*requests* are in both queues, or in the substitute alone; so many are read from that one at first."""
    copies = RequestCopies()
    through_substitute = [digest for digest, _ in requests]
    through_inbound = [digest for digest, is_double in requests if is_double]
    taken = [each for each in through_substitute[:at] if not substitute(copies, each)]
    copies.hold(len(through_inbound), -LATE_S)
    taken += [each for each in through_inbound if not inbound(copies, each)]
    taken += [each for each in through_substitute[at:] if not substitute(copies, each)]
    # Equal ones cannot be told apart: of those in one queue alone as many may be taken for a copy as were in both.
    for digest in (A, B):
        assert through_inbound.count(digest) <= taken.count(digest) <= through_substitute.count(digest)
    if len(set(through_substitute)) == len(through_substitute):
        assert sorted(taken) == sorted(through_substitute)


@pytest.mark.parametrize(
    "other",
    [
        (Delivery(1, False, "gateway"), Properties(b"h", b"c", b"r", b"6"), b"body"),
        (Delivery(1, False, "cache"), Properties(b"", b"c", b"r", b"6"), b"body"),
        (Delivery(1, False, "cache"), Properties(b"h", None, b"r", b"6"), b"body"),
        (Delivery(1, False, "cache"), Properties(b"h", b"r", b"c", b"6"), b"body"),
        (Delivery(1, False, "cache"), Properties(b"h", b"c", b"r", None), b"body"),
        (Delivery(1, False, "cache"), Properties(b"h", b"c", b"r", b"6", None, b"\x01m"), b"body"),
        (Delivery(1, False, "cache"), Properties(b"h", b"c", b"r", b"6"), b"bod"),
    ],
)
def test_requests_that_differ_in_anything_that_their_sender_said_are_no_copies(
    other: tuple[Delivery, Properties, bytes],
) -> None:
    first = digest_of(Delivery(1, False, "cache"), Properties(b"h", b"c", b"r", b"6"), b"body")
    assert digest_of(*other) != first
    # Where and how often it was delivered is the queue's.
    assert digest_of(Delivery(7, True, "cache"), Properties(b"h", b"c", b"r", b"6"), b"body") == first
