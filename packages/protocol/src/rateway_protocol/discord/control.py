"""The messages that steer a session, read leniently: Hello, READY, invalid session and RATE_LIMITED.

Discord documentation, "Gateway Events". Each reader takes the raw ``d`` and answers None where it makes no sense;
none of them raises, whatever the bytes are. What a reader does not need is not judged: an odd value beside costs
nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from rateway_protocol.discord.command_forms import is_snowflake
from rateway_protocol.discord.delimit import after_space, members
from rateway_protocol.discord.envelope import FAILURES
from rateway_protocol.discord.hosts import is_host_name
from rateway_protocol.discord.opcodes import Opcode

__all__ = ["Ready", "is_gateway_url", "members_limited", "read_interval", "read_ready", "resumable"]

# A heartbeat every tenth of a second, or one an hour: beyond that Hello is not to be believed.
SHORTEST_INTERVAL, LONGEST_INTERVAL = 0.1, 3600.0
# Longer than Discord would ever make a bot wait.
LONGEST_WAIT = 86_400.0


class Ready(msgspec.Struct):
    """The part of READY that a session needs. ``resume_gateway_url`` is None when it is no address."""

    session_id: str
    resume_gateway_url: Any = None


class _Hello(msgspec.Struct):
    heartbeat_interval: float


class _Limited(msgspec.Struct):
    opcode: int
    retry_after: float
    meta: dict[str, Any]


_Kind = TypeVar("_Kind", bound=msgspec.Struct)


@functools.cache
def _decoder(kind: type[_Kind]) -> msgspec.json.Decoder[_Kind]:
    return msgspec.json.Decoder(kind)


def _read(kind: type[_Kind], d: msgspec.Raw) -> _Kind | None:
    """Return the fields of *kind* in *d*. Where *d* is delimited and no sound JSON (a lone surrogate in a name, say),
    its fields are read one by one, and what is odd beside them does not count.
    """
    decode: Callable[[bytes | msgspec.Raw], _Kind] = _decoder(kind).decode
    try:
        return decode(d)
    except FAILURES:
        pass
    names = {name.encode() for name in kind.__struct_encode_fields__}
    try:
        return decode(b"{%b}" % b",".join(_sound_members(bytes(d), names)))
    except FAILURES:
        return None


def _sound_members(text: bytes, names: set[bytes]) -> list[bytes]:
    """Return the members of an object that have these names and are JSON, as they are written."""
    at = after_space(text, 0)
    found = []
    for member in members(text, at) if text[at : at + 1] == b"{" else ():
        if isinstance(member, int) or member[0] not in names:
            continue
        key, begin, end = member
        try:
            msgspec.json.decode(text[begin:end])
        except FAILURES:
            continue
        found.append(b'"%b":%b' % (key, text[begin:end]))
    return found


def read_interval(d: msgspec.Raw) -> float | None:
    """Return Hello's heartbeat interval in seconds; on the wire it is milliseconds."""
    hello = _read(_Hello, d)
    if hello is None:
        return None
    interval = hello.heartbeat_interval / 1000
    return interval if SHORTEST_INTERVAL <= interval <= LONGEST_INTERVAL else None


def read_ready(d: msgspec.Raw) -> Ready | None:
    """Return READY's session; None when it has no id."""
    ready = _read(Ready, d)
    if ready is None or not ready.session_id:
        return None
    if not is_gateway_url(ready.resume_gateway_url):
        ready.resume_gateway_url = None
    return ready


def resumable(d: msgspec.Raw) -> bool:
    """Return whether a session that was declared invalid may be resumed: ``d`` is a bare boolean, and only ``true``
    means it.
    """
    return bytes(d).strip() == b"true"


def members_limited(d: msgspec.Raw) -> tuple[int, float] | None:
    """Return the guild and the seconds to wait, when a RATE_LIMITED is about a request for guild members.

    ``retry_after`` is seconds, unlike other durations; the guild stands in ``meta``, not in ``d`` itself.
    """
    limited = _read(_Limited, d)
    if (
        limited is None
        or limited.opcode != Opcode.REQUEST_GUILD_MEMBERS
        or not 0 <= limited.retry_after <= LONGEST_WAIT
    ):
        return None
    guild_id = limited.meta.get("guild_id")
    text = str(guild_id) if type(guild_id) in (int, str) else ""
    return (int(text), limited.retry_after) if is_snowflake(text) else None


def is_gateway_url(url: object) -> bool:
    """Return whether *url* is an address that can be dialled: ws or wss, with a host's name that can be looked up."""
    if not isinstance(url, str) or not url.isprintable():
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("ws", "wss") and is_host_name(parts.hostname or "")
