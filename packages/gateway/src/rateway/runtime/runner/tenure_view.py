"""What other members of the fleet are told of a cluster that is owned here."""

from __future__ import annotations

from rateway.fleet.port import cluster_subject
from rateway.fleet.roster import TenureView
from rateway.runtime.fleet.part import FleetPart
from rateway.runtime.runner.cluster import Cluster
from rateway.runtime.runner.cluster_tenure import ClusterTenure
from rateway.session.actions import State

__all__ = ["tenure_view"]

# A shard in one of these does not come back by itself.
_STOPPED = (State.STOPPED, State.FATAL)


def tenure_view(cluster: Cluster, tenure: ClusterTenure, fleet: FleetPart) -> TenureView | None:
    """Return the cluster as it is; None while it is not owned here."""
    owned, since = tenure.owned, tenure.owned_since
    if owned is None or since is None:
        return None
    now = fleet.clock()
    shards = cluster.shards.values()
    states = [shard.conversation.state for shard in shards]
    stopped = sum(1 for shard in shards if shard.crash_loops or shard.conversation.state in _STOPPED)
    confirmed_at = fleet.elections.confirmed_at(cluster_subject(cluster.number))
    return TenureView(
        cluster.number,
        owned.epoch,
        len(states),
        live=sum(1 for state in states if state is State.LIVE),
        stopped=stopped,
        held_for=now - since,
        how=owned.how,
        former="" if owned.record is None else owned.record.owner,
        record_age=None if confirmed_at is None else now - confirmed_at,
        moving=tenure.is_moving,
    )
