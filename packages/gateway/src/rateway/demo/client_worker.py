"""A worker on `rateway_client`: the same as the plain one, for all clusters, with each event once and commands that are
answered.

AMQP_URI=… DISCORD_API_URL=… DISCORD_TOKEN=… python -m rateway.demo.client_worker
"""

from __future__ import annotations

import asyncio
import os
import signal

import aiohttp
from rateway_client import ClientError, Event, Worker

#: The events that it has handlers for.
EVENTS = ("MESSAGE_CREATE", "READY")


async def reply(http: aiohttp.ClientSession, url: str, event: Event, content: str) -> None:
    # A message that is gone by now is answered all the same, without a reference to it.
    reference = {"message_id": event.data["id"], "fail_if_not_exists": False}
    body = {"content": content, "message_reference": reference}
    while True:
        async with http.post(url, json=body) as response:
            if response.status != 429:
                break
            limited = await response.json()
        await asyncio.sleep(float(limited["retry_after"]))
    print(f"replied with {response.status} to {event.data['id']} in {event.data['channel_id']}", flush=True)


async def main() -> None:
    api_url = os.environ["DISCORD_API_URL"]
    headers = {
        "Authorization": f"Bot {os.environ['DISCORD_TOKEN']}",
        "User-Agent": "DiscordBot (https://example.invalid/worker, 1.0)",
    }
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        # Named at once, so that the queue collects them as soon as it says that it listens.
        Worker(os.environ["AMQP_URI"], events=EVENTS, queue="workers") as worker,
    ):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)

        @worker.on("MESSAGE_CREATE")
        async def message(event: Event) -> None:
            if event.data["content"] != "!ping" or event.data["author"].get("bot"):
                return
            try:
                guild = await worker.cache.guild(event.data["guild_id"], fields=["name"])
            except ClientError:
                # The gateway is on its way back; an answer is worth more than the name.
                guild = None
            url = f"{api_url}/channels/{event.data['channel_id']}/messages"
            await reply(http, url, event, f"pong, {guild['name'] if guild else 'whoever you are'}")

        @worker.on("READY")
        async def ready(event: Event) -> None:
            shard_id = event.data["shard"][0]
            activity = {"type": 0, "name": f"on shard {shard_id}"}
            try:
                await worker.update_presence(shard_id, activities=[activity])
            except ClientError as error:
                print(f"presence of shard {shard_id} was not set: {error}", flush=True)
            else:
                print(f"presence of shard {shard_id}", flush=True)

        print("listening on all clusters", flush=True)
        await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
