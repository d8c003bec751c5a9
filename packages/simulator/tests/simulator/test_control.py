"""The simulator steered and read over HTTP, REST's manners, and where events come from."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from rateway_simulator.control import parse_rate
from rateway_simulator.faults import KINDS
from rateway_simulator.judge.rules import RULES
from rateway_simulator.options import FLAT_OUT
from rateway_simulator.server import Simulator
from tests.simulator.client import Client, connect
from tests.simulator.running import simulator, until

from tests.aio import run


async def _get(sim: Simulator, session: aiohttp.ClientSession, path: str) -> Any:
    async with session.get(f"{sim.control_url}/{path}") as response:
        assert response.status == 200
        return await response.json()


async def _post(sim: Simulator, session: aiohttp.ClientSession, path: str, body: object) -> tuple[int, Any]:
    async with session.post(f"{sim.control_url}/{path}", data=json.dumps(body)) as response:
        return response.status, await response.json()


async def _live(client: Client) -> None:
    for _ in (await client.ready())["guilds"]:
        await client.event("GUILD_CREATE")


def test_ledger_sessions_and_violations_can_be_read() -> None:
    async def scenario() -> None:
        async with (
            simulator() as sim,
            aiohttp.ClientSession() as session,
            await connect(sim.gateway_url) as client,
        ):
            await _live(client)
            await client.beat(99)
            summary = await _get(sim, session, "ledger")
            assert (summary["events"], summary["live"], summary["violations"]) == (4, 1, 1)
            [record] = await _get(sim, session, "sessions")
            assert record["session"] == client.session_id and record["sent"] == 4 and record["ended"] is None
            assert await _get(sim, session, "warnings") == []
            [violation] = await _get(sim, session, "violations")
            assert violation["rule"] == "heartbeat-ahead" and violation["session"] == client.session_id
            assert [rule["id"] for rule in await _get(sim, session, "rules")] == list(RULES)
            assert (await _get(sim, session, "faults")).keys() == KINDS.keys()

    run(scenario())


def test_what_was_sent_is_read_in_lines_and_from_an_index_on() -> None:
    async def scenario() -> None:
        async with (
            simulator() as sim,
            aiohttp.ClientSession() as session,
            await connect(sim.gateway_url) as client,
        ):
            await _live(client)
            async with session.get(f"{sim.control_url}/sent") as response:
                lines = [json.loads(line) for line in (await response.text()).splitlines()]
            assert [(line["index"], line["seq"]) for line in lines] == [(0, 1), (1, 2), (2, 3), (3, 4)]
            assert lines[0]["event"] == "READY" and lines[0]["session"] == client.session_id
            query = f"sent?since=2&session={client.session_id}"
            async with session.get(f"{sim.control_url}/{query}") as response:
                assert len((await response.text()).splitlines()) == 2
            async with session.get(f"{sim.control_url}/sent?since=x") as response:
                assert response.status == 400

    run(scenario())


def test_faults_come_over_http_and_are_remembered() -> None:
    async def scenario() -> None:
        async with (
            simulator() as sim,
            aiohttp.ClientSession() as session,
            await connect(sim.gateway_url) as client,
        ):
            await _live(client)
            assert await _post(sim, session, "faults", {"kind": "close", "code": 4000}) == (
                200,
                {"connections": 1},
            )
            assert await client.closed == 4000
            [injected] = await _get(sim, session, "injected")
            assert injected["fault"] == {"kind": "close", "shards": "all", "code": 4000}
            for wrong in (
                {"kind": "explode"},
                [1],
                {"kind": "cut", "at": 3},
                {"kind": "dead_host", "host": "9"},
            ):
                status, answer = await _post(sim, session, "faults", wrong)
                assert status == 400 and answer["error"]

    run(scenario())


def test_the_rate_can_be_set_over_http() -> None:
    async def scenario() -> None:
        async with (
            simulator() as sim,
            aiohttp.ClientSession() as session,
            await connect(sim.gateway_url) as client,
        ):
            await _live(client)
            assert await _post(sim, session, "rate", {"rate": 500, "events": 20}) == (200, {})
            await until(lambda: sim.source.state == "done")
            # The world may have answered one step with several events; they wait for the next.
            assert sim.ledger.events <= 4 + 20
            for wrong in ({"rate": -1}, {"rate": "fast"}, {}, {"rate": 1, "speed": 2}):
                assert (await _post(sim, session, "rate", wrong))[0] == 400

    run(scenario())


def test_a_rate_is_a_number_or_max() -> None:
    assert parse_rate("12.5") == 12.5 and parse_rate(0) == 0 and parse_rate("max") == FLAT_OUT
    for wrong in ("", "nan", "inf", "-1"):
        with pytest.raises(ValueError):
            parse_rate(wrong)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("rate", [2000.0, FLAT_OUT])
@pytest.mark.parametrize("compress", ["", "zlib-stream", "zstd-stream"])
def test_every_source_sends_what_its_ledger_says(compress: str, rate: float, recorded: bool) -> None:
    async def scenario() -> None:
        async with (
            simulator(recorded_pool=400) as sim,
            await connect(sim.gateway_url, compress=compress) as client,
        ):
            await _live(client)
            sim.set_rate(rate, recorded=recorded, events=600)
            await client.beat(client.seq)
            await until(lambda: sim.source.state == "done")
            await client.beat(client.seq)
            assert client.seq == sim.ledger.events > 300
            # A live event and a heartbeat between runs, and another stretch of events after them.
            sim.set_rate(rate, recorded=recorded, events=300)
            await until(lambda: sim.source.state == "done")
            sim.drain()
            await client.beat(client.seq)
            assert client.seq == sim.ledger.events and client.error is None
            assert sim.ledger.violations == []

    run(scenario())


def test_a_flood_is_shared_by_the_sessions_and_each_can_be_resumed_in_it() -> None:
    async def scenario() -> None:
        async with (
            simulator(guilds=8, max_concurrency=2, recorded_pool=400) as sim,
            await connect(sim.gateway_url, compress="zstd-stream") as one,
            await connect(sim.gateway_url, compress="zlib-stream") as two,
        ):
            for shard, client in enumerate((one, two)):
                await client.ready(shard=[shard, 2])
            sim.set_rate(FLAT_OUT, recorded=True, events=5_001)
            await until(lambda: sim.source.state == "done")
            for client in (one, two):
                await client.beat(client.seq)
                assert client.seq == sim.gateway.sessions[client.session_id].seq
                sent = [sent.event for sent in sim.ledger.log(session=client.session_id)]
                assert len(sent) == client.seq > 2500
            one.cut()
            await one.closed
            async with await connect(one.resume_url, compress="zstd-stream") as again:
                again.resume(one.session_id, one.seq)
                await again.event("RESUMED")
            assert sim.ledger.violations == []

    run(scenario())
