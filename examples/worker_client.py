"""A whole worker on `rateway_client`: each event once, the cache asked, a command answered.

    pip install rateway-client
    AMQP_URI=amqp://guest:guest@localhost/ python examples/worker_client.py

It prints each message that is written in the bot's guilds with the guild's name, and sets the bot's presence
on each shard that starts a session. It serves all clusters of the bot; Ctrl-C and SIGTERM end it cleanly.

Its queue is durable and bounded: while no worker reads it, events over x-max-length go, the oldest first. It stays
until it is deleted: `rabbitmqctl delete_queue my-client-worker`.
"""

import asyncio
import os

from rateway_client import CommandError, Event, Worker


async def main() -> None:
    bounded = {"x-max-length": 100_000}
    async with Worker(os.environ["AMQP_URI"], queue="my-client-worker", queue_arguments=bounded) as worker:

        @worker.on("MESSAGE_CREATE")
        async def message(event: Event) -> None:
            where = "a direct message"
            if "guild_id" in event.data:
                guild = await worker.cache.guild(event.data["guild_id"], fields=["name"])
                where = guild["name"] if guild else "a guild that is not known"
            print(f"{event.data['author']['username']} in {where}: {event.data['content']}", flush=True)

        @worker.on("READY")
        async def ready(event: Event) -> None:
            shard_id, count = event.data["shard"]
            activity = {"type": 0, "name": f"shard {shard_id} of {count}"}
            try:
                await worker.update_presence(shard_id, activities=[activity])
            except CommandError as error:
                print(f"no presence on shard {shard_id}: {error.code}", flush=True)

        print("listening", flush=True)
        await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
