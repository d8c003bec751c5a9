"""Hold what a bot got through the gateway proxy against the event log: in each session every event once, in order.

A session begins with READY (`s` 1) and the guilds as they were then. Until the bot has those, an event may be in them
instead of coming by itself; after that, over any number of RESUMEs, the log and the session must agree.
"""

from __future__ import annotations

import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rateway.proxy.sessions.session_id import Session
from rateway.proxy.sessions.snapshot import guild_unavailable
from rateway_protocol.contract import topology

__all__ = ["BotSession", "Entry", "Found", "audit_merged", "audit_session", "is_event"]

# What answers the bot itself, or tells of its connection.
NO_EVENTS = frozenset(
    {"READY", "RESUMED", "GUILD_MEMBERS_CHUNK", "SOUNDBOARD_SOUNDS", "CHANNEL_INFO", "RATE_LIMITED"}
)
# Faults of each kind that are described one by one.
EXAMPLES = 5


def is_event(name: str) -> bool:
    """Whether entries of this name are events of Discord's that bots get."""
    return name not in NO_EVENTS and "." not in name and not name.startswith(topology.OWN_PREFIX)


@dataclass(frozen=True, slots=True)
class Entry:
    """An event's first place in the log of its shard."""

    offset: int
    name: str
    crc32: int
    index: int
    """Its place among all that Discord has sent."""


@dataclass(slots=True)
class BotSession:
    """The dispatches of one session of a bot, in the order of their arrival."""

    id: Session
    missing_guilds: set[str]
    """Guilds of READY that it has still to get."""
    snapshots: set[int] = field(default_factory=set)
    """Which of its dispatches are guilds as they were at its begin."""
    seqs: array[int] = field(default_factory=lambda: array("q"))
    crcs: array[int] = field(default_factory=lambda: array("I"))
    names: list[str] = field(default_factory=list)
    resumes: int = 0
    complete_at: int | None = None
    """How much Discord had sent when the last of its guilds came; None before."""
    is_last: bool = True
    """Whether it went on until the end."""

    def add(self, seq: int, crc32: int, name: str, sent: int, guild_id: str = "") -> None:
        """Note a dispatch. *sent* is how much Discord has sent by now."""
        self.seqs.append(seq)
        self.crcs.append(crc32)
        self.names.append(name)
        self.resumes += name == "RESUMED"
        # No event of a guild comes before its snapshot. One that is gone by then has none: its GUILD_DELETE comes.
        is_told = name == "GUILD_CREATE" or (name, crc32) == (
            "GUILD_DELETE",
            zlib.crc32(guild_unavailable(guild_id)),
        )
        if is_told and guild_id in self.missing_guilds:
            self.snapshots.add(len(self.names) - 1)
        if name in ("GUILD_CREATE", "GUILD_DELETE"):
            self.missing_guilds.discard(guild_id)
        if self.complete_at is None and not self.missing_guilds:
            self.complete_at = sent


