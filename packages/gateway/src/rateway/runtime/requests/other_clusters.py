"""Queries for clusters that another gateway runs: ask it, and make one answer of this gateway's part and its own.

A query of which one such cluster has all goes to that cluster's exchange; what is spread over clusters, or is not found
here, is asked of each of them (``cache/gathering.py``). What is asked names its cluster (``CLUSTER_HEADER``), and is
answered from there or not at all: no question goes further than one gateway.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from rateway.cache.gathering import HERE, NOT_KNOWN, Spread, asked_of, merged, question_of, spread_of
from rateway.cache.query_context import MAX_ANSWER, Situation
from rateway.delivery.port import Message, OtherGateways
from rateway.runtime.requests.query_queue import AnswerTaker, QueryQueue, kind_of
from rateway_protocol.contract.errors import ErrorCode, Fault, Status, error_body
from rateway_protocol.contract.queries import Query, QueryRequest, question

__all__ = ["OtherClusters"]

log = logging.getLogger(__name__)

# Messages whose answers are gathered at a time, in one process; each answer has at most MAX_ANSWER bytes.
MOST_GATHERED = 200
# Of a query's patience the part that another gateway gets: what it does not answer is said in time.
SHARE = 0.8


class _Here:
    """Takes this gateway's part of an answer from the queue of queries (``query_queue.AnswerTaker``)."""

    takes_answers = True

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes | Fault] = asyncio.get_running_loop().create_future()

    def answer_part(self, message: Message, body: bytes, part: int) -> None:
        raise AssertionError("no answer in parts was asked for")

    def answer_query(
        self, message: Message, key: str | None, status: Status, body: bytes, part: int | None = None
    ) -> None:
        if not self.answer.done():
            self.answer.set_result(body if status is Status.OK else NOT_KNOWN)

    def fail_query(self, message: Message, fault: Fault, key: str | None) -> None:
        if not self.answer.done():
            self.answer.set_result(fault)

    def timed(self, kind: str, outcome: str, seconds: float) -> None:
        """The message as a whole is counted where it is answered."""


