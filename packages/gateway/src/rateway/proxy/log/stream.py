"""The stream of one session: which entries of the logs the bot sees, and under which sequence numbers.

A session whose shard lies in one cluster numbers its events by their offsets in that cluster's log, so that any proxy
can resume it (``sessions/session_id.py``). A session over several clusters counts, and remembers what it sent
(``sessions/numbers.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, Protocol

from rateway.delivery.proxy_port import LogEntry
from rateway.proxy.log.dispatch import guild_of
from rateway.proxy.log.order import Order
from rateway_protocol.contract.messages import Gap
from rateway_protocol.discord.snowflake import shard_of

__all__ = ["Feed", "Numbers", "Position", "Receiver", "Stream", "gateway_shards"]

# Events of Discord's that come on shard 0, whatever guild they name (docs: Gateway, "Sharding").
_SHARD_0: Final = ("ENTITLEMENT_", "SUBSCRIPTION_")


def gateway_shards(shard: int, count: int, total: int) -> list[int]:
    """The gateway's shards, of *total*, on which guilds of the bot's shard ``[shard, count]`` may lie."""
    step = math.gcd(count, total)
    return list(range(shard % step, total, step))


class Receiver(Protocol):
    """The receiver of a stream's payloads: a :class:`~rateway.proxy.sessions.bot_connection.BotConnection`."""

    @property
    def waiting(self) -> int: ...
    def send(self, payload: bytes) -> None: ...
    def close(self, code: int, reason: str) -> None: ...
    def invalidate(self) -> None: ...


class Numbers(Protocol):
    """Give a session's dispatches their sequence numbers, and send them."""

    def send(self, feed: Feed, name: str, d: bytes) -> None:
        """Send what the entry at ``feed.at`` makes."""

    def tell(self, feed: Feed, name: str, d: bytes) -> None:
        """Send what no entry makes, or what will not be made of it again, under the number of what was sent before."""

    def present(self, feed: Feed) -> int:
        """Return the highest number that the session has."""

    def acknowledge(self, seq: int) -> None:
        """Note that the bot has everything up to ``seq``."""

    def places(self, seq: int) -> dict[str, int]:
        """Return the offset in each log that a bot with everything up to ``seq`` has seen."""


class Position:
    """The state that a shard's snapshots contain: events that they include are not sent again."""

    __slots__ = ("guilds", "highest", "seq", "session")

    def __init__(self, session: str, seq: int) -> None:
        self.session = session
        self.seq = seq
        """Of READY: for what belongs to no guild, and for guilds that were not read since."""
        self.guilds: dict[int, int] = {}
        """Guild → the sequence number up to which its snapshot goes."""
        self.highest = seq

    def add(self, guild_id: int, seq: int) -> None:
        """Note the sequence at which a guild was read."""
        self.guilds[guild_id] = seq
        self.highest = max(self.highest, seq)

    def contains(self, entry: LogEntry, order: Order) -> bool:
        """Return whether the snapshots contain the event of an entry."""
        if entry.session != self.session:
            return not order.is_newer(entry.shard_id, entry.session, self.session)
        if entry.seq > self.highest:
            return False
        if entry.seq <= self.seq:
            # Each guild was read after READY.
            return True
        guild_id = guild_of(entry.name, entry.body)
        return entry.seq <= (self.seq if guild_id is None else self.guilds.get(guild_id, self.seq))

    def is_passed(self, order: Order, shard_id: int) -> bool:
        """Whether the log was read beyond all that the snapshots contain, as far as can be known."""
        if order.is_known(shard_id, self.session):
            return order.highest(shard_id, self.session) >= self.highest
        return False


