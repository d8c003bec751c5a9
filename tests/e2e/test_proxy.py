"""Unmodified libraries behind the gateway proxy: they log in, see what happens, answer, and come back."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import msgspec

from tests.aio import run
from tests.e2e.harness import LOOK, STOP_PATIENCE, Stage, stage
from tests.e2e.proxied import Bot, bot, free_port, proxied
from tests.rabbitmq import Broker

SHARDS, GUILDS = 2, 6


def messages(s: Stage) -> int:
    """How many messages Discord has told of."""
    return sum(1 for each in s.sim.ledger.log() if each.event == "MESSAGE_CREATE")


async def happened(s: Stage) -> None:
    """Wait until all that was to happen has."""
    while s.sim.source.left != 0:
        await asyncio.sleep(LOOK)


async def saw_all(seen: Bot, s: Stage, before: int) -> None:
    """Wait until the bot has seen each message after the first *before*, and none twice."""
    wanted = messages(s) - before
    ids = [each["id"] for each in await seen.until_saw("message", wanted)]
    assert len(ids) == len(set(ids)) == wanted


def test_a_bot_logs_in_with_every_shard_sees_what_happens_and_restarts_without_an_identify(
    tmp_path: Path, broker: Broker
) -> None:
    async def it() -> None:
        async with stage(tmp_path, broker, shards=SHARDS, guilds=GUILDS, members=5, EVENT_LOG="stream") as s:
            await s.ready()
            async with proxied(tmp_path, s) as proxy:
                for _ in range(2):
                    async with bot("discord_py", tmp_path, proxy.address, s.sim.options.token) as seen:
                        (ready,) = await seen.until_saw("ready")
                        assert ready["shards"] == SHARDS and len(ready["guilds"]) == GUILDS
                        assert all(
                            guild["members"] >= 3 and guild["me"] for guild in ready["guilds"].values()
                        )
                        before = messages(s)
                        await s.events(150)
                        await saw_all(seen, s, before)
            assert s.count("identify") == SHARDS

    run(it())


def test_a_proxy_that_dies_costs_its_bots_no_message(tmp_path: Path, broker: Broker) -> None:
    """Two share an address, so that no dial of the bot is refused: after one that is, discord.py identifies anew."""

    async def it() -> None:
        async with stage(tmp_path, broker, shards=SHARDS, guilds=GUILDS, members=5, EVENT_LOG="stream") as s:
            await s.ready()
            async with (
                proxied(tmp_path, s) as proxy,
                bot("discord_py", tmp_path, proxy.address, s.sim.options.token) as seen,
            ):
                await seen.until_saw("ready")
                before = messages(s)
                s.sim.set_rate(50, events=600)
                await seen.until_saw("message", 20)
                async with proxied(tmp_path, s, "other", PROXY_ADDRESS=proxy.address):
                    await proxy.kill()
                    await seen.until_saw("resumed", SHARDS)
                    await happened(s)
                    await saw_all(seen, s, before)
                    await seen.kill()
                assert len(seen.saw("ready")) == 1 and s.count("identify") == SHARDS

    run(it())


def test_a_proxy_that_stops_sends_its_bots_to_another_one(tmp_path: Path, broker: Broker) -> None:
    async def it() -> None:
        async with stage(tmp_path, broker, shards=SHARDS, guilds=GUILDS, members=5, EVENT_LOG="stream") as s:
            await s.ready()
            async with (
                proxied(tmp_path, s) as proxy,
                bot("discord_py", tmp_path, proxy.address, s.sim.options.token) as seen,
            ):
                await seen.until_saw("ready")
                before = messages(s)
                s.sim.set_rate(50, events=600)
                await seen.until_saw("message", 20)
                async with proxied(tmp_path, s, "next", PROXY_ADDRESS=proxy.address):
                    assert await proxy.terminate(STOP_PATIENCE) == 0
                    assert await proxy.line_with("op 7") is not None
                    await seen.until_saw("resumed", SHARDS)
                    await happened(s)
                    await saw_all(seen, s, before)
                    await seen.kill()
                assert len(seen.saw("ready")) == 1

    run(it())


def test_a_bot_with_hikari_gets_its_members_and_sees_what_it_writes_by_rest(
    tmp_path: Path, broker: Broker
) -> None:
    """Its shards are those that the proxy recommends, its gateway's address is the one that the proxy tells."""

    async def it() -> None:
        async with stage(tmp_path, broker, shards=SHARDS, guilds=GUILDS, members=5, EVENT_LOG="stream") as s:
            await s.ready()
            # hikari takes the bot's id from the token.
            token = s.sim.options.token.partition(".")[0] + ".workers.hold-this-in-place-of-the-bots"
            async with (
                proxied(tmp_path, s, PROXY_TOKEN=token) as proxy,
                bot("hikari_bot", tmp_path, proxy.address, token, DO="ask say") as seen,
            ):
                readies = await seen.until_saw("ready", SHARDS)
                assert {each["shard"] for each in readies} == {0, 1} and readies[0]["shards"] == SHARDS
                guilds = {each["id"]: each["members"] for each in await seen.until_saw("guild", GUILDS)}
                assert len(guilds) == GUILDS
                chunks = {each["id"]: each["count"] for each in await seen.until_saw("members", GUILDS)}
                assert chunks == guilds
                written = {each["id"] for each in await seen.until_saw("written", GUILDS)}
                ids = {each["id"] for each in await seen.until_saw("message", GUILDS)}
                assert ids == written and s.count("identify") == SHARDS

    run(it())


