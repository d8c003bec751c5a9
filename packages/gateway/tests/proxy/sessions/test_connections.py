"""Sessions of bots at a proxy, with both ports in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from rateway.delivery.proxy_port import Age, LogSink, LogStart
from rateway.proxy.log.replay import Replay
from rateway.proxy.sessions.connections import MOST_MERGED
from rateway_protocol.contract.errors import ErrorCode, Fault
from rateway_protocol.contract.snapshots import GuildSnapshot, ShardSnapshot
from rateway_protocol.discord.intents import ALL, UNDOCUMENTED, Intents
from tests.proxy.bots import Bot, Process
from tests.proxy.memory import (
    MemoryCluster,
    MemoryGateway,
    MemoryLog,
    MemoryPass,
    MemoryPositions,
    MemoryReader,
)
from tests.proxy.virtual_time import pass_time, run


def guild(number: int, total: int = 1, shard: int = 0, **fields: Any) -> dict[str, Any]:
    """The guild of that number on a shard."""
    guild_id = ((number * total + shard) << 22) + 5
    return {"id": str(guild_id), "name": f"guild {guild_id}", "members": [], "channels": [], "n": 0, **fields}


class CountingReader(MemoryReader):
    """Counts passes."""

    passes = 0

    def read(self, log: str, start: LogStart, sink: LogSink) -> MemoryPass:
        self.passes += 1
        return super().read(log, start, sink)


class ChangingGateway(MemoryGateway):
    """Lets something happen just before it answers for guilds; counts how often it was asked for shards."""

    before_guilds: Callable[[], None] = staticmethod(lambda: None)
    shards_asked = 0

    async def shard(self, shard_id: int) -> ShardSnapshot | Fault:
        self.shards_asked += 1
        return await super().shard(shard_id)

    async def guilds(
        self, guild_ids: Sequence[int], intents: int, large_threshold: int
    ) -> list[GuildSnapshot | Fault]:
        self.before_guilds()
        return await super().guilds(guild_ids, intents, large_threshold)


class Setting:
    """A gateway with logs, and proxies."""

    process: Process

    def __init__(self, clusters: dict[int, list[int]], guilds: int) -> None:
        self.total = sum(map(len, clusters.values()))
        self.gateway = ChangingGateway(clusters)
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

    async def another(self, replay: Replay | None = None) -> Process:
        """Start a proxy."""
        return await Process.start(self.gateway, self.reader, replay)

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


def replay_of(log: MemoryLog) -> Replay:
    """A replay of messages, at most 15 minutes old by the log's own clock, with places in memory."""
    return Replay(frozenset({"MESSAGE_CREATE"}), 900, MemoryPositions(), lambda: float(log.now))


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
        process = await setting.another()
        await live(bot, process)
        setting.event(0, 2, "e")
        await pass_time()
        assert contents(bot) == list("abcde")
        assert [each.library for each in process.connections] == ["library"]
        assert bot.sessions == bot.resumes == 1
        assert [each.seq for each in bot.dispatches] == sorted(each.seq for each in bot.dispatches)

    run(scenario())


@pytest.mark.parametrize("layout", [{1: [0]}, {1: [0, 1], 2: [2, 3]}], ids=["one log", "two logs"])
def test_a_bot_that_had_no_event_yet_misses_nothing_over_a_resume(layout: dict[int, list[int]]) -> None:
    async def scenario() -> None:
        setting = await Setting.begin(layout)
        bot = await live(Bot(), setting.process)
        await pass_time(1)
        bot.lose()
        for shard in setting.gateway.shards:
            setting.event(shard, 0, f"for shard {shard}")
        await live(bot, setting.process)
        assert sorted(contents(bot)) == [f"for shard {shard}" for shard in setting.gateway.shards]
        assert bot.sessions == bot.resumes == 1

    run(scenario())


def test_a_session_over_several_logs_is_resumed_in_the_order_in_which_it_was_sent() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0], 2: [1]})
        bot = await live(Bot(), setting.process)
        for text, shard in (("a", 0), ("b", 1), ("c", 1), ("d", 0), ("e", 1)):
            setting.event(shard, 0, text)
            await pass_time()
        sent = [(each.seq, each.d["content"]) for each in bot.dispatches if each.name == "MESSAGE_CREATE"]
        bot.lose()
        # The last three were lost on the way.
        bot.seq = sent[1][0]
        del bot.dispatches[-3:]
        setting.event(0, 1, "f")
        await live(bot, setting.process)
        setting.event(1, 1, "g")
        await pass_time()
        got = [(each.seq, each.d["content"]) for each in bot.dispatches if each.name == "MESSAGE_CREATE"]
        assert got[:5] == sent
        counts = setting.process.connections.counts
        assert (counts["identified"], counts["resumed"], counts["sent"], counts["replayed"]) == (1, 1, 10, 4)
        assert [text for _, text in got] == list("abcdefg")
        assert bot.names[-2:] == ["RESUMED", "MESSAGE_CREATE"]

    run(scenario())


def test_a_session_over_several_logs_ends_with_its_proxy() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0], 2: [1]})
        bot = await live(Bot(), setting.process)
        await setting.process.kill()
        bot.start(await setting.another())
        await bot.until(lambda bot: 9 in bot.ops)
        bot.identify()
        await bot.until(lambda bot: bot.is_live)

    run(scenario())


def test_a_bot_that_lost_its_snapshots_on_the_way_may_not_resume() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        await pass_time(1)
        bot.lose()
        bot.seq = 3
        bot.start(setting.process)
        await bot.until(lambda bot: 9 in bot.ops)
        assert bot.connection is not None and bot.connection.state == "unidentified"

    run(scenario())


@pytest.mark.parametrize("beyond", [5, 1_000_000])
def test_a_number_that_was_never_sent_is_refused_within_eleven_seconds(beyond: int) -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        setting.event(0, 0, "a")
        await pass_time()
        bot.lose()
        assert bot.seq is not None
        bot.seq += beyond
        bot.start(setting.process)
        await bot.until(lambda bot: 9 in bot.ops, seconds=11)

    run(scenario())


