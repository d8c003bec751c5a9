"""The client against a real broker, with a stand-in that answers as the gateway does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

from rateway.client import Event, GatewayError, NoAnswer, Worker, question
from rateway.contract import topology
from rateway.contract.errors import ErrorCode, Fault, error_body
from tests.aio import run
from tests.rabbitmq import Broker

Answer = tuple[bytes, str]


@asynccontextmanager
async def gateway(
    broker: Broker, answer: Callable[[AbstractIncomingMessage], Answer | None] = lambda message: None
) -> AsyncIterator[AbstractExchange]:
    """An exchange, and an inbound queue whose messages are answered by a function."""
    async with await aio_pika.connect(broker.uri) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.declare_exchange(topology.exchange(1), topology.EXCHANGE_TYPE, durable=True)
        queue = await channel.declare_queue(topology.incoming(1))
        for key in (topology.CACHE_KEY, topology.GATEWAY_KEY):
            await queue.bind(exchange, key)

        async def asked(message: AbstractIncomingMessage) -> None:
            found = answer(message)
            if found is not None and message.reply_to is not None:
                body, status = found
                reply = aio_pika.Message(
                    body, correlation_id=message.correlation_id, headers={"status": status}
                )
                await channel.default_exchange.publish(reply, message.reply_to)

        await queue.consume(asked, no_ack=True)
        yield exchange


def event(seq: int, body: object = None, **headers: Any) -> aio_pika.Message:
    return aio_pika.Message(
        json.dumps(body or {"n": seq}).encode(), type="MESSAGE_CREATE", message_id=f"s:0:{seq}",
        headers={"shard_id": 0, "shard_count": 8, "seq": seq, **headers},
    )  # fmt: skip


async def bound(worker: Worker, exchange: AbstractExchange, key: str) -> None:
    """Wait until somebody takes events of that name, by asking the broker with a probe nobody handles."""
    while True:
        try:
            await exchange.publish(aio_pika.Message(b"{}", type="PROBE"), key, mandatory=True)
        except aio_pika.exceptions.DeliveryError:
            continue
        return


def test_events_come_typed_and_each_once_and_are_acknowledged_when_handled(broker: Broker) -> None:
    async def main() -> list[Event]:
        handled: list[Event] = []
        async with gateway(broker) as exchange, Worker(broker.uri, queue="shared") as worker:

            @worker.on("MESSAGE_CREATE")
            async def message(found: Event) -> None:
                handled.append(found)
                if found.seq == 3:
                    worker.stop()

            running = asyncio.create_task(worker.run())
            await bound(worker, exchange, "MESSAGE_CREATE")
            for number in (1, 1, 2, 1):
                await exchange.publish(event(number, replayed=True), "MESSAGE_CREATE")
            await exchange.publish(event(3, {"id": "5", "content": "hi"}, cause="join"), "MESSAGE_CREATE")
            await running
        return handled

    handled = run(main())
    assert [found.seq for found in handled] == [1, 2, 3]
    last = handled[-1]
    assert (last.name, last.shard_id, last.shard_count, last.message_id) == ("MESSAGE_CREATE", 0, 8, "s:0:3")
    assert (handled[0].replayed, last.replayed, last.cause) == (True, False, "join")

    class Model(msgspec.Struct):
        content: str

    assert last.data == {"id": "5", "content": "hi"} and last.data is last.data
    assert last.decode(Model) == Model("hi")


def test_a_handler_that_fails_gets_its_event_once_more(broker: Broker) -> None:
    async def main() -> list[tuple[int | None, bool]]:
        tries: list[tuple[int | None, bool]] = []
        async with gateway(broker) as exchange, Worker(broker.uri, queue="shared", prefetch=1) as worker:

            @worker.on("MESSAGE_CREATE")
            async def message(found: Event) -> None:
                tries.append((found.seq, found.redelivered))
                if found.seq == 2:
                    worker.stop()
                else:
                    raise ValueError("the application's mistake")

            running = asyncio.create_task(worker.run())
            await bound(worker, exchange, "MESSAGE_CREATE")
            for number in (1, 2):
                await exchange.publish(event(number), "MESSAGE_CREATE")
            await running
        return tries

    assert [item for item in run(main()) if item[0]] == [(1, False), (1, True), (2, False)]


def test_queries_and_commands_are_awaited(broker: Broker) -> None:
    asked: list[tuple[str | None, dict[str, Any], dict[str, Any]]] = []

    def answer(message: AbstractIncomingMessage) -> Answer | None:
        body = json.loads(message.body)
        asked.append((message.routing_key, body, dict(message.headers)))
        if "op" in body:
            return (
                (b'{"sent": true}', "ok")
                if body["op"] == 3
                else (error_body(Fault(ErrorCode.QUEUE_FULL, "full")), "error")
            )
        if "queries" in body:
            return b'[{"id":"1"},null,' + error_body(Fault(ErrorCode.LOADING, "wait")) + b"]", "ok"
        replies = {"Guild": (b'{"name":"g"}', "ok"), "User": (b"", "not_found"), "Role": (b"[", "nonsense")}
        return replies.get(body["type"])

    async def main() -> None:
        async with gateway(broker, answer), Worker(broker.uri) as worker:
            assert await worker.query("Guild", 1, fields=["name"]) == {"name": "g"}
            assert await worker.query("User", 2) is None
            first, second, third = await worker.queries(
                [question("Guild", [1]), question("User", [2]), question("Guild", [3])]
            )
            assert (first, second) == ({"id": "1"}, None)
            assert isinstance(third, GatewayError) and third.code == "loading"
            await worker.command(3, {"status": "idle"}, shard_id=0)
            with pytest.raises(GatewayError, match="queue_full: full"):
                await worker.command(8, {}, guild_id=1 << 60)
            with pytest.raises(ValueError, match="shard_id or"):
                await worker.command(3, {})
            with pytest.raises(NoAnswer, match="within"):
                await worker.query("Member", 1, 2, timeout=0.2)

    run(main())
    assert asked[0] == ("cache", {"type": "Guild", "arguments": ["1"], "fields": ["name"]}, {})
    assert asked[3] == ("gateway", {"op": 3, "d": {"status": "idle"}}, {"shard_id": 0})
    assert asked[4][2] == {"guild_id": 1 << 60}


def test_without_a_gateway_a_query_says_so_at_once(broker: Broker) -> None:
    async def main() -> None:
        async with Worker(broker.uri) as worker:
            with pytest.raises(NoAnswer, match="no gateway has run cluster 1"):
                await worker.query("CurrentUser", timeout=30)

    run(main())


def test_a_worker_out_of_its_with_block_says_what_is_missing() -> None:
    worker = Worker("amqp://localhost/")
    for call in (worker.run(), worker.query("Guild", 1)):
        with pytest.raises(RuntimeError, match="async with"):
            run(call)


def test_a_broken_connection_comes_back_with_queue_bindings_and_answers(broker: Broker) -> None:
    async def main() -> list[int | None]:
        handled: list[int | None] = []
        first = asyncio.Event()
        async with Worker(broker.uri, queue="shared") as worker:

            @worker.on("MESSAGE_CREATE")
            async def message(found: Event) -> None:
                handled.append(found.seq)
                first.set()
                if found.seq == 2:
                    worker.stop()

            running = asyncio.create_task(worker.run())
            async with gateway(broker) as exchange:
                await bound(worker, exchange, "MESSAGE_CREATE")
                await exchange.publish(event(1), "MESSAGE_CREATE")
                await first.wait()
            await broker.close_connections()
            async with gateway(broker, lambda message: (b'{"id":"9"}', "ok")) as exchange:
                await exchange.publish(event(2), "MESSAGE_CREATE")
                await running
                while True:
                    try:
                        assert await worker.query("CurrentUser", timeout=2) == {"id": "9"}
                        return handled
                    except (NoAnswer, ConnectionError, aio_pika.exceptions.AMQPError):
                        continue

    assert [number for number in run(main()) if number] == [1, 2]
