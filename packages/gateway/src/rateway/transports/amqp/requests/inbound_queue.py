"""The inbound queue of a cluster: found or declared whatever the broker's default queue type is, and its lock verified.

An exclusive consumer is the ownership of a cluster. Only classic queues enforce it: a quorum queue accepts the word and
a second consumer beside it. So the queue is declared as a classic one, a queue that exists is taken as it is (a policy
of the operator, or an older version, may have made it), and the lock is tried: a second exclusive consumer must be
refused. Each question is asked on a channel of its own, because the broker closes the channel to say no.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

import pamqp.commands as spec
from pamqp.base import Frame
from rateway.transports.amqp.wire.channel import ChannelClosed
from rateway.transports.amqp.wire.connection import Connection

__all__ = [
    "Away", "Counts", "Found", "Looked", "Missing", "Refused", "ask", "classic", "count", "flag", "flag_stands",
    "is_away", "is_missing", "is_taken", "lock_holds", "look", "make",
]  # fmt: skip

_ACCESS_REFUSED, _NOT_FOUND, _RESOURCE_LOCKED, _PRECONDITION_FAILED = 403, 404, 405, 406
# Whatever default queue type a virtual host or a node has: this one is exclusive when asked to be.
_CLASSIC: Final = {"x-queue-type": "classic"}
_INEQUIVALENT: Final = re.compile(r"inequivalent arg '([^']+)'(?:.*current is (?:the value )?'(\w+)')?")


@dataclass(frozen=True, slots=True)
class Found:
    """The queue is there and has the flags of the contract. ``kind`` is its type, where the broker told it."""

    kind: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no such queue."""


@dataclass(frozen=True, slots=True)
class Away:
    """The queue is there, and its node is not: the broker's own words."""

    words: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The queue cannot be used until a person changes something."""

    closed: ChannelClosed


@dataclass(frozen=True, slots=True)
class Counts:
    """The messages that wait in a queue, and its consumers."""

    messages: int
    consumers: int


Looked: TypeAlias = Found | Missing | Away | Refused


async def ask(
    connection: Connection, number: int, method: Frame, reply: type[Frame], *, timeout: float | None = None
) -> ChannelClosed | None:
    """Return what the broker has against *method*, or None when it was carried out. Harms no other channel.

    Raises TimeoutError after *timeout* seconds: the node of a queue may be silent while ours answers.
    """
    async with asyncio.timeout(timeout):
        channel = await connection.channel(number)
        try:
            await channel.call(method, reply)
            channel.close()
            await asyncio.shield(channel.closed)
        except ChannelClosed as closed:
            return closed
        return None


async def look(connection: Connection, number: int, queue: str, *, timeout: float | None = None) -> Looked:
    """Return what is known of *queue*, on the channel *number*. Changes nothing at the broker."""
    closed = await ask(connection, number, _passive(queue), spec.Queue.DeclareOk, timeout=timeout)
    if closed is not None:
        if is_away(closed):
            return Away(closed.text)
        return Missing() if is_missing(closed) else Refused(closed)
    # Declared again as it should be, it shows whether its flags are other ones. Arguments may well be others: whether
    # the queue does what it must is tried with the lock.
    closed = await ask(connection, number, classic(queue), spec.Queue.DeclareOk, timeout=timeout)
    if closed is None:
        return Found("classic")
    if closed.code == _PRECONDITION_FAILED and (match := _INEQUIVALENT.search(closed.text)) is not None:
        argument, current = match[1], match[2] or ""
        if argument.startswith("x-"):
            return Found(current if argument == "x-queue-type" else "")
    return Away(closed.text) if is_away(closed) else Refused(closed)


async def count(
    connection: Connection, number: int, queue: str, *, timeout: float | None = None
) -> Counts | Missing | Away:
    """Return how many messages wait in *queue* and how many consumers it has; one that may not be looked at is away.

    Raises TimeoutError after *timeout* seconds.
    """
    async with asyncio.timeout(timeout):
        channel = await connection.channel(number)
        try:
            declared = await channel.call(_passive(queue), spec.Queue.DeclareOk)
            channel.close()
            await asyncio.shield(channel.closed)
        except ChannelClosed as closed:
            return Missing() if is_missing(closed) else Away(closed.text)
        return Counts(int(declared.message_count or 0), int(declared.consumer_count or 0))


async def make(
    connection: Connection, number: int, queue: str, *, timeout: float | None = None
) -> Found | Away | Refused:
    """Declare *queue*, which is missing, as a durable classic one."""
    closed = await ask(connection, number, classic(queue), spec.Queue.DeclareOk, timeout=timeout)
    if closed is None:
        return Found("classic")
    return Away(closed.text) if is_away(closed) else Refused(closed)


async def lock_holds(
    connection: Connection, number: int, queue: str, *, timeout: float | None = None
) -> bool | ChannelClosed:
    """Return whether a second exclusive consumer is refused, while the first one consumes; else why that is not known.

    A consumer that was accepted is gone when this returns, and what it was given is back in the queue.
    """
    consume = spec.Basic.Consume(0, queue, "", False, False, True)
    closed = await ask(connection, number, consume, spec.Basic.ConsumeOk, timeout=timeout)
    if closed is None:
        return False
    return True if is_taken(closed) else closed


def flag(name: str, *, passive: bool = False) -> spec.Queue.Declare:
    """Return the declaration of an exclusive queue, which lives as long as the connection that declared it."""
    return spec.Queue.Declare(0, name, passive=passive, exclusive=True, arguments={} if passive else _CLASSIC)  # type: ignore[arg-type]  # pamqp's table type is closed over its own values


async def flag_stands(
    connection: Connection, number: int, name: str, *, timeout: float | None = None
) -> bool:
    """Return whether another connection holds the exclusive queue *name*."""
    closed = await ask(connection, number, flag(name, passive=True), spec.Queue.DeclareOk, timeout=timeout)
    return closed is not None and closed.code == _RESOURCE_LOCKED


def is_taken(closed: ChannelClosed) -> bool:
    """Return whether a consumer was refused because another one is exclusive."""
    return closed.code in (_ACCESS_REFUSED, _RESOURCE_LOCKED) and "exclusive" in closed.text


def is_away(closed: ChannelClosed) -> bool:
    """Return whether a queue is out of reach because its node or process is down. It comes back by itself."""
    return closed.code == _NOT_FOUND and (
        "inaccessible" in closed.text or "stopped by supervisor" in closed.text
    )


def is_missing(closed: ChannelClosed) -> bool:
    """Return whether there is no such queue."""
    return closed.code == _NOT_FOUND and not is_away(closed)


def _passive(queue: str) -> spec.Queue.Declare:
    return spec.Queue.Declare(0, queue, passive=True, durable=True)


def classic(queue: str, arguments: Mapping[str, int] = MappingProxyType({})) -> spec.Queue.Declare:
    """Return the declaration of a durable classic queue."""
    return spec.Queue.Declare(0, queue, durable=True, arguments={**_CLASSIC, **arguments})
