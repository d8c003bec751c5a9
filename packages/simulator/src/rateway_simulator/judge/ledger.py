"""Record what the simulated Discord sent, in which session and under which number, and which rules a client broke.

An audit compares a gateway's output with the ledger. An event costs it 26 bytes.
"""

from __future__ import annotations

import zlib
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rateway_simulator.judge.rules import RULES

# When the log is full its oldest tenth is dropped in one go.
DROPPED_SHARE = 10
# Warnings that are remembered in full; beyond that they are counted.
WARNINGS = 10_000
# Lines of the journal that are remembered.
JOURNAL_ENTRIES = 200_000


def digest(data: bytes | bytearray | memoryview) -> int:
    """Return CRC-32 (RFC 1952) of an event's `d` exactly as it was sent, without the envelope."""
    return zlib.crc32(data)


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a client broke, or that it is warned of.

    `time` is Unix seconds; session and shard are None where none is known.
    """

    rule: str
    session: str | None
    shard: int | None
    detail: str
    time: float


@dataclass(frozen=True, slots=True)
class Sent:
    """One event given a number. `crc32` is of `d`'s bytes; `time` is Unix seconds; `index` counts from 0."""

    index: int
    session: str
    shard: int
    seq: int
    event: str
    crc32: int
    time: float


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that was made to happen: when (Unix seconds), what (as JSON), and how many connections it hit."""

    time: float
    fault: dict[str, Any]
    connections: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal: an op 2 or op 6 and what came of it, or a session's connection coming and going.

    `what` is `identify` (op 2 arrived; `detail` is the verdict), `ready`, `resume` (op 6 arrived), `resumed`,
    `detached` (the session has no connection any more) or `ended` (`detail` says why). Time is Unix seconds.
    """

    time: float
    what: str
    session: str | None
    shard: int
    detail: str


@dataclass(slots=True)
class SessionRecord:
    """One session's life. `ended` is None while it can be resumed, else why not; times are Unix seconds."""

    session: str
    shard: int
    shard_count: int
    intents: int
    compress: str
    started: float
    sent: int = 0
    named: int | None = None
    connections: int = 1
    resumes: int = 0
    ended: str | None = None