class OtherClusters:
    """What one process asks other gateways, once there is anything to ask."""

    def __init__(self, gateways: OtherGateways, query_queue: QueryQueue) -> None:
        self._gateways = gateways
        self._query_queue = query_queue
        self._wanted = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._gathered = 0

    async def run(self) -> None:
        """Own what is asked, and the connection from the first question on, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await self._wanted.wait()
            await self._gateways.run()

    def take(
        self,
        handler: AnswerTaker,
        message: Message,
        request: QueryRequest,
        patience: float,
        situation: Situation,
        others: Collection[int],
    ) -> bool:
        """Answer a message of which the clusters *others* have a part, within *patience* seconds; return whether they
        have.
        """
        asked = [
            asked_of(query, situation, others) if isinstance(query, Query) else ()
            for query in request.queries
        ]
        if not any(asked):
            return False
        if self._tasks is None or self._gathered >= MOST_GATHERED:
            words = f"{self._gathered} queries wait for other gateways already"
            handler.fail_query(message, Fault(ErrorCode.QUEUE_FULL, words), request.return_routing_key)
            return True
        self._wanted.set()
        self._gathered += 1
        self._tasks.create_task(self._answer(handler, message, request, patience, asked))
        return True

    async def _answer(
        self,
        handler: AnswerTaker,
        message: Message,
        request: QueryRequest,
        patience: float,
        asked: list[Collection[int]],
    ) -> None:
        began, key = time.monotonic(), request.return_routing_key
        try:
            found = await self._gather(handler, request, patience, asked)
        except Exception:
            log.exception(
                "a query for another gateway's cluster could not be answered, a mistake of the gateway's own; please "
                "report this",
                extra={"action": "own_fault"},
            )
            found = [Fault(ErrorCode.INTERNAL, "a mistake of the gateway's; its log says more")] * len(asked)
        finally:
            self._gathered -= 1
        whole: bytes | Fault = _array(found) if request.batch else _bounded(found[0], 0)
        status = Status.NOT_FOUND if whole == NOT_KNOWN else Status.OK
        outcome = whole.code.value if isinstance(whole, Fault) else status.value
        handler.timed(kind_of(request), outcome, time.monotonic() - began)
        if isinstance(whole, Fault):
            handler.fail_query(message, whole, key)
        else:
            handler.answer_query(message, key, status, b"" if status is Status.NOT_FOUND else whole)

    async def _gather(
        self, handler: AnswerTaker, request: QueryRequest, patience: float, asked: list[Collection[int]]
    ) -> list[bytes | Fault]:
        """Return the answer to each query of a message."""
        end = time.monotonic() + patience * SHARE
        queries = request.queries
        answers: list[dict[int, bytes | Fault]] = [{} for _ in queries]
        first: dict[int, list[int]] = defaultdict(list)
        for at, query in enumerate(queries):
            if isinstance(query, Fault):
                answers[at][HERE] = query
                continue
            spread = spread_of(query.type)
            if spread is not Spread.ONE or not asked[at]:
                first[HERE].append(at)
            if spread is not Spread.ANY:
                for cluster in asked[at]:
                    first[cluster].append(at)
        await self._ask_all(handler, queries, first, answers, end)
        then: dict[int, list[int]] = defaultdict(list)
        for at, query in enumerate(queries):
            if isinstance(query, Query) and spread_of(query.type) is Spread.ANY:
                known = answers[at][HERE]
                for cluster in asked[at] if isinstance(known, Fault) or known == NOT_KNOWN else ():
                    then[cluster].append(at)
        await self._ask_all(handler, queries, then, answers, end)
        return [
            query if isinstance(query, Fault) else merged(query, each)
            for query, each in zip(queries, answers, strict=True)
        ]

    async def _ask_all(
        self,
        handler: AnswerTaker,
        queries: tuple[Query | Fault, ...],
        places: Mapping[int, list[int]],
        answers: list[dict[int, bytes | Fault]],
        end: float,
    ) -> None:
        """Ask each cluster its queries, by their places in the message, and note the answers."""
        asked = {
            cluster: [question_of(query) for at in where if isinstance(query := queries[at], Query)]
            for cluster, where in places.items()
        }
        found = await asyncio.gather(
            *(
                self._ask_here(handler, each, end) if cluster == HERE else self._ask(cluster, each, end)
                for cluster, each in asked.items()
            )
        )
        for (cluster, where), outcome in zip(places.items(), found, strict=True):
            for at, answer in zip(where, outcome, strict=True):
                answers[at][cluster] = answer

    async def _ask(self, cluster: int, queries: list[Query], end: float) -> list[bytes | Fault]:
        left = max(0.0, end - time.monotonic())
        return await self._gateways.ask(cluster, [question(each) for each in queries], left)

    async def _ask_here(self, handler: AnswerTaker, queries: list[Query], end: float) -> list[bytes | Fault]:
        """Have the queue of queries answer this gateway's part, one message for each, as their sender had sent them."""
        taken = []
        for query in queries:
            here = _Here()
            message = Message(0, "", b"", b"", None, None, None, False, None)
            left = max(0.0, end - time.monotonic())
            self._query_queue.ask(here, message, QueryRequest((query,), False, None), left)
            taken.append(here.answer)
        return list(await asyncio.gather(*taken))


def _bounded(found: bytes | Fault, before: int) -> bytes | Fault:
    """Return an answer, or that it does not fit into the message behind so many bytes."""
    if isinstance(found, bytes) and before + len(found) > MAX_ANSWER:
        words = f"the answer has more than {MAX_ANSWER >> 20} MiB; ask for less at once"
        return Fault(ErrorCode.TOO_LARGE, words)
    return found


def _array(found: Iterable[bytes | Fault]) -> bytes:
    size = 0
    rows = []
    for each in found:
        kept = _bounded(each, size)
        row = error_body(kept) if isinstance(kept, Fault) else kept
        size += len(row)
        rows.append(row)
    return b"[" + b",".join(rows) + b"]"
