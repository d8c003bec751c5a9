"""A discord.py bot that keeps its sessions (``rateway.demo.kept_sessions``): an unmodified library, and a proxy whose
gateway and event log are in memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from rateway import demo
from rateway.cache.policy import DEFAULT_KINDS
from rateway.config import load
from rateway.demo.broker import free_ports
from rateway.demo.children import Child
from rateway.proxy.proxy import Proxy
from tests.proxy.memory import MemoryCluster, MemoryGateway, MemoryReader

from tests.aio import run

pytest.importorskip("discord")

TOKEN = "ODA.the-bots.token"
GUILDS = [1 << 22, 2 << 22]
USER = {"id": "80", "username": "bot", "discriminator": "0", "avatar": None, "bot": True}
AUTHOR = {"id": "90", "username": "user", "discriminator": "0", "avatar": None}
LOOK = 0.02


def guild(guild_id: int) -> dict[str, Any]:
    everyone = {
        "id": str(guild_id), "name": "@everyone", "permissions": "0", "position": 0, "color": 0, "hoist": False,
        "managed": False, "mentionable": False,
    }  # fmt: skip
    channel = {
        "id": str(guild_id + 1),
        "type": 0,
        "name": "general",
        "position": 0,
        "permission_overwrites": [],
    }
    return {
        "id": str(guild_id), "name": "a guild", "owner_id": "90", "roles": [everyone], "channels": [channel],
        "members": [], "member_count": 1, "emojis": [], "features": [], "unavailable": False, "large": False,
        "verification_level": 0, "default_message_notifications": 0, "explicit_content_filter": 0, "mfa_level": 0,
        "system_channel_flags": 0, "premium_tier": 0, "preferred_locale": "en-US", "nsfw_level": 0, "afk_timeout": 60,
    }  # fmt: skip


def message(message_id: int) -> dict[str, Any]:
    return {
        "id": str(message_id), "guild_id": str(GUILDS[message_id % 2]), "channel_id": str(GUILDS[message_id % 2] + 1),
        "author": AUTHOR, "content": "!ping", "timestamp": "2026-01-01T00:00:00+00:00", "edited_timestamp": None,
        "tts": False, "mention_everyone": False, "mentions": [], "mention_roles": [], "attachments": [], "embeds": [],
        "pinned": False, "type": 0,
    }  # fmt: skip


async def rest(port: int) -> web.AppRunner:
    """What of Discord's REST a login asks for."""
    url = f"ws://127.0.0.1:{port}/"
    limit = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}
    application = {
        "id": "80", "name": "bot", "description": "", "icon": None, "bot_public": True, "verify_key": "00",
        "bot_require_code_grant": False, "owner": AUTHOR, "summary": "", "team": None, "flags": 0,
    }  # fmt: skip
    answers: dict[str, Any] = {
        "users/@me": USER,
        "oauth2/applications/@me": application,
        "applications/@me": application,
        "gateway/bot": {"url": url, "shards": 1, "session_start_limit": limit},
    }
    application_of = web.Application()

    async def answer(request: web.Request) -> web.Response:
        # discord.py takes what names a charset for text.
        body = json.dumps(answers[request.match_info["path"]]).encode()
        return web.Response(body=body, headers={"Content-Type": "application/json"})

    application_of.router.add_get("/api/v10/{path:.*}", answer)
    runner = web.AppRunner(application_of)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


@dataclass
class Scene:
    """A proxy that can be ended and begun again on its port, and a bot."""

    folder: Path
    gateway: MemoryGateway
    reader: MemoryReader
    cluster: MemoryCluster
    port: int
    proxy: Proxy | None = None
    serving: asyncio.Task[None] | None = None
    bot: Child | None = None
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))
    said: list[str] = field(default_factory=list)

    async def begin(self) -> None:
        """Begin a proxy."""
        given = {
            "DISCORD_TOKEN": TOKEN, "INTENTS": "1", "AMQP_URI": "amqp://localhost/",
            "DISCORD_API_URL": "http://127.0.0.1:9/api/v10", "PROXY_ADDRESS": f"127.0.0.1:{self.port}",
        }  # fmt: skip
        self.proxy = Proxy(load(None, given))
        bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.serving = asyncio.create_task(
            self.proxy.serve(self.reader, self.gateway, None, bound.set_result)
        )
        ends: list[asyncio.Future[Any]] = [bound, self.serving]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self.serving.done():
            self.serving.result()

    async def kill(self) -> None:
        """End the proxy without a word to its bots."""
        assert self.serving is not None
        self.serving.cancel()
        await asyncio.gather(self.serving, return_exceptions=True)

    def say(self, count: int = 10) -> None:
        """Members write messages."""
        for number in itertools.islice(self.numbers, count):
            self.said.append(str(number))
            self.cluster.send(0, "MESSAGE_CREATE", message(number))
        self.cluster.write()

    def seen(self) -> Counter[str]:
        """How often the bot has noted each message."""
        with contextlib.closing(sqlite3.connect(self.folder / "bot.db")) as database:
            return Counter(each for (each,) in database.execute("SELECT message_id FROM seen"))

    async def saw_all(self) -> None:
        """Wait until the bot has noted each message; each of them once."""
        assert self.bot is not None
        while len(self.seen()) < len(self.said):
            assert self.bot.running, self.bot.tail(60)
            await asyncio.sleep(LOOK)
        assert self.seen() == Counter(self.said)

    async def logged(self, words: str, count: int = 1) -> None:
        """Wait until the bot has logged *words* so often."""
        assert self.bot is not None
        while sum(line.startswith(words) or f" {words}" in line for line in self.bot.lines()) < count:
            assert self.bot.running, self.bot.tail(60)
            await asyncio.sleep(LOOK)


