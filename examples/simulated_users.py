"""Plays the users of a simulated Discord: says `!ping`, uses `/ping`, and prints what the bot answers.

    SIMULATOR=http://127.0.0.1:1235/simulator python examples/simulated_users.py

Ends with 1 when the bot does not answer within 10 seconds.
"""

import asyncio
import os
import sys

import aiohttp


async def play(url: str) -> list[str]:
    """The bot's answers to a message and a command in the first guild."""
    async with aiohttp.ClientSession(url.rstrip("/") + "/", raise_for_status=True) as simulator:
        guild = (await (await simulator.get("guilds", params={"limit": "1"})).json())[0]
        where = {"channel_id": guild["channel_id"]}
        user = guild["members"][0]
        await simulator.post(f"users/{user}/messages", json={**where, "content": "!ping"})
        await simulator.post(f"users/{user}/commands", json={**where, "name": "ping"})
        for _ in range(100):
            world = await (
                await simulator.get("world", params={"kinds": "message", "guilds": guild["id"]})
            ).json()
            here = [d for d in world["message"].values() if d["channel_id"] == guild["channel_id"]]
            answers = [
                d["content"]
                for d in here
                if d["author"]["bot"] and d["author"]["username"] == "simulated-bot"
            ]
            if len(answers) >= 2:
                return answers
            await asyncio.sleep(0.1)
        return answers


if __name__ == "__main__":
    found = asyncio.run(play(os.environ["SIMULATOR"]))
    print("\n".join(found))
    sys.exit(0 if len(found) >= 2 else 1)
