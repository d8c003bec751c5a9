"""The ports of the proxy: the event log that it reads, and the gateway that it asks.

RabbitMQ is the first form of both (``transports/amqp``). Doubles in memory pass the same tests
(``packages/gateway/tests/proxy``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec
from rateway_protocol.contract.errors import Fault
from rateway_protocol.contract.snapshots import ClusterList, GuildSnapshot, MemberList, ShardSnapshot

__all__ = [
    "Age", "EndReason", "Gateway", "LogEntry", "LogPass", "LogReader", "LogSink", "LogStart", "Newest", "Next",
    "Offset", "Positions",
]  # fmt: skip


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """One entry of a cluster's event log: an event, or a message of the gateway's own (``RATEWAY_*``)."""

    offset: int
    """Its place in the log. Offsets grow; one is skipped now and then."""
    name: str
    body: bytes
    """The JSON of ``d``, as Discord sent it."""
    shard_id: int
    """-1 for what belongs to no shard."""
    session: str
    """The part of the ``message_id`` before the shard; empty where there is none."""
    seq: int
    """Discord's sequence number in that session; 0 where there is none."""
    repeat: int
    """n for the n-th other content under one sequence number (``:rN`` in the ``message_id``), else 0."""
    is_out_of_order: bool
    """``republished`` or ``ahead``: it stands behind or before its place in the shard's order."""
    timestamp: int
    """When the gateway received it, in seconds since 1970."""


class Next(msgspec.Struct, frozen=True):
    """Begin with what is written from now on."""


class Offset(msgspec.Struct, frozen=True):
    """Begin with the entry at ``offset``. A log that no longer has it begins with the first entry that is left."""

    offset: int


class Age(msgspec.Struct, frozen=True):
    """Begin with entries that are at most so many seconds old; some older ones may come before them."""

    seconds: int


class Newest(msgspec.Struct, frozen=True):
    """Begin with the newest entry, whatever its age; some older ones may come before it. An empty log begins with what
    is written from now on."""


LogStart: TypeAlias = Next | Newest | Offset | Age

EndReason = Literal["missing", "down", "disconnected", "refused"]
"""Why a pass ended: no such log; it has no majority or its node is down; the broker's connection was lost; the broker
refuses this reader."""


class LogSink(Protocol):
    """Receives the entries of one pass. Called from the event loop, never from within a call of the pass's own methods
    or of ``read``; must return soon and never raise."""

    def on_begin(self) -> None:
        """The pass stands at its start: whatever is written from now on is delivered. Comes once, before all else but
        ``on_end``; only from here on is a snapshot of the cache joined by the log without a hole."""

    def on_entries(self, entries: Sequence[LogEntry]) -> None:
        """The next entries of the log, in order; all that one read of the socket brought."""

    def on_end(self, reason: EndReason, text: str) -> None:
        """The pass has ended by itself; ``text`` is fit for a log line. Nothing more comes."""


class LogPass(Protocol):
    """One pass over a log, from its start to what is being written, until it is closed or ends by itself."""

    def acknowledge(self, offset: int) -> None:
        """All entries up to ``offset`` were dealt with; a bounded number of entries is delivered beyond that."""

    def close(self) -> None:
        """Stop; nothing more is delivered, not even what has arrived already."""


class LogReader(Protocol):
    """Reads logs over one connection to the broker, which it keeps by itself."""

    def read(self, log: str, start: LogStart, sink: LogSink) -> LogPass:
        """Begin a pass over the log of that name. Returns at once; the sink receives what goes wrong. Without a
        connection the pass waits for the attempt to connect that is under way or comes next, and ends with its failure:
        a caller that begins a new pass each time that one ends asks the broker no more often than this reader does.
        """


class Gateway(Protocol):
    """The gateway's queries and commands. A :class:`Fault` is the gateway's own answer, or ``unavailable`` where none
    came in time."""

    async def clusters(self) -> ClusterList | Fault:
        """Return the layout, the clusters' logs, and what the gateway was given."""

    async def shard(self, shard_id: int) -> ShardSnapshot | Fault:
        """Return a shard's position, its guilds, and READY's own parts."""

    async def guilds(
        self, guild_ids: Sequence[int], intents: int, large_threshold: int
    ) -> list[GuildSnapshot | Fault]:
        """Return each guild as a GUILD_CREATE would tell it now to a bot of these intents, in the order asked for."""

    async def members(
        self, guild_id: int, query: str | None, limit: int, user_ids: Sequence[int] | None, presences: bool
    ) -> MemberList | Fault:
        """Return members as Discord's *Request Guild Members* asks for them; ``incomplete`` where the cache does not
        know them all."""

    async def command(self, shard_id: int, payload: bytes, seconds: float) -> Fault | None:
        """Send a whole gateway payload to Discord on that shard, within so many seconds; None once it has gone out."""


class Positions(Protocol):
    """Small texts that all proxies of a bot share (``PROXY_REPLAY``): up to where the bot of a shard has seen the logs.
    Neither call raises."""

    async def keep(self, key: str, position: bytes) -> None:
        """Put a text in place of the one under that key. Where that fails the older one stays."""

    async def read(self, key: str) -> bytes | None:
        """Return the text under that key; None where there is none, or it cannot be read in some seconds."""
