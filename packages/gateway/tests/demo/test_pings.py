"""Pings: said once somebody can hear them, and each answered once, however often its event comes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from aio_pika.abc import AbstractExchange
from rateway.demo import client_worker, plain_worker, script
from rateway.demo import scene as scenes
from rateway.demo.children import Child
from rateway.demo.collector import Collector
from rateway.demo.scene import Options, Scene
from rateway.demo.steering import Steering
from rateway_client import Event
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator
from rateway_simulator.world.dispatch import WorldOptions

from tests.aio import run


class Speaker(Steering):
    """Notes what is said; nobody else hears it."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1/simulator")
        self.said: list[tuple[str, str, str]] = []
        self.rates: list[float] = []

    async def speak(self, user_id: str, channel_id: str, content: str) -> str:
        self.said.append((user_id, channel_id, content))
        return str(len(self.said))

    async def rate(self, rate: float, *, events: int | None = None) -> None:
        self.rates.append(rate)


def child(folder: Path, program: str) -> Child:
    return Child("child", ["-c", program], {}, folder / "child.log")


def scene(folder: Path, speaker: Speaker, guilds: int) -> Scene:
    worker = child(folder, "")
    gateway = Child("gateway", ["-c", ""], {}, folder / "gateway.log")
    (folder / "gateway.log").write_text("bots connect to ws://127.0.0.1:7878\n")
    return Scene(
        options=Options(guilds=guilds),
        folder=folder,
        broker=None,
        relay=None,
        simulator=worker,
        steering=speaker,
        gateway=gateway,
        workers=[worker],
        bot=child(folder, "print('ready with all guilds', flush=True)"),
        bot_database=folder / "bot.db",
        collector=Collector("amqp://127.0.0.1:1", [1]),
        state_dir=folder,
        page="",
        uri="",
        places=[("7", "8"), ("9", "10")],
    )


def seen(stage: Scene, *messages: str) -> None:
    """The bot notes messages."""
    with sqlite3.connect(stage.bot_database) as database:
        database.execute("CREATE TABLE IF NOT EXISTS seen (message_id TEXT)")
        database.executemany("INSERT INTO seen VALUES (?)", [(each,) for each in messages])


@pytest.mark.parametrize(
    ("messages", "resumed", "is_well"),
    [
        (("1", "2"), {}, True),
        (("1", "2", "another"), {"bot": 16, "proxy": 16}, True),
        (("1", "2"), {"bot": 15, "proxy": 16}, False),
        (("1", "2"), {"bot": 16, "proxy": 0}, False),
        (("1",), {"bot": 16}, False),
        (("1", "2", "2"), {"bot": 16}, False),
    ],
)
def test_a_bot_is_well_with_all_shards_resumed_nothing_missed_and_nothing_twice(
    tmp_path: Path, messages: tuple[str, ...], resumed: dict[str, int], is_well: bool
) -> None:
    stage = scene(tmp_path, Speaker(), guilds=2)
    stage.pings, stage.resumed = ["1", "2"], resumed
    seen(stage, *messages)
    assert script.bot_is_well(stage) is is_well


def test_only_shards_that_resume_after_the_kill_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "BOT_AWAY", 0.0)
    monkeypatch.setattr(scenes, "RESUME_PATIENCE", 3.0)

    async def main() -> None:
        stage = scene(tmp_path, Speaker(), guilds=2)
        resumes = "print('shard 1 resumed', flush=True); print('shard 1 resumed', flush=True); input()"
        stage.bot = child(tmp_path, resumes)
        stage.options = Options(shards=1)
        stage.bot.log.write_text("shard 0 resumed\n")
        assert await stage.kill_bot() == 1
        stage.options = Options(shards=2)
        assert await stage.kill_bot() == 1
        assert stage.resumed == {"bot": 1}
        await stage.bot.kill()

    run(main())


def test_nothing_is_said_before_the_bot_is_in_every_guild(tmp_path: Path) -> None:
    async def main() -> None:
        speaker = Speaker()
        stage = scene(tmp_path, speaker, guilds=2)
        beginning = asyncio.create_task(script.beginning(stage))
        for name in ("READY", "GUILD_CREATE", "READY", "GUILD_CREATE"):
            await asyncio.sleep(0)
            assert speaker.rates == []
            stage.collector.receipts.add(name, None, b"{}", republished=False, redelivered=False)
            stage.collector.arrival.set()
        await beginning
        assert speaker.rates == [stage.options.rate]

    run(main())


def test_a_ping_is_answered_once_however_often_a_worker_replies(tmp_path: Path) -> None:
    async def main() -> None:
        stage = scene(tmp_path, Speaker(), guilds=0)
        for _ in range(3):
            await stage.ping()
        assert stage.answered() == 0
        lines = ["listening on rateway-1", "replied with 200 to 2 in 8", "replied with 200 to 2 in 8"]
        stage.workers[0].log.write_text("\n".join([*lines, "replied with 200 to 99 in 8"]))
        assert stage.answered() == 1
        stage.workers[0].log.write_text("replied with 500 to 1 in 8\nreplied with 404 to 3 in 8")
        assert stage.answered() == 1
        stage.workers[0].log.write_text("replied with 403 to 1 in 8\nreplied with 404 to 3 in 8")
        assert stage.answered() == 2

    run(main())


def test_a_ping_is_answered_after_discord_has_forgotten_its_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The world goes on while a worker is away: other messages push the ping out of its channel's memory."""

    async def main() -> list[str]:
        world = WorldOptions(guilds=1, members_per_guild=6, channels_per_guild=3, messages_per_channel=2)
        async with (
            Simulator(SimulatorOptions(world=world)) as discord,
            Steering(discord.control_url) as steering,
        ):
            place = (await steering.guilds(1))[0]
            user, channel = place["members"][-1], place["channel_id"]
            pings = [await steering.speak(user, channel, "!ping") for _ in range(2)]
            for _ in range(3):
                await steering.speak(user, channel, "what else is new")
            heard = [{"id": ping, "channel_id": channel, "guild_id": place["id"]} for ping in pings]
            headers = {
                "Authorization": f"Bot {discord.options.token}",
                "User-Agent": "DiscordBot (https://example.invalid/worker, 1.0)",
            }
            async with aiohttp.ClientSession(headers=headers) as http:
                plain = plain_worker.Worker(cast(AbstractExchange, None), http, discord.api_url)
                await plain.reply(heard[0])
                url = f"{discord.api_url}/channels/{channel}/messages"
                event = Event("MESSAGE_CREATE", json.dumps(heard[1]).encode(), None)
                await client_worker.reply(http, url, event, "pong")
        return [f"replied with 200 to {ping} in {channel}" for ping in pings]

    expected = run(main())
    assert capsys.readouterr().out.splitlines() == expected


def test_a_line_of_a_child_is_waited_for_until_it_has_ended(tmp_path: Path) -> None:
    async def main() -> None:
        process = child(tmp_path, "print('one')")
        assert process.lines() == []
        await process.start()
        assert await process.line_with("one") == "one"
        assert await process.line_with("two") is None
        assert not process.running and process.tail() == "one"

    run(main())


def test_patience_for_a_line_has_an_end(tmp_path: Path) -> None:
    async def main() -> None:
        process = child(tmp_path, f"import time; print({sys.executable!r}, flush=True); time.sleep(600)")
        await process.start()
        assert await process.line_with(sys.executable) == sys.executable
        assert await process.line_with("never", patience=0.0) is None
        await process.kill()

    run(main())
