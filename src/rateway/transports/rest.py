"""What does Discord say over HTTP? The gateway's address and limits, and the application's own switches.

Every answer is a value: what the outside may do is never an exception. Rules: *Gateway: Get Gateway Bot*,
*API Reference: User Agent*, *Rate Limits* of Discord's documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rateway.secret import Secret

__all__ = ["Application", "DiscordRest", "GatewayBot", "RestFailure"]

FALLBACK_GATEWAY = "wss://gateway.discord.gg"


@dataclass(frozen=True, slots=True)
class GatewayBot:
    """The answer of ``GET /gateway/bot``. ``reset_after_ms`` is in milliseconds, as Discord sends it."""

    url: str
    shards: int
    total: int
    remaining: int
    reset_after_ms: int
    max_concurrency: int


@dataclass(frozen=True, slots=True)
class Application:
    """The answer of ``GET /applications/@me``: which privileged intents are switched on."""

    id: int
    name: str
    privileged_intents: int
    """The intents' bits (``GUILD_MEMBERS``, ``GUILD_PRESENCES``, ``MESSAGE_CONTENT``) that are switched on."""


@dataclass(frozen=True, slots=True)
class RestFailure:
    """No usable answer. ``retry_after`` is in seconds, ``None`` when Discord named no time."""

    kind: Literal["unauthorized", "rate_limited", "unavailable", "invalid"]
    text: str
    retry_after: float | None = None
    status: int | None = None


class DiscordRest:
    """A client of the few REST routes that a gateway needs. Use it as an async context manager or ``close()`` it."""

    def __init__(self, api_url: str, token: Secret, user_agent: str | None = None, *, timeout: float = 15.0) -> None:
        raise NotImplementedError

    async def gateway_bot(self) -> GatewayBot | RestFailure:
        """``GET /gateway/bot``, once."""
        raise NotImplementedError

    async def application(self) -> Application | RestFailure:
        """``GET /applications/@me``, once."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the connections."""
        raise NotImplementedError
