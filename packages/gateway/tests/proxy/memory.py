"""Both ports of the proxy in memory: event logs as RabbitMQ's streams behave, and a gateway with state and positions.

Nothing here happens by itself. A reader delivers when its ``call_soon`` runs what it was given: an event loop's, or a
list's ``append`` in a test that decides the order of everything. :class:`MemoryCluster` writes histories: what Discord
sends changes the gateway's state first and stands in the log later, as in the gateway.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from rateway.delivery.proxy_port import Age, EndReason, LogEntry, LogSink, LogStart, Newest, Offset
from rateway_protocol.contract import messages
from rateway_protocol.contract.errors import ErrorCode, Fault
from rateway_protocol.contract.snapshots import (
    ClusterList,
    ClusterRow,
    GuildOfShard,
    GuildSnapshot,
    MemberList,
    ShardSnapshot,
)

# Entries delivered beyond the acknowledged one.
AHEAD = 1_000
BOT_ID = 80
Guild = dict[str, Any]
CallSoon = Callable[[Callable[[], None]], object]


# The log.


class MemoryLog:
    """One cluster's event log. Offsets grow by one and are never given twice, but for what :meth:`lose_last` lost."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.down = ""
        """Why it cannot be read just now; empty while it can."""
        self.now = 0
        """The time, in whole seconds since 1970, that is written beside entries, and that ages count from."""
        self._held_at: int | None = None
        self._segments: list[list[LogEntry]] = [[]]
        self._next = 0
        self._passes: list[MemoryPass] = []

    @property
    def entries(self) -> list[LogEntry]:
        """What is left, oldest first."""
        return list(itertools.chain.from_iterable(self._segments))

    @property
    def next_offset(self) -> int:
        """What the next entry gets."""
        return self._next

    def append(
        self,
        name: str,
        body: bytes,
        *,
        shard_id: int = -1,
        session: str = "",
        seq: int = 0,
        repeat: int = 0,
        is_out_of_order: bool = False,
    ) -> LogEntry:
        """Write an entry, and deliver it to whoever reads."""
        entry = LogEntry(
            self._next, name, body, shard_id, session, seq, repeat, is_out_of_order, self.now
        )  # fmt: skip
        self._next += 1
        self._segments[-1].append(entry)
        for each in self._passes:
            each.wake()
        return entry

    def append_again(self, entry: LogEntry, *, is_out_of_order: bool = False) -> LogEntry:
        """Write an entry a second time, as a gateway does after its death."""
        return self.append(
            entry.name, entry.body, shard_id=entry.shard_id, session=entry.session, seq=entry.seq,
            repeat=entry.repeat, is_out_of_order=is_out_of_order or entry.is_out_of_order,
        )  # fmt: skip

    def stall(self, at: int) -> None:
        """Deliver no entry from this offset on, as a slow broker does, until :meth:`go_on`."""
        self._held_at = at

    def go_on(self) -> None:
        """Deliver again."""
        self._held_at = None
        for each in self._passes:
            each.wake()

    def roll(self) -> None:
        """Begin a new segment. One offset is skipped, as RabbitMQ does."""
        self._next += 1
        self._segments.append([])

    def retain(self, segments: int) -> None:
        """Keep so many of the newest segments. What a pass has not delivered yet is gone for it, too."""
        del self._segments[: max(0, len(self._segments) - max(1, segments))]

    def lose_last(self, count: int) -> list[LogEntry]:
        """The broker's machine dies: entries that were not on disk yet are gone, their offsets are given again, and
        all passes end. Return what was lost."""
        lost: list[LogEntry] = []
        while len(lost) < count and any(self._segments):
            if self._segments[-1]:
                lost.append(self._segments[-1].pop())
            else:
                self._segments.pop()
        if lost:
            self._next = lost[-1].offset
        self.end_passes("disconnected", "the connection broke")
        return lost[::-1]

    def end_passes(self, reason: EndReason, text: str) -> None:
        """End all passes, as a lost connection does."""
        passes, self._passes = self._passes, []
        for each in passes:
            each.end(reason, text)

    def begin(self, start: LogStart) -> int:
        """Return the offset that a pass with this start begins with."""
        match start:
            case Offset(offset):
                return offset
            case Age(seconds):
                young = (each for each in self.entries if each.timestamp >= self.now - seconds)
                return next((each.offset for each in young), self._next)
            case Newest():
                return next((each.offset for each in reversed(self.entries)), self._next)
            case _:
                return self._next

    def after(self, offset: int, most: int) -> list[LogEntry]:
        """At most so many entries from that offset on."""
        found: list[LogEntry] = []
        for segment in self._segments:
            if segment and segment[-1].offset >= offset:
                found += [each for each in segment if each.offset >= offset][: most - len(found)]
            if len(found) >= most:
                break
        return found if self._held_at is None else [each for each in found if each.offset < self._held_at]

    def attach(self, added: MemoryPass) -> None:
        """A pass that is woken when something is written."""
        self._passes.append(added)

    def detach(self, gone: MemoryPass) -> None:
        """Forget a pass."""
        if gone in self._passes:
            self._passes.remove(gone)


