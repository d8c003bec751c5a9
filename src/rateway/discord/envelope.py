"""What is in a gateway message: its opcode, number and name, with ``d`` left as the bytes that came.

Decoding is done in two steps, because ``d`` is forwarded and only seldom read (Discord documentation, "Gateway
Events": "Payload Structure"). Keys may come in any order; unknown keys are skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["Envelope", "EnvelopeError", "NotAnEnvelope", "decode", "decode_all", "decode_fast", "split"]


class EnvelopeError(ValueError):
    """The bytes are not one JSON document, or not an object."""


class NotAnEnvelope(EnvelopeError):
    """Sound JSON, but not an object with a numeric ``op``: to be ignored, the connection is sound."""


class Envelope(msgspec.Struct, gc=False):
    """One gateway message. ``s`` and ``t`` are set on dispatches only; ``d`` is raw JSON (``null`` when absent)."""

    op: int
    d: msgspec.Raw = msgspec.Raw(b"null")
    s: int | None = None
    t: str | None = None


class _Loose(msgspec.Struct):
    op: Any = None
    d: msgspec.Raw = msgspec.Raw(b"null")
    s: Any = None
    t: Any = None


FAILURES = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What ``decode_fast`` may raise, whatever the bytes are."""

decode_fast: Callable[[bytes | memoryview], Envelope] = msgspec.json.Decoder(Envelope).decode
"""The decoder itself, for the hot path: raises one of ``FAILURES``."""

_decode_loose = msgspec.json.Decoder(_Loose).decode


def decode(message: bytes | memoryview) -> Envelope:
    """The envelope of one JSON document. Fields of a wrong type count as absent: a number or name that is odd never
    costs an event. ``op`` must be a whole number. Raises EnvelopeError; NotAnEnvelope when the JSON is sound.
    """
    try:
        return decode_fast(message)
    except FAILURES:
        pass
    try:
        loose = _decode_loose(message)
    except msgspec.ValidationError as error:
        raise NotAnEnvelope(str(error)) from None
    except FAILURES as error:
        raise EnvelopeError(str(error)) from None
    if not _whole(loose.op):
        raise NotAnEnvelope("op is not a whole number")
    return Envelope(
        int(loose.op),
        loose.d,
        int(loose.s) if _whole(loose.s) else None,
        loose.t if isinstance(loose.t, str) else None,
    )


def _whole(value: object) -> bool:
    return not isinstance(value, bool) and (
        isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    )


_json = json.JSONDecoder()
_space = re.compile(r"[ \t\r\n]*")


def split(message: bytes | memoryview) -> list[bytes]:
    """The JSON documents that stand one after another in *message*. Raises EnvelopeError.

    For the rare message that holds several; a message of one document needs no splitting.
    """
    try:
        # Bytes that are not UTF-8 inside ``d`` are forwarded as they came.
        text = bytes(message).decode("utf-8", "surrogateescape")
        at = _end_of_space(text, 0)
        documents = []
        while at < len(text):
            _, end = _json.raw_decode(text, at)
            documents.append(text[at:end].encode("utf-8", "surrogateescape"))
            at = _end_of_space(text, end)
    except (ValueError, RecursionError) as error:
        raise EnvelopeError(str(error)) from None
    return documents


def _end_of_space(text: str, at: int) -> int:
    space = _space.match(text, at)
    return at if space is None else space.end()


def decode_all(message: bytes | memoryview) -> list[Envelope | NotAnEnvelope]:
    """Everything in *message*, in order: its envelopes, and for sound JSON that is none an error that says why.

    Raises EnvelopeError when a part of it is not JSON: nothing of a broken message is used.
    """
    found: list[Envelope | NotAnEnvelope] = []
    for document in split(message):
        try:
            found.append(decode(document))
        except NotAnEnvelope as error:
            found.append(error)
    return found