@dataclass(slots=True)
class Found:
    """What an audit found."""

    events: int = 0
    missing: int = 0
    doubled: int = 0
    wrong: int = 0
    """Dispatches that are no entry of the log, or not in its order."""
    examples: list[str] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Add what another audit found."""
        self.events += other.events
        self.missing += other.missing
        self.doubled += other.doubled
        self.wrong += other.wrong
        self.examples += other.examples

    def _note(self, what: str, words: str, count: int) -> None:
        if count <= EXAMPLES:
            self.examples.append(f"{what}: {words}")

    def miss(self, words: str) -> None:
        self.missing += 1
        self._note("missing", words, self.missing)

    def double(self, words: str) -> None:
        self.doubled += 1
        self._note("twice", words, self.doubled)

    def mistake(self, words: str) -> None:
        self.wrong += 1
        self._note("wrong", words, self.wrong)


def audit_session(
    session: BotSession, entries: Mapping[int, Entry], offsets: Mapping[tuple[str, int], list[int]]
) -> Found:
    """Hold a session against its log: *entries* by offset, those of its shard that a bot may see; *offsets* are those
    of all that the log has of a name and CRC-32, what stands there twice included.
    """
    found, begun = Found(), session.id
    where = f"shard {begun.shard}, session {begun.number} from {begun.base} with {begun.snapshots} guilds"
    unsettled = max(1, begun.snapshots)
    # What comes before the session can tell its place is found by what it says.
    early = _Early(each for each in entries.values() if each.offset > begun.base)
    got: set[int] = set()
    # Found early, and maybe another than the one that came: what says the same is told apart by nothing.
    spare: Counter[tuple[str, int]] = Counter()
    highest = 0
    dispatches = zip(session.seqs, session.crcs, session.names, strict=True)
    for place, (seq, crc32, name) in enumerate(dispatches):
        if name in NO_EVENTS or place in session.snapshots:
            continue
        is_early = seq <= unsettled
        entry = early.find(name, crc32) if is_early else entries.get(begun.base + seq - begun.snapshots - 1)
        if entry is not None and (entry.name, entry.crc32) == (name, crc32):
            if entry.offset in got:
                found.double(f"{where}: {name} of offset {entry.offset}")
            elif entry.offset < highest and not is_early:
                found.mistake(f"{where}: {name} of offset {entry.offset} after {highest}")
            spare[name, crc32] += is_early
            got.add(entry.offset)
            highest = max(highest, entry.offset)
        else:
            places = offsets.get((name, crc32), [])
            words = f"{where}: {name} under {seq} after offset {highest}, where the log has {entry}"
            found.mistake(f"{words}; the same stands at {places}")
    found.events = len(got)
    if session.complete_at is not None:
        for offset in sorted(entries.keys() - got):
            entry = entries[offset]
            if (
                begun.base < offset
                and entry.index >= session.complete_at
                and (session.is_last or offset < highest)
            ):
                key = entry.name, entry.crc32
                if spare[key]:
                    spare[key] -= 1
                else:
                    found.miss(f"{where}: {entry}")
    return found


def audit_merged(session: BotSession, entries: Mapping[int, Mapping[int, Entry]]) -> Found:
    """Hold a session over all shards against their logs: *entries* by shard and offset, those that a bot may see.

    Its numbers say nothing of offsets: what stands in the logs so often has to come so often.
    """
    found = Found()
    where = f"merged session {session.id.number} with {session.id.snapshots} guilds"
    places: dict[tuple[str, int], list[tuple[int, Entry]]] = {}
    for shard, of_shard in entries.items():
        for entry in of_shard.values():
            places.setdefault((entry.name, entry.crc32), []).append((shard, entry))
    got = Counter(
        (name, crc32)
        for place, (crc32, name) in enumerate(zip(session.crcs, session.names, strict=True))
        if name not in NO_EVENTS and place not in session.snapshots
    )
    # Up to where each shard is known to have come.
    highest = dict.fromkeys(entries, -1)
    for key, times in got.items():
        there = places.get(key, [])
        # After a gap a guild that is gone is told by a GUILD_DELETE of the proxy's own.
        if not there and key[0] != "GUILD_DELETE":
            found.mistake(f"{where}: {key[0]}, which no log has")
        elif there and times > len(there):
            found.double(f"{where}: {key[0]} came {times} times, where the logs have {there}")
        elif len(there) == 1:
            shard, entry = there[0]
            highest[shard] = max(highest[shard], entry.offset)
    found.events = got.total()
    if session.complete_at is not None:
        for key, there in places.items():
            required = [
                entry
                for shard, entry in there
                if entry.index >= session.complete_at and (session.is_last or entry.offset < highest[shard])
            ]
            if got[key] < len(required):
                found.miss(f"{where}: {required}, of which {got[key]} came")
    return found


class _Early:
    """Entries to be found by what they say, each once. Events of the guild whose snapshot is held come behind those of
    others, so their order says nothing.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._places: dict[tuple[str, int], list[Entry]] = {}
        for entry in sorted(entries, key=lambda each: each.offset, reverse=True):
            self._places.setdefault((entry.name, entry.crc32), []).append(entry)

    def find(self, name: str, crc32: int) -> Entry | None:
        """The first entry that was not found before."""
        places = self._places.get((name, crc32))
        return places.pop() if places else None
