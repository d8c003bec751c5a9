"""Faults: how they are written, and that each of them happens over real sockets."""

from __future__ import annotations

import asyncio
import random
import time

import aiohttp
import pytest
from rateway_simulator.faults import (
    KINDS,
    Fault,
    FaultError,
    Scheduled,
    as_json,
    chosen,
    parse,
    parse_scenario,
    parse_word,
)
from rateway_simulator.server import Simulator
from rateway_simulator.world.dispatch import Dispatch
from tests.simulator.client import Client, connect, dial
from tests.simulator.running import fault, simulator, until

from tests.aio import run

AGENT = {"User-Agent": "DiscordBot (https://example.org, 1.0)"}

# How they are written


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("cut", Scheduled(Fault(kind="cut"), 0.0, 0.0)),
        ("cut:shards=0,4-7,2,at=3", Scheduled(Fault(kind="cut", shards="0,4-7,2"), 3.0, 0.0)),
        ("cut:shards=random:2,every=10", Scheduled(Fault(kind="cut", shards="random:2"), 10.0, 10.0)),
        ("op9:resumable=true,at=1,every=2", Scheduled(Fault(kind="op9", resumable=True), 1.0, 2.0)),
        ("close:code=4009", Scheduled(Fault(kind="close", code=4009), 0.0, 0.0)),
        (
            "upgrade:status=429,retry_after=1.5,count=3",
            Scheduled(Fault(kind="upgrade", status=429, retry_after=1.5, count=3), 0.0, 0.0),
        ),
    ],
)
def test_a_word_says_what_happens_when_and_to_whom(word: str, expected: Scheduled) -> None:
    assert parse_word(word) == expected


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("explode", "there are: cut"),
        ("cut:code=4000", "it can have: at, every, shards"),
        ("close:code=1006", "cannot be on the wire"),
        ("close:code=77", "outside 1000 to 4999"),
        ("close:code=x", "not a value of type int"),
        ("cut:shards=random:0", "is not all"),
        ("cut:shards=one", "is not all"),
        ("cut:at=-1", "not negative"),
        ("cut:now", "is not key=value"),
        ("upgrade:status=200", "outside 400 to 599"),
        ("rest:status=302", "neither 0 nor"),
        ("slow:bytes=0", "positive"),
        ("shards:value=0", "at least 1"),
        ("op9:resumable=perhaps", "not a value of type bool"),
    ],
)
def test_a_mistake_in_a_fault_is_told_with_what_to_write_instead(word: str, says: str) -> None:
    with pytest.raises(FaultError, match=says):
        parse_word(word)


def test_a_scenario_is_a_toml_file_of_faults() -> None:
    text = """
        [[fault]]
        kind = "op9"
        at = 1.5
        resumable = true
        shards = [0, 3]
        [[fault]]
        kind = "dead_host"
        host = "main"
        seconds = 4
    """
    assert parse_scenario(text) == (
        Scheduled(Fault(kind="op9", resumable=True, shards="0,3"), 1.5, 0.0),
        Scheduled(Fault(kind="dead_host", host="main", seconds=4.0), 0.0, 0.0),
    )
    for wrong in ("fault", "[fault]\nkind='cut'", "[[fault]]\nkind='cut'\n[other]"):
        with pytest.raises(FaultError):
            parse_scenario(wrong)


def test_shards_are_chosen_among_those_that_are_there() -> None:
    chance = random.Random(1)
    assert chosen("all", [1, 2, 2], chance) == {1, 2}
    assert chosen("0-2,9", [1, 2, 3], chance) == {1, 2}
    assert len(chosen("random:2", [1, 2, 2, 3], chance)) == 2
    assert chosen("random:9", [4, 5], chance) == {4, 5}


def test_a_fault_shows_only_the_fields_of_its_kind() -> None:
    assert as_json(Fault(kind="close", code=4001)) == {"kind": "close", "shards": "all", "code": 4001}
    assert as_json(Fault(kind="budget", value=3)) == {"kind": "budget", "value": 3}
    for kind in KINDS:
        written = as_json(Fault(kind=kind, code=4000, status=503, value=1))
        assert parse(written).fault == Fault(kind=kind, code=4000, status=503, value=written.get("value", 0))


# On connections


async def _live(sim: Simulator, client: Client) -> Client:
    ready = await client.ready()
    for _ in ready["guilds"]:
        await client.event("GUILD_CREATE")
    return client


def _happens(sim: Simulator) -> None:
    sim.dispatch(Dispatch("TYPING_START", sim.world.guild_ids[0], {"timestamp": 1}))


