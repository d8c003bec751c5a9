"""One proxy as a whole, with both ports in memory and bots at its socket: how it begins, what it shows, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from rateway import exit_codes
from rateway.cache.policy import DEFAULT_KINDS
from rateway.config import load
from rateway.proxy import proxy as proxying
from rateway.proxy.proxy import Proxy
from rateway.transports.proxy_metrics import PROXY_METRICS
from rateway_protocol.discord import intents
from tests.proxy.memory import MemoryCluster, MemoryGateway, MemoryReader

from tests.aio import run

TOKEN, PROXY_TOKEN = "the-bots.own.token", "token-that-workers-have"
KINDS = tuple(sorted(DEFAULT_KINDS))
Bot = aiohttp.ClientWebSocketResponse


@dataclass
class Scene:
    proxy: Proxy
    port: int
    cluster: MemoryCluster
    serving: asyncio.Task[None]
    session: aiohttp.ClientSession

    @contextlib.asynccontextmanager
    async def bot(self, token: str = PROXY_TOKEN, **identify: Any) -> AsyncIterator[Bot]:
        """A bot that has identified."""
        async with self.session.ws_connect(f"ws://127.0.0.1:{self.port}/?v=10&encoding=json") as bot:
            assert (await bot.receive_json())["op"] == 10
            d = {"token": token, "intents": intents.ALL, "properties": {"browser": "a library"}}
            await bot.send_json({"op": 2, "d": d | identify})
            yield bot

    async def get(self, path: str, authorization: str = f"Bot {PROXY_TOKEN}") -> tuple[int, str]:
        headers = {"Authorization": authorization} if authorization else {}
        async with self.session.get(f"http://127.0.0.1:{self.port}{path}", headers=headers) as answer:
            return answer.status, await answer.text()


@contextlib.asynccontextmanager
async def scene(kinds: tuple[str, ...] = KINDS, **settings: str) -> AsyncIterator[Scene]:
    """A proxy of a gateway with one shard of two guilds."""
    given = {
        "DISCORD_TOKEN": TOKEN, "INTENTS": "1", "AMQP_URI": "amqp://localhost/", "PROXY_TOKEN": PROXY_TOKEN,
        "DISCORD_API_URL": "http://127.0.0.1:9/api/v10",
    }  # fmt: skip
    gateway = MemoryGateway({1: [0]}, kinds=kinds)
    reader = MemoryReader(asyncio.get_running_loop().call_soon)
    cluster = MemoryCluster(gateway, 1, reader.log("log-1"))
    cluster.ready(0, [{"id": str(number << 22), "members": [], "channels": []} for number in (1, 2)])
    cluster.write()
    proxy = Proxy(load(None, given | settings))
    bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(proxy.serve(reader, gateway, None, bound.set_result))
    async with aiohttp.ClientSession() as session:
        try:
            # One that refuses to serve may end before it listens.
            serving.add_done_callback(lambda task: None if bound.done() else bound.set_result(0))
            yield Scene(proxy, await bound, cluster, serving, session)
        finally:
            proxy.stop()
            await serving


@pytest.fixture(autouse=True)
def any_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxying, "DEFAULT_PROXY_ADDRESS", "127.0.0.1:0")


async def dispatch(bot: Bot, name: str) -> Any:
    """``d`` of the next event of that name."""
    while True:
        payload = await bot.receive_json()
        if payload["t"] == name:
            return payload["d"]


def test_a_bot_gets_ready_its_guilds_and_what_happens_then() -> None:
    async def it() -> None:
        async with scene() as s, s.bot() as bot:
            ready = await dispatch(bot, "READY")
            assert len(ready["guilds"]) == 2 and ready["resume_gateway_url"] == f"ws://127.0.0.1:{s.port}"
            for _ in range(2):
                await dispatch(bot, "GUILD_CREATE")
            s.cluster.send(0, "MESSAGE_CREATE", {"guild_id": str(1 << 22), "content": "hello"})
            s.cluster.write()
            assert (await dispatch(bot, "MESSAGE_CREATE"))["content"] == "hello"

    run(it())


def test_either_token_is_good_and_another_is_closed_with_4004() -> None:
    async def it() -> None:
        async with scene() as s:
            for token in (TOKEN, f"Bot {TOKEN}", PROXY_TOKEN):
                async with s.bot(token) as bot:
                    await dispatch(bot, "READY")
            async with s.bot("another.to.ken") as bot:
                assert (await bot.receive()).type is aiohttp.WSMsgType.CLOSE
                assert bot.close_code == 4004
            while s.proxy.status().connections:  # noqa: ASYNC110 - the end of a socket announces itself nowhere
                await asyncio.sleep(0.01)
            assert s.proxy.status().closes == {"4004": 1}

    run(it())


def test_bots_are_sent_away_at_the_end_and_those_that_stay_are_closed_so_that_they_can_resume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proxying, "LEAVE_S", 0.2)

    async def it() -> None:
        async with scene() as s, s.bot() as leaves, s.bot() as stays:
            for bot in (leaves, stays):
                await dispatch(bot, "READY")
            s.proxy.stop()
            for bot in (leaves, stays):
                while (await bot.receive_json())["op"] != 7:
                    pass
            await leaves.close(code=4900)
            assert (await stays.receive()).type is aiohttp.WSMsgType.CLOSE
            assert stays.close_code == 4000
            await s.serving
            with pytest.raises(aiohttp.ClientConnectorError):
                await s.get("/gateway")

    run(it())


def test_the_status_tells_of_each_bot() -> None:
    async def it() -> None:
        async with scene() as s, s.bot(shard=[1, 4]) as bot:
            await dispatch(bot, "READY")
            (row,) = s.proxy.status().bots
            assert (row.library, row.shard, row.count) == ("a library", 1, 4)
            status = s.proxy.status()
            assert (status.connections, status.identifies) == (1, 1)
            assert TOKEN not in repr(status) and PROXY_TOKEN not in repr(status)

    run(it())


@pytest.mark.parametrize("authorization", [f"Bot {PROXY_TOKEN}", f"Bearer {PROXY_TOKEN}", f"Bearer {TOKEN}"])
def test_each_proxy_shows_its_status_and_metrics_to_whoever_has_a_token(authorization: str) -> None:
    async def it() -> None:
        async with scene() as s, s.bot() as bot:
            await dispatch(bot, "READY")
            status, text = await s.get("/rateway/status", authorization)
            assert status == 200 and json.loads(text)["bots"][0]["library"] == "a library"
            status, text = await s.get("/rateway/metrics", authorization)
            assert status == 200 and "rateway_proxy_identifies_total 1.0" in text
            families = {family.name: family for family in text_string_to_metric_families(text)}
            (live,) = [
                sample.value
                for sample in families["rateway_proxy_connections"].samples
                if sample.labels["state"] in ("live", "starting") and sample.value
            ]
            assert live == 1.0 and len(families) == len(PROXY_METRICS)
            assert s.proxy.status().rest == {}

    run(it())


@pytest.mark.parametrize("authorization", ["", "Bearer x", f"Basic {TOKEN}", TOKEN])
@pytest.mark.parametrize("path", ["/rateway/status", "/rateway/metrics"])
def test_nobody_else_sees_them(path: str, authorization: str) -> None:
    async def it() -> None:
        async with scene() as s:
            assert (await s.get(path, authorization))[0] == 401

    run(it())


def test_bots_are_told_the_gateways_number_of_shards_or_the_one_that_is_set() -> None:
    async def it() -> None:
        async with scene() as s:
            assert json.loads((await s.get("/api/v10/gateway/bot"))[1])["shards"] == 1
        async with scene(PROXY_SHARDS="12") as s:
            assert json.loads((await s.get("/api/v10/gateway/bot"))[1])["shards"] == 12

    run(it())


def test_an_address_that_is_set_is_what_bots_are_told() -> None:
    async def it() -> None:
        async with scene(PROXY_URL="wss://bots.example.org") as s, s.bot() as bot:
            assert (await dispatch(bot, "READY"))["resume_gateway_url"] == "wss://bots.example.org"

    run(it())


def test_tls_in_front_is_believed_only_where_it_is_set() -> None:
    async def told(s: Scene) -> str:
        url = f"http://127.0.0.1:{s.port}/gateway"
        async with s.session.get(url, headers={"X-Forwarded-Proto": "https", "Host": "b.example"}) as answer:
            found: str = (await answer.json())["url"]
            return found

    async def it() -> None:
        async with scene() as s:
            assert await told(s) == "ws://b.example"
        async with scene(PROXY_BEHIND_TLS="true") as s:
            assert await told(s) == "wss://b.example"

    run(it())


def test_proxies_of_one_bot_share_an_address_and_those_of_another_wait_until_it_is_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def it() -> None:
        async with scene() as first:
            address = f"127.0.0.1:{first.port}"
            async with scene(PROXY_ADDRESS=address) as second:
                assert second.port == first.port
            given = {"DISCORD_TOKEN": "another.bots.token", "INTENTS": "1", "AMQP_URI": "amqp://localhost/"}
            other = Proxy(load(None, given | {"PROXY_ADDRESS": address}))
            gateway, reader = MemoryGateway({1: [0]}, kinds=KINDS), MemoryReader(lambda call: None)
            bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            serving = asyncio.create_task(other.serve(reader, gateway, None, bound.set_result))
            while "another bot's proxy" not in caplog.text:  # noqa: ASYNC110 - a line of the log sets no event
                await asyncio.sleep(0.01)
            async with first.bot() as bot:
                await dispatch(bot, "READY")
            assert not bound.done()
        assert await bound == first.port
        other.stop()
        await serving

    run(it())


def test_a_gateway_without_what_bots_need_ends_the_start_with_78(caplog: pytest.LogCaptureFixture) -> None:
    async def it() -> None:
        async with scene(kinds=tuple(kind for kind in KINDS if kind != "roles")) as s:
            await s.serving
            assert s.proxy.exit_code == exit_codes.CONFIGURATION

    with caplog.at_level(logging.CRITICAL):
        run(it())
    assert "CACHE_KINDS" in caplog.text


def test_what_bots_will_miss_is_said_and_noted(caplog: pytest.LogCaptureFixture) -> None:
    async def it() -> None:
        async with scene(kinds=tuple(kind for kind in KINDS if kind != "presences")) as s, s.bot() as bot:
            await dispatch(bot, "READY")
            (note,) = s.proxy.status().notes
            assert "presences" in note and s.proxy.exit_code == 0

    with caplog.at_level(logging.WARNING):
        run(it())
    assert "presences" in caplog.text
