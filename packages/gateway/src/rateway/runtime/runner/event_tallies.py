"""Count what became of a cluster's events, by name and by fate."""

from __future__ import annotations

from rateway.native.fast_path import EventPipeline
from rateway.runtime.monitoring.loop_lag import Pace
from rateway_protocol.contract import topology
from rateway_protocol.discord.envelope import Envelope, UnreadableDispatch
from rateway_protocol.discord.events import DOCUMENTED

__all__ = ["MOST_EVENT_NAMES", "EventTallies"]

# Event names that are counted each by itself, beside those that Discord documents: it has some eighty. Names are the
# sender's choice, so the events of all further names are counted together.
MOST_EVENT_NAMES = 200


class EventTallies:
    """The counters of one cluster. Those that the fast path counts as well are the pipeline's."""

    __slots__ = ("_pipeline", "filtered", "oversize", "pace", "refused", "repeated", "replayed")

    def __init__(self, pipeline: EventPipeline) -> None:
        self._pipeline = pipeline
        self.pace = Pace()
        """Dispatches a second; the runner notes :attr:`received` there now and then."""
        self.replayed = 0
        """Events between a resume and its RESUMED."""
        self.repeated = 0
        """Events under a sequence number that another event had before."""
        self.filtered = 0
        """Events of names that the settings leave out."""
        self.oversize = 0
        """Events that RATEWAY_OVERSIZE took the place of."""
        self.refused = 0
        """Events that RATEWAY_REFUSED took the place of."""

    @property
    def received(self) -> int:
        """Dispatches since the start."""
        pipeline = self._pipeline
        return sum(pipeline.events.values()) + pipeline.other + pipeline.unreadable

    def count_new_name(self, name: str, envelope: Envelope) -> str:
        """Count an event of a name that has no counter yet.

        Returns:
            Why the event cannot be published; empty when it can.
        """
        pipeline = self._pipeline
        why = envelope.why if isinstance(envelope, UnreadableDispatch) else topology.event_key_fault(name)
        if why:
            pipeline.unreadable += 1
            pipeline.unreadable_why = why
        elif len(pipeline.events) < MOST_EVENT_NAMES or name in DOCUMENTED:
            pipeline.events[name] = 1
        else:
            pipeline.other += 1
        return why
