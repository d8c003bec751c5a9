"""Make each kind of fault: one function a kind; each ends with everything mended, none waits for recovery."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
from aio_pika.exceptions import ChannelNotFoundEntity
from rateway import exit_codes
from rateway.demo.children import Child
from rateway.demo.relay import Relay
from rateway_protocol.contract import topology
from rateway_simulator.faults import Fault

from tests.chaos.bots_side import BotsSide
from tests.chaos.ground import BUFFER, RATE, SHARDS, Ground, arrived, send
from tests.chaos.machine import disk_full, immutable
from tests.chaos.plan import CODES, LOSING_CODES, Step
from tests.e2e.witness import all_live, all_settled

__all__ = ["FAULTS"]

# Between two looks at the broker.
LOOK_S = 0.05
# Of the wall clock, seconds: set right by a little, wrong by a time zone, by days.
JUMPS = (-0.9, 3600.0, -3 * 86_400.0, 7.0, -3600.0, 400 * 86_400.0)

Make = Callable[[Ground, Step], Awaitable[None]]


# Processes


async def kill_gateway(ground: Ground, step: Step) -> None:
    await ground.kill()
    await ground.again()


async def kill_supervisor(ground: Ground, step: Step) -> None:
    """Its runners, if there are any, close in order by themselves; the next gateway waits for them."""
    await ground.stage.gateway.kill()
    await ground.again()


async def kill_runner(ground: Ground, step: Step) -> None:
    runners = ground.runners
    if runners:
        send(runners[int(step.size * len(runners))], signal.SIGKILL)
    else:
        await kill_gateway(ground, step)


async def stop_gateway(ground: Ground, step: Step) -> None:
    await _stop(ground)
    await ground.again()


async def _stop(ground: Ground) -> None:
    """SIGTERM. It may strike in the middle of a start, before there is anything to close in order."""
    code = await ground.stage.gateway.terminate(patience=60.0)
    assert code in (0, 130, -signal.SIGTERM), f"the gateway ended with {code}"


async def freeze(ground: Ground, step: Step) -> None:
    """Everything stands still, or one worker alone."""
    pids = ground.processes if step.turn % 2 else ground.processes[:1]
    for pid in pids:
        send(pid, signal.SIGSTOP)
    await asyncio.sleep(0.5 + 2.5 * step.size)
    for pid in pids:
        send(pid, signal.SIGCONT)


# The broker


async def broker_killed(ground: Ground, step: Step) -> None:
    await ground.stage.broker.kill()
    await ground.stage.broker.start()


async def broker_restarted(ground: Ground, step: Step) -> None:
    await ground.stage.broker.restart()


async def long_outage_and_gateway_killed(ground: Ground, step: Step) -> None:
    """More events than Discord's buffer holds, and the gateway dies in the middle: only its spool can know."""
    it = ground.stage
    ground.relay.refuse(True)
    for half in (1, 2):
        await it.gateway.until(all_live)
        await it.events(int(0.6 * BUFFER * SHARDS), rate=3000)
        await it.gateway.until(all_settled)
        it.sim.set_rate(RATE)
        if half == 1:
            await kill_gateway(ground, step)
    ground.relay.refuse(False)


async def broker_connections_closed(ground: Ground, step: Step) -> None:
    await ground.stage.broker.close_connections()


async def broker_blocks(ground: Ground, step: Step) -> None:
    """The memory alarm: publishers are blocked, consumers are not."""
    await ground.stage.broker.ctl("set_vm_memory_high_watermark", "0.000001")
    await asyncio.sleep(2.0 * step.size)
    await ground.stage.broker.ctl("set_vm_memory_high_watermark", "0.4")


@asynccontextmanager
async def _at_broker(ground: Ground) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    """A connection of our own, past the relay."""
    async with await aio_pika.connect(ground.stage.broker.uri) as connection:
        yield connection