def test_an_entry_that_retention_took_ends_the_session(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rateway.proxy")

    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        setting.event(0, 0, "a")
        await pass_time()
        await setting.process.kill()
        log = setting.cluster_of(0).log
        log.roll()
        setting.event(0, 0, "b")
        log.retain(1)
        bot.start(await setting.another())
        await bot.until(lambda bot: 9 in bot.ops)
        assert contents(bot) == ["a"]

    run(scenario())
    assert "log-1 does not have what the bot missed" in caplog.text


def test_a_changed_session_id_is_refused_and_so_is_another_bots() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        setting.event(0, 0, "a")
        await pass_time()
        session_id = bot.session_id
        assert session_id is not None
        for wrong in (session_id[:-1], session_id[1:], f"{session_id}A", "", "ü" * 40, "x" * 5_000):
            bot.lose()
            bot.session_id, bot.seq = wrong, 6
            bot.connect(setting.process)
            bot.resume()
            await bot.until(lambda bot: 9 in bot.ops)

    run(scenario())


def test_a_lost_session_of_the_gateway_ends_the_bots_session_of_that_shard_alone() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0, 1]})
        bots = [await live(Bot(shard, 2), setting.process) for shard in range(2)]
        cluster = setting.cluster_of(0)
        cluster.lose_session(0, setting.guilds[0])
        cluster.write()
        await pass_time()
        assert [9 in bot.ops for bot in bots] == [True, False]
        bots[0].identify()
        await bots[0].until(lambda bot: bot.is_live)
        assert bots[0].names.count("GUILD_CREATE") == 3

    run(scenario())


def interaction_ahead(setting: Setting) -> None:
    """An interaction overtakes the events that are not written."""
    cluster = setting.cluster_of(0)
    cluster.send(
        0, "INTERACTION_CREATE", {"id": "1", "guild_id": setting.guilds[0][0]["id"], "token": "token"}
    )
    cluster.go_ahead()


async def overtake_and_work_off(setting: Setting) -> None:
    """Have an interaction overtake what waits, then that come, and one event more."""
    interaction_ahead(setting)
    await pass_time()
    setting.cluster_of(0).write()
    setting.event(0, 0, "after")
    await pass_time(1)


def test_a_bot_gets_the_backlog_that_an_urgent_event_overtook() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        backlog = [str(number) for number in range(5_000)]
        for text in backlog:
            setting.event(0, 0, text, write=False)
        interaction_ahead(setting)
        setting.cluster_of(0).write()
        await pass_time(1)
        assert contents(bot) == backlog
        assert bot.names.count("INTERACTION_CREATE") == 1

    run(scenario())


def test_an_urgent_event_brings_nothing_of_the_backlog_that_the_snapshots_contain() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        for number in range(20):
            setting.event(0, 0, f"contained {number}", write=False)
        bot = await live(Bot(), setting.process)
        await overtake_and_work_off(setting)
        assert contents(bot) == ["after"]
        assert bot.names.count("INTERACTION_CREATE") == 1

    run(scenario())


def test_an_urgent_event_of_a_new_session_brings_nothing_of_the_former_ones_backlog() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0, 1]})
        for number in range(20):
            setting.event(0, 0, f"contained {number}", write=False)
        setting.cluster_of(0).lose_session(0, setting.guilds[0])
        bot = await live(Bot(), setting.process)
        await overtake_and_work_off(setting)
        assert contents(bot) == ["after"]

    run(scenario())


def test_a_bot_of_several_shards_is_told_the_state_after_a_lost_session() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0, 1]})
        bot = await live(Bot(), setting.process)
        before = len(bot.dispatches)
        cluster = setting.cluster_of(1)
        cluster.lose_session(1, setting.guilds[1][1:])
        cluster.write()
        await pass_time()
        assert sorted(bot.names[before:]) == ["GUILD_CREATE", "GUILD_CREATE", "GUILD_DELETE"]
        gone = next(each.d for each in bot.dispatches if each.name == "GUILD_DELETE")
        assert gone == {"id": setting.guilds[1][0]["id"]}
        assert bot.is_live

    run(scenario())


def test_intents_decide_what_a_bot_receives_and_more_than_the_gateways_own_are_refused() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        setting.gateway.intents = ALL & ~int(Intents.GUILD_PRESENCES)
        bot = Bot(intents=int(Intents.GUILDS))
        await live(bot, setting.process)
        setting.event(0, 0, "unseen")
        await pass_time()
        assert contents(bot) == []
        greedy = Bot()
        greedy.start(setting.process)
        await greedy.until(lambda bot: bot.closed == 4014)

    run(scenario())


def test_without_the_guilds_intent_no_guild_is_told() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        intents = int(Intents.GUILD_MESSAGES | Intents.MESSAGE_CONTENT)
        bot = await live(Bot(intents=intents), setting.process)
        setting.event(0, 0, "a")
        await pass_time()
        assert bot.names == ["READY", "MESSAGE_CREATE"] and len(bot.dispatches[0].d["guilds"]) == 3
        bot.lose()
        setting.event(0, 0, "b")
        await live(bot, setting.process)
        assert contents(bot) == ["a", "b"] and bot.resumes == 1

    run(scenario())


@pytest.mark.parametrize(
    ("op", "d", "code"),
    [
        (5, {}, 4001), ("x", {}, 4002), (1, "x", 4002), (2, None, 4002), (2, {"token": 5}, 4002),
        (2, {"token": "token-of-the-bot"}, 4002), (6, {}, 4002), (3, {}, 4003), (8, {}, 4003),
        (2, {"token": "another", "intents": 0}, 4004),
        (6, {"token": "another", "session_id": "", "seq": 1}, 4004),
        (2, {"token": "Bot token-of-the-bot", "intents": 0, "shard": [1, 1]}, 4010),
        (2, {"token": "token-of-the-bot", "intents": 0, "shard": [0]}, 4010),
        (2, {"token": "token-of-the-bot", "intents": 0, "shard": [0, 1 << 64]}, 4010),
        (2, {"token": "token-of-the-bot", "intents": 1 << 18}, 4013),
        (2, {"token": "token-of-the-bot", "intents": 1 << 40}, 4013),
        (2, {"token": "token-of-the-bot", "intents": 0, "large_threshold": 2}, 4002),
        (6, {"token": "token-of-the-bot", "session_id": "x", "seq": 1 << 33}, 4007),
    ],
)  # fmt: skip
def test_what_discord_closes_is_closed_with_its_code(op: Any, d: Any, code: int) -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = Bot()
        bot.connect(setting.process)
        bot.say(op, d)
        assert bot.closed == code
        assert bot.identified is False

    run(scenario())


