"""Queries take turns: the most urgent first, none past its deadline, none that holds up the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import pytest
from rateway.cache.query_context import MAX_ANSWER
from rateway.runtime.requests.query_queue import PART_BYTES, QueryQueue
from rateway.transports.store.queries import Answer
from rateway_protocol.contract.errors import ErrorCode, Fault, Status
from rateway_protocol.contract.queries import Query, QueryRequest

from tests.aio import run

Steps = Generator[Answer | Fault | bytes | None, None, None]


class Cache:
    """Stands for the stores at one moment: what ``steps`` yields is an answer, or a wait for one."""

    def __init__(self, steps: Callable[[Query], Steps]) -> None:
        self.steps = steps

    def __call__(self) -> Cache:
        return self

    def answer(self, query: Query) -> Answer | Fault | Long:
        steps = self.steps(query)
        first = next(steps)
        if isinstance(first, Answer | Fault):
            return first
        long = Long(steps, holds=first is not None)
        long.read += first or b""
        return long

    def close(self) -> None:
        """A moment is over."""


class Long:
    """An answer that takes longer. ``holds``: what steps yield as bytes is the answer's beginning."""

    def __init__(self, steps: Steps, *, holds: bool = False) -> None:
        self.steps = steps
        self.holds = holds
        self.close = steps.close
        self.read = b""

    @property
    def size(self) -> int:
        return len(self.read)

    def take(self) -> bytes:
        taken, self.read = self.read, b""
        return taken

    def step(self) -> Answer | Fault | None:
        found = next(self.steps)
        if isinstance(found, bytes):
            self.read += found
            return None
        return Answer(found.status, self.take() + found.body) if isinstance(found, Answer) else found


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
        self.ended = asyncio.Event()
        self.parts: list[tuple[Any, bytes, int]] = []

    async def count(self, answers: int) -> None:
        """Wait for so many answers."""
        while len(self.answers) < answers:
            self.ended.clear()
            await self.ended.wait()

    def answer_part(self, message: Any, body: bytes, part: int) -> None:
        self.parts.append((message.name, body, part))

    def answer_query(
        self, message: Any, key: str | None, status: Status, body: bytes, part: int | None = None
    ) -> None:
        message = message.name
        if part is not None:
            self.parts.append((message, body, part))
        if message == "broken":
            raise RuntimeError("a mistake of ours")
        self.answers.append((message, status, body))
        self.ended.set()
        if len(self.answers) == 2:
            self.second_answer.set()

    def timed(self, kind: str, status: str, seconds: float) -> None:
        assert seconds >= 0

    def fail_query(self, message: Any, fault: Fault, key: str | None) -> None:
        self.faults.append((message.name, fault.code))
        self.fault_came.set()
        self.ended.set()


def request(*names: str, batch: bool = False, parts: bool = False) -> QueryRequest:
    return QueryRequest(tuple(Query(name, ()) for name in names), batch, "key", parts)


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


def held(query: Query) -> Steps:
    """``GuildSnapshot`` is six pieces of 1 MiB; ``ShardSnapshot`` does not come to its end."""
    if query.type in ("GuildSnapshot", "ShardSnapshot"):
        for at in range(6):
            yield b"%d" % at * (1 << 20)
    if query.type == "ShardSnapshot":
        yield Fault(ErrorCode.UNAVAILABLE, "the store cannot be read")
    yield Answer(Status.OK, b"8")


WHOLE = b"".join(b"%d" % at * (1 << 20) for at in range(6)) + b"8"


def ask_in_parts(*names: str, batch: bool) -> Asker:
    async def scenario() -> Asker:
        query_queue, asker = QueryQueue(Cache(held), limit=2), Asker()
        query_queue.ask(asker, Asked(1), request(*names, batch=batch, parts=True), 60)  # type: ignore[arg-type]  # the asker is a fake
        await asker.ended.wait()
        return asker

    return run(scenario())


@pytest.mark.parametrize("batch", [False, True])
def test_an_answer_in_parts_is_the_whole_one_when_they_are_joined(batch: bool) -> None:
    asker = ask_in_parts(
        *(["GuildSnapshot", "short", "GuildSnapshot"] if batch else ["GuildSnapshot"]), batch=batch
    )
    assert [part for _, _, part in asker.parts] == list(range(1, len(asker.parts) + 1))
    assert all(len(body) >= PART_BYTES for _, body, _ in asker.parts[:-1])
    assert len(asker.parts) == (4 if batch else 2)
    joined = b"".join(body for _, body, _ in asker.parts)
    assert joined == (b"[" + WHOLE + b",8," + WHOLE + b"]" if batch else WHOLE)


def test_a_small_answer_is_whole_though_it_might_come_in_parts() -> None:
    asker = ask_in_parts("short", "short", batch=True)
    assert asker.parts == [] and asker.answers[0][2] == b"[8,8]"