@contextlib.asynccontextmanager
async def scene(folder: Path, client: str = "sharded") -> AsyncIterator[Scene]:
    gateway = MemoryGateway({1: [0]}, kinds=sorted(DEFAULT_KINDS))
    reader = MemoryReader(asyncio.get_running_loop().call_soon)
    cluster = MemoryCluster(gateway, 1, reader.log("log-1"))
    cluster.ready(0, [guild(each) for each in GUILDS])
    cluster.write()
    s = Scene(folder, gateway, reader, cluster, free_ports(1)[0])
    await s.begin()
    runner = await rest(s.port)
    (site,) = runner.sites
    environment = {
        "BOT_API": f"{str(site.name).rstrip('/')}/api/v10", "BOT_GATEWAY": f"ws://127.0.0.1:{s.port}/",
        "SESSIONS": str(folder / "bot.db"), "DISCORD_TOKEN": TOKEN, "CLIENT": client,
    }  # fmt: skip
    s.bot = Child("bot", [str(Path(__file__).with_name("kept_bot.py"))], environment, folder / "bot.log")
    try:
        await s.bot.start()
        await s.logged("ready with 2 guilds")
        yield s
    finally:
        await s.bot.kill()
        await s.kill()
        await runner.cleanup()


@pytest.mark.parametrize("client", ["one", "sharded"])
def test_a_bot_that_is_killed_comes_back_with_its_session_its_cache_and_every_message_once(
    tmp_path: Path, client: str
) -> None:
    async def it() -> None:
        async with scene(tmp_path, client) as s:
            assert s.bot is not None and s.proxy is not None
            for times in (1, 2):
                s.say()
                await s.saw_all()
                await s.bot.kill()
                s.say()
                await s.bot.start()
                await s.logged("ready with 2 guilds", times + 1)
                s.say()
                await s.logged("resumed", times)
                s.say()
                await s.saw_all()
            assert s.proxy.status().refused == 0

    run(it(), timeout=150)


def test_a_dial_that_is_refused_costs_no_session(tmp_path: Path) -> None:
    """discord.py alone gives its session up then and identifies."""

    async def it() -> None:
        async with scene(tmp_path) as s:
            s.say()
            await s.saw_all()
            await s.kill()
            s.say()
            await s.logged("Attempting a reconnect")
            await s.begin()
            await s.logged("resumed")
            s.say()
            await s.saw_all()
            assert s.proxy is not None and s.proxy.status().identifies == 0

    run(it(), timeout=150)


def test_a_session_that_cannot_be_resumed_is_followed_by_a_new_one(tmp_path: Path) -> None:
    async def it() -> None:
        async with scene(tmp_path) as s:
            assert s.bot is not None
            s.say()
            await s.saw_all()
            await s.bot.kill()
            log = s.cluster.log
            log.roll()
            s.say(1)
            log.retain(1)
            await s.kill()
            await s.begin()
            await s.bot.start()
            await s.logged("session has been invalidated")
            await s.logged("has connected to Gateway", 3)
            s.said.pop()
            s.say()
            await s.saw_all()

    run(it(), timeout=150)


def test_the_page_of_the_proxy_gives_these_very_lines() -> None:
    page = (Path(__file__).parents[4] / "docs" / "proxy.md").read_text()
    lines = (Path(demo.__path__[0]) / "kept_sessions.py").read_text()
    assert re.findall(r"^```py\n(\"\"\"Keep .*?)^```", page, re.MULTILINE | re.DOTALL) == [lines]
