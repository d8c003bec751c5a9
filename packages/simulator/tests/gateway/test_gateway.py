"""The simulated gateway over real sockets: sessions, numbers, replays, who sees what."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiohttp
import pytest
from rateway_simulator.judge.ledger import digest
from rateway_simulator.world.changes import guilds as world_guilds
from rateway_simulator.world.dispatch import Dispatch
from tests.simulator.client import ALL_INTENTS, GUILDS, Client, connect, dial
from tests.simulator.running import fault, simulator, until

from tests.aio import run

COMPRESSIONS = pytest.mark.parametrize("compress", ["", "zlib-stream", "zstd-stream"])
GUILD_MESSAGES = 1 << 9


def _typing(guild_id: int | None, number: int) -> Dispatch:
    """An event that changes nothing, recognisable by its timestamp."""
    return Dispatch("TYPING_START", guild_id, {"timestamp": number, "guild_id": str(guild_id)})


async def _live(client: Client, **changes: Any) -> Client:
    """Identify and take all guilds."""
    ready = await client.ready(**changes)
    for _ in ready["guilds"]:
        await client.event("GUILD_CREATE")
    return client


async def _again(client: Client, seq: int, compress: str = "") -> Client:
    """A new connection that resumes the client's session from `seq`."""
    again = await connect(client.resume_url, compress=compress)
    again.seq = seq
    again.resume(client.session_id, seq)
    return again


async def _timestamps(client: Client, amount: int) -> list[int]:
    return [(await client.event("TYPING_START"))["d"]["timestamp"] for _ in range(amount)]


@COMPRESSIONS
def test_a_session_begins_with_hello_ready_and_each_guild_of_its_shard(compress: str) -> None:
    async def scenario() -> None:
        async with (
            simulator(guilds=6, max_concurrency=2, heartbeat_interval_ms=40_000) as sim,
            await connect(sim.gateway_url, compress=compress) as one,
            await connect(sim.gateway_url, compress=compress) as two,
        ):
            assert one.hello["heartbeat_interval"] == 40_000
            seen: list[int] = []
            for shard, client in enumerate((one, two)):
                ready = await client.ready(shard=[shard, 2])
                assert ready["shard"] == [shard, 2] and ready["v"] == 10
                assert ready["user"]["bot"] is True and set(ready["application"]) == {"id", "flags"}
                assert ready["resume_gateway_url"] == sim.gateway.hosts[1].url != sim.gateway_url
                listed = [int(guild["id"]) for guild in ready["guilds"]]
                assert all(guild["unavailable"] is True for guild in ready["guilds"])
                assert all((guild_id >> 22) % 2 == shard for guild_id in listed)
                created = [int((await client.event("GUILD_CREATE"))["d"]["id"]) for _ in listed]
                assert created == listed
                seen += listed
            assert sorted(seen) == sorted(sim.world.guild_ids)

    run(scenario())


def test_events_go_to_the_shard_of_their_guild_and_those_without_to_shard_0() -> None:
    async def scenario() -> None:
        async with (
            simulator(max_concurrency=2) as sim,
            await connect(sim.gateway_url) as one,
            await connect(sim.gateway_url) as two,
        ):
            await _live(one, shard=[0, 2])
            await _live(two, shard=[1, 2])
            odd = next(guild_id for guild_id in sim.world.guild_ids if (guild_id >> 22) % 2)
            sim.dispatch(_typing(odd, 1))
            sim.dispatch(Dispatch("ENTITLEMENT_CREATE", None, {"id": "7", "guild_id": str(odd)}))
            assert await _timestamps(two, 1) == [1]
            assert (await one.op(0))["t"] == "ENTITLEMENT_CREATE"
            assert one.messages.empty() and two.messages.empty()

    run(scenario())


def test_the_presence_that_a_bot_set_last_is_shown() -> None:
    def presence(name: str) -> dict[str, Any]:
        return {"status": "idle", "activities": [{"name": name, "type": 0}], "since": None, "afk": False}

    async def scenario() -> None:
        async with (
            simulator() as sim,
            await connect(sim.gateway_url) as client,
            aiohttp.ClientSession() as http,
        ):

            async def shown() -> Any:
                async with http.get(f"{sim.control_url}/presence") as answer:
                    found = await answer.json()
                    return found["status"], [each["name"] for each in found["activities"]]

            assert await shown() == ("online", [])
            await _live(client, presence=presence("a game"))
            assert await shown() == ("idle", ["a game"])
            client.send(3, presence("another"))
            await client.beat(client.seq)
            assert await shown() == ("idle", ["another"])

    run(scenario())


