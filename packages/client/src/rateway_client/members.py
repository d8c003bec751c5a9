"""A guild's members from Discord: one command, and the chunks that answer it.

The chunks come as events on the exchange of the cluster that runs the guild's shard, for all workers to see; a queue
of this worker's own, which exists while it waits, takes them there, and the nonce says whose they are. What makes
them incomplete asks again: Discord's RATE_LIMITED (after its ``retry_after``), a lost session, a lost connection.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from rateway_client.cache import Json
from rateway_client.errors import ConnectionLost, GatewayError, NoAnswer
from rateway_client.line import FAILURES
from rateway_client.requests import Requests
from rateway_protocol.contract import messages, topology
from rateway_protocol.discord.opcodes import Opcode

__all__ = ["MemberRequests", "Members", "place_of"]

log = logging.getLogger(__name__)

_CHUNK: Final = "GUILD_MEMBERS_CHUNK"
_LIMITED: Final = "RATE_LIMITED"
_GAP: Final = messages.Gap.key
# Messages that cannot be read, of which each has a log line.
_MOST_SAID: Final = 20
# 32 characters: the most that Discord gives back.
_NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Members:
    """Discord's answer: members as in its JSON, presences if asked for, and ids that are not members."""

    members: list[Json]
    presences: list[Json] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)


class _Chunk(msgspec.Struct):
    """GUILD_MEMBERS_CHUNK. https://discord.com/developers/docs/events/gateway-events#guild-members-chunk"""

    guild_id: str
    members: list[Json]
    chunk_index: int
    chunk_count: int
    nonce: str | None = None
    presences: list[Json] = []
    not_found: list[str | int] = []


class _About(msgspec.Struct):
    guild_id: str | None = None
    nonce: str | None = None


class _Limited(msgspec.Struct):
    """RATE_LIMITED. ``retry_after`` is seconds."""

    opcode: int
    retry_after: float
    meta: _About = msgspec.field(default_factory=_About)


@dataclass(frozen=True, slots=True)
class _Again:
    """It has to be asked once more, after so many seconds."""

    after: float
    why: str


class _Nonce(msgspec.Struct):
    nonce: str | None = None


class _Asked:
    """One request under way: what came for it so far."""

    def __init__(self, guild_id: str, shard_id: int | None) -> None:
        self.guild_id = guild_id
        self.shard_id = shard_id
        self.nonce = secrets.token_hex(_NONCE_BYTES)
        self.chunks: dict[int, _Chunk] = {}
        self.count: int | None = None
        self.outcome: asyncio.Future[Members | _Again] = asyncio.get_running_loop().create_future()

    def chunk(self, chunk: _Chunk) -> None:
        self.count = chunk.chunk_count
        self.chunks[chunk.chunk_index] = chunk
        if len(self.chunks) < self.count:
            return
        ordered = [self.chunks[index] for index in sorted(self.chunks)]
        self.end(
            Members(
                members=[member for each in ordered for member in each.members],
                presences=[presence for each in ordered for presence in each.presences],
                not_found=[str(user_id) for each in ordered for user_id in each.not_found],
            )
        )

    def limited(self, limited: _Limited) -> None:
        about = limited.meta
        ours = about.nonce == self.nonce if about.nonce is not None else about.guild_id == self.guild_id
        if limited.opcode == Opcode.REQUEST_GUILD_MEMBERS and ours:
            self.end(_Again(limited.retry_after, "Discord's rate limit"))

    def gap(self, gap: messages.Gap) -> None:
        if self.shard_id is None or gap.shard == self.shard_id:
            self.end(_Again(0.0, f"shard {gap.shard} lost its session"))

    def end(self, outcome: Members | _Again) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


@dataclass(slots=True)
class _ChunkQueue:
    """The queue at one cluster's exchange, while chunks from there are waited for."""

    channel: AbstractChannel
    asked: dict[str, _Asked] = field(default_factory=dict)
    unreadable: int = 0

    async def take(self, message: AbstractIncomingMessage) -> None:
        try:
            match message.routing_key:
                case "GUILD_MEMBERS_CHUNK":
                    # Others' chunks, of a thousand members each, are looked through for their nonce only.
                    nonce = msgspec.json.decode(message.body, type=_Nonce).nonce
                    asked = self.asked.get(nonce) if nonce is not None else None
                    if asked is not None:
                        asked.chunk(msgspec.json.decode(message.body, type=_Chunk))
                case "RATE_LIMITED":
                    limited = msgspec.json.decode(message.body, type=_Limited)
                    for asked in self.asked.values():
                        asked.limited(limited)
                case _:
                    gap = msgspec.json.decode(message.body, type=messages.Gap)
                    for asked in self.asked.values():
                        asked.gap(gap)
        # Not JSON, not UTF-8, nested too deep: all that msgspec raises.
        except (ValueError, RecursionError) as error:
            self.unreadable += 1
            if self.unreadable <= _MOST_SAID:
                log.warning(
                    "a %s is not as Discord documents it: %s",
                    message.routing_key,
                    str(error)[:200],
                    extra={"action": "unreadable"},
                )

    def lost(self) -> None:
        for asked in self.asked.values():
            asked.end(_Again(0.0, "the connection to the broker broke"))


