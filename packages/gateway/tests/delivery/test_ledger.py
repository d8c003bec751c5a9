"""The ledger of unconfirmed events: settled is right, nothing is forgotten, first deliveries are in order."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.native.ledger import STRIDE, Batch, Cursor, Headroom, Run, Unconfirmed


def remark(head: bytes) -> bytes:
    return head if head.endswith(b"!") else head + b"!"


def make_run(ledger: Unconfirmed, cursor: Cursor, seqs: list[int], written: bool = True) -> Run:
    run = Run(cursor, 0.0)
    cursor.runs.append(run)
    for seq in seqs:
        run.pieces += (b"%d:%d" % (cursor.shard, seq), b"body", b"")
        run.marks.append(seq)
    if written:
        assert ledger.add_written([run]) == [b"".join(run.pieces)]
    else:
        ledger.add(run, sum(map(len, run.pieces)))
    return run


def test_one_acknowledgement_for_all_settles_all() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    make_run(ledger, cursor, [1, 2, 3])
    make_run(ledger, cursor, [4, 5])
    assert len(ledger.acknowledge([(5, 1)])) == 2
    assert cursor.settled == 5 and ledger.moved
    assert ledger.events == 0 and ledger.bytes == 0 and not ledger.sent


@pytest.mark.checklist("H2")
def test_multiple_out_of_order_and_tag_zero_acknowledgements_settle_what_they_say() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    make_run(ledger, cursor, [1, 2, 3, 4, 5, 6])
    ledger.acknowledge([(3, 0), (2, 0)])
    assert cursor.settled == 0
    ledger.acknowledge([(1, 0)])
    assert cursor.settled == 3
    ledger.acknowledge([(5, 1)])
    assert cursor.settled == 5
    ledger.acknowledge([(0, 1)])
    assert cursor.settled == 6 and ledger.events == 0


@pytest.mark.parametrize("number", [3, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_an_answer_beyond_what_was_written_means_no_more_than_that(number: int) -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    run = make_run(ledger, cursor, [1, 2])
    assert ledger.acknowledge([(number, 0)]) == [] and ledger.refuse(number, False, remark) == 0
    assert cursor.settled == 0 and ledger.events == 2
    assert ledger.acknowledge([(number, 1)]) == [run]
    assert cursor.settled == 2 and ledger.events == 0
    make_run(ledger, cursor, [3])
    assert ledger.refuse(number, True, remark) == 1


def test_a_shard_does_not_wait_for_another_ones_confirm() -> None:
    ledger, slow, quick = Unconfirmed(), Cursor(0), Cursor(1)
    make_run(ledger, slow, [1])
    make_run(ledger, quick, [7, 8])
    ledger.acknowledge([(2, 0), (3, 0)])
    assert (slow.settled, quick.settled) == (0, 8)


def test_a_run_that_is_still_filled_is_not_settled_by_confirms_of_older_ones() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    make_run(ledger, cursor, [1])
    filling = Run(cursor, 0.0)
    cursor.runs.append(filling)
    filling.pieces += (b"0:2", b"", b"")
    filling.marks.append(2)
    ledger.acknowledge([(1, 0)])
    assert cursor.settled == 1


def test_what_is_answered_for_is_out_of_memory_whoever_still_knows_its_run() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    run = make_run(ledger, cursor, [1, 2, 3])
    # The fast path keeps it until the shard's next run.
    filled = run.pieces
    ledger.acknowledge([(2, 1)])
    assert [piece for piece in filled if piece is not None] == [b"0:3", b"body", b""]
    ledger.acknowledge([(3, 0)])
    assert filled == []


def test_a_filtered_event_is_settled_with_what_came_before_it() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    cursor.skip(1)
    assert cursor.settled == 1
    make_run(ledger, cursor, [2, 3])
    cursor.skip(4)
    assert cursor.settled == 1
    ledger.acknowledge([(1, 0)])
    assert cursor.settled == 2
    ledger.acknowledge([(2, 0)])
    assert cursor.settled == 4


@pytest.mark.checklist("H3")
def test_a_refused_event_holds_settled_until_its_retry_is_taken() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    run = make_run(ledger, cursor, [1, 2, 3])
    assert ledger.refuse(2, False, remark) == 1
    ledger.acknowledge([(3, 1)])
    assert cursor.settled == 1 and ledger.events == 1
    retry = ledger.retry(10, lambda number: None)
    assert retry is not None and retry.pieces[0] == b"0:2!" and run.left == 1
    ledger.acknowledge([(4, 0)])
    assert cursor.settled == 3 and ledger.events == 0 and ledger.bytes == 0


def test_a_retry_that_is_refused_again_is_retried_again() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    make_run(ledger, cursor, [1])
    for tag in range(1, 5):
        ledger.refuse(tag, False, remark)
        assert len(ledger.refused) == 1
        assert ledger.retry(1, lambda number: None) is not None
    ledger.acknowledge([(5, 0)])
    assert cursor.settled == 1 and not ledger.refused and ledger.events == 0


def test_a_refused_event_that_is_given_up_counts_as_answered() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    make_run(ledger, cursor, [1, 2])
    ledger.refuse(2, True, remark)
    ledger.abandon()
    assert cursor.settled == 1
    ledger.abandon()
    assert cursor.settled == 2 and ledger.events == 0


@pytest.mark.checklist("H1")
def test_after_a_lost_connection_the_unanswered_wait_in_order_before_what_is_newer() -> None:
    ledger, one, two = Unconfirmed(), Cursor(1), Cursor(2)
    make_run(ledger, one, [1, 2])
    make_run(ledger, two, [1])
    make_run(ledger, one, [3], written=False)
    ledger.acknowledge([(1, 0)])
    assert ledger.lost(remark) == 2
    heads = [run.pieces[at] for run in ledger.waiting for at in range(0, len(run.pieces), STRIDE)]
    assert heads == [b"1:2", b"2:1", b"1:3"]
    assert [run.number for run in ledger.take(10**9)] == [1, 2, 3]


def test_only_what_the_broker_may_have_lost_after_a_later_one_is_marked() -> None:
    ledger, cursor, other = Unconfirmed(), Cursor(0), Cursor(1)
    make_run(ledger, cursor, [1, 2, 3, 4])
    make_run(ledger, other, [1, 2])
    ledger.acknowledge([(3, 0)])
    ledger.lost(remark)
    heads = [run.pieces[at] for run in ledger.waiting for at in range(0, len(run.pieces), STRIDE)]
    assert heads == [b"0:1!", b"0:2!", b"0:4", b"1:1", b"1:2"]
    ledger.take(10**9)
    ledger.acknowledge([(2, 1)])
    # 3 had been confirmed before: it is settled with 2.
    assert cursor.settled == 3


def test_what_is_in_the_spool_is_settled_and_still_answered_for() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    flying = make_run(ledger, cursor, [1, 2])
    waiting = make_run(ledger, cursor, [3], written=False)
    ledger.acknowledge([(2, 0)])
    assert ledger.pieces_left(flying) == [(b"0:1", b"body")]
    ledger.spooled(flying, 100, "NAME")
    assert cursor.settled == 2
    ledger.spooled(waiting, 101, "NAME")
    assert cursor.settled == 3 and not ledger.waiting
    assert (ledger.events, ledger.bytes) == (0, 0)
    ledger.acknowledge([(1, 0)])
    assert ledger.dropped == [100]


def test_where_the_spool_does_not_settle_a_cursor_waits_for_the_brokers_confirm_of_what_is_in_it() -> None:
    ledger, cursor = Unconfirmed(spool_settles=False), Cursor(0)
    ledger.spooled(make_run(ledger, cursor, [1, 2], written=False), 100, "NAME")
    cursor.skip(3)
    later = make_run(ledger, cursor, [4, 5])
    ledger.acknowledge([(later.number + 1, 1)])
    assert (cursor.settled, cursor.reached) == (0, 5)
    ledger.unspooled(101)
    assert cursor.settled == 0
    ledger.moved = False
    ledger.unspooled(102)
    assert (cursor.settled, ledger.moved) == (5, True)


def test_spooled_events_by_the_thousand_cost_a_cursor_little_and_are_settled_as_they_are_confirmed() -> None:
    ledger, cursor = Unconfirmed(spool_settles=False), Cursor(0)
    for seq in range(1, 10_001):
        ledger.spooled(make_run(ledger, cursor, [seq], written=False), seq, "NAME")
    assert len(cursor.spooled) < 50
    ledger.unspooled(5_001)
    assert 4_700 < cursor.settled <= 5_000
    ledger.unspooled(10_001)
    assert cursor.settled == 10_000


def test_a_refused_event_that_only_the_spool_has_is_fetched_for_its_retry() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    run = make_run(ledger, cursor, [1])
    ledger.refuse(1, False, remark)
    ledger.spooled(run, 7, "NAME")
    retry = ledger.retry(1, lambda number: (b"from %d" % number, b"", b""))
    assert retry is not None and retry.pieces[0] == b"from 7"
    ledger.acknowledge([(2, 0)])
    assert ledger.dropped == [7]


def test_a_queue_that_never_confirms_does_not_keep_what_others_have_confirmed() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    make_run(ledger, cursor, [1])
    for seq in range(2, 5000):
        make_run(ledger, cursor, [seq])
        ledger.acknowledge([(seq, 0)])
    assert len(ledger.sent) < 200 and ledger.events == 1
    ledger.acknowledge([(1, 0)])
    assert cursor.settled == 4999 and not cursor.runs


def test_an_event_that_is_confirmed_ahead_of_its_place_is_not_written_there_and_settles_in_its_turn() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    make_run(ledger, cursor, [1, 2], written=False)
    urgent = make_run(ledger, cursor, [3], written=False)
    make_run(ledger, cursor, [4], written=False)
    assert ledger.overtake(urgent) == [urgent] and ledger.overtake(urgent) == []
    assert (cursor.settled, ledger.events, ledger.confirmed) == (0, 3, 1)
    assert [piece for run in ledger.take(10**9) for piece in run.pieces[::STRIDE]] == [b"0:1", b"0:2", b"0:4"]
    ledger.acknowledge([(2, 1)])
    assert cursor.settled == 3
    ledger.acknowledge([(3, 0)])
    assert (cursor.settled, ledger.events, ledger.bytes) == (4, 0, 0)


def test_a_run_that_is_still_filled_is_not_overtaken() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    filling = Run(cursor, 0.0)
    cursor.runs.append(filling)
    assert ledger.overtake(filling) == []
    filling.pieces += (b"0:1", b"", b"")
    filling.marks.append(1)
    ledger.add(filling, 3)
    assert ledger.overtake(filling) == [filling] and cursor.settled == 1


def test_what_was_overtaken_is_not_marked_as_lost_by_the_broker_when_the_connection_breaks() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    make_run(ledger, cursor, [1])
    urgent = make_run(ledger, cursor, [2], written=False)
    ledger.overtake(urgent)
    ledger.lost(remark)
    assert [run.pieces[0] for run in ledger.take(10**9)] == [b"0:1"]
    ledger.acknowledge([(1, 0)])
    assert cursor.settled == 2


def test_an_event_that_is_confirmed_ahead_is_taken_out_of_the_spool_and_settled_there_already() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    urgent = make_run(ledger, cursor, [1], written=False)
    ledger.spooled(urgent, 17, "X")
    assert cursor.settled == 1
    ledger.overtake(urgent)
    assert ledger.dropped == [17] and ledger.events == 0


def test_an_event_that_is_confirmed_ahead_while_it_is_written_in_its_place_is_answered_once() -> None:
    ledger, cursor = Unconfirmed(), Cursor(0)
    urgent = make_run(ledger, cursor, [1])
    make_run(ledger, cursor, [2])
    assert ledger.is_sent(urgent)
    ledger.overtake(urgent)
    assert cursor.settled == 1
    ledger.acknowledge([(1, 0), (2, 0)])
    assert (cursor.settled, ledger.confirmed, ledger.events) == (2, 2, 0)


@dataclass
class FakeBroker:
    """Takes what is written in its order, answers as it likes; remembers every delivery."""

    taken: dict[int, tuple[int, int, bool]] = field(default_factory=dict)
    unanswered: dict[int, tuple[int, int]] = field(default_factory=dict)
    # Deliveries are numbered over all connections; a connection's tags begin after ``base``.
    count: int = 0
    base: int = 0

    def receive(self, runs: list[Run]) -> None:
        for run in runs:
            for at in range(0, len(run.pieces), STRIDE):
                self.count += 1
                tag = self.count - self.base
                assert run.number + at // STRIDE == tag
                head = run.pieces[at]
                shard, seq = map(int, head.rstrip(b"!").split(b":"))
                self.taken[self.count] = (shard, seq, head.endswith(b"!"))
                self.unanswered[tag] = (shard, seq)

    def refuse(self, tag: int) -> None:
        del self.unanswered[tag], self.taken[self.base + tag]

    def lose(self, arrived: int) -> None:
        """The connection breaks; of what was unanswered only the first so many had arrived."""
        for tag in list(self.unanswered)[arrived:]:
            del self.taken[self.base + tag]
        self.unanswered.clear()
        self.base = self.count


OPERATIONS = st.lists(
    st.sampled_from(
        [
            "publish",
            "publish",
            "publish",
            "urgent",
            "overtake",
            "skip",
            "ack",
            "singles",
            "acks",
            "all",
            "nack",
            "retry",
            "lose",
            "pump",
        ]
    ),
    max_size=60,
)


@given(OPERATIONS, st.integers())
@pytest.mark.checklist("H2", "H3")
def test_settled_is_right_and_nothing_is_lost_whatever_the_broker_does(
    operations: list[str], seed: int
) -> None:
    chance = random.Random(seed)
    ledger = Unconfirmed()
    cursors = [Cursor(shard) for shard in range(3)]
    published: list[list[int]] = [[], [], []]
    skipped: list[set[int]] = [set(), set(), set()]
    last = [0, 0, 0]
    answered: list[set[int]] = [set(), set(), set()]
    broker = FakeBroker()
    urgent: list[tuple[Run, int, int]] = []
    # Published ahead of their place, and confirmed there.
    overtook: set[tuple[int, int]] = set()

    def write_waiting() -> None:
        if not ledger.refused:
            broker.receive(ledger.take(10**9))

    def acknowledge(tags: list[int], acks: list[tuple[int, int]]) -> None:
        for tag in tags:
            shard, seq = broker.unanswered.pop(tag)
            answered[shard].add(seq)
        ledger.acknowledge(acks)

    for operation in operations:
        shard = chance.randrange(3)
        flying = list(broker.unanswered)
        if operation == "publish":
            seqs = []
            for _ in range(chance.randrange(1, 5)):
                last[shard] += 1
                seqs.append(last[shard])
            published[shard] += seqs
            make_run(ledger, cursors[shard], seqs, written=False)
            if chance.random() < 0.7:
                write_waiting()
        elif operation == "urgent":
            last[shard] += 1
            published[shard].append(last[shard])
            place = make_run(ledger, cursors[shard], [last[shard]], written=False)
            urgent.append((place, shard, last[shard]))
            if chance.random() < 0.3:
                write_waiting()
        elif operation == "overtake" and urgent:
            place, where, seq = urgent.pop(chance.randrange(len(urgent)))
            if seq not in answered[where]:
                overtook.add((where, seq))
                answered[where].add(seq)
            ledger.overtake(place)
        elif operation == "skip":
            last[shard] += 1
            skipped[shard].add(last[shard])
            cursors[shard].skip(last[shard])
        elif operation == "ack" and flying:
            tag = chance.choice(flying)
            acknowledge([tag], [(tag, 0)])
        elif operation == "singles" and flying:
            # One by one, in order, as RabbitMQ confirms what has no queue; sometimes with a gap.
            tags = flying[chance.randrange(2) : chance.randrange(len(flying)) + 1]
            if len(tags) > 3 and chance.random() < 0.3:
                del tags[chance.randrange(len(tags))]
            acknowledge(tags, [(tag, 0) for tag in tags])
        elif operation == "acks" and flying:
            tag = chance.choice(flying)
            acknowledge([each for each in flying if each <= tag], [(tag, 1)])
        elif operation == "all":
            acknowledge(flying, [(0, 1)])
        elif operation == "nack" and flying:
            tag, multiple = chance.choice(flying), chance.random() < 0.3
            for each in flying:
                if each == tag or (multiple and each < tag):
                    broker.refuse(each)
            ledger.refuse(tag, multiple, remark)
        elif operation == "retry" and ledger.refused:
            run = ledger.retry(chance.randrange(1, 5), lambda number: None)
            if run is not None:
                broker.receive([run])
        elif operation == "lose":
            broker.lose(chance.randrange(len(flying) + 1))
            ledger.lost(remark)
        elif operation == "pump":
            write_waiting()
        for each in range(3):
            right = 0
            while right < last[each] and (right + 1 in answered[each] or right + 1 in skipped[each]):
                right += 1
            assert cursors[each].settled == right
        assert ledger.events == sum(len(published[each]) - len(answered[each]) for each in range(3))

    while ledger.refused or ledger.waiting or broker.unanswered:
        if ledger.refused:
            run = ledger.retry(100, lambda number: None)
            broker.receive([run] if run is not None else [])
        write_waiting()
        acknowledge(list(broker.unanswered), [(0, 1)])
    assert ledger.events == 0 and ledger.bytes == 0
    for shard in range(3):
        assert cursors[shard].settled == last[shard]
        first = [seq for where, seq in overtook if where == shard]
        in_order = 0
        for where, seq, marked in broker.taken.values():
            if where == shard and seq not in first:
                first.append(seq)
                # A first delivery out of order is a marked one.
                assert marked or seq > in_order
                in_order = max(in_order, seq)
        assert sorted(first) == published[shard]


def test_events_of_all_batches_use_one_headroom_up_and_its_end_is_said_once() -> None:
    said: list[str] = []
    headroom = Headroom(10_000, lambda: said.append("used up"), lambda: said.append("room"))
    batches = [Batch(lambda: None, headroom) for _ in range(2)]
    for batch in batches:
        batch.count(4_000)
    assert not said and headroom.bytes == 10_000 - sum(batch.bytes for batch in batches)
    # Some hundred bytes of an event are not its body.
    assert 8_000 < sum(batch.bytes for batch in batches) < 10_000
    for batch in batches:
        batch.count(4_000)
    assert said == ["used up"] and headroom.is_used_up and headroom.bytes < 0
    batches[0].take()
    assert batches[0].bytes == 0 and batches[1].bytes > 8_000


def test_room_is_said_while_somebody_waits_and_a_quarter_is_free() -> None:
    said: list[str] = []
    headroom = Headroom(10_000, lambda: said.append("used up"), lambda: said.append("room"))
    headroom.take(12_000)
    headroom.give(12_000)
    assert said == ["used up"]
    headroom.is_used_up = False
    headroom.take(12_000)
    headroom.is_waited_for = True
    headroom.give(4_499)
    assert said == ["used up"] * 2
    headroom.give(1)
    assert said == ["used up", "used up", "room"] and headroom.bytes == 2_500
    headroom.give(-1)
    assert len(said) == 3


def test_a_batch_without_headroom_only_counts() -> None:
    batch = Batch(lambda: None)
    batch.count(1 << 40)
    assert batch.bytes > 1 << 40
