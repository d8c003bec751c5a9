"""A query of which another gateway has a part: it is asked of the right one, and answered whatever becomes of that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from rateway.cache.query_context import Situation
from rateway.runtime.requests.other_clusters import MOST_GATHERED, OtherClusters
from rateway.runtime.requests.query_queue import QueryQueue
from rateway.transports.store.queries import Answer
from rateway_protocol.contract.errors import ErrorCode, Fault, Status
from rateway_protocol.contract.queries import Query, QueryRequest
from tests.runtime.requests.test_query_queue import Asked, Asker, Cache, Steps

from tests.aio import run

# Of two shards, a cluster each: a guild of the first, and one of the second, which another gateway runs.
HERE, THERE = 2 << 22, 3 << 22
SITUATION = Situation(shard_count=2, shards_per_cluster=1, clusters=(1,), elsewhere={2})


@dataclass
class Gateways:
    """Other gateways that know users and their own guilds; *holds* keeps them from answering."""

    asked: list[tuple[int, str]] = field(default_factory=list)
    holds: bool = False
    broken: bool = False

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def ask(
        self, cluster: int, questions: Sequence[Mapping[str, object]], seconds: float
    ) -> list[bytes | Fault]:
        self.asked += [(cluster, str(each["type"])) for each in questions]
        if self.broken:
            raise RuntimeError("a mistake of ours")
        if self.holds:
            await asyncio.sleep(seconds)
            return [Fault(ErrorCode.UNAVAILABLE, "no answer")] * len(questions)
        return [b'{"of":"there"}' if each["type"] != "Role" else b"null" for each in questions]


def own(query: Query) -> Steps:
    """This gateway knows its guild and a role; no user."""
    if query.type == "User":
        yield Answer(Status.NOT_FOUND, b"")
    yield Answer(Status.OK, b'{"of":"here"}')


@dataclass
class Scene:
    gateways: Gateways
    other_clusters: OtherClusters
    asker: Asker = field(default_factory=Asker)

    def ask(self, *queries: Query | Fault, batch: bool = False, patience: float = 10.0) -> bool:
        request = QueryRequest(queries, batch, "key")
        asked: Any = Asked("q")
        return self.other_clusters.take(self.asker, asked, request, patience, SITUATION, {2})

    async def answer(self) -> Any:
        await self.asker.count(1)
        ((_, _, body),) = self.asker.answers
        return msgspec.json.decode(body) if body else None


@asynccontextmanager
async def scene(**gateways: Any) -> AsyncIterator[Scene]:
    others = Gateways(**gateways)
    clusters = OtherClusters(others, QueryQueue(Cache(own), limit=10))
    task = asyncio.create_task(clusters.run())
    await asyncio.sleep(0)
    try:
        yield Scene(others, clusters)
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_a_query_that_no_other_gateway_has_a_part_of_is_left_to_this_one() -> None:
    async def scenario() -> None:
        async with scene() as it:
            assert not it.ask(Query("Guild", (HERE,)))
            assert not it.ask(Query("WhereIs", (THERE,)), Query("Guild", (HERE,)), batch=True)
            assert not it.ask(Fault(ErrorCode.INVALID, "odd"))
            assert it.gateways.asked == []

    run(scenario())


def test_what_this_gateway_knows_is_asked_of_no_other() -> None:
    async def scenario() -> None:
        async with scene() as it:
            assert it.ask(Query("Role", (1,)))
            assert await it.answer() == {"of": "here"}
            assert it.gateways.asked == []

    run(scenario())


def test_a_batch_is_taken_apart_and_answered_in_its_order() -> None:
    async def scenario() -> None:
        async with scene() as it:
            queries = (
                Query("Guild", (THERE,)), Query("Guild", (HERE,)), Fault(ErrorCode.INVALID, "odd"), Query("User", (1,)),
            )  # fmt: skip
            assert it.ask(*queries, batch=True)
            there, here, fault, user = await it.answer()
            assert (there, here, user) == ({"of": "there"}, {"of": "here"}, {"of": "there"})
            assert fault["error"]["code"] == "invalid"
            assert it.gateways.asked == [(2, "Guild"), (2, "User")]

    run(scenario())


def test_a_gateway_that_does_not_answer_costs_the_query_its_answer_and_no_more_than_its_time() -> None:
    async def scenario() -> None:
        async with scene(holds=True) as it:
            assert it.ask(Query("Guild", (THERE,)), patience=0.05)
            await it.asker.fault_came.wait()
            assert it.asker.faults == [("q", ErrorCode.UNAVAILABLE)]

    run(scenario())


def test_a_mistake_in_one_answer_is_answered_and_leaves_the_others_their_turn() -> None:
    async def scenario() -> None:
        async with scene(broken=True) as it:
            assert it.ask(Query("Guild", (THERE,)))
            await it.asker.fault_came.wait()
            assert it.asker.faults == [("q", ErrorCode.INTERNAL)]
            it.gateways.broken = False
            assert it.ask(Query("Guild", (THERE,)))
            assert await it.answer() == {"of": "there"}

    run(scenario())


def test_queries_that_wait_for_other_gateways_are_bounded_in_number() -> None:
    async def scenario() -> None:
        async with scene(holds=True) as it:
            for _ in range(MOST_GATHERED + 1):
                assert it.ask(Query("Guild", (THERE,)))
            assert it.asker.faults == [("q", ErrorCode.QUEUE_FULL)]

    run(scenario())
