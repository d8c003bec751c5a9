"""A worker's command (``docs/contract.md``, *Commands*).

A command is a whole gateway payload, ``{"op": 3, "d": {…}}``, published with the key ``gateway``. The header
``shard_id`` (an AMQP integer of any width) or ``guild_id`` (an integer or a decimal string) says where it goes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from rateway_protocol.contract.errors import ErrorCode, Fault
from rateway_protocol.discord import command_forms, commands
from rateway_protocol.discord.commands import MAX_PAYLOAD_BYTES
from rateway_protocol.discord.envelope import FAILURES
from rateway_protocol.discord.opcodes import Opcode
from rateway_protocol.discord.snowflake import shard_of

__all__ = ["ALLOWED", "CommandRequest", "command_answer", "deadline", "parse_command"]

# What a worker may have sent; everything else is the gateway's own conversation.
ALLOWED = frozenset(
    {
        Opcode.PRESENCE_UPDATE.value,
        Opcode.VOICE_STATE_UPDATE.value,
        Opcode.REQUEST_GUILD_MEMBERS.value,
        Opcode.REQUEST_SOUNDBOARD_SOUNDS.value,
        Opcode.REQUEST_CHANNEL_INFO.value,
    }
)
OWN = {1: "heartbeats", 2: "identifying", 6: "resuming"}
# Above this a body is not even parsed: no payload for Discord is near it.
MAX_BODY = 64 * 1024
MAX_ID = (1 << 64) - 1
# Kept: making a union of types takes longer than asking.
_BYTES = (bytes, bytearray)


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """A command that may be sent, and the shard that sends it."""

    shard_id: int
    op: int
    d: Mapping[str, Any] = field(repr=False)
    """In Discord's documented form."""
    payload: bytes = field(repr=False)
    """``op`` and ``d`` as JSON, as they go to Discord."""


class _Payload(msgspec.Struct):
    op: int
    d: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(_Payload)


def parse_command(
    body: bytes, headers: Mapping[str, object] | None, *, shard_count: int, intents: int | None = None
) -> CommandRequest | Fault:
    """Return the command that a message carries, in Discord's documented form, or what is wrong with it. Never raises.

    *shard_count* is the total of shards; *intents* are the sessions', for what Discord would leave unanswered.
    """
    shard_id = _target(headers or {}, shard_count)
    if isinstance(shard_id, Fault):
        return shard_id
    if len(body) > MAX_BODY:
        return Fault(ErrorCode.TOO_LARGE, f"{len(body)} bytes; Discord takes {MAX_PAYLOAD_BYTES}")
    try:
        payload = _decoder.decode(body)
        d = msgspec.json.decode(payload.d)
    except FAILURES as error:
        wrong = f'the body is not a gateway payload such as {{"op": 3, "d": {{…}}}}: {error}'
        return Fault(ErrorCode.BAD_JSON, wrong)
    if payload.op not in ALLOWED:
        whose = OWN.get(payload.op)
        why = f"{whose} is the gateway's own work" if whose else "it is no command"
        allowed = ", ".join(map(str, sorted(ALLOWED)))
        return Fault(ErrorCode.UNKNOWN_OPCODE, f"op {payload.op} cannot be sent: {why}; {allowed} can")
    form = command_forms.read(payload.op, d, intents=intents, shard=(shard_id, shard_count))
    if isinstance(form, command_forms.Refusal):
        return Fault(ErrorCode.INVALID, form.reason)
    # Only op and d go on: a worker's s or t would be a payload that Discord does not know.
    data = commands.encode({"op": payload.op, "d": form.d})
    if len(data) > MAX_PAYLOAD_BYTES:
        return Fault(ErrorCode.TOO_LARGE, f"{len(data)} bytes; Discord takes {MAX_PAYLOAD_BYTES}")
    return CommandRequest(shard_id, payload.op, form.d, data)


def _target(headers: Mapping[str, object], shard_count: int) -> int | Fault:
    shard_id, guild_id = headers.get("shard_id"), headers.get("guild_id")
    if shard_id is None and guild_id is None:
        return Fault(ErrorCode.NO_TARGET, "neither a header shard_id nor guild_id says where it goes")
    if shard_id is not None:
        if isinstance(shard_id, bool) or not isinstance(shard_id, int):
            return Fault(ErrorCode.INVALID, f"the header shard_id is no integer ({type(shard_id).__name__})")
        if not 0 <= shard_id < shard_count:
            return Fault(ErrorCode.NO_SUCH_SHARD, f"there is no shard {shard_id}: 0 to {shard_count - 1}")
        return shard_id
    number = identifier(guild_id)
    if number is None:
        return Fault(
            ErrorCode.INVALID, "the header guild_id is no guild's id (an integer or a decimal string)"
        )
    return shard_of(number, shard_count)


def identifier(value: object) -> int | None:
    """Return an id from an integer or a decimal string, ``None`` for anything else."""
    if isinstance(value, _BYTES):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        if not (value.isdecimal() and value.isascii() and len(value) <= 20):
            return None
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        return None
    return number if 0 <= number <= MAX_ID else None


def deadline(expiration: object, default: float, most: float = math.inf) -> float:
    """Return seconds that a message may wait: its ``expiration`` (milliseconds, in decimal) or *default*; *most* at
    most.
    """
    if expiration is None:
        return min(default, most)
    if isinstance(expiration, _BYTES):
        expiration = expiration.decode("ascii", "replace")
    if (
        isinstance(expiration, str)
        and expiration.isascii()
        and expiration.isdecimal()
        and len(expiration) <= 12
    ):
        return min(int(expiration) / 1000, most)
    return min(default, most)


def command_answer(shard_id: int) -> bytes:
    """Return the body of the answer to a command that went out: ``{"shard_id": …}``."""
    return b'{"shard_id":%d}' % shard_id
