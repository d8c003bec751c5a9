"""Take a cluster's events from its shards into the cache and on to the exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from rateway.delivery.filter import EventFilter
from rateway.delivery.port import EventSink, EventStream
from rateway.native.fast_path import EventPipeline
from rateway.runtime.runner.event_tallies import EventTallies
from rateway.transports.store import Applied
from rateway_protocol.contract import topology
from rateway_protocol.discord.envelope import Envelope

__all__ = ["EventForwarder"]


class EventForwarder:
    """The general path of one cluster's events. A usual event takes the fast path, which follows :attr:`pipeline`.

    Events go into the store's open transaction, then to the publisher. Both are closed once per wake-up of the loop,
    the store first: an event that a worker has received is visible to queries.
    """

    def __init__(
        self,
        pipeline: EventPipeline,
        tallies: EventTallies,
        sink: EventSink,
        on_guilds_left: Callable[[int, Iterable[int]], None],
    ) -> None:
        """*on_guilds_left* receives a shard and the guilds that its new session no longer has."""
        self.pipeline = pipeline
        self.tallies = tallies
        self._sink = sink
        self._on_guilds_left = on_guilds_left
        # Shard → the sequence up to which the session that it resumes is published.
        self._published: dict[int, int] = {}

    def set_filter(self, published: EventFilter) -> None:
        """Publish the events that *published* names, from the next event on."""
        everything = published.only is None and not published.never
        # None costs an event nothing.
        self.pipeline.publishes = None if everything else published.publishes

    def dispatch(
        self, shard_id: int, stream: EventStream, envelope: Envelope, replayed: bool, repeat: int
    ) -> None:
        """Count a dispatch, apply it to the cache, and publish it on its shard's *stream*.

        Args:
            shard_id: The shard that received it.
            stream: The shard's stream.
            envelope: The dispatch as it came.
            replayed: Whether it came in between a resume and its RESUMED.
            repeat: *n* for the *n*-th different content under one sequence number.
        """
        name = envelope.t or ""
        seq = envelope.s
        pipeline = self.pipeline
        try:
            pipeline.events[name] += 1
        except KeyError:
            why = self.tallies.count_new_name(name, envelope)
            if why:
                stream.pass_over(name, seq, why)
                return
        if replayed:
            self.tallies.replayed += 1
        if repeat:
            self.tallies.repeated += 1
        applied = None
        if pipeline.apply is not None and seq is not None:
            applied = pipeline.apply(shard_id, seq, name, envelope.d)
        if self._published and self._is_published(shard_id, seq, replayed):
            return
        if applied is not None:
            self.publish_applied(shard_id, stream, name, envelope.d, seq, applied, replayed, repeat)
        elif pipeline.publishes is None or pipeline.publishes(name):
            stream.publish(name, envelope.d, seq, replayed, repeat)
        else:
            self.skip(stream, seq)

    def note_published(self, shard_id: int, seq: int) -> None:
        """Note that the events up to *seq* of the session that is resumed next are published: when Discord sends them
        again, they are for the cache alone.
        """
        self._published[shard_id] = seq

    def _is_published(self, shard_id: int, seq: int | None, replayed: bool) -> bool:
        if not replayed:
            # The resume is over, or another session has begun.
            self._published.pop(shard_id, None)
            return False
        return seq is not None and seq <= self._published.get(shard_id, 0)

    def skip(self, stream: EventStream, seq: int | None) -> None:
        """Leave out an event that the settings do not publish. It is settled once all events before it are."""
        self.tallies.filtered += 1
        if seq is not None:
            stream.skip(seq)

    def publish_applied(
        self,
        shard_id: int,
        stream: EventStream,
        name: str,
        body: bytes | msgspec.Raw,
        seq: int | None,
        applied: Applied,
        replayed: bool = False,
        repeat: int = 0,
    ) -> None:
        """Publish an event with what the cache adds to it: guilds that left, the cause, the entity as it was before."""
        if applied.left:
            self._on_guilds_left(shard_id, applied.left)
        publishes = self.pipeline.publishes
        if publishes is not None and not publishes(name):
            self.skip(stream, seq)
            return
        if applied.before is not None:
            known = stream.message_id(seq)
            message_id = None if known is None else f"{known}:before"
            self._sink.publish_own(name + topology.BEFORE, applied.before, message_id)
        stream.publish(name, body, seq, replayed, repeat, applied.cause)
