"""What stands in a log twice, and which session of a shard is the newer one."""

from __future__ import annotations

import pytest
from rateway.delivery.proxy_port import LogEntry
from rateway.proxy.log.order import MOST_BESIDE, MOST_HOLES, Order


def entry(seq: int, session: str = "a", shard_id: int = 0, repeat: int = 0, late: bool = False) -> LogEntry:
    return LogEntry(0, "MESSAGE_CREATE", b"{}", shard_id, session, seq, repeat, late, 0)


@pytest.mark.parametrize(
    ("entries", "new"),
    [
        ([entry(5), entry(6), entry(7)], [True, True, True]),
        ([entry(5), entry(6), entry(5), entry(6), entry(7)], [True, True, False, False, True]),
        # Filtered numbers, one of which comes after all.
        ([entry(5), entry(9), entry(7), entry(7), entry(8)], [True, True, True, False, True]),
        # Republished, and again after a death of the gateway.
        ([entry(5), entry(7), entry(6, late=True), entry(6, late=True)], [True, True, True, False]),
        # What the broker took late comes before the first in order that is read.
        ([entry(5), entry(4, late=True), entry(3)], [True, True, False]),
        # Published ahead of the others (URGENT), and in its place again after a death of the gateway.
        (
            [
                entry(1),
                entry(3, late=True),
                entry(5, late=True),
                entry(2),
                entry(4),
                entry(3),
                entry(6),
                entry(5),
            ],
            [True, True, True, True, True, False, True, False],
        ),
        # A reading that begins with it.
        (
            [entry(9, late=True), entry(7), entry(8), entry(9), entry(10), entry(9, late=True), entry(7)],
            [True, True, True, False, True, False, False],
        ),
        # Other contents under one number.
        ([entry(5), entry(5, repeat=1), entry(5, repeat=2)], [True, True, True]),
        ([entry(5), entry(5, repeat=1), entry(5), entry(5, repeat=1)], [True, True, False, False]),
        # Of a number before the first that is read, it has been there before.
        ([entry(5), entry(4, repeat=1)], [True, False]),
        # Each session and each shard has numbers of its own.
        ([entry(5), entry(1, "b"), entry(2, "b"), entry(5)], [True, True, True, False]),
        ([entry(5), entry(5, shard_id=1), entry(5)], [True, True, False]),
        # What has no number cannot be known again.
        ([entry(0), entry(0)], [True, True]),
    ],
)
def test_an_entry_counts_the_first_time_alone(entries: list[LogEntry], new: list[bool]) -> None:
    order = Order()
    assert [order.is_new(each) for each in entries] == new


def test_holes_are_bounded() -> None:
    order = Order()
    order.is_new(entry(1))
    order.is_new(entry(10_000_000))
    assert order.is_new(entry(10_000_000 - MOST_HOLES))
    assert not order.is_new(entry(10_000_000 - MOST_HOLES - 1))


def test_what_was_published_far_ahead_costs_nothing_of_what_it_overtook() -> None:
    order = Order()
    order.is_new(entry(1))
    assert order.is_new(entry(3 * MOST_HOLES, late=True))
    assert all(order.is_new(entry(seq)) for seq in range(2, 3 * MOST_HOLES))
    assert not order.is_new(entry(3 * MOST_HOLES))
    assert order.is_new(entry(3 * MOST_HOLES + 1))


def test_what_is_remembered_beside_the_order_is_bounded() -> None:
    order = Order()
    order.is_new(entry(1))
    for number in range(MOST_BESIDE + 1):
        order.is_new(entry(2 * number + 3, late=True))
    assert order.is_new(entry(3, late=True))
    assert not order.is_new(entry(2 * MOST_BESIDE + 3, late=True))


def test_a_session_of_which_an_entry_was_published_ahead_has_not_begun_before_the_others() -> None:
    order = Order()
    order.is_new(entry(9, "b", late=True))
    assert not order.is_known(0, "b")
    order.is_new(entry(5, "a"))
    assert order.is_newer(0, "b", "a")
    assert not order.is_newer(0, "a", "b")
    order.is_new(entry(1, "b"))
    assert order.is_newer(0, "b", "a")
    assert not order.is_newer(0, "a", "b")


def test_of_two_sessions_the_one_that_began_later_is_newer() -> None:
    order = Order()
    for session in "ab":
        order.is_new(entry(3, session))
    order.is_new(entry(2, "a", late=True))
    assert order.is_newer(0, "b", "a")
    assert not order.is_newer(0, "a", "b")
    assert not order.is_newer(0, "a", "a")
    # The cache knows a session before the log does.
    assert order.is_newer(0, "not read yet", "b")
    assert not order.is_newer(0, "b", "not read yet")
    assert order.highest(0, "b") == 3
    assert order.highest(0, "not read yet") == 0