def test_a_bit_that_discord_takes_and_does_not_document_is_no_intent_that_the_gateway_lacks() -> None:
    """interactions.py asks for it with its default intents."""

    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(intents=ALL | UNDOCUMENTED), setting.process)
        setting.event(0, 0, "seen")
        await pass_time()
        assert contents(bot) == ["seen"]

    run(scenario())


def test_a_second_identify_an_old_version_and_a_flood_are_closed() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        bot.identify()
        assert bot.closed == 4005
        old = Bot()
        old.connect(setting.process, version=8)
        assert old.closed == 4012 and old.ops == []
        flood = Bot()
        flood.connect(setting.process)
        for _ in range(120):
            flood.say(1, None)
        assert flood.closed is None
        flood.say(1, None)
        assert flood.closed == 4008

    run(scenario())


def test_a_bot_without_heartbeats_is_closed_so_that_it_can_resume() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        silent = await live(Bot(), setting.process)
        alive = await live(Bot(), setting.process)
        for _ in range(4):
            alive.say(1, alive.seq)
            await pass_time(41.25)
        assert alive.is_live and alive.ops.count(11) == 4
        assert silent.closed == 4000

    run(scenario())


def test_of_two_connections_of_a_shard_the_newest_sets_the_presence() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        older = await live(Bot(presence={"status": "idle", "activities": []}), setting.process)
        newer = await live(Bot(presence={"status": "dnd", "activities": []}), setting.process)
        older.say(3, {"status": "online", "activities": [], "since": None, "afk": False})
        await pass_time()
        statuses = [json.loads(each.payload)["d"]["status"] for each in setting.gateway.sent]
        assert statuses == ["idle", "dnd"]
        newer.lose()
        older.say(3, {"status": "online", "activities": [], "since": None, "afk": False})
        await pass_time()
        assert json.loads(setting.gateway.sent[-1].payload)["d"]["status"] == "online"

    run(scenario())


def test_a_presence_that_a_bot_sets_at_ready_comes_after_that_of_its_identify() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = Bot(presence={"status": "idle", "activities": []})

        def at_ready() -> None:
            bot.say(3, {"status": "dnd", "activities": [], "since": None, "afk": False})

        setting.gateway.before_guilds = at_ready
        await live(bot, setting.process)
        await pass_time()
        statuses = [json.loads(each.payload)["d"]["status"] for each in setting.gateway.sent]
        assert statuses == ["idle", "dnd"]

    run(scenario())


def test_a_presence_that_discord_cannot_read_ends_the_session() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        bot.say(3, {"status": "online", "activities": None})
        assert 9 in bot.ops and setting.gateway.sent == []
        bot.say(3, {"status": "online", "activities": [], "since": None, "afk": False})
        assert bot.closed is None

    run(scenario())


def test_members_that_the_cache_knows_are_told_from_it_in_chunks() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]}, guilds=1)
        guild_id = int(setting.guilds[0][0]["id"])
        members = [{"user": {"id": str(number), "username": "u"}} for number in range(1, 1_501)]
        setting.gateway.shards[0].states.guilds[guild_id]["members"] = members
        bot = await live(Bot(), setting.process)
        bot.say(8, {"guild_id": str(guild_id), "query": "", "limit": 0, "nonce": "mine"})
        bot.say(8, {"guild_id": str(guild_id), "user_ids": ["3", "9999"]})
        await pass_time()
        chunks = [each.d for each in bot.dispatches if each.name == "GUILD_MEMBERS_CHUNK"]
        assert [(len(each["members"]), each["chunk_index"], each["chunk_count"]) for each in chunks] == [
            (1_000, 0, 2), (500, 1, 2), (1, 0, 1),
        ]  # fmt: skip
        assert [each.get("nonce") for each in chunks] == ["mine", "mine", None]
        assert chunks[2]["not_found"] == ["9999"] and setting.gateway.sent == []

    run(scenario())


def test_equal_requests_for_members_are_sent_once_and_answered_to_each_who_asked() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]}, guilds=1)
        guild_id = setting.guilds[0][0]["id"]
        setting.gateway.shards[0].states.guilds[int(guild_id)]["large"] = True
        bots = [await live(Bot(), setting.process) for _ in range(3)]
        for number, bot in enumerate(bots[:2]):
            bot.say(8, {"guild_id": guild_id, "query": "", "limit": 0, "nonce": f"of {number}"})
        await pass_time()
        (sent,) = [json.loads(each.payload)["d"] for each in setting.gateway.sent]
        assert len(sent["nonce"].encode()) <= 32
        cluster = setting.cluster_of(0)
        chunk = {"guild_id": guild_id, "members": [], "chunk_index": 0, "chunk_count": 1}
        cluster.send(0, "GUILD_MEMBERS_CHUNK", {**chunk, "nonce": sent["nonce"]})
        cluster.send(0, "GUILD_MEMBERS_CHUNK", {**chunk, "nonce": "a worker's"})
        cluster.write()
        await pass_time()
        told = [[each.d for each in bot.dispatches if each.name == "GUILD_MEMBERS_CHUNK"] for bot in bots]
        assert told == [[{**chunk, "nonce": "of 0"}], [{**chunk, "nonce": "of 1"}], []]

    run(scenario())


@pytest.mark.parametrize(("code", "lines"), [(ErrorCode.SUPERSEDED, 0), (ErrorCode.EXPIRED, 1)])
def test_a_presence_that_a_newer_one_replaced_is_no_warning(
    code: ErrorCode, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        setting.gateway.refuse_commands = Fault(code, "why")
        bot.say(3, {"since": None, "activities": [], "status": "idle", "afk": False})
        await pass_time()
        assert setting.process.connections.commands.refused == {code.value: 1}
        assert sum("op 3" in each for each in caplog.messages) == lines

    run(scenario())


def test_a_request_that_could_not_be_sent_is_sent_again_for_the_next_who_asks() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]}, guilds=1)
        guild_id = setting.guilds[0][0]["id"]
        setting.gateway.shards[0].states.guilds[int(guild_id)]["large"] = True
        bot = await live(Bot(), setting.process)
        setting.gateway.refuse_commands = Fault(ErrorCode.QUEUE_FULL, "too many")
        bot.say(8, {"guild_id": guild_id, "query": "", "limit": 0})
        await pass_time()
        assert setting.process.connections.commands.refused == {"queue_full": 1}
        setting.gateway.refuse_commands = None
        bot.say(8, {"guild_id": guild_id, "query": "", "limit": 0})
        await pass_time()
        assert len(setting.gateway.sent) == 1

    run(scenario())


