"""Publish the events of some names ahead of those that wait for the broker (``docs/delivery.md``, *Urgent events*).

Each such event has its place among the others, in memory or in the spool, as if there were none of this. While it waits
there, a copy with the header ``ahead`` goes out on a connection of its own: one that carries the backlog has megabytes
on their way. Once the broker has confirmed the copy, the place is answered for and nothing is published there. A copy
that is lost or refused changes nothing: the event goes out in its place, under the same ``message_id``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pamqp.commands as spec
from rateway.delivery.message import Publish
from rateway.delivery.port import Clock
from rateway.native.ledger import Run
from rateway.transports.amqp.log.log_keeper import LogKeeper
from rateway.transports.amqp.wire import frames
from rateway.transports.amqp.wire.channel import Acks, Channel, ChannelClosed
from rateway.transports.amqp.wire.connection import Connection

__all__ = ["UrgentLine"]

# Discord takes an answer to an interaction for three seconds: an older one has no hurry any more, and no event of
# another name has that after so long.
_HURRY_S: Final = 3.0
# The channel that looks at the event log, beside the one that publishes.
_LOG_CHANNEL: Final = 2
# Copies without an answer at a time: a broker that takes no more of them answers none of the next ones either.
_UNANSWERED_MOST: Final = 1_000
# Between two looks at a log that does not answer.
_LOOK_S: Final = 0.5


@dataclass(slots=True, eq=False)
class _Entry:
    publish: Publish
    at: float
    """When it came (monotonic seconds)."""
    is_flying: bool = False
    """Whether its copy is written and not answered."""


class UrgentLine:
    """The urgent events of one cluster that are not confirmed yet, and the channel for their copies.

    *is_sent* says whether a run is written in its place and not answered; *on_taken* receives a run whose copy is
    confirmed.
    """

    def __init__(
        self,
        *,
        names: frozenset[str],
        exchange: str,
        clock: Clock,
        event_log: LogKeeper | None,
        is_sent: Callable[[Run], bool],
        on_taken: Callable[[Run], None],
    ) -> None:
        self.names = names
        self.is_due = False
        """Whether :meth:`hurry` may have something to do since it was called last."""
        self.count = 0
        """Copies that were written."""
        self.is_held = False
        """Whether nothing is to be written."""
        self._exchange = exchange.encode()
        self._clock = clock
        self._event_log = event_log
        self._is_sent = is_sent
        self._on_taken = on_taken
        # By place, a run that holds nothing else; in the order in which they came, and none that has no hurry any more.
        self._entries: OrderedDict[Run, _Entry] = OrderedDict()
        # The places of copies without an answer, by delivery tag.
        self._flying: dict[int, Run] = {}
        self._tag = 0
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        if event_log is not None:
            for name in names:
                event_log.note(name.encode())

    def note(self, run: Run, publish: Publish) -> None:
        """Note an urgent event that is about to be written, or to wait, in its place."""
        ahead = Publish(publish.key, frames.ahead(publish.properties), publish.body)
        self._entries[run] = _Entry(ahead, self._clock.monotonic())
        self.is_due = True

    def hurry(self) -> None:
        """Publish copies of those that wait in their place. In order: one that was written in its place and is not
        answered goes first, if a later one waits.
        """
        self.is_due = False
        entries, oldest = self._entries, self._clock.monotonic() - _HURRY_S
        while entries:
            run, entry = next(iter(entries.items()))
            if entry.at >= oldest and (entry.is_flying or run.left):
                break
            del entries[run]
        connection = self._connection
        if not entries or connection is None or self._channel is None or self.is_held:
            return
        if connection.blocked or not connection.writable:
            return
        if self._event_log is not None and not self._event_log.is_settled:
            return
        # A run that is still filled has no place yet: it gets one when this wake-up's runs are written.
        open_ones = [run for run, entry in entries.items() if run.left > 0 and not entry.is_flying]
        while open_ones and self._is_sent(open_ones[-1]):
            open_ones.pop()
        room = _UNANSWERED_MOST - len(self._flying)
        if open_ones and room > 0:
            self._write(connection, open_ones[:room])

    def _write(self, connection: Connection, runs: list[Run]) -> None:
        parts: list[bytes] = []
        for run in runs:
            entry = self._entries[run]
            parts += frames.pieces(self._exchange, entry.publish, connection.frame_max)
            self._tag += 1
            self._flying[self._tag] = run
            entry.is_flying = True
        self.count += len(runs)
        connection.write(b"".join(parts))

    # What the broker says

    def _on_acks(self, acks: Acks) -> None:
        flying = self._flying
        for tag, multiple in acks:
            for each in [found for found in flying if found <= tag] if multiple else [tag]:
                run = flying.pop(each, None)
                if run is not None:
                    self._entries.pop(run, None)
                    self._on_taken(run)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        """A queue is full: what it refuses goes out in its place, where that is tried again."""
        refused = [each for each in self._flying if each == tag or (multiple and each < tag)]
        for each in refused:
            self._entries.pop(self._flying.pop(each), None)

    # What the line needs (see :class:`rateway.transports.amqp.events.line.LineOwner` and ``LineGate``)

    async def open(self, connection: Connection, say: Callable[[bool, str], None]) -> None:
        """Return once what is published on a channel that is opened after this goes into the event log, if there is
        one. A stream that was just started on this node does not take it before.
        """
        keeper = self._event_log
        while keeper is not None and keeper.state in ("kept", "waiting") and keeper.name is not None:
            channel = await connection.channel(_LOG_CHANNEL)
            try:
                await channel.call(spec.Queue.Declare(0, keeper.name, passive=True), spec.Queue.DeclareOk)
            except ChannelClosed:
                await asyncio.wait([connection.closed], timeout=_LOOK_S)
                continue
            channel.close()
            await asyncio.shield(channel.closed)
            return

    async def watch(self, connection: Connection) -> None:
        """Return when another channel has to be opened: never, because the publisher watches the log."""
        await asyncio.shield(connection.closed)

    def line_connected(self, connection: Connection) -> None:
        """See :class:`~rateway.transports.amqp.events.line.LineOwner`."""
        self._connection = connection
        connection.on_writable = self.hurry
        connection.on_blocked = lambda blocked, why: self.hurry()

    def line_ready(self, channel: Channel) -> None:
        """See :class:`~rateway.transports.amqp.events.line.LineOwner`."""
        channel.on_acks = self._on_acks
        channel.on_nack = self._on_nack
        channel.on_end = self._end
        self._channel = channel
        self._tag = 0
        self.hurry()

    def _end(self) -> None:
        self._channel = None

    def line_lost(self) -> None:
        """Write copies without an answer once more on the next channel, as far as there is still time."""
        self._channel = None
        self._flying.clear()
        for entry in self._entries.values():
            entry.is_flying = False

    def line_disconnected(self) -> None:
        """Forget the connection: nothing can be written."""
        self._channel = self._connection = None

    def line_outdated(self) -> None:
        """Close the channel, to have another one."""
        if self._channel is not None:
            self._channel.close()

    def line_message_too_large(self, text: str) -> None:
        """Drop the copies: the publisher replaces what is too large in its place."""
        self._entries.clear()

    def line_state(self, up: bool, why: str) -> None:
        """Report nothing: status and log show the publisher's connection."""
