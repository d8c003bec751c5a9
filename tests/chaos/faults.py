"""How is each fault made? One function a kind; each ends with everything mended, none waits for recovery."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from rateway.demo.relay import Relay
from rateway.simulator.faults import Fault
from tests.chaos.plan import Step
from tests.e2e.harness import Stage

__all__ = ["FAULTS", "Ground"]

# Away for longer than the simulated Discord's buffer holds (docs of the run: BUFFER events at RATE a shard).
LONG_S = 24.0


@dataclass(slots=True)
class Ground:
    """What faults act on, and what they have cost so far."""

    stage: Stage
    relay: Relay
    processes: int
    lost_sessions: int = 0
    """Sessions that a fault took away for good: each may cost one identify and a gap."""

    async def workers(self) -> list[int]:
        """Pids of the worker processes; empty with one process."""
        status = await self.stage.gateway.status()
        if status is None:
            return []
        return [process["pid"] for process in status["processes"] if process["role"].startswith("worker")]

    async def again(self) -> None:
        """Start the gateway once the one before has given up the state folder (the next waits for that by itself)."""
        await self.stage.gateway.start()


async def kill_gateway(ground: Ground, step: Step) -> None:
    for pid in await ground.workers():
        _signal(pid, signal.SIGKILL)
    await ground.stage.gateway.kill()
    await ground.again()


async def kill_supervisor(ground: Ground, step: Step) -> None:
    """Its workers, if there are any, close in order by themselves; the next gateway waits for them."""
    await ground.stage.gateway.kill()
    await ground.again()


async def kill_worker(ground: Ground, step: Step) -> None:
    workers = await ground.workers()
    if not workers:
        await kill_gateway(ground, step)
    else:
        _signal(workers[int(step.size * len(workers))], signal.SIGKILL)


async def stop_gateway(ground: Ground, step: Step) -> None:
    await ground.stage.gateway.stop()
    await ground.again()


async def freeze(ground: Ground, step: Step) -> None:
    pids = [*await ground.workers(), ground.stage.gateway.pid]
    for pid in pids:
        _signal(pid, signal.SIGSTOP)
    await asyncio.sleep(1.0 + 2.0 * step.size)
    for pid in pids:
        _signal(pid, signal.SIGCONT)


async def broker_killed(ground: Ground, step: Step) -> None:
    await ground.stage.broker.kill()
    await ground.stage.broker.start()


async def broker_restarted(ground: Ground, step: Step) -> None:
    await ground.stage.broker.restart()


async def broker_away_and_gateway_killed(ground: Ground, step: Step) -> None:
    """Longer than Discord's buffer, and the gateway dies in the middle: only its spool can know."""
    ground.relay.refuse(True)
    await asyncio.sleep(LONG_S / 2)
    await kill_gateway(ground, step)
    await asyncio.sleep(LONG_S / 2)
    ground.relay.refuse(False)


async def broker_connections_closed(ground: Ground, step: Step) -> None:
    await ground.stage.broker.close_connections()


async def broker_blocks(ground: Ground, step: Step) -> None:
    """The memory alarm: publishers are blocked, consumers are not."""
    await ground.stage.broker.ctl("set_vm_memory_high_watermark", "0.000001")
    await asyncio.sleep(0.5 + 2.0 * step.size)
    await ground.stage.broker.ctl("set_vm_memory_high_watermark", "0.4")


async def broker_network_cut(ground: Ground, step: Step) -> None:
    ground.relay.cut()


async def broker_network_away(ground: Ground, step: Step) -> None:
    ground.relay.refuse(True)
    await asyncio.sleep(0.5 + 4.0 * step.size)
    ground.relay.refuse(False)


async def broker_network_stalls(ground: Ground, step: Step) -> None:
    ground.relay.stall(True)
    await asyncio.sleep(0.5 + 3.0 * step.size)
    ground.relay.stall(False)


