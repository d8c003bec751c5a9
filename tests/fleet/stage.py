"""A stage for several gateways that are one bot, or would be: one simulated Discord, one RabbitMQ node or three.

    async with fleet_stage(tmp_path, [broker], members=2, fleet="bot") as it:
        await it.live()
        it.sim.set_rate(1.0, per_shard=True)
        struck = it.now()
        await it.members[0].kill()
        await it.live_since(struck, shards)

Each member has a state folder, a log and a way to the broker of its own (relays, so that it can be cut off); with
`namespaces` each has a network of its own as well, which can be unplugged.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec
from rateway.demo.audit import Receipts
from rateway.demo.broker import BrokerUnavailable
from rateway.demo.collector import Collector
from rateway.demo.relay import Relay
from rateway.fleet.layout import Layout
from rateway.transports import control_socket
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator
from rateway_simulator.world.dispatch import WorldOptions

from tests.chaos.machine import children
from tests.e2e.harness import IDENTIFY_WINDOW_S, LOOK, Gateway, Json, accounted
from tests.fleet.audit import FleetAudit, audit_fleet
from tests.fleet.network import Network, network
from tests.fleet.prober import Prober
from tests.rabbitmq import Broker

__all__ = ["FleetStage", "Member", "fleet_stage"]

#: So long without an arrival means that nothing more comes, seconds: longer than a broker's failover.
SILENCE = 20.0
#: How often a node of the broker is started before the run is given up.
NODE_STARTS = 4
#: What happens before this is not waited for: a member that ends with a broker away, seconds.
STOP_PATIENCE = 30.0


class Member(Gateway):
    """One gateway of several; faults strike the whole of it, its runners included."""

    def __init__(self, number: int, folder: Path, relays: Sequence[Relay], **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, f"member-{number}", **settings)
        self.number = number
        self.network_name = f"m{number}"
        self.relays = relays

    @property
    def processes(self) -> list[int]:
        """All of its processes, the supervising one last."""
        return [*children(self.pid), *([] if self.pid is None else [self.pid])]

    def send_all(self, number: signal.Signals) -> None:
        for pid in self.processes:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def kill(self) -> None:
        """SIGKILL for every process of it, and wait until it is gone."""
        self.send_all(signal.SIGKILL)
        await super().kill()

    def freeze(self) -> None:
        self.send_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send_all(signal.SIGCONT)

    def cut_broker(self, cut: bool) -> None:
        """While *cut*, nothing passes between it and any node of the broker, and nothing is closed."""
        for relay in self.relays:
            relay.stall(cut)

    async def member_name(self) -> str:
        """Its name in the fleet."""
        status = await self.until(lambda status: status["fleet"] is not None)
        return str(status["fleet"]["member"])

    async def ask(self, *words: str) -> None:
        """Put a request to its control socket, as `rateway fleet` does; AssertionError when it is refused."""
        answer = msgspec.json.decode(await control_socket.ask(self.state_dir, *words, patience=15.0))
        assert "ok" in answer, answer

    async def clusters(self) -> list[int]:
        """The clusters whose shards it runs, as far as it answers."""
        status = await self.status()
        if status is None:
            return []
        return [int(each["cluster"]) for each in status["clusters"] if int(each["shards_ready"]) > 0]


class TimedReceipts(Receipts):
    """Receipts that note, by shard, when events arrived: the longest time without one."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[int, float] = {}
        self.longest: dict[int, float] = {}

    def add(
        self, name: str, message_id: str | None, body: bytes, *, republished: bool, redelivered: bool,
        ahead: bool = False, replayed: bool = False,
    ) -> None:  # fmt: skip
        super().add(
            name, message_id, body, republished=republished, redelivered=redelivered, ahead=ahead,
            replayed=replayed,
        )  # fmt: skip
        parts = (message_id or "").split(":")
        if len(parts) == 3 and parts[1].isdecimal():
            shard, now = int(parts[1]), time.monotonic()
            self.longest[shard] = max(self.longest.get(shard, 0.0), now - self.last.get(shard, now))
            self.last[shard] = now

    def begin(self) -> None:
        """Measure pauses from now on."""
        now = time.monotonic()
        self.longest = {}
        self.last = dict.fromkeys(self.last, now)

    def pause(self) -> float:
        """Seconds that the shard with the longest pause had none, the one that lasts now included."""
        now = time.monotonic()
        return max(
            (max(self.longest.get(shard, 0.0), now - last) for shard, last in self.last.items()), default=0.0
        )


