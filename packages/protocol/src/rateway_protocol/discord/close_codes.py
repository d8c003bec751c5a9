"""The meaning of Discord's close codes for the session: a table, and a verdict for codes that are not in it.

Codes 4000–4014 are from Discord's documentation ("Opcodes and Status Codes": "Gateway Close Event Codes"), which also
says which of them a client may reconnect after. 4006 is a legacy code, 1000–1015 are RFC 6455's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

__all__ = ["CLOSE_CODES", "END_SESSION", "KEEP_SESSION", "CloseCode", "Verdict", "close_code"]

# Any private code from 3000 to 4999 leaves the session to be resumed; no library uses this one.
KEEP_SESSION = 4900
# "Closing with 1000 or 1001 ends the session": the bot goes offline at once.
END_SESSION = 1000


class Verdict(Enum):
    """The consequence of a close: keep the session, keep it for one attempt, drop it, or stop."""

    RESUME = "resume"
    RESUME_ONCE = "resume_once"
    """Resume; if the same refusal answers the resume, identify."""
    IDENTIFY = "identify"
    FATAL = "fatal"
    """Reconnecting cannot help: a person has to change something."""


@dataclass(frozen=True, slots=True)
class CloseCode:
    """One close code. ``help`` says to a person what to change, for fatal codes; empty otherwise."""

    code: int | None
    name: str
    meaning: str
    verdict: Verdict
    help: str = ""


_R, _ONCE, _I, _F = Verdict.RESUME, Verdict.RESUME_ONCE, Verdict.IDENTIFY, Verdict.FATAL

_PORTAL = "https://discord.com/developers/applications"

_TABLE = (
    # The "1000 ends the session" rule is for closes that we send; from the server most clients resume with success.
    CloseCode(1000, "NORMAL_CLOSURE", "the server closed normally", _ONCE),
    CloseCode(1001, "GOING_AWAY", "the server or something between is shutting down", _R),
    CloseCode(1005, "NO_STATUS", "closed without a code", _R),
    CloseCode(1006, "ABNORMAL", "the connection broke", _R),
    CloseCode(1009, "MESSAGE_TOO_BIG", "a message was larger than max_message_bytes", _R),
    CloseCode(1011, "INTERNAL_ERROR", "the server met an error", _R),
    CloseCode(1012, "SERVICE_RESTART", "the server restarts", _R),
    CloseCode(1013, "TRY_AGAIN_LATER", "the server is overloaded", _R),
    CloseCode(1014, "BAD_GATEWAY", "a proxy on Discord's side met an error", _R),
    CloseCode(1015, "TLS_FAILURE", "the TLS connection broke", _R),
    CloseCode(4000, "UNKNOWN_ERROR", "Discord is not sure what went wrong", _R),
    CloseCode(4001, "UNKNOWN_OPCODE", "an opcode or a payload for it that Discord does not know", _R),
    CloseCode(4002, "DECODE_ERROR", "a payload that Discord could not read", _R),
    # Also closes a running session whose intents were revoked; the identify that follows then gets 4014.
    CloseCode(4003, "NOT_AUTHENTICATED", "a payload before identify, or the session was invalidated", _I),
    CloseCode(
        4004,
        "AUTHENTICATION_FAILED",
        "Discord does not know the token",
        _F,
        "the token (DISCORD_TOKEN, `token` in the file) is wrong or was reset: copy the current one from the page"
        f" Bot of your application at {_PORTAL}",
    ),
    CloseCode(4005, "ALREADY_AUTHENTICATED", "more than one identify on a connection", _R),
    CloseCode(4006, "SESSION_NO_LONGER_VALID", "the session is not valid (a legacy code)", _I),
    CloseCode(4007, "INVALID_SEQ", "the sequence of the resume was not valid", _I),
    CloseCode(4008, "RATE_LIMITED", "payloads were sent too quickly", _R),
    CloseCode(4009, "SESSION_TIMED_OUT", "the session timed out", _I),
    CloseCode(
        4010,
        "INVALID_SHARD",
        "the shard's number or the total of shards is not valid",
        _F,
        "check SHARDS (`shards.total`) and EXTRA_SHARDS (`shards.extra`): for a very large bot the total must be a"
        " multiple of the number that Discord has set; without SHARDS the gateway asks Discord for it",
    ),
    CloseCode(
        4011,
        "SHARDING_REQUIRED",
        "the shard would hold more than 2500 guilds",
        _F,
        "the total of shards is too small: remove SHARDS (`shards.total`) so that Discord's recommendation is used,"
        " or raise it, and start with RESHARD=1",
    ),
    CloseCode(
        4012,
        "INVALID_API_VERSION",
        "Discord no longer speaks this version of the gateway",
        _F,
        "check DISCORD_API_URL (`api_url`); if it is the default, this rateway is too old: update it",
    ),
    CloseCode(
        4013,
        "INVALID_INTENTS",
        "the intents have a bit that Discord does not know",
        _F,
        "check INTENTS (`intents`): write names instead of a number, they are checked when the gateway starts",
    ),
    CloseCode(
        4014,
        "DISALLOWED_INTENTS",
        "a privileged intent is asked for that is not switched on",
        _F,
        "INTENTS (`intents`) has GUILD_MEMBERS, GUILD_PRESENCES or MESSAGE_CONTENT: switch them on under Privileged"
        f" Gateway Intents on the page Bot of your application at {_PORTAL}, or take them out of INTENTS",
    ),
)

CLOSE_CODES: Mapping[int, CloseCode] = MappingProxyType(
    {row.code: row for row in _TABLE if row.code is not None}
)

_NO_CODE = CloseCode(None, "CONNECTION_LOST", "the connection was lost", Verdict.RESUME)


def close_code(code: int | None) -> CloseCode:
    """Return the row of *code*; ``None`` is a connection that ended without a close frame. Never raises.

    An unknown 4xxx is tried with one resume, then a new session; any other unknown code is a lost connection.
    """
    if code is None:
        return _NO_CODE
    known = CLOSE_CODES.get(code)
    if known is not None:
        return known
    if 4000 <= code <= 4999:
        return CloseCode(code, "UNKNOWN", "an undocumented close code", Verdict.RESUME_ONCE)
    return CloseCode(code, "UNKNOWN", "a close code that is not Discord's", Verdict.RESUME)
