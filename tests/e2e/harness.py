"""A stage for end-to-end tests: the simulated Discord in this process, the gateway as a real one, a real broker.

    async with stage(tmp_path, broker, shards=2, guilds=10) as it:
        await it.ready()
        await it.events(500)
        await it.gateway.kill()
        await it.gateway.start()
        await it.settled()
    # leaving it stops the gateway and asserts that no rule of Discord's was broken

Everything waits for facts (an arrival, a status), bounded by the test's own time-out. A failure carries, as notes, what
it is judged by: the gateway's last status and log, the receipts, the simulator's ledger.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rateway.demo.audit import Audit, Receipts, audit
from rateway.demo.children import Child
from rateway.demo.collector import Collector
from rateway.fleet.layout import Layout
from rateway.transports import control_socket
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator
from rateway_simulator.world.dispatch import WorldOptions

from tests.rabbitmq import Broker

#: Between two looks at something that announces itself nowhere, seconds.
LOOK = 0.05
#: So long without an arrival means that nothing more comes, seconds; a machine with other work is silent for a while.
SILENCE = 30.0
#: Between two identifies of a bucket, seconds: Discord's 5, less what a busy machine may let the first one wait unread.
IDENTIFY_WINDOW_S = 4.0
#: So long may a gateway take to end by itself, seconds: as long as settling takes a machine with other work.
STOP_PATIENCE = 90.0
#: Lines of a gateway's log that a failure shows.
LOG_LINES = 60
#: Broken rules, journal lines and sessions that a failure shows.
EXAMPLES = 20

Json = dict[str, Any]


class Gateway(Child):
    """The gateway as a child process, with settings of its own: `Gateway(folder, AMQP_URI=…, SHARDS="2")`."""

    def __init__(self, folder: Path, name: str = "gateway", **settings: str) -> None:
        self.state_dir = folder / "state"
        defaults = {
            "STATE_DIR": str(self.state_dir),
            "HTTP_ADDRESS": "",
            "LOG_FORMAT": "text",
            "INTENTS": "ALL",
        }
        super().__init__(name, ["-m", "rateway"], defaults | settings, folder / f"{name}.log")
        self.state_dir = Path(self.environment["STATE_DIR"])
        #: The status that was read last, for a failure's account.
        self.last_status: Json | None = None

    async def status(self) -> Json | None:
        """What `rateway status` would show; None while nothing answers."""
        try:
            found: Json = msgspec.json.decode(await control_socket.ask(self.state_dir, "status"))
        except (control_socket.ControlError, msgspec.DecodeError):
            return None
        if "error" in found:
            return None
        self.last_status = found
        return found

    async def until(self, fact: Callable[[Json], bool]) -> Json:
        """Wait until *fact* holds of the status; AssertionError when the process has ended.

        Where the wait is cut off, the error has the gateway's account as a note.
        """
        with self.accounted():
            while True:
                assert self.running, "the gateway has ended"
                status = await self.status()
                if status is not None and fact(status):
                    return status
                await asyncio.sleep(LOOK)

    async def logged(self, words: str) -> str:
        """Wait until a line with *words* is in the log; that line."""
        with self.accounted():
            while (found := await self.line_with(words)) is None:
                assert self.running, f"the gateway has ended without saying {words!r}"
            return found

    @contextmanager
    def accounted(self) -> Iterator[None]:
        """Add the gateway's account to any exception that leaves the block, unless it is on it already."""
        try:
            yield
        except BaseException as error:
            note = self.account()
            heading = note.partition("\n")[0]
            if not any(each.startswith(heading) for each in getattr(error, "__notes__", ())):
                error.add_note(note)
            raise

    def account(self) -> str:
        """Return what a failure is judged by: whether the process runs, its last status, the end of its log."""
        state = f"pid {self.pid}" if self.running else f"not running, {self.process}"
        status = b"none" if self.last_status is None else msgspec.json.encode(self.last_status)
        return (
            f"{self.name} ({state}, started {self.starts} times)\n"
            f"its last status: {status.decode()}\n"
            f"the last lines of its log:\n{self.tail(LOG_LINES)}"
        )

    async def exited(self) -> int:
        """Wait for its end; the exit code."""
        assert self.process is not None
        return await self.process.wait()

    async def stop(self) -> None:
        """SIGTERM; the exit code has to be 0."""
        with self.accounted():
            code = await self.terminate(STOP_PATIENCE)
            assert code == 0, f"the gateway ended with {code}"

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)