def test_sounds_are_told_to_the_bot_that_asked_for_them() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]}, guilds=1)
        guild_id = setting.guilds[0][0]["id"]
        asker, other = [await live(Bot(), setting.process) for _ in range(2)]
        asker.say(31, {"guild_ids": [guild_id]})
        await pass_time()
        assert [json.loads(each.payload) for each in setting.gateway.sent] == [
            {"op": 31, "d": {"guild_ids": [guild_id]}}
        ]
        cluster = setting.cluster_of(0)
        cluster.send(0, "SOUNDBOARD_SOUNDS", {"guild_id": guild_id, "soundboard_sounds": []})
        cluster.write()
        await pass_time()
        assert "SOUNDBOARD_SOUNDS" in asker.names and "SOUNDBOARD_SOUNDS" not in other.names

    run(scenario())


def test_a_bot_that_identifies_is_in_no_voice_channel() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]}, guilds=1)
        guild_id = setting.guilds[0][0]["id"]
        voice = [{"user_id": "80", "channel_id": "1"}, {"user_id": "81", "channel_id": "1"}]
        setting.gateway.shards[0].states.guilds[int(guild_id)]["voice_states"] = voice
        bot = await live(Bot(), setting.process)
        assert bot.dispatches[1].d["voice_states"] == voice[1:]
        (sent,) = [json.loads(each.payload) for each in setting.gateway.sent]
        assert (sent["op"], sent["d"]["guild_id"], sent["d"]["channel_id"]) == (4, guild_id, None)
        # Another connection of the shard leaves the first one's voice connection alone.
        second = await live(Bot(), setting.process)
        assert second.dispatches[1].d["voice_states"] == voice and len(setting.gateway.sent) == 1

    run(scenario())


def test_guilds_in_an_outage_are_told_as_unavailable_and_later_as_they_come() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]}, guilds=2)
        cluster, away = setting.cluster_of(0), setting.guilds[0][0]
        cluster.send(0, "GUILD_DELETE", {"id": away["id"], "unavailable": True})
        cluster.write()
        bot = await live(Bot(), setting.process)
        assert sorted(bot.names) == ["GUILD_CREATE", "GUILD_DELETE", "READY"]
        cluster.send(0, "GUILD_CREATE", away)
        cluster.write()
        await pass_time()
        assert bot.names[-1] == "GUILD_CREATE" and bot.dispatches[-1].d["id"] == away["id"]

    run(scenario())


def test_bots_wait_for_a_gateway_that_does_not_answer_yet() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        setting.gateway.fault = Fault(ErrorCode.LOADING, "still starting")
        bot = Bot()
        bot.start(setting.process)
        await pass_time(20)
        bot.say(1, None)
        assert bot.ops == [10, 11] and bot.closed is None
        setting.gateway.fault = None
        await bot.until(lambda bot: bot.is_live)

    run(scenario())


@pytest.mark.parametrize("away", ["cluster", "log"])
def test_bots_that_wait_for_a_cluster_or_a_log_keep_no_other_from_beginning(away: str) -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0], 2: [1]})
        shard = setting.gateway.shards[1]
        session = shard.session
        if away == "cluster":
            shard.session = ""
        else:
            setting.reader.take_down("log-2")
        waiting = [Bot(1, 2) for _ in range(20)]
        for each in waiting:
            each.start(setting.process)
        await pass_time(1)
        await live(Bot(0, 2), setting.process)
        assert not any(each.is_live for each in waiting)
        shard.session = session
        setting.reader.log("log-2").down = ""
        for each in waiting:
            await each.until(lambda bot: bot.is_live)

    run(scenario())


def test_a_shard_is_asked_for_once_for_all_bots_that_wait_for_it() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        shard = setting.gateway.shards[0]
        session, shard.session = shard.session, ""
        for bot in [Bot() for _ in range(20)]:
            bot.start(setting.process)
        await pass_time(1)
        asked = setting.gateway.shards_asked
        await pass_time(30)
        assert setting.gateway.shards_asked - asked < 10
        shard.session = session

    run(scenario())


def test_a_resume_needs_no_gateway() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        setting.event(0, 0, "a")
        await pass_time()
        await setting.process.kill()
        setting.event(0, 0, "b")
        setting.gateway.hold()
        await live(bot, await setting.another())
        assert contents(bot) == ["a", "b"] and bot.resumes == 1

    run(scenario())


def test_a_broker_that_comes_back_goes_on_where_it_was() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        setting.event(0, 0, "a")
        await pass_time()
        setting.reader.disconnect()
        setting.event(0, 0, "b")
        await pass_time(30)
        setting.reader.is_connected = True
        await pass_time(10)
        setting.event(0, 0, "c")
        await pass_time()
        assert contents(bot) == list("abc") and bot.ops == [10]

    run(scenario())


def test_entries_that_the_broker_lost_end_the_sessions_of_their_log() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        setting.event(0, 0, "a")
        await pass_time()
        setting.reader.disconnect()
        log = setting.cluster_of(0).log
        log.roll()
        setting.event(0, 0, "b")
        setting.event(0, 0, "c")
        log.retain(1)
        setting.reader.is_connected = True
        await bot.until(lambda bot: 9 in bot.ops)

    run(scenario())


def test_a_bot_that_takes_nothing_is_closed_and_harms_nobody() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        slow, quick = [await live(Bot(), setting.process) for _ in range(2)]
        slow.waiting = 17 << 20
        for _ in range(3):
            setting.event(0, 0, "x" * (1 << 19))
        await pass_time()
        assert slow.closed == 4000
        assert len(contents(quick)) == 3 and quick.closed is None

    run(scenario())