def test_intents_decide_about_events_members_presences_and_content() -> None:
    async def scenario() -> None:
        async with (
            simulator(identify_window=0.0) as sim,
            await connect(sim.gateway_url) as whole,
            await connect(sim.gateway_url) as partial,
        ):
            guild_id = sim.world.guild_ids[0]
            await whole.ready(intents=ALL_INTENTS)
            full = (await whole.event("GUILD_CREATE"))["d"]
            assert len(full["members"]) == full["member_count"] and full["presences"]
            await partial.ready(intents=GUILDS | GUILD_MESSAGES)
            some = (await partial.event("GUILD_CREATE"))["d"]
            assert some["id"] == full["id"] and some["presences"] == []
            assert len(some["members"]) < some["member_count"]
            sim.dispatch(_typing(guild_id, 1))
            message = {"id": "1", "guild_id": str(guild_id), "content": "secret", "embeds": [{}]}
            sim.dispatch(Dispatch("MESSAGE_CREATE", guild_id, message))
            seen = await partial.take(lambda each: each["t"] != "GUILD_CREATE")
            assert seen["t"] == "MESSAGE_CREATE"
            assert seen["d"]["content"] == "" and seen["d"]["embeds"] == []
            assert (await whole.event("MESSAGE_CREATE"))["d"]["content"] == "secret"

    run(scenario())


@COMPRESSIONS
def test_what_was_missed_is_replayed_under_the_same_numbers_and_before_resumed(compress: str) -> None:
    async def scenario() -> None:
        async with simulator() as sim:
            guild_id = sim.world.guild_ids[0]
            async with await connect(sim.gateway_url, compress=compress) as client:
                await _live(client)
                for number in range(3):
                    sim.dispatch(_typing(guild_id, number))
                assert await _timestamps(client, 3) == [0, 1, 2]
                client.cut()
                await client.closed
                seq = client.seq - 1
            await until(lambda: not sim.gateway.connections)
            sim.dispatch(_typing(guild_id, 3))
            async with await _again(client, seq, compress) as again:
                assert await _timestamps(again, 2) == [2, 3]
                resumed = await again.op(0)
                assert resumed["t"] == "RESUMED" and resumed["s"] == seq + 3
                sim.dispatch(_typing(guild_id, 4))
                assert (await again.op(0))["d"]["timestamp"] == 4
            assert sim.ledger.violations == []
            record = sim.ledger.sessions[client.session_id]
            assert record.resumes == 1 and record.sent == seq + 4 and record.ended is None

    run(scenario())


def test_every_way_to_leave_but_1000_and_1001_keeps_the_session() -> None:
    async def scenario() -> None:
        async with simulator(max_concurrency=16) as sim:
            for shard, (code, kept) in enumerate(
                [(1000, False), (1001, False), (4900, True), (3000, True), (None, True)]
            ):
                async with await connect(sim.gateway_url) as client:
                    await client.ready(shard=[shard, 16])
                    if code is None:
                        client.cut()
                    else:
                        client.close(code)
                    await client.closed
                await until(lambda: not sim.gateway.connections)
                assert (client.session_id in sim.gateway.sessions) is kept, code

    run(scenario())


def test_a_resume_from_what_a_heartbeat_named_replays_what_follows() -> None:
    async def scenario() -> None:
        async with simulator() as sim:
            async with await connect(sim.gateway_url) as client:
                await _live(client)
                await client.beat(2)
                await client.end(4900)
            session = sim.gateway.sessions[client.session_id]
            assert (session.named, session.forgotten) == (2, 2)
            async with await _again(client, 2) as again:
                assert (await again.op(0))["s"] == 3
                await again.event("RESUMED")
            assert sim.ledger.violations == []

    run(scenario())


@pytest.mark.parametrize("with_4007", [False, True])
def test_a_resume_from_beyond_the_small_buffer_is_refused_and_ends_the_session(with_4007: bool) -> None:
    async def scenario() -> None:
        async with simulator(replay_events=3, refuse_with_4007=with_4007) as sim:
            async with await connect(sim.gateway_url) as client:
                await _live(client)
                await client.end(4900)
            async with await connect(client.resume_url) as again:
                again.resume(client.session_id, 0 + 1)
                await again.event("RESUMED")
                await again.end(4900)
            for number in range(4):
                sim.dispatch(_typing(sim.world.guild_ids[0], number))
            async with await connect(client.resume_url) as late:
                late.resume(client.session_id, again.seq)
                if with_4007:
                    assert await late.closed == 4007
                else:
                    assert (await late.op(9))["d"] is False
            ended = sim.ledger.sessions[client.session_id].ended
            assert ended is not None and ended.startswith("resumed from")
            assert sim.ledger.violations == []

    run(scenario())


def test_a_refused_resume_ends_the_sessions_other_connection_too() -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url) as client:
            await _live(client)
            await client.beat(client.seq)
            async with await connect(client.resume_url) as another:
                another.resume(client.session_id, 1)
                assert (await another.op(9))["d"] is False
            assert await client.closed is None  # cut, and not given up for want of heartbeats
            assert sim.ledger.counts["resume refused"] == 1 and not sim.gateway.sessions

    run(scenario())


