"""Carries faults out, at once or by a scenario's clock."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Mapping
from itertools import count

from rateway_simulator.faults import (
    ALL_RESUME_HOSTS,
    KINDS,
    MAIN_HOST,
    Fault,
    FaultError,
    Scheduled,
    as_json,
    chosen,
)
from rateway_simulator.gateway.connection import Connection
from rateway_simulator.gateway.gateway import Gateway
from rateway_simulator.gateway.hosts import Host, Mode
from rateway_simulator.judge.ledger import Injected
from rateway_simulator.rest.middleware import RestJudge

RECONNECT = b'{"t":null,"s":null,"op":7,"d":null}'
HEARTBEAT_REQUEST = b'{"t":null,"s":null,"op":1,"d":null}'
# Discord closes a connection some seconds after op 7.
RECONNECT_GRACE_S = 5.0
FOR_EVER = float("inf")

_MODES: Mapping[str, Mode] = {
    "dead_host": Mode.DEAD,
    "refusing_host": Mode.REFUSING,
    "silent_host": Mode.SILENT,
}


class Injector:
    """Knows how to make each kind of fault happen."""

    def __init__(self, gateway: Gateway, rest_judge: RestJudge, spawn: Callable[[Host], None]) -> None:
        """`spawn` reopens a host in the background."""
        self._gateway = gateway
        self._rest_judge = rest_judge
        self._reopen = spawn
        # When a host opens again; a later fault of the same host replaces it.
        self._reopening: dict[int, asyncio.TimerHandle] = {}

    async def inject(self, fault: Fault) -> int:
        """Make the fault happen now; how many connections it hit (0 for those of dialling and REST)."""
        hit = 0
        if KINDS[fault.kind].on_connections:
            hit = self._on_connections(fault)
        elif fault.kind in _MODES:
            await self._on_hosts(fault)
        else:
            self._on_everything(fault)
        ledger = self._gateway.ledger
        ledger.count(f"fault {fault.kind}")
        ledger.injected.append(Injected(ledger.wall(), as_json(fault), hit))
        return hit

    def _on_connections(self, fault: Fault) -> int:
        gateway = self._gateway
        if fault.kind == "forget":
            return self._forget(fault)
        alive = [each for each in gateway.connections if each.shard is not None and not each.closing]
        shards = chosen(
            fault.shards, [each.shard for each in alive if each.shard is not None], gateway.chance
        )
        hit = [connection for connection in alive if connection.shard in shards]
        for connection in hit:
            self._hit(connection, fault)
        return len(hit)

    def _hit(self, connection: Connection, fault: Fault) -> None:
        gateway = self._gateway
        match fault.kind:
            case "cut":
                gateway.cut(connection)
            case "op1":
                connection.send(HEARTBEAT_REQUEST)
                if connection.writable:
                    connection.beat_asked_at = gateway.loop.time()
            case "op7":
                connection.send(RECONNECT)
                gateway.loop.call_later(RECONNECT_GRACE_S, gateway.close, connection, 4000)
            case "op9":
                gateway.invalidate(connection, resumable=fault.resumable, why="op 9 on purpose")
            case "close":
                gateway.close(connection, fault.code)
            case "silence":
                connection.silence(fault.seconds)
            case "corrupt":
                connection.corrupt()
            case "deaf":
                if connection.session is not None:
                    connection.session.deaf = True
            case "slow":
                connection.slow(fault.bytes, fault.seconds)

    def _forget(self, fault: Fault) -> int:
        gateway = self._gateway
        sessions = list(gateway.sessions.values())
        shards = chosen(fault.shards, [session.shard for session in sessions], gateway.chance)
        hit = 0
        for session in sessions:
            if session.shard in shards:
                connection = gateway.connection_of(session)
                gateway.end(session, "forgotten on purpose")
                if connection is not None:
                    gateway.cut(connection)
                    hit += 1
        return hit

    async def _on_hosts(self, fault: Fault) -> None:
        mode = _MODES[fault.kind]
        for host in self._hosts(fault.host):
            host.status = fault.status
            await host.set_mode(mode)
            earlier = self._reopening.pop(host.number, None)
            if earlier is not None:
                earlier.cancel()
            if fault.seconds:
                timer = self._gateway.loop.call_later(fault.seconds, self._reopen, host)
                self._reopening[host.number] = timer

    def _hosts(self, name: str) -> list[Host]:
        hosts = self._gateway.hosts
        if name == "all":
            return list(hosts)
        if name == MAIN_HOST:
            return hosts[:1]
        if name == ALL_RESUME_HOSTS:
            return hosts[1:]
        if name.isdecimal() and int(name) < len(hosts) - 1:
            return [hosts[int(name) + 1]]
        raise FaultError(f"host={name!r} is not main, resume, all or a number below {len(hosts) - 1}")

    def _on_everything(self, fault: Fault) -> None:
        gateway, upgrades = self._gateway, self._gateway.upgrades
        until = gateway.loop.time() + fault.seconds if fault.seconds else FOR_EVER
        match fault.kind:
            case "upgrade":
                upgrades.status, upgrades.retry_after = fault.status, fault.retry_after
                upgrades.until, upgrades.count = until, fault.count
            case "no_hello" | "op7_hello":
                upgrades.hello, upgrades.hello_until, upgrades.hello_count = fault.kind, until, fault.count
            case "op9_identify" | "no_ready" | "no_guilds":
                gateway.identify_faults[fault.kind] = (until, fault.count)
            case "most_guilds":
                gateway.most_guilds = fault.value
            case "rest":
                self._rest_judge.outage(fault.status, fault.retry_after, until)
            case "shards":
                gateway.shards = fault.value
            case "concurrency":
                gateway.limits.max_concurrency = fault.value
            case "budget":
                gateway.limits.remaining = fault.value
            case "intents":
                self._switch_intents(fault.value)
            case "token_reset":
                gateway.reset_token()

    def _switch_intents(self, privileged: int) -> None:
        gateway = self._gateway
        revoked = gateway.privileged_intents & ~privileged
        gateway.privileged_intents = privileged
        gateway.fatal = {key: code for key, code in gateway.fatal.items() if code != 4014}
        for session in list(gateway.sessions.values()):
            if session.intents & revoked:
                connection = gateway.connection_of(session)
                if connection is None:
                    gateway.end(session, "an intent was switched off")
                else:
                    gateway.close(connection, 4003)

    async def play(self, scenario: tuple[Scheduled, ...]) -> None:
        """Inject a scenario's faults when their time has come; returns when none is left."""
        clock = self._gateway.loop.time
        started, order = clock(), count()
        waiting = [(entry.at, next(order), entry) for entry in scenario]
        heapq.heapify(waiting)
        while waiting:
            at, _, entry = heapq.heappop(waiting)
            await asyncio.sleep(started + at - clock())
            await self.inject(entry.fault)
            if entry.every:
                heapq.heappush(waiting, (at + entry.every, next(order), entry))
