"""Ledger, spool and broker in random histories: nothing is lost, settled never too high, first deliveries in order."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway.delivery.message import Publish
from rateway.native.ledger import STRIDE, Cursor, Run, Unconfirmed
from rateway.transports.amqp.events.overflow import Overflow
from rateway.transports.amqp.wire import frames
from rateway.transports.spool import Spool
from tests.transports.test_spool import no_free_descriptors

EXCHANGE = b"rateway-1"
SHARDS = 2


def cut(publish: Publish) -> tuple[bytes, bytes, bytes]:
    return frames.pieces(EXCHANGE, publish, 4096)


@dataclass
class Broker:
    """Takes everything in its order; a refused or lost event is taken out again."""

    taken: dict[int, tuple[int, int, bool]] = field(default_factory=dict)
    unanswered: dict[int, tuple[int, int]] = field(default_factory=dict)
    count: int = 0
    base: int = 0
    # The highest tag that it has answered on this connection.
    answered: int = 0

    def receive(self, run: Run) -> None:
        for at in range(0, len(run.pieces), STRIDE):
            self.count += 1
            publish = frames.publish_of(run.pieces[at], run.pieces[at + 1])
            shard, seq = frames.event_of(publish.properties)
            assert shard is not None and seq is not None
            assert publish.body == b"%d" % seq * 10
            marked = b"republished" in publish.properties
            self.taken[self.count] = (shard, seq, marked)
            self.unanswered[self.count - self.base] = (shard, seq)
            assert run.number + at // STRIDE == self.count - self.base

    def lose(self, arrived: int) -> None:
        for tag in list(self.unanswered)[arrived:]:
            del self.taken[self.base + tag]
        self.unanswered.clear()
        self.base, self.answered = self.count, 0


class Gateway:
    """What the publisher does with ledger and spool, without its connection."""

    def __init__(self, folder: Path, settled: list[int], *, spool_settles: bool) -> None:
        self.ledger = Unconfirmed(spool_settles=spool_settles)
        self.spool = Spool.open(folder, 1 << 26)
        self.overflow = Overflow(self.ledger, self.spool, 1, cut)
        self.cursors = [Cursor(shard, settled[shard]) for shard in range(SHARDS)]
        self.flowing = True
        self.urgent: list[tuple[Run, int, int]] = []

    def publish_urgent(self, broker: Broker, shard: int, seq: int) -> None:
        """One event, alone in its run."""
        self.publish(broker, shard, [seq])
        runs = self.cursors[shard].runs
        if runs:
            self.urgent.append((runs[-1], shard, seq))

    def overtake(self, chance: random.Random) -> tuple[int, int]:
        """An urgent event is confirmed ahead of its place."""
        run, shard, seq = self.urgent.pop(chance.randrange(len(self.urgent)))
        self.ledger.overtake(run)
        self.answered()
        return shard, seq

    def publish(self, broker: Broker, shard: int, seqs: list[int]) -> None:
        run = Run(self.cursors[shard], 0.0)
        self.cursors[shard].runs.append(run)
        for seq in seqs:
            properties = frames.event_properties(
                b"X", shard, SHARDS, seq, b"s:%d:%d" % (shard, seq), 0, False, True
            )
            run.pieces += cut(Publish(b"X", properties, b"%d" % seq * 10))
            run.marks.append(seq)
        self.ledger.add(run, sum(map(len, run.pieces)))
        self.pump(broker)

    def pump(self, broker: Broker, most: int = 1 << 30) -> None:
        if not self.flowing or self.ledger.refused:
            return
        while self.overflow.unread:
            found = self.overflow.read_back(50, 0.0)
            if found is None:
                if self.overflow.unread:
                    return
                break
            self.ledger.read_back(*found)
            broker.receive(found[0])
        for run in self.ledger.take(most):
            broker.receive(run)

    def fetch(self, number: int) -> tuple[bytes, bytes, bytes] | None:
        publish = self.overflow.fetch(number)
        return None if publish is None else cut(publish)

    def retry(self, broker: Broker, most: int) -> None:
        run = self.ledger.retry(most, self.fetch)
        if run is not None:
            broker.receive(run)

    def answered(self) -> None:
        self.overflow.confirmed(self.ledger.dropped)
        self.ledger.dropped = []

    def lost(self) -> None:
        self.ledger.lost(frames.remark)
        self.spool.rewind()

    @property
    def unconfirmed(self) -> int:
        return self.ledger.events + self.spool.events


def test_events_of_a_damaged_file_are_told_as_lost_and_the_others_go_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool.open(tmp_path, 1 << 20)
    properties = [
        frames.event_properties(b"X", 0, SHARDS, seq, b"s:0:%d" % seq, 0, False, True) for seq in range(300)
    ]
    for each in properties:
        spool.append([Publish(b"X", each, b"x" * 1000)])
    spool.close()
    second = sorted(tmp_path.glob("*.spool"))[1]
    damaged = bytearray(second.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    second.write_bytes(damaged)
    overflow = Overflow(Unconfirmed(), Spool.open(tmp_path, 1 << 20), 1, cut)
    came = 0
    while (found := overflow.read_back(50, 0.0)) is not None:
        came += len(found[0].marks)
    (said,) = [record.getMessage() for record in caplog.records]
    assert 0 < came < 300 and said.startswith(f"{300 - came} events in the spool cannot be read back")


def test_a_spool_that_cannot_be_read_for_now_is_told_once_and_read_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool.open(tmp_path, 1 << 20)
    properties = frames.event_properties(b"X", 0, SHARDS, 1, b"s:0:1", 0, False, True)
    spool.append([Publish(b"X", properties, b"1")])
    overflow = Overflow(Unconfirmed(), spool, 1, cut)
    for _ in range(2):
        with no_free_descriptors():
            assert overflow.read_back(50, 0.0) is None
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("the spool cannot be read for now, and its events wait: Too many open files")
    found = overflow.read_back(50, 0.0)
    assert found is not None and found[0].records == [1] and spool.lost == 0


OPERATIONS = st.lists(
    st.sampled_from(
        [
            "publish",
            "publish",
            "publish",
            "publish",
            "urgent",
            "overtake",
            "ack",
            "acks",
            "all",
            "nack",
            "retry",
            "lose",
            "spool",
            "down",
            "up",
            "kill",
        ]
    ),
    max_size=50,
)


@given(OPERATIONS, st.integers(), st.booleans())
@settings(max_examples=200)
@pytest.mark.checklist("H1", "H2", "H3")
def test_no_history_of_answers_outages_and_kills_loses_or_reorders(
    tmp_path_factory: pytest.TempPathFactory, operations: list[str], seed: int, spool_settles: bool
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    chance = random.Random(seed)
    broker = Broker()
    gateway = Gateway(folder, [0] * SHARDS, spool_settles=spool_settles)
    last = [0] * SHARDS
    # What was on disk when settled was last written down, which happens now and then.
    stored = [0] * SHARDS
    # Refused before a kill: nobody knows that any more, so these come again without their mark.
    forgotten: set[tuple[int, int]] = set()
    refused: set[tuple[int, int]] = set()
    overtook: set[tuple[int, int]] = set()
    confirmed: set[tuple[int, int]] = set()

    def acknowledge(tags: list[int], acks: list[tuple[int, int]]) -> None:
        for tag in tags:
            confirmed.add(broker.unanswered.pop(tag))
            broker.answered = max(broker.answered, tag)
        gateway.ledger.acknowledge(acks)
        gateway.answered()

    for operation in operations:
        shard = chance.randrange(SHARDS)
        flying = list(broker.unanswered)
        if operation == "publish":
            seqs = [last[shard] + offset for offset in range(1, chance.randrange(2, 6))]
            last[shard] = seqs[-1]
            gateway.publish(broker, shard, seqs)
        elif operation == "urgent":
            last[shard] += 1
            gateway.publish_urgent(broker, shard, last[shard])
        elif operation == "overtake" and gateway.urgent:
            overtook.add(gateway.overtake(chance))
        elif operation == "ack" and flying:
            tag = chance.choice(flying)
            acknowledge([tag], [(tag, 0)])
        elif operation == "acks" and flying:
            tag = chance.choice(flying)
            acknowledge([each for each in flying if each <= tag], [(tag, 1)])
        elif operation == "all":
            acknowledge(flying, [(0, 1)])
        elif operation == "nack" and flying:
            tag = chance.choice(flying)
            refused.add(broker.unanswered[tag])
            del broker.unanswered[tag], broker.taken[broker.base + tag]
            gateway.ledger.refuse(tag, False, frames.remark)
            gateway.answered()
        elif operation == "retry" and gateway.ledger.refused and gateway.flowing:
            gateway.retry(broker, chance.randrange(1, 4))
        elif operation == "spool":
            gateway.overflow.fill()
        elif operation in ("lose", "down"):
            broker.lose(chance.randrange(len(flying) + 1))
            gateway.lost()
            gateway.flowing = operation == "lose"
            gateway.pump(broker)
        elif operation == "up":
            gateway.flowing = True
            gateway.pump(broker, chance.randrange(1, 3000))
        elif operation == "kill":
            # Our end says nothing of the broker's: what was written before something that it confirmed has arrived.
            arrived = sum(1 for tag in flying if tag < broker.answered)
            broker.lose(chance.randrange(arrived, len(flying) + 1))
            forgotten |= refused
            gateway.spool.close()
            gateway = Gateway(folder, stored, spool_settles=spool_settles)
            gateway.pump(broker)
            # Discord sends again what is not settled.
            for each in range(SHARDS):
                if stored[each] < last[each]:
                    gateway.publish(broker, each, list(range(stored[each] + 1, last[each] + 1)))
        if chance.random() < 0.5:
            stored = [cursor.settled for cursor in gateway.cursors]
        assert all(cursor.settled <= last[each] for each, cursor in enumerate(gateway.cursors))
        if not spool_settles:
            # Who goes on from there without this spool misses nothing.
            for each, cursor in enumerate(gateway.cursors):
                assert {(each, seq) for seq in range(1, cursor.settled + 1)} <= confirmed | overtook

    gateway.flowing = True
    for _ in range(1000):
        if not gateway.unconfirmed:
            break
        if gateway.ledger.refused:
            gateway.retry(broker, 100)
        gateway.pump(broker)
        acknowledge(list(broker.unanswered), [(0, 1)])
    assert gateway.unconfirmed == 0 and gateway.ledger.bytes == 0 and gateway.spool.bytes == 0
    assert gateway.ledger.window_events == 0 and gateway.ledger.window_bytes == 0
    assert [cursor.settled for cursor in gateway.cursors] == last
    for shard in range(SHARDS):
        highest = 0
        seen = {seq for where, seq in overtook if where == shard}
        for where, seq, marked in broker.taken.values():
            if where == shard and seq not in seen:
                seen.add(seq)
                assert marked or seq > highest or (shard, seq) in forgotten, f"{seq} first after {highest}"
                highest = max(highest, seq)
        assert seen == set(range(1, last[shard] + 1))
    gateway.spool.close()
