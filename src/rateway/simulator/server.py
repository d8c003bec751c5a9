"""The simulated Discord as a whole: gateway, REST and control over one world, started and stopped together."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rateway.simulator.faults import Fault
from rateway.simulator.ledger import Ledger
from rateway.simulator.options import SimulatorOptions
from rateway.simulator.world import World
from rateway.simulator.world_dispatch import Dispatch

__all__ = ["Simulator", "SimulatorOptions"]


class Simulator:
    """`async with Simulator(SimulatorOptions(guilds=…)) as simulator:` runs it on the current event loop.

    Addresses are known once it is entered. Everything must be called on that loop's thread.
    """

    world: World
    ledger: Ledger

    def __init__(self, options: SimulatorOptions | None = None) -> None:
        self.options = options or SimulatorOptions()

    @property
    def gateway_url(self) -> str:
        """`ws://127.0.0.1:1234` (wss with TLS): where to identify."""
        raise NotImplementedError

    @property
    def api_url(self) -> str:
        """`http://127.0.0.1:1235/api/v10`: what DISCORD_API_URL is set to."""
        raise NotImplementedError

    @property
    def control_url(self) -> str:
        """`http://127.0.0.1:1235/simulator`: ledger, violations, faults, rate, the world's state."""
        raise NotImplementedError

    @property
    def ca_file(self) -> str | None:
        """PEM file of the certificate to trust when TLS is on."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    def inject(self, fault: Fault) -> int:
        """Make a fault happen now; how many connections it hit (0 for those of dialling and REST)."""
        raise NotImplementedError

    def set_rate(self, rate: float, *, per_shard: bool = False) -> None:
        """Events a second of the source from now on; 0 stops it, FLAT_OUT is as fast as possible."""
        raise NotImplementedError

    def dispatch(self, event: Dispatch) -> None:
        """Send an event to every session that should see it (what REST and users make happen)."""
        raise NotImplementedError
