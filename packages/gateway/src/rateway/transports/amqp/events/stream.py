"""One shard's dispatches on their way to the exchange: the hot path.

An event here is a head made of what was prepared for its name, and three appends; all else happens per run, that is
per shard and wake-up (``docs/decisions/publishing.md``).
"""

from __future__ import annotations

import struct
from typing import Protocol

import msgspec
from rateway.delivery.message import Publish
from rateway.native.fast_path import PublishState, Template
from rateway.native.ledger import Batch, Cursor, Run
from rateway.transports.amqp.wire import frames
from rateway.transports.amqp.wire.frames import MAX_SHORT
from rateway_protocol.contract.topology import event_key_fault

__all__ = ["Hub", "ShardStream"]

# Names that a template is kept for. Discord has some eighty; what is beyond takes the longer way each time.
MOST_TEMPLATES = 400
# A head holds a sequence of a signed 64-bit number's width less one: 10 ** 18 is the last power of ten below 2 ** 63.
MOST_DIGITS = 18


class Hub(Protocol):
    """The publisher, as a stream calls it."""

    exchange_name: bytes
    persistent: bool
    frame_max: int
    batch: Batch
    """The runs that are written at the end of this wake-up."""

    @property
    def body_max(self) -> int | None:
        """The largest body that the broker takes, in bytes, once it has refused one."""

    def probe(self, name: str, run: Run, size: int) -> bool:
        """Return whether this publish of ``name`` is to be mandatory."""

    def is_urgent(self, name: str) -> bool:
        """Return whether events of that name are published ahead of what waits."""

    def hurry(self, run: Run, publish: Publish) -> None:
        """Publish an urgent event, whose run holds nothing else, ahead of what waits."""

    def oversize(
        self, name: str, message_id: str | None, shard_id: int | None, seq: int | None, body: bytes
    ) -> Publish:
        """Return what is published in place of an event that the broker does not take."""

    def unreadable(
        self, name: str, message_id: str | None, shard_id: int, seq: int | None, why: str
    ) -> Publish:
        """Return what is published in place of a dispatch that cannot be forwarded."""


