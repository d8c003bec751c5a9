"""What each bot knows equals what a bot at Discord itself would know, whatever happens between.

Random histories of events, doubles, lost sessions, deaths of bots, proxies, gateway and broker. At the end everything
is written and each bot has been given time: its view of its guilds is the gateway's, and of the events of each guild it
has every one since its snapshot, once.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rateway.proxy.log.stream import gateway_shards
from rateway_protocol.contract.errors import Fault
from rateway_protocol.contract.snapshots import GuildSnapshot, ShardSnapshot
from rateway_protocol.discord.intents import ALL, Intents
from rateway_protocol.discord.snowflake import shard_of
from tests.proxy.bots import Bot, Process
from tests.proxy.memory import MemoryCluster, MemoryGateway, MemoryReader
from tests.proxy.virtual_time import pass_time, run

NO_MEMBERS = ALL & ~int(Intents.GUILD_MEMBERS)
# Layouts: clusters with their shards.
LAYOUTS: tuple[dict[int, list[int]], ...] = ({1: [0]}, {1: [0, 1]}, {1: [0, 1], 2: [2, 3]})
# The bots' own layouts, whatever the gateway's is.
BOTS = ((0, 1), (0, 2), (1, 2), (1, 4), (2, 3))
GUILDS = 3


class SlowGateway(MemoryGateway):
    """Answers after a while; what happens meanwhile is in the answer."""

    delay = 0.0

    async def shard(self, shard_id: int) -> ShardSnapshot | Fault:
        await asyncio.sleep(self.delay)
        return await super().shard(shard_id)

    async def guilds(
        self, guild_ids: Sequence[int], intents: int, large_threshold: int
    ) -> list[GuildSnapshot | Fault]:
        found: list[GuildSnapshot | Fault] = []
        for guild_id in guild_ids:
            await asyncio.sleep(self.delay)
            found += await super().guilds([guild_id], intents, large_threshold)
        return found


@dataclass
class World:
    """A gateway with its logs, proxies and bots; and what Discord has sent."""

    gateway: SlowGateway
    reader: MemoryReader
    clusters: dict[int, MemoryCluster]
    processes: list[Process] = field(default_factory=list)
    bots: list[Bot] = field(default_factory=list)
    # Guild → what was sent in it: each event has a number of its own.
    sent: dict[int, list[int]] = field(default_factory=dict)
    number: int = 0
    # Events that are applied and not written yet.
    lag: int = 0
    repeated: dict[tuple[int, str], int] = field(default_factory=dict)

    @classmethod
    async def begin(cls, layout: dict[int, list[int]]) -> World:
        gateway = SlowGateway(layout)
        reader = MemoryReader(asyncio.get_running_loop().call_soon, at_once=7)
        world = cls(
            gateway,
            reader,
            {each: MemoryCluster(gateway, each, reader.log(f"log-{each}")) for each in layout},
        )
        for shard_id in gateway.shards:
            guilds = [world.new_guild(shard_id, place) for place in range(GUILDS)]
            world.cluster_of(shard_id).ready(shard_id, guilds)
        for _ in range(2):
            world.processes.append(await Process.start(gateway, reader))
        return world

    def cluster_of(self, shard_id: int) -> MemoryCluster:
        return self.clusters[self.gateway.cluster_of[shard_id]]

    def guild_id(self, shard_id: int, place: int) -> int:
        return ((place * len(self.gateway.shards) + shard_id) << 22) + 1

    def new_guild(self, shard_id: int, place: int) -> dict[str, Any]:
        guild_id = self.guild_id(shard_id, place)
        return {"id": str(guild_id), "name": "new", "members": [], "channels": [], "roles": []}

    def next_number(self, guild_id: int) -> int:
        self.number += 1
        self.sent.setdefault(guild_id, []).append(self.number)
        return self.number

    # What may happen.

    def message(self, shard: int, place: int) -> None:
        guild_id = self.guild_id(shard, place)
        if guild_id in self.gateway.shards[shard].states.guilds:
            d = {"guild_id": str(guild_id), "number": self.next_number(guild_id)}
            self.cluster_of(shard).send(shard, "MESSAGE_CREATE", d)

    def update(self, shard: int, place: int) -> None:
        guild_id = self.guild_id(shard, place)
        if guild_id in self.gateway.shards[shard].states.guilds:
            number = self.next_number(guild_id)
            d = {"id": str(guild_id), "name": f"name {number}", "number": number}
            self.cluster_of(shard).send(shard, "GUILD_UPDATE", d)

    def channel(self, shard: int, place: int) -> None:
        guild_id = self.guild_id(shard, place)
        if guild_id in self.gateway.shards[shard].states.guilds:
            number = self.next_number(guild_id)
            d = {"id": str(number % 3), "guild_id": str(guild_id), "number": number}
            name = ("CHANNEL_CREATE", "CHANNEL_UPDATE", "CHANNEL_DELETE")[number % 3]
            self.cluster_of(shard).send(shard, name, d)

    def member(self, shard: int, place: int) -> None:
        guild_id = self.guild_id(shard, place)
        if guild_id in self.gateway.shards[shard].states.guilds:
            number = self.next_number(guild_id)
            d = {"guild_id": str(guild_id), "user": {"id": str(number % 4)}, "number": number}
            name = "GUILD_MEMBER_ADD" if number % 2 else "GUILD_MEMBER_REMOVE"
            self.cluster_of(shard).send(shard, name, d)

    def come_and_go(self, shard: int, place: int) -> None:
        guild_id = self.guild_id(shard, place)
        guilds = self.gateway.shards[shard].states.guilds
        if guild_id not in guilds or guilds[guild_id].get("unavailable"):
            self.cluster_of(shard).send(shard, "GUILD_CREATE", self.new_guild(shard, place))
        elif place % 2:
            self.cluster_of(shard).send(shard, "GUILD_DELETE", {"id": str(guild_id)})
        else:
            self.cluster_of(shard).send(shard, "GUILD_DELETE", {"id": str(guild_id), "unavailable": True})

    def lose_session(self, shard: int, place: int) -> None:
        states = self.gateway.shards[shard].states
        guilds = [copy.deepcopy(each) for each in states.guilds.values() if not each.get("unavailable")]
        # Until Discord gives a new session, seconds go by.
        self.cluster_of(shard).write()
        self.cluster_of(shard).confirm()
        # Of a session that is lost, some guilds are left meanwhile.
        self.cluster_of(shard).lose_session(shard, guilds[place % 2 :])

    def repeat(self, shard: int, place: int) -> None:
        """Discord sends another event under the number of the one before."""
        states = self.gateway.shards[shard]
        guild_id = self.guild_id(shard, place)
        if guild_id in states.states.guilds and states.seq != self.repeated.get((shard, states.session)):
            self.repeated[shard, states.session] = states.seq
            d = {"guild_id": str(guild_id), "number": self.next_number(guild_id)}
            self.cluster_of(shard).send(shard, "MESSAGE_CREATE", d, repeat=1)

    def slow_down(self, shard: int, place: int) -> None:
        self.gateway.delay = (0.0, 0.02, 0.3)[place]

    def fall_behind(self, shard: int, place: int) -> None:
        """What comes is written later, or in part."""
        self.lag = (0, 2, 5)[place]

    def confirm(self, shard: int, place: int) -> None:
        self.cluster_of(shard).confirm()

    def gateway_dies(self, shard: int, place: int) -> None:
        self.cluster_of(shard).die_and_resume()

    def held_back(self, shard: int, place: int) -> None:
        cluster = self.cluster_of(shard)
        cluster.write()
        self.message(shard, place)
        self.message(shard, place)
        cluster.hold_back()

    def roll(self, shard: int, place: int) -> None:
        self.cluster_of(shard).log.roll()

    def broker_breaks(self, shard: int, place: int) -> None:
        self.reader.disconnect()
        self.reader.is_connected = True

    def log_is_replaced(self, shard: int, place: int) -> None:
        cluster = self.cluster_of(shard)
        cluster.write()
        old = cluster.log.name
        cluster.replace_log(self.reader.log(f"{old}+"))
        self.reader.delete(old)

    def retain(self, shard: int, place: int) -> None:
        # What is not confirmed yet is younger than all that retention takes.
        self.cluster_of(shard).confirm()
        self.cluster_of(shard).log.roll()
        self.cluster_of(shard).log.retain(2)


EVENTS = (
    World.message, World.update, World.channel, World.member, World.come_and_go, World.repeat, World.held_back,
)  # fmt: skip
TROUBLES = (
    *(World.confirm, World.gateway_dies, World.slow_down, World.fall_behind, World.roll, World.broker_breaks) * 3,
    World.lose_session, World.log_is_replaced, World.retain,
)  # fmt: skip

PLACES = st.integers(0, 3), st.integers(0, GUILDS - 1)
# (what, shard, place, how often).
EVENT = st.tuples(st.sampled_from(EVENTS), *PLACES, st.integers(1, 3))
TROUBLE = st.tuples(st.sampled_from(TROUBLES), *PLACES, st.just(1))
# (what, bot, process): what bots and proxies do.
ACT = st.tuples(
    st.sampled_from(("start", "start", "start", "start", "lose", "lose", "kill proxy", "restart", "beat")),
    st.integers(0, 2),
    st.integers(0, 1),
)
WAIT = st.sampled_from((0.0, 0.001, 0.03, 0.06, 0.6, 7.0))
STEP = st.one_of(EVENT, EVENT, EVENT, TROUBLE, ACT, ACT, WAIT)


async def act(world: World, what: str, bot: Bot, process: int) -> None:
    if what == "start" and bot.connection is None:
        bot.start(world.processes[process])
    elif what == "lose":
        bot.lose()
    elif what == "restart":
        bot.lose()
        bot.session_id = bot.seq = None
        bot.start(world.processes[process])
    elif what == "beat" and bot.connection is not None:
        bot.say(1, bot.seq)
    elif what == "kill proxy":
        await world.processes[process].kill()
        world.processes[process] = await Process.start(world.gateway, world.reader)


def look_after(bot: Bot, process: Process) -> None:
    """What a library does by itself."""
    if bot.closed is not None:
        bot.lose()
        bot.start(process)
    elif bot.connection is not None and bot.connection.state == "unidentified":
        bot.identify()


async def play(
    layout: dict[int, list[int]], bots: list[tuple[tuple[int, int], int]], before: float, steps: list[Any]
) -> None:
    world = await World.begin(layout)
    for cluster in world.clusters.values():
        cluster.write()
    world.bots = [Bot(*shard, intents=intents) for shard, intents in bots]
    for bot in world.bots:
        bot.start(world.processes[0])
    await pass_time(before)
    for step in steps:
        if isinstance(step, float):
            await pass_time(step)
        elif isinstance(step[0], str):
            await act(world, step[0], world.bots[step[1] % len(world.bots)], step[2])
        else:
            change, shard, place, times = step
            if change is World.retain:
                # What is read as it comes is not overtaken.
                await pass_time(0.001)
            for _ in range(times):
                change(world, shard % len(world.gateway.shards), place)
            for cluster in world.clusters.values():
                cluster.write(max(0, cluster.unwritten - world.lag))
        for bot in world.bots:
            if bot.connection is not None:
                look_after(bot, world.processes[0])
    for cluster in world.clusters.values():
        cluster.write()
    world.gateway.delay = 0.0
    for bot in world.bots:
        if bot.connection is None:
            bot.start(world.processes[1])
    for _ in range(20):
        await pass_time(3)
        for bot in world.bots:
            if bot.connection is not None:
                look_after(bot, world.processes[0])
                bot.say(1, bot.seq)
    for bot in world.bots:
        assert bot.connection is not None and bot.is_live, (bot.shard, bot.ops)
        compare(world, bot)


def compare(world: World, bot: Bot) -> None:
    """The bot's view is the gateway's, and it has each event since its snapshots once."""
    shard, count = bot.shard
    total = len(world.gateway.shards)
    expected: dict[int, Any] = {}
    for shard_id in gateway_shards(shard, count, total):
        states = world.gateway.shards[shard_id].states
        for guild_id in states.guilds:
            if shard_of(guild_id, count) == shard:
                expected[guild_id] = told(states.told(guild_id), bot)
    seen = {guild_id: told(bot.view.told(guild_id), bot) for guild_id in bot.view.guilds}
    assert seen == expected, bot.shard
    numbers: dict[int, list[int]] = {}
    known: dict[int, int] = {}
    for each in bot.dispatches:
        if "number" not in each.d:
            continue
        guild_id = int(each.d.get("guild_id") or each.d["id"])
        if each.name == "GUILD_CREATE":
            known[guild_id] = each.d["number"]
        else:
            numbers.setdefault(guild_id, []).append(each.d["number"])
            assert each.d["number"] > known.get(guild_id, 0), "an event that the snapshot contains"
    for guild_id, got in numbers.items():
        assert len(set(got)) == len(got), f"twice in guild {guild_id}: {got}"
        sent = [each for each in world.sent[guild_id] if each >= min(got)]
        if bot.intents == ALL:
            assert sorted(got) == sent, f"guild {guild_id}"
        else:
            assert set(got) <= set(sent)
    sequence = [each.seq for each in bot.dispatches]
    assert sequence == sorted(sequence), [(each.name, each.seq) for each in bot.dispatches]


def told(guild: dict[str, Any], bot: Bot) -> str:
    """A guild as this bot may know it."""
    if bot.intents != ALL:
        guild = {key: value for key, value in guild.items() if key != "members"}
    if guild.get("unavailable"):
        guild = {"id": guild["id"], "unavailable": True}
    return json.dumps(guild, sort_keys=True)


@settings(
    max_examples=200, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)  # fmt: skip
@given(
    layout=st.sampled_from(LAYOUTS),
    bots=st.lists(
        st.tuples(st.sampled_from(BOTS), st.sampled_from((ALL, NO_MEMBERS))), min_size=1, max_size=3
    ),
    before=st.sampled_from((0.0, 0.3, 1.0)),
    steps=st.lists(STEP, min_size=40, max_size=80),
)
def test_what_each_bot_knows_is_what_discord_would_have_told_it(
    layout: dict[int, list[int]], bots: list[tuple[tuple[int, int], int]], before: float, steps: list[Any]
) -> None:
    run(play(layout, bots, before, steps))
