"""What the proxy relies on of the gateway that it asks, held by both forms of the port: memory and RabbitMQ.

Behind RabbitMQ stands the same memory: what arrives there is read as the gateway reads it. The whole gateway is asked
in ``tests/e2e``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractIncomingMessage
from rateway.delivery.proxy_port import Gateway
from rateway.transports.amqp.requests.gateway_requests import AmqpGateway
from rateway.transports.amqp.wire.uri import parse
from rateway_protocol.contract.commands import parse_command
from rateway_protocol.contract.errors import ErrorCode, Fault, error_body
from rateway_protocol.contract.queries import MembersWanted, Query, SnapshotFor, parse_query
from rateway_protocol.contract.topology import CACHE_KEY, GATEWAY_KEY
from tests.proxy.memory import GuildStates, MemoryGateway, Sent

from tests.aio import run
from tests.rabbitmq import Broker

# Guild ids of the shards 0 and 1.
GUILD, OTHER = 1 << 24, 3 << 22


@dataclass
class Answerer:
    """The gateway's side at the broker: reads requests as the contract says, and answers from a memory."""

    memory: MemoryGateway
    exchange: str
    queue: str
    # How answers are sent on: whole, or in pieces of so many bytes.
    piece: int | None = None
    asked: list[object] = field(default_factory=list)
    silent: bool = False
    strange: tuple[bytes, dict[str, object]] | None = None
    """What the next request is answered with."""
    came: asyncio.Event = field(default_factory=asyncio.Event)
    channel: aio_pika.abc.AbstractChannel | None = None

    async def serve(self, connection: aio_pika.abc.AbstractConnection) -> None:
        self.channel = channel = await connection.channel()
        exchange = await channel.declare_exchange(self.exchange, "direct", durable=True)
        queue = await channel.declare_queue(self.queue, durable=True)
        for key in (CACHE_KEY, GATEWAY_KEY):
            await queue.bind(exchange, key)
        await queue.consume(self._take)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        await message.ack()
        assert message.reply_to is not None
        assert message.expiration is not None
        self.came.set()
        if self.silent:
            return
        if self.strange is not None:
            strange, self.strange = self.strange, None
            await self.send(message, *strange)
            return
        if message.routing_key == GATEWAY_KEY:
            command = parse_command(message.body, message.headers, shard_count=len(self.memory.shards))
            fault = (
                command
                if isinstance(command, Fault)
                else self.memory.command_now(command.shard_id, message.body)
            )
            await self._answer(message, fault or {"shard_id": 0})
            return
        request = parse_query(message.body, has_reply_to=True)
        assert not isinstance(request, Fault)
        assert request.parts
        answers = [each if isinstance(each, Fault) else self._found(each) for each in request.queries]
        if request.batch:
            told = [
                msgspec.Raw(error_body(each) if isinstance(each, Fault) else msgspec.json.encode(each))
                for each in answers
            ]
            await self._answer(message, told)
        else:
            await self._answer(message, answers[0])

    def _found(self, query: Query) -> object:
        self.asked.append(query)
        memory = self.memory
        match query.type, query.options:
            case "Clusters", _:
                return memory.clusters_now()
            case "ShardSnapshot", _:
                return memory.shard_now(query.arguments[0])
            case "GuildSnapshot", SnapshotFor():
                return memory.guild_now(query.arguments[0])
            case "MembersMatching", MembersWanted() as wanted:
                ids = None if wanted.query is not None else wanted.user_ids
                return memory.members_now(
                    query.arguments[0], wanted.query, wanted.limit, ids, wanted.presences
                )
        raise AssertionError(query)

    async def _answer(self, message: AbstractIncomingMessage, answer: object) -> None:
        if isinstance(answer, Fault):
            await self.send(message, error_body(answer), {"status": "error"})
            return
        body = msgspec.json.encode(answer)
        if self.piece is None:
            await self.send(message, body, {"status": "ok"})
            return
        pieces = [body[at : at + self.piece] for at in range(0, len(body), self.piece)]
        for number, piece in enumerate(pieces, 1):
            last = {"parts": len(pieces)} if number == len(pieces) else {}
            await self.send(message, piece, {"status": "ok", "part": number, **last})

    async def send(self, message: AbstractIncomingMessage, body: bytes, headers: dict[str, object]) -> None:
        assert self.channel is not None
        assert message.reply_to is not None
        answer = aio_pika.Message(body, correlation_id=message.correlation_id, headers=headers)  # type: ignore[arg-type]  # its own type of values
        await self.channel.default_exchange.publish(answer, message.reply_to)


