"""Every rule that the simulated Discord judges by, broken once by a client of ours over real sockets."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rateway_simulator.faults import KINDS
from rateway_simulator.judge.rules import RULES
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator
from tests.simulator.client import ALL_INTENTS, GUILDS, Client, connect, dial
from tests.simulator.running import fault, simulator, until

from tests.aio import run

Breaker = Callable[[Simulator], Awaitable[None]]
BREAKERS: dict[str, tuple[Breaker, dict[str, Any]]] = {}
AGENT = {"User-Agent": "DiscordBot (https://example.org, 1.0)"}
ONLINE: dict[str, Any] = {"since": None, "activities": [], "status": "online", "afk": False}


def breaks(rule: str, **options: Any) -> Callable[[Breaker], Breaker]:
    """Register what breaks a rule; the options are the simulator's."""

    def register(breaker: Breaker) -> Breaker:
        assert rule not in BREAKERS
        BREAKERS[rule] = (breaker, options)
        return breaker

    return register


@pytest.mark.parametrize("rule", RULES)
def test_a_client_that_breaks_the_rule_is_noted_for_it_and_nothing_else(rule: str) -> None:
    breaker, options = BREAKERS[rule]

    async def scenario() -> None:
        async with simulator(**options) as sim:
            await breaker(sim)
            await until(lambda: sim.ledger.violations or sim.ledger.warnings)
            noted = {violation.rule for violation in sim.ledger.violations}
            warned = {warning.rule for warning in sim.ledger.warnings}
            assert (noted, warned) == ((set(), {rule}) if RULES[rule].warning else ({rule}, set()))

    run(scenario())


def test_a_client_that_keeps_the_rules_is_not_noted() -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url, compress="zlib-stream") as client:
            await client.ready(presence=ONLINE)
            guild_id = (await client.event("GUILD_CREATE"))["d"]["id"]
            await client.beat(client.seq)
            client.send(3, ONLINE)
            client.send(4, {"guild_id": guild_id, "channel_id": None, "self_mute": False, "self_deaf": False})
            client.send(8, {"guild_id": guild_id, "query": "", "limit": 0, "nonce": "n"})
            await client.event("GUILD_MEMBERS_CHUNK")
            client.send(31, {"guild_ids": [guild_id]})
            await client.event("SOUNDBOARD_SOUNDS")
            client.send(43, {"guild_id": guild_id, "fields": ["status"]})
            await client.event("CHANNEL_INFO")
            await client.end(4900)
            async with await connect(client.resume_url, compress="zlib-stream") as again:
                again.resume(client.session_id, client.seq)
                await again.event("RESUMED")
                await again.beat(client.seq)
                await again.end(1000)
            assert sim.ledger.violations == sim.ledger.warnings == []

    run(scenario())


