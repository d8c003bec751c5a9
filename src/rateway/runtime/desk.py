"""Queries wait here for their turn, the most urgent first, so that they never hold up an event.

All clusters of a process share one desk. It works for a millisecond, then lets the loop go round; a batch or a list
of a thousand is taken apart. What waits past its deadline, or finds the desk full, is answered with an error: the
queue cannot grow beyond its bound (docs/queries.md, "Deadlines").
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Protocol

from rateway.contract.errors import ErrorCode, Fault, Status, error_body
from rateway.contract.queries import Query, QueryRequest
from rateway.transports.amqp.inbound import Message

if TYPE_CHECKING:
    from rateway.runtime.responder import Responder

# One turn of work: short beside what an event's way takes in all, long beside one query.
TURN_S = 0.001


class Answer(Protocol):
    """What the cache says to one query."""

    @property
    def status(self) -> Status: ...
    @property
    def body(self) -> bytes: ...


Steps = Generator[Answer | Fault | None, None, None]


class _Waiting:
    """One message's queries: the answers so far, and the one that is being worked on."""

    __slots__ = ("answers", "asked_at", "message", "request", "responder", "running")

    def __init__(
        self, responder: Responder, message: Message, request: QueryRequest, asked_at: float
    ) -> None:
        self.asked_at = asked_at
        self.responder = responder
        self.message = message
        self.request = request
        self.answers: list[Answer | Fault] = []
        self.running: Steps | None = None

    def kind(self) -> str:
        """For counting: the type, ``batch``, or ``invalid`` for a query that could not be read."""
        if self.request.batch:
            return "batch"
        query = self.request.queries[0]
        return "invalid" if isinstance(query, Fault) else query.type

    def work(self, steps: Callable[[Query], Steps], is_over: Callable[[], bool]) -> bool:
        """Go on until all queries are answered or the turn is over; whether they are."""
        queries = self.request.queries
        while len(self.answers) < len(queries):
            query = queries[len(self.answers)]
            if isinstance(query, Fault):
                self.answers.append(query)
                continue
            if self.running is None:
                self.running = steps(query)
            outcome = next(self.running)
            if outcome is not None:
                self.drop()
                self.answers.append(outcome)
            if is_over():
                break
        return len(self.answers) == len(queries)

    def drop(self) -> None:
        """Give up what is being worked on: its moment of the stores is freed."""
        if self.running is not None:
            self.running.close()
            self.running = None

    def finish(self) -> None:
        """Send the answer: an array for a batch, with errors and nulls in their places."""
        if self.request.batch:
            parts = [
                error_body(each) if isinstance(each, Fault) else each.body or b"null" for each in self.answers
            ]
            self.answer(Status.OK, b"[" + b",".join(parts) + b"]")
            return
        answer = self.answers[0]
        if isinstance(answer, Fault):
            self.fail(answer)
        else:
            self.answer(answer.status, answer.body)

    def fail(self, fault: Fault) -> None:
        self.responder.timed(self.kind(), fault.code.value, asyncio.get_running_loop().time() - self.asked_at)
        self.responder.fail_query(self.message, fault, self.request.return_routing_key)

    def answer(self, status: Status, body: bytes) -> None:
        self.responder.timed(self.kind(), status.value, asyncio.get_running_loop().time() - self.asked_at)
        self.responder.answer_query(self.message, self.request.return_routing_key, status, body)


class QueryDesk:
    """``steps(query)`` yields None while an answer takes longer, at last the answer; ``limit`` bounds who may wait."""

    def __init__(self, steps: Callable[[Query], Steps], *, limit: int) -> None:
        self._steps = steps
        self._limit = limit
        self._waiting: list[tuple[float, int, _Waiting]] = []
        self._order = itertools.count()
        self._scheduled = False

    def ask(self, responder: Responder, message: Message, request: QueryRequest, deadline: float) -> None:
        """Take a message's queries in; the answer goes out through its responder."""
        waiting = _Waiting(responder, message, request, asyncio.get_running_loop().time())
        if len(self._waiting) >= self._limit:
            waiting.fail(Fault(ErrorCode.QUEUE_FULL, f"{self._limit} queries wait already"))
            return
        heapq.heappush(self._waiting, (deadline, next(self._order), waiting))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + TURN_S
        try:
            self._work(lambda: loop.time() >= end)
        finally:
            # Also after a mistake of ours in one answer: the others still have their turn.
            self._scheduled = bool(self._waiting)
            if self._scheduled:
                loop.call_soon(self._turn)

    def _work(self, is_over: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and not is_over():
            # The head may change between turns: a more urgent one goes first, what was begun keeps what it has.
            deadline, _, waiting = self._waiting[0]
            if deadline < loop.time():
                heapq.heappop(self._waiting)
                waiting.drop()
                waiting.fail(Fault(ErrorCode.EXPIRED, "the query waited for longer than its deadline"))
            elif waiting.work(self._steps, is_over):
                heapq.heappop(self._waiting)
                waiting.finish()
