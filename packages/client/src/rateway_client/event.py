"""One event as a worker sees it: Discord's own JSON, decoded on first access, and the gateway's properties of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar

import msgspec
from aio_pika.abc import AbstractIncomingMessage
from rateway_protocol.contract import topology

__all__ = ["Event", "Settling", "Verdict", "event_of"]

_Model = TypeVar("_Model")

Verdict = Literal["done", "give_back", "drop"]


class Settling(Protocol):
    """The receiver of an event's outcome."""

    async def settle(self, verdict: Verdict) -> None: ...


class _Nobody:
    """An event that came from no queue needs no settling."""

    async def settle(self, verdict: Verdict) -> None:
        return


@dataclass(frozen=True)
class Event:
    """One event. Names of fields are Discord's; ids are strings, as in Discord's JSON.

    It is acknowledged by :meth:`done`: a worker that dies before gets it again, or another of the same queue does.
    """

    name: str
    """``MESSAGE_CREATE`` …; the gateway's own begin with ``RATEWAY_``, an entity as it was ends in ``.before``."""
    body: bytes = field(repr=False)
    """The bytes of Discord's ``d``."""
    message_id: str | None
    """``<session>:<shard>:<seq>``: the same for the same event, however often it comes. None if it has no number."""
    shard_id: int | None = None
    shard_count: int | None = None
    seq: int | None = None
    """Discord's sequence number within the session."""
    replayed: bool = False
    """It came between a resume and its RESUMED; most such events are first deliveries all the same."""
    republished: bool = False
    """The broker had refused or lost it after taking a later one: it comes out of order."""
    ahead: bool = False
    """It was published before older events that waited for the broker (URGENT): it comes out of order."""
    redelivered: bool = False
    """The broker gave it out before, to a worker that did not acknowledge it."""
    cause: str | None = None
    """Of GUILD_CREATE ``start``, ``join``, ``available``; of GUILD_DELETE ``left``, ``outage``."""
    received: float | None = None
    """The time at which the gateway received it: whole seconds since 1970."""
    cluster: int | None = None
    """The cluster whose exchange it came over."""
    settling: Settling = field(default_factory=_Nobody, repr=False, compare=False)

    @cached_property
    def data(self) -> Any:
        """The event's ``d``, decoded; once. Raises msgspec.DecodeError for what is no JSON."""
        return msgspec.json.decode(self.body)

    def decode(self, model: type[_Model]) -> _Model:
        """Return the event's ``d`` as a type of yours (a ``msgspec.Struct``, a dataclass, a TypedDict): checked and
        faster.

        The gateway's own are in ``rateway_protocol.contract.messages``: ``event.decode(messages.Gap)``. Raises
        msgspec.ValidationError when it does not fit.
        """
        return msgspec.json.decode(self.body, type=model)

    async def done(self) -> None:
        """Mark it as processed: its id is noted, then it is acknowledged. Never raises for a broker that is away: it
        will come again and be recognised. A second call does nothing.
        """
        await self.settling.settle("done")

    async def give_back(self) -> None:
        """Give it back unprocessed: the broker delivers it again, to this worker or another of the same queue."""
        await self.settling.settle("give_back")

    async def drop(self) -> None:
        """Drop it, because it cannot be processed: the queue removes it (to its dead-letter exchange, if it
        has one).
        """
        await self.settling.settle("drop")


def event_of(message: AbstractIncomingMessage, settling: Settling | None = None) -> Event:
    """Return an event of its AMQP message. Never raises: what has another type than the contract's is left out."""
    headers: Mapping[str, object] = message.headers or {}

    def number(name: str) -> int | None:
        value = headers.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    cause = headers.get("cause")
    return Event(
        name=message.type or message.routing_key or "",
        body=message.body,
        message_id=message.message_id,
        shard_id=number("shard_id"),
        shard_count=number("shard_count"),
        seq=number("seq"),
        replayed=headers.get("replayed") is True,
        republished=headers.get("republished") is True,
        ahead=headers.get("ahead") is True,
        redelivered=bool(message.redelivered),
        cause=cause if isinstance(cause, str) else None,
        received=None if message.timestamp is None else message.timestamp.timestamp(),
        cluster=topology.cluster_of_exchange(message.exchange or ""),
        settling=settling or _Nobody(),
    )
