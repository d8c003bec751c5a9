"""A message before it is cut into frames: the spool keeps it so, and a new connection sends it again."""

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
