"""The source of events: the living world at a rate, or a recorded pool of its events at any rate.

*Living*: each event is a step of the world, so that world and ledger agree at any moment. *Recorded*: a pool of events
is taken from the world beforehand and sent again and again under new numbers; the world stands still meanwhile. Flat
out, a recorded stream is compressed in runs, so that a source of a hundred thousand events a second costs little beside
what is measured.
"""

from __future__ import annotations

import asyncio
import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice

from rateway_simulator.gateway import wire
from rateway_simulator.gateway.gateway import Gateway, encode
from rateway_simulator.gateway.sessions import Event, Session, message
from rateway_simulator.judge.ledger import digest
from rateway_simulator.options import FLAT_OUT
from rateway_simulator.world.steps import step
from rateway_simulator.world.visibility import trimmed, visible

# A timer of the event loop is no finer than this.
SHORTEST_TICK_S = 0.001
LONGEST_TICK_S = 0.25
# How long the source may hold the event loop, and how far it may fall behind before it lets its debt go.
SLICE_S = 0.01
DEBT_S = 1.0
# Messages compressed together; between runs heartbeats are acknowledged.
RUN_MESSAGES = 250
# More than a decoder's window holds: repetitions must not compress better than news.
SMALLEST_POOL = 400
# How often a step is drawn for one event of a pool.
DRAWS = 5
# Steps of the world between two looks at the event loop.
TURNS_AT_ONCE = 100
# Repeating these would make no sense of what follows.
NOT_RECORDED = frozenset({"GUILD_CREATE", "GUILD_DELETE"})


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A run with the numbers from `first_seq` on."""

    first_seq: int
    run: wire.Run
    events: list[Event]
    names: array[int]
    digests: array[int]


class _Tape:
    """One session's recorded stream."""

    def __init__(self, session: Session, pool: list[Event]) -> None:
        self.session = session
        self.pool = pool
        self.events: Iterator[Event] = cycle(pool)
        self.prepared: list[_Prepared] = []
        self.planned = 0


