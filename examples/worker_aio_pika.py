"""A whole worker in plain aio-pika, by the original contract: events, gateway commands, queries to the cache.

    AMQP_URI=amqp://guest:guest@localhost/ python examples/worker_aio_pika.py

It prints each message that is written anywhere in the bot's guilds, with the guild's name, which it asks the shared
cache for, and sets the bot's presence on shard 0. Nothing of rateway is imported. It serves all clusters: it asks the
gateway for them when it starts and every ten seconds.

Its queue is durable and bounded: while no worker reads it, events over x-max-length go, the oldest first. It stays
until it is deleted: `rabbitmqctl delete_queue my-worker`.
"""

import asyncio
import contextlib
import json
import os
import uuid

import aio_pika

EVENTS = ["MESSAGE_CREATE"]
# No gateway answers, or the broker is away.
UNANSWERED = (TimeoutError, ConnectionError, RuntimeError, aio_pika.exceptions.AMQPError)
PRESENCE = {
    "op": 3,
    "d": {"since": None, "activities": [{"type": 0, "name": "chess"}], "status": "online", "afk": False},
}


async def main() -> None:
    connection = await aio_pika.connect_robust(os.environ["AMQP_URI"])
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=100)
        # The gateway declares its exchanges with exactly these flags; so does whoever comes first.
        first = await channel.declare_exchange("rateway-1", type="direct", durable=True, auto_delete=False)
        queue = await channel.declare_queue("my-worker", durable=True, arguments={"x-max-length": 100_000})

        # Answers of the cache come back over the same exchange, under a key of our choice.
        answers = await channel.declare_queue(exclusive=True)
        waiting: dict[str, asyncio.Future[bytes]] = {}

        async def on_answer(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            future = waiting.pop(message.routing_key or "", None)
            if future is not None and not future.done():
                future.set_result(message.body)

        await answers.consume(on_answer, no_ack=True)

        async def ask(kind: str, *arguments: int) -> object:
            key = f"answer-{uuid.uuid4().hex}"
            waiting[key] = asyncio.get_running_loop().create_future()
            await answers.bind(first, key)
            try:
                query = {"type": kind, "arguments": arguments, "return_routing_key": key}
                await first.publish(aio_pika.Message(json.dumps(query).encode()), routing_key="cache")
                body = await asyncio.wait_for(waiting[key], 10)
                return json.loads(body) if body else None
            finally:
                waiting.pop(key, None)
                await answers.unbind(first, key)

        async def bind(exchange: aio_pika.abc.AbstractExchange) -> None:
            for event in EVENTS:
                await queue.bind(exchange, event)

        async def follow_clusters() -> None:
            while True:
                try:
                    layout = await ask("Clusters")
                    for cluster in layout["clusters"] if isinstance(layout, dict) else []:
                        await bind(
                            await channel.declare_exchange(cluster["exchange"], "direct", durable=True)
                        )
                except UNANSWERED as error:  # it is asked again
                    print(f"which clusters there are is not known yet: {error!r}", flush=True)
                await asyncio.sleep(10)

        # The first cluster is always there; the others follow as soon as a gateway answers.
        await bind(first)
        following = asyncio.create_task(follow_clusters())
        command = aio_pika.Message(json.dumps(PRESENCE).encode(), headers={"shard_id": 0})
        await first.publish(command, routing_key="gateway")
        print("listening", flush=True)

        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    event = json.loads(message.body)
                    guild = await ask("Guild", int(event["guild_id"])) if "guild_id" in event else None
                    where = guild["name"] if isinstance(guild, dict) else "somewhere"
                    print(
                        f"{message.routing_key} in {where}: {event['author']['username']}: {event['content']}",
                        flush=True,
                    )
        following.cancel()


if __name__ == "__main__":
    # Ctrl-C cancels main, whose connection is closed on the way out; what was not acknowledged stays in the queue.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