class MemoryPass:
    """One pass: delivers in pieces of at most ``at_once`` entries, each in a call of its own."""

    def __init__(self, log: MemoryLog, start: LogStart, sink: LogSink, reader: MemoryReader) -> None:
        self._log = log
        self._sink = sink
        self._reader = reader
        self._start = start
        # None until it has begun: what is written before that is not seen by one that begins with what comes next.
        self._next: int | None = None
        # Delivered and not acknowledged.
        self._ahead: deque[int] = deque()
        self._is_open = True
        # Nothing is told any more: it was closed by whoever reads.
        self._is_silent = False
        self._is_scheduled = True
        log.attach(self)
        reader.call_soon(self._begin)

    def acknowledge(self, offset: int) -> None:
        """All entries up to ``offset`` were dealt with."""
        while self._ahead and self._ahead[0] <= offset:
            self._ahead.popleft()
        self.wake()

    def close(self) -> None:
        """Deliver nothing more."""
        self._is_open = False
        self._is_silent = True
        self._log.detach(self)

    def end(self, reason: EndReason, text: str) -> None:
        """End by itself; the sink is told in a call of its own."""
        if not self._is_open:
            return
        self._is_open = False
        self._log.detach(self)

        def tell() -> None:
            if not self._is_silent:
                self._sink.on_end(reason, text)

        self._reader.call_soon(tell)

    def wake(self) -> None:
        """There may be something to deliver."""
        if self._is_open and not self._is_scheduled:
            self._is_scheduled = True
            self._reader.call_soon(self._deliver)

    def _begin(self) -> None:
        self._is_scheduled = False
        if self._is_open:
            self._next = self._log.begin(self._start)
            self.wake()
            self._sink.on_begin()

    def _deliver(self) -> None:
        self._is_scheduled = False
        if not self._is_open or self._next is None:
            return
        most = min(self._reader.at_once, self._reader.ahead - len(self._ahead))
        entries = self._log.after(self._next, most) if most > 0 else []
        if not entries:
            return
        self._next = entries[-1].offset + 1
        self._ahead.extend(each.offset for each in entries)
        self.wake()
        self._sink.on_entries(entries)