@dataclass(slots=True)
class FleetStage:
    """What a scene acts on. `sim` is in this process."""

    sim: Simulator
    members: list[Member]
    collector: Collector
    nodes: Sequence[Broker]
    layout: Layout
    receipts: TimedReceipts
    network: Network | None
    fleet: bool
    """Whether FLEET is set."""
    prober: Prober
    """Its queries are sent while it runs."""

    # What is so

    def now(self) -> int:
        """A moment, for `live_since`: the length of the simulator's journal."""
        return len(self.sim.ledger.journal)

    def count(self, what: str) -> int:
        return self.sim.ledger.counts[what]

    def broken(self, rule: str) -> int:
        """How often the simulator saw a rule broken."""
        return sum(each.rule == rule for each in self.sim.ledger.noted)

    def attached(self) -> set[int]:
        """Shards whose session has a connection."""
        gateway = self.sim.gateway
        return {
            session.shard
            for session in gateway.sessions.values()
            if gateway.connection_of(session) is not None
        }

    async def owner(self, cluster: int) -> Member | None:
        for member in self.members:
            if member.running and cluster in await member.clusters():
                return member
        return None

    async def owners(self) -> dict[int, Member]:
        """By cluster: the member that runs its shards, where it is the only one that says so."""
        says = [(cluster, each) for each in self.members if each.running for cluster in await each.clusters()]
        counts = Counter(cluster for cluster, _ in says)
        return {cluster: member for cluster, member in says if counts[cluster] == 1}

    def shards_of(self, clusters: Iterable[int]) -> set[int]:
        return {shard for cluster in clusters for shard in self.layout.shards_of(cluster)}

    # Waiting

    async def until(self, fact: Callable[[], bool]) -> None:
        while not fact():  # noqa: ASYNC110  # the simulator announces it nowhere
            await asyncio.sleep(LOOK)

    async def live(self) -> None:
        """Wait until every shard is connected, all guilds have been announced, and members say all of that."""
        every = set(range(self.layout.shards))
        await self.until(lambda: self.attached() == every and not self.sim.gateway.streaming)
        while set(await self.owners()) != set(self.layout.clusters):
            self._assert_alive()
            await asyncio.sleep(LOOK)

    async def whole(self) -> None:
        """Wait until every member answers, every shard is live and, in a fleet, clusters are spread evenly."""
        await self.live()
        for member in self.members:
            await member.until(lambda status: True)
        while self.fleet and not await self._is_even():  # noqa: ASYNC110  # a status announces itself nowhere
            await asyncio.sleep(LOOK)
        await self.live()

    async def _is_even(self) -> bool:
        owners = list((await self.owners()).values())
        counts = [sum(owner is member for owner in owners) for member in self.members]
        return max(counts) - min(counts) <= 1

    async def flowing(self) -> None:
        """Wait until every shard's events arrive, from now on counted. The source has to be on."""
        now = time.monotonic()
        every = range(self.layout.shards)
        await self.until(lambda: all(self.receipts.last.get(shard, 0.0) > now for shard in every))

    def _assert_alive(self) -> None:
        assert any(member.running for member in self.members), "\n".join(
            f"{member.name}:\n{member.tail(30)}" for member in self.members
        )

    async def live_since(self, since: int, shards: set[int]) -> float:
        """Wait until each of these shards was resumed or ready after the moment *since*; Unix time of the last."""
        while True:
            at: dict[int, float] = {}
            for entry in list(self.sim.ledger.journal)[since:]:
                if entry.what in ("resumed", "ready") and entry.shard in shards:
                    at.setdefault(entry.shard, entry.time)
            if shards <= at.keys():
                return max(at.values(), default=time.time())
            await asyncio.sleep(LOOK)

    def hole(self, since: int, shards: set[int]) -> float:
        """Return for how long the shard that was away longest had no connection, from its first end after the moment
        *since* until it was resumed or ready.
        """
        left: dict[int, float] = {}
        back: dict[int, float] = {}
        for entry in list(self.sim.ledger.journal)[since:]:
            if entry.shard in shards and entry.what == "detached":
                left.setdefault(entry.shard, entry.time)
            elif entry.shard in left and entry.what in ("resumed", "ready"):
                back.setdefault(entry.shard, entry.time)
        return max((back[shard] - left[shard] for shard in back), default=0.0)

    async def arrived(self, since: int = 0, struck_at: int | None = None) -> FleetAudit:
        """Wait until all that has happened until now has arrived or nothing of it comes any more; the audit of what
        happened from the ledger's place *since* on. *struck_at*: see :func:`audit_fleet`.
        """
        until = self.sim.ledger.events
        found, moved = self.audit(since, until), time.monotonic()
        while found.lost and time.monotonic() - moved < SILENCE:
            await asyncio.sleep(10 * LOOK)
            before, found = found.lost, self.audit(since, until)
            if found.lost < before:
                moved = time.monotonic()
        return self.audit(since, until, struck_at)

    def audit(
        self, since: int = 0, lost_below: int | None = None, struck_at: int | None = None
    ) -> FleetAudit:
        """Hold what arrived against what happened from the ledger's place *since* on; see :func:`audit_fleet`."""
        ledger = self.sim.ledger
        return audit_fleet(
            ledger.log(since),
            self.receipts,
            lost_below=ledger.events if lost_below is None else lost_below,
            whole=since == 0,
            struck_at=struck_at,
        )

    # Faults

    async def kill_nodes(self) -> None:
        """End every node of the broker with SIGKILL."""
        await asyncio.gather(*(asyncio.to_thread(node.node.kill) for node in self.nodes))

    async def start_nodes(self) -> None:
        """Start every node of the broker at the same time."""
        await asyncio.gather(*(self._start_node(node) for node in self.nodes))

    @staticmethod
    async def _start_node(node: Broker) -> None:
        """As a service manager does: one that ends during its start, as RabbitMQ 3.10 may when others start beside it
        (incompatible_feature_flags), is started again.
        """
        for tries in range(NODE_STARTS):
            try:
                await asyncio.to_thread(node.node.start)
            except BrokerUnavailable:
                if tries == NODE_STARTS - 1:
                    raise
            else:
                return

    def unplug(self, member: Member) -> None:
        """Nothing passes between this member and anything, and nothing says so."""
        assert self.network is not None, "this stage has no network of its own"
        self.network.unplug(member.network_name)

    def plug(self, member: Member) -> None:
        assert self.network is not None, "this stage has no network of its own"
        self.network.plug(member.network_name)


