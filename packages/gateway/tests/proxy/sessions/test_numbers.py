"""Sequence numbers of sessions over several logs: what is remembered of them, and for how long."""

from __future__ import annotations

import json

from rateway.delivery.proxy_port import LogEntry
from rateway.proxy.log.order import Order
from rateway.proxy.log.stream import Feed, Stream
from rateway.proxy.sessions.numbers import MOST_REMEMBERED, CountedNumbers


class Receiver:
    """Keeps the numbers and texts of what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, str]] = []
        self.is_invalid = False
        self.waiting = 0

    def send(self, payload: bytes) -> None:
        told = json.loads(payload)
        self.sent.append((told["s"], told["d"]))

    def close(self, code: int, reason: str) -> None:
        raise AssertionError

    def invalidate(self) -> None:
        self.is_invalid = True


class Session:
    """A session over two logs, each with one shard."""

    def __init__(self) -> None:
        self.receiver = Receiver()
        stream = Stream(
            self.receiver, shard=0, count=1, total=2, intents=0, large_threshold=50, own_id=80, session_id="",
        )  # fmt: skip
        self.numbers = CountedNumbers(0)
        self.feeds = [Feed(stream, self.numbers, f"log {shard}", [shard], -1) for shard in range(2)]
        self.numbers.begin(self.feeds)

    def event(self, shard: int, offset: int, text: str, size: int = 0) -> None:
        d = json.dumps(text + "x" * size).encode()
        entry = LogEntry(offset, "MESSAGE_CREATE", d, shard, "a", offset + 1, 0, False, 0)
        self.feeds[shard].on_entry(entry, d, Order())


def test_what_comes_again_has_its_former_number_and_place() -> None:
    session = Session()
    for shard, offset, text in ((0, 3, "a"), (1, 3, "b"), (0, 4, "c"), (1, 9, "d")):
        session.event(shard, offset, text)
    sent = list(session.receiver.sent)
    assert [seq for seq, _ in sent] == [2, 3, 4, 5]
    session.numbers.leave()
    assert session.numbers.resume(3)
    assert [feed.at for feed in session.feeds] == [3, 3]
    session.receiver.sent.clear()
    # The other log comes first; a new event waits for what was before it.
    session.event(1, 9, "d")
    session.event(1, 10, "e")
    before = session.numbers.is_complete, list(session.receiver.sent)
    session.event(0, 4, "c")
    assert [before, session.numbers.is_complete] == [(False, []), True]
    assert session.receiver.sent == [*sent[2:], (6, "e")]


def test_what_the_bot_was_not_sent_before_it_left_is_not_sent_after() -> None:
    session = Session()
    session.event(0, 3, "a")
    # An entry that snapshots contained, say: it was seen, and nothing was sent.
    session.feeds[0].at = 7
    session.numbers.leave()
    assert session.numbers.resume(1)
    session.receiver.sent.clear()
    for offset, text in ((3, "a"), (5, "contained"), (8, "new")):
        session.event(0, offset, text)
    assert session.receiver.sent == [(2, "a"), (3, "new")]


def test_a_resume_from_before_what_the_bot_named_or_beyond_the_end_is_refused() -> None:
    session = Session()
    for offset in range(5):
        session.event(0, offset, "a")
    session.numbers.acknowledge(4)
    session.numbers.leave()
    assert [session.numbers.resume(seq) for seq in (3, 7)] == [False, False]
    assert session.numbers.places(4) == {"log 0": 2, "log 1": -1}
    assert session.numbers.resume(6)
    assert session.numbers.is_complete


def test_a_bot_without_heartbeats_is_remembered_as_far_as_the_bound() -> None:
    session = Session()
    for offset in range(MOST_REMEMBERED + 10):
        session.event(offset % 2, offset, "")
    session.numbers.leave()
    assert not session.numbers.resume(10)
    assert session.numbers.resume(11)


def test_too_much_that_waits_for_its_turn_ends_the_session() -> None:
    session = Session()
    for shard in range(2):
        session.event(shard, 0, "a")
    session.numbers.leave()
    assert session.numbers.resume(1)
    for offset in range(1, 40):
        session.event(1, offset, "b", size=1 << 20)
    assert session.receiver.is_invalid
