"""Discord's REST as far as it is simulated, over a world: routes, and what is common to all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from rateway.simulator.world import World
from rateway.simulator.world_dispatch import Dispatch, Json


class GatewayFacts(Protocol):
    """What REST has to know of the gateway beside it; read anew for each request."""

    @property
    def url(self) -> str:
        """`ws://…` base URL for identifying."""
        ...

    @property
    def shards(self) -> int:
        """The recommended number of shards."""
        ...

    @property
    def token(self) -> str | None:
        """The bot's token, without `Bot `; None accepts any."""
        ...

    def session_start_limit(self) -> Json:
        """`total`, `remaining`, `reset_after` (ms), `max_concurrency` as of now."""
        ...


def setup(app: web.Application, world: World, dispatch: Callable[[Dispatch], None], facts: GatewayFacts) -> None:
    """Register `/api/v10/…` (any version), `/simulator/users/…`, `/simulator/world` and `/simulator/unsimulated`.

    `dispatch` is called in order with what each write made happen, before the write is answered.
    Do not register a catch-all below `/api` yourself: what is not simulated is answered 501 here.
    """
    raise NotImplementedError
