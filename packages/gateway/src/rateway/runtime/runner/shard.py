"""One shard: carries out the conversation's orders on a real socket, and passes dispatches on.

The conversation decides (``session/conversation.py``, no I/O); this shell dials, writes, keeps one timer and acquires
identify permits. The state of one connection is bound to a ``_Connection``: facts of an old connection never reach the
conversation once a newer one was ordered.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from rateway.delivery.port import EventStream
from rateway.native.fast_path import EventPipeline, FastPath
from rateway.runtime.identify.permits import IdentifyPermits, Refusal
from rateway.runtime.runner.dialer import Dialer
from rateway.runtime.runner.read_gate import ReadGate
from rateway.session.actions import (
    Command,
    CommandDone,
    Connect,
    Deliver,
    DialFailure,
    Disconnect,
    Fatal,
    Identify,
    Note,
    Order,
    PermitDone,
    RequestPermit,
    ReturnPermit,
    Send,
    SessionLost,
    SessionResumed,
    SessionStarted,
    State,
    StateChanged,
)
from rateway.session.conversation import Conversation
from rateway.session.inflate import InflateError
from rateway.transports.store import Applied
from rateway.transports.websocket import DialError, WebSocket
from rateway_protocol.discord.close_codes import KEEP_SESSION
from rateway_protocol.discord.envelope import Envelope

log = logging.getLogger(__name__)

# States that a shard enters because something happened, when it was not on its way back already.
CAUSED = frozenset({State.CONNECTING, State.BACKING_OFF, State.STOPPED, State.FATAL})
# States in which events come. Hello is waited for but a few seconds, so nothing else may delay it.
FED = frozenset({State.IDENTIFYING, State.RESUMING, State.LIVE})


# Close codes that are counted each by itself; Discord and RFC 6455 have some thirty. What else comes is counted
# together.
MOST_CODES = 50
OTHER_CODE = 0
# Kinds of exceptions that are logged in full; more are not worth their lines.
MOST_FAILURES = 50


class ShardObserver(Protocol):
    """Receives what happens to a shard's session (``shard_observer.ClusterShardObserver``)."""

    def session_started(self, shard: Shard, order: SessionStarted) -> None:
        """READY has come; it is dispatched after this."""

    def session_lost(self, shard: Shard, order: SessionLost) -> None:
        """The session cannot be resumed."""

    def session_resumed(self, shard: Shard) -> None:
        """RESUMED has come."""

    def state_changed(self, shard: Shard, order: StateChanged) -> None:
        """The conversation is in another state."""

    def command_done(self, shard: Shard, order: CommandDone) -> None:
        """A command was sent or given up."""

    def fatal(self, shard: Shard, order: Fatal) -> None:
        """No shard of this bot can go on with the present settings."""

    def barred(self, shard: Shard, why: str) -> None:
        """The shard may never identify here."""


class EventTaker(Protocol):
    """Takes a shard's dispatches (``event_forwarder.EventForwarder``)."""

    @property
    def pipeline(self) -> EventPipeline:
        """What the fast path does with usual events."""

    def dispatch(
        self, shard_id: int, stream: EventStream, envelope: Envelope, replayed: bool, repeat: int
    ) -> None:
        """Take a dispatch in, as it came."""

    def publish_applied(
        self, shard_id: int, stream: EventStream, name: str, body: Any, seq: int | None, applied: Applied
    ) -> None:
        """Take in what the fast path has applied, and of which the cache knows more."""

    def skip(self, stream: EventStream, seq: int | None) -> None:
        """Leave out an event that is not published."""


class DialGate(Protocol):
    """Where shards of a fleet wait until they may dial (``dial_gate.DialGate``)."""

    async def dial(self, shard_id: int, *, resuming: bool, asked: bool) -> None:
        """Wait until a shard may dial. *asked*: its connection before was given up because somebody asked for it."""

    def may_open(self, shard_id: int) -> bool:
        """Return whether a shard may use the connection that it has dialled since."""