def test_many_resumes_share_one_pass_over_the_past() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: list(range(8))}, guilds=1)
        bots = [await live(Bot(shard, 8), setting.process) for shard in range(8)]
        for shard in range(8):
            setting.event(shard, 0, "first")
        await pass_time()
        await setting.process.kill()
        # More than is kept of a tail.
        for _ in range(20):
            for shard in range(8):
                setting.event(shard, 0, "x" * 50_000)
        reader = CountingReader(asyncio.get_running_loop().call_soon)
        reader.logs = setting.reader.logs
        process = await Process.start(setting.gateway, reader)
        for bot in bots:
            bot.start(process)
        for bot in bots:
            await bot.until(lambda bot: bot.is_live)
            assert len(contents(bot)) == 21 and bot.resumes == 1
        assert reader.passes == 2

    run(scenario())


def test_a_bot_that_identifies_anew_gets_what_it_missed_where_that_is_set() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        log = setting.cluster_of(0).log
        replay = replay_of(log)
        log.now = 10_000
        process = await setting.another(replay)
        bot = await live(Bot(), process)
        await pass_time(1)
        setting.event(0, 0, "had")
        await pass_time()
        bot.say(1, bot.seq)
        await pass_time()
        await process.kill()
        setting.event(0, 0, "too old")
        log.now += 901
        for text in ("missed", "missed too"):
            setting.event(0, 0, text)
        log.append_again(log.entries[-1])
        setting.cluster_of(0).send(0, "GUILD_UPDATE", {"id": setting.guilds[0][0]["id"], "name": "new"})
        setting.cluster_of(0).write()
        bot.session_id = None
        await live(bot, await setting.another(replay))
        setting.event(0, 0, "live")
        await pass_time()
        assert contents(bot) == ["missed", "missed too", "live"]
        assert bot.names == ["READY", *["GUILD_CREATE"] * 3, *["MESSAGE_CREATE"] * 3]
        sequence = [each.seq for each in bot.dispatches]
        assert sequence == sorted(sequence)
        # A bot of another layout has missed nothing of its own.
        assert contents(await live(Bot(0, 2), await setting.another(replay))) == []

    run(scenario())


@pytest.mark.parametrize("clusters", [{1: [0]}, {1: [0], 2: [1]}])
@pytest.mark.parametrize("named", [1_000_000, 10**30, -1])
def test_a_number_that_the_session_does_not_have_is_no_place_of_its_bot(
    named: int, clusters: dict[int, list[int]]
) -> None:
    """JDA sends the number of the session before until it has read READY."""

    async def scenario() -> None:
        setting = await Setting.begin(clusters)
        for shard in range(setting.total):
            setting.event(shard, 0, "before it was ever there")
        log = setting.cluster_of(0).log
        replay = replay_of(log)
        process = await setting.another(replay)
        bot = await live(Bot(), process)
        await pass_time(1)
        setting.event(0, 0, "had")
        await pass_time()
        bot.say(1, bot.seq)
        await pass_time()
        bot.say(1, named)
        await pass_time()
        await process.kill()
        setting.event(0, 0, "missed")
        bot.session_id = None
        await live(bot, await setting.another(replay))
        await pass_time()
        assert contents(bot) == ["missed"]
        assert process.connections.counts["failed"] == 0

    run(scenario())


def test_a_bot_that_dies_before_its_first_heartbeat_gets_what_came_since_its_start() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        log = setting.cluster_of(0).log
        replay = replay_of(log)
        setting.event(0, 0, "before it was ever there")
        process = await setting.another(replay)
        bot = await live(Bot(), process)
        await pass_time(1)
        setting.event(0, 0, "perhaps seen")
        await pass_time()
        await process.kill()
        setting.event(0, 0, "missed")
        bot.session_id = None
        await live(bot, await setting.another(replay))
        await pass_time()
        assert contents(bot) == ["perhaps seen", "missed"]

    run(scenario())


def test_an_interaction_that_can_no_longer_be_answered_is_not_sent_again() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        cluster = setting.cluster_of(0)
        log = cluster.log
        log.now = 10_000
        names = frozenset({"INTERACTION_CREATE", "MESSAGE_CREATE"})
        replay = Replay(names, 900, MemoryPositions(), lambda: float(log.now))
        process = await setting.another(replay)
        bot = await live(Bot(), process)
        await process.kill()
        for number, seconds in ((1, 2), (2, 3), (3, 0)):
            event = {"guild_id": setting.guilds[0][0]["id"], "id": str(number), "token": "token"}
            cluster.send(0, "INTERACTION_CREATE", event)
            cluster.write()
            setting.event(0, 0, str(number))
            log.now += seconds
        bot.session_id = None
        await live(bot, await setting.another(replay))
        await pass_time()
        again = [each.d["id"] for each in bot.dispatches if each.name == "INTERACTION_CREATE"]
        # Five seconds, three seconds, and none ago.
        assert (again, contents(bot)) == (["2", "3"], ["1", "2", "3"])

    run(scenario())


def test_what_a_bot_missed_is_waited_for_where_the_broker_is_slow_or_away() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        log = setting.cluster_of(0).log
        replay = replay_of(log)
        bot = await live(Bot(), process := await setting.another(replay))
        await pass_time(1)
        await process.kill()
        for number in range(50):
            setting.event(0, 0, str(number))
        loop = asyncio.get_running_loop()
        setting.reader.call_soon = lambda call: loop.call_later(3.0, call)
        setting.reader.at_once = 20
        bot.session_id = None
        bot.start(await setting.another(replay))
        await bot.until(lambda bot: len(contents(bot)) >= 10)
        log.end_passes("disconnected", "the connection broke")
        await pass_time(60)
        assert contents(bot) == [str(number) for number in range(50)]
        assert bot.is_live

    run(scenario())


@pytest.mark.parametrize("delay", [0.01, 0.2, 0.4])
def test_what_a_bot_missed_comes_where_the_first_entry_of_the_log_is_slow(delay: float) -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        log = setting.cluster_of(0).log
        replay = replay_of(log)
        process = await setting.another(replay)
        bot = await live(Bot(), process)
        await process.kill()
        for number in range(20):
            setting.event(0, 0, str(number))
        # Older than what a tail looks back.
        log.now += 100
        loop = asyncio.get_running_loop()
        setting.reader.call_soon = lambda call: loop.call_later(delay, call)
        bot.session_id = None
        await live(bot, await setting.another(replay))
        assert contents(bot) == [str(number) for number in range(20)]

    run(scenario())


