"""The part of a fleet that one process of a gateway has: who the gateway is in it, and the process's elections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rateway.fleet.membership import Membership
from rateway.fleet.port import Elections, cluster_subject, has_right
from rateway.transports.boot_clock import boottime

__all__ = ["FleetPart"]


@dataclass(frozen=True, slots=True)
class FleetPart:
    """Passed to what behaves otherwise in a fleet; None in its place where the gateway is alone."""

    membership: Membership
    elections: Elections
    clock: Callable[[], float] = boottime
    """The clock of ``elections.confirmed_at``."""

    @property
    def home(self) -> str:
        """The name by which members recognise one another at a cluster's inbound queue."""
        return f"fleet-{self.membership.fleet}"

    def has_right(self, cluster: int) -> bool:
        """Return whether this member owns a cluster and no other one can."""
        return has_right(self.elections.confirmed_at(cluster_subject(cluster)), self.clock())
