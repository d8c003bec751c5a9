"""A fleet of two members as the first of them sees it; it may lose its second member, or its governor."""

from __future__ import annotations

from rateway.fleet.membership import Membership
from rateway.fleet.roster import Announcement, Roster, TenureView
from rateway.runtime.monitoring.fleet_status import fleet_status
from rateway.runtime.monitoring.status import FleetStatus

__all__ = ["HOSTILE", "MINE", "OTHER", "a_fleet"]

MINE, OTHER = "host-a-1f", "host-b-2e"
HOSTILE = "[red]\x1b[2Jb"


def a_fleet(
    *,
    second: bool = True,
    governor: bool = True,
    taken: bool = False,
    how: str = "released",
    connected: bool = True,
) -> FleetStatus:
    """Cluster 1 is this member's, 2 the second's, 3 nobody's. With *taken* this member has taken cluster 2 over."""
    roster = Roster()
    mine = [TenureView(1, 4, 8, 8, held_for=61.0, how=how, former=OTHER, record_age=1.0)]
    if taken:
        mine.append(TenureView(2, 8, 8, 0, how="inherited", former=OTHER))
    roster.hear(MINE, Announcement("0.4.0", 100.0, 1, mine, governor=3 if governor else 0), 9.5)
    if second:
        other = TenureView(2, 7, 8, 7, held_for=5.0, how="first", record_age=None, moving=True)
        roster.hear(OTHER, Announcement("0.4.1", 50.0, 1, [other], leaving=True), 8.0)
    return fleet_status(
        Membership("bot", MINE), roster, [1, 2, 3], now=10.0, generation=1, connected=connected
    )
