"""What is published, before it is cut into frames: what the spool keeps, and what a broken connection sends again."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Publish"]


@dataclass(frozen=True, slots=True)
class Publish:
    """A message and where it goes.

    Routing key, AMQP properties (flags and list), body; free of exchange, channel and frame size.
    """

    key: bytes
    properties: bytes
    body: bytes
