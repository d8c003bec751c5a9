"""The outcome of an operator's request to a running gateway."""

from __future__ import annotations

import msgspec

__all__ = ["Answered"]


class Answered(msgspec.Struct, tag=True, frozen=True):
    """The outcome of a request, in words for a person. ``call`` is its number between processes."""

    done: bool
    words: str
    call: int = 0
