"""A gateway as one would write it today: a bot library with its cache, aio-pika, one confirmed publish per event.

A process of its own: ``python -m benchmarks.path.naive hikari|discord.py '{"api", "port", "broker", "shards"}'``.
Each event goes out as it came, to the exchange ``naive`` under its name, persistent, with its id.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aio_pika
import uvloop

from benchmarks.rig.streams import TOKEN

# Publishes under way at once; without a bound a flood would make a task for every event.
AT_ONCE = 1000


class Publisher:
    """One channel with confirms."""

    def __init__(self, exchange: aio_pika.abc.AbstractExchange) -> None:
        self._exchange = exchange
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, name: str, shard: int, seq: int | None, payload: dict[str, Any]) -> None:
        """Publish without making the library wait."""
        task = asyncio.get_running_loop().create_task(self._send(name, shard, seq, payload))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, name: str, shard: int, seq: int | None, payload: dict[str, Any]) -> None:
        message = aio_pika.Message(
            json.dumps(payload).encode(),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=f"{shard}:{seq}",
            headers={"shard": shard},
        )
        async with self._room:
            await self._exchange.publish(message, name)


async def connected(broker: str) -> Publisher:
    """The exchange, declared."""
    connection = await aio_pika.connect_robust(broker)
    channel = await connection.channel(publisher_confirms=True)
    exchange = await channel.declare_exchange("naive", "direct", durable=True)
    return Publisher(exchange)


async def with_hikari(publisher: Publisher, told: dict[str, Any]) -> None:
    """hikari: its ShardPayloadEvent carries each dispatch as a dict."""
    import hikari

    bot = hikari.GatewayBot(
        TOKEN, rest_url=told["api"], intents=hikari.Intents.ALL, banner=None, logs="WARNING"
    )

    async def on_payload(event: hikari.ShardPayloadEvent) -> None:
        publisher.send(event.name, event.shard.id, None, dict(event.payload))

    bot.subscribe(hikari.ShardPayloadEvent, on_payload)
    await bot.start(check_for_updates=False, shard_count=told["shards"])
    await bot.join()


async def with_discord_py(publisher: Publisher, told: dict[str, Any]) -> None:
    """discord.py: its raw socket messages are the only place where an event can be had as it came."""
    import discord
    import discord.gateway
    import discord.http
    from yarl import URL

    discord.http.Route.BASE = told["api"]
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = URL(f"ws://127.0.0.1:{told['port']}/")

    class Client(discord.AutoShardedClient):
        async def on_socket_raw_receive(self, text: str) -> None:
            payload = json.loads(text)
            if payload["op"] == 0:
                publisher.send(payload["t"], 0, payload["s"], payload["d"])

    client = Client(intents=discord.Intents.all(), enable_debug_events=True, shard_count=told["shards"])
    await client.start(TOKEN)


async def main() -> None:
    """Run one of them until killed."""
    told = json.loads(sys.argv[2])
    publisher = await connected(told["broker"])
    await {"hikari": with_hikari, "discord.py": with_discord_py}[sys.argv[1]](publisher, told)


if __name__ == "__main__":
    uvloop.run(main())