def test_a_bot_whose_log_brings_nothing_of_what_it_missed_begins_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        log = setting.cluster_of(0).log
        replay = replay_of(log)
        process = await setting.another(replay)
        bot = await live(Bot(), process)
        await process.kill()
        # Deleted, and declared again.
        setting.reader.delete(log.name)
        setting.cluster_of(0).replace_log(setting.reader.log(log.name))
        bot.session_id = None
        await live(bot, await setting.another(replay))
        setting.event(0, 0, "live")
        await pass_time()
        assert contents(bot) == ["live"]

    run(scenario())
    assert "what a bot missed cannot be read: log-1 brings nothing" in caplog.text


@pytest.mark.parametrize("clusters", [{1: [0]}, {1: [0], 2: [1]}], ids=["one log", "two logs"])
def test_what_a_bot_missed_comes_though_its_connection_breaks_while_it_is_sent(
    clusters: dict[int, list[int]],
) -> None:
    async def scenario() -> None:
        setting = await Setting.begin(clusters)
        log = setting.cluster_of(0).log
        replay = replay_of(log)
        process = await setting.another(replay)
        bot = await live(Bot(), process)
        await process.kill()
        missed = [str(number) for number in range(50)]
        for text in missed:
            setting.event(0, 0, text)
        process = await setting.another(replay)
        # The newest entry is known soon, what was missed comes slowly.
        await live(Bot(0, 2), process)
        loop, reader = asyncio.get_running_loop(), setting.reader
        reader.at_once = 5
        reader.call_soon = lambda call: loop.call_later(0.2, call)
        bot.session_id = None
        bot.start(process)
        await bot.until(lambda bot: len(contents(bot)) >= 10)
        bot.say(1, bot.seq)
        await pass_time()
        had = contents(bot)
        assert not bot.is_live
        bot.lose()
        reader.call_soon = loop.call_soon
        bot.start(process)
        await bot.until(lambda bot: 9 in bot.ops)
        bot.identify()
        await bot.until(lambda bot: bot.is_live)
        assert sorted({*had, *contents(bot)}, key=int) == missed

    run(scenario())


def test_connections_that_break_before_their_ready_push_no_session_out() -> None:
    class HeldPositions(MemoryPositions):
        async def read(self, key: str) -> bytes | None:
            await answering.wait()
            return await super().read(key)

    async def scenario() -> None:
        setting = await Setting.begin({1: [0], 2: [1]})
        replay = replace(replay_of(setting.cluster_of(0).log), positions=HeldPositions())
        process = await setting.another(replay)
        for _ in range(MOST_MERGED):
            bot = Bot()
            bot.start(process)
            await pass_time()
            bot.lose()
        answering.set()
        bot = await live(Bot(), process)
        bot.lose()
        await live(Bot(), process)
        await live(bot, process)
        assert bot.resumes == 1

    answering = asyncio.Event()
    run(scenario())


def test_a_resume_waits_for_a_slow_broker() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        setting.event(0, 0, "a")
        await pass_time()
        await setting.process.kill()
        # More than a tail keeps of the newest entries: the bot's past is read by a pass of its own.
        setting.event(0, 1, "b" * (8 << 20))
        setting.event(0, 1, "c")
        loop = asyncio.get_running_loop()
        setting.reader.call_soon = lambda call: loop.call_later(3.0, call)
        bot.start(await setting.another())
        await pass_time(60)
        assert bot.is_live and bot.sessions == 1
        assert [text[0] for text in contents(bot)] == ["a", "b", "c"]

    run(scenario())


def test_a_tail_that_is_read_late_brings_nothing_twice() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        for text in "ab":
            setting.event(0, 0, text)
        await pass_time()
        await setting.process.kill()
        setting.event(0, 1, "c")
        # What a tail reads of the time before it comes after all other passes, and after the newest entry is known.
        loop = asyncio.get_running_loop()
        late, read = MemoryReader(lambda call: loop.call_later(2.0, call)), setting.reader.read
        late.logs = setting.reader.logs
        setting.reader.read = lambda log, start, sink: (  # type: ignore[method-assign]
            late.read(log, start, sink) if isinstance(start, Age) else read(log, start, sink)
        )
        bot.start(await setting.another())
        await pass_time(20)
        setting.event(0, 2, "d")
        await pass_time(10)
        assert bot.is_live and bot.sessions == bot.resumes == 1
        assert contents(bot) == list("abcd")

    run(scenario())


def test_a_bot_of_a_quiet_log_misses_nothing_while_its_proxy_cannot_reach_the_broker() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        log = setting.clusters[1].log
        # What is in the log is older than what a tail looks back for.
        log.now += 3600
        bot = await live(Bot(), await setting.another())
        await pass_time(10)
        setting.reader.disconnect()
        await pass_time(10)
        setting.event(0, 0, "a")
        log.now += 3600
        setting.reader.is_connected = True
        await pass_time(10)
        setting.event(0, 0, "b")
        await pass_time(10)
        assert contents(bot) == ["a", "b"] and bot.sessions == 1

    run(scenario())


def test_a_bot_of_an_empty_log_begins_anew_where_the_broker_was_away() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        log = setting.clusters[1].log
        log.roll()
        log.retain(1)
        bot = await live(Bot(), await setting.another())
        await pass_time(10)
        setting.reader.disconnect()
        await pass_time(10)
        assert 9 in bot.ops and not bot.is_live

    run(scenario())


def test_a_session_over_two_logs_is_refused_where_one_was_empty_and_is_not_read_from_its_begin() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0], 2: [1]})
        log = setting.clusters[2].log
        log.roll()
        log.retain(1)
        process = await setting.another()
        bot = await live(Bot(), process)
        await pass_time(10)
        bot.lose()
        # Nobody reads the log meanwhile.
        await pass_time(60)
        setting.event(1, 0, "a")
        log.now += 3600
        setting.event(1, 0, "b")
        bot.start(process)
        await pass_time(10)
        assert 9 in bot.ops and "RESUMED" not in bot.names

    run(scenario())


