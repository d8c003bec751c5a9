"""Limit the number of connections, and how long each may take, between the socket and aiohttp's protocol.

aiohttp waits for a request's head as long as the peer likes and takes any number of connections. Here a head must
arrive in time, an answer must be read in time, connections are bounded in number, and new ones are accepted at a
limited rate: peers of the port cannot take the event loop away from the shards.

The kind of a request is known once its head has arrived. Until then its connection is idle; of a bounded number of idle
ones the one that idled longest is closed for a new one. A request then takes a slot of its kind. Health probes have
slots of their own, so that peers that ask for pages and do not read them keep no probe out. Where all slots of a kind
are taken, the connection whose peer has not read for longest is closed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

__all__ = ["ConnectionLimiter", "LimitedConnection", "Limits", "Pace", "RequestKind"]

RequestKind: TypeAlias = Literal["page", "probe"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the server; seconds and bytes."""

    connections: int = 64
    """Answered at a time, probes apart; as many again may be idle."""
    probes: int = 16
    """Health probes answered at a time."""
    watchers: int = 16
    """Streams among the connections."""
    head_s: float = 5.0
    """From a connection's begin, or the end of an answer, to a request's whole head."""
    answer_s: float = 20.0
    """From the head to the last byte that the peer has read."""
    unread_s: float = 2.0
    """A connection whose peer has not read for so long is closed when all slots are taken."""
    line_bytes: int = 4096
    field_bytes: int = 8190
    # A scrape, two probes and a page need some ten a second; an answer costs a millisecond at worst.
    requests_per_s: float = 100.0
    burst: int = 200
    # Of one connection: a probe comes every few seconds, and no other's requests may hold it up.
    probes_per_s: float = 5.0
    probes_burst: int = 10

    def slots(self, kind: RequestKind) -> int:
        """Return how many requests of a kind are answered at a time."""
        return self.probes if kind == "probe" else self.connections


class Pace:
    """A rate limit with a burst (token bucket)."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst / per_s
        # When all that was taken is filled up again.
        self._level_at = float("-inf")

    def wait(self, now: float) -> float:
        """Take one unit; return the seconds until it may be used."""
        self._level_at = max(self._level_at, now - self._burst) + 1 / self._per_s
        return max(0.0, self._level_at - now)


class ConnectionLimiter:
    """The protocol factory of the server: each connection gets a :class:`LimitedConnection`."""

    def __init__(self, factory: Callable[[], asyncio.Protocol], limits: Limits) -> None:
        """*factory* makes aiohttp's protocol of a connection."""
        self.limits = limits
        self.rejected: Counter[str] = Counter()
        """Requests that found no slot, by kind."""
        self._closed = False
        self._factory = factory
        self._pace = Pace(limits.requests_per_s, limits.burst)
        # By aiohttp's protocol; the one that was served last is last.
        self._connections: dict[asyncio.BaseProtocol, LimitedConnection] = {}

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        return LimitedConnection(self)

    def of(self, protocol: asyncio.BaseProtocol) -> LimitedConnection | None:
        """Return the connection of one of aiohttp's protocols; None once it has ended."""
        return self._connections.get(protocol)

    def admit(self) -> float | None:
        """Return the delay before serving a new connection, None to reject it. Closes an idle one if necessary."""
        if self._closed:
            return None
        idle = [connection for connection in self._connections.values() if connection.answers is None]
        if len(idle) >= self.limits.connections:
            idle[0].end()
        return self._pace.wait(asyncio.get_running_loop().time())

    def add(self, connection: LimitedConnection) -> asyncio.Protocol:
        """Return aiohttp's protocol for an admitted connection."""
        inner = self._factory()
        self._connections[inner] = connection
        return inner

    def has_slot(self, kind: RequestKind) -> bool:
        """Return whether one more request can be answered. Closes the connection that was not read for longest if
        necessary, and counts a request that finds no slot.
        """
        answered = [connection for connection in self._connections.values() if connection.answers == kind]
        if len(answered) < self.limits.slots(kind):
            return True
        now = asyncio.get_running_loop().time()
        stuck = min(answered, key=lambda connection: connection.unread_since)
        # A probe's answer fits into any buffer: a peer whose answers do not has asked for many and read none.
        if now - stuck.unread_since >= (0.0 if kind == "probe" else self.limits.unread_s):
            stuck.end()
            return True
        self.rejected[kind] += 1
        return False

    def close(self) -> None:
        """End every connection; reject new ones."""
        self._closed = True
        for connection in list(self._connections.values()):
            connection.end()

    def forget(self, inner: asyncio.BaseProtocol) -> None:
        """Drop a connection that has ended."""
        self._connections.pop(inner, None)

    def idle_last(self, inner: asyncio.BaseProtocol) -> None:
        """Let the connection, which was just served, be the last of the idle ones to be closed."""
        connection = self._connections.pop(inner, None)
        if connection is not None:
            self._connections[inner] = connection


class LimitedConnection(asyncio.Protocol):
    """One connection: passes everything on to aiohttp's protocol, and ends it when a time limit is exceeded."""

    def __init__(self, limiter: ConnectionLimiter) -> None:
        self.answers: RequestKind | None = None
        """The kind of the request that is being answered; None between requests."""
        self.unread_since = float("inf")
        """Since when (the loop's time) the peer has not read what is written; infinity while it does."""
        self.probes = Pace(limiter.limits.probes_per_s, limiter.limits.probes_burst)
        self._limiter = limiter
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's by descent.
        transport = self._transport = cast(asyncio.Transport, transport)
        wait = self._limiter.admit()
        if wait is None:
            transport.abort()
            return
        self._inner = self._limiter.add(self)
        self._inner.connection_made(transport)
        if wait:
            transport.pause_reading()
            self._timer = asyncio.get_running_loop().call_later(wait, self._begin)
        else:
            self.end_answer()

    def _begin(self) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self.end_answer()

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        self.unread_since = asyncio.get_running_loop().time()
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        self.unread_since = float("inf")
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_timer(None)
        if self._inner is not None:
            self._limiter.forget(self._inner)
            self._inner.connection_lost(exc)

    # Time.

    def wait(self, seconds: float) -> None:
        """Let a request wait without a slot, for so many seconds at most."""
        self._set_timer(seconds)

    def begin_answer(self, kind: RequestKind, seconds: float | None) -> bool:
        """Take a slot for a request.

        Args:
            kind: The request's kind.
            seconds: The time limit of the answer; None for a stream, whose writes are timed.

        Returns:
            Whether there is a slot.
        """
        if self.answers != kind:
            if not self._limiter.has_slot(kind):
                return False
            self.answers = kind
        self._set_timer(seconds)
        return True

    def end_answer(self) -> None:
        """Give the slot back; the next request's head must arrive in time."""
        self.answers = None
        if self._inner is not None:
            self._limiter.idle_last(self._inner)
        self._set_timer(self._limiter.limits.head_s)

    def end(self) -> None:
        """End the connection at once."""
        if self._inner is not None:
            self._limiter.forget(self._inner)
        if self._transport is not None:
            self._transport.abort()

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self.end)