def test_a_bot_with_hikari_loses_nothing_when_the_proxy_and_the_gateway_die(
    tmp_path: Path, broker: Broker
) -> None:
    async def it() -> None:
        async with stage(tmp_path, broker, shards=SHARDS, guilds=GUILDS, members=5, EVENT_LOG="stream") as s:
            await s.ready()
            async with (
                proxied(tmp_path, s) as proxy,
                bot("hikari_bot", tmp_path, proxy.address, s.sim.options.token, DO="") as seen,
            ):
                await seen.until_saw("guild", GUILDS)
                before = messages(s)
                s.sim.set_rate(50, events=900)
                await seen.until_saw("message", 20)
                await proxy.kill()
                await proxy.start()
                await seen.until_saw("resumed", SHARDS)
                await s.gateway.kill()
                await s.gateway.start()
                await happened(s)
                await saw_all(seen, s, before)
                assert len(seen.saw("ready")) == SHARDS and s.count("identify") == SHARDS

    run(it())


def test_one_setting_makes_the_gateway_serve_bots(tmp_path: Path, broker: Broker) -> None:
    address = f"127.0.0.1:{free_port()}"

    async def it() -> None:
        async with stage(tmp_path, broker, shards=1, guilds=3, members=5, PROXY_ADDRESS=address) as s:
            await s.ready()
            await s.gateway.logged("bots connect to")
            async with bot("discord_py", tmp_path, address, s.sim.options.token) as seen:
                await seen.until_saw("ready")

                def shown(status: dict[str, Any]) -> bool:
                    proxy = status["proxy"]
                    return proxy is not None and proxy["states"] == {"live": 1}

                status = await s.gateway.until(shown)
                (row,) = status["proxy"]["bots"]
                assert (row["shard"], row["count"], row["library"]) == (0, 1, "discord.py")
                before = messages(s)
                await s.events(60)
                await saw_all(seen, s, before)
            assert msgspec.json.decode(msgspec.json.encode(status))["wants_proxy"] is True

    run(it())


def test_the_gateways_own_proxy_that_dies_refuses_no_dial_and_costs_its_bots_no_message(
    tmp_path: Path, broker: Broker
) -> None:
    """discord.py identifies anew after a dial that is refused: here each waits for the next proxy."""
    address = f"127.0.0.1:{free_port()}"

    async def it() -> None:
        async with stage(tmp_path, broker, shards=2, guilds=GUILDS, members=5, PROXY_ADDRESS=address) as s:
            await s.ready()
            await s.gateway.logged("bots connect to")
            async with bot("discord_py", tmp_path, address, s.sim.options.token) as seen:
                await seen.until_saw("ready")
                before = messages(s)
                s.sim.set_rate(30, events=600)
                await seen.until_saw("message", 10)
                status = await s.gateway.until(lambda status: status["proxy"] is not None)
                os.kill(status["proxy"]["pid"], signal.SIGKILL)
                await seen.until_saw("resumed", 2)
                await happened(s)
                await saw_all(seen, s, before)
                assert len(seen.saw("ready")) == 1 and s.count("identify") == 2

    run(it())


def test_a_gateway_that_dies_with_its_proxy_costs_its_bots_no_message(tmp_path: Path, broker: Broker) -> None:
    """The proxy that is left behind serves until the next gateway's has the address, too, and hands its bots over."""
    address = f"127.0.0.1:{free_port()}"

    async def it() -> None:
        async with stage(tmp_path, broker, shards=1, guilds=3, members=5, PROXY_ADDRESS=address) as s:
            await s.ready()
            await s.gateway.logged("bots connect to")
            async with bot("discord_py", tmp_path, address, s.sim.options.token) as seen:
                await seen.until_saw("ready")
                before = messages(s)
                s.sim.set_rate(30, events=900)
                await seen.until_saw("message", 10)
                await s.gateway.kill()
                await s.gateway.start()
                await seen.until_saw("resumed")
                await happened(s)
                await saw_all(seen, s, before)
                assert len(seen.saw("ready")) == 1 and s.count("identify") == 1

    run(it())