@dataclass
class Stage:
    """A gateway that can be asked, and the memory behind it."""

    gateway: Gateway
    memory: MemoryGateway
    piece: Callable[[int], None]


def two_shards() -> MemoryGateway:
    memory = MemoryGateway({1: (0,), 2: (1,)}, kinds=("guilds", "members"))
    memory.logs = {1: "rateway-log-1-a", 2: None}
    for shard_id, guild_id in ((0, GUILD), (1, OTHER)):
        shard = memory.shards[shard_id]
        shard.session, shard.seq = f"session-{shard_id}", 7 + shard_id
        members = [{"user": {"id": str(number), "username": f"user{number}"}} for number in (1, 2, 30)]
        shard.states = GuildStates([{"id": str(guild_id), "name": "ä", "members": members}])
    return memory


@asynccontextmanager
async def in_memory(broker: Broker | None) -> AsyncIterator[Stage]:
    memory = two_shards()
    yield Stage(memory, memory, lambda size: None)


@asynccontextmanager
async def asking(broker: Broker, seconds: float = 30.0) -> AsyncIterator[AmqpGateway]:
    gateway = AmqpGateway(address=parse(broker.uri), query_seconds=seconds)
    running = asyncio.create_task(gateway.run())
    try:
        yield gateway
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def answering(broker: Broker, memory: MemoryGateway) -> AsyncIterator[list[Answerer]]:
    """An answerer for each cluster."""
    connection = await aio_pika.connect(broker.uri)
    try:
        answerers = [
            Answerer(memory, f"rateway-{cluster}", f"rateway-incoming-{cluster}") for cluster in memory.logs
        ]
        for each in answerers:
            await each.serve(connection)
        yield answerers
    finally:
        await connection.close()


@asynccontextmanager
async def over_amqp(broker: Broker | None) -> AsyncIterator[Stage]:
    assert broker is not None
    memory = two_shards()
    async with answering(broker, memory) as answerers, asking(broker) as gateway:

        def piece(size: int) -> None:
            for each in answerers:
                each.piece = size

        yield Stage(gateway, memory, piece)


Form = Callable[[Callable[[Stage], Awaitable[None]]], None]


@pytest.fixture(params=["memory", "amqp"])
def on(request: pytest.FixtureRequest) -> Form:
    """Runs a test on a stage of this form."""
    is_memory = request.param == "memory"
    broker = None if is_memory else request.getfixturevalue("broker")
    form: Callable[[Broker | None], AbstractAsyncContextManager[Stage]] = (
        in_memory if is_memory else over_amqp
    )

    def given(test: Callable[[Stage], Awaitable[None]]) -> None:
        async def main() -> None:
            async with form(broker) as stage:
                await test(stage)

        run(main())

    return given


def test_the_layout_names_clusters_logs_and_what_the_gateway_was_given(on: Form) -> None:
    async def test(stage: Stage) -> None:
        told = await stage.gateway.clusters()
        assert told == stage.memory.clusters_now()
        assert not isinstance(told, Fault)
        assert [(row.shards, row.log) for row in told.clusters] == [((0,), "rateway-log-1-a"), ((1,), None)]

    on(test)


def test_a_shard_is_told_with_its_position(on: Form) -> None:
    async def test(stage: Stage) -> None:
        told = await stage.gateway.shard(1)
        assert not isinstance(told, Fault)
        assert (told.session, told.seq, [each.id for each in told.guilds]) == ("session-1", 8, [str(OTHER)])
        assert bytes(told.application or b"") == b'{"id":"80","flags":0}'

    on(test)


