"""A second session beside a shard's own, at the simulated Discord: it fills the cold cache, ends itself and nothing
else, and what is in its way is said.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rateway.cache.policy import KINDS, CachePolicy
from rateway.fleet.identify import IdentifyGovernor
from rateway.fleet.layout import Layout
from rateway.native.fast_path import EventPipeline, PublishState
from rateway.native.ledger import Batch, Cursor
from rateway.runtime.identify.permits import FolderLedger, IdentifyLedger, LocalPermits
from rateway.runtime.runner.cluster_cache import ClusterCache
from rateway.runtime.runner.dialer import Dialer
from rateway.runtime.runner.second_session import SecondSessions
from rateway.runtime.runner.shard import DialGate, Shard
from rateway.runtime.runner.shard_factory import ShardTools
from rateway.session.actions import State
from rateway.session.conversation import Conversation
from rateway.session.options import SessionOptions
from rateway.transports.rest import DiscordRest
from rateway.transports.store import Store
from rateway_protocol.discord import intents
from rateway_protocol.discord.envelope import Envelope
from rateway_protocol.discord.hosts import TokenHosts
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator
from rateway_simulator.world.dispatch import WorldOptions
from tests.cache.world_feed import differences, expected, state

INTENTS = intents.ALL
SHARD = 0


class Books:
    """A ledger's folder in memory."""

    data: bytes | None = None

    def read_ledger(self) -> bytes | None:
        return self.data

    def write_ledger(self, ledger: bytes) -> None:
        self.data = ledger


@dataclass
class Own:
    """The shard's own session: what its stream, its cluster's events and its observer would be. It notes what would be
    published."""

    store: Store
    pipeline: EventPipeline = field(default_factory=EventPipeline)
    published: list[tuple[str | None, int | None]] = field(default_factory=list)
    settled: int = 0
    received: int = 0

    def __post_init__(self) -> None:
        self.publish_state = PublishState(Cursor(-1), Batch(lambda: None))
        self.pipeline.apply = self.store.apply

    def dispatch(self, shard_id: int, stream: Any, envelope: Envelope, replayed: bool, repeat: int) -> None:
        if envelope.s is not None and self.pipeline.apply is not None:
            self.pipeline.apply(shard_id, envelope.s, envelope.t or "", envelope.d)
            self.published.append((envelope.t, envelope.s))
            self.store.commit()

    def use_views(self, used: bool) -> None:
        self.pipeline.apply = self.store.apply_with_views if used else self.store.apply

    def session_started(self, shard: Shard, order: Any) -> None:
        self.store.begin_session(shard.shard_id, order.session_id)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments, **keywords: None


@dataclass
class Ground:
    sim: Simulator
    store: Store
    own: Own
    shard: Shard
    second: SecondSessions
    cache: ClusterCache

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not fact():  # noqa: ASYNC110  # nothing announces it
                await asyncio.sleep(0.05)

    def guilds(self) -> int:
        """Guilds that have come."""
        return sum(1 for _, row in self.store._cache.writer.guild_rows() if row.number)

    def sessions(self) -> int:
        return len(self.sim.gateway.sessions)

    async def go_cold(self) -> None:
        """Have the cache begin empty, as after another gateway's death."""
        await self.until(lambda: self.guilds() == len(self.sim.world.guild_ids))
        assert self.shard.conversation.session_id is not None
        self.store.begin_cold({SHARD: self.shard.conversation.session_id})
        assert self.store.cold_shards == {SHARD}


