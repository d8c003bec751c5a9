"""The port of delivery: how shards, clusters and requests publish events and receive requests.

RabbitMQ is its first form (``transports/amqp``): ``EventPublisher`` is an :class:`EventSink`, its ``ShardStream`` an
:class:`EventStream`, ``Inbound`` a :class:`RequestSource`. A form in memory passes the same tests
(``packages/gateway/tests/delivery/test_port.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, Protocol, TypeAlias

import msgspec
from rateway.delivery.message import Publish
from rateway.native.fast_path import PublishState
from rateway_protocol.contract.errors import Fault

__all__ = [
    "MAX_BODY", "MAX_PROPERTIES", "Bound", "Clock", "EventLogFigures", "EventSink", "EventStream", "Headers",
    "Message", "MessageFault", "OtherGateways", "Ownership", "QueueCount", "Refusal", "RequestSource",
    "SettledPosition", "SinkObserver", "Spooled",
]  # fmt: skip

# The largest query; what is larger is refused without being kept.
MAX_BODY: Final = 1 << 20
# A query's or command's properties have some hundred bytes; a broker passes on as much as one frame holds (128 KiB).
MAX_PROPERTIES: Final = 64 * 1024

MessageFault = Literal["properties_too_large", "properties_unreadable", "body_too_large"]
"""The fault of a message as it came."""

Refusal: TypeAlias = MessageFault | Literal["bad_reply_to", "bad_correlation_id", "failed"]
"""The reason that a message is refused unread; ``failed`` is an exception of the gateway's own code."""

Ownership = Literal["owned", "elsewhere", "away", "refused"]
"""The owner of a cluster's requests: this process; another gateway; unknown while the broker is away; none, as the
broker refuses.
"""

Headers: TypeAlias = tuple[tuple[str, str | int], ...]
"""An answer's headers, which many answers share."""


class Clock(Protocol):
    """The module :mod:`time` is one."""

    def monotonic(self) -> float:
        """Return seconds that never jump."""

    def time(self) -> float:
        """Return seconds since 1970."""


# Events.


class SettledPosition(Protocol):
    """How far one session of a shard is settled; it outlives the session."""

    @property
    def settled(self) -> int:
        """As :attr:`EventStream.settled`, of this session."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing of the session is unconfirmed."""


class EventStream(Protocol):
    """One shard's events, in order; one for each shard, for the life of the process."""

    publish_state: PublishState
    """The fast path's state. A stream that prepares no template there gets each event by ``publish``."""

    @property
    def settled(self) -> int:
        """The highest sequence such that it and all before it are confirmed, spooled or filtered. 0: none."""

    @property
    def received(self) -> int:
        """The highest sequence that was published or filtered in this session."""

    @property
    def position(self) -> SettledPosition:
        """The present session's."""

    def begin(self, session_id: str) -> None:
        """Begin a new session, whose first dispatch comes next. ``settled`` starts at 0."""

    def restore(self, session_id: str, settled: int) -> None:
        """Continue a stored session: everything up to ``settled`` is settled."""

    def publish(
        self,
        name: str,
        body: bytes | msgspec.Raw,
        seq: int | None,
        replayed: bool,
        repeat: int = 0,
        cause: str | None = None,
    ) -> None:
        """Publish a dispatch: ``body`` is the JSON of ``d``, ``seq`` its ``s``; ``repeat`` n for the n-th other content
        under one ``s``. Never blocks, never raises for what Discord may send."""

    def message_id(self, seq: int | None) -> str | None:
        """Return the ``message_id`` of the dispatch of that sequence; None without a sequence or a session."""

    def skip(self, seq: int) -> None:
        """Leave out a dispatch that the settings filter: it counts as settled once all before it are."""

    def pass_over(self, name: str, seq: int | None, why: str) -> None:
        """Publish RATEWAY_UNREADABLE in place of a dispatch that cannot be forwarded; it is settled with that."""


