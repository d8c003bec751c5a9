"""Queries wait here for their turn, the most urgent first, so that they never hold up an event.

All clusters of a process share one desk. It works for a millisecond, then lets the loop go round; a batch of a
thousand is taken apart. What waits past its deadline, or finds the desk full, is answered with an error: the queue
cannot grow beyond its bound (docs/queries.md, "Deadlines").
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
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


class _Waiting:
    """One message's queries; ``parts`` are the answers so far."""

    __slots__ = ("asked_at", "message", "parts", "request", "responder")

    def __init__(
        self, responder: Responder, message: Message, request: QueryRequest, asked_at: float
    ) -> None:
        self.asked_at = asked_at
        self.responder = responder
        self.message = message
        self.request = request
        self.parts: list[bytes] = []

    def kind(self) -> str:
        """For counting: the type, ``batch``, or ``invalid`` for a query that could not be read."""
        if self.request.batch:
            return "batch"
        query = self.request.queries[0]
        return "invalid" if isinstance(query, Fault) else query.type

    def fail(self, fault: Fault) -> None:
        self.responder.timed(self.kind(), fault.code.value, asyncio.get_running_loop().time() - self.asked_at)
        self.responder.fail_query(self.message, fault, self.request.return_routing_key)

    def answer(self, status: Status, body: bytes) -> None:
        self.responder.timed(self.kind(), status.value, asyncio.get_running_loop().time() - self.asked_at)
        self.responder.answer_query(self.message, self.request.return_routing_key, status, body)


class QueryDesk:
    """``answer`` must not wait; ``limit`` bounds how many messages may wait."""

    def __init__(self, answer: Callable[[Query], Answer | Fault], *, limit: int) -> None:
        self._answer = answer
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
        while self._waiting:
            now = loop.time()
            if now >= end:
                loop.call_soon(self._turn)
                return
            deadline, _, waiting = self._waiting[0]
            if deadline < now:
                heapq.heappop(self._waiting)
                waiting.fail(Fault(ErrorCode.EXPIRED, "the query waited for longer than its deadline"))
            elif waiting.request.batch:
                if self._advance(waiting, end):
                    self._remove(waiting)
                    waiting.answer(Status.OK, b"[" + b",".join(waiting.parts) + b"]")
            else:
                heapq.heappop(self._waiting)
                self._single(waiting)
        self._scheduled = False

    def _remove(self, waiting: _Waiting) -> None:
        # It was the head when the turn began and nothing is pushed in between.
        assert self._waiting[0][2] is waiting
        heapq.heappop(self._waiting)

    def _single(self, waiting: _Waiting) -> None:
        query = waiting.request.queries[0]
        answer = query if isinstance(query, Fault) else self._answer(query)
        if isinstance(answer, Fault):
            waiting.fail(answer)
        else:
            waiting.answer(answer.status, answer.body)

    def _advance(self, waiting: _Waiting, end: float) -> bool:
        """Answer as many of a batch's queries as fit into this turn; whether it is complete."""
        loop = asyncio.get_running_loop()
        queries = waiting.request.queries
        while len(waiting.parts) < len(queries):
            query = queries[len(waiting.parts)]
            answer = query if isinstance(query, Fault) else self._answer(query)
            if isinstance(answer, Fault):
                waiting.parts.append(error_body(answer))
            else:
                waiting.parts.append(answer.body or b"null")
            if loop.time() >= end:
                break
        return len(waiting.parts) == len(queries)