@asynccontextmanager
async def ground(
    tmp_path: Path, gate: DialGate | None = None, *, ledger: IdentifyLedger | None = None, **options: Any
) -> AsyncIterator[Ground]:
    world = WorldOptions(guilds=4, members_per_guild=8)
    async with (
        Simulator(
            SimulatorOptions(
                **{"world": world, "shards": 1, "max_concurrency": 1, "identify_window": 0.5, **options}
            )
        ) as sim,
        asyncio.TaskGroup() as tasks,
    ):
        policy = CachePolicy(kinds=KINDS)
        store = Store.open(tmp_path / "store", cluster=1, policy=policy, wall=1.0)
        assert isinstance(store, Store)
        rest = DiscordRest(sim.api_url, _secret(sim.options.token))
        permits = LocalPermits(IdentifyGovernor(shards=[SHARD]), ledger or FolderLedger(Books()), rest)
        spawned: list[asyncio.Task[None]] = [tasks.create_task(permits.run())]

        def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
            spawned.append(tasks.create_task(work))
            return spawned[-1]

        hosts = TokenHosts(sim.api_url, ())
        dialer = Dialer(
            user_agent="test", max_message_bytes=1 << 26, ssl_context=lambda: None, token_hosts=hosts
        )
        session = SessionOptions(token=sim.options.token, intents=INTENTS, address_fault=hosts.fault)
        tools = ShardTools(Layout(1, 1), sim.gateway_url, session, dialer, permits)
        own = Own(store)
        conversation = Conversation(
            shard_id=SHARD, shard_count=1, options=session, gateway_url=sim.gateway_url, session=None,
            chance=random.Random(1),
        )  # fmt: skip
        shard = Shard(
            conversation=conversation, shard_id=SHARD, stream=own, events=own, observer=own, dialer=dialer,
            permits=permits, clock=asyncio.get_running_loop().time, spawn=spawn, gate=gate,
        )  # fmt: skip
        cache = ClusterCache(1, store)
        second = SecondSessions(1, {SHARD: shard}, tools, permits, spawn, own.use_views)
        shard.start()
        try:
            yield Ground(sim, store, own, shard, second, cache)
        finally:
            second.stop()
            shard.stop(end_session=True)
            for task in spawned:
                task.cancel()
            store.close()


def _secret(token: str) -> Any:
    from rateway.secret import Secret

    return Secret(token)


def test_it_fills_the_cache_while_events_go_on_and_ends_itself_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with ground(tmp_path) as it:
            await it.go_cold()
            own = it.shard.conversation.session_id
            it.sim.set_rate(40)
            it.second.start(it.cache)
            await it.until(lambda: it.second.figures.renewed == 1)
            assert it.store.cold_shards == frozenset() and it.second.figures.note == ""
            assert it.second.figures.identifies == 1 and it.shard.identifies == 1
            await it.until(lambda: it.sessions() == 1)
            assert it.shard.conversation.session_id == own and it.shard.conversation.state is State.LIVE
            it.sim.set_rate(0)
            await it.until(
                lambda: it.shard.conversation.received_seq == it.sim.gateway.sessions[own or ""].seq
            )
            numbers = [seq for _, seq in it.own.published]
            assert numbers == list(range(1, len(numbers) + 1)), "only its own events, each once"
            got, wanted = state(it.store._cache.writer), expected(it.sim.world)
            for kind in ("message", "integration", "channel_info"):
                got.pop(kind), wanted.pop(kind)
            assert differences(got, wanted) == []
            assert it.own.pipeline.apply == it.store.apply, "events take no longer way than before"
            assert it.sim.ledger.noted == []

    asyncio.run(main())


def test_it_gives_up_where_the_cluster_is_left_and_nothing_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with ground(tmp_path) as it:
            await it.go_cold()
            it.second.start(it.cache)
            await it.until(lambda: it.guilds() > 0)
            it.second.stop()
            assert it.guilds() == 0
            assert it.store.cold_shards == {SHARD}
            await it.until(lambda: it.sessions() == 1)
            assert it.shard.conversation.state is State.LIVE

    asyncio.run(main())


def test_no_identify_is_taken_out_of_the_reserve(tmp_path: Path) -> None:
    async def main() -> None:
        async with ground(tmp_path, identifies_remaining=51) as it:
            await it.go_cold()
            it.second.start(it.cache)
            await it.until(lambda: "kept" in it.second.figures.note)
            assert it.sim.ledger.counts["identify"] == 1
            assert it.sessions() == 1 and it.store.cold_shards == {SHARD}

    asyncio.run(main())