class SinkObserver(Protocol):
    """Receives what happens to a cluster's events. Called from the event loop; must return soon and never raise."""

    def on_pause(self) -> None:
        """Stop reading from Discord: unconfirmed events have reached their bound, and no spool takes them."""

    def on_resume(self) -> None:
        """There is room again."""

    def on_settled(self) -> None:
        """``settled`` of at least one stream has moved. Called once for all events that were confirmed together."""

    def on_oversize(
        self, name: str, shard_id: int | None, seq: int | None, size: int, limit: int | None
    ) -> None:
        """An event of this size (bytes) is not taken; RATEWAY_OVERSIZE goes out in its place."""

    def on_refused(self, name: str, shard_id: int | None, seq: int | None) -> None:
        """An event was refused for longer than the limits allow, or has an impossible name: RATEWAY_REFUSED takes its
        place."""

    def on_state(self, up: bool, why: str) -> None:
        """Events can be published, or cannot any more, and why (fit for a log line; no secrets)."""


class Spooled(Protocol):
    """The events that are kept on disk until they are confirmed."""

    @property
    def events(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def close(self) -> None: ...


class EventLogFigures(Protocol):
    """The state of a cluster's event log."""

    @property
    def is_on(self) -> bool:
        """Whether one is to be kept."""

    @property
    def state(self) -> str:
        """``idle``, ``waiting``, ``kept`` or ``without``."""

    @property
    def why(self) -> str:
        """The reason that events wait for it, or are published without it."""

    @property
    def since(self) -> float:
        """Since when it is in this state (monotonic seconds)."""

    @property
    def begun(self) -> int:
        """Logs that were begun in this process."""

    @property
    def name(self) -> str | None:
        """Its name; None while there is none."""

    @property
    def names(self) -> int:
        """The number of event names that go into it."""


class EventSink(Protocol):
    """Takes a cluster's events, and keeps each until it is confirmed. The events of one wake-up of the event loop are
    written together at its end.
    """

    before_write: Callable[[int], None] | None
    """Called with the number of a wake-up's events before they are written, so that the store has them when workers
    receive them."""

    @property
    def woken_at(self) -> float:
        """The time at which this wake-up's first event was published (monotonic seconds)."""

    exchange: str
    """The exchange of the cluster's events."""
    # Figures of the status.
    connected: bool
    paused: bool
    refusals: int
    republished: int
    bytes_out: int

    def stream(self, shard_id: int, shard_count: int) -> EventStream:
        """Return the stream of one shard."""

    def publish_own(
        self,
        key: str,
        body: bytes,
        message_id: str | None = None,
        headers: Mapping[str, str | int | bool] | None = None,
        on_confirmed: Callable[[], None] | None = None,
    ) -> None:
        """Publish a message of the gateway's own, in order with the cluster's events; call ``on_confirmed`` once it is
        settled.
        """

    # In a fleet, whose cluster another gateway may have taken over.

    def hold(self, held: bool) -> None:
        """Let events wait from now on, or let them go again."""

    def leave_behind(self) -> list[Publish]:
        """Forget what is unconfirmed, so that it is not published, and all that waits for its confirm. Everything is in
        the spool then but for what that does not take, which is returned, oldest first. What :meth:`publish_again` was
        given is forgotten.
        """

    def publish_again(self, publishes: Sequence[Publish], on_confirmed: Callable[[], None]) -> None:
        """Publish messages that an earlier process or tenure has kept, marked as late; one call at a time.
        ``on_confirmed`` is called once the broker has them all.
        """

    def begin_log(self) -> None:
        """Begin the event log, if one is kept: events of this cluster are published from here on."""

    def flush(self) -> None:
        """Write what has been published since the last flush, now."""

    def spool_now(self) -> None:
        """Put the unconfirmed events that only memory has into the spool, as far as it has room."""

    async def run(self) -> None:
        """Connect, publish, reconnect, until :meth:`stop`."""

    def stop(self) -> None:
        """End :meth:`run`."""

    async def drain(self, timeout: float) -> int:
        """Wait, at most so many seconds, until all is confirmed or spooled; return how many events are neither."""

    @property
    def is_writing(self) -> bool:
        """Whether events were published in this wake-up that are not written yet."""

    @property
    def spool(self) -> Spooled | None: ...
    @property
    def flying(self) -> int:
        """Events that are written, and that nobody has answered for."""

    @property
    def ahead(self) -> int: ...
    @property
    def event_log(self) -> EventLogFigures | None: ...
    @property
    def blocked(self) -> bool: ...
    @property
    def published(self) -> int: ...
    @property
    def confirmed(self) -> int: ...
    @property
    def unconfirmed(self) -> int: ...
    @property
    def unconfirmed_bytes(self) -> int: ...
    @property
    def routed(self) -> set[str]: ...
    @property
    def unrouted(self) -> set[str]: ...
    @property
    def unrouted_events(self) -> Counter[str]: ...
    @property
    def address(self) -> str: ...
    @property
    def server(self) -> str: ...
    @property
    def nodes(self) -> int: ...
    @property
    def held_up(self) -> float:
        """Seconds without any confirm, though events are written and the connection is open."""

    def oldest(self) -> tuple[float, str] | None:
        """Return the age in seconds and the name of the oldest unconfirmed event."""

    def latencies(self) -> list[tuple[float, int]]:
        """Return the events by time from publish to confirm: (upper edge in seconds, events); the last edge is
        infinite.
        """

    def writings(self) -> list[tuple[float, int]]:
        """Return the same from publish to write."""


class QueueCount(msgspec.Struct, frozen=True):
    """A queue of the broker's, how many messages wait in it, and how many consumers read it."""

    name: str
    messages: int
    consumers: int


class Bound(msgspec.Struct, frozen=True):
    """The queues that are bound to exchanges."""

    queues: list[QueueCount]
    names: dict[str, frozenset[str]]
    """Exchange → the names for which something other than a gateway's own queue is bound."""


# Requests.


class Link(Protocol):
    """What messages come on: one consumer of a queue."""

    @property
    def is_open(self) -> bool:
        """Whether messages that came on it can be answered and acknowledged."""


class Message(msgspec.Struct, frozen=True):
    """A query or a command, as the bytes that came. Only ``reply_to`` and ``correlation_id`` are known to be text."""

    receipt: int
    """The source's number of it."""
    key: str
    body: bytes
    headers: bytes
    """The fields of the header table (``rateway_protocol/contract/header_table.py``)."""
    reply_to: bytes | None
    correlation_id: bytes | None
    expiration: bytes | None
    """Milliseconds as text."""
    redelivered: bool
    origin: Link | None
    """The link that it came on. Once that has ended, the message is delivered again, and can neither be answered nor
    acknowledged on another. None: the gateway asks itself."""

    @property
    def size(self) -> int:
        """Bytes that it takes while it is kept."""
        return len(self.body) + len(self.headers) + 1_024

    def envelope(self) -> Message:
        """Return the same without body and headers: what an answer needs."""
        return Message(
            self.receipt, self.key, b"", b"", self.reply_to, self.correlation_id, self.expiration, self.redelivered,
            self.origin,
        )  # fmt: skip


class OtherGateways(Protocol):
    """The gateways that run this bot's other clusters, asked over the broker."""

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""

    async def ask(
        self, cluster: int, questions: Sequence[Mapping[str, object]], seconds: float
    ) -> list[bytes | Fault]:
        """Return each question's answer from the store of one cluster: JSON, ``null`` where nothing is known.

        A question that fails has a fault; so has each where no gateway runs the cluster, or none answers in time.
        """


class RequestSource(Protocol):
    """The source of a cluster's queries and commands, which also takes their answers. Each is acknowledged once."""

    consumer_timeout: float | None
    """Seconds after which the broker takes an unacknowledged message away, once that is known."""

    @property
    def writable(self) -> bool:
        """Whether answers are written now; while they are not, they would collect in memory."""

    def acknowledge(self, message: Message) -> None:
        """Acknowledge a message, which then is not delivered again."""

    def answer(self, message: Message, body: bytes, headers: Headers) -> None:
        """Send an answer to the message's ``reply_to``."""

    def publish(self, message: Message, exchange: str, key: str, body: bytes, headers: Headers) -> None:
        """Send an answer under a routing key, as rateway 0.2 did."""

    def forward(self, message: Message, exchange: str, headers: bytes) -> bool:
        """Publish the message for another cluster, as it is but for its headers, and acknowledge it once that is sure;
        false when it is too large. Where no gateway reads there, the source answers that."""
