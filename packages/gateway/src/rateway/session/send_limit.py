"""Keep Discord's send limits: what may be sent now, and which commands wait.

Discord documentation, "Gateway": "Rate Limiting" (120 messages in 60 s per connection, everything counted), and the
limits of presence updates and of requests for all members of a guild. Every window is a sliding log and a little
longer than Discord's: what we send a minute apart may arrive closer together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from rateway.session.actions import Command, CommandDone
from rateway.session.options import CommandBudget
from rateway.session.shares import Kind, Shares, kind_of
from rateway_protocol.discord import command_forms

__all__ = ["SendRateLimiter", "SlidingLog"]

# "120 gateway events per connection every 60 seconds".
SENDS, SENDS_WINDOW = 120, 61.0
# Five presence updates in 20 s, per session.
PRESENCES, PRESENCES_WINDOW = 5, 20.5
# One request for all members per guild and 30 s, per bot.
WHOLE_GUILD_WINDOW = 30.5
# Kept free beside the beats of a window, for beats that Discord asks for and the handshake.
SPARE = 3
# However short the interval, some commands get through.
FEWEST_COMMANDS = 10
# After a close for sending too quickly: one whole window of silence.
PENALTY = 61.0
# Guilds asked for lately, after which those whose time is up are forgotten.
GUILDS_REMEMBERED = 1000


class SlidingLog:
    """The times of the last sends; at most *limit* of them in any *window* seconds.

    A list: it has some hundred entries at most, and an empty deque takes ten times the memory of an empty list. A shard
    has seven of these logs, and most of them stay empty.
    """

    __slots__ = ("_log", "limit", "window")

    def __init__(self, limit: int, window: float) -> None:
        self.limit = limit
        self.window = window
        self._log: list[float] = []

    def left(self, now: float) -> int:
        log = self._log
        while log and log[0] <= now - self.window:
            del log[0]
        return self.limit - len(log)

    def record(self, now: float) -> None:
        self._log.append(now)

    def free_at(self, now: float, reserve: int = 0) -> float:
        """Return when one more send leaves *reserve* free; *now* when it does already."""
        lacking = reserve + 1 - self.left(now)
        if lacking <= 0:
            return now
        # Rounded away from the sum of the two, or the send would be due a moment too early for ever.
        free = self._log[min(lacking, len(self._log)) - 1] + self.window if self._log else now
        return math.nextafter(free, math.inf)

    def count(self, now: float) -> int:
        """Return sends in the window that ends now."""
        return self.limit - self.left(now)

    def next_end(self, now: float) -> float:
        """Return when the oldest send of the window leaves it; *now* when there is none."""
        self.left(now)
        return math.nextafter(self._log[0] + self.window, math.inf) if self._log else now

    def clear(self) -> None:
        self._log.clear()


class SendRateLimiter:
    """One shard's sends: the logs of what went out, and the commands that wait, in a line for each kind.

    Kinds take turns, and each has a share of the limit that the others leave free. Voice updates go in order, of
    presences only the newest, requests in order, except that a request for all members waits for its guild's turn and
    lets others pass.
    """

    __slots__ = (
        "_budget", "_commands", "_expiry", "_guild_free", "_held_until", "_limit", "_lines", "_presences", "_queue",
        "_sends", "_sent", "_shares", "_turns",
    )  # fmt: skip

    def __init__(self, *, limit: int, budget: CommandBudget | None) -> None:
        self._limit = limit
        self._budget = budget
        self._sends = SlidingLog(SENDS, SENDS_WINDOW)
        self._presences = SlidingLog(PRESENCES, PRESENCES_WINDOW)
        self._commands = SlidingLog(FEWEST_COMMANDS, SENDS_WINDOW)
        # The same sends by kind; the limit of these logs is not used.
        self._sent = {kind: SlidingLog(SENDS, SENDS_WINDOW) for kind in Kind}
        self._shares = Shares(FEWEST_COMMANDS, least=1)
        self._queue = Shares(limit)
        # One presence waits at most.
        self._queue.kept[Kind.PRESENCE] = min(1, self._queue.kept[Kind.PRESENCE])
        self._held_until = -math.inf
        self._guild_free: dict[int, float] = {}
        self._lines: dict[Kind, list[Command]] = {kind: [] for kind in Kind}
        # Kinds in the order of their turns; the one that was served last is last.
        self._turns = list(Kind)
        self._expiry = math.inf

    def __len__(self) -> int:
        """Commands that wait."""
        return sum(map(len, self._lines.values()))

    # What the conversation itself sends.

    def connected(self, interval: float, now: float) -> None:
        """A new connection begins with an empty window, except after a close for sending too quickly."""
        if now >= self._held_until:
            self._sends.clear()
            self._commands.clear()
            for log in self._sent.values():
                log.clear()
        # What is left when the beats of a whole window have their room.
        self._commands.limit = max(FEWEST_COMMANDS, SENDS - math.ceil(SENDS_WINDOW / interval) - SPARE)
        self._shares = Shares(self._commands.limit, least=1)

    def own(self, now: float) -> None:
        """Count an identify or a resume."""
        self._sends.record(now)

    def beat(self, now: float) -> bool:
        """Count a heartbeat; return False when not even the room that is kept for heartbeats is left."""
        if self._sends.left(now) <= 0:
            return False
        self._sends.record(now)
        return True

    def beat_at(self, now: float) -> float:
        """Return when a refused heartbeat may go out."""
        return self._sends.free_at(now)

    def punished(self, now: float) -> None:
        """Hold commands back for a whole window, on the next connection too: Discord closed with 4008."""
        self._held_until = now + PENALTY

    def hold_guild(self, guild_id: int, until: float) -> None:
        """Hold back requests for a guild's members until the time that RATE_LIMITED gave."""
        self._guild_free[guild_id] = until

    # Commands.

    def offer(self, command: Command, now: float) -> list[CommandDone]:
        """Queue a command; return what is decided at once: its refusal, or the end of one that it supersedes."""
        if command.deadline <= now:
            return [CommandDone(command, "expired", "its deadline had passed when it arrived")]
        kind = kind_of(command.op)
        line = self._lines[kind]
        if kind is Kind.PRESENCE and line:
            superseded = line.pop(0)
            line.append(command)
            self._expiry = min(self._expiry, command.deadline)
            return [CommandDone(superseded, "superseded", "a newer presence came while it waited")]
        if not self._queue.has_room(kind, {each: len(waiting) for each, waiting in self._lines.items()}):
            words = f"{len(self)} commands wait for this shard, {len(line)} of them {kind.value}"
            return [
                CommandDone(command, "queue_full", f"{words}; {self._limit} may, and each kind has a share")
            ]
        if self._budget is not None and not self._budget.take(kind):
            return [CommandDone(command, "queue_full", f"{self._budget.waiting} commands wait in all shards")]
        line.append(command)
        self._expiry = min(self._expiry, command.deadline)
        return []

    def expired(self, now: float) -> list[CommandDone]:
        """Remove the commands whose deadline has come, and return their outcomes."""
        if now < self._expiry:
            return []
        gone: list[Command] = []
        for kind, line in self._lines.items():
            late = [command for command in line if command.deadline <= now]
            if late:
                gone += late
                kept = [command for command in line if command.deadline > now]
                line.clear()
                line.extend(kept)
                for _ in late:
                    self._give_back(kind)
        self._expiry = min((command.deadline for command in self._waiting()), default=math.inf)
        return [CommandDone(each, "expired", "it could not be sent before its deadline") for each in gone]

    def sendable(self, now: float) -> Iterator[Command]:
        """Yield the commands that may be sent now, in order; each is counted as sent when it is yielded."""
        if now >= self._held_until:
            self._held_until = -math.inf
            while self._commands.left(now) > 0 and self._sends.left(now) > SPARE:
                taken = self._next(now)
                if taken is None:
                    return
                kind, command = taken
                self._sends.record(now)
                self._commands.record(now)
                self._sent[kind].record(now)
                self._turns.remove(kind)
                self._turns.append(kind)
                self._give_back(kind)
                yield command

    def _next(self, now: float) -> tuple[Kind, Command] | None:
        """Take out the command whose kind has its turn: of those that can go now, the kind that waited longest."""
        for kind in self._turns:
            if self._lines[kind] and self._has_share(kind, now):
                command = self._take(kind, now)
                if command is not None:
                    return kind, command
        return None

    def _has_share(self, kind: Kind, now: float) -> bool:
        return self._shares.has_room(kind, {each: log.count(now) for each, log in self._sent.items()})

    def _take(self, kind: Kind, now: float) -> Command | None:
        line = self._lines[kind]
        if kind is Kind.PRESENCE:
            if self._presences.left(now) <= 0:
                return None
            self._presences.record(now)
            return line.pop(0)
        for place, command in enumerate(line):
            guild_id = _whole_guild(command)
            if guild_id is None or self._guild_free.get(guild_id, now) <= now:
                del line[place]
                if guild_id is not None:
                    self._asked_for(guild_id, now)
                return command
        return None

    def _asked_for(self, guild_id: int, now: float) -> None:
        if len(self._guild_free) >= GUILDS_REMEMBERED:
            self._guild_free = {guild: at for guild, at in self._guild_free.items() if at > now}
        self._guild_free[guild_id] = now + WHOLE_GUILD_WINDOW

    def wake_at(self, now: float, sending: bool) -> float:
        """Return when a command will have expired or, if *sending* is possible at all, can be sent; inf for never."""
        if not sending or not len(self):
            return self._expiry
        free = max(self._held_until, self._sends.free_at(now, SPARE), self._commands.free_at(now))
        first = min(self._line_at(kind, now) for kind, line in self._lines.items() if line)
        return min(self._expiry, max(first, free))

    def _line_at(self, kind: Kind, now: float) -> float:
        """Return when the first of a kind's waiting commands may go, as far as its kind alone decides."""
        if not self._has_share(kind, now):
            # Each send that leaves the window may give room.
            return self._commands.next_end(now)
        if kind is Kind.PRESENCE:
            return self._presences.free_at(now)
        if kind is not Kind.MEMBERS:
            return now
        at = math.inf
        for request in self._lines[kind]:
            guild = _whole_guild(request)
            at = min(at, now if guild is None else self._guild_free.get(guild, now))
            if at <= now:
                break
        return at

    def _waiting(self) -> Iterator[Command]:
        for line in self._lines.values():
            yield from line

    def _give_back(self, kind: Kind) -> None:
        if self._budget is not None:
            self._budget.give_back(kind)

    def drop_waiting(self) -> None:
        """Drop the commands that wait, without an outcome: the shard stops, and their senders still have them."""
        for kind, line in self._lines.items():
            for _ in line:
                self._give_back(kind)
            line.clear()
        self._expiry = math.inf


def _whole_guild(command: Command) -> int | None:
    """Return the guild whose members are all asked for, if the command does so."""
    return int(command.d["guild_id"]) if command_forms.whole_guild(command.op, command.d) else None
