"""The bot's clusters, as the gateway answers them to the query ``Clusters``."""

from __future__ import annotations

import msgspec
from rateway_protocol.discord.snowflake import shard_of

__all__ = ["ClusterLayout"]


class _Cluster(msgspec.Struct, frozen=True):
    cluster: int
    shards: list[int]
    owner: str | None = None


class ClusterLayout(msgspec.Struct, frozen=True):
    """Which cluster runs which shards."""

    shard_count: int
    clusters: list[_Cluster]

    @property
    def numbers(self) -> set[int]:
        """The numbers of all clusters."""
        return {each.cluster for each in self.clusters}

    def of_shard(self, shard_id: int) -> int | None:
        """Return the cluster of a shard; None for a shard that the bot does not have."""
        return next((each.cluster for each in self.clusters if shard_id in each.shards), None)

    def of_guild(self, guild_id: int) -> int | None:
        """Return the cluster of a guild, whether or not the bot is in it."""
        return self.of_shard(shard_of(guild_id, self.shard_count)) if self.shard_count > 0 else None

    def is_of_gateway(self, cluster: int | None) -> bool:
        """Return whether the gateway that answered runs this cluster itself."""
        return any(each.cluster == cluster and each.owner == "this" for each in self.clusters)