class _Connection:
    """One connection of a shard, from dial to end. Implements websocket.MessageHandler and fast_path.GeneralPath."""

    __slots__ = ("_shard", "dialling", "fast_path", "late", "message", "socket")

    def __init__(self, shard: Shard) -> None:
        self.fast_path = FastPath(
            shard.conversation.receive_state,
            shard.stream.publish_state,
            shard.events.pipeline,
            self,
            shard.shard_id,
            shard.clock,
        )
        # What the WebSocket calls for every message: without a call of Python's between them.
        self.message = self.fast_path.message
        self._shard = shard
        self.socket: WebSocket | None = None
        self.dialling: asyncio.Task[None] | None = None
        # It has opened when the shard might not use it any more.
        self.late = False

    def opened(self, socket: WebSocket) -> None:
        shard = self._shard
        self.late = shard.gate is not None and not shard.gate.may_open(shard.shard_id)
        if shard.connection is not self or self.late:
            socket.close(KEEP_SESSION)
            return
        self.socket = socket
        self.fast_path.open = True
        if shard.held:
            socket.pause_reading()
        shard.conversation.opened(shard.clock())
        shard.carry_out()

    def take(self, data: bytes, binary: bool) -> None:
        shard = self._shard
        if shard.connection is self:
            self._took(shard.conversation.received(data, binary, shard.clock()))

    def take_document(self, document: bytes | memoryview) -> None:
        shard = self._shard
        self._took(shard.conversation.read(document, shard.clock()))

    def take_fault(self, error: ValueError) -> None:
        if not isinstance(error, InflateError):
            raise error
        shard = self._shard
        shard.conversation.spoilt(error, shard.clock())
        self._took(None)

    def take_applied(self, name: str, body: Any, seq: int, applied: Applied) -> None:
        shard = self._shard
        shard.events.publish_applied(shard.shard_id, shard.stream, name, body, seq, applied)

    def leave_out(self, seq: int) -> None:
        shard = self._shard
        shard.events.skip(shard.stream, seq)

    def publish(self, name: str, body: Any, seq: int) -> None:
        self._shard.stream.publish(name, body, seq, False)

    def _took(self, envelope: Envelope | None) -> None:
        shard = self._shard
        conversation = shard.conversation
        # Orders first: they arose before the envelope that was returned.
        if conversation.orders or conversation.wake_at is not shard.timer_at:
            shard.carry_out()
        if envelope is not None:
            shard.events.dispatch(
                shard.shard_id, shard.stream, envelope, conversation.replaying, conversation.repeat
            )

    def closed(self, code: int | None, reason: str) -> None:
        self.fast_path.end()
        shard = self._shard
        shard.leave_gate(self)
        if shard.connection is not self:
            return
        shard.connection = None
        shard.last_close = (code, reason)
        if code not in shard.closes and len(shard.closes) >= MOST_CODES:
            code = OTHER_CODE
        shard.closes[code] = shard.closes.get(code, 0) + 1
        unreadable = self.socket.refusal if self.socket is not None else ""
        shard.conversation.closed(shard.last_close[0], shard.clock(), unreadable=unreadable)
        shard.carry_out()

    def failed(self, error: Exception) -> None:
        """Handle an exception of the gateway's own code, raised by a message: it costs the event at most."""
        shard = self._shard
        if shard.connection is self:
            shard.failed(error)

    def hang_up(self, code: int) -> None:
        self.fast_path.end()
        if self.dialling is not None:
            self.dialling.cancel()
        if self.socket is not None:
            self._shard.leave_gate(self)
            self.socket.close(code)


