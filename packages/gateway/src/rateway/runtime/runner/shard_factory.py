"""Make a cluster's shards from its session records."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import msgspec
from rateway.delivery.port import EventSink, EventStream
from rateway.fleet.layout import Layout
from rateway.runtime.identify.permits import IdentifyPermits
from rateway.runtime.runner.dialer import Dialer
from rateway.runtime.runner.event_forwarder import EventForwarder
from rateway.runtime.runner.gap_reports import GapReports
from rateway.runtime.runner.read_gate import ReadGate
from rateway.runtime.runner.session_records import SessionRecords
from rateway.runtime.runner.shard import DialGate, Shard, ShardObserver
from rateway.session.actions import StoredSession
from rateway.session.conversation import Conversation
from rateway.session.options import Compression, SessionOptions
from rateway.transports.store import SessionRecord
from rateway_protocol.discord.envelope import FAILURES

__all__ = ["ShardFactory", "ShardTools"]

COMPRESSIONS: dict[str, Compression] = {each: each for each in get_args(Compression)}


# One for all shards of the process: a generator takes 2.5 KB.
CHANCE = random.Random()


@dataclass(frozen=True, slots=True)
class ShardTools:
    """The parts and settings that all shards of a process share."""

    layout: Layout
    gateway_url: str
    options: SessionOptions
    dialer: Dialer
    permits: IdentifyPermits
    read_gate: ReadGate | None = None
    """What bounds what is read of all shards together; None: nothing does."""


class ShardFactory:
    """Makes the shards of one cluster, each with the session that is stored for it, where that can be resumed.

    A shard's stream is made once: it outlives the shards that are made for it one after the other.
    """

    def __init__(
        self,
        tools: ShardTools,
        sink: EventSink,
        events: EventForwarder,
        session_records: SessionRecords,
        gap_reports: GapReports,
        observer: ShardObserver,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        gate: DialGate | None = None,
    ) -> None:
        """*gate*: where the shards wait before they dial; None: nowhere."""
        self._tools = tools
        self._sink = sink
        self._events = events
        self._session_records = session_records
        self._gap_reports = gap_reports
        self._observer = observer
        self._spawn = spawn
        self._gate = gate
        self._streams: dict[int, EventStream] = {}

    def make(
        self,
        shard_ids: Iterable[int],
        stored: Iterable[SessionRecord],
        behind: Mapping[int, int] | None = None,
    ) -> dict[int, Shard]:
        """Make the shards; report the gaps of *stored* sessions that none of them can resume. *behind*: the sequence up
        to which the cache has a shard's session, where it came from a member that went on meanwhile.
        """
        records = {record.shard_id: record for record in stored}
        shards = {
            shard_id: self._make(shard_id, records.pop(shard_id, None), (behind or {}).get(shard_id))
            for shard_id in shard_ids
        }
        for record in records.values():
            if record.session_id:
                misfit = self._session_records.misfit(record)
                self._gap_reports.give_up(record, misfit or "the shard belongs to another cluster now")
        self._gap_reports.set_former(records)
        return shards

    def _make(self, shard_id: int, record: SessionRecord | None, cached: int | None) -> Shard:
        tools = self._tools
        stream = self._streams.get(shard_id)
        if stream is None:
            stream = self._streams[shard_id] = self._sink.stream(shard_id, tools.layout.shards)
        session = None
        if record is not None:
            record = self._session_records.with_presence_that_counts(record)
            misfit = self._session_records.misfit(record) if record.session_id else ""
            if misfit:
                self._gap_reports.give_up(record, misfit)
            else:
                self._session_records.restore(record)
            if record.session_id and not misfit:
                resume_from = record.settled
                if cached is not None and 0 < cached < record.settled:
                    # Workers have what the cache misses.
                    resume_from = cached
                    self._events.note_published(shard_id, record.settled)
                session = StoredSession(
                    record.session_id,
                    record.resume_url,
                    resume_from,
                    COMPRESSIONS.get(record.compression),
                    record.failed_at,
                )
                stream.restore(record.name, record.settled)
        conversation = Conversation(
            shard_id=shard_id,
            shard_count=tools.layout.shards,
            options=tools.options,
            gateway_url=tools.gateway_url,
            session=session,
            chance=CHANCE,
            presence=_presence_in(record),
        )
        if record is not None and record.presence is not None and conversation.presence is None:
            # It cannot be read, or an identify has no room for it.
            self._session_records.presence_set(shard_id, None)
        return Shard(
            conversation=conversation,
            shard_id=shard_id,
            stream=stream,
            events=self._events,
            observer=self._observer,
            dialer=tools.dialer,
            permits=tools.permits,
            clock=asyncio.get_running_loop().time,
            spawn=self._spawn,
            gate=self._gate,
            read_gate=tools.read_gate,
        )


def _presence_in(record: SessionRecord | None) -> Mapping[str, Any] | None:
    """Return the presence that a worker had set; None without one."""
    if record is None or record.presence is None:
        return None
    try:
        return msgspec.json.decode(record.presence, type=dict[str, Any])
    except FAILURES:
        return None
