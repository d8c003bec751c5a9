"""One bot's gateway connection as a state machine: what arrives goes in with its time, what is to be sent comes out at
the :class:`Wire`. No input or output happens here.

The messages and close codes are Discord's (Discord documentation, "Gateway" and "Opcodes and Status Codes"). What an
IDENTIFY, a RESUME or a command sets in motion is done by :class:`Sessions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeGuard

import msgspec
from rateway.proxy.log.stream import Stream
from rateway_protocol.discord import command_forms, intents
from rateway_protocol.discord.commands import bare_token
from rateway_protocol.discord.opcodes import COMMANDS, Opcode

__all__ = [
    "HEARTBEAT_INTERVAL", "BotConnection", "Identify", "Resume", "Sessions", "State", "Wire",
]  # fmt: skip

# Seconds between a bot's heartbeats, as Discord has asked for them for years.
HEARTBEAT_INTERVAL: Final = 41.25
# A bot whose heartbeat is so many intervals late is gone; its session can be resumed.
LATE_BEATS: Final = 2.0
# "120 gateway events per connection every 60 seconds" (Gateway, "Rate Limiting"): more is closed with 4008.
SENDS, SENDS_WINDOW = 120, 60.0
VERSIONS: Final = frozenset({9, 10})
# Gateway Events, "Identify Structure".
THRESHOLDS: Final = range(50, 251)
DEFAULT_THRESHOLD: Final = 50
# Of a library's name, as the status shows it.
MOST_LIBRARY: Final = 40
# A shard of more has no guild: guilds are spread by the 42 bits of their id that are a time.
MOST_SHARDS: Final = 1 << 42
# Sequence numbers that a library may keep in 32 bits (JDA, Discord.Net).
MOST_SEQ: Final = (1 << 31) - 1

HELLO: Final = b'{"t":null,"s":null,"op":10,"d":{"heartbeat_interval":%d}}' % round(HEARTBEAT_INTERVAL * 1000)
HEARTBEAT_ACK: Final = b'{"t":null,"s":null,"op":11,"d":null}'
RECONNECT: Final = b'{"t":null,"s":null,"op":7,"d":null}'
INVALID_SESSION: Final = b'{"t":null,"s":null,"op":9,"d":false}'

State = Literal["unidentified", "starting", "resuming", "live", "closed"]
"""Before IDENTIFY or RESUME (and after an invalid session); its snapshot is being sent; it gets what it missed; it gets
events as they come; its end was sent or has come."""


class Wire(Protocol):
    """The WebSocket of a connection. What is sent within one call from the event loop may go out together at its
    end."""

    identified: bool
    """Whether the bot has shown who it is; set by the connection."""

    @property
    def waiting(self) -> int:
        """Bytes that were sent and that the socket has not taken yet."""

    def send(self, payload: bytes) -> None:
        """Send one message of JSON. Returns at once; does nothing after the end."""

    def acknowledge(self, payload: bytes) -> None:
        """Send the answer to a heartbeat, as late as it comes from Discord: a library may measure it with another
        thread than the one that reads it."""

    def close(self, code: int, reason: str) -> None:
        """Close, after what was sent. ``reason`` is fit for a close frame: at most 123 bytes, no secrets."""

    def compress_payloads(self) -> None:
        """Compress each message by itself from now on (IDENTIFY with ``compress``), unless the connection has a
        compression of its own."""


@dataclass(frozen=True, slots=True)
class Identify:
    """An IDENTIFY that has the documented form."""

    shard: int
    count: int
    intents: int
    large_threshold: int
    presence: Mapping[str, Any] | None
    """In the documented form of op 3's ``d``."""


@dataclass(frozen=True, slots=True)
class Resume:
    """A RESUME with the right token."""

    session_id: str
    seq: int


class Sessions(Protocol):
    """What a connection asks for. Each call returns at once; what comes of it comes by the connection's methods."""

    def accepts(self, token: str) -> bool:
        """Return whether it is the bot's token or the proxy's own, without ``Bot ``; compared in constant time."""

    def identify(self, connection: BotConnection, identify: Identify) -> None:
        """Begin a session: READY, snapshots, then the stream."""

    def resume(self, connection: BotConnection, resume: Resume) -> None:
        """Go on with a session where the bot has it."""

    def command(self, connection: BotConnection, op: int, d: dict[str, Any]) -> None:
        """Carry out a command; ``d`` has the documented form."""

    def beat(self, connection: BotConnection, seq: int) -> None:
        """Note that the bot has everything up to this sequence number."""

    def resume_sending(self, connection: BotConnection) -> None:
        """Go on with what waited for room in the bot's socket."""

    def leave(self, connection: BotConnection) -> None:
        """Release what a connection holds: it has ended, or its session has."""


