"""The client of a worker: typed events, queries and commands over RabbitMQ, each event once (docs/workers.md).

    import asyncio from rateway_client import Event, Worker

    async def main() -> None:
        async with Worker("amqp://localhost/", queue="my-bot") as worker:

            @worker.on("MESSAGE_CREATE") async def message(event: Event) -> None:
                guild = await worker.cache.guild(event.data["guild_id"], fields=["name"]) print(guild and guild["name"],
                event.data["content"])

            await worker.run()

    asyncio.run(main())

``pip install rateway-client``: it needs aio-pika and knows the contract alone.
"""

from rateway_client.cache import Cache, question
from rateway_client.errors import (
    BrokerUnavailable,
    ClientError,
    CommandError,
    ConnectionLost,
    GatewayError,
    NoAnswer,
    QueryError,
)
from rateway_client.event import Event
from rateway_client.members import Members
from rateway_client.seen import Seen
from rateway_client.worker import Worker

__version__ = "0.3.0"

__all__ = [
    "BrokerUnavailable", "Cache", "ClientError", "CommandError", "ConnectionLost", "Event", "GatewayError", "Members",
    "NoAnswer", "QueryError", "Seen", "Worker", "question",
]  # fmt: skip
