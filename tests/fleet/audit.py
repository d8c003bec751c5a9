"""Hold what arrived from a fleet against what happened: lost, told, doubled, under two ids.

A bot whose shard has two sessions at a time gets each event in both, under two numbers. What counts here is therefore
what *happened* (:class:`Happening`): all that the simulated Discord sent of one event, in whatever sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from rateway.demo.audit import EXAMPLES, Receipts, Sent
from rateway_protocol.contract.messages import Gap

__all__ = ["FleetAudit", "Happening", "audit_fleet", "happenings"]

_decode_gap = msgspec.json.Decoder(Gap).decode


class Numbered(Sent, Protocol):
    """One line of the sender's ledger, and its place there."""

    @property
    def index(self) -> int: ...


@dataclass(slots=True)
class Happening:
    """One event of one shard: its numbers in the sessions that it was sent in."""

    shard: int
    event: str
    crc32: int
    index: int
    """Its first place in the ledger."""
    sent: list[tuple[str, int]]
    """(session, sequence)"""


@dataclass(slots=True)
class FleetAudit:
    """The result; every field but `happened`, `told` and `doubled` should be 0.

    What an owner has published in the last half second before its death is sent again to the next one: `doubled`.
    """

    happened: int = 0
    lost: int = 0
    """Arrived under no id, and no RATEWAY_GAP names its session with a sequence below it."""
    told: int = 0
    """Arrived under no id, and a RATEWAY_GAP tells so."""
    two_ids: int = 0
    """Arrived under more than one id."""
    doubled: int = 0
    """Arrivals beyond the first under one id."""
    returned: int = 0
    """Of these, such as came once more after Discord's replay to a later owner had brought them: an owner that
    returned, or was started again, has published what was not its own any more."""
    after_strike: int = 0
    """Events that came twice and happened after *struck_at*: whoever follows an owner that is away has had them sent,
    and nobody else may publish them."""
    changed: int = 0
    unknown: int = 0
    out_of_order: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether all that happened arrived under one id, once but for a death, as it was sent and in order, or is told
        of.
        """
        return not (
            self.lost
            or self.two_ids
            or self.returned
            or self.after_strike
            or self.changed
            or self.unknown
            or self.out_of_order
        )


def happenings(ledger: Iterable[Numbered]) -> Iterator[Happening]:
    """The simulator's ledger by happening: it sends an event to all sessions that see it, one right after another."""
    last: Happening | None = None
    for each in ledger:
        if (
            last is not None
            and (last.shard, last.event, last.crc32) == (each.shard, each.event, each.crc32)
            and all(session != each.session for session, _ in last.sent)
        ):
            last.sent.append((each.session, each.seq))
            continue
        if last is not None:
            yield last
        last = Happening(each.shard, each.event, each.crc32, each.index, [(each.session, each.seq)])
    if last is not None:
        yield last


def audit_fleet(
    ledger: Iterable[Numbered],
    receipts: Receipts,
    *,
    lost_below: int,
    whole: bool = True,
    struck_at: int | None = None,
) -> FleetAudit:
    """Hold what arrived in any queue against what happened. What has a place of *lost_below* or more in the ledger may
    still be on its way. Unless the ledger is *whole*, it is not known what is `unknown`. *struck_at*: the place in
    the ledger from which on a member was away that others have followed; None: no member was, or the broker itself.
    """
    found = FleetAudit(out_of_order=len(receipts.out_of_order))
    gaps = {
        gap.old_session: gap.received
        for gap in map(_decode_gap, receipts.gaps)
        if gap.old_session is not None
    }
    delivered = 0
    for each in happenings(ledger):
        found.happened += 1
        arrived = [(session, seq) for session, seq in each.sent if receipts.times(session, seq)]
        delivered += len(arrived)
        for session, seq in arrived:
            more = receipts.times(session, seq) - 1
            found.doubled += more
            if more:
                found.examples.append(f"doubled: {session}:{each.shard}:{seq} {each.event}")
            if more and struck_at is not None and each.index >= struck_at:
                found.after_strike += 1
            found.changed += receipts.sessions[session].digests[seq] != each.crc32
        if len(arrived) > 1:
            found.two_ids += 1
            found.examples.append(f"under {len(arrived)} ids: {arrived} {each.event}")
        elif arrived or each.index >= lost_below:
            continue
        elif any(gaps.get(session, seq) < seq for session, seq in each.sent):
            found.told += 1
        else:
            found.lost += 1
            found.examples.append(f"lost: {each.sent} of shard {each.shard} {each.event}")
    for session, receipt in receipts.sessions.items():
        if receipt.returned:
            found.returned += len(receipt.returned)
            found.examples.append(f"returned: {session}:{receipt.shard}:{receipt.returned[:EXAMPLES]}")
    found.unknown = receipts.distinct - delivered if whole else 0
    found.examples = found.examples[:EXAMPLES] + [f"out of order: {words}" for words in receipts.out_of_order]
    return found
