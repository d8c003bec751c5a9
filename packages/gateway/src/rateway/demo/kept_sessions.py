"""Keep a discord.py bot's sessions over its own restarts and over refused dials, behind rateway's gateway proxy."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from typing import Any

import discord
from discord.gateway import DiscordWebSocket, ReconnectWebSocket

database = sqlite3.connect(os.environ.get("SESSIONS", "sessions.db"))
# What is committed outlives kill -9. After a power failure events may come again.
database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;")
database.execute(
    "CREATE TABLE IF NOT EXISTS sessions (place TEXT PRIMARY KEY, session TEXT, sequence INTEGER)"
)
# Places whose guilds are in this process's cache.
filled: set[str] = set()
# What fills it. All else that comes meanwhile comes again with the RESUME.
FILLING = {"READY", "GUILD_CREATE", "GUILD_MEMBERS_CHUNK"}


class KeptSession(DiscordWebSocket):
    """Identify to fill the cache, which costs no identify at Discord, then resume the session from before."""

    former: tuple[str, int] | None = None
    has_left = False

    @property
    def place(self) -> str:
        """The shard, and what its session is bound to."""
        return f"{self.shard_id or 0} of {self.shard_count or 1}, intents {self._connection.intents.value}"

    async def identify(self) -> None:
        row = database.execute(
            "SELECT session, sequence FROM sessions WHERE place = ?", (self.place,)
        ).fetchone()
        if row is not None and self.place in filled:
            # A dial was refused, and discord.py gave the session up.
            self.session_id, self.sequence = row
            await super().resume()
            return
        if row is None:
            filled.add(self.place)
        else:
            self.former = row
            self._discord_parsers = {name: self._discord_parsers[name] for name in FILLING}
            self.leaving = asyncio.create_task(self.leave_when_filled())
        await super().identify()

    async def resume(self) -> None:
        await (super().resume() if self.place in filled else self.identify())

    async def leave_when_filled(self) -> None:
        client = self._connection._get_client()
        event = "shard_ready" if isinstance(client, discord.AutoShardedClient) else "ready"
        await client.wait_for(event, check=lambda *shard: shard in ((), (self.shard_id,)))
        if self.open and self.former is not None:
            filled.add(self.place)
            self.has_left = True
            self.session_id, self.sequence = self.former
            await self.close()  # discord.py resumes what session_id and sequence name

    async def received_message(self, message: Any, /) -> None:
        if self.has_left:
            return
        try:
            await super().received_message(message)
        except ReconnectWebSocket as error:
            if not error.resume and self.former is None:
                database.execute("DELETE FROM sessions WHERE place = ?", (self.place,))
                database.commit()
            raise
        if self.session_id and self.former is None:
            # Behind the first step of the event's handlers, which are tasks.
            self.loop.call_soon(self.save, (self.place, self.session_id, self.sequence))

    @staticmethod
    def save(row: tuple[str, str, int | None]) -> None:
        database.execute("REPLACE INTO sessions VALUES (?, ?, ?)", row)
        database.commit()


for module in (discord.client, discord.shard):
    vars(module)["DiscordWebSocket"] = KeptSession  # the class that they connect with
