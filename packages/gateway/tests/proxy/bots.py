"""Bots and proxies in memory: a bot speaks Discord's protocol to a proxy's :class:`Connections`, and knows what it was
told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rateway.proxy.log.replay import Replay
from rateway.proxy.sessions.bot_connection import BotConnection
from rateway.proxy.sessions.connections import Connections
from rateway.proxy.sessions.session_id import SessionIds
from rateway_protocol.discord import intents as discord_intents
from rateway_protocol.discord.visibility import visible
from tests.proxy.memory import GuildStates, MemoryGateway, MemoryReader

TOKEN = "token-of-the-bot"
URL = "ws://proxy.example"
KEY = b"k" * 32


class Process:
    """One proxy process."""

    def __init__(self, gateway: MemoryGateway, reader: MemoryReader, replay: Replay | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.connections = Connections(
            gateway, reader, SessionIds(KEY), lambda token: token == TOKEN, visible, loop, loop.time,
            replay=replay,
        )  # fmt: skip
        self.bots: list[Bot] = []
        self._task = asyncio.create_task(self.connections.run())

    @classmethod
    async def start(
        cls, gateway: MemoryGateway, reader: MemoryReader, replay: Replay | None = None
    ) -> Process:
        """Return a process that serves."""
        process = cls(gateway, reader, replay)
        await asyncio.sleep(0)
        return process

    async def kill(self) -> None:
        """End at once: nobody is told, all sockets break."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        for bot in tuple(self.bots):
            bot.lose()


@dataclass(frozen=True)
class Received:
    """A dispatch as the bot got it."""

    name: str
    seq: int
    d: Any


class Bot:
    """A bot: its end of the WebSocket, and its view of the guilds."""

    def __init__(
        self, shard: int = 0, count: int = 1, intents: int = discord_intents.ALL, **identify: Any
    ) -> None:
        self.shard = [shard, count]
        self.intents = intents
        self.extra = identify
        self.identified = False
        self.waiting = 0
        self.is_compressed = False
        self.connection: BotConnection | None = None
        self.process: Process | None = None
        self.session_id: str | None = None
        self.seq: int | None = None
        self.view = GuildStates()
        self.dispatches: list[Received] = []
        """Of the present session."""
        self.others: list[Any] = []
        """Payloads that are no dispatches, of the present connection."""
        self.closed: int | None = None
        """The code that the proxy closed the present connection with."""
        self.resumes = self.sessions = 0

    # Wire.

    def send(self, payload: bytes) -> None:
        if self.connection is None and self.process is None:
            return
        told = json.loads(payload)
        if told["op"] != 0:
            self.others.append(told)
            if told["op"] == 9:
                self.session_id = self.seq = None
            return
        self.seq = told["s"]
        name, d = told["t"], told["d"]
        if name == "READY":
            self.sessions += 1
            self.session_id = d["session_id"]
            self.dispatches = []
            self.view = GuildStates()
            for guild in d["guilds"]:
                self.view.guilds[int(guild["id"])] = guild
        elif name == "RESUMED":
            self.resumes += 1
        else:
            self.view.apply(name, d)
        self.dispatches.append(Received(name, told["s"], d))

    def close(self, code: int, reason: str) -> None:
        assert len(reason.encode()) <= 123
        self.closed = code

    def acknowledge(self, payload: bytes) -> None:
        self.send(payload)

    def compress_payloads(self) -> None:
        self.is_compressed = True

    # What it does.

    @property
    def ops(self) -> list[int]:
        """The opcodes of what is no dispatch."""
        return [payload["op"] for payload in self.others]

    @property
    def names(self) -> list[str]:
        """The names of its dispatches."""
        return [each.name for each in self.dispatches]

    @property
    def is_live(self) -> bool:
        return self.connection is not None and self.connection.state == "live"

    def connect(self, process: Process, version: int = 10) -> None:
        """Open a connection; HELLO comes."""
        self.process, self.closed, self.others = process, None, []
        process.bots.append(self)
        self.connection = process.connections.connect(self, version, URL)

    def say(self, op: int, d: Any) -> None:
        """Send a payload."""
        assert self.connection is not None
        self.connection.on_message(json.dumps({"op": op, "d": d}).encode())

    def identify(self, **changes: Any) -> None:
        """Send IDENTIFY."""
        d = {
            "token": TOKEN, "intents": self.intents, "shard": self.shard,
            "properties": {"os": "linux", "browser": "library", "device": "library"},
        }  # fmt: skip
        self.say(2, d | self.extra | changes)

    def resume(self, **changes: Any) -> None:
        """Send RESUME."""
        self.say(6, {"token": TOKEN, "session_id": self.session_id, "seq": self.seq} | changes)

    def start(self, process: Process) -> None:
        """Connect, and identify or resume, as a library does."""
        self.connect(process)
        if self.session_id is None:
            self.identify()
        else:
            self.resume()

    def lose(self) -> None:
        """The connection breaks."""
        connection, process = self.connection, self.process
        self.connection = self.process = None
        if process is not None:
            process.bots.remove(self)
        if connection is not None:
            connection.on_closed()

    async def until(self, condition: Callable[[Bot], bool], seconds: float = 60.0) -> None:
        """Wait for what it is told."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not condition(self):
            assert loop.time() < end, f"ops {self.ops}, closed {self.closed}, {self.names[-5:]}"
            await asyncio.sleep(0.01)