async def _can_resume(client: Client) -> bool:
    async with await connect(client.resume_url) as again:
        again.seq = client.seq
        again.resume(client.session_id, client.seq)
        answer = await again.take(lambda message: message["op"] == 9 or message["t"] == "RESUMED")
        return bool(answer["t"] == "RESUMED")


@pytest.mark.parametrize(
    ("word", "code", "resumable"),
    [
        ("cut", None, True),
        ("forget", None, False),
        *((f"close:code={code}", code, True) for code in (1000, 1001, 1011, 4000, 4001, 4002, 4005, 4008)),
        *((f"close:code={code}", code, False) for code in (4003, 4004, 4006, 4007, 4009, 4010, 4013, 4014)),
    ],
)
def test_a_connection_ends_as_it_is_told_and_its_session_with_it_or_not(
    word: str, code: int | None, resumable: bool
) -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url) as client:
            await _live(sim, client)
            assert await sim.inject(fault(word)) == 1
            assert await client.closed == code
            assert await _can_resume(client) is resumable
            assert sim.ledger.violations == []

    run(scenario())


@pytest.mark.parametrize("resumable", [True, False])
def test_op_9_invalidates_a_running_session(resumable: bool) -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url) as client:
            await _live(sim, client)
            await sim.inject(Fault(kind="op9", resumable=resumable))
            assert (await client.op(9))["d"] is resumable
            await client.end(4900)
            assert await _can_resume(client) is resumable

    run(scenario())


def test_op_7_asks_to_reconnect_and_keeps_the_session() -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url) as client:
            await _live(sim, client)
            await sim.inject(fault("op7"))
            await client.op(7)
            await client.end(4900)
            assert await _can_resume(client)

    run(scenario())


def test_only_the_shards_named_are_hit() -> None:
    async def scenario() -> None:
        async with (
            simulator(max_concurrency=2) as sim,
            await connect(sim.gateway_url) as one,
            await connect(sim.gateway_url) as two,
        ):
            await one.ready(shard=[0, 2])
            await two.ready(shard=[1, 2])
            assert await sim.inject(fault("cut:shards=1")) == 1
            assert await two.closed is None and not one.closed.done()

    run(scenario())


def test_silence_holds_everything_back_until_it_is_over() -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url) as client:
            await _live(sim, client)
            started = time.monotonic()
            await sim.inject(fault("silence:seconds=0.05"))
            _happens(sim)
            await client.beat()
            assert time.monotonic() - started > 0.03
            assert client.seq == 5
            await sim.inject(fault("silence"))
            client.close(4900)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await asyncio.shield(client.closed)

    run(scenario())


@pytest.mark.parametrize("compress", ["", "zlib-stream", "zstd-stream"])
def test_a_corrupt_frame_cannot_be_read(compress: str) -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url, compress=compress) as client:
            await _live(sim, client)
            await sim.inject(fault("corrupt"))
            await client.closed
            assert client.error is not None

    run(scenario())


def test_slow_sending_arrives_whole_but_late() -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url) as client:
            await _live(sim, client)
            await sim.inject(fault("slow:bytes=2000,seconds=5"))
            started = time.monotonic()
            for _ in range(4):
                _happens(sim)
            sim.dispatch(Dispatch("TYPING_START", sim.world.guild_ids[0], {"text": "x" * 300}))
            await client.take(lambda message: client.seq == 9)
            assert time.monotonic() - started > 0.1

    run(scenario())


# Dialling


@pytest.mark.parametrize("kind", ["dead_host", "refusing_host", "silent_host"])
def test_a_resume_host_fails_alone_and_comes_back(kind: str) -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url) as client:
            await _live(sim, client)
            host = sim.gateway.hosts[1]
            await sim.inject(fault(f"{kind}:seconds=60"))
            await client.end(4900)
            if kind == "silent_host":
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.03):
                        await dial(client.resume_url)
            else:
                with pytest.raises(OSError if kind == "dead_host" else Exception):
                    await dial(client.resume_url)
            # The session is as good on the main host.
            client.resume_url = sim.gateway_url
            assert await _can_resume(client)
            await sim.inject(fault(f"{kind}:seconds=0.02"))
            await until(lambda: host.mode.value == "open")
            client.resume_url = host.url
            async with await connect(host.url):
                assert sim.ledger.violations == []

    run(scenario())


def test_open_connections_survive_the_death_of_their_host() -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url) as client:
            await _live(sim, client)
            await sim.inject(fault("dead_host:host=main"))
            await client.beat(2)

    run(scenario())


def test_upgrades_are_refused_as_often_as_is_said() -> None:
    async def scenario() -> None:
        async with simulator() as sim:
            await sim.inject(fault("upgrade:status=403,count=2"))
            for _ in range(2):
                with pytest.raises(Exception, match="403"):
                    await dial(sim.gateway_url)
            async with await connect(sim.gateway_url):
                assert sim.ledger.counts["upgrade 403"] == 2

    run(scenario())


