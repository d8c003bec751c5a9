"""Queries wait here for their turn, the most urgent first, so that they never hold up an event.

All clusters of a process share one queue. It works for a millisecond, then lets the loop go round; a batch or a list
of a thousand is taken apart. What waits past its deadline, or finds the queue full, is answered with an error: what
waits is bounded in number, bytes and time, answers that are begun included (docs/queries.md, "Deadlines"). Snapshots,
which are read at one moment of the stores, have a line of their own: one of them at a time is under way, so that one
moment at most is held, and while it is the others get every second turn.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable
from typing import Protocol

from rateway.cache.query_context import MAX_ANSWER
from rateway.cache.snapshots import OF_ONE_MOMENT
from rateway.delivery.port import Message
from rateway.transports.store.queries import Answer
from rateway_protocol.contract.errors import ErrorCode, Fault, Status, error_body
from rateway_protocol.contract.queries import Query, QueryRequest

# One turn of work: short beside what an event's way takes in all, long beside one query.
TURN_S = 0.001
# Queries that wait in one process, and the answers begun to them: thousands of usual ones, or a few of the largest.
MOST_BYTES = 64 << 20
# A large batch leaves room for small queries.
SMALL_BYTES = 64 << 10
LARGE_SHARE = 0.75
# Each part but the last of an answer in parts (docs/contract.md, "Answers") has at least so many bytes, hardly more.
PART_BYTES = 4 << 20
# What one query of a batch takes once it is read, and one name of its fields.
QUERY_BYTES = 256
FIELD_BYTES = 64

log = logging.getLogger(__name__)

_clock = time.monotonic
# Kept: making a union of types takes longer than asking.
_DONE = (Answer, Fault)


class LongAnswer(Protocol):
    """An answer that takes longer: None from each step but the last (``transports.store.queries.LongAnswer``)."""

    @property
    def size(self) -> int:
        """Bytes read so far and not taken yet."""

    @property
    def holds(self) -> bool:
        """Whether a read transaction of the stores is open for it, until it is closed. What was read in it is final."""

    def take(self) -> bytes:
        """Return what was read so far; the rest of the answer comes without it."""

    def step(self) -> Answer | Fault | None: ...
    def close(self) -> None: ...


class Moment(Protocol):
    """The cache as it is now (``transports.store.queries.Moment``)."""

    def answer(self, query: Query) -> Answer | Fault | LongAnswer: ...
    def close(self) -> None: ...


class AnswerTaker(Protocol):
    """Takes the answers to queries (``request_handler.RequestHandler``)."""

    @property
    def takes_answers(self) -> bool:
        """Whether answers are taken now; while they are not, they would collect in memory."""

    def answer_part(self, message: Message, body: bytes, part: int) -> None:
        """Take a part of an answer, from 1 on; the last one comes by :meth:`answer_query`."""

    def answer_query(
        self, message: Message, key: str | None, status: Status, body: bytes, part: int | None = None
    ) -> None:
        """Take an answer, or the last one of so many parts."""

    def fail_query(self, message: Message, fault: Fault, key: str | None) -> None:
        """Take the error that is the answer."""

    def timed(self, kind: str, outcome: str, seconds: float) -> None:
        """Take note that a query was taken this long ago and is answered now."""


def kind_of(request: QueryRequest) -> str:
    """Return what a message is counted as: its type, ``batch``, or ``invalid`` for a query that could not be read."""
    if request.batch:
        return "batch"
    query = request.queries[0]
    return "invalid" if isinstance(query, Fault) else query.type


class _Waiting:
    """One message's queries: the answers so far, and the one that is being worked on."""

    __slots__ = (
        "asked_at", "done", "fault", "is_snapshot", "message", "parts_sent", "pieces", "request", "request_handler",
        "running", "size", "split", "status", "weight",
    )  # fmt: skip

    def __init__(
        self, request_handler: AnswerTaker, message: Message, request: QueryRequest, asked_at: float
    ) -> None:
        self.asked_at = asked_at
        self.request_handler = request_handler
        self.message = message
        self.request = request
        # Queries that are answered, and the JSON of these answers as far as it is not sent.
        self.done = 0
        self.pieces: list[bytes] = []
        self.size = 0
        self.running: LongAnswer | None = None
        # Of a single query: what became of it.
        self.status = Status.OK
        self.fault: Fault | None = None
        self.parts_sent = 0
        # Whether the beginning of the running answer was taken from it.
        self.split = False
        # What it counts for among all that wait, in bytes.
        self.weight = message.size
        # Whether a moment of the stores may be held for it.
        self.is_snapshot = False
        if request.batch:
            self.weight += QUERY_BYTES * len(request.queries)
        for query in request.queries:
            if isinstance(query, Query):
                if query.fields is not None:
                    self.weight += FIELD_BYTES * len(query.fields)
                if query.type in OF_ONE_MOMENT:
                    self.is_snapshot = True

    @property
    def begun(self) -> int:
        """Bytes of its answer so far that are not sent."""
        return self.size + (self.running.size if self.running is not None else 0)

    @property
    def holds(self) -> bool:
        """Whether a read transaction of the stores is open for it."""
        return self.running is not None and self.running.holds

    def work(self, moment: Moment, end: float) -> bool:
        """Go on until all queries are answered or the turn is over; whether they are."""
        queries = self.request.queries
        count = len(queries)
        while self.done < count and self.fault is None:
            query = queries[self.done]
            if isinstance(query, Fault):
                self._take(query)
                continue
            outcome = moment.answer(query) if self.running is None else self.running.step()
            if isinstance(outcome, _DONE):
                self.drop()
                self._take(outcome)
            elif outcome is not None:
                self.running = outcome
            if self.request.parts and self.begun >= PART_BYTES:
                self._send_part()
            if self.done < count and _clock() >= end:
                return False
        return True

    def _take(self, outcome: Answer | Fault) -> None:
        """A query is answered."""
        if not self.request.batch:
            if isinstance(outcome, Fault):
                self.fault = outcome
            else:
                self.status = outcome.status
                self._keep(outcome.body)
        elif self.split:
            # The beginning of this answer is sent: a failure is that of all.
            if isinstance(outcome, Fault):
                self.fault = outcome
            else:
                self._keep(outcome.body)
        else:
            outcome = self._bounded(outcome)
            body = error_body(outcome) if isinstance(outcome, Fault) else outcome.body or b"null"
            self._keep((b"," if self.done else b"[") + body)
        self.split = False
        self.done += 1

    def _keep(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.size += len(piece)

    def _send_part(self) -> None:
        """Send what there is of an answer in parts. What was read of an answer that may begin again is kept."""
        if self.holds:
            assert self.running is not None
            beginning = b"" if self.split or not self.request.batch else b"," if self.done else b"["
            self._keep(beginning + self.running.take())
            self.split = True
        if self.size >= PART_BYTES:
            self.parts_sent += 1
            self.request_handler.answer_part(self.message, self._taken(), self.parts_sent)

    def _taken(self) -> bytes:
        body = b"".join(self.pieces)
        self.pieces.clear()
        self.size = 0
        return body

    def _bounded(self, outcome: Answer | Fault) -> Answer | Fault:
        """The answers of a batch are one message: beyond its bound the rest has to be asked for again."""
        # What stands between them, a byte each, is not counted.
        size = self.size - self.done
        if isinstance(outcome, Answer) and not self.request.parts and size + len(outcome.body) > MAX_ANSWER:
            words = f"the answers of this batch have more than {MAX_ANSWER >> 20} MiB; ask for less at once"
            return Fault(ErrorCode.TOO_LARGE, words)
        return outcome

    def drop(self) -> None:
        """Give up what is being worked on: its moment of the stores is freed."""
        if self.running is not None:
            self.running.close()
            self.running = None

    def finish(self) -> None:
        """Send the answer: an array for a batch, with errors and nulls in their places."""
        if self.fault is not None:
            self.fail(self.fault)
            return
        if self.request.batch:
            self._keep(b"]" if self.done else b"[]")
        self.request_handler.timed(kind_of(self.request), self.status, _clock() - self.asked_at)
        key, body = self.request.return_routing_key, self._taken()
        if self.parts_sent:
            self.request_handler.answer_query(self.message, key, self.status, body, self.parts_sent + 1)
        else:
            self.request_handler.answer_query(self.message, key, self.status, body)

    def fail(self, fault: Fault) -> None:
        """Answer with an error. Parts that are sent are void with it."""
        self.request_handler.timed(kind_of(self.request), fault.code.value, _clock() - self.asked_at)
        self.request_handler.fail_query(self.message, fault, self.request.return_routing_key)


class QueryQueue:
    """``moment`` opens the cache for one turn of work; ``limit`` and ``most_bytes`` bound the messages that wait."""

    def __init__(self, moment: Callable[[], Moment], *, limit: int, most_bytes: int = MOST_BYTES) -> None:
        self._moment = moment
        self._limit = limit
        self._most_bytes = most_bytes
        # Of all that wait, and of the answers that are begun.
        self._bytes = 0
        self._waiting: list[tuple[float, int, _Waiting]] = []
        self._snapshots: list[tuple[float, int, _Waiting]] = []
        # Those whose broker does not take answers just now.
        self._parked: list[tuple[float, int, _Waiting]] = []
        self._order = itertools.count()
        self._scheduled = False
        # The one whose answer holds a moment of the stores, and whether this turn is its own.
        self._held: tuple[float, int, _Waiting] | None = None
        self._is_turn_of_held = False
        # When the next of the parked is too late.
        self._alarm: asyncio.TimerHandle | None = None

    def ask(
        self, request_handler: AnswerTaker, message: Message, request: QueryRequest, patience: float
    ) -> None:
        """Take a message's queries in, for ``patience`` seconds; the answer goes out through its responder."""
        now = _clock()
        waiting = _Waiting(request_handler, message, request, now)
        if len(self._waiting) + len(self._snapshots) + len(self._parked) >= self._limit:
            waiting.fail(Fault(ErrorCode.QUEUE_FULL, f"{self._limit} queries wait already"))
            return
        room = self._most_bytes if waiting.weight <= SMALL_BYTES else self._most_bytes * LARGE_SHARE
        if self._bytes + waiting.weight > room:
            words = f"queries of {self._bytes >> 20} MiB wait already, their answers included"
            waiting.fail(Fault(ErrorCode.QUEUE_FULL, words))
            return
        self._bytes += waiting.weight
        heapq.heappush(self._line_of(waiting), (now + patience, next(self._order), waiting))
        if not self._scheduled:
            self._schedule()

    def go_on(self) -> None:
        """A broker takes answers again, or its connection is another one."""
        parked, self._parked = self._parked, []
        self._take_up(parked)

    def _too_late(self) -> None:
        """Queries of a broker that takes no answers do not wait for longer than others."""
        self._alarm = None
        now = _clock()
        late = [each for each in self._parked if each[0] < now]
        self._parked = [each for each in self._parked if each[0] >= now]
        self._take_up(late)
        self._watch_parked()

    def _watch_parked(self) -> None:
        if self._parked and self._alarm is None:
            delay = max(0.0, min(self._parked)[0] - _clock()) + TURN_S
            self._alarm = asyncio.get_running_loop().call_later(delay, self._too_late)

    def _take_up(self, entries: list[tuple[float, int, _Waiting]]) -> None:
        for each in entries:
            heapq.heappush(self._line_of(each[2]), each)
        if entries and not self._scheduled:
            self._schedule()

    def _line_of(self, waiting: _Waiting) -> list[tuple[float, int, _Waiting]]:
        return self._snapshots if waiting.is_snapshot else self._waiting

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        moment = self._moment()
        self._is_turn_of_held = not self._is_turn_of_held
        try:
            self._work(moment)
        finally:
            moment.close()
            self._scheduled = False
            if self._waiting or self._snapshots:
                self._schedule()
            self._watch_parked()

    def _work(self, moment: Moment) -> None:
        now = _clock()
        end = now + TURN_S
        while self._waiting or self._snapshots:
            entry = self._next()
            waiting = entry[2]
            if entry[0] < now:
                self._remove(entry)
                self._end(waiting)
                waiting.fail(Fault(ErrorCode.EXPIRED, "the query waited for longer than its deadline"))
            elif not waiting.request_handler.takes_answers:
                self._park(entry)
            else:
                self._serve(entry, moment, end)
            now = _clock()
            if now >= end:
                break

    def _next(self) -> tuple[float, int, _Waiting]:
        """Return the one to go on with. The head of a line may change between turns: a more urgent one goes first, and
        what was begun keeps what it has; but a snapshot is finished before another.
        """
        if not self._snapshots:
            return self._waiting[0]
        snapshot = self._held or self._snapshots[0]
        if not self._waiting:
            return snapshot
        if self._held is not None:
            return snapshot if self._is_turn_of_held else self._waiting[0]
        return min(snapshot, self._waiting[0])

    def _serve(self, entry: tuple[float, int, _Waiting], moment: Moment, end: float) -> None:
        """Work on one of those that wait; it is gone from them when it is answered or cannot be."""
        waiting = entry[2]
        begun = waiting.begun
        try:
            done = waiting.work(moment, end)
            if done:
                self._remove(entry)
                self._end(waiting, begun)
                waiting.finish()
        # Whatever it is, it must not come again with every turn.
        except Exception:
            log.exception(
                "a query could not be answered, a mistake of the gateway's own; please report this",
                extra={"action": "own_fault"},
            )
            if entry in self._line_of(waiting):
                self._remove(entry)
                self._end(waiting, begun)
            waiting.fail(Fault(ErrorCode.INTERNAL, "a mistake of the gateway's; its log says more"))
            return
        if not done:
            if waiting.is_snapshot:
                self._held = entry if waiting.holds else None
            self._bytes += waiting.begun - begun
            while self._bytes > self._most_bytes * LARGE_SHARE and self._give_up_largest():
                pass

    def _park(self, entry: tuple[float, int, _Waiting]) -> None:
        """Its broker takes no answers just now. No moment of the stores is held for as long as that lasts."""
        waiting = entry[2]
        self._remove(entry)
        if not waiting.holds:
            self._parked.append(entry)
            return
        begun = waiting.begun
        waiting.drop()
        if waiting.split:
            self._end(waiting, begun)
            words = "the broker took no more of the answer; ask again"
            waiting.fail(Fault(ErrorCode.UNAVAILABLE, words))
        else:
            # It is begun again.
            self._bytes += waiting.begun - begun
            self._held = None
            self._parked.append(entry)

    def _remove(self, entry: tuple[float, int, _Waiting]) -> None:
        """Take one from those that wait: nearly always the most urgent."""
        line = self._line_of(entry[2])
        if line[0] is entry:
            heapq.heappop(line)
        else:
            line.remove(entry)
            heapq.heapify(line)

    def _end(self, waiting: _Waiting, begun: int | None = None) -> None:
        """It does not wait any more; *begun* is what of its answer is counted, if that is not what there is."""
        self._bytes -= waiting.weight + (waiting.begun if begun is None else begun)
        if self._held is not None and self._held[2] is waiting:
            self._held = None
        waiting.drop()

    def _give_up_largest(self) -> bool:
        """Refuse the query with the most of an answer in memory, because too much is there; False if none has any."""
        everybody = itertools.chain(self._waiting, self._snapshots)
        entry = max(everybody, key=lambda each: each[2].begun, default=None)
        if entry is None or not entry[2].begun:
            return False
        self._remove(entry)
        self._end(entry[2])
        words = f"answers of {self._most_bytes >> 20} MiB are under way; ask for less at once, or in pages"
        entry[2].fail(Fault(ErrorCode.QUEUE_FULL, words))
        return True
