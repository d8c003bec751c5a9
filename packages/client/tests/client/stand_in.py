"""A stand-in for the gateway: an exchange, and an inbound queue whose messages a function answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage
from rateway_client import Worker
from rateway_protocol.contract import topology

from tests.rabbitmq import Broker

Answer = tuple[bytes, str]
Json = dict[str, Any]

CLUSTERS = b'{"type":"Clusters","arguments":[]}'


def clusters_of(shards: int, per_cluster: int, owners: Sequence[str | None] = ()) -> Json:
    """An answer to the query ``Clusters``."""
    clusters = [
        {
            "cluster": number,
            "exchange": topology.exchange(number),
            "shards": [*range(first, min(first + per_cluster, shards))],
            "guilds": 1,
            "owner": owners[number - 1] if owners else "this",
        }
        for number, first in enumerate(range(0, shards, per_cluster), 1)
    ]
    return {"shard_count": shards, "clusters": clusters}


@asynccontextmanager
async def gateway(
    broker: Broker,
    answer: Callable[[AbstractIncomingMessage], Answer | None] = lambda message: None,
    layout: Callable[[], Json] = lambda: clusters_of(8, 8),
) -> AsyncIterator[AbstractExchange]:
    """An exchange, and an inbound queue whose messages are answered by a function; ``Clusters`` with *layout*."""
    async with await aio_pika.connect(broker.uri) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.declare_exchange(topology.exchange(1), topology.EXCHANGE_TYPE, durable=True)
        queue = await channel.declare_queue(topology.incoming(1))
        for key in (topology.CACHE_KEY, topology.GATEWAY_KEY):
            await queue.bind(exchange, key)

        async def asked(message: AbstractIncomingMessage) -> None:
            if message.body == CLUSTERS:
                found: Answer | None = (json.dumps(layout()).encode(), "ok")
            else:
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


async def left_in(broker: Broker, queue: str) -> int:
    """How many messages a queue holds, when no consumer has any in its hands."""
    async with await aio_pika.connect(broker.uri) as connection:
        channel = await connection.channel()
        found = await channel.declare_queue(queue, passive=True)
        return found.declaration_result.message_count or 0
