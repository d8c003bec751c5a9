"""The port of the election: how a fleet decides which of its gateways owns a subject, in three calls.

A **subject** is what exactly one member of the fleet owns: ``cluster-<n>``, or ``governor``. One ownership of it is a
**tenure** with an **epoch**, a number that is greater than that of each tenure before. The owner keeps one **fleet
record** of the subject at the coordinator, whose body is the caller's; a successor is given the newest confirmed one.

RabbitMQ is the form of it (``transports/amqp/fleet_queues.py``). A form in memory passes the same tests
(``packages/gateway/tests/election/test_port.py``), and so must a form for etcd or PostgreSQL.

What holds for each form:

- A write is *confirmed* only while the coordinator holds its writer for the owner. So each confirmed record is known to
  the successor, and an owner that was replaced without its knowledge gets no confirm any more.
- It is an election, not a lock: a frozen or cut off owner does not know that it was replaced. What two gateways must
  never do at once is therefore bound to the **right**, which ends :data:`RIGHT_S` after the newest confirmed write was
  *sent* (:meth:`Elections.confirmed_at`); no successor owns the subject before that, unless the record is released.
- While the connection to the coordinator is lost, the tenure goes on without the right. Once the connection is back it
  goes on with it, or it ends: with a greater epoch, or with another member as the owner.
- The owner's newest body is written again each :data:`RENEW_S` without a call, so that the right stays fresh: a caller
  writes when something has changed.
- Records are ordered by (epoch, number), never by their arrival.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Protocol, TypeAlias

import msgspec

__all__ = [
    "GOVERNOR", "MOST_BODY", "RENEW_S", "RIGHT_S", "Elections", "FleetRecord", "How", "Owned", "WriteResult",
    "cluster_subject", "has_right", "is_subject",
]  # fmt: skip

# Seconds. A successor waits as long before it owns a subject whose record is not released.
RIGHT_S: Final = 3.0
# Seconds. A write may take its time at a busy broker, and the right must outlast one that is lost.
RENEW_S: Final = 1.0
# Bytes of a record's body: that of a cluster of hundreds of shards, and far below a message that brokers refuse.
MOST_BODY: Final = 4 * 1024 * 1024

GOVERNOR: Final = "governor"
"""The subject of the member that grants identify permits and decides the layout."""

How: TypeAlias = Literal["first", "released", "inherited"]
"""How a tenure began: without any record; after a release; after the former owner's death or loss."""

WriteResult: TypeAlias = Literal["confirmed", "stale", "away"]
"""``confirmed``: a successor will know this record. ``stale``: the tenure of that epoch is over. ``away``: not
confirmed in time; the newest body is written again by itself as soon as that is possible.
"""

# Whoever may write to the coordinator could write anything: what is in a record stands in log lines, and is counted on.
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 52)]
_Member = Annotated[str, msgspec.Meta(max_length=100, pattern=r"\A[A-Za-z0-9._-]*\Z")]

_SUBJECT: Final = re.compile(r"governor|cluster-[1-9][0-9]{0,5}")


class FleetRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the owner of a subject writes to the coordinator."""

    epoch: _Count
    """The tenure's; from 1, and 0 in a claim of nobody's, which shows that there is no record."""
    number: _Count
    """Counts the tenure's records from 1. 0: it claims the epoch, and its body is no cluster's."""
    owner: _Member
    """The member that wrote it."""
    released: bool = False
    """Whether its owner gave the subject up with it."""
    to: _Member = ""
    """The member that a release is meant for; empty: any."""
    body: bytes = b""

    @property
    def order(self) -> tuple[int, int]:
        """The greater of two records is the newer one."""
        return self.epoch, self.number


@dataclass(frozen=True, slots=True)
class Owned:
    """A tenure that has begun. Its first record is confirmed, with the body of the former one."""

    epoch: int
    record: FleetRecord | None
    """The former owner's newest confirmed record. None: there never was one."""
    how: How


class Elections(Protocol):
    """The subjects that one process campaigns for; one for a process, for all calls of one event loop."""

    async def campaign(self, subject: str, on_lost: Callable[[str], None]) -> Owned:
        """Wait until this member owns *subject*. Cancelling it withdraws.

        Args:
            subject: :data:`GOVERNOR` or :func:`cluster_subject`. One campaign or tenure of it at a time.
            on_lost: Called once when the tenure ends by itself, with the reason for a log line. Not after
                :meth:`release`. It must not raise; the caller campaigns again when it wants to.
        """

    async def write(self, subject: str, epoch: int, body: bytes) -> WriteResult:
        """Write the owner's record. ``confirmed`` stands for this body or one that was written after it.

        ``away`` comes after :data:`RIGHT_S` at the latest, at once while the connection is lost. Raises ValueError for
        a body above :data:`MOST_BODY` bytes.
        """

    async def release(self, subject: str, epoch: int, body: bytes, to: str = "") -> bool:
        """Give *subject* up with *body* as the last record, for the member *to* or, when empty, for any.

        The tenure is over when it returns, whatever it returns: True, the record is confirmed, and the next owner has
        it at once; False, it is not known to be (the coordinator is away, or the tenure was over), and the next owner
        may have the one before. Takes at most :data:`RIGHT_S`.
        """

    def confirmed_at(self, subject: str) -> float | None:
        """Return when the newest confirmed write of this tenure was sent, in seconds of the clock that the form was
        made with, which counts the time that the machine is suspended. None: not the owner.
        """


def cluster_subject(cluster: int) -> str:
    """Return the subject of a cluster; clusters count from 1."""
    return f"cluster-{cluster}"


def is_subject(text: str) -> bool:
    """Whether *text* names a subject."""
    return _SUBJECT.fullmatch(text) is not None


def has_right(confirmed_at: float | None, now: float) -> bool:
    """Whether the owner may identify and resume freely at *now*, by the clock of :meth:`Elections.confirmed_at`."""
    return confirmed_at is not None and now - confirmed_at < RIGHT_S
