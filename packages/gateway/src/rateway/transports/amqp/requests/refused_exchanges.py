"""Exchanges that the broker refuses, and until when they are not asked for again.

A refusal closes the channel that asked, and costs all that is under way on it: an exchange of another kind with that
name, or a user without the right, is a person's to change.
"""

from __future__ import annotations

import asyncio
from typing import Final

from rateway.transports.amqp.wire.channel import ChannelClosed

__all__ = ["REFUSED_S", "RefusedExchanges", "is_named"]

# So long an exchange that was refused is not asked for again, seconds.
REFUSED_S: Final = 15.0


class RefusedExchanges:
    """What one asker was refused. Needs a running event loop."""

    def __init__(self) -> None:
        # By name: until when (the loop's time), and why.
        self._refused: dict[str, tuple[float, str]] = {}

    def note(self, exchange: str, closed: ChannelClosed) -> str:
        """Note a refusal; why, in words."""
        why = f"the broker refuses {exchange}: {closed}"
        self._refused[exchange] = asyncio.get_running_loop().time() + REFUSED_S, why
        return why

    def why(self, exchange: str) -> str:
        """Return why it is not asked for now; empty when it may be."""
        until, why = self._refused.get(exchange, (0.0, ""))
        return why if asyncio.get_running_loop().time() < until else ""


def is_named(exchange: str, closed: ChannelClosed) -> bool:
    """Whether the broker closed the channel over this exchange."""
    return f"'{exchange}'" in closed.text
