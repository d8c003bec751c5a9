"""What faults act on: the gateway's processes, the broker, the simulated Discord, and the network between them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import lmdb
import msgspec
from rateway.demo.relay import Relay
from rateway_protocol.contract.messages import Gap
from rateway_simulator.gateway.sessions import ENDED_BY_CLIENT
from rateway_simulator.judge.ledger import SessionRecord

from tests.chaos.bots_side import BotsSide, bots_side
from tests.chaos.machine import Clock, children
from tests.e2e.harness import Json, Stage, stage
from tests.e2e.witness import sessions_of, written_down
from tests.rabbitmq import Broker

__all__ = [
    "BUFFER",
    "RATE",
    "SHARDS",
    "Ground",
    "arrived",
    "decode_gap",
    "ended_by_discord",
    "ground",
    "send",
]

SHARDS = 4
GUILDS = 160
# Events that the simulated Discord keeps for a resume, per shard: less than a third of what Discord itself would for
# so many guilds. At RATE it covers twenty seconds.
BUFFER = 800
RATE = 160.0
# Soon after each other, so that Discord forgets what they name: the buffer alone would forgive too much.
HEARTBEAT_MS = 5000
# Age of a stream from which on it survives a kill of its node.
WRITTEN_DOWN_S = 5.0

decode_gap = msgspec.json.Decoder(Gap).decode


@dataclass(slots=True)
class Ground:
    """A stage whose connections all pass through relays, but for those to one of Discord's hosts."""

    stage: Stage
    relay: Relay
    """Between gateway and broker."""
    discord: tuple[Relay, Relay]
    """Between gateway and Discord: one of its resume hosts, and REST."""
    clock: Clock
    bots: BotsSide | None
    """Proxies and a bot behind them, in lanes with an event log."""

    @property
    def runners(self) -> list[int]:
        """Pids of the runners; empty with one process."""
        return children(self.stage.gateway.pid)

    @property
    def processes(self) -> list[int]:
        """All of the gateway's, the supervising one last."""
        pid = self.stage.gateway.pid
        return [*self.runners, *([] if pid is None else [pid])]

    async def kill(self) -> None:
        """SIGKILL for all of them."""
        for pid in self.runners:
            send(pid, signal.SIGKILL)
        await self.stage.gateway.kill()

    async def again(self) -> None:
        """Start the gateway once the one before has given up the state folder (the next waits for that by itself)."""
        await self.stage.gateway.start()


async def arrived(it: Stage) -> None:
    """Wait until the last event so far of every session has arrived, or a gap has told that it never will."""
    waiting = {record.session: record.sent for record in it.sim.ledger.sessions.values()}
    while waiting := {each: seq for each, seq in waiting.items() if not _arrived_or_told(it, each, seq)}:
        it.collector.arrival.clear()
        await it.collector.arrival.wait()


async def stored(it: Stage) -> None:
    """Wait until each shard's session is written down: until then a kill costs another identify
    (docs/delivery.md, "Where it ends").
    """

    def fact(status: Json) -> bool:
        try:
            found = {
                each for number in it.layout.clusters for each in written_down(it.gateway.state_dir, number)
            }
        except lmdb.Error:
            # It is read without a lock, while the gateway writes.
            return False
        return found >= set(sessions_of(status).values())

    await it.gateway.until(fact)


def _arrived_or_told(it: Stage, session: str, seq: int) -> bool:
    receipt = it.receipts.sessions.get(session)
    if receipt is not None and receipt.highest >= seq:
        return True
    if not ended_by_discord(it.sim.ledger.sessions[session]):
        return False
    return any(decode_gap(gap).old_session == session for gap in it.receipts.gaps)


def ended_by_discord(record: SessionRecord) -> bool:
    """Whether Discord holds that session no more, and not because we said so."""
    return record.ended is not None and record.ended != ENDED_BY_CLIENT


def _has_old_log(cluster: Json) -> bool:
    """RabbitMQ does not bring a stream back whose node is killed right after its declaration (docs/rabbitmq.md)."""
    return bool(cluster["event_log"]["state"] == "kept" and cluster["event_log"]["since_s"] > WRITTEN_DOWN_S)


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@asynccontextmanager
async def ground(
    folder: Path, broker: Broker, processes: int, event_log: bool = False
) -> AsyncIterator[Ground]:
    """A gateway of so many processes under a live load, started; with an event log, one that a kill does not forget,
    and a bot that gets its events through proxies.
    """
    address = urlsplit(broker.uri)
    assert address.hostname is not None
    clock = Clock(folder / "clock")
    async with (
        Relay(address.hostname, broker.port) as relay,
        Relay("127.0.0.1", 0) as resume_host,
        Relay("127.0.0.1", 0) as rest,
        stage(
            folder,
            broker,
            shards=SHARDS,
            per_cluster=2,
            guilds=GUILDS,
            members=5,
            simulator={"replay_events": BUFFER, "resume_hosts": 2, "heartbeat_interval_ms": HEARTBEAT_MS},
            amqp_uri=broker.uri.replace(f":{broker.port}/", f":{relay.port}/"),
            start=False,
            expect=frozenset({"*"}),
            collector=None,
            PROCESSES=str(processes),
            STOP_TIMEOUT="5",
            # Sessions are taken away young, again and again, on purpose.
            CRASH_LOOP_IDENTIFIES="0",
            EVENT_LOG="stream" if event_log else "off",
            URGENT="INTERACTION_CREATE" if event_log else "",
            # The whole run is in it.
            EVENT_LOG_AGE="2d",
            EVENT_LOG_BYTES="8GiB",
            **clock.environment,
        ) as it,
    ):
        host, api = it.sim.gateway.resume_host(1), urlsplit(it.sim.api_url)
        assert api.port is not None
        resume_host.target, host.announced = host.port, resume_host.port
        rest.target = api.port
        it.gateway.environment["DISCORD_API_URL"] = it.sim.api_url.replace(f":{api.port}", f":{rest.port}")
        await it.gateway.start()
        await it.ready()
        if event_log:
            await it.gateway.until(lambda status: all(map(_has_old_log, status["clusters"])))
        async with AsyncExitStack() as stack:
            bots = None
            if event_log:
                bots = await stack.enter_async_context(bots_side(folder, it, SHARDS, clock.environment))
            it.sim.set_rate(RATE)
            yield Ground(it, relay, (resume_host, rest), clock, bots)
