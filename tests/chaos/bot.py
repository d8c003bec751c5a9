"""A bot with discord.py, one client a shard and one for all of them, which writes down every dispatch as it came.

A line of a dispatch is ``client s crc32 name``, and for some names more words: the session id and the guilds of READY,
the guild of GUILD_CREATE and GUILD_DELETE. A client's number is its shard's; that of all shards has the next number.
SIGUSR1 has the bot write what the clients of single shards hold to a file, as JSON, and then the line ``state``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import zlib
from pathlib import Path
from typing import Any

import discord
import discord.gateway
import discord.http
import yarl

SHARDS = int(os.environ["SHARDS"])
# An operator restarts a bot that waits for longer. discord.py's back-off reaches 17 minutes after ten failed dials, and
# forgets them after half an hour.
MOST_WAIT_S = 3.0
DISPATCH = re.compile(r'\{"t":"([^"]+)","s":(\d+),"op":0,"d":(.*)\}', re.DOTALL)

discord.http.Route.BASE = f"http://{os.environ['PROXY']}/api/v10"
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(f"ws://{os.environ['PROXY']}/")


def more(name: str, d: str) -> str:
    """What is told of an event besides."""
    if name == "READY":
        ready = json.loads(d)
        return " ".join((ready["session_id"], *(guild["id"] for guild in ready["guilds"])))
    return str(json.loads(d)["id"]) if name in ("GUILD_CREATE", "GUILD_DELETE") else ""


class Client(discord.Client):
    """A shard, or all of them as one."""

    def __init__(self, number: int) -> None:
        shard, count = (number, SHARDS) if number < SHARDS else (0, 1)
        super().__init__(
            intents=discord.Intents.all(), shard_id=shard, shard_count=count, enable_debug_events=True
        )
        self.number = number

    async def on_socket_raw_receive(self, message: str) -> None:
        found = DISPATCH.fullmatch(message)
        if found is not None:
            name, seq, d = found.groups()
            print(self.number, seq, zlib.crc32(d.encode()), name, more(name, d), flush=True)

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """The proxy lets all shards identify at once."""


class OperatorsWatch(logging.Handler):
    """End the process when the library means to wait for long."""

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("Attempting a reconnect in") and isinstance(record.args, tuple):
            wait = record.args[0]
            if isinstance(wait, float) and wait > MOST_WAIT_S:
                os._exit(os.EX_TEMPFAIL)


def state(clients: list[Client]) -> dict[str, Any]:
    """The names of all that it holds."""
    found: dict[str, Any] = {"channel": {}, "guild": {}, "member": {}, "role": {}, "thread": {}}
    for guild in (guild for client in clients[:SHARDS] for guild in client.guilds if not guild.unavailable):
        found["guild"][str(guild.id)] = guild.name
        found["role"] |= {str(each.id): each.name for each in guild.roles}
        found["channel"] |= {str(each.id): each.name for each in guild.channels}
        found["thread"] |= {str(each.id): each.name for each in guild.threads}
        found["member"] |= {f"{guild.id}:{each.id}": each.nick for each in guild.members}
    return found


def write_state(clients: list[Client]) -> None:
    """Write it to the file that is asked for."""
    Path(os.environ["STATE"]).write_text(json.dumps(state(clients)))
    print("state", flush=True)


async def main() -> None:
    """Run until one of the clients gives up."""
    clients = [Client(number) for number in range(SHARDS + 1)]
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: write_state(clients))
    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(client.start(os.environ["TOKEN"]))


if __name__ == "__main__":
    discord.utils.setup_logging(level=logging.INFO)
    logging.getLogger("discord.client").addHandler(OperatorsWatch())
    asyncio.run(main())