async def a_queue_rejects(ground: Ground, step: Step) -> None:
    """A second queue that is full and rejects: the broker refuses every event, until the queue is gone."""
    broker, names = ground.stage.broker, ground.stage.collector.names
    vhost, queue = broker.vhost, "rateway-chaos-full"
    arguments = {"x-max-length": 0, "x-overflow": "reject-publish"}
    await broker.api("PUT", f"queues/{vhost}/{queue}", {"durable": True, "arguments": arguments})
    for name in [*names[:: max(1, len(names) // 8)], "PRESENCE_UPDATE", "MESSAGE_CREATE"]:
        await broker.api("POST", f"bindings/{vhost}/e/rateway-1/q/{queue}", {"routing_key": name})
    await asyncio.sleep(0.5 + 2.0 * step.size)
    await broker.api("DELETE", f"queues/{vhost}/{queue}")


async def rest_away_at_start(ground: Ground, step: Step) -> None:
    """A restart needs no answer from REST."""
    await ground.stage.sim.inject(Fault(kind="rest", status=503 if step.size < 0.5 else 0, seconds=4.0))
    await kill_gateway(ground, step)


async def another_recommendation(ground: Ground, step: Step) -> None:
    """Discord recommends another number of shards: sessions and layout stay."""
    await ground.stage.sim.inject(Fault(kind="shards", value=1 + int(step.size * 16)))
    await stop_gateway(ground, step)


async def torn_store(ground: Ground, step: Step) -> None:
    """Everything is delivered, the gateway is killed, its store is torn: sessions are gone, and that is said."""
    stage = ground.stage
    rate = stage.sim.source.rate
    stage.sim.set_rate(0)
    await stage.settled()
    # Without sessions the recommendation counts again.
    await stage.sim.inject(Fault(kind="shards", value=stage.layout.shards))
    await kill_processes(ground)
    for store in stage.gateway.state_dir.glob("clusters/*/store/data.mdb"):
        _tear(store)
    # Nobody will resume them: what the simulator would still keep for them is not to be counted as sent.
    await stage.sim.inject(Fault(kind="forget"))
    ground.lost_sessions += stage.layout.shards
    await ground.again()
    await stage.ready()
    stage.sim.set_rate(rate)


async def kill_processes(ground: Ground) -> None:
    for pid in await ground.workers():
        _signal(pid, signal.SIGKILL)
    await ground.stage.gateway.kill()


def _tear(store: Path) -> None:
    with store.open("r+b") as file:
        file.write(os.urandom(8192))


async def op9_lost(ground: Ground, step: Step) -> None:
    ground.lost_sessions += await ground.stage.sim.inject(Fault(kind="op9", shards="random:1"))


def discord(**fault: object) -> Callable[[Ground, Step], Awaitable[None]]:
    """A fault of the simulated Discord's own, on one shard or all."""

    async def inject(ground: Ground, step: Step) -> None:
        shards = "all" if step.size > 0.7 else "random:1"
        await ground.stage.sim.inject(Fault(**{"shards": shards, **fault}))  # type: ignore[arg-type]  # a table of keywords

    return inject


async def close(ground: Ground, step: Step) -> None:
    shards = "all" if step.size > 0.7 else "random:1"
    await ground.stage.sim.inject(Fault(kind="close", code=step.code(), shards=shards))


def dialling(**fault: object) -> Callable[[Ground, Step], Awaitable[None]]:
    """A fault of dialling, and then every connection is cut so that it is met."""

    async def inject(ground: Ground, step: Step) -> None:
        await ground.stage.sim.inject(Fault(**fault))  # type: ignore[arg-type]  # a table of keywords
        await ground.stage.sim.inject(Fault(kind="cut"))

    return inject


def _signal(pid: int | None, number: signal.Signals) -> None:
    if pid is None:
        return
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


FAULTS: dict[str, Callable[[Ground, Step], Awaitable[None]]] = {
    "kill_gateway": kill_gateway,
    "kill_worker": kill_worker,
    "kill_supervisor": kill_supervisor,
    "stop_gateway": stop_gateway,
    "freeze": freeze,
    "broker_killed": broker_killed,
    "broker_restarted": broker_restarted,
    "broker_away_and_gateway_killed": broker_away_and_gateway_killed,
    "broker_connections_closed": broker_connections_closed,
    "broker_blocks": broker_blocks,
    "broker_network_cut": broker_network_cut,
    "broker_network_away": broker_network_away,
    "broker_network_stalls": broker_network_stalls,
    "a_queue_rejects": a_queue_rejects,
    "cut": discord(kind="cut"),
    "op7": discord(kind="op7"),
    "op9_resumable": discord(kind="op9", resumable=True),
    "op9_lost": op9_lost,
    "close": close,
    "corrupt": discord(kind="corrupt"),
    "dead_resume_hosts": dialling(kind="dead_host", seconds=2.0),
    "refusing_resume_hosts": dialling(kind="refusing_host", status=503, seconds=2.0),
    "silent_resume_hosts": dialling(kind="silent_host", seconds=3.0),
    "upgrades_refused": dialling(kind="upgrade", status=429, retry_after=1.0, count=2),
    "no_hello": dialling(kind="no_hello", count=1),
    "op7_for_hello": dialling(kind="op7_hello", count=2),
    "rest_away_at_start": rest_away_at_start,
    "another_recommendation": another_recommendation,
    "torn_store": torn_store,
}