@pytest.mark.parametrize("batch", [False, True])
def test_an_answer_that_fails_after_its_first_part_is_an_error(batch: bool) -> None:
    asker = ask_in_parts(*(["short"] if batch else []), "ShardSnapshot", batch=batch)
    assert len(asker.parts) == 1 and asker.answers == []
    assert asker.faults == [(1, ErrorCode.UNAVAILABLE)]


def test_an_answer_that_fails_before_its_first_part_costs_itself_alone() -> None:
    def fails(query: Query) -> Steps:
        if query.type == "ShardSnapshot":
            yield b"{"
            yield Fault(ErrorCode.UNAVAILABLE, "the store cannot be read")
        yield Answer(Status.OK, b"8")

    async def scenario() -> Asker:
        query_queue, asker = QueryQueue(Cache(fails), limit=2), Asker()
        query_queue.ask(asker, Asked(1), request("ShardSnapshot", "short", batch=True, parts=True), 60)  # type: ignore[arg-type]  # the asker is a fake
        await settle()
        return asker

    ((_, _, body),) = run(scenario()).answers
    assert body == b'[{"error":{"code":"unavailable","message":"the store cannot be read"}},8]'


def slowly(freed: list[str], turns: int = 20) -> Callable[[Query], Steps]:
    """A snapshot is read at one moment for some turns; other queries are answered at once."""

    def steps(query: Query) -> Steps:
        loop = asyncio.get_running_loop()
        try:
            for _ in range(turns if query.type == "GuildSnapshot" else 0):
                end = loop.time() + 0.001
                while loop.time() < end:
                    pass
                yield b" "
            yield Answer(Status.OK, b"1")
        finally:
            freed.append(query.type)

    return steps


def test_a_snapshot_is_finished_before_another_and_takes_turns_with_other_queries() -> None:
    async def scenario() -> list[Any]:
        query_queue, asker = QueryQueue(Cache(slowly([])), limit=5), Asker()
        query_queue.ask(asker, Asked("snapshot"), request("GuildSnapshot"), 60)  # type: ignore[arg-type]  # the asker is a fake
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        query_queue.ask(asker, Asked("urgent snapshot"), request("GuildSnapshot"), 5)  # type: ignore[arg-type]  # the asker is a fake
        query_queue.ask(asker, Asked("patient"), request("a"), 60)  # type: ignore[arg-type]  # the asker is a fake
        await asker.count(3)
        return [message for message, _, _ in asker.answers]

    assert run(scenario()) == ["patient", "snapshot", "urgent snapshot"]


def test_the_most_urgent_is_answered_first_whether_it_is_a_snapshot_or_not() -> None:
    async def scenario() -> list[Any]:
        query_queue, asker = QueryQueue(Cache(slowly([], turns=0)), limit=5), Asker()
        for kind, patience in (("GuildSnapshot", 7.0), ("a", 5.0), ("GuildSnapshot", 3.0), ("b", 9.0)):
            query_queue.ask(asker, Asked(patience), request(kind), patience)  # type: ignore[arg-type]  # the asker is a fake
        await asker.count(4)
        return [message for message, _, _ in asker.answers]

    assert run(scenario()) == [3.0, 5.0, 7.0, 9.0]


def test_no_moment_is_held_while_the_broker_takes_no_answers() -> None:
    async def scenario() -> tuple[list[str], Asker]:
        freed: list[str] = []
        query_queue, asker = QueryQueue(Cache(slowly(freed)), limit=5), Asker()
        query_queue.ask(asker, Asked("held"), request("GuildSnapshot"), 60)  # type: ignore[arg-type]  # the asker is a fake
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asker.takes_answers = False
        await settle()
        before = list(freed)
        asker.takes_answers = True
        query_queue.go_on()
        await asker.ended.wait()
        return before, asker

    before, asker = run(scenario())
    assert before == ["GuildSnapshot"]
    # It was begun again, and is whole.
    assert asker.answers == [("held", Status.OK, b" " * 20 + b"1")]


def test_an_answer_of_which_a_part_is_sent_ends_when_the_broker_takes_no_more() -> None:
    async def scenario() -> Asker:
        loop = asyncio.get_running_loop()

        def long(query: Query) -> Steps:
            yield b" " * PART_BYTES
            for _ in range(20):
                end = loop.time() + 0.0005
                while loop.time() < end:
                    pass
                yield b" "
            yield Answer(Status.OK, b"1")

        query_queue, asker = QueryQueue(Cache(long), limit=5), Asker()
        taken = asker.answer_part

        def take_one(message: Any, body: bytes, part: int) -> None:
            taken(message, body, part)
            asker.takes_answers = False

        asker.answer_part = take_one  # type: ignore[method-assign]  # a broker that takes one part
        query_queue.ask(asker, Asked(1), request("GuildSnapshot", parts=True), 60)  # type: ignore[arg-type]  # the asker is a fake
        await asker.ended.wait()
        return asker

    asker = run(scenario())
    assert len(asker.parts) == 1 and asker.answers == []
    assert asker.faults == [(1, ErrorCode.UNAVAILABLE)]
