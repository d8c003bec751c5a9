"""The client against a real broker, with a stand-in that answers as the gateway does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractIncomingMessage
from rateway_client import Event, GatewayError, NoAnswer, Worker, question
from rateway_protocol.contract.errors import ErrorCode, Fault, error_body
from tests.client.stand_in import Answer, bound, event, gateway

from tests.aio import run
from tests.rabbitmq import Broker


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