@dataclass(slots=True)
class Stage:
    """What a test acts on. `sim` is in this process: its ledger can be read and its faults injected directly."""

    sim: Simulator
    gateway: Gateway
    collector: Collector
    broker: Broker
    layout: Layout

    @property
    def receipts(self) -> Receipts:
        return self.collector.receipts

    @property
    def often(self) -> list[str]:
        """Names of most of the events that `events` makes."""
        return [name for name in self.collector.names if name.startswith(("MESSAGE_", "TYPING", "PRESENCE"))]

    async def ready(self) -> Json:
        """Wait until every shard is live and every guild has been announced; the status then."""

        def fact(status: Json) -> bool:
            return sum(int(each["shards_ready"]) for each in status["clusters"]) == self.layout.shards

        status = await self.gateway.until(fact)
        while self.sim.gateway.streaming:
            await asyncio.sleep(LOOK)
        return status

    async def events(self, count: int, rate: float = 1000.0) -> None:
        """Let *count* things happen in the world and wait until they have (not until they have arrived)."""
        self.sim.set_rate(rate, events=count)
        while self.sim.source.left != 0:
            await asyncio.sleep(LOOK)

    async def heard(self, fact: Callable[[Receipts], bool]) -> None:
        """Wait until *fact* holds of what has arrived."""
        while not fact(self.receipts):
            self.collector.arrival.clear()
            await self.collector.arrival.wait()

    async def settled(self, missing: int = 0) -> Audit:
        """Wait until all that was sent but *missing* events has arrived, or nothing comes any more; the audit."""
        while self.receipts.distinct < self.sim.ledger.events - missing:
            self.collector.arrival.clear()
            try:
                async with asyncio.timeout(SILENCE):
                    await self.collector.arrival.wait()
            except TimeoutError:
                break
        return audit(self.sim.ledger.log(), self.receipts)

    async def all_arrived(self) -> Audit:
        """`settled`, and assert that nothing is lost, changed or out of order."""
        result = await self.settled()
        assert result.clean, result
        return result

    def count(self, what: str) -> int:
        """How often the simulator counted something: `identify`, `resume`, `fault:cut` …"""
        return self.sim.ledger.counts[what]

    @contextmanager
    def accounted(self) -> Iterator[None]:
        """Add the gateway's account, the receipts and the ledger to any exception that leaves the block."""
        with accounted(self.sim, self.collector), self.gateway.accounted():
            yield


@contextmanager
def log_shown(child: Child) -> Iterator[None]:
    """Add the end of the child's log to any exception that leaves the block."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"the last lines of {child.name}:\n{child.tail(LOG_LINES)}")
        raise


@contextmanager
def accounted(sim: Simulator, collector: Collector) -> Iterator[None]:
    """Add the collector's receipts and the simulator's ledger to any exception that leaves the block."""
    try:
        yield
    except BaseException as error:
        error.add_note(account(sim, collector))
        raise


def account(sim: Simulator, collector: Collector) -> str:
    """Return what a failure is judged by, beside the gateway's own account: receipts and ledger."""
    receipts, ledger = collector.receipts, sim.ledger
    arrived = f"{receipts.arrived} arrived, {receipts.distinct} distinct, {receipts.redelivered} redelivered"
    lines = [
        f"receipts: {arrived}; the collector connected {collector.connections} times",
        f"by name: {dict(receipts.names.most_common())}",
        f"out of order: {receipts.out_of_order[:EXAMPLES]}",
        f"gaps: {[body.decode(errors='replace') for body in receipts.gaps[:EXAMPLES]]}",
        f"ledger: {ledger.events} events, {dict(sorted(ledger.counts.items()))}",
        f"rules broken or warned of: {ledger.noted[:EXAMPLES]}",
        *(f"session: {record}" for record in list(ledger.sessions.values())[-EXAMPLES:]),
        *(f"journal: {entry}" for entry in list(ledger.journal)[-EXAMPLES:]),
    ]
    return "\n".join(lines)


@asynccontextmanager
async def stage(
    folder: Path,
    broker: Broker,
    *,
    shards: int = 2,
    per_cluster: int = 8,
    guilds: int = 10,
    members: int = 10,
    simulator: Json | None = None,
    amqp_uri: str | None = None,
    collector: Collector | None = None,
    start: bool = True,
    expect: frozenset[str] = frozenset(),
    **settings: str,
) -> AsyncIterator[Stage]:
    """Simulator, collector and gateway; *simulator* are further SimulatorOptions, *settings* the gateway's variables.

    At the end the gateway is stopped if it runs, and the rules broken must be among *expect* (usually none;
    `*` leaves the judgement to the caller).
    """
    world = WorldOptions(guilds=guilds, members_per_guild=members)
    defaults: Json = {
        "world": world,
        "shards": shards,
        "max_concurrency": max(shards, 1),
        "identify_window": IDENTIFY_WINDOW_S,
    }
    layout = Layout(shards, per_cluster)
    async with Simulator(SimulatorOptions(**(defaults | (simulator or {})))) as sim:
        collector = collector or Collector(broker.uri, layout.clusters)
        async with collector.running():
            environment = {
                "AMQP_URI": amqp_uri or broker.uri,
                "DISCORD_API_URL": sim.api_url,
                "DISCORD_TOKEN": sim.options.token,
                "EXTRA_SHARDS": "0",
                "SHARDS_PER_CLUSTER": str(per_cluster),
            }
            gateway = Gateway(folder, **(environment | settings))
            try:
                it = Stage(sim, gateway, collector, broker, layout)
                with it.accounted():
                    if start:
                        await gateway.start()
                    yield it
                    if gateway.running:
                        await gateway.stop()
            finally:
                await gateway.kill()
        # The gateway does not do what is only warned of either.
        broken = [each for each in sim.ledger.noted if each.rule not in expect and "*" not in expect]
        assert broken == []