def _documented(section: str) -> list[tuple[str, str, str]]:
    """The rows of the table in a section of docs/simulator.md."""
    text = (Path(__file__).parents[4] / "docs" / "simulator.md").read_text()
    part = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([a-z0-9_-]+)` \| (.+?) \| (.+?) \|$", part, re.MULTILINE)


def test_the_documentation_shows_the_same_rules() -> None:
    rows = {
        kind: [(rule.id, rule.sentence, rule.source) for rule in RULES.values() if rule.warning is kind]
        for kind in (False, True)
    }
    assert (_documented("Rules"), _documented("Warnings")) == (rows[False], rows[True])


def test_the_documentation_shows_the_same_faults() -> None:
    assert _documented("Faults") == [
        (name, kind.does, ", ".join(f"`{field}`" for field in sorted(kind.uses)) or "–")
        for name, kind in KINDS.items()
    ]


FIELDS = [
    "activities", "since", "status", "afk", "channel_id", "self_mute", "self_deaf", "query", "limit", "user_ids",
    "presences", "nonce", "guild_ids", "fields",
]  # fmt: skip


# Dialling


@breaks("query-version")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url, query="encoding=json"):
        pass


@breaks("query-encoding")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url, query="v=10"):
        pass


@breaks("query-compress")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url, query="v=10&encoding=json&compress=brotli"):
        pass


@breaks("query-resume")
async def _(sim: Simulator) -> None:
    client = await _left(sim, 4900)
    async with await connect(client.resume_url, compress="zlib-stream") as again:
        again.resume(client.session_id, client.seq)
        assert (await again.op(9))["d"] is False


@breaks("upgrade-before-retry-after", retry_grace=0.0)
async def _(sim: Simulator) -> None:
    await sim.inject(fault("upgrade:status=429,retry_after=60,count=1"))
    with pytest.raises(Exception, match="429"):
        await dial(sim.gateway_url)
    async with await connect(sim.gateway_url):
        pass


# Identifying


@breaks("identify-concurrency", identify_refusal_delay=0.05)
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as first, await connect(sim.gateway_url) as second:
        await first.ready(shard=[0, 2])
        second.identify(shard=[1, 2])
        assert (await second.op(9))["d"] is False


@breaks("identify-budget", identifies_remaining=0)
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        client.identify()
        assert await client.closed == 4004


@breaks("identify-twice")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        await client.ready()
        client.identify()
        assert await client.closed == 4005


@breaks("identify-resume-host")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway.hosts[1].url) as client:
        await client.ready()


@breaks("identify-after-fatal", privileged_intents=0)
async def _(sim: Simulator) -> None:
    for _ in range(2):
        async with await connect(sim.gateway_url) as client:
            client.identify()
            assert await client.closed == 4014
    assert [violation.rule for violation in sim.ledger.violations].count("disallowed-intents") == 2
    sim.ledger.violations[:] = [each for each in sim.ledger.violations if each.rule != "disallowed-intents"]


@breaks("identify-malformed")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        client.identify(properties=None)
        assert await client.closed == 4002


@breaks("wrong-token")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        client.identify(token="another")
        assert await client.closed == 4004


@breaks("invalid-shard", shards_multiple=4)
async def _(sim: Simulator) -> None:
    for shard in ([4, 4], [0, 6]):
        async with await connect(sim.gateway_url) as client:
            client.identify(shard=shard)
            assert await client.closed == 4010


@breaks("sharding-required", max_guilds_per_shard=2)
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        client.identify()
        assert await client.closed == 4011


@breaks("invalid-version")
async def _(sim: Simulator) -> None:
    async with await dial(sim.gateway_url, query="v=5&encoding=json") as client:
        assert await client.closed == 4012


@breaks("invalid-intents")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        client.identify(intents=1 << 18)
        assert await client.closed == 4013


@breaks("identify-intents")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        await client.ready(intents=1 << 17 | 1)


@breaks("disallowed-intents", privileged_intents=0)
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        client.identify()
        assert await client.closed == 4014


# Resuming


async def _left(sim: Simulator, code: int, beat: int | None = None) -> Client:
    """A client that had a session, with at least 4 events, and left with this code."""
    async with await connect(sim.gateway_url) as client:
        await client.ready()
        for _ in range(3):
            await client.event("GUILD_CREATE")
        if beat is not None:
            await client.beat(beat)
        await client.end(code)
    return client


@breaks("resume-token-prefix")
async def _(sim: Simulator) -> None:
    client = await _left(sim, 4900)
    async with await connect(client.resume_url) as again:
        again.resume(client.session_id, client.seq, token=f"Bot {sim.options.token}")
        await again.event("RESUMED")


@breaks("resume-seq-zero")
async def _(sim: Simulator) -> None:
    client = await _left(sim, 4900)
    async with await connect(client.resume_url) as again:
        again.resume(client.session_id, 0)
        assert (await again.op(9))["d"] is False


@breaks("resume-seq-ahead")
async def _(sim: Simulator) -> None:
    client = await _left(sim, 4900)
    async with await connect(client.resume_url) as again:
        again.resume(client.session_id, client.seq + 1)
        assert await again.closed == 4007


@breaks("resume-seq-below-heartbeat")
async def _(sim: Simulator) -> None:
    client = await _left(sim, 4900, beat=3)
    async with await connect(client.resume_url) as again:
        again.resume(client.session_id, 2)
        assert (await again.op(9))["d"] is False


@breaks("resume-after-end")
async def _(sim: Simulator) -> None:
    client = await _left(sim, 1000)
    async with await connect(client.resume_url) as again:
        again.resume(client.session_id, client.seq)
        assert (await again.op(9))["d"] is False


# Heartbeats


# Long enough for a busy client to identify: one that has no session is cut instead.
@breaks("heartbeat-missing", heartbeat_interval_ms=10, heartbeat_tolerance=60.0, heartbeat_missing=3.0)
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        await client.ready()
        assert await client.closed == 4009


# Every heartbeat comes later than at once.
@breaks("heartbeat-late", heartbeat_interval_ms=1, heartbeat_tolerance=-1.0, heartbeat_missing=60.0)
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        await client.beat()


@breaks("heartbeat-unanswered", heartbeat_answer=0.01)
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        await client.ready()
        assert await sim.inject(fault("op1")) == 1
        await client.op(1)
        await until(lambda: sim.ledger.violations)


@breaks("heartbeat-malformed")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        client.send(1, "7")
        assert await client.closed == 4002


@breaks("heartbeat-ahead")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        await client.ready()
        await client.beat(1000)


@breaks("heartbeat-backwards")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        await client.ready()
        for _ in range(3):
            await client.event("GUILD_CREATE")
        await client.beat(3)
        await client.beat(2)


# Sending


@breaks("not-authenticated")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        client.send(3, ONLINE)
        assert await client.closed == 4003


@breaks("send-rate", sends=3)
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        for _ in range(4):
            client.send(1, None)
        assert await client.closed == 4008


@breaks("presence-rate", presences=2)
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        await client.ready()
        for _ in range(3):
            client.send(3, ONLINE)
        assert await client.closed == 4008


@breaks("payload-size")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        await client.ready()
        whole = '{"op":1,"d":null}'
        client.send_text(whole + " " * (4096 - len(whole)))
        await client.op(11)
        client.send_text(whole + " " * (4097 - len(whole)))
        assert await client.closed == 4002


@breaks("undecodable")
async def _(sim: Simulator) -> None:
    for text in ("{", "[]", '{"op":"1"}', '{"op":true}'):
        async with await connect(sim.gateway_url) as client:
            client.send_text(text)
            assert await client.closed == 4002


@breaks("unknown-opcode")
async def _(sim: Simulator) -> None:
    for op in (0, 5, 7, 12, 99):
        async with await connect(sim.gateway_url) as client:
            client.send(op, None)
            assert await client.closed == 4001


@breaks("presence-malformed")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        await client.ready()
        client.send(3, ONLINE | {"activities": None})
        assert (await client.op(9))["d"] is False


async def _ready(sim: Simulator, client: Client, **changes: Any) -> str:
    """Identify; the first guild's id."""
    await client.ready(**changes)
    guild_id: str = (await client.event("GUILD_CREATE"))["d"]["id"]
    return guild_id


@breaks("voice-malformed")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        client.send(4, {"guild_id": await _ready(sim, client), "self_mute": False})
        await client.beat()


@breaks("members-rate")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        request = {"guild_id": await _ready(sim, client), "query": "", "limit": 0, "nonce": "first"}
        client.send(8, request)
        await client.event("GUILD_MEMBERS_CHUNK")
        client.send(8, request | {"nonce": "second"})
        limited = (await client.event("RATE_LIMITED"))["d"]
        assert limited["opcode"] == 8 and 29 < limited["retry_after"] <= 30
        assert limited["meta"] == {"guild_id": request["guild_id"], "nonce": "second"}


@breaks("members-malformed")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        client.send(8, {"guild_id": await _ready(sim, client), "query": "a"})
        await client.beat()


@breaks("members-intents")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        client.send(8, {"guild_id": await _ready(sim, client, intents=GUILDS), "query": "", "limit": 0})
        await client.beat()


@breaks("nonce-size")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        request = {"guild_id": await _ready(sim, client), "query": "", "limit": 0, "nonce": "é" * 17}
        client.send(8, request)
        assert "nonce" not in (await client.event("GUILD_MEMBERS_CHUNK"))["d"]


@breaks("request-malformed")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        guild_id = await _ready(sim, client)
        client.send(31, {"guild_ids": []})
        client.send(43, {"guild_id": guild_id, "fields": ["topic"]})
        await client.beat()


@breaks("wrong-shard")
async def _(sim: Simulator) -> None:
    elsewhere = [guild_id for guild_id in sim.world.guild_ids if (guild_id >> 22) % 2 == 1]
    async with await connect(sim.gateway_url) as client:
        await client.ready(shard=[0, 2])
        client.send(43, {"guild_id": str(elsewhere[0]), "fields": ["status"]})
        await client.beat()


@breaks("payload-form")
async def _(sim: Simulator) -> None:
    async with await connect(sim.gateway_url) as client:
        guild_id = await _ready(sim, client)
        client.send(8, {"guild_id": [int(guild_id)], "query": "", "limit": 0})
        assert (await client.event("GUILD_MEMBERS_CHUNK"))["d"]["guild_id"] == guild_id


# REST


async def _get(sim: Simulator, path: str = "/users/@me", **headers: str) -> int:
    sent = AGENT | {"Authorization": f"Bot {sim.options.token}"} | headers
    async with aiohttp.ClientSession() as session, session.get(sim.api_url + path, headers=sent) as response:
        return response.status


@breaks("rest-user-agent")
async def _(sim: Simulator) -> None:
    assert await _get(sim, **{"User-Agent": "curl/8"}) == 200


@breaks("rest-rate", rest_per_second=2)
async def _(sim: Simulator) -> None:
    assert [await _get(sim) for _ in range(3)] == [200, 200, 429]


@breaks("rest-after-401")
async def _(sim: Simulator) -> None:
    assert [await _get(sim, Authorization="Bot wrong") for _ in range(2)] == [401, 401]


@breaks("rest-before-retry-after", retry_grace=0.0)
async def _(sim: Simulator) -> None:
    await sim.inject(fault("rest:status=429,retry_after=60"))
    assert [await _get(sim) for _ in range(2)] == [429, 429]


@breaks("rest-invalid-requests", rest_invalid=2)
async def _(sim: Simulator) -> None:
    await sim.inject(fault("rest:status=403"))
    assert [await _get(sim) for _ in range(3)] == [403, 403, 403]


def test_every_intent_at_once_is_what_the_tests_identify_with() -> None:
    from rateway_protocol.discord.intents import ALL

    assert ALL_INTENTS == ALL


def test_nonsense_of_any_kind_ends_in_a_verdict_and_never_in_an_error_of_the_judge() -> None:
    chance = random.Random(7)
    atoms: list[Any] = [None, True, 0, -1, 2**70, 1.5, "", "1", "9" * 30, "é" * 40, [], {}, [None], {"a": []}]
    names = [*FIELDS, "token", "session_id", "seq"]

    def nonsense(guild_id: str) -> Any:
        if chance.random() < 0.2:
            return chance.choice(atoms)
        d = {name: chance.choice(atoms) for name in chance.sample(names, chance.randrange(8))}
        return d | ({"guild_id": guild_id} if chance.random() < 0.7 else {})

    async def scenario() -> None:
        async with simulator(sends=100_000, identify_window=0.0) as sim:
            guild_id = str(sim.world.guild_ids[0])
            sent = 0
            while sent < 600:
                async with await connect(sim.gateway_url) as client:
                    await client.ready()
                    while sent < 600 and not client.closed.done():
                        client.send(
                            chance.choice([1, 2, 3, 4, 6, 8, 31, 43, 43, 8, 4, 70]), nonsense(guild_id)
                        )
                        sent += 1
                        if sent % 20 == 0:
                            client.send(1, None)
                            await until(client.has_heard)
                            while client.messages.qsize():
                                client.messages.get_nowait()
                    if client.closed.done():
                        assert client.closed.result() in (4001, 4002, 4004, 4005, 4006, 4008)
            assert set(sim.ledger.broken()) | set(sim.ledger.warned) <= set(RULES)

    run(scenario())


def test_what_was_under_way_when_a_session_was_invalidated_breaks_no_rule() -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url) as client:
            await client.ready()
            await sim.inject(fault("op9"))
            client.send(3, ONLINE)
            client.send(1, 1)
            await client.op(11)
            assert sim.ledger.violations == []

    run(scenario())


# What libraries do and Discord takes


@pytest.mark.checklist("K47")
def test_an_offer_of_permessage_deflate_is_declined_and_no_fault() -> None:
    async def scenario() -> None:
        offer = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
        async with simulator() as sim, await connect(sim.gateway_url, headers=offer) as client:
            await client.ready()
            assert sim.ledger.violations == sim.ledger.warnings == []

    run(scenario())


# discordgo 0.29, eris 0.18 and oceanic.js 1.15, as they identify without being told a presence.
PRESENCES: list[dict[str, Any]] = [
    {
        "since": 0,
        "game": {
            "name": "",
            "type": 0,
            "created_at": "0001-01-01T00:00:00Z",
            "timestamps": {},
            "emoji": {"id": "", "name": "", "roles": None},
            "party": {},
            "assets": {},
            "secrets": {},
        },
        "status": "",
        "afk": False,
    },
    {"activities": None, "afk": False, "since": None, "status": "offline"},
    {"activities": [], "afk": False, "status": "online"},
]


@pytest.mark.checklist("K46")
@pytest.mark.parametrize("presence", PRESENCES)
def test_libraries_identify_resume_and_ask_for_members_as_they_do_with_discord(
    presence: dict[str, Any],
) -> None:
    async def scenario() -> None:
        async with simulator() as sim:
            async with await connect(sim.gateway_url) as client:
                await client.ready(token=f"Bot {sim.options.token}", presence=presence)
                guild_id = (await client.event("GUILD_CREATE"))["d"]["id"]
                client.send(8, {"guild_id": [guild_id], "query": "", "limit": 0, "presences": 256})
                await client.event("GUILD_MEMBERS_CHUNK")
                await client.end(4900)
            async with await connect(client.resume_url) as again:
                again.resume(client.session_id, client.seq, token=f"Bot {sim.options.token}")
                await again.event("RESUMED")
            assert sim.ledger.violations == []
            assert set(sim.ledger.warned) == {"payload-form", "resume-token-prefix"}

    run(scenario())


@pytest.mark.checklist("K53")
def test_an_identify_that_comes_too_early_is_answered_some_seconds_later() -> None:
    async def scenario() -> None:
        async with (
            simulator(identify_window=60.0, identify_refusal_delay=0.4) as sim,
            await connect(sim.gateway_url) as first,
            await connect(sim.gateway_url) as second,
        ):
            await first.ready(shard=[0, 2])
            loop = asyncio.get_running_loop()
            began, before = loop.time(), sim.gateway.limits.remaining
            # A library that identifies again as soon as it is refused.
            for _ in range(2):
                second.identify(shard=[1, 2])
                assert (await second.op(9))["d"] is False
            assert loop.time() - began >= 0.8
            assert before - sim.gateway.limits.remaining == 2
            assert sim.ledger.violations == [] and sim.ledger.warned == {"identify-concurrency": 2}

    run(scenario())


def test_by_default_the_answer_to_an_early_identify_takes_seconds() -> None:
    assert SimulatorOptions().identify_refusal_delay >= 2.0


def test_a_host_that_answered_429_is_judged_by_itself() -> None:
    async def scenario() -> None:
        async with simulator(retry_grace=0.0, resume_hosts=1) as sim:
            client = await _left(sim, 4900)
            await sim.inject(fault("upgrade:status=429,retry_after=60,count=1"))
            with pytest.raises(Exception, match="429"):
                await dial(client.resume_url)
            async with await connect(sim.gateway_url):
                pass
            assert [each.rule for each in sim.ledger.violations] == []
            async with await connect(client.resume_url):
                pass
            assert [each.rule for each in sim.ledger.violations] == ["upgrade-before-retry-after"]

    run(scenario())