def test_what_the_gateway_refuses_is_its_own_fault(on: Form) -> None:
    async def test(stage: Stage) -> None:
        missing = await stage.gateway.shard(9)
        assert isinstance(missing, Fault)
        assert (missing.code, "9" in missing.message) == (ErrorCode.NO_SUCH_SHARD, True)
        stage.memory.fault = Fault(ErrorCode.CACHE_OFF, "the cache is off")
        assert await stage.gateway.clusters() == stage.memory.fault
        assert await stage.gateway.guilds([GUILD, OTHER], 1, 50) == [stage.memory.fault] * 2

    on(test)


@pytest.mark.parametrize("size", [None, 1, 100])
def test_guilds_are_told_in_the_order_asked_for_each_with_its_own_fault(on: Form, size: int | None) -> None:
    async def test(stage: Stage) -> None:
        if size is not None:
            stage.piece(size)
        # The second time the clusters' own exchanges are known.
        for _ in range(2):
            other, unknown, guild = await stage.gateway.guilds([OTHER, 5, GUILD], 1 << 9, 250)
            assert isinstance(unknown, Fault)
            assert not isinstance(other, Fault)
            assert not isinstance(guild, Fault)
            assert (other.shard, other.session, other.seq) == (1, "session-1", 8)
            assert msgspec.json.decode(guild.guild)["name"] == "ä"
            assert not isinstance(await stage.gateway.clusters(), Fault)

    on(test)


def test_as_many_guilds_as_a_shard_has_are_told(on: Form) -> None:
    async def test(stage: Stage) -> None:
        ids = [(number << 22) + 1 for number in range(120)]
        for number, guild_id in enumerate(ids):
            stage.memory.shards[number % 2].states.apply("GUILD_CREATE", {"id": str(guild_id)})
        assert not isinstance(await stage.gateway.clusters(), Fault)
        told = await stage.gateway.guilds(ids, 1, 50)
        found = [each.guild for each in told if not isinstance(each, Fault)]
        assert [int(msgspec.json.decode(each)["id"]) for each in found] == ids
        assert await stage.gateway.guilds([], 1, 50) == []

    on(test)


def test_members_are_asked_for_by_name_or_by_id(on: Form) -> None:
    async def test(stage: Stage) -> None:
        by_name = await stage.gateway.members(GUILD, "user3", 5, None, False)
        assert not isinstance(by_name, Fault)
        assert [msgspec.json.decode(each)["user"]["id"] for each in by_name.members] == ["30"]
        assert (by_name.presences, by_name.session, by_name.seq) == (None, "session-0", 7)
        by_id = await stage.gateway.members(GUILD, None, 0, [2, 99], True)
        assert not isinstance(by_id, Fault)
        assert (len(by_id.members), by_id.not_found, by_id.presences) == (1, ("99",), ())
        everybody = await stage.gateway.members(GUILD, "", 0, None, False)
        assert not isinstance(everybody, Fault)
        assert len(everybody.members) == 3

    on(test)


def test_a_command_goes_out_on_its_shard_or_says_why_not(on: Form) -> None:
    async def test(stage: Stage) -> None:
        presence = b'{"op":3,"d":{"since":null,"activities":[],"status":"idle","afk":false}}'
        assert await stage.gateway.command(1, presence, 5) is None
        assert stage.memory.sent == [Sent(1, presence)]
        refused = await stage.gateway.command(7, presence, 5)
        assert isinstance(refused, Fault)
        assert refused.code is ErrorCode.NO_SUCH_SHARD
        stage.memory.refuse_commands = Fault(ErrorCode.QUEUE_FULL, "2,000 commands wait")
        assert await stage.gateway.command(0, presence, 5) == stage.memory.refuse_commands

    on(test)


# What only a broker can do.


def test_a_gateway_that_does_not_answer_in_time_is_unavailable(broker: Broker) -> None:
    async def main() -> None:
        async with asking(broker, 0.2) as gateway:
            told = await gateway.shard(0)
            assert isinstance(told, Fault)
            assert told.code is ErrorCode.UNAVAILABLE
            assert "0.2 s" in told.message
            refused = await gateway.command(0, b"{}", 0.2)
            assert isinstance(refused, Fault)
            assert refused.code is ErrorCode.UNAVAILABLE

    run(main())


