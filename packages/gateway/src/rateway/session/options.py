"""The options of a session: one frozen record, the same for all shards of a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rateway.secret import Secret
from rateway.session.shares import Kind, Shares
from rateway_protocol.discord import commands

__all__ = ["Chance", "CommandBudget", "Compression", "SessionOptions", "SessionSettings"]

Compression = Literal["zstd-stream", "zlib-stream", "none"]


class Chance(Protocol):
    """The source of jitter (``random.Random``)."""

    def random(self) -> float:
        """Return a number that is uniform in [0, 1)."""

    def uniform(self, a: float, b: float, /) -> float:
        """Return a number that is uniform between *a* and *b*."""


class CommandBudget:
    """The bound of commands that wait in all shards together, each kind with its share; one instance for all shards."""

    __slots__ = ("_shares", "_waiting")

    def __init__(self, limit: int) -> None:
        self._shares = Shares(limit)
        self._waiting = dict.fromkeys(Kind, 0)

    @property
    def limit(self) -> int:
        return self._shares.limit

    @property
    def waiting(self) -> int:
        """Commands of all kinds and shards that wait."""
        return sum(self._waiting.values())

    def take(self, kind: Kind) -> bool:
        """Take the room for one more of a kind; return False when there is none."""
        if not self._shares.has_room(kind, self._waiting):
            return False
        self._waiting[kind] += 1
        return True

    def give_back(self, kind: Kind) -> None:
        self._waiting[kind] -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """The settings of every session. Times are seconds."""

    token: Secret
    """Bare, without the ``Bot `` prefix."""
    intents: int
    compression: Compression | None
    """None: by the bot's number of shards (``compression_of``)."""
    large_threshold: int
    resume_patience: float
    max_age: float | None
    max_message_bytes: int
    command_queue: int
    """Commands that may wait for one shard."""
    command_queue_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """Times are seconds. The defaults are what the gateway runs with; tests and settings change some."""

    token: str = field(repr=False)
    """Bare or with ``Bot ``, which is stripped."""
    intents: int
    compression: Compression = "zstd-stream"
    large_threshold: int = 50
    """Members above which GUILD_CREATE leaves offline ones out: 50 to 250."""
    presence: Callable[[int, int], Mapping[str, Any] | None] | None = None
    """Gives the presence that a shard identifies with from its number and the total; None shows Discord's default."""
    properties: Mapping[str, str] | None = None

    # Hello comes at once or something is wrong; doubled with each one missed, up to a minute, for a slow Discord.
    hello_timeout: float = 10.0
    # In an outage READY takes minutes while heartbeats are answered; asking again would only cost an identify.
    ready_timeout: float = 600.0
    # After a RESUME, and between two replayed events.
    replay_timeout: float = 60.0
    # Both must be exceeded before a session is given up that Discord has not refused.
    resume_attempts: int = 3
    resume_patience: float = 180.0
    resume_from_settled: bool = False
    """Whether a RESUME names the settled sequence that was written down, not the received one: where another machine
    may have to go on with the session, Discord must not be told of more. It then replays what came in between once
    more, under numbers that were received before. Not where something that was received a minute ago is still
    unsettled: another machine would have gone on by now, and Discord may keep it no longer."""
    heartbeat_share: float = 1.0
    """Part of the heartbeat interval after which the next heartbeat is sent. Less than 1 where another machine may have
    to go on with the session: Discord ends one whose heartbeat is due for some time (close code 4009), and the
    machine that holds it may have stopped just before one was."""
    # Live for this long, a connection was sound: the next identify, the next resume need not be delayed.
    sound_after: float = 60.0
    resume_sound_after: float = 1.0
    resume_backoff: float = 1.0
    resume_backoff_cap: float = 60.0
    identify_backoff: float = 5.0
    # With full jitter a cap of 600 s is about 288 identifies a day; 120 s would exceed Discord's 1000.
    identify_backoff_cap: float = 600.0
    # The circuit breaker: one shard's identifies in any hour. A shard that dies at READY gets no more.
    identifies_per_hour: int = 12
    # Part of the heartbeat interval for which reading may pause before the connection is closed.
    pause_share: float = 0.75

    address_fault: Callable[[str, str], str] | None = None
    """Returns why the token is not sent to a gateway's address, given that address and the one before; empty when it
    is.
    """
    max_message_bytes: int = 256 * 1024 * 1024
    """Bound for one inflated message; what is larger is refused as an attack."""
    command_queue: int = 1000
    """Commands that may wait for one shard."""
    command_budget: CommandBudget | None = None
    """Commands that may wait for all shards; None means no bound but each shard's own."""

    def identify(self, shard: tuple[int, int], presence: Mapping[str, Any] | None) -> bytes:
        """Return the identify of a shard, ``(id, total)``; *presence* replaces the one of these options."""
        if presence is None and self.presence is not None:
            presence = self.presence(*shard)
        return commands.identify(
            token=self.token,
            intents=self.intents,
            shard_id=shard[0],
            shard_count=shard[1],
            large_threshold=self.large_threshold,
            presence=presence,
            properties=self.properties,
        )

    def resume(self, session_id: str, seq: int) -> bytes:
        """Return the resume of a session from *seq*."""
        return commands.resume(token=self.token, session_id=session_id, seq=seq)