class MemoryReader:
    """A :class:`~rateway.delivery.proxy_port.LogReader` of logs in memory."""

    def __init__(self, call_soon: CallSoon, *, at_once: int = 100, ahead: int = AHEAD) -> None:
        self.call_soon = call_soon
        self.at_once = at_once
        self.ahead = ahead
        self.logs: dict[str, MemoryLog] = {}
        self.is_connected = True

    def log(self, name: str) -> MemoryLog:
        """The log of that name, made where there is none."""
        return self.logs.setdefault(name, MemoryLog(name))

    def delete(self, name: str) -> None:
        """Delete a log; whoever reads it is told."""
        self.logs.pop(name).end_passes("missing", f"there is no log {name}")

    def take_down(self, name: str) -> None:
        """The node of a log goes down; whoever reads it is told. Up again: set ``down`` to an empty text."""
        log = self.logs[name]
        log.down = f"{name} is down or inaccessible"
        log.end_passes("down", log.down)

    def disconnect(self) -> None:
        """Lose the broker's connection: all passes end, and new ones end at once until ``is_connected`` is set."""
        self.is_connected = False
        for log in self.logs.values():
            log.end_passes("disconnected", "the connection broke")

    def read(self, log: str, start: LogStart, sink: LogSink) -> MemoryPass:
        found = self.logs.get(log)
        begun = MemoryPass(found or MemoryLog(log), start, sink, self)
        if not self.is_connected:
            begun.end("disconnected", "the connection broke")
        elif found is None:
            begun.end("missing", f"there is no log {log}")
        elif found.down:
            begun.end("down", found.down)
        return begun


class MemoryPositions:
    """:class:`~rateway.delivery.proxy_port.Positions` in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def keep(self, key: str, position: bytes) -> None:
        self.kept[key] = position

    async def read(self, key: str) -> bytes | None:
        return self.kept.get(key)


@dataclass
class Collected:
    """A :class:`~rateway.delivery.proxy_port.LogSink` that keeps what it is told."""

    has_begun: bool = False
    entries: list[LogEntry] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    ended: tuple[EndReason, str] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_begin(self) -> None:
        assert not self.has_begun and not self.entries
        self.has_begun = True
        self.changed.set()

    def on_entries(self, entries: Sequence[LogEntry]) -> None:
        assert self.has_begun and entries
        self.entries += entries
        self.batches.append(len(entries))
        self.changed.set()

    def on_end(self, reason: EndReason, text: str) -> None:
        assert self.ended is None
        self.ended = (reason, text)
        self.changed.set()

    async def until(self, condition: Callable[[Collected], bool]) -> None:
        """Wait for what it is told."""
        async with asyncio.timeout(60):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()


# The gateway.

# Event → (list in the guild, how its entries are told apart), for entities of a guild that come and go by events.
_ENTITIES: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "GUILD_MEMBER": ("members", lambda d: str(d["user"]["id"])),
    "CHANNEL": ("channels", lambda d: str(d["id"])),
    "GUILD_ROLE": ("roles", lambda d: str(d.get("role_id") or d["role"]["id"])),
}
_GONE = ("_REMOVE", "_DELETE")


class GuildStates:
    """Guilds as GUILD_CREATE and the events after it make them. The gateway's own state, and any bot's view of it."""

    def __init__(self, guilds: Iterable[Guild] = ()) -> None:
        self.guilds: dict[int, Guild] = {}
        for guild in guilds:
            self.apply("GUILD_CREATE", guild)

    def apply(self, name: str, d: Any) -> None:
        """Change the state by an event; others than those of a guild's own entities change nothing."""
        if name == "GUILD_CREATE":
            self.guilds[int(d["id"])] = json.loads(json.dumps(d))
            return
        if name == "GUILD_DELETE":
            if d.get("unavailable"):
                self.guilds[int(d["id"])] = {"id": d["id"], "unavailable": True}
            else:
                self.guilds.pop(int(d["id"]), None)
            return
        if name == "GUILD_UPDATE":
            if int(d["id"]) in self.guilds:
                self.guilds[int(d["id"])] |= d
            return
        kind, _, change = name.rpartition("_")
        if kind not in _ENTITIES or int(d.get("guild_id", 0)) not in self.guilds:
            return
        where, identity = _ENTITIES[kind]
        guild = self.guilds[int(d["guild_id"])]
        own = d["role"] if kind == "GUILD_ROLE" and "role" in d else d
        own = {key: value for key, value in own.items() if key != "guild_id"}
        others = [each for each in guild.get(where, ()) if _identity(where, each) != identity(d)]
        guild[where] = others if f"_{change}" in _GONE else [*others, own]

    def told(self, guild_id: int) -> Guild:
        """A guild in one form only: lists in the order of their ids."""
        guild = dict(self.guilds[guild_id])
        for where, _ in _ENTITIES.values():
            if where in guild:
                guild[where] = sorted(guild[where], key=lambda each: _identity(where, each))
        return guild