def test_that_no_gateway_is_there_is_known_at_once(broker: Broker) -> None:
    async def main() -> None:
        async with asking(broker, seconds=110.0) as gateway, asyncio.timeout(90):
            found = await gateway.clusters()
            assert isinstance(found, Fault)
            assert found.code is ErrorCode.UNAVAILABLE
            assert "no gateway reads rateway-1" in found.message

    run(main())


def test_each_clusters_log_is_told_by_the_gateway_that_runs_it(broker: Broker) -> None:
    async def main() -> None:
        one, other = two_shards(), two_shards()
        one.elsewhere, other.elsewhere = {2}, {1}
        other.logs[2] = "rateway-log-2-b"
        async with answering(broker, one) as answerers, asking(broker, 5) as gateway:
            answerers[1].memory = other
            told = await gateway.clusters()
            assert not isinstance(told, Fault)
            logs = [(row.cluster, row.owner, row.log) for row in told.clusters]
            assert logs == [(1, "this", "rateway-log-1-a"), (2, "this", "rateway-log-2-b")]
            # A gateway that is away leaves the others as they are.
            answerers[1].silent = True
            told = await gateway.clusters()
            assert not isinstance(told, Fault)
            assert [(row.owner, row.log) for row in told.clusters] == [
                ("this", "rateway-log-1-a"),
                ("another", None),
            ]
            # Where the one that was asked is away, another one is asked the next time.
            answerers[0].silent, answerers[1].silent = True, False
            assert isinstance(await gateway.clusters(), Fault)
            told = await gateway.clusters()
            assert not isinstance(told, Fault)
            assert [row.log for row in told.clusters] == [None, "rateway-log-2-b"]

    run(main())


def test_a_broker_that_is_away_is_said_to_be(broker: Broker) -> None:
    async def main() -> None:
        gateway = AmqpGateway(address=parse("amqp://127.0.0.1:1"), query_seconds=0.3)
        running = asyncio.create_task(gateway.run())
        told = await gateway.shard(0)
        assert isinstance(told, Fault)
        assert told.code is ErrorCode.UNAVAILABLE
        assert "the broker" in told.message
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(main())


def test_a_query_whose_connection_is_lost_is_asked_again_and_a_command_is_not(broker: Broker) -> None:
    async def main() -> None:
        memory = two_shards()
        async with asking(broker) as gateway:
            async with answering(broker, memory) as answerers:
                for each in answerers:
                    each.silent = True
                query = asyncio.create_task(gateway.clusters())
                command = asyncio.create_task(gateway.command(0, b'{"op":3,"d":{}}', 30))
                await answerers[0].came.wait()
                await broker.close_connections()
                fault = await command
                assert isinstance(fault, Fault)
                assert fault.code is ErrorCode.UNAVAILABLE
                assert "may have gone out" in fault.message
            async with answering(broker, memory):
                assert await query == memory.clusters_now()
                assert memory.sent == []

    run(main())


def test_answers_of_another_form_are_faults_and_harm_nothing_else(broker: Broker) -> None:
    async def main() -> None:
        memory = two_shards()
        async with answering(broker, memory) as answerers, asking(broker) as gateway:
            answers: dict[str, tuple[bytes, dict[str, object]]] = {
                "no JSON": (b"{", {"status": "ok"}),
                "another form": (b'{"shard":"x"}', {"status": "ok"}),
                "an unknown code": (b'{"error":{"code":"new","message":"later"}}', {"status": "error"}),
                "an error of no form": (b"\xff", {"status": "error"}),
                "no headers": (b"[]", {}),
                # The last: after it another gateway is asked.
                "a part that is missing": (b"{}", {"status": "ok", "part": 2}),
            }
            for what, answer in answers.items():
                answerers[0].strange = answer
                told = await gateway.clusters()
                assert isinstance(told, Fault), what
                assert told.code in (ErrorCode.INTERNAL, ErrorCode.UNAVAILABLE)
                assert await gateway.clusters() == memory.clusters_now()

    run(main())