async def a_queue_rejects(ground: Ground, step: Step) -> None:
    """A second queue that is full and rejects: the broker refuses every event, until the queue is gone."""
    names = ground.stage.collector.names
    exchange = topology.exchange(1 + step.turn % 2)
    async with _at_broker(ground) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(
            "rateway-chaos-full", durable=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
        )
        for name in [*names[:: max(1, len(names) // 8)], "PRESENCE_UPDATE", "MESSAGE_CREATE"]:
            await queue.bind(exchange, name)
        await asyncio.sleep(0.5 + 2.0 * step.size)
        await queue.delete(if_unused=False, if_empty=False)


async def exchange_deleted(ground: Ground, step: Step) -> None:
    """The workers' bindings go with it, so nothing happens until ours are there again, and no shard gets through to
    Discord: no event is published to nobody. What the gateway says of its shards meets the missing exchange.
    """
    it = ground.stage
    it.sim.set_rate(0)
    await arrived(it)
    async with _at_broker(ground) as connection:
        async with connection.channel() as channel:
            for cluster in it.layout.clusters:
                await channel.exchange_delete(topology.exchange(cluster))
        await it.sim.inject(Fault(kind="upgrade", status=503, seconds=600.0))
        await it.sim.inject(Fault(kind="op9", resumable=True))
        for cluster in it.layout.clusters:
            await _bind_again(connection, ground, cluster)
    it.sim.gateway.upgrades.status = 0
    it.sim.set_rate(RATE)


async def _bind_again(connection: aio_pika.abc.AbstractConnection, ground: Ground, cluster: int) -> None:
    collector, exchange = ground.stage.collector, topology.exchange(cluster)
    while not await _is_there(connection, exchange):  # noqa: ASYNC110  # the broker announces it nowhere
        await asyncio.sleep(LOOK_S)
    async with connection.channel() as channel:
        queue = await channel.get_queue(collector.queue_name(cluster))
        for name in collector.names:
            await queue.bind(exchange, name)


async def _is_there(connection: aio_pika.abc.AbstractConnection, exchange: str) -> bool:
    async with connection.channel() as channel:
        try:
            await channel.get_exchange(exchange)
        except ChannelNotFoundEntity:
            return False
    return True


# The network


def cut(where: Callable[[Ground], Iterable[Relay]]) -> Make:
    async def make(ground: Ground, step: Step) -> None:
        for relay in where(ground):
            relay.cut()

    return make


def away(where: Callable[[Ground], Iterable[Relay]]) -> Make:
    async def make(ground: Ground, step: Step) -> None:
        for relay in where(ground):
            relay.refuse(True)
        await asyncio.sleep(0.5 + 3.0 * step.size)
        for relay in where(ground):
            relay.refuse(False)

    return make


def stalls(where: Callable[[Ground], Iterable[Relay]]) -> Make:
    """Nothing passes and nothing is closed."""

    async def make(ground: Ground, step: Step) -> None:
        for relay in where(ground):
            relay.stall(True)
        await asyncio.sleep(0.5 + 3.0 * step.size)
        for relay in where(ground):
            relay.stall(False)

    return make


def delayed(where: Callable[[Ground], Iterable[Relay]]) -> Make:
    async def make(ground: Ground, step: Step) -> None:
        for relay in where(ground):
            relay.delay(0.02 + 0.3 * step.size)
        await asyncio.sleep(2.0)
        for relay in where(ground):
            relay.delay(0.0)

    return make


def to_broker(ground: Ground) -> Iterable[Relay]:
    return (ground.relay,)


def to_discord(ground: Ground) -> Iterable[Relay]:
    return ground.discord


# Discord


def discord(**fault: object) -> Make:
    """A fault of the simulated Discord's own, on one shard or all."""

    async def make(ground: Ground, step: Step) -> None:
        shards = "all" if step.size > 0.7 else "random:1"
        await ground.stage.sim.inject(Fault(**{"shards": shards, **fault}))  # type: ignore[arg-type]  # a table of keywords

    return make


async def close(ground: Ground, step: Step) -> None:
    """Each shard with a code of its own, so that every code has its turn soon."""
    for shard in range(SHARDS):
        code = CODES[(step.turn * SHARDS + shard) % len(CODES)]
        await ground.stage.sim.inject(Fault(kind="close", code=code, shards=str(shard)))


async def close_lost(ground: Ground, step: Step) -> None:
    code = LOSING_CODES[step.turn % len(LOSING_CODES)]
    await ground.stage.sim.inject(Fault(kind="close", code=code, shards="random:1"))


async def silence(ground: Ground, step: Step) -> None:
    """Sends nothing and acknowledges nothing for a while."""
    await ground.stage.sim.inject(Fault(kind="silence", seconds=0.5 + 2.5 * step.size))


def dialling(**fault: object) -> Make:
    """A fault of dialling, and then every connection is cut so that it is met."""

    async def make(ground: Ground, step: Step) -> None:
        await ground.stage.sim.inject(Fault(**fault))  # type: ignore[arg-type]  # a table of keywords
        await ground.stage.sim.inject(Fault(kind="cut"))

    return make


async def rest_away_at_start(ground: Ground, step: Step) -> None:
    """A restart needs no answer from REST."""
    await ground.stage.sim.inject(Fault(kind="rest", status=503 if step.turn % 2 else 0, seconds=4.0))
    await kill_gateway(ground, step)


async def another_recommendation(ground: Ground, step: Step) -> None:
    """Discord recommends another number of shards: sessions and layout stay."""
    await ground.stage.sim.inject(Fault(kind="shards", value=1 + int(step.size * 16)))
    await stop_gateway(ground, step)


# The machine


async def full_disk(ground: Ground, step: Step) -> None:
    """No file may grow: alone, with a broker that is away (the spool takes nothing), or with a kill in the middle."""
    disk_full(ground.processes, (0, 4096, 65_536)[int(3 * step.size)])
    if step.turn % 3 == 1:
        ground.relay.refuse(True)
    await asyncio.sleep(1.0 + 2.5 * step.size)
    if step.turn % 3 == 2:
        await kill_gateway(ground, step)
    ground.relay.refuse(False)
    disk_full(ground.processes, None)
    await _looked_after(ground)


async def state_read_only(ground: Ground, step: Step) -> None:
    """The gateway is started on a folder that it may not write, and refuses; or the folder becomes so under it, with a
    broker or without one.
    """
    gateway = ground.stage.gateway
    if step.turn % 3 == 0:
        await _stop(ground)
        with immutable(gateway.state_dir):
            await gateway.start()
            assert await gateway.exited() == exit_codes.CONFIGURATION, gateway.tail()
    else:
        with immutable(gateway.state_dir):
            ground.relay.refuse(step.turn % 3 == 1)
            await asyncio.sleep(1.0 + 2.5 * step.size)
        ground.relay.refuse(False)
    # LMDB ends a process that cannot write the lock it shares with readers (SIGBUS). A runner is replaced.
    await _looked_after(ground)


async def _looked_after(ground: Ground) -> None:
    """What cannot write its folder ends: at its start, where it says so, or under way, if it is one process. Whoever
    looks after it starts it again.
    """
    gateway = ground.stage.gateway
    while gateway.running and await gateway.status() is None:  # noqa: ASYNC110  # a start announces itself nowhere
        await asyncio.sleep(LOOK_S)
    if not gateway.running:
        await ground.again()


async def torn_store(ground: Ground, step: Step) -> None:
    """Everything is delivered, the gateway is killed, its store is torn: sessions are gone, and that is said."""
    stage = ground.stage
    stage.sim.set_rate(0)
    await arrived(stage)
    # Without sessions the recommendation counts again.
    await stage.sim.inject(Fault(kind="shards", value=SHARDS))
    await ground.kill()
    for store in stage.gateway.state_dir.glob("clusters/*/store/data.mdb"):
        _tear(store)
    # Nobody will resume them: what the simulator would still keep for them is not to be counted as sent.
    await stage.sim.inject(Fault(kind="forget"))
    await ground.again()
    await stage.ready()
    stage.sim.set_rate(RATE)


def _tear(store: Path) -> None:
    with store.open("r+b") as file:
        file.write(os.urandom(8192))


async def clock_jumps(ground: Ground, step: Step) -> None:
    """The wall clock is set anew, and stays so until the next jump; now and then a restart finds another time."""
    ground.clock.move(JUMPS[step.turn % len(JUMPS)] * (0.5 + step.size))
    if step.turn % 2:
        await kill_gateway(ground, step)


# The bot's side


def _bots(ground: Ground) -> BotsSide:
    assert ground.bots is not None, "this lane has no bot"
    return ground.bots


async def proxy_killed(ground: Ground, step: Step) -> None:
    """One of two: the bot's next dial comes to the other."""
    proxy = _bots(ground).proxies[step.turn % 2]
    await proxy.kill()
    await proxy.start()


async def proxy_stopped(ground: Ground, step: Step) -> None:
    """It may strike in the middle of a start."""
    proxy = _bots(ground).proxies[step.turn % 2]
    code = await proxy.terminate(patience=60.0)
    assert code in (0, -signal.SIGTERM), f"the proxy ended with {code}"
    await proxy.start()


async def proxies_killed(ground: Ground, step: Step) -> None:
    for proxy in _bots(ground).proxies:
        await proxy.kill()
    for proxy in _bots(ground).proxies:
        await proxy.start()


async def proxy_frozen(ground: Ground, step: Step) -> None:
    await _frozen(_bots(ground).proxies[step.turn % 2], step)


async def bot_killed(ground: Ground, step: Step) -> None:
    """It is started again by itself."""
    await _bots(ground).bot.kill()


async def bot_frozen(ground: Ground, step: Step) -> None:
    await _frozen(_bots(ground).bot, step)


async def _frozen(child: Child, step: Step) -> None:
    child.signal(signal.SIGSTOP)
    await asyncio.sleep(0.5 + 2.5 * step.size)
    child.signal(signal.SIGCONT)


def proxies_to_broker(ground: Ground) -> Iterable[Relay]:
    return (_bots(ground).to_broker,)


def bot_to_proxies(ground: Ground) -> Iterable[Relay]:
    return (_bots(ground).front,)


FAULTS: dict[str, Make] = {
    "kill_gateway": kill_gateway,
    "kill_runner": kill_runner,
    "kill_supervisor": kill_supervisor,
    "stop_gateway": stop_gateway,
    "freeze": freeze,
    "broker_killed": broker_killed,
    "broker_restarted": broker_restarted,
    "long_outage_and_gateway_killed": (long_outage_and_gateway_killed),
    "broker_connections_closed": broker_connections_closed,
    "broker_blocks": broker_blocks,
    "a_queue_rejects": a_queue_rejects,
    "exchange_deleted": exchange_deleted,
    "broker_network_cut": cut(to_broker),
    "broker_network_away": away(to_broker),
    "broker_network_stalls": stalls(to_broker),
    "broker_network_delayed": delayed(to_broker),
    "discord_network_cut": cut(to_discord),
    "discord_network_away": away(to_discord),
    "discord_network_stalls": stalls(to_discord),
    "discord_network_delayed": delayed(to_discord),
    "cut": discord(kind="cut"),
    "op7": discord(kind="op7"),
    "op9_resumable": discord(kind="op9", resumable=True),
    "op9_lost": discord(kind="op9", shards="random:1"),
    "close": close,
    "close_lost": close_lost,
    "corrupt": discord(kind="corrupt"),
    "silence": silence,
    "dead_resume_hosts": dialling(kind="dead_host", seconds=2.0),
    "refusing_resume_hosts": dialling(kind="refusing_host", status=503, seconds=2.0),
    "silent_resume_hosts": dialling(kind="silent_host", seconds=3.0),
    "upgrades_refused": dialling(kind="upgrade", status=429, retry_after=1.0, count=2),
    "no_hello": dialling(kind="no_hello", count=1),
    "op7_for_hello": dialling(kind="op7_hello", count=2),
    "rest_away_at_start": rest_away_at_start,
    "another_recommendation": another_recommendation,
    "disk_full": full_disk,
    "state_read_only": state_read_only,
    "torn_store": torn_store,
    "clock_jumps": clock_jumps,
    "proxy_killed": proxy_killed,
    "proxy_stopped": proxy_stopped,
    "proxies_killed": proxies_killed,
    "proxy_frozen": proxy_frozen,
    "proxy_broker_network_cut": cut(proxies_to_broker),
    "proxy_broker_network_away": away(proxies_to_broker),
    "proxy_broker_network_stalls": stalls(proxies_to_broker),
    "bot_killed": bot_killed,
    "bot_frozen": bot_frozen,
    "bot_network_cut": cut(bot_to_proxies),
    "bot_network_away": away(bot_to_proxies),
    "bot_network_stalls": stalls(bot_to_proxies),
}