class Ledger:
    """Append-only, in columns. Not thread-safe: it belongs to the simulator's event loop."""

    def __init__(self, *, limit: int, wall: Callable[[], float]) -> None:
        """Keep at most `limit` events (the oldest go first); `wall` gives Unix seconds."""
        self.limit = max(limit, DROPPED_SHARE)
        self.violations: list[Violation] = []
        self.warnings: list[Violation] = []
        self.warned: Counter[str] = Counter()
        self.sessions: dict[str, SessionRecord] = {}
        self.injected: list[Injected] = []
        self.journal: deque[Entry] = deque(maxlen=JOURNAL_ENTRIES)
        self.counts: Counter[str] = Counter()
        self.dropped = 0
        self.wall = wall
        self._names: list[str] = []
        self._name_index: dict[str, int] = {}
        self._records: list[SessionRecord] = []
        self._record_index: dict[str, int] = {}
        self._session = array("I")
        self._seq = array("Q")
        self._event = array("H")
        self._crc = array("I")
        self._time = array("d")

    @property
    def events(self) -> int:
        """The number of events that were given a sequence number since the start."""
        return self.dropped + len(self._seq)

    def count(self, what: str, amount: int = 1) -> None:
        """Count something worth a line in the summary (`identify`, `resume`, `fault:cut` …)."""
        self.counts[what] += amount

    def note(self, what: str, shard: int, session: str | None = None, detail: str = "") -> None:
        """Write a line into the journal."""
        self.journal.append(Entry(self.wall(), what, session, shard, detail))

    def session_started(self, record: SessionRecord) -> None:
        """A READY is about to be sent for a new session."""
        self.sessions[record.session] = record
        self._record_index[record.session] = len(self._records)
        self._records.append(record)

    def session_ended(self, session: str, why: str) -> None:
        """The session cannot be resumed any more; the first reason stays."""
        record = self.sessions[session]
        if record.ended is None:
            record.ended = why
            self.note("ended", record.shard, session, why)

    def name_index(self, event: str) -> int:
        """Return the number by which this ledger knows an event's name."""
        index = self._name_index.get(event)
        if index is None:
            index = self._name_index[event] = len(self._names)
            self._names.append(event)
        return index

    def sent(self, session: str, seq: int, event: str, data: bytes) -> None:
        """An event was given its number (and sent, if the session has a connection)."""
        index = self._record_index[session]
        self._records[index].sent = seq
        self._session.append(index)
        self._seq.append(seq)
        self._event.append(self.name_index(event))
        self._crc.append(zlib.crc32(data))
        self._time.append(self.wall())
        if len(self._seq) > self.limit:
            self._drop()

    def sent_many(self, session: str, first_seq: int, events: array[int], digests: array[int]) -> None:
        """A run of events with consecutive numbers; `events` are name indexes, `digests` CRC-32s."""
        index, amount = self._record_index[session], len(events)
        self._records[index].sent = first_seq + amount - 1
        self._session.extend(array("I", [index]) * amount)
        self._seq.extend(array("Q", range(first_seq, first_seq + amount)))
        self._event.extend(events)
        self._crc.extend(digests)
        self._time.extend(array("d", [self.wall()]) * amount)
        if len(self._seq) > self.limit:
            self._drop()

    def _drop(self) -> None:
        amount = max(len(self._seq) - self.limit, self.limit // DROPPED_SHARE)
        for column in (self._session, self._seq, self._event, self._crc, self._time):
            del column[:amount]
        self.dropped += amount

    def violation(
        self, rule: str, detail: str, *, session: str | None = None, shard: int | None = None
    ) -> None:
        """Note a broken rule, as the violation or the warning that it is; `rule` is a key of RULES."""
        if rule not in RULES:
            raise KeyError(f"no such rule: {rule}")
        violation = Violation(rule, session, shard, detail, self.wall())
        if not RULES[rule].warning:
            self.violations.append(violation)
            return
        self.warned[rule] += 1
        if len(self.warnings) < WARNINGS:
            self.warnings.append(violation)

    @property
    def noted(self) -> list[Violation]:
        """Violations and warnings: a client that does only what is documented, as the gateway, has neither."""
        return [*self.violations, *self.warnings]

    def log(self, since: int = 0, session: str | None = None) -> Iterator[Sent]:
        """Events from index `since` on, in the order in which they were numbered; of one session if given."""
        wanted = None if session is None else self._record_index.get(session, -1)
        index = since
        while index < self.events:
            # Looked up each time: the oldest may be dropped while a reader is slow.
            index = max(index, self.dropped)
            position = index - self.dropped
            owner = self._session[position]
            if wanted is None or wanted == owner:
                record = self._records[owner]
                yield Sent(
                    index,
                    record.session,
                    record.shard,
                    self._seq[position],
                    self._names[self._event[position]],
                    self._crc[position],
                    self._time[position],
                )
            index += 1

    def broken(self) -> Counter[str]:
        """Return how often each rule was broken."""
        return Counter(violation.rule for violation in self.violations)

    def summary(self) -> dict[str, Any]:
        """Return totals as JSON: events, sessions, counters, violations and warnings by rule."""
        return {
            "events": self.events,
            "dropped": self.dropped,
            "sessions": len(self.sessions),
            "sessions_alive": sum(record.ended is None for record in self.sessions.values()),
            "counts": dict(sorted(self.counts.items())),
            "violations": len(self.violations),
            "rules_broken": dict(self.broken().most_common()),
            "warnings": self.warned.total(),
            "rules_warned": dict(self.warned.most_common()),
        }


def lines(violations: Iterable[Violation]) -> list[str]:
    """Return violations as lines for a person: the rule, where, what, and the rule's sentence once each."""
    said: set[str] = set()
    text = []
    for violation in violations:
        where = "" if violation.shard is None else f" shard {violation.shard}"
        text.append(f"{violation.rule}{where}: {violation.detail}")
        if violation.rule not in said:
            said.add(violation.rule)
            text.append(f"    rule: {RULES[violation.rule].sentence} ({RULES[violation.rule].source})")
    return text
