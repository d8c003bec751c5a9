"""A worker without ``cluster=`` serves every cluster that the bot has, and those that it gets later."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from rateway_client import Event, Worker
from rateway_protocol.contract import topology
from tests.client.stand_in import Answer, clusters_of, event, gateway

from tests.aio import run
from tests.rabbitmq import Broker


async def publish(broker: Broker, cluster: int, message: aio_pika.Message) -> None:
    """To a cluster's exchange, again until a queue takes it."""
    async with await aio_pika.connect(broker.uri) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.declare_exchange(
            topology.exchange(cluster), topology.EXCHANGE_TYPE, durable=True
        )
        while True:
            try:
                await exchange.publish(message, "MESSAGE_CREATE", mandatory=True)
            except aio_pika.exceptions.DeliveryError:
                continue
            return


def test_events_of_every_cluster_come_to_one_worker_by_default(broker: Broker) -> None:
    async def main() -> list[tuple[int | None, int | None]]:
        layout = clusters_of(20, 8)
        async with (
            gateway(broker, layout=lambda: layout),
            Worker(broker.uri, queue="shared", events=["MESSAGE_CREATE"]) as worker,
        ):
            assert worker.clusters == [1, 2, 3]
            events = worker.events()
            taken = []
            for cluster in (3, 1, 2):
                await publish(broker, cluster, event(cluster, shard_count=20))
                found = await anext(events)
                await found.done()
                taken.append((found.cluster, found.seq))
            return taken

    assert run(main()) == [(3, 3), (1, 1), (2, 2)]


def test_one_cluster_can_still_be_served_alone(broker: Broker) -> None:
    asked: list[bytes] = []

    def answer(message: AbstractIncomingMessage) -> Answer:
        asked.append(message.body)
        return b'{"id":"9"}', "ok"

    def layout() -> dict[str, Any]:
        raise AssertionError("nobody asks")

    async def main() -> None:
        async with (
            gateway(broker, answer, layout),
            Worker(broker.uri, cluster=1, events=["MESSAGE_CREATE"]) as worker,
        ):
            assert worker.clusters == [1]
            assert await worker.query("CurrentUser") == {"id": "9"}

    run(main())
    assert [json.loads(body)["type"] for body in asked] == ["CurrentUser"]


def test_a_cluster_that_the_bot_gets_later_is_served_as_soon_as_an_event_shows_it(broker: Broker) -> None:
    now = {"layout": clusters_of(8, 8)}

    async def main() -> list[int | None]:
        handled: list[int | None] = []
        async with (
            gateway(broker, layout=lambda: now["layout"]),
            Worker(broker.uri, queue="shared") as worker,
        ):

            @worker.on("MESSAGE_CREATE")
            async def message(found: Event) -> None:
                handled.append(found.cluster)
                if found.cluster == 2:
                    worker.stop()

            running = asyncio.create_task(worker.run())
            await publish(broker, 1, event(1, shard_count=8))
            now["layout"] = clusters_of(16, 8)
            await publish(broker, 1, event(2, shard_count=16))
            await publish(broker, 2, event(3, shard_count=16))
            await running
        return handled

    assert run(main()) == [1, 1, 2]


def test_a_worker_that_began_before_any_gateway_serves_all_clusters_once_there_is_one(broker: Broker) -> None:
    async def main() -> None:
        async with Worker(broker.uri, queue="shared", events=["MESSAGE_CREATE"]) as worker:
            assert worker.clusters == [1]
            async with gateway(broker, layout=lambda: clusters_of(16, 8)):
                await publish(broker, 2, event(1, shard_count=16))
                found = await anext(worker.events())
                assert (found.cluster, worker.clusters) == (2, [1, 2])

    run(main())


def test_a_gateway_that_does_not_know_the_question_leaves_cluster_one(broker: Broker, caplog: Any) -> None:
    refused = json.dumps(
        {"error": {"code": "unknown_type", "message": "there is no type 'Clusters'"}}
    ).encode()

    async def main() -> None:
        async with (
            gateway(broker, layout=lambda: {"error": json.loads(refused)["error"]}),
            Worker(broker.uri, queue="shared", events=["MESSAGE_CREATE"]) as worker,
        ):
            await publish(broker, 1, event(1))
            assert (await anext(worker.events())).seq == 1
            assert worker.clusters == [1]

    run(main())
    assert "only cluster 1 is served" in caplog.text


def test_requests_go_to_the_gateway_that_runs_the_guilds_cluster(broker: Broker) -> None:
    """Two gateways: each answers for its own cluster alone."""
    keys: list[tuple[str, str]] = []

    async def other(channel: aio_pika.abc.AbstractChannel) -> None:
        exchange = await channel.declare_exchange("rateway-2", "direct", durable=True)
        queue = await channel.declare_queue("rateway-incoming-2")
        for key in ("cache", "gateway"):
            await queue.bind(exchange, key)

        async def asked(message: AbstractIncomingMessage) -> None:
            keys.append((message.exchange or "", message.routing_key or ""))
            reply = aio_pika.Message(
                b'{"id":"2"}', correlation_id=message.correlation_id, headers={"status": "ok"}
            )
            await channel.default_exchange.publish(reply, message.reply_to or "")

        await queue.consume(asked, no_ack=True)

    async def main() -> None:
        async with await aio_pika.connect(broker.uri) as connection:
            await other(await connection.channel())
            layout = clusters_of(16, 8, ["this", "another"])
            async with (
                gateway(broker, lambda message: (b'{"id":"1"}', "ok"), lambda: layout),
                Worker(broker.uri) as worker,
            ):
                here, there = 3 << 22, 9 << 22
                assert (await worker.cache.guild(here) or {})["id"] == "1"
                assert (await worker.cache.guild(there) or {})["id"] == "2"
                assert (await worker.cache.user(1) or {})["id"] == "1"
                await worker.command(3, {}, shard_id=9)
                await worker.command(3, {}, shard_id=1)
                await worker.voice_state(there, None)

    run(main())
    assert keys == [("rateway-2", "cache"), ("rateway-2", "gateway"), ("rateway-2", "gateway")]