def _identity(where: str, entity: Any) -> str:
    return str(entity["user"]["id"] if where == "members" else entity["id"])


@dataclass
class MemoryShard:
    """One shard as the gateway's cache knows it."""

    shard_id: int
    session: str = ""
    seq: int = 0
    """The position: applied up to here."""
    states: GuildStates = field(default_factory=GuildStates)

    @property
    def is_known(self) -> bool:
        return bool(self.session)


@dataclass(frozen=True, slots=True)
class Sent:
    """A command that went out."""

    shard_id: int
    payload: bytes


class MemoryGateway:
    """A :class:`~rateway.delivery.proxy_port.Gateway` with state; each answer has a form that returns at once."""

    def __init__(
        self, clusters: Mapping[int, Sequence[int]], *, intents: int = (1 << 26) - 1, kinds: Sequence[str] = ("guilds",)
    ) -> None:  # fmt: skip
        self.cluster_of = {shard: cluster for cluster, shards in clusters.items() for shard in shards}
        self.shards = {shard: MemoryShard(shard) for shard in sorted(self.cluster_of)}
        self.logs: dict[int, str | None] = dict.fromkeys(clusters, None)
        self.intents = intents
        self.kinds = tuple(kinds)
        self.events: tuple[str, ...] | None = None
        self.events_except: tuple[str, ...] = ()
        self.elsewhere: set[int] = set()
        """Clusters that another gateway runs."""
        self.sent: list[Sent] = []
        self.refuse_commands: Fault | None = None
        self.fault: Fault | None = None
        """What every query is answered with, where that is set."""
        self._open = asyncio.Event()
        self._open.set()

    # How the gateway is.

    def hold(self) -> None:
        """Answer no query until :meth:`release`."""
        self._open.clear()

    def release(self) -> None:
        """Answer what waits, with the state of now."""
        self._open.set()

    # The port.

    async def clusters(self) -> ClusterList | Fault:
        await self._open.wait()
        return self.clusters_now()

    async def shard(self, shard_id: int) -> ShardSnapshot | Fault:
        await self._open.wait()
        return self.shard_now(shard_id)

    async def guilds(
        self, guild_ids: Sequence[int], intents: int, large_threshold: int
    ) -> list[GuildSnapshot | Fault]:
        await self._open.wait()
        return [self.guild_now(each) for each in guild_ids]

    async def members(
        self, guild_id: int, query: str | None, limit: int, user_ids: Sequence[int] | None, presences: bool
    ) -> MemberList | Fault:
        await self._open.wait()
        return self.members_now(guild_id, query, limit, user_ids, presences)

    async def command(self, shard_id: int, payload: bytes, seconds: float) -> Fault | None:
        await self._open.wait()
        return self.command_now(shard_id, payload)

    # The same, at once.

    def clusters_now(self) -> ClusterList | Fault:
        if self.fault is not None:
            return self.fault
        rows = tuple(
            ClusterRow(
                cluster, f"rateway-{cluster}",
                tuple(shard for shard, owner in self.cluster_of.items() if owner == cluster),
                owner="another" if cluster in self.elsewhere else "this",
                log=None if cluster in self.elsewhere else log,
            )
            for cluster, log in self.logs.items()
        )  # fmt: skip
        return ClusterList(len(self.shards), rows, self.intents, self.kinds, self.events, self.events_except)

    def shard_now(self, shard_id: int) -> ShardSnapshot | Fault:
        shard = self.shards.get(shard_id)
        if self.fault is not None or shard is None or not shard.is_known:
            return self.fault or _fault(shard is None, shard_id)
        user = {
            "id": str(BOT_ID), "username": "bot", "discriminator": "0", "avatar": None, "bot": True,
            "verified": True, "mfa_enabled": False,
        }  # fmt: skip
        guilds = tuple(
            GuildOfShard(str(each["id"]), bool(each.get("unavailable")))
            for each in shard.states.guilds.values()
        )
        return ShardSnapshot(
            shard_id, len(self.shards), shard.session, shard.seq, msgspec.Raw(msgspec.json.encode(user)),
            msgspec.Raw(b'{"id":"%d","flags":0}' % BOT_ID), guilds,
        )  # fmt: skip

    def guild_now(self, guild_id: int) -> GuildSnapshot | Fault:
        if self.fault is not None:
            return self.fault
        for shard in self.shards.values():
            if guild_id in shard.states.guilds:
                if shard.states.guilds[guild_id].get("unavailable"):
                    return Fault(ErrorCode.UNAVAILABLE, "the guild is in an outage")
                guild = msgspec.Raw(msgspec.json.encode(shard.states.told(guild_id)))
                return GuildSnapshot(shard.shard_id, shard.session, shard.seq, guild)
        return Fault(ErrorCode.INVALID, f"no guild {guild_id}")

    def members_now(
        self, guild_id: int, query: str | None, limit: int, user_ids: Sequence[int] | None, presences: bool
    ) -> MemberList | Fault:
        snapshot = self.guild_now(guild_id)
        if isinstance(snapshot, Fault):
            return snapshot
        shard = self.shards[snapshot.shard]
        guild = shard.states.told(guild_id)
        if guild.get("large"):
            return Fault(ErrorCode.INCOMPLETE, "the cache does not know all members")
        found = [
            each
            for each in guild.get("members", ())
            if (user_ids is None or int(each["user"]["id"]) in user_ids)
            and each["user"].get("username", "").startswith(query or "")
        ]
        known = {int(each["user"]["id"]) for each in found}
        return MemberList(
            shard.shard_id, shard.session, shard.seq,
            tuple(msgspec.Raw(msgspec.json.encode(each)) for each in found[: limit or None]),
            tuple(str(each) for each in user_ids or () if each not in known),
            () if presences else None,
        )  # fmt: skip

    def command_now(self, shard_id: int, payload: bytes) -> Fault | None:
        if self.refuse_commands is not None:
            return self.refuse_commands
        if shard_id not in self.shards:
            return _fault(True, shard_id)
        self.sent.append(Sent(shard_id, payload))
        return None