def test_a_resume_beyond_the_end_of_the_log_is_refused_soon() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        for text in "abc":
            setting.event(0, 0, text)
        await pass_time()
        await setting.process.kill()
        setting.clusters[1].log.lose_last(2)
        bot.start(await setting.another())
        await pass_time(11)
        assert 9 in bot.ops and not bot.is_live

    run(scenario())


def test_a_log_that_delivers_nothing_for_some_seconds_ends_no_session() -> None:
    """A loaded machine: the next proxy has read the log's begin, and the entry that the bot has is still on its way."""

    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        for text in "abc":
            setting.event(0, 0, text)
        await pass_time()
        await setting.process.kill()
        log = setting.clusters[1].log
        setting.event(0, 0, "d")
        log.stall(log.next_offset - 3)
        bot.start(await setting.another())
        await pass_time(9)
        log.go_on()
        await bot.until(lambda bot: "RESUMED" in bot.names)
        assert contents(bot) == ["a", "b", "c", "d"] and bot.sessions == 1

    run(scenario())


async def past(setting: Setting) -> Process:
    """Another proxy, to whose tail all that is written so far is too old."""
    await setting.process.kill()
    for cluster in setting.clusters.values():
        cluster.log.now += 1_000
    setting.process = await setting.another()
    return setting.process


def test_a_resume_goes_on_where_the_broker_was_lost_in_the_middle_of_its_pass() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0, 1]})
        bot = await live(Bot(1, 2), setting.process)
        setting.event(1, 0, "had")
        await pass_time()
        await setting.process.kill()
        for number in range(600):
            setting.event(0, 0, f"of another shard {number}")
        setting.event(1, 0, "missed")
        process = await past(setting)
        loop, reader = asyncio.get_running_loop(), setting.reader
        # The pass takes three seconds; the broker sends a sixth of it ahead of what is acknowledged.
        reader.at_once, reader.ahead = 10, 100
        reader.call_soon = lambda call: loop.call_later(0.05, call)
        bot.start(process)
        await pass_time(2)
        assert not bot.is_live
        setting.cluster_of(1).log.end_passes("disconnected", "the connection broke")
        await bot.until(lambda bot: bot.is_live)
        assert contents(bot) == ["had", "missed"] and bot.resumes == 1

    run(scenario())


def test_an_offset_that_was_skipped_is_no_place_to_resume_from() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        setting.event(0, 0, "a")
        await pass_time()
        setting.cluster_of(0).log.roll()
        for text in "bc":
            setting.event(0, 0, text)
        await pass_time()
        process = await past(setting)
        assert bot.seq is not None
        bot.seq -= 2
        bot.start(process)
        await bot.until(lambda bot: 9 in bot.ops)

    run(scenario())


def test_what_is_written_twice_around_the_place_of_a_resume_comes_once() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0, 1]})
        bot = await live(Bot(), setting.process)
        setting.cluster_of(0).confirm()
        setting.event(0, 0, "of shard 0")
        setting.event(1, 0, "of shard 1")
        await pass_time()
        process = await past(setting)
        setting.cluster_of(0).die_and_resume()
        setting.cluster_of(0).write()
        setting.event(1, 0, "new")
        await live(bot, process)
        assert contents(bot) == ["of shard 0", "of shard 1", "new"]

    run(scenario())


def test_a_session_over_several_logs_is_not_resumed_from_what_was_never_sent_or_long_had() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0], 2: [1]})
        bot = await live(Bot(), setting.process)
        for text in "abc":
            setting.event(0, 0, text)
        await pass_time()
        assert bot.seq is not None
        last = bot.seq
        bot.say(1, last)
        for seq in (last + 1, last - 1):
            session_id = bot.session_id
            bot.lose()
            bot.session_id, bot.seq = session_id, seq
            bot.start(setting.process)
            await bot.until(lambda bot: 9 in bot.ops)
            bot.session_id, bot.seq = session_id, last

    run(scenario())


def test_a_bot_whose_snapshots_the_log_has_not_come_to_may_not_resume() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        for text in "ab":
            setting.event(0, 0, text, write=False)
        bot = await live(Bot(), setting.process)
        await pass_time(1)
        setting.cluster_of(0).write(1)
        await pass_time()
        assert contents(bot) == []
        bot.lose()
        bot.start(setting.process)
        await bot.until(lambda bot: 9 in bot.ops)
        bot.identify()
        await bot.until(lambda bot: bot.is_live)
        setting.cluster_of(0).write()
        setting.event(0, 0, "c")
        await pass_time()
        assert contents(bot) == ["c"]
        bot.lose()
        await live(bot, setting.process)
        assert bot.resumes == 1

    run(scenario())


def test_an_event_of_the_last_guild_comes_after_its_snapshot() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0, 1]})
        # The log is behind in shard 0 and ahead in shard 1.
        setting.event(0, 0, "not written yet", write=False)
        bot = await live(Bot(), setting.process)
        shard = setting.gateway.shards[1]
        body = json.dumps({"guild_id": setting.guilds[1][-1]["id"], "content": "early"}).encode()
        log = setting.cluster_of(1).log
        log.append("MESSAGE_CREATE", body, shard_id=1, session=shard.session, seq=shard.seq + 1)
        await pass_time(1)
        assert bot.names[-2:] == ["GUILD_CREATE", "MESSAGE_CREATE"]
        bot.lose()
        bot.start(setting.process)
        await bot.until(lambda bot: 9 in bot.ops)

    run(scenario())


def test_a_log_that_jumps_ends_its_sessions() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        bot = await live(Bot(), setting.process)
        setting.event(0, 0, "a")
        await pass_time()
        log = setting.cluster_of(0).log
        for _ in range(200):
            log.roll()
        setting.event(0, 0, "b")
        await bot.until(lambda bot: 9 in bot.ops)

    run(scenario())


def test_a_lost_session_that_the_snapshots_know_already_changes_nothing() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0, 1]})
        cluster = setting.cluster_of(0)
        cluster.lose_session(0, setting.guilds[0][1:])
        bots = [await live(Bot(), setting.process), await live(Bot(0, 2), setting.process)]
        cluster.write()
        await pass_time()
        for bot in bots:
            assert set(bot.names) == {"READY", "GUILD_CREATE"} and 9 not in bot.ops
        setting.event(0, 1, "after")
        await pass_time()
        assert [contents(bot) for bot in bots] == [["after"], ["after"]]

    run(scenario())