class ShardStream:
    """One shard's events. Made by ``EventPublisher.stream``; one for each shard, for the life of the process."""

    __slots__ = (
        "_hub", "_id_prefix", "_replayed_templates", "publish_state", "shard_count", "shard_id",
    )  # fmt: skip

    def __init__(self, hub: Hub, shard_id: int, shard_count: int) -> None:
        self.shard_id = shard_id
        self.shard_count = shard_count
        self._hub = hub
        self._id_prefix: bytes | None = None
        self.publish_state = PublishState(Cursor(shard_id), hub.batch)
        self.publish_state.room = hub.frame_max - 8
        self._replayed_templates: dict[str, Template] = {}

    @property
    def settled(self) -> int:
        """The highest sequence such that it and all before it are confirmed, in the spool (if that settles) or filtered
        on purpose. 0: none.
        """
        return self.publish_state.cursor.settled

    @property
    def received(self) -> int:
        """The highest sequence that was published or filtered in this session."""
        return self._last()

    @property
    def position(self) -> Cursor:
        """The present session's settled sequence, which outlives it."""
        return self.publish_state.cursor

    def begin(self, session_id: str) -> None:
        """Begin a session: its first dispatch (READY) comes next. ``settled`` starts at 0."""
        self.restore(session_id, 0)

    def restore(self, session_id: str, settled: int) -> None:
        """Go on with a stored session: everything up to ``settled`` needs no confirm any more."""
        prefix = b"%b:%d:" % (session_id.encode(), self.shard_id)
        # Room for the largest sequence and a suffix. No session of Discord's comes near.
        self._id_prefix = prefix if len(prefix) <= MAX_SHORT - 40 else None
        self.publish_state.end_run()
        self.publish_state.cursor = Cursor(self.shard_id, settled)
        self.forget()

    def forget(self) -> None:
        """Forget all templates: they are of another session or frame size."""
        self.publish_state.templates.clear()
        self._replayed_templates.clear()
        room, most = self._hub.frame_max - 8, self._hub.body_max
        self.publish_state.room = room if most is None else min(room, most)

    @property
    def names(self) -> set[str]:
        """The names that have a template."""
        return self.publish_state.templates.keys() | self._replayed_templates.keys()

    def publish(
        self,
        name: str,
        body: bytes | msgspec.Raw,
        seq: int | None,
        replayed: bool,
        repeat: int = 0,
        cause: str | None = None,
    ) -> None:
        """Publish a dispatch: ``body`` is the JSON of ``d``, ``seq`` its ``s``; ``repeat`` n for the n-th
        other content under one ``s``.

        ``cause`` becomes a header of that name. Never blocks, never raises for what Discord may send. Before
        :meth:`begin` or :meth:`restore` events go out without an id.
        """
        usual = seq is not None and not repeat and cause is None
        if not usual or not self._put(name, body, seq or 0, replayed):
            self._publish_rarely(name, bytes(body), seq, replayed, repeat, cause)

    def _put(self, name: str, body: bytes | msgspec.Raw, seq: int, replayed: bool) -> bool:
        state = self.publish_state
        template = (self._replayed_templates if replayed else state.templates).get(name)
        return state.put(template, body, len(body), seq)

    def message_id(self, seq: int | None) -> str | None:
        """Return the ``message_id`` of the dispatch of that sequence; None without a sequence or a session."""
        prefix = self._id_prefix
        return None if prefix is None or seq is None else (prefix + b"%d" % seq).decode("utf-8", "replace")

    def skip(self, seq: int) -> None:
        """Pass over a dispatch that the settings leave out: it counts as settled once all before it are."""
        self.publish_state.cursor.skip(seq)

    def pass_over(self, name: str, seq: int | None, why: str) -> None:
        """Publish RATEWAY_UNREADABLE in place of a dispatch that cannot be forwarded; it is settled with that."""
        hub = self._hub
        mark = self._last() if seq is None else max(seq, self._last())
        run = self.publish_state.open_run()
        message_id = self.message_id(seq)
        known = None if message_id is None else seq
        publish = hub.unreadable(name, message_id, self.shard_id, known, why)
        run.pieces.extend(frames.pieces(hub.exchange_name, publish, hub.frame_max))
        run.marks.append(mark)

    def _last(self) -> int:
        cursor = self.publish_state.cursor
        for run in reversed(cursor.runs):
            if run.marks:
                return run.marks[-1]
        return cursor.reached

    def _publish_rarely(
        self, name: str, body: bytes, seq: int | None, replayed: bool, repeat: int, cause: str | None
    ) -> None:
        """The first event of a name, one without a sequence, a large, empty or repeated one."""
        fault = event_key_fault(name)
        if fault:
            self.pass_over(name, seq, fault)
            return
        hub = self._hub
        mark = self._last() if seq is None else max(seq, self._last())
        # How old a replayed one is cannot be known.
        urgent = not replayed and hub.is_urgent(name)
        if urgent:
            self.publish_state.end_run()
        run = self.publish_state.open_run()
        prefix = self._id_prefix
        known = seq if prefix is not None else None
        message_id = None
        if prefix is not None and seq is not None:
            message_id = prefix + b"%d" % seq + (b":r%d" % repeat if repeat else b"")
        key = name.encode()
        mandatory = False
        if hub.body_max is not None and len(body) > hub.body_max:
            identity = message_id.decode("utf-8", "replace") if message_id is not None else None
            publish = hub.oversize(name, identity, self.shard_id, known, body)
        else:
            mandatory = hub.probe(name, run, len(body))
            # An urgent event comes this way each time: the templates know no place of its own.
            if not urgent and known is not None and seq is not None and seq > 0:
                self._prepare(name, key, seq, replayed)
                usual = not mandatory and not repeat and cause is None and seq == mark
                if usual and self._put(name, body, seq, replayed):
                    return
            second = struct.unpack(">Q", hub.batch.stamp)[0]
            properties = frames.event_properties(
                key,
                self.shard_id,
                self.shard_count,
                known,
                message_id,
                second,
                replayed,
                hub.persistent,
                cause,
            )
            publish = Publish(key, properties, body)
        run.pieces.extend(frames.pieces(hub.exchange_name, publish, hub.frame_max, mandatory))
        run.marks.append(mark)
        hub.batch.count(len(publish.body))
        if urgent:
            self.publish_state.end_run()
            hub.hurry(run, publish)

    def _prepare(self, name: str, key: bytes, seq: int, replayed: bool) -> None:
        digits = len(str(seq))
        if digits > MOST_DIGITS:
            return
        state = self.publish_state
        if not state.low <= seq < state.high:
            state.templates.clear()
            self._replayed_templates.clear()
            state.low, state.high = 10 ** (digits - 1), 10**digits
        templates = self._replayed_templates if replayed else state.templates
        if name not in templates and self._id_prefix is not None and len(templates) < MOST_TEMPLATES:
            hub = self._hub
            templates[name] = frames.template(
                hub.exchange_name,
                key,
                self.shard_id,
                self.shard_count,
                self._id_prefix,
                digits,
                replayed,
                hub.persistent,
            )
