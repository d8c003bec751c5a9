"""The simulated Discord as a whole: gateway, REST and control over one world, started and stopped together."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from rateway_simulator import certificate
from rateway_simulator.control import Control
from rateway_simulator.faults import Fault
from rateway_simulator.gateway import operations
from rateway_simulator.gateway.gateway import Gateway
from rateway_simulator.gateway.hosts import Host, Mode
from rateway_simulator.gateway.source import Source
from rateway_simulator.injection import Injector
from rateway_simulator.judge.ledger import Ledger
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.rest import routes as rest
from rateway_simulator.rest.middleware import RestJudge
from rateway_simulator.world.dispatch import Dispatch
from rateway_simulator.world.world import World

__all__ = ["Simulator", "SimulatorOptions"]

# What users may upload over REST.
MOST_BODY_BYTES = 32 << 20
# How long REST requests may take to end when the simulator stops.
REST_GRACE_S = 1.0


class _Facts:
    """The facts about the gateway that REST needs."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @property
    def url(self) -> str:
        return self._gateway.url

    @property
    def shards(self) -> int:
        return self._gateway.shards

    @property
    def token(self) -> str | None:
        return self._gateway.token

    @property
    def privileged_intents(self) -> int:
        return self._gateway.privileged_intents

    def session_start_limit(self) -> dict[str, Any]:
        return self._gateway.limits.session_start_limit(self._gateway.loop.time())


class Simulator:
    """`async with Simulator(SimulatorOptions(shards=2)) as simulator:` runs it on the current event loop.

    Addresses are known once it is entered. Everything must be called on that loop's thread. It is meant for
    uvloop, and runs on asyncio's own loop as well.
    """

    def __init__(self, options: SimulatorOptions | None = None) -> None:
        self.options = options or SimulatorOptions()
        self.world = World(self.options.world)
        self.ledger = Ledger(limit=self.options.ledger_events, wall=time.time)
        self.gateway: Gateway
        self.source: Source
        self._exits = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._api_port = 0
        self._ca_file: Path | None = None

    @property
    def gateway_url(self) -> str:
        """`ws://127.0.0.1:1234` (wss with TLS): where to identify."""
        return self.gateway.url

    @property
    def _http(self) -> str:
        scheme = "https" if self.options.tls else "http"
        return f"{scheme}://{self.options.host}:{self._api_port}"

    @property
    def api_url(self) -> str:
        """`http://127.0.0.1:1235/api/v10`: what DISCORD_API_URL is set to."""
        return f"{self._http}/api/v10"

    @property
    def control_url(self) -> str:
        """`http://127.0.0.1:1235/simulator`: ledger, violations, faults, rate, the world."""
        return f"{self._http}/simulator"

    @property
    def ca_file(self) -> str | None:
        """PEM file of the certificate to trust when TLS is on."""
        return None if self._ca_file is None else str(self._ca_file)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as exits:
            await self._start(exits)
            self._exits = exits.pop_all()
        return self

    async def _start(self, exits: AsyncExitStack) -> None:
        options, context = self.options, None
        if options.tls:
            folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="rateway-simulator-")))
            self._ca_file, key_file = certificate.make(folder, options.host)
            context = certificate.server_context(self._ca_file, key_file)
        self.gateway = Gateway(options, self.world, self.ledger, context, operations.receive)
        exits.push_async_callback(self.gateway.stop)
        await self.gateway.start()
        rest_judge = RestJudge(
            self.ledger,
            per_second=options.rest_per_second,
            most_invalid=options.rest_invalid,
            retry_grace=options.retry_grace,
        )
        app = web.Application(middlewares=[rest_judge.judge], client_max_size=MOST_BODY_BYTES)
        Control(self).add_routes(app)
        rest.setup(app, self.world, self.gateway.dispatch, _Facts(self.gateway))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=REST_GRACE_S)
        await runner.setup()
        exits.push_async_callback(runner.cleanup)
        exits.callback(rest_judge.end_outage)
        site = web.TCPSite(runner, options.host, options.api_port, ssl_context=context)
        await site.start()
        self._api_port = runner.addresses[0][1]
        self.injector = Injector(self.gateway, rest_judge, self._reopen)
        self.source = Source(self.gateway)
        exits.push_async_callback(self._end_tasks)
        for duty in (
            self.gateway.stream_guilds(),
            self.gateway.sweep(),
            self.source.run(),
            self.injector.play(options.scenario),
        ):
            self._spawn(asyncio.create_task(duty))

    def _spawn(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A duty that fails must not leave a simulator that looks alive.
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the simulator failed", "exception": error}
            )
            for connection in list(self.gateway.connections):
                connection.cut()

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.aclose()

    async def inject(self, fault: Fault) -> int:
        """Make a fault happen now; how many connections it hit (0 for those of dialling and REST).

        Raises FaultError when its shards or host cannot be understood.
        """
        return await self.injector.inject(fault)

    def _reopen(self, host: Host) -> None:
        self._spawn(asyncio.create_task(host.set_mode(Mode.OPEN)))

    def set_rate(
        self, rate: float, *, per_shard: bool = False, recorded: bool = False, events: int | None = None
    ) -> None:
        """Events a second of the source from now on; 0 stops it, FLAT_OUT is as fast as possible.

        `recorded` takes them from a pool instead of the living world; `events` bounds how many are made.
        """
        self.source.set(rate, per_shard=per_shard, recorded=recorded, events=events)

    def dispatch(self, event: Dispatch) -> None:
        """Send an event to every session that should see it (what REST and users make happen)."""
        self.gateway.dispatch(event)

    def drain(self) -> None:
        """Send what waits in the world."""
        self.gateway.drain()

    def status(self) -> dict[str, Any]:
        """Connections, live sessions, source and rate, as JSON."""
        rate = self.source.rate
        return {
            "connections": len(self.gateway.connections),
            "live": len(self.gateway.sessions),
            "streaming_guilds": self.gateway.streaming,
            "source": self.source.state,
            "rate": "max" if rate == float("inf") else rate,
            "identifies": self.gateway.limits.session_start_limit(self.gateway.loop.time()),
        }
