"""The state machine of one shard: facts with their time in, actions out.

One machine for the life of a shard, over all of its connections: dial, Hello, identify or resume, live, and what
follows when a connection ends. It receives facts, appends orders to ``orders`` and sets ``wake_at`` to the time of its
next wake-up; it never sleeps, logs or raises for anything that Discord or the network may do.

Rules: Discord documentation, "Gateway" (connection lifecycle, heartbeats, resuming, rate limiting) and "Gateway Events"
(payload structure). Where that is silent, ``docs/session.md`` says what was decided and why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from rateway.native.fast_path import ReceiveState
from rateway.permit_outcome import PermitOutcome
from rateway.session import actions
from rateway.session.actions import Command, DialFailure, Order, State, StoredSession
from rateway.session.heartbeat import DEFAULT_INTERVAL, Health, Heartbeat
from rateway.session.inflate import InflateError, make_inflater
from rateway.session.options import Chance, SessionOptions
from rateway.session.reconnect import Turn
from rateway.session.reconnect_policy import IN_SESSION, ReconnectPolicy
from rateway.session.send_limit import SendRateLimiter
from rateway.session.sequence import SequenceTracker
from rateway.session.timers import Timers
from rateway_protocol.discord import commands, control
from rateway_protocol.discord.close_codes import END_SESSION, KEEP_SESSION, CloseCode, Verdict, close_code
from rateway_protocol.discord.envelope import (
    FAILURES,
    Envelope,
    EnvelopeError,
    NotAnEnvelope,
    decode,
    decode_all,
    decode_fast,
)
from rateway_protocol.discord.opcodes import Opcode

__all__ = ["Conversation"]

# States with an open WebSocket.
OPEN = frozenset({State.WAITING_HELLO, State.WAITING_PERMIT, State.IDENTIFYING, State.RESUMING, State.LIVE})
ENDED = frozenset({State.STOPPED, State.FATAL})

# Server error, restart, overload, bad gateway: trying again at once would find the same.
SERVER_TROUBLE = frozenset({1011, 1012, 1013, 1014})
RATE_LIMITED = 4008
# "Wait a random amount of time between 1 and 5 seconds", the documentation's rule for an invalid session.
INVALID_SESSION_WAIT = (1.0, 5.0)
# A Retry-After beyond this is nonsense.
LONGEST_RETRY_AFTER = 86_400.0
# A wait that is worth a log line.
LONG_DELAY = 60.0
# A permit that was refused is not asked for again sooner than this.
SOONEST_REQUEST = 1.0
# How long after a request for members its RATE_LIMITED answer is looked for.
WATCH = 60.0
# Different texts of notes that are given once per process; more are not worth their memory.
MOST_NOTES = 200
# Seconds for which a connection is live, after which an older failure to read says nothing about the next.
FORGIVEN_AFTER = 60.0
# From here on each sequence is looked at, so that none exceeds a signed 64-bit number. No session of Discord's comes
# near.
FAST_PATH_BELOW = 1 << 62
# Where the settled sequence is named: something received so long ago and still unsettled shows that no other machine
# goes on with the session, which would have resumed it within seconds; Discord keeps events for some minutes.
OUTLIVED_S = 60.0
# So many earlier times are kept, a third of that apart at least: they go back for as long.
RECEIVED_KEPT = 3
# A page: what is smaller and freed among other things cannot be given back.
LARGE_BYTES = 4096
# Characters of a name of Discord's in a note.
LONGEST_SHOWN = 100


def shown(name: str) -> str:
    """Return a name as far as a log line has room for it."""
    return ascii(name[:LONGEST_SHOWN])[1:-1]


def _nothing(message: bytes | memoryview, binary: bool) -> None:
    """Takes what still comes on a connection that is over."""


class Conversation:
    """One shard. Times are monotonic seconds; facts must come in the order in which they happened.

    Read by the shell: ``state``; ``session_id``, ``resume_url`` and ``received_seq`` (the highest sequence of the
    session, 0 before the first); ``replaying`` (between the RESUME and its RESUMED); ``repeat`` (of the envelope just
    returned: 0, or *n* for the *n*-th dispatch with other content under a sequence that was used before); ``latency``
    (round trip of the last heartbeat in seconds, None before the first); ``heard_at`` (last frame); ``ignored``
    (messages that mean nothing to it); ``bytes_in`` and ``bytes_inflated`` (WebSocket payload, and the JSON in it);
    ``wake_at`` and ``orders``.

    ``failed_at`` has to be stored with the session: the sequence after which a message could not be read, 0 for none.
    The connection is resumed then, and Discord sends that message again; when it fails at the same place once more, the
    session is given up, over a restart too.

    ``gateway_url`` may be replaced when Discord names another; identifies use it, and resumes whose own host is dead.
    """

    __slots__ = (
        "_asked",
        "_attempts",
        "_chance",
        "_connection",
        "_heart",
        "_live_at",
        "_lost",
        "_noted",
        "_options",
        "_presence",
        "_received_at",
        "_send_limiter",
        "_sequence_tracker",
        "_settled",
        "_shard",
        "_waits",
        "_watch_until",
        "failed_at",
        "gateway_url",
        "ignored",
        "latency",
        "orders",
        "receive_state",
        "repeat",
        "replaying",
        "resume_url",
        "session_id",
        "state",
        "wake_at",
    )  # fmt: skip

    def __init__(
        self,
        *,
        shard_id: int,
        shard_count: int,
        options: SessionOptions,
        gateway_url: str,
        session: StoredSession | None,
        chance: Chance,
        presence: Mapping[str, Any] | None = None,
    ) -> None:
        self.state = State.IDLE
        self.session_id = session.session_id if session else None
        self.resume_url = (
            session.resume_url
            if session
            and control.is_gateway_url(session.resume_url)
            and not self._address_fault(options, session.resume_url, gateway_url)
            else None
        )
        self.receive_state = ReceiveState(_nothing, session.settled if session else 0)
        """The state that it shares with the fast path."""
        self.replaying = False
        self.repeat = 0
        self.latency: float | None = None
        self.ignored = 0
        self.wake_at: float | None = None
        self.orders: list[Order] = []
        self.failed_at = session.failed_at if session else 0
        self.gateway_url = gateway_url
        self._live_at = -math.inf
        self._shard = (shard_id, shard_count)
        self._options = options
        self._chance = chance
        self._attempts = ReconnectPolicy(options, chance, session.compression if session else None)
        self._connection = 0
        self._heart: Heartbeat | None = None
        self._sequence_tracker = SequenceTracker()
        self._settled: int | None = session.settled if session and session.settled > 0 else None
        # When (at heartbeats and resumes) what had been received, the last few times, where the settled one is named.
        self._received_at: tuple[tuple[float, int], ...] = ()
        self._send_limiter = SendRateLimiter(limit=options.command_queue, budget=options.command_budget)
        # The last presence that a worker set, in an earlier process too: the next identify shows it.
        self._presence: Mapping[str, Any] | None = None
        self._lost = False
        # Whether Discord, or the gateway, has asked for the reconnection that is under way.
        self._asked = False
        self._waits = Timers(options)
        self._watch_until = 0.0
        self._noted: set[str] = set()
        if presence is not None:
            self._remember_presence(presence)

    @staticmethod
    def _address_fault(options: SessionOptions, url: str, before: str) -> str:
        return options.address_fault(url, before) if options.address_fault is not None else ""

    @property
    def received_seq(self) -> int:
        """The highest sequence of the session, 0 before the first."""
        return self.receive_state.received_seq

    @property
    def heard_at(self) -> float:
        """The time of the last message (monotonic seconds)."""
        return self.receive_state.heard_at

    @property
    def bytes_in(self) -> int:
        """Payload of WebSocket messages."""
        return self.receive_state.bytes_in

    @property
    def bytes_inflated(self) -> int:
        """The JSON in it."""
        return self.receive_state.bytes_inflated

    @property
    def presence(self) -> Mapping[str, Any] | None:
        """The last presence that a worker set, which the next identify shows; None without one, or with one for which
        an identify has no room.
        """
        return self._presence

    @property
    def waiting_commands(self) -> int:
        """Commands that wait to be sent."""
        return len(self._send_limiter)

    # Facts: the connection.

    def start(self, now: float) -> None:
        """Begin. A stored session is resumed; one of which nothing was settled cannot be, and counts as lost."""
        if self.state is not State.IDLE:
            return
        if self.session_id is not None and (not self.session_id or self.received_seq < 1):
            self._lose("nothing of it was written down")
        self._connect(now, "starting")
        self._plan(now)

    def opened(self, now: float, connection: int | None = None) -> None:
        """The WebSocket is open."""
        if self.state is State.CONNECTING and connection in (None, self._connection):
            self.receive_state.heard_at = now
            self.receive_state.feed = make_inflater(
                self._attempts.compression, self._options.max_message_bytes
            ).feed
            self._waits.for_hello(now)
            self._enter(State.WAITING_HELLO, "connected", now)
            self._plan(now)

    def dial_failed(self, failure: DialFailure, now: float, connection: int | None = None) -> None:
        """The connection did not open: never counted against the session."""
        if self.state is State.CONNECTING and connection in (None, self._connection):
            wait = failure.retry_after or 0.0
            wait = wait if 0.0 <= wait <= LONGEST_RETRY_AFTER else 0.0
            turn = self._attempts.dial_failed(failure)
            self._ended(now, Verdict.RESUME, f"no connection: {failure.reason}", wait=wait, turn=turn)
            self._plan(now)

    def closed(
        self, code: int | None, now: float, connection: int | None = None, *, unreadable: str = ""
    ) -> None:
        """The connection was closed by Discord with *code*, or broke (None); or the shell has closed it, because a
        message was *unreadable* for the reason given.
        """
        if connection not in (None, self._connection):
            return
        if unreadable and self.state in OPEN:
            self._corrupt(unreadable, now)
            return
        if self.state is State.CONNECTING:
            self.dial_failed(DialFailure("closed before it was open"), now)
        elif self.state in OPEN:
            self._closed(close_code(code), now)
            self._plan(now)

    def _closed(self, row: CloseCode, now: float) -> None:
        why = "the connection was lost" if row.code is None else f"closed with {row.code}: {row.meaning}"
        if row.code in SERVER_TROUBLE:
            self._attempts.trouble()
        if row.code == RATE_LIMITED:
            self._send_limiter.punished(now)
        if row.code in (4001, 4002, 4005, RATE_LIMITED, 1009):
            self._note("error", f"Discord closed with {row.code}: {row.meaning}; nothing is sent again")
        if row.verdict is Verdict.FATAL:
            self._settle_permit("closed")
            self._over()
            self._enter(State.FATAL, why, now)
            self.orders.append(actions.Fatal(row.code or 0, row.meaning, row.help))
        else:
            self._ended(now, row.verdict, why)

    # Facts: the identify permit.

    def permitted(self, now: float) -> None:
        """The permit that was asked for: identify."""
        if self.state is not State.WAITING_PERMIT:
            self.orders.append(actions.ReturnPermit())
            return
        self._send_limiter.own(now)
        self._attempts.identified(now)
        self._waits.for_ready(now)
        self._enter(State.IDENTIFYING, "identify", now)
        self.orders.append(actions.Identify(self._options.identify(self._shard, self._presence)))
        self._plan(now)

    def refused(self, until: float, why: str, now: float) -> None:
        """No permit before *until* (inf: not without an operator), also when the spend of one could not be written
        down. The connection is not held open for that.
        """
        if self.state not in (State.WAITING_PERMIT, State.IDENTIFYING):
            return
        if self.state is State.IDENTIFYING:
            self.orders.append(actions.ReturnPermit())
        self.orders.append(actions.Disconnect(KEEP_SESSION, why))
        self._over()
        self._waits.for_attempt(max(until, now + SOONEST_REQUEST) if math.isfinite(until) else None)
        self._enter(State.BACKING_OFF, why, now)
        self._plan(now)

    # Facts: messages.

    def rest(self) -> int:
        """No dispatch has come for a while: keep of the last one, which tells its repetition, a digest only. A quiet
        shard would keep its last GUILD_CREATE, which may take megabytes. Return how many bytes that frees; 0 when they
        are too few to be given back.
        """
        state = self.receive_state
        last = state.last
        if isinstance(last, bytes):
            try:
                last = decode(last)
            except EnvelopeError:
                return 0
        if last is None:
            return 0
        self._sequence_tracker.keep_digest(state.received_seq, last)
        state.last = None
        return len(last.d) if len(last.d) >= LARGE_BYTES else 0

    def received(self, message: bytes | memoryview, binary: bool, now: float) -> Envelope | None:
        """Take in a WebSocket message. An ordinary dispatch is returned; READY, RESUMED and the dispatches of a message
        that holds several come as ``Deliver`` orders, in order. Never raises, whatever the message is.

        A dispatch that belongs to no session (before READY) has ``s`` None; ``t`` is a string, empty when Discord named
        none.
        """
        state = self.receive_state
        state.heard_at = now
        state.bytes_in += len(message)
        try:
            document = state.feed(message, binary)
        except InflateError as error:
            self.spoilt(error, now)
            return None
        return None if document is None else self.read(document, now)

    def read(self, document: bytes | memoryview, now: float) -> Envelope | None:
        """Read the inflated content of a WebSocket message: the second half of ``received``."""
        state = self.receive_state
        state.bytes_inflated += len(document)
        try:
            envelope = decode_fast(document)
        except FAILURES:
            self._received_oddly(document, now)
            return None
        # The hot path: the next dispatch in line of a live session.
        s = envelope.s
        if (
            s == state.received_seq + 1
            and state.fast_path_allowed
            and envelope.op == 0
            and envelope.t is not None
        ):
            state.received_seq = s
            state.last = envelope
            return envelope
        return self._received(envelope, now)

    def _received(self, envelope: Envelope, now: float) -> Envelope | None:
        handler = _HANDLERS.get(envelope.op)
        if handler is None:
            self._ignore(f"a message with op {envelope.op}, which is not documented")
            return None
        delivered = handler(self, envelope, now)
        if self.orders:
            self._plan(now)
        return delivered

    def _received_oddly(self, document: bytes | memoryview, now: float) -> None:
        """Read a message in an unusual form: unexpected fields, several documents, or no JSON at all."""
        try:
            found = decode_all(document)
        except EnvelopeError as error:
            self._corrupt(str(error), now)
            return
        for each in found:
            if isinstance(each, NotAnEnvelope):
                self._ignore(f"a message that is no envelope ({each})")
            elif self.state in OPEN:
                envelope = self._received(each, now)
                if envelope is not None:
                    self._deliver(envelope)

    def spoilt(self, error: InflateError, now: float) -> None:
        """A WebSocket message could not be inflated."""
        self._corrupt(str(error), now)

    def failed(self, why: str, now: float) -> None:
        """The shell raised an exception for a message, which counts as one that cannot be read."""
        if self.state in OPEN:
            self._corrupt(why, now)

    def _corrupt(self, why: str, now: float) -> None:
        """Close the connection: the stream cannot be read any further, and skipping a part of it would corrupt the
        rest.
        """
        if self.state is State.WAITING_HELLO:
            following = self._attempts.corrupt_before_hello(resuming=self.session_id is not None)
            if following is not None:
                self._note("warning", f"{self._attempts.compression} fails at once; from now on {following}")
        why = f"a message that cannot be read: {why}"
        verdict = Verdict.RESUME
        if self.state in IN_SESSION:
            # A connection that was live for long had got past what failed before.
            long_live = self.state is State.LIVE and now - self._live_at > FORGIVEN_AFTER
            if self.failed_at == self.received_seq and not long_live:
                verdict = Verdict.IDENTIFY
                why = f"twice {why}"
            self.failed_at = self.received_seq
        self._note("warning", why)
        self._break_off(now, verdict, why)
        self._plan(now)

    # What messages mean, by opcode.

    def _on_dispatch(self, envelope: Envelope, now: float) -> Envelope | None:
        if envelope.t is None:
            envelope.t = ""
        if self.state is State.IDENTIFYING and envelope.t == "READY":
            self._ready(envelope, now)
            return None
        if self.state is State.RESUMING and envelope.t == "RESUMED":
            self._resumed(envelope, now)
            return None
        if self.state not in IN_SESSION:
            self._note_once(
                "warning", f"{shown(envelope.t)} outside a session; it is forwarded without a sequence"
            )
            envelope.s = None
            self.repeat = 0
            return envelope
        before = self.received_seq
        self._number(envelope, now)
        if self._asked_again(envelope, before):
            return None
        if self._watch_until > now and envelope.t == "RATE_LIMITED":
            limited = control.members_limited(envelope.d)
            if limited is not None:
                self._send_limiter.hold_guild(limited[0], now + limited[1])
        self._judge_fast_path(now)
        return envelope

    def _asked_again(self, envelope: Envelope, before: int) -> bool:
        """Return whether a dispatch was received up to *before* already, and replayed because the resume named less."""
        return (
            self._options.resume_from_settled
            and self.replaying
            and self.repeat == 0
            and envelope.s is not None
            and envelope.s <= before
        )

    def _judge_fast_path(self, now: float) -> None:
        """Decide whether the fast path is allowed: nothing but the next dispatch in line is expected, and nothing of
        what is looked for is in it. To be asked again whenever one of these has changed."""
        self.receive_state.fast_path_allowed = (
            self.state is State.LIVE
            and self.repeat == 0
            and self._watch_until <= now
            and self.received_seq < FAST_PATH_BELOW
        )

    def _number(self, envelope: Envelope, now: float) -> None:
        state = self.receive_state
        before, last = state.received_seq, state.last
        if isinstance(last, bytes):
            last = decode(last)
        state.received_seq, self.repeat, remark = self._sequence_tracker.count(
            envelope, before, last, self.replaying
        )
        if envelope.s == state.received_seq:
            state.last = envelope
        if remark is not None and not self._asked_again(envelope, before):
            self._note_once("warning", remark)
        if self.state is State.RESUMING:
            self._waits.for_replay(now)
            if state.received_seq > before:
                self._attempts.progress()

    def _ready(self, envelope: Envelope, now: float) -> None:
        ready = control.read_ready(envelope.d)
        if ready is None:
            self._note("error", "READY without the id of a session")
            envelope.s = None
            self._deliver(envelope)
            self._break_off(now, Verdict.RESUME, "READY without a session", outcome="invalid")
            return
        self._forget()
        self.session_id = ready.session_id
        self.resume_url = ready.resume_gateway_url or self.gateway_url
        fault = self._address_fault(self._options, self.resume_url, self.gateway_url)
        if fault:
            self._note_once("error", f"Discord names an address to resume at that is not used: {fault}")
            self.resume_url = self.gateway_url
        self._number(envelope, now)
        self._lost = self._asked = False
        self._live_at = now
        self._attempts.live(now)
        self._waits.for_nothing()
        self.orders.append(actions.PermitDone("ready"))
        self.orders.append(
            actions.SessionStarted(self.session_id, self.resume_url, self._attempts.compression)
        )
        self._enter(State.LIVE, "READY", now)
        self._deliver(envelope)
        self._pump(now)

    def _resumed(self, envelope: Envelope, now: float) -> None:
        # Not an event of the past: whatever its number is, it shares no identity with one.
        self.replaying = False
        before = self.received_seq
        self._number(envelope, now)
        if self.failed_at == before:
            # Nothing of what failed has been passed by this.
            self.failed_at = self.received_seq
        self._live_at = now
        self._asked = False
        self._attempts.progress()
        self._attempts.live(now)
        self._waits.for_nothing()
        self.orders.append(actions.SessionResumed())
        self._enter(State.LIVE, "RESUMED", now)
        self._deliver(envelope)
        self._pump(now)

    def _on_heartbeat_request(self, envelope: Envelope, now: float) -> None:
        if self._send_limiter.beat(now):
            self.orders.append(actions.Send(commands.heartbeat(self._settled)))
            if self._heart is not None:
                self._heart.asked(now)
        else:
            self._note_once("warning", "Discord asks for more heartbeats than it allows")

    def _on_reconnect(self, envelope: Envelope, now: float) -> None:
        self._asked = True
        self._break_off(now, Verdict.RESUME, "Discord asks to reconnect")

    def _on_invalid_session(self, envelope: Envelope, now: float) -> None:
        """``d`` is a bare boolean: whether the session may be resumed. It can come at any time."""
        resumable = control.resumable(envelope.d)
        self._break_off(
            now,
            Verdict.RESUME if resumable else Verdict.IDENTIFY,
            "Discord says the session is invalid" + (", but may be resumed" if resumable else ""),
            wait=self._chance.uniform(*INVALID_SESSION_WAIT),
            outcome="invalid",
        )

    def _on_hello(self, envelope: Envelope, now: float) -> None:
        if self.state is not State.WAITING_HELLO:
            self._ignore("a second Hello")
            return
        interval = control.read_interval(envelope.d)
        if interval is None:
            self._note("warning", f"Hello without a heartbeat interval; {DEFAULT_INTERVAL} s is used")
            interval = DEFAULT_INTERVAL
        self._attempts.greeted()
        self._waits.greeted()
        self._heart = Heartbeat(interval, now, self._chance, self._options.heartbeat_share)
        self._send_limiter.connected(self._heart.pause, now)
        if self.session_id is not None:
            self._resume(self.session_id, now)
        else:
            self._waits.for_nothing()
            self._enter(State.WAITING_PERMIT, "waits for its turn to identify", now)
            self.orders.append(actions.RequestPermit(self._lost))

    def _resume(self, session_id: str, now: float) -> None:
        self._send_limiter.own(now)
        self._attempts.resume_sent(now)
        self._waits.for_replay(now)
        seq = self._resume_from(now)
        self._enter(State.RESUMING, f"resume from {seq}", now)
        self.orders.append(actions.Send(self._options.resume(session_id, seq)))

    def _resume_from(self, now: float) -> int:
        self._note_received(now)
        settled = self._settled
        if not self._options.resume_from_settled or settled is None:
            return self.received_seq
        is_old = any(now - at >= OUTLIVED_S and received > settled for at, received in self._received_at)
        return self.received_seq if is_old else settled

    def _note_received(self, now: float) -> None:
        kept = self._received_at
        if self._options.resume_from_settled and (not kept or now - kept[-1][0] >= OUTLIVED_S / 3):
            self._received_at = (*kept[-RECEIVED_KEPT:], (now, self.received_seq))

    def _on_acknowledgement(self, envelope: Envelope, now: float) -> None:
        if self._heart is not None:
            self._heart.acknowledged(now)
            self.latency = self._heart.latency

    # Facts: commands, time, and what the gateway decides.

    def command(self, command: Command, now: float) -> None:
        """Queue a command. Its outcome comes as ``CommandDone``, at once or later; none comes after ``stop`` or
        ``Fatal``: the sender then still has it.
        """
        if self.state not in ENDED:
            self.orders += self._send_limiter.offer(command, now)
            self._pump(now)
            self._plan(now)

    def woken(self, now: float) -> None:
        """``wake_at`` has come (or any other time: nothing happens that is not due)."""
        if self.state in OPEN:
            self._beat(now)
        if self.state in OPEN and self._waits.pause_is_over(now, self._interval()):
            self._break_off(now, Verdict.RESUME, "reading is paused for longer than Discord would wait")
        if self._waits.overdue(now):
            self._timed_out(now)
        if self.state is State.BACKING_OFF and self._waits.attempt_due(now):
            self._connect(now, "next attempt")
        self._pump(now)
        self._plan(now)

    def settle(self, seq: int, session_id: str | None = None) -> None:
        """Take the settled sequence that was written down: heartbeats carry it from now on. It never goes down; what is
        beyond the received, or of another session, is not taken.
        """
        if session_id in (None, self.session_id) and (self._settled or 0) < seq <= self.received_seq:
            self._settled = seq

    def pause(self, now: float) -> None:
        """Delivery does not take more: the shell stops reading. Heartbeats continue; the connection is closed before
        Discord would close it, and not opened again before ``resume_reading``.
        """
        if not self._waits.paused:
            self._waits.pause(now)
            self._plan(now)

    def resume_reading(self, now: float) -> None:
        """Delivery takes events again."""
        if not self._waits.paused:
            return
        self._waits.go_on(now)
        if self._heart is not None:
            self._heart.excuse()
        if self.state is State.BACKING_OFF and self._waits.attempt_due(now):
            self._connect(now, "reading goes on")
        self._plan(now)

    def reconnect(self, why: str, now: float) -> None:
        """Close, keeping the session, and resume; connect at once where the next attempt is waited for."""
        self._asked = True
        if self.state in OPEN:
            self._break_off(now, Verdict.RESUME, why)
            self._plan(now)
        else:
            self.retry(why, now)

    def renew(self, why: str, now: float) -> None:
        """Give the session up, live or on its way back, and start a new one."""
        if self.state is State.LIVE:
            self._break_off(now, Verdict.IDENTIFY, why)
        elif self.session_id is not None and self.state not in (State.IDLE, *ENDED):
            self._lose(why)
            self._try_now(why, now)
        self._plan(now)

    def retry(self, why: str, now: float) -> None:
        """Connect at once, whatever is waited for."""
        if self.state is State.BACKING_OFF:
            self._connect(now, why)
            self._plan(now)

    def _try_now(self, why: str, now: float) -> None:
        if self.state in OPEN or self.state is State.CONNECTING:
            self.orders.append(actions.Disconnect(KEEP_SESSION, why))
            self._settle_permit("closed")
            self._over()
        self._connect(now, why)

    def excuse(self) -> None:
        """Identifies of many shards fail alike: this shard's failures are not its own."""
        self._attempts.excuse()

    def forgive(self, now: float) -> None:
        """The common fault of many shards has ended: failures during it are forgotten, and a shard without a session
        that waits for its next attempt makes it now.
        """
        self._attempts.forgive()
        if self.session_id is None:
            self.retry("identifies succeed again", now)

    def stop(self, now: float, *, end_session: bool) -> None:
        """End the conversation. The session is kept for the next process, or ended. Waiting commands get no outcome."""
        if self.state in ENDED:
            return
        self._settle_permit("closed")
        if self.state in OPEN or self.state is State.CONNECTING:
            self.orders.append(actions.Disconnect(END_SESSION if end_session else KEEP_SESSION, "stopping"))
        self._over()
        if end_session:
            self._forget()
        self._enter(State.STOPPED, "stopped", now)
        self._plan(now)

    # What follows.

    def _connect(self, now: float, why: str) -> None:
        if self._waits.paused:
            self._waits.for_attempt(now)
            self._enter(State.BACKING_OFF, "waits until events can be taken again", now)
            return
        self._connection += 1
        self._waits.for_attempt(None)
        resuming = self.session_id is not None
        address = self._attempts.address(self.resume_url, self.gateway_url, resuming=resuming)
        other = self._attempts.other_address(self.resume_url, self.gateway_url, resuming=resuming)
        self._enter(State.CONNECTING, why, now)
        self.orders.append(
            actions.Connect(address, resuming, self._connection, other, self._attempts.at_own, self._asked)
        )

    def _break_off(
        self, now: float, verdict: Verdict, why: str, wait: float = 0.0, outcome: PermitOutcome = "closed"
    ) -> None:
        """Close the connection in a way that keeps the session."""
        if self.state in OPEN:
            self.orders.append(actions.Disconnect(KEEP_SESSION, why))
            self._ended(now, verdict, why, wait, outcome)

    def _ended(
        self,
        now: float,
        verdict: Verdict,
        why: str,
        wait: float = 0.0,
        outcome: PermitOutcome = "closed",
        turn: Turn = Turn.STAY,
    ) -> None:
        """Decide, at the end of a connection or of an attempt, whether the session is given up, and when the next
        attempt is made.
        """
        self._settle_permit(outcome)
        greeted = self._heart is not None
        if turn is Turn.STAY:
            turn = self._attempts.ended(self.state, now, silent=outcome == "timeout")
        if self.session_id is not None and self._attempts.given_up(self.state, verdict, now):
            resumes = self._attempts.resumes
            self._lose((f"{resumes} resumes led to nothing; the last: " if resumes > 1 else "") + why)
        self._over()
        resuming = self.session_id is not None
        delay = self._attempts.delay(now, greeted=greeted, resuming=resuming, turn=turn, wait=wait)
        if delay > LONG_DELAY:
            self._note("warning", f"{why}; the next attempt is in {delay:.0f} s")
        if delay > 0 or self._waits.paused:
            self._waits.for_attempt(now + delay)
            self._enter(State.BACKING_OFF, why, now)
        else:
            self._connect(now, why)

    def _lose(self, reason: str) -> None:
        if self.session_id is not None:
            self.orders.append(actions.SessionLost(self.session_id, self.received_seq, reason))
        self._forget()
        self._lost = True

    def _forget(self) -> None:
        """Forget the session, with its address and its numbers."""
        self.session_id = self.resume_url = self._settled = self.receive_state.last = None
        self.receive_state.received_seq = self.repeat = self.failed_at = 0
        self._received_at = ()
        self._sequence_tracker = SequenceTracker()
        self._attempts.forget()

    def _settle_permit(self, outcome: PermitOutcome) -> None:
        if self.state is State.WAITING_PERMIT:
            self.orders.append(actions.ReturnPermit())
        elif self.state is State.IDENTIFYING:
            self.orders.append(actions.PermitDone(outcome))

    def _over(self) -> None:
        """Forget the state of the old connection."""
        self.receive_state.feed = _nothing
        self._heart = None
        self._waits.over()

    def _beat(self, now: float) -> None:
        heart = self._heart
        if heart is None:
            return
        health = heart.judge(now, self.heard_at, self._waits.paused)
        if health is Health.BEAT:
            if self._send_limiter.beat(now):
                self.orders.append(actions.Send(commands.heartbeat(self._settled)))
                heart.beaten(now)
                self._note_received(now)
            else:
                heart.due = self._send_limiter.beat_at(now)
        elif health is not Health.WAIT:
            self._break_off(now, Verdict.RESUME, health.value)

    def _timed_out(self, now: float) -> None:
        if self.state is State.WAITING_HELLO:
            self._waits.hello_missed()
            why = "no Hello"
        elif self.state is State.IDENTIFYING:
            why = f"no READY in {self._options.ready_timeout:g} s"
        else:
            why = f"nothing replayed in {self._options.replay_timeout:g} s"
        self._break_off(now, Verdict.RESUME, why, outcome="timeout")

    def _interval(self) -> float | None:
        """Return seconds between two heartbeats, as Hello said."""
        return None if self._heart is None else self._heart.interval

    def _pump(self, now: float) -> None:
        """Commands whose time is over, and those that may be sent."""
        self.orders += self._send_limiter.expired(now)
        if self.state is not State.LIVE:
            return
        for command in self._send_limiter.sendable(now):
            self.orders.append(actions.Send(command.payload))
            self.orders.append(actions.CommandDone(command, "sent"))
            if command.op == Opcode.PRESENCE_UPDATE:
                self._remember_presence(command.d)
            elif command.op == Opcode.REQUEST_GUILD_MEMBERS:
                self._watch_until = now + WATCH
                self._judge_fast_path(now)

    def _remember_presence(self, presence: Mapping[str, Any]) -> None:
        """Show *presence* in the next identifies, unless one with it is longer than a payload may be: it fitted into an
        op 3 of its own, and Discord would close each of these identifies with 4002.
        """
        has_room = len(self._options.identify(self._shard, presence)) <= commands.MAX_PAYLOAD_BYTES
        self._presence = presence if has_room else None
        if not has_room:
            self._note_once(
                "warning",
                f"a worker's presence makes an identify longer than the {commands.MAX_PAYLOAD_BYTES} bytes that "
                "Discord takes: the next session does not show it; set a shorter one",
            )

    def _plan(self, now: float) -> None:
        wake_at = min(
            self._send_limiter.wake_at(now, self.state is State.LIVE),
            self._waits.wake_at(connected=self.state in OPEN, interval=self._interval()),
        )
        if self._heart is not None:
            wake_at = min(wake_at, self._heart.due)
        self.wake_at = None if wake_at == math.inf or self.state in ENDED else wake_at

    def _enter(self, state: State, why: str, now: float) -> None:
        old, self.state = self.state, state
        self.replaying = state is State.RESUMING
        self._judge_fast_path(now)
        if state in ENDED:
            self._send_limiter.drop_waiting()
        if old is not state:
            self.orders.append(actions.StateChanged(old, state, why))

    def _deliver(self, envelope: Envelope) -> None:
        self.orders.append(actions.Deliver(envelope, self.repeat, self.replaying, self.session_id))

    def _ignore(self, what: str) -> None:
        self.ignored += 1
        self._note_once("warning", f"ignored: {what}")

    def _note(self, level: Literal["info", "warning", "error"], text: str) -> None:
        self.orders.append(actions.Note(level, text))

    def _note_once(self, level: Literal["info", "warning", "error"], text: str) -> None:
        if text not in self._noted and len(self._noted) < MOST_NOTES:
            self._noted.add(text)
            self.orders.append(actions.Note(level, text))


_HANDLERS: dict[int, Callable[[Conversation, Envelope, float], Envelope | None]] = {
    Opcode.DISPATCH: Conversation._on_dispatch,
    Opcode.HEARTBEAT: Conversation._on_heartbeat_request,
    Opcode.RECONNECT: Conversation._on_reconnect,
    Opcode.INVALID_SESSION: Conversation._on_invalid_session,
    Opcode.HELLO: Conversation._on_hello,
    Opcode.HEARTBEAT_ACK: Conversation._on_acknowledgement,
}
