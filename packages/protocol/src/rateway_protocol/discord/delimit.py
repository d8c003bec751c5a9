"""Find where a JSON value ends, without judging what is inside it.

A gateway message is taken apart at its top level only; ``d`` is forwarded as the bytes that came, so nothing of it
needs to be sound beyond what shows its end:

- a string ends at the next quote that no backslash precedes; its other bytes may be anything,
- an object or a list ends at its own bracket; strings are passed over, brackets must match, all else may be anything,
- what remains (a number, ``true``, ``null``) is a run of letters, digits, ``+``, ``-`` and ``.``.

Nothing here recurses, and all of it is linear in time. A form in C may take its place (:func:`use`); the gateway has
one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

__all__ = ["after_space", "members", "plain_value_end", "use", "value_end"]

_SPACE = re.compile(rb"[ \t\n\r]*+")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_WORD = re.compile(rb"[-+.0-9A-Za-z]++")
# The next brackets that stand in no string: opening ones, or closing ones.
_BRACKETS = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+(?:([\[{]++)|([\]}]++))', re.DOTALL)
_CLOSING = bytes.maketrans(b"[{", b"]}")


def after_space(text: bytes, at: int) -> int:
    """Return the first place from *at* on that is not white space."""
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def plain_value_end(text: bytes, at: int) -> int:
    """Return where the value that begins at *at* ends; -1 when none begins there, or its end is missing."""
    byte = text[at : at + 1]
    if byte and byte in b"[{":
        return _container_end(text, at)
    found = (_STRING if byte == b'"' else _WORD).match(text, at)
    return -1 if found is None else found.end()


def _container_end(text: bytes, at: int) -> int:
    # The brackets that have to come, the innermost last.
    awaited = bytearray()
    while (found := _BRACKETS.match(text, at)) is not None:
        opening, closing = found.groups()
        at = found.end()
        if opening is not None:
            awaited += opening.translate(_CLOSING)
            continue
        closed = min(len(closing), len(awaited))
        if awaited[: -closed - 1 : -1] != closing[:closed]:
            return -1
        del awaited[-closed:]
        if not awaited:
            return at - len(closing) + closed
    return -1


_find: Callable[[bytes, int], int] = plain_value_end


def value_end(text: bytes, at: int) -> int:
    """Do the same as :func:`plain_value_end`, by the fastest form that is installed."""
    return _find(text, at)


def use(find: Callable[[bytes, int], int]) -> None:
    """Install *find* as that form; it must return the same."""
    global _find
    _find = find


def members(text: bytes, at: int) -> Iterator[tuple[bytes, int, int] | int]:
    """Yield the members of the object that begins at *at*: the key as it is written, without its quotes, and where its
    value begins and ends; last of all the object's own end. That end is missing where the object is not delimited.
    """
    at = after_space(text, at + 1)
    if text[at : at + 1] == b"}":
        yield at + 1
        return
    while True:
        key = _STRING.match(text, at)
        if key is None:
            return
        at = after_space(text, key.end())
        if text[at : at + 1] != b":":
            return
        begin = after_space(text, at + 1)
        end = value_end(text, begin)
        if end < 0:
            return
        yield key[0][1:-1], begin, end
        at = after_space(text, end)
        if text[at : at + 1] == b"}":
            yield at + 1
            return
        if text[at : at + 1] != b",":
            return
        at = after_space(text, at + 1)