def _uri(host: str, ports: Iterable[int], vhost: str, query: str) -> str:
    hosts = ",".join(f"{host}:{port}" for port in ports)
    return f"amqp://guest:guest@{hosts}/{quote(vhost, safe='')}{query}"


@asynccontextmanager
async def fleet_stage(
    folder: Path,
    nodes: Sequence[Broker],
    *,
    members: int = 2,
    shards: int = 6,
    per_cluster: int = 2,
    guilds: int = 12,
    people: int = 5,
    fleet: str = "",
    namespaces: bool = False,
    start: bool = True,
    query: str = "",
    simulator: Json | None = None,
    **settings: str,
) -> AsyncIterator[FleetStage]:
    """Simulator, collector and so many members. *nodes* are the broker's; *simulator* are further SimulatorOptions,
    *fleet* is what FLEET is set to, *settings* are every member's further variables, *query* that of their AMQP_URI.
    Broken rules are the caller's to judge.
    """
    layout = Layout(shards, per_cluster)
    async with AsyncExitStack() as exits:
        net = exits.enter_context(network()) if namespaces else None
        host = net.host if net is not None else "127.0.0.1"
        defaults: Json = {
            "world": WorldOptions(guilds=guilds, members_per_guild=people),
            "shards": shards,
            "max_concurrency": shards,
            "identify_window": IDENTIFY_WINDOW_S,
            "host": host,
        }
        sim = await exits.enter_async_context(Simulator(SimulatorOptions(**(defaults | (simulator or {})))))
        uris = [node.uri for node in nodes]
        collector = Collector(
            uris[0], layout.clusters, nodes=uris[1:], kind="quorum" if len(nodes) > 1 else ""
        )
        receipts = collector.receipts = TimedReceipts()
        await exits.enter_async_context(collector.running())
        made: list[Member] = []
        for number in range(1, members + 1):
            relays = [
                await exits.enter_async_context(Relay("127.0.0.1", node.port, listen=host)) for node in nodes
            ]
            environment = {
                "AMQP_URI": _uri(host, (relay.port for relay in relays), nodes[0].vhost, query),
                "DISCORD_API_URL": sim.api_url,
                "DISCORD_TOKEN": sim.options.token,
                "SHARDS": str(shards),
                "SHARDS_PER_CLUSTER": str(per_cluster),
                "PROCESSES": "1",
                "FLEET": fleet,
            }
            member = Member(number, folder / f"member-{number}", relays, **(environment | settings))
            if net is not None:
                member.started_by = net.join(member.network_name)
            made.append(member)
        try:
            if start:
                for member in made:
                    await member.start()
            asked = {layout.cluster_of((each >> 22) % shards): each for each in sim.world.guild_ids}
            prober = Prober(uris, dict(sorted(asked.items())))
            with accounted(sim, collector), ExitStack() as accounts:
                for member in made:
                    accounts.enter_context(member.accounted())
                yield FleetStage(sim, made, collector, nodes, layout, receipts, net, bool(fleet), prober)
            for member in made:
                member.thaw()
                member.cut_broker(False)
                if net is not None:
                    net.plug(member.network_name)
            await asyncio.gather(*(member.terminate(STOP_PATIENCE) for member in made if member.running))
        finally:
            for member in made:
                await member.kill()
