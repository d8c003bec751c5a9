"""Limit who may hold a connection, and for how long, between the socket and aiohttp's protocol.

aiohttp waits for a request's head as long as the peer likes and takes any number of connections. Here a head has
to come in time, an answer has to be taken in time, connections have a bound, and new ones are let in at a pace, so
that nobody at the port takes the event loop away from the shards.

What a connection is for is known once its head is there. Until then it waits in a bounded crowd, of which the one that
has idled longest makes room; then it takes a seat of its kind: health probes have seats of their own, so that whoever
asks for pages and does not read them keeps no probe out. Where all seats of a kind are taken, the one whose peer has
longest not read makes room.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

__all__ = ["Door", "Limits", "Pace", "Seat"]

Seat: TypeAlias = Literal["page", "probe"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the server; seconds and bytes."""

    connections: int = 64
    """Answered at a time, probes apart, and as many again that say nothing."""
    probes: int = 16
    """Health probes answered at a time."""
    watchers: int = 16
    """Streams among the connections."""
    head_s: float = 5.0
    """From a connection's first moment, or the end of an answer, to a request's whole head."""
    answer_s: float = 20.0
    """From the head to the last byte taken."""
    unread_s: float = 2.0
    """A peer that has not read for so long makes room when all seats are taken."""
    line_bytes: int = 4096
    field_bytes: int = 8190
    # A scrape, two probes and a page need some ten a second; an answer costs a millisecond at worst.
    requests_per_s: float = 100.0
    burst: int = 200
    # Of one connection: a probe comes every few seconds, and no other's requests may hold it up.
    probes_per_s: float = 5.0
    probes_burst: int = 10

    def seats(self, kind: Seat) -> int:
        """How many there are of a kind."""
        return self.probes if kind == "probe" else self.connections


class Pace:
    """A budget that fills at a rate: ``wait(now)`` takes one and says in how many seconds it may be used."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst / per_s
        # When all that was taken is filled up again.
        self._level_at = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until this one's turn; 0 most of the time."""
        self._level_at = max(self._level_at, now - self._burst) + 1 / self._per_s
        return max(0.0, self._level_at - now)


class Door:
    """Makes the protocol of each connection; ``factory`` makes aiohttp's."""

    def __init__(self, factory: Callable[[], asyncio.Protocol], limits: Limits) -> None:
        self.limits = limits
        self.turned_away: Counter[str] = Counter()
        """Requests that found no seat, by its kind."""
        self._closed = False
        self._factory = factory
        self._pace = Pace(limits.requests_per_s, limits.burst)
        # By aiohttp's protocol, the one that was served lately last.
        self._guests: dict[asyncio.BaseProtocol, Guest] = {}

    def __call__(self) -> asyncio.Protocol:
        """A new connection's protocol."""
        return Guest(self)

    @property
    def guests(self) -> int:
        """Connections that are held now."""
        return len(self._guests)

    def of(self, protocol: asyncio.BaseProtocol) -> Guest | None:
        """The guest behind aiohttp's protocol; None once the connection is gone."""
        return self._guests.get(protocol)

    def admit(self) -> float | None:
        """Seconds until a new one may speak; None: it has to go. The one that idled longest makes room."""
        if self._closed:
            return None
        idle = [guest for guest in self._guests.values() if guest.seat is None]
        if len(idle) >= self.limits.connections:
            idle[0].leave()
        return self._pace.wait(asyncio.get_running_loop().time())

    def let_in(self, guest: Guest) -> asyncio.Protocol:
        """aiohttp's protocol for an admitted one."""
        inner = self._factory()
        self._guests[inner] = guest
        return inner

    def has_seat(self, kind: Seat) -> bool:
        """Whether one more can be answered; the one whose peer has longest not read makes room if it has to."""
        seated = [guest for guest in self._guests.values() if guest.seat == kind]
        if len(seated) < self.limits.seats(kind):
            return True
        now = asyncio.get_running_loop().time()
        stuck = min(seated, key=lambda guest: guest.unread_since)
        # A probe's answer fits into any buffer: whose does not has asked for many, and read none.
        if now - stuck.unread_since >= (0.0 if kind == "probe" else self.limits.unread_s):
            stuck.leave()
            return True
        self.turned_away[kind] += 1
        return False

    def close(self) -> None:
        """End every connection; new ones are turned away."""
        self._closed = True
        for guest in list(self._guests.values()):
            guest.leave()

    def forget(self, inner: asyncio.BaseProtocol) -> None:
        self._guests.pop(inner, None)

    def idle_last(self, inner: asyncio.BaseProtocol) -> None:
        """Whoever was served lately makes room last."""
        guest = self._guests.pop(inner, None)
        if guest is not None:
            self._guests[inner] = guest


class Guest(asyncio.Protocol):
    """One connection: hands all on to aiohttp's protocol and keeps the time."""

    def __init__(self, door: Door) -> None:
        self.seat: Seat | None = None
        """What is being answered; None between requests."""
        self.unread_since = float("inf")
        """Since when (the loop's time) the peer has not taken what is written; infinity while it does."""
        self.probes = Pace(door.limits.probes_per_s, door.limits.probes_burst)
        self._door = door
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's by descent.
        transport = self._transport = cast(asyncio.Transport, transport)
        wait = self._door.admit()
        if wait is None:
            transport.abort()
            return
        self._inner = self._door.let_in(self)
        self._inner.connection_made(transport)
        if wait:
            transport.pause_reading()
            self._timer = asyncio.get_running_loop().call_later(wait, self._enter)
        else:
            self.rest()

    def _enter(self) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self.rest()

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
        self._clock(None)
        if self._inner is not None:
            self._door.forget(self._inner)
            self._inner.connection_lost(exc)

    # Time.

    def wait(self, seconds: float) -> None:
        """A request waits for its turn: it has so long, and no seat yet."""
        self._clock(seconds)

    def work(self, kind: Seat, seconds: float | None) -> bool:
        """A request is to be answered: whether there is a seat for it. It has so long; None: as long as it likes (a
        stream, whose writes are timed)."""
        if self.seat != kind:
            if not self._door.has_seat(kind):
                return False
            self.seat = kind
        self._clock(seconds)
        return True

    def rest(self) -> None:
        """Nothing is being answered: the next request's head has to come in time."""
        self.seat = None
        if self._inner is not None:
            self._door.idle_last(self._inner)
        self._clock(self._door.limits.head_s)

    def leave(self) -> None:
        """End the connection at once."""
        if self._inner is not None:
            self._door.forget(self._inner)
        if self._transport is not None:
            self._transport.abort()

    def _clock(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self.leave)
