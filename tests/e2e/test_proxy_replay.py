"""A bot that identifies anew at another proxy is sent what it missed (PROXY_REPLAY)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from rateway.transports.amqp.log.positions import AmqpPositions
from rateway.transports.amqp.wire.uri import parse
from rateway_protocol.discord.intents import Intents

from tests.aio import run
from tests.e2e.harness import LOOK, Stage, stage
from tests.e2e.proxied import proxied
from tests.e2e.test_proxy import happened, messages
from tests.rabbitmq import Broker

INTENTS = int(Intents.GUILDS | Intents.GUILD_MESSAGES)


class PlainBot:
    """A bot without a library."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.seq = 0
        self.ready: Any = None
        self.guilds = 0
        self.seen: list[str] = []
        """The ids of messages, in the order in which they came."""
        self._socket = socket

    async def identify(self, token: str) -> None:
        """Identify, and wait for all guilds."""
        d = {"token": token, "intents": INTENTS, "shard": [0, 1], "properties": {}}
        await self._socket.send_json({"op": 2, "d": d})
        while self.ready is None or self.guilds < len(self.ready["guilds"]):
            await self.take()

    async def take(self) -> int:
        """Take the next payload; return its op."""
        payload = await self._socket.receive_json()
        op: int = payload["op"]
        if op == 0:
            self.seq = payload["s"]
            if payload["t"] == "READY":
                self.ready = payload["d"]
            elif payload["t"] == "GUILD_CREATE":
                self.guilds += 1
            elif payload["t"] == "MESSAGE_CREATE":
                self.seen.append(payload["d"]["id"])
        return op

    async def take_messages(self, count: int) -> None:
        """Take payloads until so many messages were seen."""
        while len(self.seen) < count:
            await self.take()

    async def beat(self) -> None:
        """Send a heartbeat, and wait for its acknowledgement."""
        await self._socket.send_json({"op": 1, "d": self.seq})
        while await self.take() != 11:
            pass


@contextlib.asynccontextmanager
async def plain_bot(address: str, token: str) -> AsyncIterator[PlainBot]:
    """A bot that has identified."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"ws://{address}/?v=10&encoding=json") as socket,
    ):
        bot = PlainBot(socket)
        await bot.identify(token)
        yield bot


async def kept(s: Stage, bot: PlainBot) -> None:
    """Wait until the place of the bot is at the broker."""
    positions = AmqpPositions(address=parse(s.broker.uri), name="test")
    running = asyncio.create_task(positions.run())
    try:
        while await positions.read(f"{bot.ready['user']['id']}-0-1") is None:
            await asyncio.sleep(LOOK)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def test_a_bot_that_identifies_at_another_proxy_is_sent_the_messages_that_it_missed(
    tmp_path: Path, broker: Broker
) -> None:
    async def it() -> None:
        async with stage(tmp_path, broker, shards=2, guilds=4, members=3, EVENT_LOG="stream") as s:
            await s.ready()
            token, replay = s.sim.options.token, {"PROXY_REPLAY": "MESSAGE_CREATE"}
            before = messages(s)
            async with proxied(tmp_path, s, **replay) as proxy, plain_bot(proxy.address, token) as first:
                await s.events(100)
                await happened(s)
                await first.take_messages(messages(s) - before)
                await first.beat()
                await kept(s, first)
                await proxy.kill()
            between = messages(s)
            await s.events(100)
            await happened(s)
            missed = messages(s) - between
            assert missed
            async with (
                proxied(tmp_path, s, "other", **replay) as other,
                plain_bot(other.address, token) as second,
            ):
                await second.take_messages(missed)
                await s.events(50)
                await happened(s)
                await second.take_messages(messages(s) - between)
                seen = [*first.seen, *second.seen]
                assert len(set(seen)) == len(seen) == messages(s) - before

    run(it())
