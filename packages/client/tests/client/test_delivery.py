"""Each event once and none lost, whatever becomes of the connection; who is refused is told why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractExchange
from rateway_client import BrokerUnavailable, CommandError, ConnectionLost, Event, NoAnswer, Worker
from rateway_protocol.contract import topology
from tests.client.stand_in import event, gateway, left_in

from tests.aio import run
from tests.rabbitmq import Broker


async def publish(exchange: AbstractExchange, *numbers: int, key: str = "MESSAGE_CREATE") -> None:
    for number in numbers:
        await exchange.publish(event(number), key)


def worker_of(broker: Broker, **options: Any) -> Worker:
    return Worker(broker.uri, **{"queue": "shared", "events": ["MESSAGE_CREATE"], **options})


async def seqs(events: AsyncIterator[Event], count: int) -> list[int | None]:
    """The next *count* events' numbers, each done."""
    found = []
    for _ in range(count):
        each = await anext(events)
        await each.done()
        found.append(each.seq)
    return found


def test_a_copy_of_an_event_in_hand_waits_for_it_and_is_acknowledged_with_it(broker: Broker) -> None:
    async def main() -> None:
        async with worker_of(broker) as worker:
            async with gateway(broker) as exchange:
                await publish(exchange, 1)
                events = worker.events()
                first = await anext(events)
            await broker.close_connections()
            async with gateway(broker) as exchange:
                await publish(exchange, 2)
                # The copy of 1 was delivered before 2, and is held.
                assert await seqs(events, 1) == [2]
                await first.done()
                await publish(exchange, 1, 3)
                assert await seqs(events, 1) == [3]
        assert await left_in(broker, "shared") == 0

    run(main())


def test_what_was_settled_while_the_broker_was_away_is_known_when_it_is_back(broker: Broker) -> None:
    async def main() -> None:
        async with worker_of(broker, queue_kind="quorum") as worker:
            async with gateway(broker) as exchange:
                await publish(exchange, 1, 2)
            events = worker.events()
            first, second = await anext(events), await anext(events)
            await broker.close_connections()
            await first.done()
            await second.give_back()
            again = await anext(events)
            assert (again.seq, again.redelivered, again.message_id) == (2, True, second.message_id)
            await again.done()
            await again.done()
        assert await left_in(broker, "shared") == 0

    run(main())


def test_an_event_given_back_comes_again_and_a_dropped_one_is_a_dead_letter(broker: Broker) -> None:
    async def main() -> None:
        arguments = {"x-dead-letter-exchange": topology.exchange(1), "x-dead-letter-routing-key": "dead"}
        async with await aio_pika.connect(broker.uri) as connection, gateway(broker) as exchange:
            channel = await connection.channel()
            dead = await channel.declare_queue("dead", durable=True)
            await dead.bind(topology.exchange(1), "dead")
            async with worker_of(broker, queue_arguments=arguments) as worker:
                await publish(exchange, 1)
                events = worker.events()
                await (await anext(events)).give_back()
                again = await anext(events)
                assert (again.seq, again.redelivered) == (1, True)
                await again.drop()
                # RabbitMQ moves it once it has read that the event is dropped.
                while (letter := await dead.get(fail=False)) is None:
                    await asyncio.sleep(0.02)
                assert letter.message_id == "s:0:1"

    run(main())


def test_handlers_run_side_by_side_as_many_as_allowed_and_one_keeps_the_order(broker: Broker) -> None:
    async def main(concurrency: int) -> tuple[int, list[int | None]]:
        most = running = 0
        handled: list[int | None] = []
        async with gateway(broker) as exchange, worker_of(broker, events=()) as worker:

            @worker.on("MESSAGE_CREATE")
            async def message(found: Event) -> None:
                nonlocal most, running
                running += 1
                most = max(most, running)
                # Long enough for every event that is there to be begun.
                for _ in range(1000):
                    await asyncio.sleep(0)
                running -= 1
                handled.append(found.seq)
                if len(handled) == 20:
                    worker.stop()

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(worker.run(concurrency=concurrency))
                while True:
                    try:
                        await exchange.publish(event(0), "MESSAGE_CREATE", mandatory=True)
                        break
                    except aio_pika.exceptions.DeliveryError:
                        continue
                await publish(exchange, *range(1, 20))
        return most, handled

    most, handled = run(main(4))
    assert most == 4 and sorted(number or 0 for number in handled) == list(range(20))
    assert run(main(1)) == (1, list(range(20)))


