"""What sessions need to know of the gateway: layout, shards and guilds. What it cannot tell yet is waited for."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from rateway.backoff import Backoff
from rateway.delivery.proxy_port import Gateway
from rateway_protocol.contract.errors import Fault
from rateway_protocol.contract.snapshots import ClusterList, GuildOfShard, GuildSnapshot, ShardSnapshot

__all__ = ["GatewayState", "GuildState"]

logger = logging.getLogger(__name__)

# Shards that are asked for at once.
SHARDS_AT_ONCE: Final = 16
# Seconds for which a layout is believed.
LAYOUT_AGE: Final = 10.0
# Seconds between questions that are asked again.
BACKOFF: Final = Backoff(0.25, 5.0)

GuildState: TypeAlias = GuildSnapshot | Literal["unavailable", "gone"]
"""A guild; ``gone`` has been left since its shard was read."""


class GatewayState:
    """Ask the gateway, and wait for what it cannot answer yet. *on_layout* is called with each layout."""

    def __init__(
        self, gateway: Gateway, clock: Callable[[], float], on_layout: Callable[[ClusterList], None]
    ) -> None:
        self._gateway = gateway
        self._clock = clock
        self._on_layout = on_layout
        self._layout: ClusterList | None = None
        self._layout_at = 0.0
        self._asking = asyncio.Lock()
        # Of each shard that was asked for: who asks for all that wait for it, and when it was told.
        self._asking_shard: dict[int, asyncio.Lock] = {}
        self._told_at: dict[int, float] = {}
        self._said = ""

    def doubt(self) -> None:
        """Ask for the layout again before it is used."""
        self._layout_at = self._clock() - LAYOUT_AGE

    async def layout(self) -> ClusterList | Fault:
        """Return the layout, some seconds old at most; asked once for all who want it."""
        async with self._asking:
            if self._layout is not None and self._clock() - self._layout_at < LAYOUT_AGE:
                return self._layout
            layout = await self._gateway.clusters()
            if not isinstance(layout, Fault):
                self._layout, self._layout_at = layout, self._clock()
                self._on_layout(layout)
            return layout

    async def layout_within(self, seconds: float) -> ClusterList | None:
        """Return the layout, the last one known where the gateway does not answer in time; None where there is
        none."""
        try:
            async with asyncio.timeout(seconds):
                layout = await self.layout()
        except TimeoutError:
            return self._layout
        return self._layout if isinstance(layout, Fault) else layout

    async def known_layout(self) -> ClusterList:
        """Wait for the layout."""
        failures = 0
        while isinstance(layout := await self.layout(), Fault):
            await self._wait(f"the gateway does not answer ({layout.message})", failures)
            failures += 1
        return layout

    async def logs_of(self, shards: Sequence[int]) -> dict[str, list[int]]:
        """Wait until the clusters of these shards have event logs; return the logs, each with its shards."""
        for failures in itertools.count():
            layout = await self.known_layout()
            logs: dict[str, list[int]] = {}
            for row in layout.clusters:
                here = [shard_id for shard_id in row.shards if shard_id in shards]
                if here and row.log is not None:
                    logs[row.log] = here
            if sum(map(len, logs.values())) == len(shards):
                break
            await self._wait("a cluster has no event log yet (EVENT_LOG)", failures)
            self.doubt()
        return logs

    async def shards(self, shards: Sequence[int]) -> list[ShardSnapshot]:
        """Wait until the gateway tells of these shards; return them in this order."""
        found: list[ShardSnapshot] = []
        for begin in range(0, len(shards), SHARDS_AT_ONCE):
            found += await asyncio.gather(*map(self.shard, shards[begin : begin + SHARDS_AT_ONCE]))
        return found

    async def shard(self, shard_id: int) -> ShardSnapshot:
        """Wait until the gateway tells of a shard."""
        failures = 0
        while isinstance(found := await self._gateway.shard(shard_id), Fault):
            await self._wait(f"the gateway does not tell of shard {shard_id} ({found.message})", failures)
            failures += 1
        self._told_at[shard_id] = self._clock()
        return found

    async def when_told(self, shards: Sequence[int]) -> None:
        """Wait until the gateway tells of these shards; each is asked for once for all that wait for it."""
        for begin in range(0, len(shards), SHARDS_AT_ONCE):
            await asyncio.gather(*map(self._when_told, shards[begin : begin + SHARDS_AT_ONCE]))

    async def _when_told(self, shard_id: int) -> None:
        since = self._clock()
        async with self._asking_shard.setdefault(shard_id, asyncio.Lock()):
            if self._told_at.get(shard_id, -math.inf) < since:
                await self.shard(shard_id)

    async def guilds(
        self, shard_id: int, guilds: Sequence[GuildOfShard], intents: int, large_threshold: int
    ) -> list[GuildState]:
        """Return guilds of a shard, in this order. What cannot be told is asked for again."""
        found: dict[str, GuildState] = {guild.id: "unavailable" for guild in guilds if guild.unavailable}
        for failures in itertools.count():
            wanted = [guild.id for guild in guilds if guild.id not in found]
            if not wanted:
                break
            answers = await self._gateway.guilds([int(each) for each in wanted], intents, large_threshold)
            found |= {
                guild_id: answer
                for guild_id, answer in zip(wanted, answers, strict=True)
                if not isinstance(answer, Fault)
            }
            faults = [guild_id for guild_id in wanted if guild_id not in found]
            if not faults:
                break
            # It was left, or went into an outage: the shard's list says which.
            listed = {each.id: each.unavailable for each in (await self.shard(shard_id)).guilds}
            for guild_id in faults:
                if listed.get(guild_id, True):
                    found[guild_id] = "unavailable" if guild_id in listed else "gone"
            if any(guild_id not in found for guild_id in faults):
                await self._wait(f"guilds of shard {shard_id} cannot be read from the cache", failures)
        return [found[guild.id] for guild in guilds]

    async def _wait(self, why: str, failures: int) -> None:
        if why != self._said:
            self._said = why
            logger.warning("bots wait for the gateway: %s", why, extra={"action": "proxy"})
        await asyncio.sleep(BACKOFF.delay(failures))
