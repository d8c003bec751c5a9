"""A whole worker in plain aio-pika, by the original contract: events, one gateway command, one cache query.

    AMQP_URI=amqp://guest:guest@localhost/ python examples/worker_aio_pika.py

It prints each message that is written anywhere in the guilds of cluster 1, with the guild's name, which it asks
the shared cache for, and sets the bot's presence on shard 0. Nothing of rateway is imported.
"""

import asyncio
import contextlib
import json
import os

import aio_pika

CLUSTER = int(os.environ.get("CLUSTER", "1"))
EVENTS = ["MESSAGE_CREATE"]
PRESENCE = {
    "op": 3,
    "d": {"since": None, "activities": [{"type": 0, "name": "chess"}], "status": "online", "afk": False},
}


async def main() -> None:
    connection = await aio_pika.connect_robust(os.environ["AMQP_URI"])
    async with connection:
        channel = await connection.channel()
        # The gateway declares the exchange with exactly these flags; so does whoever comes first.
        exchange = await channel.declare_exchange(
            f"rateway-{CLUSTER}", type="direct", durable=True, auto_delete=False
        )
        queue = await channel.declare_queue(f"my-worker-{CLUSTER}", durable=True)
        for event in EVENTS:
            await queue.bind(exchange, event)

        # Answers of the cache come back over the same exchange, under a key of our choice.
        answers = await channel.declare_queue(exclusive=True)
        waiting: dict[str, asyncio.Future[bytes]] = {}

        async def on_answer(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            future = waiting.pop(message.routing_key or "", None)
            if future is not None and not future.done():
                future.set_result(message.body)

        await answers.consume(on_answer, no_ack=True)

        async def guild(guild_id: int) -> dict[str, object] | None:
            key = f"guild-{guild_id}-{CLUSTER}"
            if key not in waiting:
                waiting[key] = asyncio.get_running_loop().create_future()
                await answers.bind(exchange, key)
                query = {"type": "Guild", "arguments": [guild_id], "return_routing_key": key}
                await exchange.publish(aio_pika.Message(json.dumps(query).encode()), routing_key="cache")
            body = await asyncio.wait_for(asyncio.shield(waiting[key]), 10)
            return json.loads(body) if body else None

        command = aio_pika.Message(json.dumps(PRESENCE).encode(), headers={"shard_id": (CLUSTER - 1) * 8})
        await exchange.publish(command, routing_key="gateway")
        print("listening", flush=True)

        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    event = json.loads(message.body)
                    found = await guild(int(event["guild_id"])) if "guild_id" in event else None
                    where = found["name"] if found else "somewhere"
                    print(
                        f"{message.routing_key} in {where}: {event['author']['username']}: {event['content']}",
                        flush=True,
                    )


if __name__ == "__main__":
    # Ctrl-C cancels main, whose connection is closed on the way out; what was not acknowledged stays in the queue.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
