"""The part of a process that requests need: its clusters, its settings, its cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from rateway.config import Settings
from rateway.fleet.choice import Choice
from rateway.runtime.requests.host_cache import HostCache
from rateway.runtime.requests.other_clusters import OtherClusters
from rateway.session.actions import Command, CommandDone

__all__ = ["RequestCluster", "RequestProcess"]


class RequestCluster(Protocol):
    """A cluster that takes commands (``runner.cluster.Cluster``)."""

    @property
    def number(self) -> int: ...

    def command(self, shard_id: int, command: Command) -> None:
        """Queue a command on a shard."""

    def watch_commands(self, on_done: Callable[[CommandDone], None]) -> None:
        """Have *on_done* called with the end of each worker's command, from now on."""


class RequestProcess(Protocol):
    """The process that runs the clusters (``runner.runner.Runner``)."""

    @property
    def settings(self) -> Settings: ...
    @property
    def choice(self) -> Choice: ...
    @property
    def clusters(self) -> Mapping[int, RequestCluster]: ...
    @property
    def cache(self) -> HostCache: ...
    @property
    def other_clusters(self) -> OtherClusters: ...
