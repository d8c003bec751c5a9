"""What may be sent to Discord now, and which commands wait?

Discord documentation, "Gateway": "Rate Limiting" (120 messages in 60 s per connection, everything counted), and the
limits of presence updates and of requests for all members of a guild. Every window is a sliding log and a little
longer than Discord's: what we send a minute apart may arrive closer together.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from rateway.discord import command_forms, commands
from rateway.discord.opcodes import Opcode
from rateway.session.options import CommandBudget
from rateway.session.orders import Command, CommandDone

__all__ = ["Allowance", "Sending", "SlidingLog"]

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
    """The times of the last sends; at most *limit* of them in any *window* seconds."""

    __slots__ = ("_log", "limit", "window")

    def __init__(self, limit: int, window: float) -> None:
        self.limit = limit
        self.window = window
        self._log: deque[float] = deque()

    def left(self, now: float) -> int:
        log = self._log
        while log and log[0] <= now - self.window:
            log.popleft()
        return self.limit - len(log)

    def record(self, now: float) -> None:
        self._log.append(now)

    def free_at(self, now: float, reserve: int = 0) -> float:
        """When one more send leaves *reserve* free; *now* when it does already."""
        lacking = reserve + 1 - self.left(now)
        if lacking <= 0:
            return now
        # Rounded away from the sum of the two, or the send would be due a moment too early for ever.
        free = self._log[min(lacking, len(self._log)) - 1] + self.window if self._log else now
        return math.nextafter(free, math.inf)

    def clear(self) -> None:
        self._log.clear()


@dataclass(frozen=True, slots=True, eq=False)
class Sending:
    """A checked command: the bytes for the wire, and the guild whose members are all asked for, if so."""

    command: Command
    data: bytes
    d: Mapping[str, Any]
    whole_guild: int | None


class Allowance:
    """One shard's sends: the logs of what went out, and the commands that wait, in three lines.

    Voice updates go first and in order, then the newest presence, then requests in order, except that a request
    for all members waits for its guild's turn and lets others pass.
    """

    __slots__ = (
        "_budget", "_commands", "_expiry", "_guild_free", "_held_until", "_intents", "_limit", "_presence",
        "_presences", "_requests", "_sends", "_shard", "_voice",
    )  # fmt: skip

    def __init__(
        self, *, intents: int, shard: tuple[int, int], limit: int, budget: CommandBudget | None
    ) -> None:
        self._intents = intents
        self._shard = shard
        self._limit = limit
        self._budget = budget
        self._sends = SlidingLog(SENDS, SENDS_WINDOW)
        self._presences = SlidingLog(PRESENCES, PRESENCES_WINDOW)
        self._commands = SlidingLog(FEWEST_COMMANDS, SENDS_WINDOW)
        self._held_until = -math.inf
        self._guild_free: dict[int, float] = {}
        self._voice: deque[Sending] = deque()
        self._presence: Sending | None = None
        self._requests: deque[Sending] = deque()
        self._expiry = math.inf

    def __len__(self) -> int:
        """Commands that wait."""
        return len(self._voice) + len(self._requests) + (self._presence is not None)

    # What the conversation itself sends.

    def connected(self, interval: float, now: float) -> None:
        """A new connection begins with an empty window, except after a close for sending too quickly."""
        if now >= self._held_until:
            self._sends.clear()
            self._commands.clear()
        # What is left when the beats of a whole window have their room.
        self._commands.limit = max(FEWEST_COMMANDS, SENDS - math.ceil(SENDS_WINDOW / interval) - SPARE)

    def own(self, now: float) -> None:
        """An identify or a resume goes out."""
        self._sends.record(now)

    def beat(self, now: float) -> bool:
        """A heartbeat wants to go out; False when not even the room that is kept for it is left."""
        if self._sends.left(now) <= 0:
            return False
        self._sends.record(now)
        return True

    def beat_at(self, now: float) -> float:
        """When a heartbeat that was refused may go out."""
        return self._sends.free_at(now)

    def punished(self, now: float) -> None:
        """Discord closed with 4008: no commands for a whole window, on the next connection either."""
        self._held_until = now + PENALTY

    def hold_guild(self, guild_id: int, until: float) -> None:
        """Discord answered RATE_LIMITED for a guild's members: the next request for it waits."""
        self._guild_free[guild_id] = max(until, self._guild_free.get(guild_id, until))

    # Commands.

    def offer(self, command: Command, now: float) -> list[CommandDone]:
        """Take a command in. The answer holds what is decided at once: its refusal, or one that it supersedes."""
        sending = self._check(command)
        if isinstance(sending, CommandDone):
            return [sending]
        if command.deadline <= now:
            return [CommandDone(command, "expired", "its deadline had passed when it arrived")]
        if command.op == Opcode.PRESENCE_UPDATE and self._presence is not None:
            superseded, self._presence = self._presence, sending
            self._expiry = min(self._expiry, command.deadline)
            return [CommandDone(superseded.command, "superseded", "a newer presence came while it waited")]
        if len(self) >= self._limit:
            return [CommandDone(command, "queue_full", f"{self._limit} commands wait for this shard")]
        if self._budget is not None and not self._budget.take():
            return [CommandDone(command, "queue_full", f"{self._budget.limit} commands wait in all shards")]
        if command.op == Opcode.PRESENCE_UPDATE:
            self._presence = sending
        elif command.op == Opcode.VOICE_STATE_UPDATE:
            self._voice.append(sending)
        else:
            self._requests.append(sending)
        self._expiry = min(self._expiry, command.deadline)
        return []

    def _check(self, command: Command) -> Sending | CommandDone:
        if len(command.payload) > commands.MAX_PAYLOAD_BYTES * 8:
            # Cannot become small enough by being written compactly: not worth the reading.
            return self._too_large(command, len(command.payload))
        try:
            payload = msgspec.json.decode(command.payload)
        except (ValueError, RecursionError, TypeError) as error:
            return CommandDone(command, "invalid", f"the payload is not JSON: {error}")
        if not isinstance(payload, dict) or payload.get("op") != command.op or "d" not in payload:
            return CommandDone(command, "invalid", 'the payload should be an object {"op": …, "d": …}')
        form = command_forms.read(command.op, payload["d"], intents=self._intents, shard=self._shard)
        if isinstance(form, command_forms.Refusal):
            return CommandDone(command, "invalid", form.reason)
        # Written anew: what was checked is what is sent, whatever was odd about the worker's JSON.
        data = commands.encode({"op": command.op, "d": form.d})
        if len(data) > commands.MAX_PAYLOAD_BYTES:
            return self._too_large(command, len(data))
        whole = command_forms.whole_guild(command.op, form.d)
        return Sending(command, data, form.d, int(form.d["guild_id"]) if whole else None)

    def _too_large(self, command: Command, size: int) -> CommandDone:
        return CommandDone(command, "too_large", f"{size} bytes; Discord takes {commands.MAX_PAYLOAD_BYTES}")

    def expired(self, now: float) -> list[CommandDone]:
        """Takes out the commands whose deadline has come."""
        if now < self._expiry:
            return []
        gone: list[Sending] = []
        for line in (self._voice, self._requests):
            late = [sending for sending in line if sending.command.deadline <= now]
            if late:
                gone += late
                kept = [sending for sending in line if sending.command.deadline > now]
                line.clear()
                line.extend(kept)
        if self._presence is not None and self._presence.command.deadline <= now:
            gone.append(self._presence)
            self._presence = None
        self._expiry = min((sending.command.deadline for sending in self._waiting()), default=math.inf)
        for _ in gone:
            self._give_back()
        return [
            CommandDone(each.command, "expired", "it could not be sent before its deadline") for each in gone
        ]

    def sendable(self, now: float) -> Iterator[Sending]:
        """Takes out what may be sent now, in order; each counts as sent when it is given."""
        if now >= self._held_until:
            self._held_until = -math.inf
            while self._commands.left(now) > 0 and self._sends.left(now) > SPARE:
                sending = self._next(now)
                if sending is None:
                    return
                self._sends.record(now)
                self._commands.record(now)
                self._give_back()
                yield sending

    def _next(self, now: float) -> Sending | None:
        if self._voice:
            return self._voice.popleft()
        if self._presence is not None and self._presences.left(now) > 0:
            presence, self._presence = self._presence, None
            self._presences.record(now)
            return presence
        for place, sending in enumerate(self._requests):
            if sending.whole_guild is None or self._guild_free.get(sending.whole_guild, now) <= now:
                del self._requests[place]
                if sending.whole_guild is not None:
                    self._asked_for(sending.whole_guild, now)
                return sending
        return None

    def _asked_for(self, guild_id: int, now: float) -> None:
        if len(self._guild_free) >= GUILDS_REMEMBERED:
            self._guild_free = {guild: at for guild, at in self._guild_free.items() if at > now}
        self._guild_free[guild_id] = now + WHOLE_GUILD_WINDOW

    def wake_at(self, now: float, sending: bool) -> float:
        """When a command will have expired or, if *sending* is possible at all, can be sent; inf for never."""
        if not sending or not len(self):
            return self._expiry
        if self._voice:
            line = now
        else:
            line = math.inf
            if self._presence is not None:
                line = self._presences.free_at(now)
            for request in self._requests:
                if line <= now:
                    break
                guild = request.whole_guild
                line = min(line, now if guild is None else self._guild_free.get(guild, now))
        free = max(self._held_until, self._sends.free_at(now, SPARE), self._commands.free_at(now))
        return min(self._expiry, max(line, free))

    def _waiting(self) -> Iterator[Sending]:
        yield from self._voice
        yield from self._requests
        if self._presence is not None:
            yield self._presence

    def _give_back(self) -> None:
        if self._budget is not None:
            self._budget.give_back()

    def forsake(self) -> None:
        """The shard stops: what waits is nobody's business here any more (its sender still has it)."""
        for _ in self._waiting():
            self._give_back()
        self._voice.clear()
        self._requests.clear()
        self._presence = None
        self._expiry = math.inf
