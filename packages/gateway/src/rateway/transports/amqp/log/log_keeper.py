"""Keep a cluster's event log at the broker: a stream bound to the cluster's exchange for every name that is published
(``docs/contract.md``, *The event log*).

The gateway publishes to the exchange alone; it neither writes to the stream nor reads it. What is kept here is the rule
that each event that reaches a queue also reaches the log:

* RabbitMQ confirms what a channel publishes in the first second after a start of the node, and does not put it into the
  stream. So the line (``events/line.py``) opens a publishing channel only after :meth:`LogKeeper.open`, which
  returns once a passive declaration of the log has succeeded.
* A name is bound on the publishing channel itself, in front of its first event: a channel does one after the other.
* A stream that was deleted and declared again begins at offset 0, and nothing tells the two apart. So each log has a
  random part in its name, and a log that is missing or stays down is followed by one of another name.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable
from typing import Final, Literal, TypeVar

import msgspec
import pamqp.commands as spec
from pamqp import frame as framing
from pamqp.base import Frame
from rateway.delivery.port import Clock
from rateway.transports.amqp.settings import EventLogSettings
from rateway.transports.amqp.wire.channel import Channel, ChannelClosed, ConnectionLost
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.amqp.wire.frames import CHANNEL
from rateway.transports.event_log_record import EventLogRecord
from rateway.transports.state import StateError
from rateway_protocol.contract import topology
from rateway_protocol.contract.messages import LOGGED_KEYS
from rateway_protocol.discord.events import DOCUMENTED

__all__ = ["LogKeeper", "LogState", "lacks_streams"]

log = logging.getLogger(__name__)

LogState = Literal["idle", "waiting", "kept", "without"]
"""No log is begun, because no event is published yet; events wait for a log that is down; events go into it; events are
published without one."""

# The channel for declarations, beside the one that publishes.
_LOG_CHANNEL: Final = 2
# A stream comes back some seconds after its node. Events wait so long for it, then they go out without it.
_DOWN_PATIENCE_S: Final = 30.0
# Between two looks at a log that is down, and at one that is well.
_LOOK_DOWN_S: Final = 0.5
_LOOK_S: Final = 5.0
# Between two tries to begin a log where the broker refused one: a setting there has to change first.
_AGAIN_S: Final = 300.0
# Retention cuts whole segments: this many make up the log.
_SEGMENTS: Final = 16
# RabbitMQ's own default size of a segment; larger ones only make retention coarser.
_SEGMENT_MOST: Final = 500_000_000
# Names beyond Discord's documented ones are the sender's choice, and are not to fill the broker with bindings.
_MOST_NAMES: Final = 1_000
# Streams came with RabbitMQ 3.9.
_FIRST_WITH_STREAMS: Final = (3, 9)
_VERSION: Final = re.compile(r"RabbitMQ (\d+)\.(\d+)")
_NOT_FOUND: Final = 404
_REFUSED: Final = 403
_Reply = TypeVar("_Reply", bound=Frame)


class _NoStream(Exception):
    """The log is not there: missing for good, or down for now (``down``). The text is the broker's."""

    def __init__(self, closed: ChannelClosed) -> None:
        super().__init__(str(closed))
        # A queue whose node is down, or a stream without its majority, is not said to be missing.
        self.down = not (closed.code == _NOT_FOUND and "no queue" in closed.text)


