"""Bounds of what may be unconfirmed, and of how long it is kept in memory alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["HELD_UP_S", "DeliveryLimits"]


# A broker that has confirmed nothing at all for so long is said to hold the cluster up, seconds.
HELD_UP_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """The bounds of one cluster's publisher. See ``docs/delivery.md``, *While the broker is away*."""

    # Unconfirmed events and bytes (of AMQP frames) in memory. At either bound events go to the spool, or
    # reading pauses.
    events: int = 100_000
    bytes: int = 256 * 1024 * 1024
    # Below this share of both bounds reading goes on; the distance keeps it from fluttering.
    resume_below: float = 0.75
    # Seconds that the broker may be away, blocked or refusing before what is unconfirmed goes to the spool.
    # Discord's own replay buffer may hold as few as 100 events, so a crash in the middle of an outage must
    # find them on disk.
    spool_after: float = 2.0
    # Events read back from the spool that may be unconfirmed at once: leaves a broker that has just come back
    # room for others.
    drain_window: int = 2_000
    # That many at first: after so many seconds of it twice as many, and so on, up to a bound. What a broker confirms in
    # a second depends on how much it may write at once; ten minutes' events are not to take an hour.
    drain_grows_after: float = 5.0
    drain_window_most: int = 16_000
    # Seconds between tries of an event that the broker refuses; doubled each time.
    refused_delay: float = 0.25
    refused_delay_most: float = 15.0
    # Seconds after which a refused event is given up with RATEWAY_REFUSED. None: never.
    refused_patience: float | None = None
    # Seconds between two ``mandatory`` publishes of one event name: they show whether a queue is bound.
    mandatory_every: float = 60.0
    # So many of a name that came back the last time: a worker that binds its queue is seen soon.
    accused_every: float = 5.0
    # Seconds after its last return for which a name counts as one without a queue.
    accusation_lasts: float = 60.0
    # Seconds after which an event that the broker does not answer is reported.
    stalled_after: float = 30.0
