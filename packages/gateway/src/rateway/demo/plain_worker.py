"""A worker that knows only the original contract: it answers `!ping` over REST and sets its presence.

    AMQP_URI=… DISCORD_API_URL=… DISCORD_TOKEN=… python -m rateway.demo.plain_worker

It binds the workers' queue to the exchange of cluster 1 and consumes events as raw JSON, looks at no AMQP property, and
publishes gateway commands with a header `shard_id`. Nothing of rateway is imported: this is what a worker written for
the original looks like.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal

import aio_pika
import aiohttp
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

#: The events it wants; the routing key of an event is its name.
EVENTS = ("MESSAGE_CREATE", "READY")
EXCHANGE = "rateway-1"
#: Shared with the worker on `rateway_client`, which binds it to the exchanges of all clusters.
QUEUE = "workers"


class Worker:
    def __init__(self, exchange: AbstractExchange, http: aiohttp.ClientSession, api_url: str) -> None:
        self.exchange = exchange
        self.http = http
        self.api_url = api_url

    async def on_event(self, message: AbstractIncomingMessage) -> None:
        async with message.process():
            event = json.loads(message.body)
            if message.routing_key == "READY":
                await self.set_presence(event["shard"][0])
            elif event["content"] == "!ping" and not event["author"].get("bot"):
                await self.reply(event)

    async def set_presence(self, shard_id: int) -> None:
        activity = {"type": 0, "name": f"on shard {shard_id}"}
        command = {"op": 3, "d": {"since": None, "activities": [activity], "status": "online", "afk": False}}
        body = json.dumps(command).encode()
        await self.exchange.publish(
            aio_pika.Message(body, headers={"shard_id": shard_id}), routing_key="gateway"
        )
        print(f"presence of shard {shard_id}", flush=True)

    async def reply(self, event: dict[str, str]) -> None:
        url = f"{self.api_url}/channels/{event['channel_id']}/messages"
        # A message that is gone by now is answered all the same, without a reference to it.
        reference = {"message_id": event["id"], "fail_if_not_exists": False}
        body = {"content": "pong", "message_reference": reference}
        while True:
            async with self.http.post(url, json=body) as response:
                if response.status != 429:
                    break
                limited = await response.json()
            await asyncio.sleep(float(limited["retry_after"]))
        print(f"replied with {response.status} to {event['id']} in {event['channel_id']}", flush=True)


async def main() -> None:
    api_url = os.environ["DISCORD_API_URL"]
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    headers = {
        "Authorization": f"Bot {os.environ['DISCORD_TOKEN']}",
        "User-Agent": "DiscordBot (https://example.invalid/worker, 1.0)",
    }
    connection = await aio_pika.connect_robust(os.environ["AMQP_URI"])
    async with connection, aiohttp.ClientSession(headers=headers) as http:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=100)
        exchange = await channel.declare_exchange(EXCHANGE, type="direct", auto_delete=False, durable=True)
        queue = await channel.declare_queue(QUEUE, durable=True)
        for event in EVENTS:
            await queue.bind(exchange, event)
        await queue.consume(Worker(exchange, http, api_url).on_event)
        print(f"listening on {EXCHANGE}", flush=True)
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
