"""Settings of the broker, and of the queries and commands that come through it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rateway.secret import Secret

__all__ = ["BrokerSettings", "EventLogSettings", "RequestSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """The broker and what is published to it."""

    address: Secret
    """With user and password; several nodes with commas."""
    persistent: bool
    spool_bytes: int
    """Of each cluster; 0: no spool."""
    queues: frozenset[str]
    """Names of workers' queues that are looked after."""
    management: Secret | None
    """The base of RabbitMQ's management API, with user and password."""
    urgent: frozenset[str]
    """Names of the events that are published ahead of what waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLogSettings:
    """The event log of each cluster."""

    form: str
    """``stream`` or ``off``."""
    age: float
    """Entries that are older, in seconds, are dropped with their segment."""
    bytes: int
    """So are the oldest ones beyond this size."""

    @property
    def is_on(self) -> bool:
        """Whether there is to be a log."""
        return self.form != "off"

    @property
    def age_s(self) -> int:
        """``age`` in the whole seconds that a stream knows."""
        return math.ceil(self.age)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSettings:
    """How long queries and commands of workers may wait, in seconds, and how many queries."""

    command_deadline: float
    command_deadline_max: float
    """Whatever a command's own ``expiration`` says."""
    query_deadline: float
    query_queue: int
