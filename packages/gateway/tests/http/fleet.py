"""A gateway that only says how it is: a status source whose shards, broker and processes a test moves by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from rateway.runtime.monitoring.http_views import HttpViews
from rateway.runtime.monitoring.status import (
    BudgetStatus,
    ClusterStatus,
    EventLogStatus,
    GatewayStatus,
    LeftoversStatus,
    ProcessStatus,
    PublisherStatus,
    ShardStatus,
)
from rateway.secret import Secret
from rateway.transports.http.server import HttpServer, Limits
from rateway.transports.proxy_line import BotRow, ProxyStatus

# How many of all events were confirmed within so many seconds.
EDGES = {0.00025: 0.1, 0.0005: 0.5, 0.001: 0.8, 0.002: 0.95, 0.004: 0.994, 0.008: 0.999}


class Fleet:
    """``shards`` and ``publishers`` hold fields that differ from a healthy gateway's; ``status`` is the port."""

    def __init__(self, shards: int = 16, per_cluster: int = 8) -> None:
        self.count = shards
        self.per_cluster = per_cluster
        self.state = "running"
        self.began = time.monotonic() - 86_400
        self.rate = 400.0
        """Events a second, of all shards together."""
        self._events = 0.0
        self._counted_at = time.monotonic()
        self.shards: dict[int, dict[str, Any]] = {}
        self.publishers: dict[int, dict[str, Any]] = {}
        self.clusters: dict[int, dict[str, Any]] = {}
        self.more: dict[str, Any] = {}
        """Fields of the whole status."""
        self.processes = 1
        self.process: dict[str, Any] = {}
        self.silent: frozenset[int] = frozenset()
        """Workers, by number, that do not answer: what they run is missing from the status."""
        self.wants_proxy = True
        self.proxy: ProxyStatus | None = ProxyStatus(
            pid=4242,
            address="127.0.0.1:7878",
            connections=2,
            bots=[
                BotRow("discord.py", 0, 2, "live", 7200.0, 0, 0, 0, 48_000),
                BotRow("hikari", 1, 2, "resuming", 3.0, 812, 14, 4096, 100),
            ],
            states={"live": 1, "resuming": 1},
            identifies=2,
            resumes=5,
            refused=1,
            sent=96_000,
            replayed=900,
            closes={"4004": 1},
            turned_away={"slow": 1},
            rest={"passed": 300, "answered": 2},
            cpu_s=12.0,
            memory_bytes=80_000_000,
            notes=[],
        )
        self.asked = 0
        self.hang: asyncio.Event | None = None

    def advance(self, events: float) -> None:
        """So many more events, at once."""
        self._events += events

    async def status(self) -> GatewayStatus:
        """All of it."""
        self.asked += 1
        if self.hang is not None:
            await self.hang.wait()
        now = time.monotonic()
        self._events += (now - self._counted_at) * self.rate
        self._counted_at = now
        numbers = range(1, -(-self.count // self.per_cluster) + 1)
        processes = self._processes(list(numbers))
        away = {number for process in processes if self._silent(process) for number in process.clusters}
        healthy = GatewayStatus(
            version="0.3.0",
            state=self.state,
            uptime_s=now - self.began,
            shard_count=self.count,
            clusters=[self._cluster(number) for number in numbers if number not in away],
            shards=[
                self._shard(shard, now)
                for shard in range(self.count)
                if shard // self.per_cluster + 1 not in away
            ],
            processes=[process for process in processes if not self._silent(process)],
            budget=BudgetStatus(1000, 1000 - self.count, 40_000.0, 16, self.count),
            proxy=self.proxy,
            wants_proxy=self.wants_proxy,
            notes=[],
        )
        return msgspec.structs.replace(healthy, **self.more)

    def _silent(self, process: ProcessStatus) -> bool:
        return process.role in {f"runner {number}" for number in self.silent}

    def _shard(self, shard: int, now: float) -> ShardStatus:
        received = int(34_000_000 / self.count + self._events / self.count) + shard
        healthy = ShardStatus(
            shard=shard,
            cluster=shard // self.per_cluster + 1,
            state="live",
            since_s=now - self.began - 10,
            why="",
            session=f"{shard:08x}c0ffee",
            received=received,
            settled=received - shard % 3,
            latency_ms=38.0 + shard * 7 % 23,
            closes={},
            last_close=None,
            resumes_tried=0,
            resumes_succeeded=0,
            identifies=1,
            waiting_commands=0,
            bytes_in=received * 210,
            bytes_inflated=received * 1600,
        )
        return msgspec.structs.replace(healthy, **self.shards.get(shard, {}))

    def _cluster(self, number: int) -> ClusterStatus:
        first = (number - 1) * self.per_cluster
        shards = range(first, min(self.count, first + self.per_cluster))
        received = int((34_000_000 + self._events) * len(shards) / self.count)
        publisher = PublisherStatus(
            connected=True,
            blocked=False,
            why="",
            paused=False,
            published=received,
            confirmed=received - 2,
            nacked=0,
            republished=0,
            unconfirmed=2,
            unconfirmed_bytes=3000,
            lag_s=0.002,
            oldest="MESSAGE_CREATE",
            spool_events=0,
            spool_bytes=0,
            unrouted=[],
            bytes_out=received * 1700,
            latency_p50_ms=1.0,
            latency_p99_ms=4.0,
            latency_buckets={
                **{f"{edge:g}": int(share * (received - 2)) for edge, share in EDGES.items()},
                "+Inf": received - 2,
            },
            written_buckets={"0.001": received - 1, "+Inf": received},
        )
        healthy = ClusterStatus(
            cluster=number,
            exchange=f"rateway-{number}",
            owned=True,
            shards_ready=len(shards),
            shards=len(shards),
            events={"MESSAGE_CREATE": received - 12, "GUILD_CREATE": 10, "NOBODY_KNOWS_IT": 2},
            received=received,
            replayed=0,
            filtered=0,
            gaps=0,
            commands={"sent": 3, "expired": 1},
            queries={"ok": 5, "not_found": 1},
            publisher=msgspec.structs.replace(publisher, **self.publishers.get(number, {})),
            cache={"guilds": 210, "members": 52_000, "messages": 0, "disk_bytes": 9_400_000},
            store="ok",
            query_kinds={"Guild ok": 5, "Member not_found": 1},
            refused_messages={"properties_too_large": 2},
            query_buckets={"0.001": 5, "+Inf": 6},
            query_seconds=0.01,
            leftovers=LeftoversStatus(0, 7, 1) if "fleet" in self.more else None,
            event_log=EventLogStatus("kept", 86_000.0, f"rateway-log-{number}-5ca1ab1e", "", 1, 84),
        )
        return msgspec.structs.replace(healthy, **self.clusters.get(number, {}))

    def _processes(self, clusters: list[int]) -> list[ProcessStatus]:
        def one(number: int, role: str, share: list[int]) -> ProcessStatus:
            found = ProcessStatus(4000 + number, role, share, 812.4, 61_000_000, 0.4, 86_390.0)
            return msgspec.structs.replace(found, **self.process)

        if self.processes == 1:
            return [one(0, "gateway", clusters)]
        size = -(-len(clusters) // self.processes)
        shares = [clusters[i * size : (i + 1) * size] for i in range(self.processes)]
        return [
            one(0, "supervisor", []),
            *(one(i, f"runner {i}", share) for i, share in enumerate(shares, 1)),
        ]


@asynccontextmanager
async def served(
    fleet: Fleet,
    *,
    token: str | None = None,
    limits: Limits | None = None,
    port: int = 0,
    before: Callable[[HttpViews, Fleet], Awaitable[None]] | None = None,
) -> AsyncIterator[tuple[int, HttpViews]]:
    """The server over this fleet on a free port of loopback: (port, its views)."""
    http_views = HttpViews(fleet, patience_s=180.0)
    if before is not None:
        await before(http_views, fleet)
    secret = Secret(token) if token is not None else None
    server = HttpServer(f"127.0.0.1:{port}", secret, http_views.routes(), limits)
    bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    tasks = [asyncio.create_task(server.run(bound.set_result)), asyncio.create_task(http_views.run())]
    try:
        yield await bound, http_views
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    """Status and body of one request."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}", headers=named) as answer,
    ):
        return answer.status, await answer.text()
