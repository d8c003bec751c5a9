"""The fleet as one of its members knows it, for status, metrics and page."""

from __future__ import annotations

from collections.abc import Iterable

from rateway.fleet.membership import Membership
from rateway.fleet.roster import Roster
from rateway.runtime.monitoring.status import (
    ClusterStatus,
    FleetClusterStatus,
    FleetMemberStatus,
    FleetStatus,
    ShardStatus,
)

__all__ = ["fleet_status", "here"]


def fleet_status(
    membership: Membership,
    roster: Roster,
    clusters: Iterable[int],
    *,
    now: float,
    generation: int,
    connected: bool,
    unreadable: int = 0,
) -> FleetStatus:
    """Return what *roster* knows of its members and of these *clusters*. *now* is of the roster's clock; *generation*,
    *connected* and *unreadable* are this gateway's own.
    """
    members = roster.members()
    governor = roster.governor()
    return FleetStatus(
        name=membership.fleet,
        member=membership.member,
        governor=governor[0] if governor is not None else None,
        governor_epoch=governor[1] if governor is not None else 0,
        generation=generation,
        connected=connected,
        members=[
            FleetMemberStatus(
                member=each.name,
                version=each.said.version,
                uptime_s=each.said.uptime + now - each.heard_at,
                heard_s=now - each.heard_at,
                clusters=sorted(view.cluster for view in each.said.clusters),
                leaving=each.said.leaving,
                deaf=each.said.deaf,
            )
            for each in members
        ],
        clusters=[_cluster(roster, number, now) for number in clusters],
        unreadable=unreadable,
    )


def _cluster(roster: Roster, number: int, now: float) -> FleetClusterStatus:
    owner = roster.owner(number)
    seen = roster.get(owner) if owner is not None else None
    if seen is None:
        return FleetClusterStatus(number)
    view = next(view for view in seen.said.clusters if view.cluster == number)
    silent = now - seen.heard_at
    return FleetClusterStatus(
        number,
        owner=seen.name,
        epoch=view.epoch,
        since_s=view.held_for + silent,
        how=view.how,
        former=view.former,
        shards=view.shards,
        live=view.live,
        record_age_s=None if view.record_age is None else view.record_age + silent,
        moving=view.moving,
    )


def here(
    fleet: FleetStatus, clusters: list[ClusterStatus], shards: list[ShardStatus]
) -> tuple[list[ClusterStatus], list[ShardStatus]]:
    """Return the clusters and shards without those of clusters that another member owns."""
    owned = {each.cluster for each in clusters if each.owned}
    elsewhere = {each.cluster for each in fleet.clusters if each.owner not in (None, fleet.member)} - owned
    return (
        [each for each in clusters if each.cluster not in elsewhere],
        [each for each in shards if each.cluster not in elsewhere],
    )
