"""The messages that steer a session, read leniently: Hello, READY, invalid session and RATE_LIMITED.

Discord documentation, "Gateway Events". Each reader takes the raw ``d`` and answers None where it makes no sense;
none of them raises, whatever the bytes are.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec
from rateway_protocol.discord.envelope import FAILURES
from rateway_protocol.discord.opcodes import Opcode

__all__ = ["Ready", "is_gateway_url", "members_limited", "read_interval", "read_ready", "resumable"]

# A heartbeat every tenth of a second, or one an hour: beyond that Hello is not to be believed.
SHORTEST_INTERVAL, LONGEST_INTERVAL = 0.1, 3600.0
# Longer than Discord would ever make a bot wait.
LONGEST_WAIT = 86_400.0


class Ready(msgspec.Struct):
    """What a session needs of READY. ``resume_gateway_url`` is None when it is no address."""

    session_id: str
    resume_gateway_url: Any = None


class _Hello(msgspec.Struct):
    heartbeat_interval: float


class _Limited(msgspec.Struct):
    opcode: int
    retry_after: float
    meta: dict[str, Any]


_decode_hello = msgspec.json.Decoder(_Hello).decode
_decode_ready = msgspec.json.Decoder(Ready).decode
_decode_limited = msgspec.json.Decoder(_Limited).decode


def read_interval(d: msgspec.Raw) -> float | None:
    """Hello's heartbeat interval in seconds; on the wire it is milliseconds."""
    try:
        interval = _decode_hello(d).heartbeat_interval / 1000
    except FAILURES:
        return None
    return interval if SHORTEST_INTERVAL <= interval <= LONGEST_INTERVAL else None


def read_ready(d: msgspec.Raw) -> Ready | None:
    """READY's session; None when it has no id."""
    try:
        ready = _decode_ready(d)
    except FAILURES:
        return None
    if not is_gateway_url(ready.resume_gateway_url):
        ready.resume_gateway_url = None
    return ready if ready.session_id else None


def resumable(d: msgspec.Raw) -> bool:
    """Whether an invalid session may be resumed all the same: ``d`` is a bare boolean, and only ``true`` means it."""
    return bytes(d).strip() == b"true"


def members_limited(d: msgspec.Raw) -> tuple[int, float] | None:
    """The guild and the seconds to wait, when a RATE_LIMITED is about a request for guild members.

    ``retry_after`` is seconds, unlike other durations; the guild stands in ``meta``, not in ``d`` itself.
    """
    try:
        limited = _decode_limited(d)
        guild_id = int(limited.meta["guild_id"])
    except (*FAILURES, KeyError, TypeError, ValueError):
        return None
    if limited.opcode != Opcode.REQUEST_GUILD_MEMBERS or not 0 <= limited.retry_after <= LONGEST_WAIT:
        return None
    return guild_id, limited.retry_after


def is_gateway_url(url: object) -> bool:
    """Whether *url* is an address that can be dialled: ws or wss, with a host."""
    if not isinstance(url, str) or not url.isprintable():
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("ws", "wss") and bool(parts.hostname)