class Source:
    """Makes events happen. `run` is its task; `set` may be called at any time."""

    def __init__(self, gateway: Gateway) -> None:
        options = gateway.options
        self.rate = options.rate
        self.per_shard = options.rate_per_shard
        self.recorded = options.recorded
        self.left = options.source_events
        self.state = "idle"
        self._gateway = gateway
        self._chance = random.Random(options.seed + 1)
        self._tapes: dict[str, _Tape] = {}
        self._turn = 0
        self._changed = asyncio.Event()

    def set(
        self, rate: float, *, per_shard: bool = False, recorded: bool = False, events: int | None = None
    ) -> None:
        """A new rate (events a second), from now on; `events` is how many are left to be made, None for no end."""
        self.rate, self.per_shard, self.recorded, self.left = rate, per_shard, recorded, events
        self.state = "starting"
        self._changed.set()
        self._gateway.changed.set()

    async def run(self) -> None:
        """Never returns."""
        while True:
            self._changed.clear()
            if self.rate <= 0 or self.left == 0:
                self.state = "idle" if self.left != 0 else "done"
                await self._changed.wait()
                continue
            await self._wait_for_sessions()
            self.state = "running"
            if self.rate != FLAT_OUT:
                await self._paced()
            elif self.recorded:
                await self._flood()
            else:
                await self._flat_out()

    @property
    def _going(self) -> bool:
        return not self._changed.is_set() and self.left != 0

    async def _wait_for_sessions(self) -> None:
        # No client has seen the world yet: nothing needs to happen in it.
        self.state = "waiting for a session"
        while not self._gateway.sessions and not self._changed.is_set():
            self._gateway.changed.clear()
            await self._gateway.changed.wait()

    def _spend(self, amount: int) -> int:
        if self.left is None:
            return amount
        amount = min(amount, self.left)
        self.left -= amount
        return amount

    # At a rate

    async def _paced(self) -> None:
        loop = self._gateway.loop
        due_at = loop.time()
        while self._going:
            if self.recorded:
                await self._record_all()
            sessions = self._gateway.sessions
            if not sessions or not self._going:
                return
            rate = self.rate * len(sessions) if self.per_shard else self.rate
            now = loop.time()
            due_at = max(due_at, now - DEBT_S)
            amount = self._spend(int((now - due_at) * rate))
            done = self._happen(amount, now + max(SLICE_S, SHORTEST_TICK_S))
            if self.left is not None:
                self.left += amount - done
            due_at += done / rate
            tick = min(max(1 / rate, SHORTEST_TICK_S), LONGEST_TICK_S)
            await asyncio.sleep(tick if loop.time() < now + SLICE_S else 0)

    def _happen(self, amount: int, deadline: float) -> int:
        """Make up to so many events, until the deadline; how many."""
        gateway, clock = self._gateway, self._gateway.loop.time
        done = 0
        if self.recorded:
            tapes = [tape for tape in self._tapes.values() if tape.pool and not tape.session.pending]
            while done < amount and tapes and clock() < deadline:
                self._turn += 1
                tape = tapes[self._turn % len(tapes)]
                name, data = next(tape.events)
                gateway.deliver(tape.session, name.decode(), data)
                done += 1
            return done if tapes else amount
        wall = gateway.ledger.wall()
        while done < amount and clock() < deadline:
            gateway.dispatch(step(gateway.world, self._chance, wall))
            done += 1
        return done

    async def _flat_out(self) -> None:
        gateway = self._gateway
        while self._going and gateway.sessions:
            gateway.changed.clear()
            if gateway.all_writable():
                amount = self._spend(256)
                deadline = gateway.loop.time() + SLICE_S
                done = self._happen(amount, deadline)
                if self.left is not None:
                    self.left += amount - done
                await asyncio.sleep(0)
            else:
                await gateway.changed.wait()

    # Recorded

    async def _record_all(self) -> None:
        """A tape for each session that lives, and no others."""
        sessions = self._gateway.sessions
        for gone in [key for key in self._tapes if key not in sessions]:
            del self._tapes[gone]
        for session in [each for each in sessions.values() if each.id not in self._tapes]:
            self._tapes[session.id] = _Tape(session, await self._pool(session))

    async def _pool(self, session: Session) -> list[Event]:
        gateway = self._gateway
        guilds = gateway.guilds_of(session.shard, session.shard_count)
        wanted = max(SMALLEST_POOL, gateway.options.recorded_pool // max(1, len(gateway.sessions)))
        pool: list[Event] = []
        gateway.drain()
        for turn in range(wanted * DRAWS if guilds else 0):
            if turn % TURNS_AT_ONCE == 0:
                await asyncio.sleep(0)
            guild_id = guilds[int(self._chance.random() * len(guilds))]
            event = step(gateway.world, self._chance, gateway.ledger.wall(), guild_id)
            if event.name not in NOT_RECORDED and visible(event, session.intents):
                pool.append(
                    (event.name.encode(), encode(trimmed(event, session.intents, gateway.world.bot_id)))
                )
                if len(pool) == wanted:
                    break
        gateway.world.drain()
        return pool

    def _prepare(self, tape: _Tape, first_seq: int, amount: int) -> _Prepared:
        events = list(islice(tape.events, amount))
        return self._compressed(tape.session, events, first_seq)

    def _compressed(self, session: Session, events: list[Event], first_seq: int) -> _Prepared:
        name_index = self._gateway.ledger.name_index
        compression = self._gateway.ledger.sessions[session.id].compress
        run = wire.run(
            compression, [message(name, first_seq + at, data) for at, (name, data) in enumerate(events)]
        )
        names = array("H", [name_index(name.decode()) for name, _ in events])
        digests = array("I", [digest(data) for _, data in events])
        return _Prepared(first_seq, run, events, names, digests)

    async def _flood(self) -> None:
        gateway = self._gateway
        await self._wait_for_guilds()
        await self._record_all()
        if self.left is not None:
            await self._prepare_all()
        self.state = "running"
        while self._going and gateway.sessions:
            gateway.changed.clear()
            progress = False
            await self._record_all()
            for tape in list(self._tapes.values()):
                connection = gateway.connection_of(tape.session)
                if self.left != 0 and connection is not None and connection.writable and tape.pool:
                    self._send_run(tape)
                    progress = True
            if progress:
                await asyncio.sleep(0)
            else:
                await gateway.changed.wait()

    async def _wait_for_guilds(self) -> None:
        self.state = "waiting for guilds"
        while self._gateway.streaming and self._going:
            self._gateway.changed.clear()
            await self._gateway.changed.wait()

    async def _prepare_all(self) -> None:
        """Compress all that is left before the first byte of it leaves."""
        self.state = "preparing"
        tapes = [tape for tape in self._tapes.values() if tape.pool]
        left = self.left or 0
        for place, tape in enumerate(tapes):
            share = left // len(tapes) + (place < left % len(tapes))
            first_seq = tape.session.seq + 1
            tape.prepared.clear()
            while share and self._going:
                amount = min(RUN_MESSAGES, share)
                tape.prepared.append(self._prepare(tape, first_seq, amount))
                first_seq, share = first_seq + amount, share - amount
                await asyncio.sleep(0)
            tape.prepared.reverse()

    def _send_run(self, tape: _Tape) -> None:
        gateway, session = self._gateway, tape.session
        connection = gateway.connection_of(session)
        assert connection is not None
        if tape.prepared:
            prepared = tape.prepared.pop()
            if prepared.first_seq != session.seq + 1:
                # Something else took a number meanwhile.
                prepared = self._compressed(session, prepared.events, session.seq + 1)
            self._spend(len(prepared.events))
        else:
            prepared = self._prepare(tape, session.seq + 1, self._spend(RUN_MESSAGES))
        connection.send_run(prepared.run)
        session.extend(prepared.events, len(prepared.events), gateway.loop.time())
        gateway.ledger.sent_many(session.id, prepared.first_seq, prepared.names, prepared.digests)
        gateway.deliveries += len(prepared.events)
