"""Carry what happens to a shard's session to the cluster's records, reports, cache and log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from rateway.delivery.port import EventSink, SettledPosition
from rateway.runtime.runner.cluster_cache import ClusterCache
from rateway.runtime.runner.gap_reports import GapReports
from rateway.runtime.runner.session_records import SessionRecords
from rateway.runtime.runner.session_writer import SessionWriter
from rateway.runtime.runner.shard import Shard
from rateway.session.actions import CommandDone, Fatal, SessionLost, SessionStarted, State, StateChanged
from rateway_protocol.contract import messages
from rateway_protocol.discord.commands import encode
from rateway_protocol.discord.opcodes import Opcode

log = logging.getLogger(__name__)

__all__ = ["ClusterShardObserver"]


class ClusterShardObserver:
    """The observer of one cluster's shards (``shard.ShardObserver``)."""

    def __init__(
        self,
        number: int,
        shards: Mapping[int, Shard],
        sink: EventSink,
        session_records: SessionRecords,
        session_writer: SessionWriter,
        gap_reports: GapReports,
        on_fatal: Callable[[int, Fatal], None],
    ) -> None:
        self.cache: ClusterCache | None = None
        self.on_command_done: Callable[[CommandDone], None] = lambda order: None
        """Receives the end of each command of a worker's."""
        self.on_caught_up: Callable[[int], None] = lambda shard_id: None
        """Called with a shard that has resumed, or begins a session."""
        self.on_live: Callable[[], None] = lambda: None
        """Called when the first shard becomes live, once for each time that the cluster is started."""
        self.on_barred: Callable[[str], None] = lambda why: None
        """Called with the reason when no shard may identify here and none has a session."""
        self.is_silent = False
        """Whether states are not published: another gateway publishes those of its own shards."""
        self.on_resumed: Callable[[int], None] = lambda shard_id: None
        """Called with each shard whose session was resumed."""
        self.on_session_lost: Callable[[int, str, SettledPosition], None] = lambda shard_id, name, position: (
            None
        )
        """Called with shard, session and its position, before the session is forgotten."""
        self._number = number
        self._shards = shards
        self._sink = sink
        self._session_records = session_records
        self._session_writer = session_writer
        self._gap_reports = gap_reports
        self._on_fatal = on_fatal
        self._was_live = False
        self._barred: set[int] = set()

    def begin_again(self) -> None:
        """Forget which shards were live or barred: the cluster's shards were stopped and are made again."""
        self._was_live = False
        self._barred.clear()

    def session_started(self, shard: Shard, order: SessionStarted) -> None:
        """Name the session and begin it everywhere."""
        shard_id = shard.shard_id
        self.on_caught_up(shard_id)
        session = self._session_records.started(
            shard_id, order.session_id, order.resume_url, 1, order.compression or ""
        )
        shard.stream.begin(session)
        if self.cache is not None:
            shard.unknown_before = self.cache.unknown_guild_events(shard_id)
            self.cache.begin_session(shard_id, session)
        self._gap_reports.begin_session(shard_id, session)
        # After this message has been handled, and so READY with it.
        asyncio.get_running_loop().call_soon(self._spool_ready)

    def _spool_ready(self) -> None:
        """Spool READY at once while the broker is away: a crash before it is settled costs an identify."""
        if not self._sink.connected:
            self._sink.spool_now()

    def session_lost(self, shard: Shard, order: SessionLost) -> None:
        """Spool what only memory has of the session, which Discord will not send again, and report the gap."""
        self._sink.spool_now()
        shard_id = shard.shard_id
        self.on_session_lost(shard_id, self._session_records.session(shard_id), shard.stream.position)
        self._gap_reports.lose(shard_id, order, shard.stream.settled, time.time())
        self._session_writer.note_change()
        log.warning(
            "session lost (%s): events after sequence %d may be missing; RATEWAY_GAP tells the worker",
            order.reason,
            order.received_seq,
            extra={"cluster": self._number, "shard": shard_id, "action": "session_lost"},
        )

    def session_resumed(self, shard: Shard) -> None:
        """Log it and pass it on."""
        self.on_caught_up(shard.shard_id)
        self.on_resumed(shard.shard_id)
        log.debug("resumed", extra={"cluster": self._number, "shard": shard.shard_id, "action": "resumed"})

    def state_changed(self, shard: Shard, order: StateChanged) -> None:
        """Log the state and publish it as RATEWAY_SHARD_STATUS."""
        # Before anything is dialled again: a message that failed once must not fail after each restart.
        self._session_records.failed(shard.shard_id, shard.conversation.failed_at)
        if order.new is State.LIVE and not self._was_live:
            self._was_live = True
            self.on_live()
        is_news = order.old is State.LIVE or order.new in (State.LIVE, State.BACKING_OFF, State.STOPPED)
        log.log(
            logging.INFO if is_news else logging.DEBUG,
            "%s → %s%s",
            order.old.value,
            order.new.value,
            f" ({order.why})" if order.why not in ("", order.new.value) else "",
            extra={"cluster": self._number, "shard": shard.shard_id, "action": "state"},
        )
        if self.is_silent:
            return
        body = messages.ShardStatus(
            shard=shard.shard_id,
            state=order.new.value,
            before=order.old.value,
            why=order.why,
            time=time.time(),
        )
        self._sink.publish_own(body.key, messages.encode(body))

    def command_done(self, shard: Shard, order: CommandDone) -> None:
        """Record the presence that a worker has set; pass the command's end on."""
        command = order.command
        if command.handle is None:
            return
        if order.outcome == "sent" and command.op == Opcode.PRESENCE_UPDATE:
            presence = shard.conversation.presence
            self._session_records.presence_set(shard.shard_id, None if presence is None else encode(presence))
            self._session_writer.note_change()
        self.on_command_done(order)

    def fatal(self, shard: Shard, order: Fatal) -> None:
        """Pass on that the shard cannot go on."""
        self._on_fatal(shard.shard_id, order)

    def barred(self, shard: Shard, why: str) -> None:
        """Note that the shard may never identify here."""
        self._barred.add(shard.shard_id)
        has_session = any(each.conversation.session_id is not None for each in self._shards.values())
        if self._barred.issuperset(self._shards) and not has_session:
            asyncio.get_running_loop().call_soon(self.on_barred, why)
