"""Ask the gateway over RabbitMQ: queries and commands to the clusters' exchanges (``docs/contract.md``).

Answers come by *direct reply-to* (https://www.rabbitmq.com/docs/direct-reply-to): to the channel that asked, without a
queue. One connection of its own, beside the one that reads event logs, so that no answer waits behind those.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec
import pamqp.commands as spec
from rateway.transports.amqp.requests.refused_exchanges import RefusedExchanges, is_named
from rateway.transports.amqp.wire.channel import Channel, ChannelClosed, ConnectionLost
from rateway.transports.amqp.wire.connection import Connection
from rateway.transports.amqp.wire.deliveries import Delivery, Properties
from rateway.transports.amqp.wire.frames import CHANNEL, END, short
from rateway.transports.amqp.wire.kept_connection import KeptConnection
from rateway.transports.amqp.wire.uri import AddressSource
from rateway_protocol.contract.errors import (
    PART_HEADER,
    PARTS_HEADER,
    STATUS_HEADER,
    ErrorCode,
    Fault,
    Status,
)
from rateway_protocol.contract.header_table import TableUnreadable, fields_of
from rateway_protocol.contract.parts import AnswerParts
from rateway_protocol.contract.queries import CLUSTER_HEADER, MAX_QUERIES
from rateway_protocol.contract.snapshots import (
    ClusterList,
    GuildSnapshot,
    MemberList,
    ShardSnapshot,
)
from rateway_protocol.contract.topology import CACHE_KEY, EXCHANGE_TYPE, GATEWAY_KEY, exchange
from rateway_protocol.discord.snowflake import shard_of

__all__ = ["AmqpGateway"]

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Item = TypeVar("Item")

# RabbitMQ's name for "the channel that this came on".
_REPLY_TO: Final = b"amq.rabbitmq.reply-to"
# Seconds for a query: the gateway answers from memory, in parts where it is much.
QUERY_S: Final = 10.0
# Seconds for another gateway's answer about its clusters: it may be away.
OTHERS_S: Final = 2.0
# The owner of a cluster in the answer of the gateway that runs it.
OWNER: Final = "this"
# Guilds of one query, about a megabyte, and queries at a time: the gateway reads guilds while those before are on their
# way, and other questions get their turn in between.
GUILDS_OF_QUERY: Final = 10
QUERIES_AT_ONCE: Final = 5
# Requests that wait for their answers.
MOST_WAITING: Final = 5_000
# The largest answer, in bytes: a guild of a million members has less.
MOST_ANSWER: Final = 512 << 20
_ACCESS_REFUSED: Final = 403
# The broker's own bound for `expiration`, in milliseconds.
_MOST_EXPIRATION_MS: Final = 0xFFFF_FFFF
# Where a layout is not known yet: every gateway has this cluster.
_FIRST_CLUSTER: Final = 1

_FRAME: Final = struct.Struct(">BHI")
_HEADER: Final = struct.Struct(">HHQH")
_CLASS_BASIC: Final = 60
_PUBLISH: Final = b"\x00\x3c\x00\x28\x00\x00"
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE = 0x8000, 0x2000, 0x1000
_CORRELATION_ID, _REPLY_TO_FLAG, _EXPIRATION = 0x0400, 0x0200, 0x0100
_JSON: Final = b"\x10application/json"
_TRANSIENT: Final = b"\x01"
_WANTED: Final = tuple(each.encode() for each in (STATUS_HEADER, PART_HEADER, PARTS_HEADER))

# The beginning of an error in the place of an answer; no entity has such a field.
_ERROR_IN_LIST: Final = b'{"error":{"code":'
_ERROR, _NOT_FOUND = Status.ERROR.value.encode(), Status.NOT_FOUND.value.encode()

_decode_clusters = msgspec.json.Decoder(ClusterList).decode
_decode_shard = msgspec.json.Decoder(ShardSnapshot).decode
_decode_guild = msgspec.json.Decoder(GuildSnapshot).decode
_decode_members = msgspec.json.Decoder(MemberList).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Told(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Failure(msgspec.Struct):
    error: _Told


_decode_failure = msgspec.json.Decoder(_Failure).decode


class _Lost(Exception):
    """The channel ended before the answer came; the text says why."""


class _Waiting:
    """A request that was sent: its exchange, the parts of its answer so far, and the future for the whole."""

    __slots__ = ("answer", "parts", "place")

    def __init__(self, place: str, answer: asyncio.Future[bytes | Fault]) -> None:
        self.place = place
        self.answer = answer
        self.parts = AnswerParts()


class AmqpGateway:
    """A :class:`~rateway.delivery.proxy_port.Gateway`, and what a gateway asks others
    (:class:`~rateway.delivery.port.OtherGateways`), over a connection of its own, which :meth:`run` keeps.

    A query whose connection is lost is asked again within its time; a command is not: it may have gone out.
    """

    def __init__(
        self, *, address: AddressSource, name: str = "rateway: requests", query_seconds: float = QUERY_S
    ) -> None:
        """``name`` is what the broker's management shows; a query gets no answer after ``query_seconds``."""
        self._kept = KeptConnection(
            address,
            name,
            lost="the gateway cannot be asked: %s; trying again until it can",
            back="the gateway can be asked again (%s)",
        )
        self._query_seconds = query_seconds
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._connected = asyncio.Event()
        self._numbers = itertools.count(1)
        self._waiting: dict[bytes, _Waiting] = {}
        # Exchanges that were declared on this channel.
        self._declared: set[str] = set()
        self._refused = RefusedExchanges()
        # The clusters' exchanges by shard, once the gateway has told its layout.
        self._exchanges: dict[int, str] = {}
        self._shard_count = 0
        # Where the layout is asked for.
        self._home = exchange(_FIRST_CLUSTER)

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        try:
            await self._kept.run(self._serve)
        finally:
            self._disconnect()

    async def _serve(self, connection: Connection) -> str:
        """One connection's life; why it ended."""
        while True:
            try:
                channel = await connection.channel(CHANNEL)
                channel.on_delivery = self._on_delivery
                channel.on_return = self._on_return
                # At once: a query that it has failed is asked again before this task's turn comes.
                channel.on_end = self._disconnect
                await channel.call(
                    spec.Basic.Consume(0, _REPLY_TO.decode(), no_ack=True), spec.Basic.ConsumeOk
                )
            except ConnectionLost as lost:
                return str(lost)
            except ChannelClosed as closed:
                return str(closed)
            if not channel.closed.done():
                self._kept.say_back(connection)
                self._connection, self._channel = connection, channel
                self._declared.clear()
                self._connected.set()
            reason = await asyncio.shield(channel.closed)
            for each in self._waiting.values():
                if each.answer.done():
                    continue
                if (
                    isinstance(reason, ChannelClosed)
                    and reason.code == _ACCESS_REFUSED
                    and is_named(each.place, reason)
                ):
                    each.answer.set_result(self._refusal(each.place, reason))
                else:
                    each.answer.set_exception(_Lost(str(reason)))
            self._waiting.clear()
            if isinstance(reason, ConnectionLost):
                return str(reason)
            # An exchange of that name is of another kind, say. The next request has a channel of its own.
            log.warning(
                "the broker closed the channel of queries and commands: %s",
                reason,
                extra={"action": "channel_closed"},
            )

    def _disconnect(self) -> None:
        self._connected.clear()
        self._connection = self._channel = None

    # The port.

    async def clusters(self) -> ClusterList | Fault:
        found = await self._clusters_at(self._home, self._query_seconds, mandatory=True)
        if isinstance(found, Fault):
            if found.code is ErrorCode.UNAVAILABLE:
                self._home = self._after(self._home)
            return found
        found = await self._with_others(found)
        self._shard_count = found.shard_count
        self._exchanges = {shard: row.exchange for row in found.clusters for shard in row.shards}
        return found

    async def shard(self, shard_id: int) -> ShardSnapshot | Fault:
        question = _question("ShardSnapshot", shard_id)
        return _read(await self._query(self._exchange_of(shard_id), question), _decode_shard)

    async def guilds(
        self, guild_ids: Sequence[int], intents: int, large_threshold: int
    ) -> list[GuildSnapshot | Fault]:
        found: dict[int, GuildSnapshot | Fault] = {}
        by_exchange: dict[str, list[int]] = {}
        for guild_id in guild_ids:
            by_exchange.setdefault(self._exchange_of_guild(guild_id), []).append(guild_id)
        for place, asked in by_exchange.items():
            questions = [
                _question("GuildSnapshot", each, intents=intents, large_threshold=large_threshold)
                for each in asked
            ]
            answers: list[bytes | Fault] = []
            for some in _batches(questions, GUILDS_OF_QUERY * QUERIES_AT_ONCE):
                queries = (self._query_many(place, each) for each in _batches(some, GUILDS_OF_QUERY))
                answers += itertools.chain.from_iterable(await asyncio.gather(*queries))
            found |= zip(asked, (_read(each, _decode_guild) for each in answers), strict=True)
        return [found[guild_id] for guild_id in guild_ids]

    async def members(
        self, guild_id: int, query: str | None, limit: int, user_ids: Sequence[int] | None, presences: bool
    ) -> MemberList | Fault:
        wanted: dict[str, object] = {"limit": limit, "presences": presences}
        if user_ids is None:
            wanted["query"] = query or ""
        else:
            wanted["user_ids"] = [str(each) for each in user_ids]
        question = _question("MembersMatching", guild_id, **wanted)
        return _read(await self._query(self._exchange_of_guild(guild_id), question), _decode_members)

    async def ask(
        self, cluster: int, questions: Sequence[Mapping[str, object]], seconds: float
    ) -> list[bytes | Fault]:
        """Ask the gateway that runs a cluster what that cluster knows; see ``OtherGateways``."""
        found: list[bytes | Fault] = []
        for some in _batches(questions, MAX_QUERIES):
            body = msgspec.json.encode({"queries": some})
            headers = {CLUSTER_HEADER: cluster}
            answers = await self._ask_many(
                exchange(cluster), body, len(some), seconds, headers, mandatory=True
            )
            found += map(_of_list, answers)
        return found

    async def command(self, shard_id: int, payload: bytes, seconds: float) -> Fault | None:
        try:
            answer = await self._request(
                self._exchange_of(shard_id), GATEWAY_KEY, payload, seconds, {"shard_id": shard_id}
            )
        except _Lost as lost:
            words = f"the connection to the broker was lost, and the command may have gone out: {lost}"
            return Fault(ErrorCode.UNAVAILABLE, words)
        return answer if isinstance(answer, Fault) else None

    # Where to.

    def _after(self, place: str) -> str:
        """Return the exchange to ask for the layout where that one is not answered: any gateway of the bot knows it."""
        known = list(dict.fromkeys(self._exchanges.values()))
        return known[(known.index(place) + 1) % len(known)] if place in known else place

    def _exchange_of(self, shard_id: int) -> str:
        """Return the exchange of a shard's cluster. Where that is not known, any gateway passes it on."""
        return self._exchanges.get(shard_id, self._home)

    def _exchange_of_guild(self, guild_id: int) -> str:
        if not self._shard_count:
            return self._home
        return self._exchange_of(shard_of(guild_id, self._shard_count))

    async def _with_others(self, found: ClusterList) -> ClusterList:
        """Return the layout with the clusters of other gateways as those tell them: only a cluster's owner knows its
        log."""
        rows = {row.cluster: row for row in found.clusters}
        unknown = [row for row in found.clusters if row.owner != OWNER]
        # One answer tells all clusters of its gateway. Where one is missing, the others are asked together.
        while unknown:
            asked = unknown[:1]
            answers = [await self._clusters_at(asked[0].exchange, OTHERS_S)]
            if isinstance(answers[0], Fault):
                asked = unknown
                answers = await asyncio.gather(
                    *(self._clusters_at(row.exchange, OTHERS_S) for row in unknown[1:])
                )
            for answer in answers:
                if not isinstance(answer, Fault) and answer.shard_count == found.shard_count:
                    rows |= {row.cluster: row for row in answer.clusters if row.owner == OWNER}
            unknown = [row for row in unknown if row not in asked and rows[row.cluster].owner != OWNER]
        return msgspec.structs.replace(found, clusters=tuple(rows[row.cluster] for row in found.clusters))

    # Asking.

    async def _clusters_at(
        self, place: str, seconds: float, *, mandatory: bool = False
    ) -> ClusterList | Fault:
        question = _question("Clusters")
        return _read(await self._query(place, question, seconds, mandatory=mandatory), _decode_clusters)

    async def _query(
        self,
        place: str,
        question: Mapping[str, object],
        seconds: float | None = None,
        *,
        mandatory: bool = False,
    ) -> bytes | Fault:
        body = msgspec.json.encode({**question, "parts": True})
        return await self._ask(
            place, body, self._query_seconds if seconds is None else seconds, mandatory=mandatory
        )

    async def _ask(
        self,
        place: str,
        body: bytes,
        seconds: float,
        headers: Mapping[str, int] | None = None,
        *,
        mandatory: bool = False,
    ) -> bytes | Fault:
        """Ask once, and again where the connection is lost, until the time is over. *mandatory*: fail at once where
        no gateway is there."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            try:
                left = max(0.0, end - loop.time())
                return await self._request(place, CACHE_KEY, body, left, headers, mandatory=mandatory)
            except _Lost as lost:
                if loop.time() >= end:
                    return Fault(ErrorCode.UNAVAILABLE, f"the connection to the broker was lost: {lost}")

    async def _query_many(self, place: str, questions: Sequence[Mapping[str, object]]) -> list[bytes | Fault]:
        body = msgspec.json.encode({"queries": questions, "parts": True})
        return await self._ask_many(place, body, len(questions), self._query_seconds)

    async def _ask_many(
        self,
        place: str,
        body: bytes,
        count: int,
        seconds: float,
        headers: Mapping[str, int] | None = None,
        *,
        mandatory: bool = False,
    ) -> list[bytes | Fault]:
        """Ask *count* queries in one message; the failure of all of them is that of each."""
        answer = await self._ask(place, body, seconds, headers, mandatory=mandatory)
        if not isinstance(answer, Fault):
            try:
                rows = _decode_list(answer)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                rows = []
            if len(rows) == count:
                return [bytes(row) for row in rows]
            answer = _not_understood(answer)
        return [answer] * count

    async def _request(
        self,
        place: str,
        key: str,
        body: bytes,
        seconds: float,
        headers: Mapping[str, int] | None = None,
        *,
        mandatory: bool = False,
    ) -> bytes | Fault:
        """Send a request and wait for its answer. Raises :class:`_Lost`."""
        if len(self._waiting) >= MOST_WAITING:
            return Fault(ErrorCode.QUEUE_FULL, f"{MOST_WAITING} requests wait for their answers already")
        number = b"%d" % next(self._numbers)
        try:
            async with asyncio.timeout(seconds):
                while (connection := self._connection) is None or (channel := self._channel) is None:
                    await self._connected.wait()
                if place not in self._declared:
                    if why := self._refused.why(place):
                        return Fault(ErrorCode.UNAVAILABLE, why)
                    declare = spec.Exchange.Declare(0, place, EXCHANGE_TYPE, durable=True)
                    try:
                        await channel.call(declare, spec.Exchange.DeclareOk)
                    except ChannelClosed as closed:
                        if not is_named(place, closed):
                            raise
                        return self._refusal(place, closed)
                    self._declared.add(place)
                if channel.closed.done():
                    raise channel.closed.result()
                waiting = _Waiting(place, asyncio.get_running_loop().create_future())
                self._waiting[number] = waiting
                connection.write(
                    _publish(place, key, body, number, seconds, headers, connection.frame_max, mandatory)
                )
                return await waiting.answer
        except TimeoutError:
            missing = "the gateway" if self._connected.is_set() else "the broker"
            return Fault(ErrorCode.UNAVAILABLE, f"{missing} did not answer within {seconds:g} s")
        except (ChannelClosed, ConnectionLost) as ended:
            raise _Lost(str(ended)) from None
        finally:
            self._waiting.pop(number, None)

    def _refusal(self, place: str, closed: ChannelClosed) -> Fault:
        return Fault(ErrorCode.UNAVAILABLE, self._refused.note(place, closed))

    def _on_return(self, code: int, key: str, size: int, told: Properties) -> None:
        """Fail a request that no queue took."""
        waiting = self._waiting.get(told.correlation_id or b"")
        if waiting is not None and not waiting.answer.done():
            words = f"no gateway reads {waiting.place} at this broker"
            waiting.answer.set_result(Fault(ErrorCode.UNAVAILABLE, words))

    def _on_delivery(self, delivery: Delivery, told: Properties, body: bytes) -> None:
        waiting = self._waiting.get(told.correlation_id or b"")
        # What comes too late, or answers a question that was asked again, is dropped.
        if waiting is None or waiting.answer.done():
            return
        try:
            headers = fields_of(told.headers, _WANTED)
        except TableUnreadable:
            headers = {}
        status = headers.get(STATUS_HEADER)
        if status == _ERROR:
            waiting.answer.set_result(_failure(body))
            return
        if status == _NOT_FOUND:
            waiting.answer.set_result(b"null")
            return
        whole = waiting.parts.take(headers, body)
        if waiting.parts.size > MOST_ANSWER:
            whole = Fault(ErrorCode.TOO_LARGE, f"the answer has more than {MOST_ANSWER} bytes")
        if whole is not None:
            waiting.answer.set_result(whole)


def _question(kind: str, *arguments: int, **more: object) -> dict[str, object]:
    return {"type": kind, "arguments": [str(each) for each in arguments], **more}


def _batches(asked: Sequence[Item], most: int) -> Iterable[Sequence[Item]]:
    for at in range(0, len(asked), most):
        yield asked[at : at + most]


def _of_list(answer: bytes | Fault) -> bytes | Fault:
    """Return an answer in a list, or the error that stands in its place."""
    return _failure(answer) if isinstance(answer, bytes) and answer.startswith(_ERROR_IN_LIST) else answer


def _read(answer: bytes | Fault, decode: Callable[[bytes], Answer]) -> Answer | Fault:
    """Return the answer's object, or the error that stands in its place."""
    if isinstance(answer, Fault):
        return answer
    if answer in (b"", b"null"):
        return Fault(ErrorCode.INVALID, "the gateway knows no such thing")
    try:
        return decode(answer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _failure(answer)


def _publish(
    place: str,
    key: str,
    body: bytes,
    number: bytes,
    seconds: float,
    headers: Mapping[str, int] | None,
    frame_max: int,
    mandatory: bool,
) -> bytes:
    """Return a request's frames; a *mandatory* one is returned by the broker where no queue takes it."""
    method = _PUBLISH + short(place.encode()) + short(key.encode()) + (b"\x01" if mandatory else b"\x00")
    fields = b"".join(
        short(name.encode()) + b"l" + struct.pack(">q", value) for name, value in (headers or {}).items()
    )
    flags = _CONTENT_TYPE | _DELIVERY_MODE | _CORRELATION_ID | _REPLY_TO_FLAG | _EXPIRATION
    properties = b"".join((
        _JSON,
        struct.pack(">I", len(fields)) + fields if fields else b"",
        _TRANSIENT, short(number), short(_REPLY_TO),
        short(b"%d" % min(_MOST_EXPIRATION_MS, max(1, int(seconds * 1000)))),
    ))  # fmt: skip
    content = _HEADER.pack(_CLASS_BASIC, 0, len(body), flags | (_HEADERS if fields else 0)) + properties
    pieces = [
        _FRAME.pack(1, CHANNEL, len(method)),
        method,
        END,
        _FRAME.pack(2, CHANNEL, len(content)),
        content,
        END,
    ]
    for at in range(0, len(body), frame_max - 8):
        part = body[at : at + frame_max - 8]
        pieces += [_FRAME.pack(3, CHANNEL, len(part)), part, END]
    return b"".join(pieces)


def _failure(body: bytes) -> Fault:
    """Return the fault that an answer with ``status`` = ``error`` holds."""
    try:
        told = _decode_failure(body).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _not_understood(body)
    try:
        return Fault(ErrorCode(told.code), told.message)
    except ValueError:
        # Codes may be added.
        return Fault(ErrorCode.INTERNAL, f"{told.code}: {told.message}")


def _not_understood(answer: bytes) -> Fault:
    words = f"an answer of {len(answer)} bytes is not of the form that docs/contract.md describes"
    return Fault(ErrorCode.INTERNAL, words)
