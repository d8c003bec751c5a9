"""Answers to a query or a command that cannot be served (``docs/contract.md``, *Answers*).

With ``reply_to`` every request gets an answer: a body and the header ``status``. An old query, which has a
``return_routing_key`` alone, gets an empty body with ``status`` = ``error`` and the reason in the header ``error``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

__all__ = [
    "ERROR_HEADER",
    "PARTS_HEADER",
    "PART_HEADER",
    "STATUS_HEADER",
    "ErrorCode",
    "Fault",
    "Status",
    "bounded",
    "error_body",
    "error_headers",
]

# A fault may quote what was sent; an answer's header has to fit into a frame (4,096 bytes at least).
MOST_WORDS = 500
STATUS_HEADER = "status"
ERROR_HEADER = "error"
# Of an answer in several messages: the number of this one from 1 on, and on the last one how many there are.
PART_HEADER = "part"
PARTS_HEADER = "parts"


class Status(StrEnum):
    """The header ``status`` of an answer."""

    OK = "ok"
    NOT_FOUND = "not_found"
    ERROR = "error"


class ErrorCode(StrEnum):
    """The kind of an error, for programs. New ones may be added."""

    BAD_JSON = "bad_json"
    """The body is not JSON, or not of the shape that it should have."""
    INVALID = "invalid"
    """Understood, but a value in it is wrong; the message says which."""
    UNKNOWN_TYPE = "unknown_type"
    """A query for a type that there is not."""
    UNKNOWN_OPCODE = "unknown_opcode"
    """A command with an opcode that workers may not send."""
    NO_TARGET = "no_target"
    """Neither ``shard_id`` nor ``guild_id`` in a command's headers; nowhere to answer a query to."""
    NO_SUCH_SHARD = "no_such_shard"
    BAD_KEY = "bad_key"
    """A ``return_routing_key`` that may not be used."""
    TOO_LARGE = "too_large"
    """A command over Discord's 4,096 bytes; a query, or an answer, over the bound."""
    EXPIRED = "expired"
    """Its deadline passed while it waited."""
    QUEUE_FULL = "queue_full"
    SUPERSEDED = "superseded"
    """A newer presence took its place before it was sent."""
    UNAVAILABLE = "unavailable"
    """The shard or the cache cannot serve it now; asking again later may help."""
    CACHE_OFF = "cache_off"
    """The cache, or that kind of entity, is switched off."""
    LOADING = "loading"
    """The guild's shard is still starting."""
    INCOMPLETE = "incomplete"
    """That kind was switched on, or a write failed, after the guild came."""
    ELSEWHERE = "elsewhere"
    """The guild belongs to a shard of another gateway."""
    INTERNAL = "internal"
    """A mistake of the gateway's; its log says more."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A request that cannot be served, as a value: the code for programs, the message for people."""

    code: ErrorCode
    message: str


class _Error(msgspec.Struct):
    code: str
    message: str


class _ErrorBody(msgspec.Struct):
    error: _Error


def bounded(words: str) -> str:
    """Return text that quotes a message, fit to be encoded: not too long, and without half a surrogate pair."""
    if len(words) > MOST_WORDS:
        words = f"{words[:MOST_WORDS]} …"
    return words if words.isascii() else words.encode("utf-8", "replace").decode()


def error_body(fault: Fault) -> bytes:
    """Return ``{"error": {"code": …, "message": …}}``."""
    return msgspec.json.encode(_ErrorBody(_Error(fault.code.value, bounded(fault.message))))


def error_headers(fault: Fault) -> dict[str, str]:
    """Return the headers of a failed answer; for an old query they are all that tells of the failure."""
    return {STATUS_HEADER: Status.ERROR.value, ERROR_HEADER: f"{fault.code.value}: {bounded(fault.message)}"}
