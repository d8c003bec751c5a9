"""The two kinds of routes: an answer for each request, or a stream of events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Answer", "Route", "Stream"]

TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    body: bytes
    content_type: str = TEXT
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """``answer(trusted)`` is called for each request; ``open``: also without the token, then ``trusted`` is false.

    ``probe``: a health probe, which is answered however many others are.
    """

    answer: Callable[[bool], Awaitable[Answer]]
    open: bool = False
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Stream:
    """Server-sent events: ``follow()`` yields them for as long as the visitor stays."""

    follow: Callable[[], AsyncGenerator[bytes, None]]
