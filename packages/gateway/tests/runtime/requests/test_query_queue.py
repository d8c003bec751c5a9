"""Queries take turns: the most urgent first, none past its deadline, none that holds up the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from rateway.cache.query_context import MAX_ANSWER
from rateway.runtime.requests.query_queue import QueryQueue
from rateway.transports.store.queries import Answer
from rateway_protocol.contract.errors import ErrorCode, Fault, Status
from rateway_protocol.contract.queries import Query, QueryRequest

from tests.aio import run

Steps = Generator[Answer | Fault | None, None, None]


class Cache:
    """Stands for the stores at one moment: what ``steps`` yields is an answer, or a wait for one."""

    def __init__(self, steps: Callable[[Query], Steps]) -> None:
        self.steps = steps

    def __call__(self) -> Cache:
        return self

    def answer(self, query: Query) -> Answer | Fault | Long:
        steps = self.steps(query)
        first = next(steps)
        return Long(steps) if first is None else first

    def close(self) -> None:
        """A moment is over."""


class Long:
    """An answer that takes longer."""

    size = 0

    def __init__(self, steps: Steps) -> None:
        self.step = lambda: next(steps)
        self.close = steps.close


@dataclass(frozen=True)
class Asked:
    """Stands for a message: a name, and how much room it takes."""

    name: object
    size: int = 1_000


class Asker:
    """Stands for a responder: keeps what was answered, in order."""

    def __init__(self) -> None:
        self.takes_answers = True
        self.answers: list[tuple[Any, Status, bytes]] = []
        self.faults: list[tuple[Any, ErrorCode]] = []
        self.fault_came = asyncio.Event()
        self.second_answer = asyncio.Event()

    def answer_query(self, message: Any, key: str | None, status: Status, body: bytes) -> None:
        message = message.name
        if message == "broken":
            raise RuntimeError("a mistake of ours")
        self.answers.append((message, status, body))
        if len(self.answers) == 2:
            self.second_answer.set()

    def timed(self, kind: str, status: str, seconds: float) -> None:
        assert seconds >= 0

    def fail_query(self, message: Any, fault: Fault, key: str | None) -> None:
        self.faults.append((message.name, fault.code))
        self.fault_came.set()


def request(*names: str, batch: bool = False) -> QueryRequest:
    return QueryRequest(tuple(Query(name, ()) for name in names), batch, "key")


def echo(query: Query) -> Steps:
    if query.type == "long":
        for _ in range(50):
            yield None
    if query.type == "bad":
        yield Fault(ErrorCode.LOADING, "not yet")
    elif query.type == "none":
        yield Answer(Status.NOT_FOUND, b"")
    else:
        yield Answer(Status.OK, b'"%b"' % query.type.encode())


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_most_urgent_query_is_answered_first() -> None:
    async def scenario() -> list[Any]:
        query_queue, asker = QueryQueue(Cache(echo), limit=10), Asker()
        for name, patience in (("late", 9.0), ("soon", 1.0), ("middle", 5.0)):
            query_queue.ask(asker, Asked(name), request(name), patience)  # type: ignore[arg-type]  # the asker is a fake
        await settle()
        return [message for message, _, _ in asker.answers]

    assert run(scenario()) == ["soon", "middle", "late"]


def test_a_query_past_its_deadline_is_told_so_and_not_answered() -> None:
    async def scenario() -> Asker:
        query_queue, asker = QueryQueue(Cache(echo), limit=10), Asker()
        query_queue.ask(asker, Asked("old"), request("a"), -1.0)  # type: ignore[arg-type]  # the asker is a fake
        await settle()
        return asker

    asker = run(scenario())
    assert asker.answers == []
    assert asker.faults == [("old", ErrorCode.EXPIRED)]


def test_a_full_desk_refuses_at_once() -> None:
    async def scenario() -> Asker:
        query_queue, asker = QueryQueue(Cache(echo), limit=2), Asker()
        for number in range(3):
            query_queue.ask(asker, Asked(number), request("a"), 5)  # type: ignore[arg-type]  # the asker is a fake
        await settle()
        return asker

    asker = run(scenario())
    assert asker.faults == [(2, ErrorCode.QUEUE_FULL)]
    assert len(asker.answers) == 2


def test_a_batch_is_answered_as_one_array_with_errors_and_nulls_in_place() -> None:
    async def scenario() -> Asker:
        query_queue, asker = QueryQueue(Cache(echo), limit=2), Asker()
        asked = request("a", "bad", "none", "b", batch=True)
        query_queue.ask(asker, Asked(1), asked, 5)  # type: ignore[arg-type]  # the asker is a fake
        await settle()
        return asker

    ((_, status, body),) = run(scenario()).answers
    assert status is Status.OK
    assert body == b'["a",{"error":{"code":"loading","message":"not yet"}},null,"b"]'


def test_a_large_batch_lets_the_loop_go_round() -> None:
    async def scenario() -> tuple[Asker, int]:
        loop = asyncio.get_running_loop()

        def slow(query: Query) -> Steps:
            end = loop.time() + 0.0005
            while loop.time() < end:
                pass
            yield Answer(Status.OK, b"1")

        query_queue, asker = QueryQueue(Cache(slow), limit=2), Asker()
        query_queue.ask(asker, Asked(1), request(*["a"] * 40, batch=True), 60)  # type: ignore[arg-type]  # the asker is a fake
        rounds = 0
        while not asker.answers:
            await asyncio.sleep(0)
            rounds += 1
        return asker, rounds

    asker, rounds = run(scenario())
    assert asker.answers[0][2] == b"[" + b",".join([b"1"] * 40) + b"]"
    assert rounds >= 10


def test_a_query_of_many_steps_is_dropped_at_its_deadline_and_frees_what_it_holds() -> None:
    async def scenario() -> tuple[Asker, list[str]]:
        freed: list[str] = []

        def endless(query: Query) -> Steps:
            try:
                while True:
                    yield None
            finally:
                freed.append(query.type)

        query_queue, asker = QueryQueue(Cache(endless), limit=2), Asker()
        query_queue.ask(asker, Asked(1), request("list"), 0.02)  # type: ignore[arg-type]  # the asker is a fake
        await asker.fault_came.wait()
        return asker, freed

    asker, freed = run(scenario())
    assert asker.faults == [(1, ErrorCode.EXPIRED)]
    assert freed == ["list"]


def test_an_urgent_query_overtakes_a_long_one_that_was_begun() -> None:
    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()

        def slow(query: Query) -> Steps:
            for _ in range(20 if query.type == "long" else 0):
                end = loop.time() + 0.0005
                while loop.time() < end:
                    pass
                yield None
            yield Answer(Status.OK, b"1")

        query_queue, asker = QueryQueue(Cache(slow), limit=5), Asker()
        query_queue.ask(asker, Asked("long"), request("long"), 60)  # type: ignore[arg-type]  # the asker is a fake
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        query_queue.ask(asker, Asked("urgent"), request("a"), 5)  # type: ignore[arg-type]  # the asker is a fake
        await asker.second_answer.wait()
        return [message for message, _, _ in asker.answers]

    assert run(scenario()) == ["urgent", "long"]


def test_a_mistake_in_one_answer_leaves_the_others_their_turn() -> None:
    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        query_queue, asker = QueryQueue(Cache(echo), limit=5), Asker()
        for message, patience in (("broken", 1.0), ("one", 2.0), ("two", 3.0)):
            query_queue.ask(asker, Asked(message), request("a"), patience)  # type: ignore[arg-type]  # the asker is a fake
        await asker.second_answer.wait()
        return [message for message, _, _ in asker.answers]

    assert run(scenario()) == ["one", "two"]


def test_answers_wait_while_the_broker_takes_none_and_expire_all_the_same() -> None:
    async def scenario() -> tuple[Asker, Asker, list[Any]]:
        query_queue, deaf, other = QueryQueue(Cache(echo), limit=5), Asker(), Asker()
        deaf.takes_answers = False
        query_queue.ask(deaf, Asked("waits"), request("a"), 60)  # type: ignore[arg-type]  # the asker is a fake
        query_queue.ask(deaf, Asked("expires"), request("b"), -1)  # type: ignore[arg-type]  # the asker is a fake
        query_queue.ask(other, Asked("goes on"), request("c"), 60)  # type: ignore[arg-type]  # the asker is a fake
        await settle()
        before = [message for message, _, _ in deaf.answers]
        deaf.takes_answers = True
        query_queue.go_on()
        await settle()
        return deaf, other, before

    deaf, other, before = run(scenario())
    assert before == []
    assert deaf.faults == [("expires", ErrorCode.EXPIRED)]
    assert [message for message, _, _ in deaf.answers] == ["waits"]
    assert [message for message, _, _ in other.answers] == ["goes on"]


def test_who_waits_for_the_broker_counts_among_those_who_wait() -> None:
    async def scenario() -> Asker:
        query_queue, asker = QueryQueue(Cache(echo), limit=2), Asker()
        asker.takes_answers = False
        for number in range(2):
            query_queue.ask(asker, Asked(number), request("a"), 60)  # type: ignore[arg-type]  # the asker is a fake
        await settle()
        query_queue.ask(asker, Asked(2), request("a"), 60)  # type: ignore[arg-type]  # the asker is a fake
        return asker

    assert run(scenario()).faults == [(2, ErrorCode.QUEUE_FULL)]


def test_a_batch_that_outgrows_one_message_says_so_in_the_places_that_do_not_fit() -> None:
    def large(query: Query) -> Steps:
        yield Answer(Status.OK, b"1" * (MAX_ANSWER // 2 if query.type == "large" else 1))

    async def scenario() -> Asker:
        query_queue, asker = QueryQueue(Cache(large), limit=2), Asker()
        asked = request("large", "large", "large", "small", batch=True)
        query_queue.ask(asker, Asked(1), asked, 60)  # type: ignore[arg-type]  # the asker is a fake
        await settle()
        return asker

    ((_, status, body),) = run(scenario()).answers
    assert status is Status.OK
    half = b"1" * (MAX_ANSWER // 2)
    # The third does not fit beside the first two; the small one would not, either.
    assert body.startswith(b"[" + half + b"," + half + b',{"error":{"code":"too_large"')
    assert len(body) < MAX_ANSWER + 1_000