class Stream:
    """One session of a bot while it is connected."""

    __slots__ = (
        "count", "feeds", "intents", "is_partial", "large_threshold", "own_id", "receiver", "session_id", "shard",
        "total",
    )  # fmt: skip

    def __init__(
        self, receiver: Receiver, *, shard: int, count: int, total: int, intents: int, large_threshold: int,
        own_id: int, session_id: str,
    ) -> None:  # fmt: skip
        self.receiver = receiver
        self.shard = shard
        self.count = count
        self.total = total
        self.intents = intents
        self.large_threshold = large_threshold
        self.own_id = own_id
        self.session_id = session_id
        self.is_partial = total % count != 0
        """Whether some guilds of its gateway shards belong to other shards of the bot."""
        self.feeds: list[Feed] = []

    def shards(self) -> list[int]:
        """Return the gateway's shards whose events it gets."""
        return gateway_shards(self.shard, self.count, self.total)

    def has_guild(self, guild_id: int) -> bool:
        """Return whether a guild is on the bot's shard."""
        return shard_of(guild_id, self.count) == self.shard

    def has_entry(self, entry: LogEntry) -> bool:
        """Return whether an event of one of its gateway shards is on the bot's shard."""
        guild_id = None if entry.name.startswith(_SHARD_0) else guild_of(entry.name, entry.body)
        return self.shard == 0 if guild_id is None else self.has_guild(guild_id)


