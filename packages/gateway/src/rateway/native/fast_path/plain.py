"""The fast path in plain Python: every message takes the general path.

``compiled.pyx`` does the same, faster, and describes it; this module describes its partners.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from rateway.native.ledger import Batch, Cursor, Run
from rateway_protocol.discord.envelope import Envelope, EnvelopeError, decode

__all__ = ["EventPipeline", "FastPath", "GeneralPath", "PublishState", "ReceiveState", "Template", "parts"]


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
    """What a conversation has taken in, and whether it expects only the next event. The conversation holds it."""

    __slots__ = (
        "bytes_in", "bytes_inflated", "fast_path_allowed", "feed", "heard_at", "last", "received_seq",
    )  # fmt: skip

    def __init__(
        self,
        feed: Callable[[bytes | memoryview, bool], bytes | memoryview | None],
        received_seq: int = 0,
    ) -> None:
        self.feed = feed
        """The JSON in a WebSocket message; None when it is not complete yet."""
        self.last: Envelope | bytes | None = None
        """The dispatch that carried ``received_seq``, or the message that it was in."""
        self.fast_path_allowed = False
        """Nothing but the next dispatch in line is expected, and nothing has to be done about it."""
        self.bytes_in = 0
        """Payload of WebSocket messages."""
        self.bytes_inflated = 0
        """The JSON in it."""
        self.heard_at = -math.inf
        """When the last message came (monotonic seconds)."""
        self.received_seq = received_seq
        """The highest sequence of the session."""


class Template:
    """What the heads of one shard's events of one name have in common, and the making of one."""

    __slots__ = ("_begin", "_end", "_identity", "_middle", "_pack", "name", "tail")

    def __init__(
        self, name: str, begin: bytes, middle: bytes, identity: bytes, digits: int, end: bytes, tail: bytes
    ) -> None:
        """Up to the body's size, from there to the sequence, from there to the sequence's *digits*, and from the time
        to the body's length. The *tail* is what follows the body."""
        self.name = name
        self.tail = tail
        self._begin, self._middle, self._identity, self._end = begin, middle, identity, end
        self._pack = struct.Struct(
            f">{len(begin)}sQ{len(middle)}sq{len(identity)}s{digits}s8s{len(end)}sI"
        ).pack

    def head(self, size: int, seq: int, stamp: bytes) -> bytes:
        """Return the head of an event: *size* bytes of body, a sequence of as many digits as the template is for, the
        time.
        """
        # Text, then bytes: half of what formatting bytes costs.
        return self._pack(
            self._begin, size, self._middle, seq, self._identity, f"{seq}".encode(), stamp, self._end, size
        )


class PublishState:
    """How a shard's events are published just now. The shard's stream holds it, and prepares it."""

    __slots__ = ("_batch", "_run", "cursor", "high", "low", "room", "templates")

    def __init__(self, cursor: Cursor, batch: Batch) -> None:
        self.cursor = cursor
        """The settled sequence of the shard's session."""
        self.templates: dict[str, Template] = {}
        """By event name, for sequences from ``low`` to below ``high`` and bodies of at most ``room`` bytes.

        A stream that prepares none gets every event from the general path."""
        self.low = 1
        self.high = 10
        self.room = 0
        self._batch = batch
        self._run: Run | None = None

    def open_run(self) -> Run:
        """Return the session's run of this wake-up, which is opened where there is none."""
        run = self._run
        if run is None or not run.is_open:
            run = self._run = self._batch.open(self.cursor)
        return run

    def end_run(self) -> None:
        """Let the next event begin another run."""
        if self._run is not None:
            self._run.is_open = False

    def put(self, template: Template | None, body: bytes | msgspec.Raw, size: int, seq: int) -> bool:
        """Add an event to this wake-up's run. Returns False, with nothing done, where no template fits."""
        if template is None or not self.low <= seq < self.high or not 0 < size <= self.room:
            return False
        if template.name in self._batch.asking:
            return False
        run = self.open_run()
        run.pieces += (template.head(size, seq, self._batch.stamp), body, template.tail)
        run.marks.append(seq)
        self._batch.count(size)
        return True


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
        # (shard, sequence, name, d): into the cache. What it returns, if anything, is for the general path.
        self.apply: Callable[[int, int, str, Any], Any] | None = None
        # Which names are published; None for all.
        self.publishes: Callable[[str], bool] | None = None


class GeneralPath(Protocol):
    """What becomes of what the fast path does not take to its end. A connection provides it."""

    def take(self, data: bytes, binary: bool) -> None:
        """A whole WebSocket message, of which nothing has been done."""

    def take_document(self, document: bytes | memoryview) -> None:
        """What a message holds, which is counted as heard already."""

    def take_fault(self, error: ValueError) -> None:
        """The message could not be inflated."""

    def take_applied(self, name: str, body: Any, seq: int, applied: Any) -> None:
        """A usual event, counted and in the cache, of which the cache knows more."""

    def leave_out(self, seq: int) -> None:
        """A usual event, counted and in the cache, that is not published."""

    def publish(self, name: str, body: Any, seq: int) -> None:
        """A usual event, counted and in the cache, that no template fits."""


class FastPath:
    """Hold the partners of one connection, and pass every message to the general path."""

    __slots__ = ("_general", "open")

    def __init__(
        self,
        receive_state: ReceiveState,
        publish_state: PublishState,
        event_pipeline: EventPipeline,
        general: GeneralPath,
        shard_id: int,
        clock: Callable[[], float],
    ) -> None:
        self.open = False
        """Whether messages on this connection count."""
        self._general: GeneralPath | None = general

    def end(self) -> None:
        """The connection is over: nothing that still comes on it is taken."""
        self.open = False
        self._general = None

    def message(self, data: bytes, binary: bool) -> None:
        """A whole WebSocket message."""
        if self._general is not None:
            self._general.take(data, binary)
