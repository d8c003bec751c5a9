"""A lane in plain Python: every message takes the general way. ``native.pyx`` is the same with a short cut."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from rateway_protocol.discord.envelope import Envelope, EnvelopeError, decode

__all__ = ["EventPipeline", "FastPath", "PublishState", "ReceiveState", "Template", "parts"]


def parts(document: bytes) -> tuple[int, str, bytes] | None:
    """``(s, t, d)`` of a usual dispatch; None for everything else, and nothing is said about that."""
    try:
        envelope = decode(document)
    except EnvelopeError:
        return None
    if envelope.op != 0 or envelope.s is None or not envelope.t:
        return None
    return envelope.s, envelope.t, bytes(envelope.d)


class ReceiveState:
    """What a conversation has taken in, and whether it is in smooth water: base of ``session.Conversation``."""

    __slots__ = ("_feed", "_last", "_smooth", "bytes_in", "bytes_inflated", "heard_at", "received_seq")

    _feed: Callable[[bytes | memoryview, bool], bytes | memoryview | None]
    """The JSON in a WebSocket message; None when it is not complete yet."""
    _last: Envelope | bytes | None
    """The dispatch that carried ``received_seq``, or the message that it was in."""
    _smooth: bool
    """Nothing but the next dispatch in line is expected, and nothing has to be done about it."""
    bytes_in: int
    bytes_inflated: int
    heard_at: float
    received_seq: int


class Template:
    """What the heads of one shard's events of one name have in common, and the making of one."""

    __slots__ = ("_begin", "_end", "_identity", "_middle", "_pack")

    def __init__(self, begin: bytes, middle: bytes, identity: bytes, digits: int, end: bytes) -> None:
        """Up to the body's size, from there to the sequence, from there to the sequence's *digits*, and from the time
        to the body's length."""
        self._begin, self._middle, self._identity, self._end = begin, middle, identity, end
        self._pack = struct.Struct(
            f">{len(begin)}sQ{len(middle)}sq{len(identity)}s{digits}s8s{len(end)}sI"
        ).pack

    def head(self, size: int, seq: int, stamp: bytes) -> bytes:
        """The head of an event: *size* bytes of body, a sequence of as many digits as the template is for, the time."""
        # Text, then bytes: half of what formatting bytes costs.
        return self._pack(
            self._begin, size, self._middle, seq, self._identity, f"{seq}".encode(), stamp, self._end, size
        )


class PublishState:
    """Where a shard's events go: base of ``amqp.ShardStream``."""

    __slots__ = ("_heads", "_high", "_low", "_room", "_run", "_stamp")

    _heads: dict[str, Template]
    """By event name, for sequences from ``_low`` to below ``_high`` and bodies of at most ``_room`` bytes."""
    _low: int
    _high: int
    _room: int
    _run: Any
    """The ledger's run of this wake-up, None before its first event."""
    _stamp: bytes


class EventPipeline:
    """What a cluster does with each event on its way; one for all of its shards."""

    __slots__ = ("apply", "events", "other", "publishes", "unreadable", "unreadable_why")

    def __init__(self) -> None:
        # By name, of which there is a bounded number, each a routing key. A Counter's item costs three times as much,
        # and each event asks for one.
        self.events: dict[str, int] = {}
        # Events of names beyond that number.
        self.other = 0
        # Dispatches that could not be forwarded, and what was wrong with the last of them.
        self.unreadable = 0
        self.unreadable_why = ""
        # (shard, sequence, name, d): into the cache. What it returns, if anything, is for the general way.
        self.apply: Callable[[int, int, str, Any], Any] | None = None
        # Which names are published; None for all.
        self.publishes: Callable[[str], bool] | None = None


class FastPath:
    """One connection's. What it hands over is the owner's to define."""

    __slots__ = ("open",)

    def __init__(
        self,
        receive_state: ReceiveState,
        publish_state: PublishState,
        event_pipeline: EventPipeline,
        shard_id: int,
        clock: Callable[[], float],
    ) -> None:
        self.open = False
        """Whether messages on this connection count."""

    def message(self, data: bytes, binary: bool) -> None:
        """A whole WebSocket message."""
        self.take(data, binary)

    def take(self, data: bytes, binary: bool) -> None:
        """The general way, from its beginning."""
        raise NotImplementedError

    def take_document(self, document: bytes | memoryview) -> None:
        """The general way of what a message holds, which is counted as heard already."""
        raise NotImplementedError

    def take_fault(self, error: ValueError) -> None:
        """The message could not be inflated."""
        raise NotImplementedError

    def take_applied(self, name: str, body: Any, seq: int, applied: Any) -> None:
        """A usual event, counted and in the cache, of which the cache knows more."""
        raise NotImplementedError

    def leave_out(self, seq: int) -> None:
        """A usual event, counted and in the cache, that is not published."""
        raise NotImplementedError