class LogKeeper:
    """One cluster's event log, over the connections of its publisher, one after the other."""

    def __init__(
        self,
        *,
        exchange: str,
        cluster: int,
        settings: EventLogSettings,
        record: EventLogRecord,
        write: Callable[[EventLogRecord], None],
        clock: Clock,
    ) -> None:
        self.is_on = settings.is_on
        self.state: LogState = "idle"
        self.why = ""
        """Why there is no log, or what is waited for; fit for a log line."""
        self.begun = 0
        """Logs that were begun in this process; each beyond a cluster's first ends what proxies could resume."""
        self.since = clock.monotonic()
        """Since when ``state`` is what it is (monotonic seconds)."""
        self.unbound: list[bytes] = []
        """Names that have to be bound in front of what is written next."""
        self.wanted = False
        """Whether a log is to be begun where there is none."""
        self._exchange = exchange
        self._cluster = cluster
        self._settings = settings
        self._write = write
        self._clock = clock
        self._names = {name.encode() for name in (*DOCUMENTED, *LOGGED_KEYS)}
        self._said_names = self._said_write = False
        # From the end of a publishing channel until the next one may be opened: the log may be what ended it.
        self._is_doubted = False
        self._channel: Channel | None = None
        self._down_since: float | None = None
        # When beginning a log is tried again (monotonic seconds), after the broker has refused one.
        self._again_at = 0.0
        self._is_old = False
        self._undeletable: set[str] = set()
        stays = settings.is_on and (record.age, record.bytes) == (settings.age_s, settings.bytes)
        if record.log is not None and not stays:
            if settings.is_on:
                self._log(logging.INFO, "EVENT_LOG_AGE or EVENT_LOG_BYTES was changed: %s ends", record.log)
            record = EventLogRecord(unwanted=(*record.unwanted, record.log))
        self._record = record

    @property
    def name(self) -> str | None:
        """The stream that events go into; None while there is none."""
        return self._record.log

    @property
    def is_due(self) -> bool:
        """Whether a log has to be begun before anything is published."""
        return self.is_on and self.wanted and self.state == "idle"

    @property
    def is_settled(self) -> bool:
        """Whether it is decided where what is published now goes: into the log, or nowhere because there is none."""
        return not (self._is_doubted or self.is_due)

    @property
    def has_streams(self) -> bool:
        """Whether there may be a stream of this cluster at the broker."""
        return bool(self._record.streams)

    @property
    def names(self) -> int:
        """The number of names that are bound."""
        return sum(map(_is_logged, self._names))

    def doubt(self) -> None:
        """The publishing channel has ended: where the next event goes is decided by :meth:`open`."""
        self._is_doubted = True

    # Names

    def note(self, key: bytes) -> None:
        """Have a name bound in front of its first event."""
        if key not in self._names:
            self._add(key)

    def _add(self, key: bytes) -> None:
        if len(self._names) >= _MOST_NAMES:
            if not self._said_names:
                self._said_names = True
                self._log(
                    logging.WARNING,
                    "Discord has sent events of %d names: those of further ones are published and do not go into the "
                    "event log, %s first",
                    _MOST_NAMES,
                    ascii(key.decode("utf-8", "replace")),
                )
            return
        self._names.add(key)
        if _is_logged(key):
            self.unbound.append(key)

    def is_bound(self, name: str) -> bool:
        """Return whether events of that name go into the log, as far as is known here."""
        key = name.encode()
        return self.state == "kept" and key in self._names and _is_logged(key)

    def bindings(self) -> bytes:
        """Return the frames that bind what is ``unbound``, for the publishing channel, and empty ``unbound``."""
        keys, self.unbound = self.unbound, []
        if self.state != "kept":
            return b""
        return b"".join(framing.marshal(self._bind(key, nowait=True), CHANNEL) for key in keys)

    def _bind(self, key: bytes, *, nowait: bool) -> spec.Queue.Bind:
        assert self._record.log is not None
        return spec.Queue.Bind(0, self._record.log, self._exchange, key.decode(), nowait=nowait)

    # Before a channel is opened to publish on

    async def open(self, connection: Connection, say: Callable[[bool, str], None]) -> None:
        """Return once a channel that is opened after this may publish: the log takes all that comes on it, or there is
        none, and ``why`` says why. ``say(False, why)`` when that takes long.

        Raises ConnectionLost, and ChannelClosed where the exchange cannot be declared.
        """
        self._is_doubted = True
        await self._open(connection, say)
        self._is_doubted = False

    async def _open(self, connection: Connection, say: Callable[[bool, str], None]) -> None:
        if not self.is_on or not self.wanted:
            return
        self._is_old = lacks_streams(connection.server)
        if self._is_old:
            self._without(f"{connection.server} has no streams, RabbitMQ 3.9 or newer has")
            return
        await self._call(
            connection,
            spec.Exchange.Declare(0, self._exchange, topology.EXCHANGE_TYPE, durable=True),
            spec.Exchange.DeclareOk,
        )
        while True:
            if self._record.log is None and not await self._begin(connection):
                return
            try:
                await self._look(connection)
                await self._bind_all(connection)
            except _NoStream as fault:
                await self._suffer(fault, connection, say)
            else:
                self._down_since = None
                if self.state != "kept":
                    self._log(logging.INFO, "events go into the event log %s", self._record.log)
                self._enter("kept", "")
                return

    async def _look(self, connection: Connection) -> None:
        assert self._record.log is not None
        try:
            await self._call(
                connection, spec.Queue.Declare(0, self._record.log, passive=True), spec.Queue.DeclareOk
            )
        except ChannelClosed as closed:
            raise _NoStream(closed) from None

    async def _bind_all(self, connection: Connection) -> None:
        """Bind every name; what is bound already costs the broker a look."""
        self.unbound = []
        keys = sorted(filter(_is_logged, self._names))
        channel = await self._open_channel(connection)
        for key in keys[:-1]:
            channel.send(self._bind(key, nowait=True))
        try:
            await self._call(connection, self._bind(keys[-1], nowait=False), spec.Queue.BindOk)
        except ChannelClosed as closed:
            raise _NoStream(closed) from None

    async def _suffer(
        self, fault: _NoStream, connection: Connection, say: Callable[[bool, str], None]
    ) -> None:
        """The log is not there. Wait a moment if it may come back, else let another one be begun."""
        name, now = self._record.log, self._clock.monotonic()
        assert name is not None
        if not fault.down:
            self._down_since = None
            self._log(
                logging.ERROR,
                "the event log %s is gone, somebody has deleted it: another one begins, and what proxies had not read "
                "is lost to them (%s)",
                name,
                fault,
            )
            self._keep(EventLogRecord(unwanted=self._record.unwanted))
            return
        if self._down_since is None:
            self._down_since = now
        waited = now - self._down_since
        if waited >= _DOWN_PATIENCE_S:
            self._down_since = None
            self._log(
                logging.ERROR,
                "the event log %s has been down for %.0f s: another one begins, and what proxies had not read of it is "
                "lost to them (%s)",
                name,
                waited,
                fault,
            )
            self._keep(EventLogRecord(unwanted=(*self._record.unwanted, name)))
            return
        if self.state != "waiting":
            words = f"events wait for the event log {name}, at most {_DOWN_PATIENCE_S:.0f} s: {fault}"
            self._log(logging.WARNING, "%s", words)
            self._enter("waiting", words)
            say(False, words)
        await asyncio.wait([connection.closed], timeout=_LOOK_DOWN_S)

    async def _begin(self, connection: Connection) -> bool:
        """Declare a new log; whether the broker took it."""
        if self._clock.monotonic() < self._again_at:
            return False
        settings = self._settings
        name = topology.event_log(self._cluster, secrets.token_hex(6))
        # Known before it is declared, so that none is left behind.
        self._keep(EventLogRecord(unwanted=(*self._record.unwanted, name)))
        declare = spec.Queue.Declare(
            0,
            name,
            durable=True,
            arguments={
                "x-queue-type": "stream",
                "x-max-age": f"{settings.age_s}s",
                "x-max-length-bytes": settings.bytes,
                "x-stream-max-segment-size-bytes": min(settings.bytes // _SEGMENTS, _SEGMENT_MOST),
            },
        )
        self._again_at = self._clock.monotonic() + _AGAIN_S
        try:
            await self._call(connection, declare, spec.Queue.DeclareOk)
        except ChannelClosed as closed:
            self._without(f"the broker refuses {name}: {_explained(closed)}")
            return False
        except ConnectionLost as lost:
            # RabbitMQ ends the connection for what it cannot do at all: the next one goes on without the log.
            if "the broker closed the connection: 5" not in str(lost):
                self._again_at = 0.0
            else:
                self._without(f"the broker cannot declare {name}: {lost}")
            raise
        self._again_at = 0.0
        self.begun += 1
        others = tuple(each for each in self._record.unwanted if each != name)
        self._keep(EventLogRecord(name, settings.age_s, settings.bytes, others))
        self._log(logging.INFO, "the event log %s begins", name)
        return True

    # While events are published

    async def watch(self, connection: Connection) -> None:
        """Return when another publishing channel has to be opened: the log is gone or down, or can be begun now."""
        try:
            await self._delete_unwanted(connection)
            while True:
                await asyncio.sleep(_LOOK_S)
                if self.state == "kept":
                    await self._look(connection)
                elif self.state == "without" and not self._is_old and await self._begin(connection):
                    return
        except _NoStream as fault:
            self._log(logging.WARNING, "the event log %s does not answer: %s", self._record.log, fault)
        except ConnectionLost:
            pass

    async def _delete_unwanted(self, connection: Connection) -> None:
        """Delete the streams that no event goes into any more, each tried once by this process."""
        for name in self._record.unwanted:
            if name in self._undeletable:
                continue
            self._undeletable.add(name)
            try:
                await self._call(connection, spec.Queue.Delete(0, name), spec.Queue.DeleteOk)
            except ChannelClosed as closed:
                self._log(
                    logging.WARNING,
                    "%s, into which no event goes any more, cannot be deleted: %s. It takes disk at the broker; it is "
                    "tried again at the next start",
                    name,
                    closed,
                )
                continue
            others = tuple(each for each in self._record.unwanted if each != name)
            self._keep(msgspec.structs.replace(self._record, unwanted=others))
            self._log(logging.INFO, "%s is deleted: no event goes into it any more", name)

    # What the above have in common

    async def _open_channel(self, connection: Connection) -> Channel:
        channel = self._channel
        if channel is None or channel.closed.done():
            channel = self._channel = await connection.channel(_LOG_CHANNEL)
        return channel

    async def _call(self, connection: Connection, method: Frame, reply: type[_Reply]) -> _Reply:
        channel = await self._open_channel(connection)
        return await channel.call(method, reply)

    def _without(self, why: str) -> None:
        if self.state != "without" or self.why != why:
            self._log(logging.ERROR, "events are published without an event log: %s", why)
        self._enter("without", why)

    def _enter(self, state: LogState, why: str) -> None:
        if state != self.state:
            self.state, self.since = state, self._clock.monotonic()
        self.why = why

    def _keep(self, record: EventLogRecord) -> None:
        self._record = record
        try:
            self._write(record)
        except StateError as error:
            if not self._said_write:
                self._said_write = True
                self._log(
                    logging.ERROR,
                    "the event log's name cannot be written down: %s. A restart begins another log, and this one stays "
                    "at the broker",
                    error,
                )
        else:
            self._said_write = False

    def _log(self, level: int, text: str, *arguments: object) -> None:
        log.log(level, text, *arguments, extra={"cluster": self._cluster, "action": "event_log"})


def _is_logged(key: bytes) -> bool:
    """Whether what is published under that key belongs in the log: all but what a proxy has no use for."""
    name = key.decode("utf-8", "replace")
    return name in LOGGED_KEYS or not (name.startswith(topology.OWN_PREFIX) or name.endswith(topology.BEFORE))


def lacks_streams(server: str) -> bool:
    """Return whether a broker is known to be too old for streams. Others than RabbitMQ are tried."""
    found = _VERSION.match(server)
    return found is not None and (int(found[1]), int(found[2])) < _FIRST_WITH_STREAMS


def _explained(closed: ChannelClosed) -> str:
    if closed.code == _REFUSED:
        return f"{closed}. The gateway's user needs all rights for rateway-.* (docs/rabbitmq.md)"
    if "stream_queue" in closed.text or "feature flag" in closed.text:
        return f"{closed}. Switch it on: rabbitmqctl enable_feature_flag stream_queue"
    return str(closed)
