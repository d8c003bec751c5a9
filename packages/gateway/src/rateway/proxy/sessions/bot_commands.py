"""Commands of bots (op 3, 4, 8, 31, 43): to Discord by the gateway, within its limits, or answered from the cache."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeAlias

import msgspec
from rateway.delivery.proxy_port import Gateway
from rateway.proxy.log.stream import Stream
from rateway.proxy.sessions.answers import PendingAnswers
from rateway.proxy.sessions.bot_connection import BotConnection
from rateway.proxy.sessions.snapshot import member_chunks
from rateway_protocol.contract.errors import ErrorCode, Fault
from rateway_protocol.discord.opcodes import Opcode
from rateway_protocol.discord.snowflake import shard_of

__all__ = ["BotCommands"]

log = logging.getLogger(__name__)

# Seconds that a command may wait at the gateway, as its shard resumes for instance.
PATIENCE: Final = 60.0
# Commands under way of all bots; what comes beyond is not carried out.
MOST_UNDER_WAY: Final = 2_000

Work: TypeAlias = Callable[[], Coroutine[Any, Any, object]]
"""What a task does."""
Start: TypeAlias = Callable[[Work], object]


class BotCommands:
    """Carry out the commands of bots. *start* begins a task."""

    def __init__(self, gateway: Gateway, answers: PendingAnswers, start: Start) -> None:
        self.refused: Counter[str] = Counter()
        """Commands that were not carried out, by the code of the gateway's answer."""
        self._gateway = gateway
        self._answers = answers
        self._start = start
        self._under_way = 0
        # Gateway's shard → the newest connection that has set a presence.
        self._presences: dict[int, BotConnection] = {}

    def carry_out(self, connection: BotConnection, op: int, d: dict[str, Any]) -> None:
        """Begin to carry out a command; *d* has the documented form."""
        stream = connection.stream
        if stream is None:
            return
        if op == Opcode.PRESENCE_UPDATE:
            self.set_presence(connection, d)
        elif op == Opcode.REQUEST_GUILD_MEMBERS:
            if stream.has_guild(int(d["guild_id"])):
                self._go(functools.partial(self._request_members, connection, stream, d))
        elif op == Opcode.REQUEST_SOUNDBOARD_SOUNDS:
            self._request_sounds(stream, d)
        elif stream.has_guild(int(d["guild_id"])):
            if op == Opcode.REQUEST_CHANNEL_INFO:
                self._answers.ask(stream.session_id, op, int(d["guild_id"]))
            self._go(functools.partial(self._send, self._shard_of(stream, d["guild_id"]), op, d))

    def set_presence(self, connection: BotConnection, presence: Mapping[str, Any]) -> None:
        """Set the presence of the connection's shards; of several connections of one shard the newest sets it."""
        stream = connection.stream
        if stream is None:
            return
        for shard_id in stream.shards():
            newest = self._presences.get(shard_id)
            if newest is None or newest.generation <= connection.generation:
                self._presences[shard_id] = connection
                self._go(functools.partial(self._send, shard_id, Opcode.PRESENCE_UPDATE, presence))

    def leave_voice(self, shard_id: int, guild_id: str) -> None:
        """End the bot's voice connection in a guild."""
        d = {"guild_id": guild_id, "channel_id": None, "self_mute": False, "self_deaf": False}
        self._go(functools.partial(self._send, shard_id, Opcode.VOICE_STATE_UPDATE, d))

    def leave(self, connection: BotConnection) -> None:
        """Forget a connection that has ended."""
        for shard_id in [each for each, newest in self._presences.items() if newest is connection]:
            del self._presences[shard_id]

    def _request_sounds(self, stream: Stream, d: Mapping[str, Any]) -> None:
        by_shard: dict[int, list[str]] = {}
        for guild_id in d["guild_ids"]:
            if stream.has_guild(int(guild_id)):
                self._answers.ask(stream.session_id, Opcode.REQUEST_SOUNDBOARD_SOUNDS, int(guild_id))
                by_shard.setdefault(self._shard_of(stream, guild_id), []).append(guild_id)
        for shard_id, guild_ids in by_shard.items():
            self._go(
                functools.partial(
                    self._send, shard_id, Opcode.REQUEST_SOUNDBOARD_SOUNDS, {"guild_ids": guild_ids}
                )
            )

    async def _request_members(self, connection: BotConnection, stream: Stream, d: dict[str, Any]) -> None:
        """Answer from the cache where it knows all that is asked for, else ask Discord once for all who ask so."""
        guild_id: str = d["guild_id"]
        user_ids = d.get("user_ids")
        found = await self._gateway.members(
            int(guild_id),
            None if user_ids is not None else d.get("query") or "",
            d.get("limit") or 0,
            None if user_ids is None else [int(each) for each in user_ids],
            bool(d.get("presences")),
        )
        if connection.stream is not stream:
            return
        if not isinstance(found, Fault):
            shard_id = self._shard_of(stream, guild_id)
            feed = next((feed for feed in stream.feeds if shard_id in feed.shards), None)
            if feed is not None:
                for chunk in member_chunks(guild_id, found, d.get("nonce")):
                    feed.tell("GUILD_MEMBERS_CHUNK", chunk)
            return
        request = self._answers.ask_members(stream.session_id, d)
        if request is not None and not await self._send(
            self._shard_of(stream, guild_id), Opcode.REQUEST_GUILD_MEMBERS, request
        ):
            self._answers.fail_members(request["nonce"])

    @staticmethod
    def _shard_of(stream: Stream, guild_id: str) -> int:
        return shard_of(int(guild_id), stream.total)

    async def _send(self, shard_id: int, op: int, d: Mapping[str, Any]) -> bool:
        """Send a command to Discord; whether it has gone out."""
        payload = msgspec.json.encode({"op": int(op), "d": d})
        fault = await self._gateway.command(shard_id, payload, PATIENCE)
        if fault is None:
            return True
        self.refused[fault.code.value] += 1
        if fault.code is ErrorCode.SUPERSEDED:
            # Bots that start together set one presence after the other; the newest is what is wanted.
            return False
        log.warning(
            "a bot's command (op %d) was not carried out: %s", op, fault.message,
            extra={"shard": shard_id, "action": "proxy"},
        )  # fmt: skip
        return False

    def _go(self, what: Work) -> None:
        if self._under_way >= MOST_UNDER_WAY:
            self.refused["queue_full"] += 1
            return
        self._under_way += 1
        self._start(functools.partial(self._counted, what))

    async def _counted(self, what: Work) -> None:
        try:
            await what()
        finally:
            self._under_way -= 1