class MemberRequests:
    """Requests for members, any number at a time."""

    def __init__(
        self,
        requests: Requests,
        send: Callable[[Json, str, float], Awaitable[None]],
        where: Callable[[str], Awaitable[tuple[int, int | None]]],
    ) -> None:
        """``send(d, guild_id, timeout)`` sends the command; ``where(guild_id)`` is the guild's cluster and shard."""
        self._requests = requests
        self._send = send
        self._where = where
        self._queues: dict[int, _ChunkQueue] = {}
        self._lock = asyncio.Lock()

    async def request(self, guild_id: str, d: Json, timeout: float) -> Members:
        """Ask until all chunks are there. Raises CommandError, NoAnswer, ConnectionLost (the worker was closed)."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        asked: _Asked | None = None
        try:
            async with asyncio.timeout(timeout):
                cluster, shard_id = await self._where(guild_id)
                while True:
                    asked = _Asked(guild_id, shard_id)
                    async with self._listening(cluster, asked):
                        again = await self._once(asked, d, end - loop.time())
                    if isinstance(again, Members):
                        return again
                    log.info(
                        "members of guild %s are asked for again: %s",
                        guild_id,
                        again.why,
                        extra={"action": "asked_again"},
                    )
                    # No longer than the caller waits, whatever the event says.
                    await asyncio.sleep(min(max(0.0, again.after), timeout))
        except NoAnswer:
            raise
        except TimeoutError:
            raise NoAnswer(_came(guild_id, asked, timeout)) from None

    async def _once(self, asked: _Asked, d: Json, timeout: float) -> Members | _Again:
        try:
            await self._send({**d, "nonce": asked.nonce}, asked.guild_id, timeout)
        except ConnectionLost:
            return _Again(0.0, "the connection to the broker broke")
        return await asked.outcome

    @asynccontextmanager
    async def _listening(self, cluster: int, asked: _Asked) -> AsyncIterator[None]:
        chunks = None
        while chunks is None:
            await self._requests.up()
            async with self._lock:
                chunks = self._queues.get(cluster)
                try:
                    chunks = chunks or await self._open(cluster)
                except FAILURES:
                    # The connection has just gone, or is about to be told; the next one is awaited.
                    await self._requests.gone.wait()
                    continue
                chunks.asked[asked.nonce] = asked
        try:
            yield
        finally:
            del chunks.asked[asked.nonce]
            if not chunks.asked and self._queues.get(cluster) is chunks:
                del self._queues[cluster]
                await _close(chunks.channel)

    async def _open(self, cluster: int) -> _ChunkQueue:
        connection = await self._requests.up()
        channel = await connection.channel(publisher_confirms=False)
        chunks = _ChunkQueue(channel)

        def lost(*_facts: object) -> None:
            if self._queues.get(cluster) is chunks:
                del self._queues[cluster]
            chunks.lost()

        channel.close_callbacks.add(lost)
        queue = await channel.declare_queue(exclusive=True, auto_delete=True)
        exchange = await channel.declare_exchange(
            topology.exchange(cluster), topology.EXCHANGE_TYPE, durable=True, auto_delete=False
        )
        for key in (_CHUNK, _LIMITED, _GAP):
            await queue.bind(exchange, key)
        await queue.consume(chunks.take, no_ack=True)
        self._queues[cluster] = chunks
        return chunks


async def _close(channel: AbstractChannel) -> None:
    try:
        await channel.close()
    except FAILURES:
        log.debug("a channel for members was closed already", extra={"action": "broker_lost"})


async def place_of(find: Callable[[str], Awaitable[Json | None]], guild_id: str, own: int) -> tuple[int, Any]:
    """Return a guild's cluster and shard; when the gateway cannot say (its cache is off), the worker's own cluster."""
    try:
        found = await find(guild_id)
    except GatewayError:
        found = None
    return (own, None) if found is None else (int(found["cluster"]), int(found["shard"]))


def _came(guild_id: str, asked: _Asked | None, timeout: float) -> str:
    if asked is None or asked.count is None:
        return (
            f"no members of guild {guild_id} within {timeout:g} s: are GUILD_MEMBERS_CHUNK and RATE_LIMITED "
            "among the EVENTS that the gateway publishes?"
        )
    return (
        f"{len(asked.chunks)} of {asked.count} chunks of guild {guild_id}'s members came within {timeout:g} s"
    )
