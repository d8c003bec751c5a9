"""What is one event to a worker? Discord's own JSON, decoded when it is looked at, and what the gateway says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import msgspec
from aio_pika.abc import AbstractIncomingMessage

__all__ = ["Event", "event_of"]

_Model = TypeVar("_Model")


@dataclass(frozen=True)
class Event:
    """One event. Names of fields are Discord's; ids are strings, as in Discord's JSON."""

    name: str
    """``MESSAGE_CREATE``, say; the gateway's own begin with ``RATEWAY_``, an entity as it was ends in ``.before``."""
    body: bytes = field(repr=False)
    """The bytes of Discord's ``d``."""
    message_id: str | None
    """The same for the same event, however often it comes."""
    shard_id: int | None = None
    shard_count: int | None = None
    seq: int | None = None
    replayed: bool = False
    """It came between a resume and its RESUMED; most such events are first deliveries all the same."""
    republished: bool = False
    """The broker had refused or lost it after taking a later one: it comes out of order."""
    redelivered: bool = False
    """The broker gave it out before, to a worker that did not acknowledge it."""
    cause: str | None = None
    """Of GUILD_CREATE ``start``, ``join``, ``available``; of GUILD_DELETE ``left``, ``outage``."""

    @cached_property
    def data(self) -> Any:
        """The event's ``d``, decoded; once."""
        return msgspec.json.decode(self.body)

    def decode(self, model: type[_Model]) -> _Model:
        """The event's ``d`` as a type of yours (a ``msgspec.Struct``, a dataclass, a TypedDict): checked and faster."""
        return msgspec.json.decode(self.body, type=model)


def event_of(message: AbstractIncomingMessage) -> Event:
    """An event of its AMQP message."""
    headers = message.headers or {}

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
        redelivered=bool(message.redelivered),
        cause=cause if isinstance(cause, str) else None,
    )