def _fault(is_missing: bool, shard_id: int) -> Fault:
    if is_missing:
        return Fault(ErrorCode.NO_SUCH_SHARD, f"there is no shard {shard_id}")
    return Fault(ErrorCode.LOADING, f"shard {shard_id} is still starting")


# A cluster: what Discord sends, what the gateway makes of it.


@dataclass(frozen=True, slots=True)
class _Unwritten:
    name: str
    body: bytes
    shard_id: int
    session: str
    seq: int
    repeat: int


class MemoryCluster:
    """One cluster of the gateway: applies what Discord sends at once, and writes it to the log when it is told to."""

    def __init__(self, gateway: MemoryGateway, cluster: int, log: MemoryLog) -> None:
        self.gateway = gateway
        self.log = log
        self.truth: list[_Unwritten] = []
        """Everything that Discord sent, in order, each once."""
        self._cluster = cluster
        self._unwritten: deque[_Unwritten] = deque()
        # Written, and not known to be confirmed: what a gateway that dies writes again.
        self._unconfirmed: deque[_Unwritten] = deque()
        self._sessions = itertools.count(1)
        gateway.logs[cluster] = log.name

    def ready(self, shard_id: int, guilds: Sequence[Guild]) -> None:
        """A new session of a shard: READY, then a GUILD_CREATE for each guild (it has at least ``id``)."""
        shard = self.gateway.shards[shard_id]
        shard.session, shard.seq = f"session-{self._cluster}-{next(self._sessions)}", 0
        shard.states = GuildStates()
        for guild in guilds:
            shard.states.guilds[int(guild["id"])] = {"id": guild["id"], "unavailable": True}
        user = {"id": str(BOT_ID), "username": "bot"}
        self.send(
            shard_id, "READY",
            {"v": 10, "user": user, "guilds": [{"id": each["id"], "unavailable": True} for each in guilds]},
        )  # fmt: skip
        for guild in guilds:
            self.send(shard_id, "GUILD_CREATE", guild)

    def send(self, shard_id: int, name: str, d: Any, *, repeat: int = 0) -> None:
        """Discord sends an event. With ``repeat`` it comes under the sequence number of the one before."""
        shard = self.gateway.shards[shard_id]
        shard.seq += 0 if repeat else 1
        shard.states.apply(name, d)
        event = _Unwritten(name, msgspec.json.encode(d), shard_id, shard.session, shard.seq, repeat)
        self.truth.append(event)
        self._unwritten.append(event)

    @property
    def unwritten(self) -> int:
        """Events that are applied and not in the log yet."""
        return len(self._unwritten)

    def write(self, most: int | None = None) -> int:
        """Write events to the log, all or at most so many; return how many were written."""
        count = len(self._unwritten) if most is None else min(most, len(self._unwritten))
        for _ in range(count):
            event = self._unwritten.popleft()
            self._append(event)
            self._unconfirmed.append(event)
        return count

    def confirm(self) -> None:
        """What was written is known to be confirmed."""
        self._unconfirmed.clear()

    def die_and_resume(self) -> None:
        """The gateway dies and resumes its sessions: all that was not known to be confirmed stands in the log twice."""
        self._unwritten.extendleft(reversed(self._unconfirmed))
        self._unconfirmed.clear()

    def hold_back(self) -> None:
        """The broker refuses the next event, and takes it behind the one after it, marked as republished."""
        if len(self._unwritten) < 2:
            return
        held, after = self._unwritten.popleft(), self._unwritten.popleft()
        self._append(after)
        self._append(held, is_out_of_order=True)

    def go_ahead(self) -> None:
        """The newest event overtakes those that are not written (``URGENT``)."""
        self._append(self._unwritten.pop(), is_out_of_order=True)

    def lose_session(self, shard_id: int, guilds: Sequence[Guild]) -> None:
        """Discord ends a shard's session: RATEWAY_GAP, then a new one with these guilds."""
        shard = self.gateway.shards[shard_id]
        old, last = shard.session, shard.seq
        left = set(shard.states.guilds) - {int(each["id"]) for each in guilds}
        place = len(self._unwritten)
        self.ready(shard_id, guilds)
        gap = messages.Gap(
            shard=shard_id, old_session=old, settled=last, received=last, new_session=shard.session, reason="lost",
            since=float(self.log.now),
        )  # fmt: skip
        self._unwritten.insert(place, _Unwritten(gap.key, messages.encode(gap), -1, "", 0, 0))
        for guild_id in sorted(left):
            gone = messages.GuildLeft(shard=shard_id, guild_id=str(guild_id))
            self._unwritten.append(_Unwritten(gone.key, messages.encode(gone), -1, "", 0, 0))

    def replace_log(self, log: MemoryLog) -> None:
        """Go on in another log, as a gateway does whose log is down for good."""
        self.log = log
        self.gateway.logs[self._cluster] = log.name

    def _append(self, event: _Unwritten, *, is_out_of_order: bool = False) -> None:
        self.log.append(
            event.name, event.body, shard_id=event.shard_id, session=event.session, seq=event.seq,
            repeat=event.repeat, is_out_of_order=is_out_of_order,
        )  # fmt: skip
