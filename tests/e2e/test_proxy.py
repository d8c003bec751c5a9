"""Unmodified libraries behind the gateway proxy: they log in, see what happens, answer, and come back."""

from __future__ import annotations

from pathlib import Path

from tests.aio import run
from tests.e2e.harness import stage
from tests.e2e.proxied import bot, proxied
from tests.rabbitmq import Broker


def test_a_bot_with_discord_py_logs_in_with_every_shard_and_sees_what_happens(
    tmp_path: Path, broker: Broker
) -> None:
    async def it() -> None:
        async with stage(tmp_path, broker, shards=2, guilds=6, members=5, EVENT_LOG="stream") as s:
            await s.ready()
            async with (
                proxied(tmp_path, s) as proxy,
                bot("discord_py", tmp_path, proxy.address, s.sim.options.token) as seen,
            ):
                (ready,) = await seen.until_saw("ready")
                assert ready["shards"] == 2 and len(ready["guilds"]) == 6
                assert all(guild["members"] == 5 and guild["me"] for guild in ready["guilds"].values())
                identifies = s.count("identify")
                await s.events(200)
                sent = [each for each in s.sim.ledger.log() if each.event == "MESSAGE_CREATE"]
                await seen.until(lambda said: len([x for x in said if x["saw"] == "message"]) >= len(sent))
                assert s.count("identify") == identifies == 2

    run(it(), timeout=120)