class BotConnection:
    """A bot's connection. Sends HELLO when it is made.

    *url* is what READY tells as ``resume_gateway_url``, *clock* gives seconds that never jump.
    """

    __slots__ = (
        "_beat_at", "_clock", "_sends", "_sends_since", "_sessions", "_was_invalidated", "_wire", "close_code",
        "generation", "library", "live_since", "named", "send", "state", "stream", "url", "version",
    )  # fmt: skip

    def __init__(
        self, wire: Wire, sessions: Sessions, version: int, url: str, clock: Callable[[], float]
    ) -> None:
        now = clock()
        self.url = url
        self.version = version
        self.state: State = "unidentified"
        self.live_since = now
        """When it began to get events as they come."""
        self.send = wire.send
        """Send a message of JSON."""
        self.generation = 0
        """Of connections whose bots have shown who they are, a later one has a higher number."""
        self.library = ""
        """The ``browser`` of its properties: the library's name; a session that is resumed has kept it."""
        self.named: int | None = None
        """``d`` of its last heartbeat."""
        self.stream: Stream | None = None
        """Its session's dispatches; None without a session."""
        self.close_code: int | None = None
        """What it was closed with from here."""
        self._wire = wire
        self._clock = clock
        self._sessions = sessions
        self._beat_at = now
        # Messages since the beginning of the current window.
        self._sends = 0
        self._sends_since = now
        # Commands that were under way when the session ended are no fault of the bot's.
        self._was_invalidated = False
        if version in VERSIONS:
            wire.send(HELLO)
        else:
            self.close(4012, f"Invalid API version: {version}; this proxy speaks 9 and 10.")

    @property
    def waiting(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._wire.waiting

    # Facts.

    def on_message(self, data: bytes | str) -> None:
        """Read a whole text message (or binary, which Discord reads as JSON as well)."""
        if self.state == "closed":
            return
        now = self._clock()
        if now - self._sends_since >= SENDS_WINDOW:
            self._sends, self._sends_since = 0, now
        self._sends += 1
        if self._sends > SENDS:
            self.close(4008, "You are being rate limited.")
            return
        try:
            payload = msgspec.json.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            payload = None
        op = payload.get("op") if isinstance(payload, dict) else None
        if not isinstance(op, int) or isinstance(op, bool):
            self.close(4002, "Error while decoding payload.")
            return
        d = payload.get("d")
        if op == Opcode.HEARTBEAT:
            self._on_heartbeat(d, now)
        elif op == Opcode.IDENTIFY:
            self._on_identify(d)
        elif op == Opcode.RESUME:
            self._on_resume(d)
        elif op not in COMMANDS:
            self.close(4001, "Unknown opcode.")
        else:
            self._on_command(op, d)

    def on_closed(self, code: int | None = None) -> None:
        """End with the socket; *code* is of the bot's close frame, None without one."""
        if self.state != "closed":
            self.state = "closed"
            self._leave()

    def on_writable(self) -> None:
        """Go on with what waited for room in the socket."""
        if self.state != "closed":
            self._sessions.resume_sending(self)

    def on_timer(self, now: float) -> None:
        """Check how long the bot has been silent; to be called every few seconds."""
        if self.state != "closed" and now - self._beat_at > HEARTBEAT_INTERVAL * LATE_BEATS:
            self.close(4000, "No heartbeat.")

    # Actions.

    def close(self, code: int, reason: str) -> None:
        """Close the connection with one of Discord's codes; the session can be resumed where the code allows it."""
        if self.state != "closed":
            self.state = "closed"
            self.close_code = code
            self._wire.close(code, reason)
            self._leave()

    def invalidate(self) -> None:
        """Send op 9 ``false``: the session is over, and the bot may identify again, here or on a new connection."""
        if self.state != "closed":
            self.state = "unidentified"
            self._was_invalidated = True
            self._leave()
            self._wire.send(INVALID_SESSION)

    def go_live(self) -> None:
        """Become live: events go out as they come from now on."""
        self.state = "live"
        self.live_since = self._clock()

    def reconnect(self) -> None:
        """Send op 7: the bot should come back and resume."""
        if self.state != "closed":
            self._wire.send(RECONNECT)

    def _leave(self) -> None:
        self._sessions.leave(self)

    # Operations.

    def _on_heartbeat(self, d: object, now: float) -> None:
        if d is not None and (not isinstance(d, int) or isinstance(d, bool)):
            self.close(4002, "Error while decoding payload.")
            return
        self._beat_at = now
        self.named = d
        if d is not None and self.state == "live":
            self._sessions.beat(self, d)
        self._wire.acknowledge(HEARTBEAT_ACK)

    def _on_identify(self, d: object) -> None:
        if self.state != "unidentified":
            self.close(4005, "Already authenticated.")
            return
        if not isinstance(d, dict) or not isinstance(d.get("token"), str):
            self.close(4002, "Error while decoding payload.")
            return
        bits, shard, threshold = d.get("intents"), d.get("shard"), d.get("large_threshold")
        if threshold is None:
            threshold = DEFAULT_THRESHOLD
        if not _is_integer(bits) or not _is_integer(threshold) or threshold not in THRESHOLDS:
            self.close(4002, "Error while decoding payload.")
            return
        presence = None
        if d.get("presence") is not None:
            form = command_forms.read_identify_presence(d["presence"])
            if isinstance(form, command_forms.Refusal):
                self.close(4002, "Error while decoding payload.")
                return
            presence = form.d
        if not self._sessions.accepts(bare_token(d["token"])):
            self.close(4004, "Authentication failed.")
            return
        if shard is None:
            shard = [0, 1]
        if (
            not isinstance(shard, list)
            or len(shard) != 2
            or not all(map(_is_integer, shard))
            or not 0 <= shard[0] < shard[1] <= MOST_SHARDS
        ):
            self.close(4010, "Invalid shard.")
            return
        if bits & ~(intents.ALL | intents.UNDOCUMENTED):
            self.close(4013, "Invalid intents.")
            return
        properties = d.get("properties")
        if isinstance(properties, dict):
            name = properties.get("browser", properties.get("$browser"))
            self.library = name[:MOST_LIBRARY] if isinstance(name, str) else ""
        if d.get("compress") is True:
            self._wire.compress_payloads()
        self.state = "starting"
        self._wire.identified = True
        self._sessions.identify(self, Identify(shard[0], shard[1], bits & intents.ALL, threshold, presence))

    def _on_resume(self, d: object) -> None:
        if self.state != "unidentified":
            self.close(4005, "Already authenticated.")
            return
        if not isinstance(d, dict) or not isinstance(d.get("token"), str):
            self.close(4002, "Error while decoding payload.")
            return
        session_id, seq = d.get("session_id"), d.get("seq")
        if not isinstance(session_id, str):
            self.close(4002, "Error while decoding payload.")
        elif not self._sessions.accepts(bare_token(d["token"])):
            self.close(4004, "Authentication failed.")
        elif not _is_integer(seq) or seq < 1:
            # A bot that has nothing to resume from: Discord answers so as well.
            self._wire.identified = True
            self.invalidate()
        elif seq > MOST_SEQ:
            self.close(4007, "Invalid seq.")
        else:
            self.state = "resuming"
            self._wire.identified = True
            self._sessions.resume(self, Resume(session_id, seq))

    def _on_command(self, op: int, d: object) -> None:
        stream = self.stream
        if stream is None:
            if self.state != "unidentified" or self._was_invalidated:
                # Its READY is not made yet, or no longer counts.
                return
            self.close(4003, "Not authenticated.")
            return
        form = command_forms.read(op, d, intents=stream.intents)
        if isinstance(form, command_forms.Documented):
            self._sessions.command(self, op, form.d)
        elif op == Opcode.PRESENCE_UPDATE:
            # Discord ends the session of a bot whose presence it cannot read (discord-api-docs#2559).
            self.invalidate()
        elif form.fault is command_forms.Fault.MALFORMED:
            self.close(4002, "Error while decoding payload.")


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