class Shard:
    """One shard of one cluster, which owns the tasks that the shard spawns."""

    def __init__(
        self,
        *,
        conversation: Conversation,
        shard_id: int,
        stream: EventStream,
        events: EventTaker,
        observer: ShardObserver,
        dialer: Dialer,
        permits: IdentifyPermits,
        clock: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        gate: DialGate | None = None,
        read_gate: ReadGate | None = None,
    ) -> None:
        self.shard_id = shard_id
        self.stream = stream
        self.conversation = conversation
        self.events = events
        self.clock = clock
        self.connection: _Connection | None = None
        self.timer_at: float | None = None
        self.last_close: tuple[int | None, str] | None = None
        self.closes: dict[int | None, int] = {}
        self.resumes_tried = 0
        self.resumes_succeeded = 0
        self.identifies = 0
        self.state_since = clock()
        self.away_since: float | None = self.state_since
        self.why = ""
        """The reason that it is away, or was the last time. Steps of reconnecting are no reasons."""
        self.session_since = clock()
        self.held = False
        self.host = ""
        """The host that it dialled last."""
        self.dispatched_at: float | None = None
        """The time of its last event, to the second; None before the first in this process."""
        self._seen: tuple[str | None, int] = (conversation.session_id, conversation.received_seq)
        self.unknown_before = 0
        """Events about unknown guilds in its former sessions."""
        self._observer = observer
        self._dialer = dialer
        self._permits = permits
        self._spawn = spawn
        self.gate = gate
        self._read_gate = read_gate
        self._timer: asyncio.TimerHandle | None = None
        self._permit: asyncio.Task[None] | None = None
        self.crash_loops = False
        """Whether its identifies fail again and again, so that it gets none for hours."""
        self._carrying_out = False
        self._dial_failures = 0
        self._most_settled: int | None = None
        # Kinds of exceptions that were logged.
        self._failures: set[str] = set()

    # What the cluster asks of it.

    def start(self) -> None:
        self.conversation.start(self.clock())
        self.carry_out()

    def command(self, command: Command) -> None:
        self.conversation.command(command, self.clock())
        self.carry_out()

    def pause(self) -> None:
        """Stop reading from Discord; heartbeats continue. The conversation closes the connection before
        Discord would.
        """
        self.held = True
        if self.connection is not None and self.connection.socket is not None:
            self.connection.socket.pause_reading()
        self.conversation.pause(self.clock())
        self.carry_out()

    def resume_reading(self) -> None:
        self.held = False
        if self.connection is not None and self.connection.socket is not None:
            self.connection.socket.resume_reading()
        self.conversation.resume_reading(self.clock())
        self.carry_out()

    def reconnect(self, why: str) -> None:
        self.conversation.reconnect(why, self.clock())
        self.carry_out()

    def renew(self, why: str) -> None:
        self.conversation.renew(why, self.clock())
        self.carry_out()

    def look(self, now: float) -> int:
        """Note whether events came since the last call, about a second ago; an event itself records no time. Return how
        many bytes the shard no longer keeps because none came.
        """
        conversation = self.conversation
        seen = (conversation.session_id, conversation.received_seq)
        if seen != self._seen:
            self._seen = seen
            if seen[0] is not None:
                self.dispatched_at = now
            return 0
        return conversation.rest()

    def excuse(self) -> None:
        self.conversation.excuse()

    def forgive(self) -> None:
        self.conversation.forgive(self.clock())
        self.carry_out()

    def settle(self, seq: int) -> None:
        self.conversation.settle(seq if self._most_settled is None else min(seq, self._most_settled))

    def hold_settled(self, seq: int | None) -> None:
        """Let heartbeats name no more than *seq*, so that another member can resume from there; None: as they would."""
        self._most_settled = seq

    def stop(self, *, end_session: bool) -> None:
        self.conversation.stop(self.clock(), end_session=end_session)
        self.carry_out()

    def failed(self, error: Exception) -> None:
        """Continue after an exception of the gateway's own code. An event that it has cost is passed over and reported;
        where there is none, the connection is resumed, and the session is given up if it happens again.
        """
        self._say_failure(error)
        if not self._pass_over(error):
            self.conversation.failed(_words_of(error), self.clock())
        self.carry_out()

    def _say_failure(self, error: Exception) -> None:
        name = type(error).__name__
        known = name in self._failures
        if not known and len(self._failures) < MOST_FAILURES:
            self._failures.add(name)
        log.log(
            logging.DEBUG if known else logging.ERROR,
            "a message of Discord's made the gateway fail (%s): a mistake of the gateway's own, please report it",
            name,
            exc_info=error,
            extra={"shard": self.shard_id, "action": "own_fault"},
        )

    def _pass_over(self, error: Exception) -> bool:
        """Report the event that a failure has cost, in its place; return whether there was one."""
        conversation, event_pipeline = self.conversation, self.events.pipeline
        if conversation.session_id is None or self.stream.received >= conversation.received_seq:
            return False
        event_pipeline.unreadable += 1
        event_pipeline.unreadable_why = _words_of(error)
        self.stream.pass_over("", conversation.received_seq, event_pipeline.unreadable_why)
        return True

    def leave_gate(self, connection: _Connection) -> None:
        """A connection has ended: nothing waits for it to be read."""
        if self._read_gate is not None and connection.socket is not None:
            self._read_gate.discard(connection.socket)

    # Orders.

    def carry_out(self) -> None:
        """Carry out the conversation's orders, in order; orders that arise meanwhile come after."""
        if self._carrying_out:
            return
        self._carrying_out = True
        conversation = self.conversation
        try:
            while conversation.orders:
                orders, conversation.orders = conversation.orders, []
                for order in orders:
                    try:
                        _ACTIONS[type(order)](self, order)
                    except Exception as error:  # noqa: BLE001 - the other orders are carried out all the same
                        self._say_failure(error)
                        if isinstance(order, Deliver):
                            self._pass_over(error)
        finally:
            self._carrying_out = False
            if conversation.wake_at is not self.timer_at:
                self._set_timer(conversation.wake_at)

    def _set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.timer_at = at
        self._timer = None if at is None else asyncio.get_running_loop().call_at(at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.timer_at = None
        self.conversation.woken(self.clock())
        self.carry_out()

    def _connect(self, order: Connect) -> None:
        connection = self.connection = _Connection(self)
        self.host = urlsplit(order.url).netloc
        connection.dialling = self._spawn(self._dial(connection, order))

    async def _dial(self, connection: _Connection, order: Connect) -> None:
        try:
            if self.gate is not None:
                await self.gate.dial(self.shard_id, resuming=order.resuming, asked=order.asked)
            await self._dialer.dial(
                order.url, connection, resuming=order.resuming, failures=self._dial_failures,
                other=order.other, own=order.own,
            )  # fmt: skip
            if connection.late:
                raise DialError("it opened so late that another gateway may own the cluster by now")
            self._dial_failures = 0
        except DialError as error:
            connection.fast_path.end()
            self._dial_failures += 1
            if self.connection is connection:
                self.connection = None
                failure = DialFailure(error.reason, error.status, error.retry_after, error.silent)
                self.conversation.dial_failed(failure, self.clock())
                self.carry_out()
        finally:
            connection.dialling = None

    def _send(self, order: Send) -> None:
        if self.connection is not None and self.connection.socket is not None:
            self.connection.socket.send(order.data)

    def _identify(self, order: Identify) -> None:
        if self.connection is not None:
            self._spawn(self._identify_when_written_down(self.connection, order.data))

    async def _identify_when_written_down(self, connection: _Connection, data: bytes) -> None:
        refusal = await self._permits.spent(self.shard_id)
        if self.connection is not connection:
            return
        if refusal is not None:
            self._refused(refusal)
            self.carry_out()
        elif connection.socket is not None:
            self.identifies += 1
            connection.socket.send(data)

    def _deliver(self, order: Deliver) -> None:
        self.events.dispatch(self.shard_id, self.stream, order.envelope, order.replayed, order.repeat)

    def _disconnect(self, order: Disconnect) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            self.last_close = (order.code, order.reason)
            if connection.socket is not None:
                self.closes[order.code] = self.closes.get(order.code, 0) + 1
            connection.hang_up(order.code)

    def _request_permit(self, order: RequestPermit) -> None:
        self._return_permit(None)
        self._permit = self._spawn(self._acquire(order.lost))

    async def _acquire(self, lost: bool) -> None:
        refusal = await self._permits.acquire(self.shard_id, lost=lost)
        self._permit = None
        self.crash_loops = refusal is not None and refusal.kind == "crash_loop"
        if refusal is None:
            self.conversation.permitted(self.clock())
        else:
            self._refused(refusal)
        self.carry_out()

    def _refused(self, refusal: Refusal) -> None:
        until = math.inf if refusal.until is None else refusal.until
        self.conversation.refused(until, refusal.why, self.clock())
        if refusal.kind == "bucket":
            self._observer.barred(self, refusal.why)

    def _return_permit(self, order: ReturnPermit | None) -> None:
        if self._permit is not None:
            self._permit.cancel()
            self._permit = None
        elif order is not None:
            self._permits.finished(self.shard_id, "unused")

    def _permit_done(self, order: PermitDone) -> None:
        self._permits.finished(self.shard_id, order.outcome)

    def _session_started(self, order: SessionStarted) -> None:
        self._most_settled = None
        self.session_since = self.clock()
        self._observer.session_started(self, order)

    def _session_lost(self, order: SessionLost) -> None:
        self._observer.session_lost(self, order)

    def _session_resumed(self, order: SessionResumed) -> None:
        self.resumes_succeeded += 1
        self._observer.session_resumed(self)

    def _state_changed(self, order: StateChanged) -> None:
        self.state_since = self.clock()
        begins_anew = order.new is State.CONNECTING and order.old in (State.IDLE, State.BACKING_OFF)
        if order.new in CAUSED and not begins_anew:
            self.why = order.why
        if order.new is State.LIVE:
            self.away_since = None
        elif self.away_since is None:
            self.away_since = self.state_since
        if order.new.value == "resuming":
            self.resumes_tried += 1
        connection = self.connection
        if order.new in FED and self._read_gate is not None and connection is not None and connection.socket:
            self._read_gate.add(connection.socket)
        self._observer.state_changed(self, order)

    def _command_done(self, order: CommandDone) -> None:
        self._observer.command_done(self, order)

    def _fatal(self, order: Fatal) -> None:
        self._observer.fatal(self, order)

    def _note(self, order: Note) -> None:
        log.log(_LEVELS[order.level], "%s", order.text, extra={"shard": self.shard_id, "action": "session"})


# What carries out each kind of order.
_ACTIONS: Mapping[type[Any], Callable[[Shard, Any], None]] = {
    Connect: Shard._connect,
    Send: Shard._send,
    Identify: Shard._identify,
    Deliver: Shard._deliver,
    Disconnect: Shard._disconnect,
    RequestPermit: Shard._request_permit,
    ReturnPermit: Shard._return_permit,
    PermitDone: Shard._permit_done,
    SessionStarted: Shard._session_started,
    SessionLost: Shard._session_lost,
    SessionResumed: Shard._session_resumed,
    StateChanged: Shard._state_changed,
    CommandDone: Shard._command_done,
    Fatal: Shard._fatal,
    Note: Shard._note,
}


def _words_of(error: Exception) -> str:
    return f"the gateway failed on it ({type(error).__name__})"


_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

__all__ = ["DialGate", "EventTaker", "Order", "Shard", "ShardObserver"]