class Feed:
    """One log's part of a stream. Called for each entry: makes no task, and reads no JSON in the usual case."""

    __slots__ = (
        "_held", "_held_guild", "_late", "at", "at_timestamp", "is_open", "is_settled", "log", "missed_since",
        "numbers", "positions", "receiver", "replayed", "sent", "shards", "stream",
    )  # fmt: skip

    def __init__(self, stream: Stream, numbers: Numbers, log: str, shards: Iterable[int], at: int) -> None:
        self.stream = stream
        self.numbers = numbers
        self.receiver = stream.receiver
        self.log = log
        self.shards = tuple(shards)
        """The gateway's shards in this log."""
        self.at = at
        """The offset up to which it has seen the log."""
        self.at_timestamp = 0
        """When the gateway received the last event that it was brought, in seconds since 1970; 0 before the first."""
        self.is_open = True
        """Whether the bot is still there."""
        self.positions: dict[int, Position] = {}
        """Of shards whose snapshots contain entries that may still come."""
        self.is_settled = True
        """Whether a RESUME can tell what the bot has. It cannot before all snapshots are passed: what they contain is
        known to this connection alone."""
        self.sent = 0
        """Events that were sent."""
        self.replayed: frozenset[str] = frozenset()
        """Names of events that are sent though the snapshots came after them, because the bot missed them."""
        self.missed_since = -1
        """The offset up to which the bot had seen the log before: it missed what came after."""
        self._late: dict[int, Position] = {}
        # The last snapshot, and events of its guild; sent once the feed is settled, under a number that says so.
        self._held: list[tuple[str, bytes]] = []
        self._held_guild = 0

    def set_positions(self, positions: dict[int, Position]) -> None:
        """Set what the snapshots of an IDENTIFY contain. Called before the first entry."""
        self.positions = positions
        self.is_settled = not positions

    def hold(self, name: str, d: bytes, guild_id: int) -> None:
        """Hold the last snapshot until the feed is settled: a bot that has it can resume."""
        self._held, self._held_guild = [(name, d)], guild_id
        if self.is_settled:
            self.release()

    def release(self) -> None:
        """Send what is held."""
        held, self._held = self._held, []
        if len(held) > 1:
            # A bot that has the snapshot alone would miss the events.
            was_settled, self.is_settled = self.is_settled, False
            for name, d in held:
                self.tell(name, d)
            self.is_settled = was_settled
        elif held:
            self.tell(*held[0])

    def settle(self) -> None:
        """Note that the bot has what the log had up to here."""
        if not self.is_settled:
            self.is_settled = True
            self.release()

    def is_quiet(self, order: Order) -> bool:
        """Whether the shards that the log was not read beyond have had no event lately: what their snapshots contain is
        older than what was read."""
        return not any(order.is_known(shard_id, each.session) for shard_id, each in self.positions.items())

    def pass_positions(self, order: Order) -> None:
        """Forget the positions that the log was read beyond."""
        for shard_id, position in tuple(self.positions.items()):
            if position.is_passed(order, shard_id):
                self._late[shard_id] = self.positions.pop(shard_id)
        if not self.positions:
            self.settle()

    def on_entry(self, entry: LogEntry, d: bytes | None, order: Order) -> None:
        """An event of one of its shards, for the first time; *d* as the bot's intents have it, None where it is not
        the bot's to see."""
        # Once the snapshots are passed, only what comes late or again can be in them.
        if (self.positions or entry.is_out_of_order or entry.repeat) and self._is_contained(entry, order):
            self.at = entry.offset
            return
        self.at = entry.offset
        self.at_timestamp = entry.timestamp
        if d is None or (self.stream.is_partial and not self.stream.has_entry(entry)):
            return
        if self._held and guild_of(entry.name, entry.body) == self._held_guild:
            self._held.append((entry.name, d))
        else:
            self._send(entry.name, d)

    def on_answer(self, entry: LogEntry, d: bytes) -> None:
        """Send the answer to a command of the bot's."""
        self.at = entry.offset
        self.tell(entry.name, d)

    def tell(self, name: str, d: bytes) -> None:
        """Send what no entry makes, under the number of the present place."""
        self.numbers.tell(self, name, d)

    def _send(self, name: str, d: bytes) -> None:
        self.sent += 1
        self.numbers.send(self, name, d)

    def on_gap(self, entry: LogEntry, gap: Gap, order: Order) -> None:
        """A session of a shard in this log was lost. Its guilds' state comes again: by a new session of the bot where
        it has no other shard, by the GUILD_CREATEs that follow in the log where it has."""
        if gap.shard not in self.shards:
            return
        position = self.positions.get(gap.shard) or self._late.get(gap.shard)
        if position is not None and _is_before(gap, position.session, order):
            return
        self.at = entry.offset
        if len(self.stream.shards()) == 1:
            self.receiver.invalidate()
            return
        self.positions.pop(gap.shard, None)
        self._late.pop(gap.shard, None)
        if not self.positions:
            self.settle()

    def on_guild_left(self, entry: LogEntry, shard_id: int, guild_id: int) -> None:
        """Send GUILD_DELETE for a guild that is gone after a gap."""
        if shard_id not in self.shards or not self.stream.has_guild(guild_id):
            return
        if shard_id in self.positions or shard_id in self._late:
            return
        self.at = entry.offset
        self._send("GUILD_DELETE", b'{"id":"%d"}' % guild_id)

    def _is_contained(self, entry: LogEntry, order: Order) -> bool:
        shard_id = entry.shard_id
        position = self.positions.get(shard_id)
        if position is not None:
            if position.contains(entry, order):
                return entry.name not in self.replayed or entry.offset <= self.missed_since
            # What was published ahead does not show that the log was read up to it.
            if not entry.is_out_of_order and (
                entry.session != position.session or entry.seq > position.highest
            ):
                self._late[shard_id] = self.positions.pop(shard_id)
                if not self.positions:
                    self.settle()
            return False
        if entry.is_out_of_order or entry.repeat:
            position = self._late.get(shard_id)
            return position is not None and position.contains(entry, order)
        return False


def _is_before(gap: Gap, session: str, order: Order) -> bool:
    """Whether a gap came before a session of its shard, which a snapshot is of."""
    if gap.new_session == session:
        return True
    if gap.new_session is not None and order.is_known(gap.shard, gap.new_session):
        return not order.is_newer(gap.shard, gap.new_session, session)
    # The snapshot of a session that the log has still to come to is later than all that it has now.
    return gap.old_session not in (None, session) and not order.is_known(gap.shard, session)