def test_stopping_ends_what_is_under_way_and_leaves_the_rest_in_the_queue(broker: Broker) -> None:
    async def main() -> None:
        handled: list[int | None] = []
        async with gateway(broker) as exchange:
            async with worker_of(broker) as worker:
                await publish(exchange, 1, 2, 3)

                @worker.on("MESSAGE_CREATE")
                async def message(found: Event) -> None:
                    worker.stop()
                    await asyncio.sleep(0)
                    handled.append(found.seq)

                await worker.run(concurrency=1)
            assert await left_in(broker, "shared") == 2
            async with worker_of(broker) as successor:
                assert await seqs(successor.events(), 2) == [2, 3]
        assert handled == [1]

    run(main())


def test_events_that_an_earlier_version_bound_are_not_given_to_handlers(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with gateway(broker) as exchange:
            async with worker_of(broker, events=["TYPING_START", "MESSAGE_CREATE"]):
                await exchange.publish(aio_pika.Message(b"{}", type="TYPING_START"), "TYPING_START")
                await publish(exchange, 1)
            async with worker_of(broker) as worker:
                assert await seqs(worker.events(), 1) == [1]
        assert await left_in(broker, "shared") == 0

    run(main())
    assert "still bound to TYPING_START" in caplog.text


def test_a_query_is_asked_again_after_a_broken_connection_and_a_command_tells_that_its_fate_is_unknown(
    broker: Broker,
) -> None:
    async def main() -> None:
        async with Worker(broker.uri) as worker:
            asked = asyncio.Semaphore(0)
            async with gateway(broker, lambda message: asked.release()):
                query = asyncio.create_task(worker.query("Guild", 1, fields=["name"], timeout=60))
                command = asyncio.create_task(worker.update_presence(0))
                for _ in (query, command):
                    await asked.acquire()
                await broker.close_connections()
            with pytest.raises(ConnectionLost, match="may have been sent or not"):
                await command
            async with gateway(broker, lambda message: (b'{"name":"g"}', "ok")):
                assert await query == {"name": "g"}

    run(main())


def test_closing_the_worker_ends_the_calls_under_way(broker: Broker) -> None:
    async def main() -> None:
        asked = asyncio.Event()
        async with gateway(broker, lambda message: asked.set()):
            async with Worker(broker.uri) as worker:
                query = asyncio.create_task(worker.query("CurrentUser", timeout=30))
                members = asyncio.create_task(worker.request_members(1, timeout=30))
                await asked.wait()
            for call in (query, members):
                with pytest.raises(ConnectionLost, match="closed"):
                    await call

    run(main())


def test_who_is_refused_is_told_at_once_and_who_finds_nobody_in_time(broker: Broker) -> None:
    async def main() -> None:
        async with worker_of(broker):
            pass
        with pytest.raises(BrokerUnavailable, match="inequivalent arg"):
            async with worker_of(broker, queue_kind="quorum"):
                pass
        nobody = broker.uri.replace("guest:guest", "guest:wrong")
        with pytest.raises(BrokerUnavailable, match="refuses") as refused:
            async with Worker(nobody):
                pass
        assert "wrong" not in str(refused.value)
        with pytest.raises(BrokerUnavailable, match="no connection to the broker"):
            async with Worker("amqp://guest:guest@127.0.0.1:1/", patience=0.5):
                pass

    run(main())


@pytest.mark.parametrize(
    "uri", ["", "localhost", "http://u:hidden@localhost/", "amqp://u:hidden@localhost:x/"]
)
def test_an_address_that_cannot_be_one_is_refused_without_showing_it(uri: str) -> None:
    with pytest.raises(ValueError, match="amqp://user:password@") as refused:
        Worker(uri)
    assert "hidden" not in str(refused.value)


def test_a_quorum_queue_needs_a_name_and_a_misspelt_event_is_pointed_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ValueError, match="name"):
        Worker("amqp://localhost/", queue_kind="quorum")
    Worker("amqp://localhost/", events=["MESAGE_CREATE", "MESSAGE_DELETE.before", "RATEWAY_GAP"])
    assert [record.getMessage() for record in caplog.records] == [
        "no documented event is called MESAGE_CREATE; did you mean MESSAGE_CREATE?"
    ]


def test_errors_tell_queries_from_commands(broker: Broker) -> None:
    async def main() -> None:
        refused = b'{"error":{"code":"superseded","message":"a newer presence took its place"}}'
        async with gateway(broker, lambda message: (refused, "error")), Worker(broker.uri) as worker:
            with pytest.raises(CommandError) as error:
                await worker.update_presence(0)
            assert error.value.code == "superseded" and not error.value.worth_trying_again
        async with gateway(broker), Worker(broker.uri) as worker:
            with pytest.raises(NoAnswer, match="no gateway has answered"):
                await worker.query("Stats", timeout=0.3)

    run(main())
