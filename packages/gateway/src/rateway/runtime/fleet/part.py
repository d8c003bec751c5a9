"""The part of a fleet that one process of a gateway has: who the gateway is in it, and the process's elections."""

from __future__ import annotations

from dataclasses import dataclass

from rateway.fleet.membership import Membership
from rateway.fleet.port import Elections

__all__ = ["FleetPart"]


@dataclass(frozen=True, slots=True)
class FleetPart:
    """Passed to what behaves otherwise in a fleet; None in its place where the gateway is alone."""

    membership: Membership
    elections: Elections
