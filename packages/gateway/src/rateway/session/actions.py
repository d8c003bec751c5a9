"""The orders and facts of a conversation, and its states.

The shell carries ``Conversation.orders`` out in order. An envelope that ``received`` returns comes after the orders
made before that call and has no orders of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from rateway.permit_outcome import PermitOutcome
from rateway.session.options import Compression
from rateway_protocol.discord.envelope import Envelope

__all__ = [
    "Command",
    "CommandDone",
    "Connect",
    "Deliver",
    "DialFailure",
    "Disconnect",
    "Fatal",
    "Identify",
    "Note",
    "Order",
    "Outcome",
    "PermitDone",
    "RequestPermit",
    "ReturnPermit",
    "Send",
    "SessionLost",
    "SessionResumed",
    "SessionStarted",
    "State",
    "StateChanged",
    "StoredSession",
]


class State(Enum):
    """The state of a shard. The value is the word in logs, status and metrics."""

    IDLE = "idle"
    CONNECTING = "connecting"
    WAITING_HELLO = "waiting_hello"
    WAITING_PERMIT = "waiting_permit"
    IDENTIFYING = "identifying"
    RESUMING = "resuming"
    LIVE = "live"
    BACKING_OFF = "backing_off"
    STOPPED = "stopped"
    FATAL = "fatal"


# Facts.


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session written down by an earlier process of this bot, shard and total, with the same intents."""

    session_id: str
    resume_url: str
    settled: int
    """The sequence to resume from: everything up to it was handed over."""
    compression: Compression | None = None
    """The compression that the session was begun with and must be resumed with; None: the same as the options'."""
    failed_at: int = 0
    """The sequence after which a message could not be read; 0: none. See ``Conversation.failed_at``."""


@dataclass(frozen=True, slots=True)
class DialFailure:
    """A connection that did not open. ``status`` is the HTTP status of the upgrade's answer, if there was one;
    ``retry_after`` its Retry-After in seconds. ``silent``: nothing was answered in the time that dialling has."""

    reason: str
    status: int | None = None
    retry_after: float | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """A gateway payload to be sent, checked where it came from: a worker's by ``rateway_protocol.contract.commands``,
    the configured presence by ``rateway.config.presence``.
    """

    op: int
    d: Mapping[str, Any] = field(repr=False)
    """In Discord's documented form."""
    payload: bytes = field(repr=False)
    """``{"op": …, "d": …}`` as JSON, at most ``commands.MAX_PAYLOAD_BYTES``."""
    deadline: float
    """Monotonic seconds."""
    handle: object = field(default=None, repr=False)
    """The caller's own; it comes back with the outcome. None: the command is the gateway's."""


Outcome = Literal["sent", "superseded", "expired", "queue_full"]


# Orders.


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a WebSocket to ``url`` (complete, with v, encoding and compress); answer with ``opened`` or
    ``dial_failed``. The shell bounds the time that dial, TLS and upgrade may take together.

    A ``Disconnect`` before the answer means: abandon it. ``connection`` counts this shard's connections; facts
    that carry the number of an older one are ignored.
    """

    url: str
    resuming: bool
    connection: int
    other: str | None = None
    """Another address at which the session may be resumed, so that a host that is known to be down is not
    waited for.
    """
    own: bool = True
    """Whether ``url`` is the session's own host, and ``other`` the main one, or the other way round."""
    asked: bool = False
    """Whether Discord (op 7) or the gateway has asked for it: the connection before did not just end."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a text frame at once; heartbeats and resumes never queue."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identify:
    """Write the spend down, durably, then send this text frame, if the connection is still the same."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Deliver:
    """A dispatch that ``received`` did not return: READY, RESUMED, or one of several in a message.

    ``repeat``, ``replayed`` and ``session_id`` are what the conversation's own fields were at its place in the
    stream.
    """

    envelope: Envelope = field(repr=False)
    repeat: int
    replayed: bool
    session_id: str | None


@dataclass(frozen=True, slots=True)
class RequestPermit:
    """Ask to identify. ``lost``: it replaces a session that was lost. Answer with ``permitted`` or ``refused``."""

    lost: bool


@dataclass(frozen=True, slots=True)
class ReturnPermit:
    """The permit asked for (granted or not) is no longer needed and was not spent."""


@dataclass(frozen=True, slots=True)
class PermitDone:
    """The outcome of the identify; its bucket may continue."""

    outcome: PermitOutcome


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection (or abandon the dial) with this code; nothing of it is reported back."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """READY came; it follows as the next ``Deliver``."""

    session_id: str
    resume_url: str
    compression: Compression | None = None
    """The connection's compression, which another process needs in order to resume the session."""


@dataclass(frozen=True, slots=True)
class SessionLost:
    """The session cannot be resumed any more; what came after ``received_seq`` may be missed."""

    session_id: str
    received_seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class SessionResumed:
    """RESUMED came; it follows as the next ``Deliver``, what comes after it is live."""


@dataclass(frozen=True, slots=True)
class CommandDone:
    """The outcome of a command. ``detail`` is the reason in words, for outcomes other than ``sent``."""

    command: Command
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The shard's state, and the reason in words."""

    old: State
    new: State
    why: str


@dataclass(frozen=True, slots=True)
class Fatal:
    """No attempt can succeed until a person changes something, as ``help`` says. The conversation has ended."""

    code: int
    meaning: str
    help: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something to be logged."""

    level: Literal["debug", "info", "warning", "error"]
    text: str


Order = (
    Connect
    | Send
    | Identify
    | Deliver
    | RequestPermit
    | ReturnPermit
    | PermitDone
    | Disconnect
    | SessionStarted
    | SessionLost
    | SessionResumed
    | CommandDone
    | StateChanged
    | Fatal
    | Note
)
