"""Sessions of bots at a proxy, with both ports in memory."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.proxy.bots import Bot, Process
from tests.proxy.memory import MemoryCluster, MemoryGateway, MemoryReader
from tests.proxy.virtual_time import pass_time, run


def guild(number: int, total: int = 1, shard: int = 0, **fields: Any) -> dict[str, Any]:
    """The guild of that number on a shard."""
    guild_id = ((number * total + shard) << 22) + 5
    return {"id": str(guild_id), "name": f"guild {guild_id}", "members": [], "channels": [], "n": 0, **fields}


class Setting:
    """A gateway with logs, and proxies."""

    process: Process

    def __init__(self, clusters: dict[int, list[int]], guilds: int) -> None:
        self.total = sum(map(len, clusters.values()))
        self.gateway = MemoryGateway(clusters)
        self.reader = MemoryReader(asyncio.get_running_loop().call_soon)
        self.clusters: dict[int, MemoryCluster] = {}
        self.guilds: dict[int, list[dict[str, Any]]] = {}
        for number, shards in clusters.items():
            cluster = MemoryCluster(self.gateway, number, self.reader.log(f"log-{number}"))
            self.clusters[number] = cluster
            for shard in shards:
                self.guilds[shard] = [guild(each, self.total, shard) for each in range(1, guilds + 1)]
                cluster.ready(shard, self.guilds[shard])
            cluster.write()

    @classmethod
    async def begin(cls, clusters: dict[int, list[int]], guilds: int = 3) -> Setting:
        """A setting with one proxy."""
        setting = cls(clusters, guilds)
        setting.process = await setting.another()
        return setting

    async def another(self) -> Process:
        """Start a proxy."""
        return await Process.start(self.gateway, self.reader)

    def cluster_of(self, shard: int) -> MemoryCluster:
        return self.clusters[self.gateway.cluster_of[shard]]

    def event(self, shard: int, number: int, text: str, write: bool = True) -> None:
        """A message in a guild."""
        cluster = self.cluster_of(shard)
        cluster.send(shard, "MESSAGE_CREATE", {"guild_id": self.guilds[shard][number]["id"], "content": text})
        if write:
            cluster.write()


async def live(bot: Bot, process: Process) -> Bot:
    bot.start(process)
    await bot.until(lambda bot: bot.is_live)
    return bot


def contents(bot: Bot) -> list[str]:
    return [each.d["content"] for each in bot.dispatches if each.name == "MESSAGE_CREATE"]


def test_a_bot_that_identifies_gets_ready_its_guilds_and_then_events() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        setting.event(0, 0, "hello")
        await pass_time()
        assert bot.names == ["READY", *["GUILD_CREATE"] * 3, "MESSAGE_CREATE"]
        assert [each.seq for each in bot.dispatches] == [1, 2, 3, 4, 5]
        ready = bot.dispatches[0].d
        assert [each["id"] for each in ready["guilds"]] == [each["id"] for each in setting.guilds[0]]
        assert ready["user"]["verified"] is True and ready["application"]["id"] == ready["user"]["id"]
        assert ready["resume_gateway_url"] == "ws://proxy.example" and ready["shard"] == [0, 1]

    run(scenario())


def test_a_resume_at_another_proxy_brings_what_was_missed_once() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        setting.event(0, 0, "a")
        await pass_time()
        await setting.process.kill()
        for text in "bcd":
            setting.event(0, 1, text)
        await live(bot, await setting.another())
        setting.event(0, 2, "e")
        await pass_time()
        assert contents(bot) == list("abcde")
        assert bot.sessions == bot.resumes == 1
        assert [each.seq for each in bot.dispatches] == sorted(each.seq for each in bot.dispatches)
        await pass_time(10)

    run(scenario())
