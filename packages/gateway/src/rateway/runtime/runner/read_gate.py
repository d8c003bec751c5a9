"""Bound what a process has read from Discord and the broker has not confirmed, in bytes.

A wake-up of the event loop reads what the kernel holds of every connection that is ready: gigabytes, inflated, where a
thousand of them are flooded. So the bytes of each event are counted when it is read (``native/ledger.Headroom``), and
once there are too many no connection is read any more, from that moment on and not from the next turn of the loop.
Confirms make room; then connections are read again, those first that have waited longest, as many as there is room for.

Heartbeats go out meanwhile, and their acknowledgements wait in the connection. So a connection does not wait for longer
than :data:`LONGEST_WAIT_S` for a broker that is slow: publishers then make room, by moving into the spool what it has
not taken. One that does not answer is waited for as long as the spool waits in any case, and one that is away not at
all.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from rateway.native.ledger import Headroom
from rateway.runtime.runner.memory import give_back_pages

__all__ = ["LONGEST_WAIT_S", "MOST_BYTES", "ReadGate", "Readable"]

# What all clusters of a process may hold of unconfirmed events. The broker's and this process's own work overlap while
# some of it is on its way; more than this makes nothing faster (docs/decisions/memory.md).
MOST_BYTES: Final = 16 * 1024 * 1024
# About what one connection brings in a turn of the loop when it is flooded: its receive buffer, inflated.
TURN_BYTES: Final = 1024 * 1024
# A flooded connection's buffer is larger, up to 256 KiB: a thousand of them are more than all that the process holds.
KEPT_BUFFER_BYTES: Final = 64 * 1024
# An acknowledgement of a heartbeat counts for 41 s, and may have to wait twice. A thousand connections that are flooded
# at once have each had its turn in less, if it is this process alone that they wait for.
LONGEST_WAIT_S: Final = 10.0


class Readable(Protocol):
    """A connection that can be left unread for a while."""

    @property
    def unused_buffer(self) -> memoryview:
        """What it has reserved for reading and does not use now."""

    def wait(self) -> None:
        """Do not read."""

    def read_on(self) -> None:
        """Read again."""


class ReadGate:
    """One for all connections of a process, and for its loop's thread."""

    def __init__(
        self,
        most: int = MOST_BYTES,
        longest_wait: float = LONGEST_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.headroom = Headroom(most, self._shut, self._let_some_read)
        """What the process's publishers count against."""
        self._longest_wait = longest_wait
        self._clock = clock
        self._reading: dict[Readable, None] = {}
        # Since when (monotonic seconds); the first has waited longest.
        self._waiting: OrderedDict[Readable, float] = OrderedDict()
        # Seconds in which connections waited, until now or until the present wait began; and since when that lasts.
        self._waited = 0.0
        self._waits_since: float | None = None
        self._is_going_on = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waited(self) -> float:
        """Seconds since the start in which at least one connection was not read."""
        since = self._waits_since
        return self._waited + (0.0 if since is None else self._clock() - since)

    def add(self, connection: Readable) -> None:
        """Count on a connection, which is read now. While others wait it waits as well, until it is its turn: any
        number of them may begin just then, with all that they have missed.
        """
        if connection in self._reading or connection in self._waiting:
            return
        if self._waiting:
            connection.wait()
            self._waiting[connection] = self._clock()
        else:
            self._reading[connection] = None

    def discard(self, connection: Readable) -> None:
        """Forget a connection that has ended."""
        self._reading.pop(connection, None)
        self._waiting.pop(connection, None)
        self._look()

    def give_back_unused(self) -> None:
        """Give back the memory that connections have reserved for reading and do not use now."""
        give_back_pages(connection.unused_buffer for connection in (*self._reading, *self._waiting))

    def _shut(self) -> None:
        """Read nothing more."""
        now = self._clock()
        for connection in self._reading:
            connection.wait()
            self._waiting[connection] = now
        buffers = (connection.unused_buffer for connection in self._reading)
        give_back_pages(buffer for buffer in buffers if buffer.nbytes > KEPT_BUFFER_BYTES)
        self._reading.clear()
        self._look()

    def _let_some_read(self) -> None:
        """Read those that have waited longest, as many as there is room for."""
        if self._is_going_on:
            return
        for _ in range(min(len(self._waiting), max(1, self.headroom.bytes // TURN_BYTES))):
            connection, _ = self._waiting.popitem(last=False)
            self._reading[connection] = None
            connection.read_on()
        self.headroom.is_used_up = False
        self._look()
        if self._waiting:
            # Most may have nothing to read: then the next ones have their room.
            self._is_going_on = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_going_on = False
        self.headroom.give(0)

    def _look(self) -> None:
        """Note whether any connection waits, and for how long."""
        headroom = self.headroom
        headroom.is_waited_for = bool(self._waiting)
        headroom.is_overdue = False
        if not self._waiting:
            headroom.is_used_up = False
            self._waited, self._waits_since = self.waited, None
        else:
            now = self._clock()
            if self._waits_since is None:
                self._waits_since = now
            waited = now - next(iter(self._waiting.values()))
            headroom.is_overdue = waited >= self._longest_wait
            if not headroom.is_overdue and self._timer is None:
                left = self._longest_wait - waited
                self._timer = asyncio.get_running_loop().call_later(left, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._look()
