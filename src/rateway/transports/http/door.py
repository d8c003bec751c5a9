"""Who may hold a connection, and for how long? Stands between the socket and aiohttp's protocol.

aiohttp waits for a request's head as long as the peer likes and takes any number of connections. Here a head has
to come in time, an answer has to be taken in time, connections have a bound, and new ones are let in at a pace, so
that nobody at the port takes the event loop away from the shards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

__all__ = ["Door", "Limits", "Pace"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the server; seconds and bytes."""

    connections: int = 64
    watchers: int = 16
    """Streams among the connections."""
    head_s: float = 5.0
    """From a connection's first moment, or the end of an answer, to a request's whole head."""
    answer_s: float = 20.0
    """From the head to the last byte taken."""
    line_bytes: int = 4096
    field_bytes: int = 8190
    # A scrape, two probes and a page need some ten a second; an answer costs a millisecond at worst.
    requests_per_s: float = 100.0
    burst: int = 200


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
        self.turned_away = 0
        self._closed = False
        self._factory = factory
        self._pace = Pace(limits.requests_per_s, limits.burst)
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

    def admit(self, guest: Guest) -> float | None:
        """Seconds until it may speak; None: it has to go. The one that idled longest makes room."""
        if self._closed:
            return None
        if len(self._guests) >= self.limits.connections:
            idle = next((each for each in self._guests.values() if not each.busy), None)
            if idle is None:
                self.turned_away += 1
                return None
            idle.leave()
        return self._pace.wait(asyncio.get_running_loop().time())

    def seat(self, guest: Guest) -> asyncio.Protocol:
        """aiohttp's protocol for an admitted one."""
        inner = self._factory()
        self._guests[inner] = guest
        return inner

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
        self._door = door
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.busy = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's by descent.
        transport = self._transport = cast(asyncio.Transport, transport)
        wait = self._door.admit(self)
        if wait is None:
            transport.abort()
            return
        self._inner = self._door.seat(self)
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
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clock(None)
        if self._inner is not None:
            self._door.forget(self._inner)
            self._inner.connection_lost(exc)

    # Time.

    def work(self, seconds: float | None) -> None:
        """A request is being answered: it has so long; None: as long as it likes (a stream, whose writes are timed)."""
        self.busy = True
        self._clock(seconds)

    def rest(self) -> None:
        """Nothing is being answered: the next request's head has to come in time."""
        self.busy = False
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
