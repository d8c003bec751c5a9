"""The messages between the supervisor and its runners: one JSON document a line, over a socket pair.

The runner's end of the pair is also how it knows that its supervisor lives: at its end the runner closes its shards
so that they can resume, and leaves (docs/architecture.md, "Processes").
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from rateway.fleet.choice import Choice
from rateway.fleet.membership import Membership
from rateway.fleet.roster import TenureView
from rateway.runtime.answered import Answered
from rateway.runtime.identify.remote import Acquire, Finished, Permitted, Spent, Withdraw
from rateway.runtime.monitoring.status import ClusterStatus, Note, ProcessStatus, ShardStatus
from rateway.runtime.startup import Identity
from rateway_protocol.discord.envelope import FAILURES

log = logging.getLogger(__name__)

# A status of 1,000 shards is about a megabyte.
MAX_LINE_BYTES = 64 * 1024 * 1024


class Begin(msgspec.Struct, tag=True, frozen=True):
    """The first record to a runner: what to run. ``settings`` hold secrets and travel here only, never in argv or a
    file.
    """

    settings: msgspec.Raw
    identity: Identity
    choice: Choice
    clusters: list[int]
    number: int
    others: Loading
    """The other processes at this moment: a query must not count their shards as live before the first change."""
    membership: Membership | None = None
    """None where the gateway is alone."""


class Stop(msgspec.Struct, tag=True, frozen=True):
    end_sessions: bool
    to: dict[int, str] = {}
    """The members of the fleet that clusters are handed over to."""


class AskStatus(msgspec.Struct, tag=True, frozen=True):
    call: int


class RestartShard(msgspec.Struct, tag=True, frozen=True):
    call: int
    shard: int
    new_session: bool
    refusal: str
    """The reason that the shard would get no permit to identify now; empty when it would."""


class RenewShard(msgspec.Struct, tag=True, frozen=True):
    shard: int
    why: str


class Drain(msgspec.Struct, tag=True, frozen=True):
    cluster: int


class Move(msgspec.Struct, tag=True, frozen=True):
    """To a runner: hand a cluster over to that member of the fleet."""

    cluster: int
    to: str


class Reload(msgspec.Struct, tag=True, frozen=True):
    """Changed settings, to a runner: what can change at run time takes effect. ``settings`` are all of them."""

    settings: msgspec.Raw


class UseGateway(msgspec.Struct, tag=True, frozen=True):
    url: str


class Beat(msgspec.Struct, tag=True, frozen=True):
    """A sign of life of the runner's event loop, once a second."""

    loading: list[int]
    """Shards that are not live."""
    unreadable: dict[int, str] = {}
    """Clusters whose store is of no use to queries now, and why."""
    elsewhere: list[int] = []
    """Clusters that another gateway runs."""
    tenures: list[TenureView] = []
    """Clusters of a fleet that this runner owns."""


class DialsRefused(msgspec.Struct, tag=True, frozen=True):
    """An upgrade was refused: no process of this machine dials that host for so long. From a runner, and on to the
    others."""

    host: str
    seconds: float
    status: int


class IdentifyFault(msgspec.Struct, tag=True, frozen=True):
    """To a runner: identifies of many shards fail alike, or succeed again."""

    lasts: bool


class Loading(msgspec.Struct, tag=True, frozen=True):
    """To a runner: shards of all processes that are not live, for queries about their guilds; and clusters whose
    store is of no use to queries now, and why.
    """

    shards: list[int]
    unreadable: dict[int, str] = {}
    elsewhere: list[int] = []


class FatalWords(msgspec.Struct, tag=True, frozen=True):
    shard: int
    code: int
    meaning: str
    help: str


class Parts(msgspec.Struct, tag=True, frozen=True):
    """One process's part of the status."""

    call: int
    clusters: list[ClusterStatus]
    shards: list[ShardStatus]
    process: ProcessStatus
    notes: list[Note]


class Drained(msgspec.Struct, tag=True, frozen=True):
    cluster: int
    left: int
    """Events that the broker has not confirmed: they stay in the spool."""


ToRunner = (
    Begin
    | Stop
    | AskStatus
    | RestartShard
    | RenewShard
    | Drain
    | Move
    | Reload
    | UseGateway
    | Loading
    | DialsRefused
    | IdentifyFault
    | Permitted
)
FromRunner = (
    Acquire | Withdraw | Spent | Finished | Beat | FatalWords | Parts | Drained | DialsRefused | Answered
)


class Line:
    """One end of a socket pair: records out, records in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, incoming: Any) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = msgspec.json.Decoder(incoming)
        self.unreadable = 0
        """Lines that were no record, and records that could not be carried out: each is passed over."""

    @classmethod
    async def open(cls, end: socket.socket, incoming: Any) -> Line:
        """Open one end of a socket pair. ``incoming`` is the union of records that come: ToRunner or FromRunner."""
        end.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=MAX_LINE_BYTES)
        return cls(reader, writer, incoming)

    def send(self, record: ToRunner | FromRunner) -> None:
        """Send a record without waiting: records are small and rare. Nothing is sent once the other end has closed, or
        has left MAX_LINE_BYTES unread.
        """
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > MAX_LINE_BYTES:
            log.error(
                "the other process has not read %d bytes: it is given up",
                MAX_LINE_BYTES,
                extra={"action": "ipc"},
            )
            self._writer.transport.abort()
            return
        self._writer.write(msgspec.json.encode(record) + b"\n")

    async def records(self) -> AsyncIterator[Any]:
        """Yield the records that come, until the other end closes. A line that is no record, or is too long, is passed
        over.
        """
        while True:
            try:
                line = await self._reader.readline()
            except ConnectionError:
                return
            except ValueError:
                self._pass_over(f"a line of more than {MAX_LINE_BYTES} bytes")
                continue
            if not line.endswith(b"\n"):
                return
            try:
                record = self._decoder.decode(line)
            except FAILURES as error:
                self._pass_over(f"a line that is no record: {error}")
                continue
            yield record

    def guard(self, carry_out: Callable[..., None], *arguments: Any) -> None:
        """Call *carry_out* for a record. An exception ends here: one record must not end a process."""
        try:
            carry_out(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends here
            self._pass_over(f"a record that could not be carried out: {type(error).__name__}", error)

    def _pass_over(self, what: str, error: Exception | None = None) -> None:
        self.unreadable += 1
        # Only a process of this gateway writes here: the first says what is wrong, the others the same.
        level = logging.ERROR if self.unreadable == 1 else logging.DEBUG
        log.log(level, "%s; it is passed over", what, exc_info=error, extra={"action": "ipc"})

    def close(self) -> None:
        self._writer.close()
