"""Read a gateway message: its opcode, number and name, with ``d`` left as the bytes that came.

Decoding is done in two steps, because ``d`` is forwarded and only seldom read (Discord documentation, "Gateway Events":
"Payload Structure"). Keys may come in any order; unknown keys are skipped. What the fast decoder refuses is taken apart
by ``delimit.py``, which judges nothing inside ``d``: a message is refused only where its end cannot be found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
from rateway_protocol.discord.delimit import after_space, members, value_end

__all__ = [
    "Envelope", "EnvelopeError", "NotAnEnvelope", "UnreadableDispatch", "decode", "decode_all", "decode_fast", "split",
]  # fmt: skip

# A message of Discord's holds one document, rarely a few. More of them are an attack on the time that each one takes.
MOST_DOCUMENTS = 1000
# Digits of a number that may be an opcode or a sequence; a longer one is none, and not worth its conversion.
MOST_DIGITS = 30
# A name as it is written, escapes included, of which a routing key can be made at all (255 bytes).
MOST_NAME_BYTES = 6 * 255


class EnvelopeError(ValueError):
    """The bytes are not one delimited document."""


class NotAnEnvelope(EnvelopeError):
    """A document, but not an object with a numeric ``op``: to be ignored, the connection is sound."""


class Envelope(msgspec.Struct, gc=False):
    """One gateway message. ``s`` and ``t`` are set on dispatches only; ``d`` is raw JSON (``null`` when absent)."""

    op: int
    d: msgspec.Raw = msgspec.Raw(b"null")
    s: int | None = None
    t: str | None = None


class UnreadableDispatch(Envelope, gc=False):
    """A dispatch that has a place in its session but cannot be forwarded: ``t`` is empty, ``why`` is the reason."""

    why: str = ""


FAILURES = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The exceptions that ``decode_fast`` may raise for any bytes."""

decode_fast: Callable[[bytes | memoryview], Envelope] = msgspec.json.Decoder(Envelope).decode
"""The decoder itself, for the hot path: raises one of ``FAILURES``."""

_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_LITERALS = frozenset({b"true", b"false", b"null"})


def decode(message: bytes | memoryview) -> Envelope:
    """Return the envelope of one document. Fields of a wrong type count as absent: a number or name that is odd never
    costs an event. ``op`` must be a whole number. Raises EnvelopeError; NotAnEnvelope when it is a document.
    """
    try:
        return decode_fast(message)
    except FAILURES:
        pass
    text = bytes(message)
    begin = after_space(text, 0)
    end, found = _read(text, begin)
    if after_space(text, end) != len(text):
        raise EnvelopeError("something follows the document")
    if isinstance(found, NotAnEnvelope):
        raise found
    return found


def decode_all(message: bytes | memoryview) -> list[Envelope | NotAnEnvelope]:
    """Return everything in *message*, in order: its envelopes, and for a document that is none an error that says why.

    Raises EnvelopeError when a part of it is not delimited: nothing of a broken message is used.
    """
    text = bytes(message)
    found: list[Envelope | NotAnEnvelope] = []
    at = after_space(text, 0)
    while at < len(text):
        at, each = _read(text, at)
        found.append(each)
        if len(found) > MOST_DOCUMENTS:
            raise EnvelopeError(f"more than {MOST_DOCUMENTS} documents in a message")
        at = after_space(text, at)
    return found


def split(message: bytes | memoryview) -> list[bytes]:
    """Return the documents that stand one after another in *message*. Raises EnvelopeError.

    For the rare message that holds several; a message of one document needs no splitting.
    """
    text = bytes(message)
    documents = []
    at = after_space(text, 0)
    while at < len(text):
        end, _ = _read(text, at)
        documents.append(text[at:end])
        at = after_space(text, end)
    return documents


def _read(text: bytes, at: int) -> tuple[int, Envelope | NotAnEnvelope]:
    """Return where the document that begins at *at* ends, and what it is. Raises EnvelopeError when it has no end."""
    if text[at : at + 1] != b"{":
        return _end_of_other(text, at), NotAnEnvelope("it is not an object")
    spans: dict[bytes, tuple[int, int]] = {}
    for member in members(text, at):
        if isinstance(member, int):
            return member, _envelope(text, spans)
        key, begin, end = member
        if b"\\" in key and len(key) <= MOST_NAME_BYTES:
            key = _plain(key)
        if key in _KEYS:
            spans[key] = begin, end
    raise EnvelopeError("an object without an end")


_KEYS = frozenset({b"op", b"d", b"s", b"t"})


def _plain(key: bytes) -> bytes:
    """Return a key without its escapes; as it is written where they cannot be read."""
    try:
        return _text(b'"' + key + b'"').encode("utf-8", "surrogatepass")
    except ValueError:
        return key


def _end_of_other(text: bytes, at: int) -> int:
    # The end of a bare number or word is not marked: only a valid one differs from garbage.
    end = value_end(text, at)
    sound = end >= 0 and (
        text[at : at + 1] in (b'"', b"[") or _NUMBER.fullmatch(text, at, end) or text[at:end] in _LITERALS
    )
    if not sound:
        raise EnvelopeError("no document begins here")
    return end


def _envelope(text: bytes, spans: dict[bytes, tuple[int, int]]) -> Envelope | NotAnEnvelope:
    def written(key: bytes) -> bytes:
        begin, end = spans.get(key, (0, 0))
        return text[begin:end]

    op, s = _whole(written(b"op")), _whole(written(b"s"))
    d = msgspec.Raw(written(b"d") or b"null")
    if op is None:
        if s is None or s < 1:
            return NotAnEnvelope("its op is not a whole number")
        # It has a place in the session, and comes again unless it is passed over.
        return UnreadableDispatch(0, d, s, "", "its op is not a whole number")
    name = written(b"t")
    if name[:1] != b'"':
        return Envelope(op, d, s, None)
    if len(name) > MOST_NAME_BYTES + 2:
        return UnreadableDispatch(op, d, s, "", "its name is longer than a routing key may be")
    try:
        known = _text(name)
        known.encode()
    except UnicodeError:
        return UnreadableDispatch(op, d, s, "", "its name is not UTF-8")
    except ValueError:
        return UnreadableDispatch(op, d, s, "", "its name cannot be read")
    return Envelope(op, d, s, known)


def _whole(written: bytes) -> int | None:
    """Return a whole number, ``7.0`` included; None for everything else."""
    if len(written) > MOST_DIGITS:
        return None
    number = _NUMBER.fullmatch(written)
    if number is None:
        return None
    if number[1] is None and number[2] is None:
        return int(written)
    value = float(written)
    return int(value) if value.is_integer() else None


def _text(quoted: bytes) -> str:
    """Return a string of JSON. Raises ValueError, UnicodeError among them."""
    text: Any = json.loads(quoted.decode(), strict=False)
    return str(text)