def test_a_session_that_nobody_resumes_in_time_ends() -> None:
    async def scenario() -> None:
        async with simulator(replay_seconds=0.03) as sim:
            async with await connect(sim.gateway_url) as client:
                await client.ready()
            await until(lambda: not sim.gateway.sessions)
            assert sim.ledger.sessions[client.session_id].ended == "it was not resumed in time"
            async with await connect(client.resume_url) as again:
                again.resume(client.session_id, client.seq)
                assert (await again.op(9))["d"] is False
            assert sim.ledger.violations == []

    run(scenario())


def test_a_second_resume_takes_the_session_over() -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url) as client:
            await _live(client)
            async with await _again(client, client.seq) as again:
                await again.event("RESUMED")
                assert await client.closed is None
                sim.dispatch(_typing(sim.world.guild_ids[0], 1))
                assert await _timestamps(again, 1) == [1]

    run(scenario())


def test_guilds_that_were_still_to_come_follow_a_resume() -> None:
    async def scenario() -> None:
        async with simulator(guilds=8, guild_delay=0.01) as sim:
            async with await connect(sim.gateway_url) as client:
                ready = await client.ready()
                await client.event("GUILD_CREATE")
                await client.end(4900)
            async with await _again(client, client.seq) as again:
                seen = {client_guild["id"] for client_guild in ready["guilds"][1:]}
                while seen:
                    seen.discard((await again.event("GUILD_CREATE"))["d"]["id"])
            assert again.seq == 1 + 8 + 1

    run(scenario())


def test_events_of_a_guild_wait_for_its_guild_create() -> None:
    async def scenario() -> None:
        async with simulator(guild_delay=0.01) as sim, await connect(sim.gateway_url) as client:
            await client.ready()
            last = sim.world.guild_ids[-1]
            sim.dispatch(_typing(last, 1))
            for _ in range(3):
                created = await client.op(0)
                assert created["t"] == "GUILD_CREATE"
            sim.dispatch(_typing(last, 2))
            assert await _timestamps(client, 1) == [2]

    run(scenario())


def test_two_sessions_of_one_shard_each_get_everything() -> None:
    async def scenario() -> None:
        async with (
            simulator(identify_window=0.0) as sim,
            await connect(sim.gateway_url) as one,
            await connect(sim.gateway_url, compress="zstd-stream") as two,
        ):
            await _live(one)
            await _live(two)
            sim.dispatch(_typing(sim.world.guild_ids[0], 5))
            assert await _timestamps(one, 1) == await _timestamps(two, 1) == [5]

    run(scenario())


def test_identifies_of_different_buckets_may_come_together() -> None:
    async def scenario() -> None:
        async with (
            simulator(max_concurrency=2) as sim,
            await connect(sim.gateway_url) as one,
            await connect(sim.gateway_url) as two,
        ):
            await one.ready(shard=[0, 4])
            await two.ready(shard=[3, 4])
            assert sim.ledger.violations == []
            assert sim.gateway.limits.session_start_limit(sim.gateway.loop.time())["remaining"] == 998

    run(scenario())


def test_etf_is_refused_in_words() -> None:
    async def scenario() -> None:
        async with simulator() as sim:
            with pytest.raises(Exception, match="400"):
                await dial(sim.gateway_url, query="v=10&encoding=etf")
            assert sim.ledger.violations == []

    run(scenario())


@pytest.mark.parametrize("options", [{"split_bytes": 7}, {"fragment_bytes": 5}])
def test_messages_come_whole_out_of_small_pieces(options: dict[str, int]) -> None:
    async def scenario() -> None:
        async with (
            simulator(**options) as sim,
            await connect(sim.gateway_url, compress="zlib-stream") as client,
        ):
            await _live(client)
            assert client.seq == 4 and client.frames > 100

    run(scenario())


def test_payload_compression_is_for_large_messages_only() -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url) as client:
            ready = await client.ready(compress=True)
            assert len((await client.event("GUILD_CREATE"))["d"]["members"]) == 6
            assert client.error is None and ready["session_id"]
            await client.beat(2)

    run(scenario())


def test_a_reader_that_falls_too_far_behind_is_cut() -> None:
    async def scenario() -> None:
        async with simulator(backlog_bytes=1 << 20) as sim, await connect(sim.gateway_url) as client:
            await _live(client)
            client.pause_reading()
            long = {"timestamp": 0, "text": "x" * (1 << 20)}
            while sim.gateway.connections:
                sim.dispatch(Dispatch("TYPING_START", sim.world.guild_ids[0], long))
                await asyncio.sleep(0)
            assert sim.gateway.sessions[client.session_id].detached_at is not None
            client.resume_reading()

    run(scenario())