def test_a_refused_upgrade_says_when_to_come_again() -> None:
    async def scenario() -> None:
        async with simulator() as sim, aiohttp.ClientSession() as session:
            await sim.inject(fault("upgrade:status=429,retry_after=2.5"))
            url = sim.gateway_url.replace("ws:", "http:") + "/?v=10&encoding=json"
            async with session.get(url) as response:
                assert (response.status, response.headers["Retry-After"]) == (429, "2.5")

    run(scenario())


@pytest.mark.parametrize(("kind", "first"), [("op7_hello", 7), ("no_hello", 11)])
def test_a_connection_can_begin_without_hello(kind: str, first: int) -> None:
    async def scenario() -> None:
        async with simulator() as sim:
            await sim.inject(fault(f"{kind}:count=1"))
            async with await dial(sim.gateway_url) as client:
                client.send(1, None)
                assert (await client.messages.get())["op"] == first
            async with await connect(sim.gateway_url):
                assert sim.ledger.violations == []

    run(scenario())


def test_a_later_fault_of_a_host_decides_when_it_opens_again() -> None:
    async def scenario() -> None:
        async with simulator() as sim:
            host = sim.gateway.hosts[1]
            await sim.inject(fault("refusing_host:seconds=0.02"))
            await sim.inject(fault("dead_host:host=0,seconds=60"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.06):
                    await until(lambda: host.mode.value == "open")
            assert host.mode.value == "dead"

    run(scenario())


# REST and what it says


async def _gateway_bot(sim: Simulator, session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
    headers = AGENT | {"Authorization": f"Bot {sim.options.token}"}
    response = await session.get(f"{sim.api_url}/gateway/bot", headers=headers)
    await response.read()
    return response


def test_rest_has_outages() -> None:
    async def scenario() -> None:
        async with simulator() as sim, aiohttp.ClientSession() as session:
            await sim.inject(fault("rest:status=502,seconds=60"))
            assert (await _gateway_bot(sim, session)).status == 502
            await sim.inject(fault("rest:status=0"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await _gateway_bot(sim, session)
            await sim.inject(fault("rest:status=429,retry_after=7,seconds=60"))
            limited = await _gateway_bot(sim, session)
            assert (limited.status, limited.headers["Retry-After"]) == (429, "7")

    run(scenario())


def test_what_gateway_bot_says_can_change() -> None:
    async def scenario() -> None:
        async with simulator(shards=3) as sim, aiohttp.ClientSession() as session:
            body = await (await _gateway_bot(sim, session)).json()
            assert body["url"] == sim.gateway_url and body["shards"] == 3
            assert body["session_start_limit"].keys() == {
                "total",
                "remaining",
                "reset_after",
                "max_concurrency",
            }
            for word in ("shards:value=9", "concurrency:value=16", "budget:value=5"):
                await sim.inject(fault(word))
            body = await (await _gateway_bot(sim, session)).json()
            limit = body["session_start_limit"]
            assert (body["shards"], limit["max_concurrency"], limit["remaining"]) == (9, 16, 5)

    run(scenario())


def test_an_intent_that_is_switched_off_closes_with_4003_and_then_4014() -> None:
    async def scenario() -> None:
        async with simulator(identify_window=0.0) as sim:
            async with await connect(sim.gateway_url) as client:
                await client.ready()
                await sim.inject(fault("intents:value=0"))
                assert await client.closed == 4003
            async with await connect(sim.gateway_url) as client:
                client.identify()
                assert await client.closed == 4014
            await sim.inject(fault("intents:value=33026"))
            async with await connect(sim.gateway_url) as client:
                await client.ready()

    run(scenario())


def test_a_token_that_is_reset_ends_all_sessions() -> None:
    async def scenario() -> None:
        async with simulator() as sim, aiohttp.ClientSession() as session:
            async with await connect(sim.gateway_url) as client:
                await client.ready()
                await sim.inject(fault("token_reset"))
                assert await client.closed == 4004
            assert sim.gateway.sessions == {}
            assert (await _gateway_bot(sim, session)).status == 401

    run(scenario())


def test_a_scenario_plays_by_its_clock() -> None:
    async def scenario() -> None:
        script = (parse_word("cut:at=0.15"), parse_word("budget:value=7,every=0.02"))
        async with simulator(scenario=script) as sim, await connect(sim.gateway_url) as client:
            await client.ready()
            assert await client.closed is None
            assert sim.ledger.counts["fault cut"] == 1 and sim.ledger.counts["fault budget"] > 2

    run(scenario())