def test_two_lost_sessions_that_the_snapshots_know_already_change_nothing() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        cluster = setting.cluster_of(0)
        for _ in range(2):
            cluster.lose_session(0, setting.guilds[0])
        bot = await live(Bot(), setting.process)
        cluster.write()
        await pass_time()
        assert 9 not in bot.ops and set(bot.names) == {"READY", "GUILD_CREATE"}
        cluster.lose_session(0, setting.guilds[0])
        cluster.write()
        await bot.until(lambda bot: 9 in bot.ops)

    run(scenario())


def test_a_session_that_is_lost_while_guilds_are_read_begins_anew() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        cluster = setting.cluster_of(0)

        def lose() -> None:
            setting.gateway.before_guilds = lambda: None
            cluster.lose_session(0, setting.guilds[0])
            cluster.write()

        setting.gateway.before_guilds = lose
        bot = Bot()
        bot.start(setting.process)
        await bot.until(lambda bot: 9 in bot.ops)
        bot.identify()
        await bot.until(lambda bot: bot.is_live)

    run(scenario())


def test_a_guild_that_is_left_while_guilds_are_read_is_told_by_the_log() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        cluster, gone = setting.cluster_of(0), setting.guilds[0][1]

        def leave() -> None:
            setting.gateway.before_guilds = lambda: None
            cluster.send(0, "GUILD_DELETE", {"id": gone["id"]})

        setting.gateway.before_guilds = leave
        bot = await live(Bot(), setting.process)
        cluster.write()
        await pass_time(1)
        assert bot.names == ["READY", "GUILD_CREATE", "GUILD_CREATE", "GUILD_DELETE"] or bot.names == [
            "READY", "GUILD_CREATE", "GUILD_DELETE", "GUILD_CREATE",
        ]  # fmt: skip
        assert int(gone["id"]) not in bot.view.guilds

    run(scenario())


def test_a_session_that_is_resumed_elsewhere_ends_on_its_former_connection() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0], 2: [1]})
        bot = await live(Bot(), setting.process)
        setting.event(0, 0, "a")
        await pass_time()
        stale = Bot()
        stale.connection, bot.connection = bot.connection, None
        second = Bot()
        second.session_id, second.seq = bot.session_id, bot.seq
        await live(second, setting.process)
        assert bot.closed == 4000 and second.resumes == 1
        setting.event(1, 0, "b")
        await pass_time()
        assert contents(second) == ["b"]

    run(scenario())


def test_what_discord_limits_is_told_to_the_bot_that_asked() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]}, guilds=1)
        guild_id = setting.guilds[0][0]["id"]
        setting.gateway.shards[0].states.guilds[int(guild_id)]["large"] = True
        bot = await live(Bot(), setting.process)
        for _ in range(2):
            bot.say(8, {"guild_id": guild_id, "query": "", "limit": 0, "nonce": "n"})
            await pass_time()
            sent = json.loads(setting.gateway.sent[-1].payload)["d"]
            limited = {
                "opcode": 8,
                "retry_after": 3.0,
                "meta": {"guild_id": guild_id, "nonce": sent["nonce"]},
            }
            setting.cluster_of(0).send(0, "RATE_LIMITED", limited)
            setting.cluster_of(0).write()
            await pass_time()
        told = [each.d for each in bot.dispatches if each.name == "RATE_LIMITED"]
        assert told == [{"opcode": 8, "retry_after": 3.0, "meta": {"guild_id": guild_id, "nonce": "n"}}] * 2
        assert len(setting.gateway.sent) == 2

    run(scenario())


def test_sessions_of_a_log_that_the_gateway_has_replaced_end() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0], 2: [1]})
        bots = [await live(Bot(shard, 2), setting.process) for shard in range(2)]
        setting.clusters[1].replace_log(setting.reader.log("another"))
        for _ in range(3):
            await pass_time(10)
            for bot in bots:
                bot.say(1, None)
        assert [9 in bot.ops for bot in bots] == [True, False]
        bots[0].identify()
        await bots[0].until(lambda bot: bot.is_live)
        setting.event(0, 0, "a")
        await pass_time()
        assert contents(bots[0]) == ["a"]

    run(scenario())


def test_what_a_bot_had_before_it_identifies_anew_is_not_sent_again_with_what_it_missed() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        replay = Replay(frozenset({"MESSAGE_CREATE"}), 900, MemoryPositions(), lambda: 0.0)
        process = await setting.another(replay)
        bot = await live(Bot(), process)
        await pass_time(1)
        # More than one delivery brings: the next proxy begins somewhere among them.
        for number in range(150):
            setting.event(0, 0, f"had {number}")
        await pass_time()
        bot.say(1, bot.seq)
        await pass_time()
        await process.kill()
        for number in range(150):
            setting.event(0, 0, f"missed {number}")
        bot.session_id = None
        await live(bot, await setting.another(replay))
        await pass_time(1)
        assert contents(bot) == [f"missed {number}" for number in range(150)]

    run(scenario())


def test_a_bot_over_many_quiet_logs_is_live_soon() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({number: [number - 1] for number in range(1, 65)}, guilds=1)
        for cluster in setting.clusters.values():
            cluster.log.now = 1_000
        began = asyncio.get_running_loop().time()
        bot = await live(Bot(), setting.process)
        assert len(bot.dispatches) == 65
        assert asyncio.get_running_loop().time() - began < 2

    run(scenario())


def test_a_bot_of_a_log_that_has_long_been_quiet_misses_nothing_over_a_resume() -> None:
    async def scenario() -> None:
        setting = await Setting.begin({1: [0]})
        log = setting.cluster_of(0).log
        log.now += 10_000
        bot = await live(Bot(), setting.process)
        await pass_time(7)
        await setting.process.kill()
        setting.event(0, 0, "missed")
        log.now += 500
        await live(bot, await setting.another())
        setting.event(0, 0, "live")
        await pass_time()
        assert contents(bot) == ["missed", "live"] and bot.resumes == 1

    run(scenario())