def test_ready_can_be_slow() -> None:
    async def scenario() -> None:
        async with simulator(ready_delay=0.02) as sim, await connect(sim.gateway_url) as client:
            client.identify()
            await client.beat()
            assert sim.gateway.sessions == {}
            await client.event("READY")

    run(scenario())


def test_tls_speaks_for_the_certificate_that_it_names() -> None:
    async def scenario() -> None:
        async with simulator(tls=True) as sim:
            assert sim.gateway_url.startswith("wss://") and sim.api_url.startswith("https://")
            trust = ssl.create_default_context(cafile=sim.ca_file)
            async with await connect(sim.gateway_url, ssl_context=trust) as client:
                ready = await client.ready()
                assert ready["resume_gateway_url"].startswith("wss://")

    run(scenario())


def test_the_ledger_knows_each_event_by_session_number_and_digest() -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url) as client:
            await _live(client)
            sim.dispatch(Dispatch("TYPING_START", sim.world.guild_ids[0], {"timestamp": 1}))
            await client.event("TYPING_START")
            log = list(sim.ledger.log(session=client.session_id))
            assert [sent.seq for sent in log] == [1, 2, 3, 4, 5]
            assert [sent.event for sent in log] == ["READY", *["GUILD_CREATE"] * 3, "TYPING_START"]
            assert log[-1].crc32 == digest(b'{"timestamp":1}') and log[-1].shard == 0
            assert [sent.index for sent in sim.ledger.log(since=3)] == [3, 4]

    run(scenario())


def test_the_journal_tells_when_sessions_came_and_went() -> None:
    async def scenario() -> None:
        async with simulator() as sim:
            async with await connect(sim.gateway_url) as client:
                await _live(client)
                await client.end(4900)
            async with await _again(client, client.seq) as again:
                await again.event("RESUMED")
                await again.end(1000)
            journal = list(sim.ledger.journal)
            assert [(entry.what, entry.detail) for entry in journal] == [
                ("identify", "granted"),
                ("ready", ""),
                ("detached", ""),
                ("resume", "from 4"),
                ("resumed", ""),
                ("detached", ""),
                ("ended", "ended by the client"),
            ]
            assert {entry.session for entry in journal[1:]} == {client.session_id}
            assert [entry.time for entry in journal] == sorted(entry.time for entry in journal)

    run(scenario())


def test_the_simulator_leaves_no_task_and_no_port_behind() -> None:
    async def scenario() -> None:
        async with simulator(rate=1000.0) as sim, await connect(sim.gateway_url) as client:
            await _live(client)
            await client.take(lambda message: client.seq > 20)
            url = sim.gateway_url
            await sim.inject(fault("silent_host:host=0,seconds=60"))
        with pytest.raises(OSError):
            await dial(url)

    run(scenario())


def test_the_bot_joins_and_leaves_guilds_while_it_is_connected() -> None:
    async def scenario() -> None:
        async with simulator() as sim, await connect(sim.gateway_url) as client:
            await _live(client, intents=GUILDS)
            joined = world_guilds.join(sim.world, None)
            sim.drain()
            created = (await client.event("GUILD_CREATE"))["d"]
            assert created["id"] == str(joined) and "unavailable" not in created
            assert len(created["members"]) < created["member_count"], "without presences only some are told"
            world_guilds.outage(sim.world, joined)
            sim.drain()
            assert (await client.event("GUILD_DELETE"))["d"] == {"id": str(joined), "unavailable": True}

    run(scenario())


@pytest.mark.checklist("K49")
def test_a_server_can_repeat_its_session_ids_and_begin_at_number_0() -> None:
    async def scenario() -> None:
        async with simulator(repeat_session_ids=True, first_sequence=0, identify_window=0.0) as sim:
            async with await connect(sim.gateway_url) as client:
                client.identify()
                ready = await client.event("READY")
                assert ready["s"] == 0
                first_id = ready["d"]["session_id"]
                assert [(await client.event("GUILD_CREATE"))["s"] for _ in range(3)] == [1, 2, 3]
                await client.end(4900)
            async with await connect(ready["d"]["resume_gateway_url"]) as again:
                # Nothing but READY was received.
                again.resume(first_id, 0)
                assert [(await again.event("GUILD_CREATE"))["s"] for _ in range(3)] == [1, 2, 3]
                await again.event("RESUMED")
                async with await connect(sim.gateway_url) as second:
                    second.identify()
                    ready = await second.event("READY")
                    assert (ready["s"], ready["d"]["session_id"]) == (0, first_id)
                    # One session at a time has the id.
                    assert await again.closed is None
                    assert list(sim.gateway.sessions) == [first_id]
            async with await connect(sim.gateway_url) as other:
                assert (await other.ready(shard=[1, 2]))["session_id"] != first_id
            assert sim.ledger.violations == []

    run(scenario())
