"""Queries take turns: the most urgent first, none past its deadline, none that holds up the loop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from rateway.contract.errors import ErrorCode, Fault, Status
from rateway.contract.queries import Query, QueryRequest
from rateway.runtime.desk import QueryDesk
from tests.aio import run


@dataclass(frozen=True)
class Said:
    status: Status
    body: bytes


class Asker:
    """Stands for a responder: keeps what was answered, in order."""

    def __init__(self) -> None:
        self.answers: list[tuple[Any, Status, bytes]] = []
        self.faults: list[tuple[Any, ErrorCode]] = []

    def answer_query(self, message: Any, key: str | None, status: Status, body: bytes) -> None:
        self.answers.append((message, status, body))

    def timed(self, kind: str, status: str, seconds: float) -> None:
        assert seconds >= 0

    def fail_query(self, message: Any, fault: Fault, key: str | None) -> None:
        self.faults.append((message, fault.code))


def request(*names: str, batch: bool = False) -> QueryRequest:
    return QueryRequest(tuple(Query(name, ()) for name in names), batch, "key")


def echo(query: Query) -> Said | Fault:
    if query.type == "bad":
        return Fault(ErrorCode.LOADING, "not yet")
    if query.type == "none":
        return Said(Status.NOT_FOUND, b"")
    return Said(Status.OK, b'"%b"' % query.type.encode())


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_most_urgent_query_is_answered_first() -> None:
    async def scenario() -> list[Any]:
        desk, asker = QueryDesk(echo, limit=10), Asker()
        now = asyncio.get_running_loop().time()
        for name, patience in (("late", 9.0), ("soon", 1.0), ("middle", 5.0)):
            desk.ask(asker, name, request(name), now + patience)  # type: ignore[arg-type]  # the asker is a fake
        await settle()
        return [message for message, _, _ in asker.answers]

    assert run(scenario()) == ["soon", "middle", "late"]


def test_a_query_past_its_deadline_is_told_so_and_not_answered() -> None:
    async def scenario() -> Asker:
        desk, asker = QueryDesk(echo, limit=10), Asker()
        now = asyncio.get_running_loop().time()
        desk.ask(asker, "old", request("a"), now - 1.0)  # type: ignore[arg-type]  # the asker is a fake
        await settle()
        return asker

    asker = run(scenario())
    assert asker.answers == []
    assert asker.faults == [("old", ErrorCode.EXPIRED)]


def test_a_full_desk_refuses_at_once() -> None:
    async def scenario() -> Asker:
        desk, asker = QueryDesk(echo, limit=2), Asker()
        now = asyncio.get_running_loop().time()
        for number in range(3):
            desk.ask(asker, number, request("a"), now + 5)  # type: ignore[arg-type]  # the asker is a fake
        await settle()
        return asker

    asker = run(scenario())
    assert asker.faults == [(2, ErrorCode.QUEUE_FULL)]
    assert len(asker.answers) == 2


def test_a_batch_is_answered_as_one_array_with_errors_and_nulls_in_place() -> None:
    async def scenario() -> Asker:
        desk, asker = QueryDesk(echo, limit=2), Asker()
        now = asyncio.get_running_loop().time()
        asked = request("a", "bad", "none", "b", batch=True)
        desk.ask(asker, 1, asked, now + 5)  # type: ignore[arg-type]  # the asker is a fake
        await settle()
        return asker

    ((_, status, body),) = run(scenario()).answers
    assert status is Status.OK
    assert body == b'["a",{"error":{"code":"loading","message":"not yet"}},null,"b"]'


def test_a_large_batch_lets_the_loop_go_round() -> None:
    async def scenario() -> tuple[Asker, int]:
        loop = asyncio.get_running_loop()

        def slow(query: Query) -> Said:
            end = loop.time() + 0.0005
            while loop.time() < end:
                pass
            return Said(Status.OK, b"1")

        desk, asker = QueryDesk(slow, limit=2), Asker()
        desk.ask(asker, 1, request(*["a"] * 40, batch=True), loop.time() + 60)  # type: ignore[arg-type]  # the asker is a fake
        rounds = 0
        while not asker.answers:
            await asyncio.sleep(0)
            rounds += 1
        return asker, rounds

    asker, rounds = run(scenario())
    assert asker.answers[0][2] == b"[" + b",".join([b"1"] * 40) + b"]"
    assert rounds >= 10
