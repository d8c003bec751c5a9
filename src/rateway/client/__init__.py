"""What a worker imports: typed events, queries and commands over RabbitMQ, each event once (docs/workers.md).

    import asyncio
    from rateway.client import Event, Worker

    async def main() -> None:
        async with Worker("amqp://localhost/", cluster=1, queue="my-bot") as worker:

            @worker.on("MESSAGE_CREATE")
            async def message(event: Event) -> None:
                guild = await worker.cache.guild(event.data["guild_id"], fields=["name"])
                print(guild and guild["name"], event.data["content"])

            await worker.run()

    asyncio.run(main())

An extra of the package (``pip install rateway[client]``): it needs aio-pika and knows the contract alone.
"""

from rateway.client.cache import Cache, question
from rateway.client.errors import (
    BrokerUnavailable,
    ClientError,
    CommandError,
    ConnectionLost,
    GatewayError,
    NoAnswer,
    QueryError,
)
from rateway.client.event import Event
from rateway.client.members import Members
from rateway.client.seen import Seen
from rateway.client.worker import Worker

__all__ = [
    "BrokerUnavailable", "Cache", "ClientError", "CommandError", "ConnectionLost", "Event", "GatewayError", "Members",
    "NoAnswer", "QueryError", "Seen", "Worker", "question",
]  # fmt: skip
