"""Compare what was sent with what arrived: lost, doubled, changed or out of order, event by event.

The sender's ledger names each event by session and sequence and keeps a CRC-32 of its `d`; a receipt keeps the same of
each message that came, by its `message_id` (docs/contract.md). Five bytes an event, so that an audit of millions fits.
"""

from __future__ import annotations

import zlib
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

#: Examples kept of each kind of fault; the rest is counted.
EXAMPLES = 20


class Sent(Protocol):
    """One line of the sender's ledger."""

    @property
    def session(self) -> str: ...
    @property
    def shard(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def event(self) -> str: ...
    @property
    def crc32(self) -> int: ...


@dataclass(slots=True)
class SessionReceipt:
    """The arrivals of one session: how often each sequence arrived (up to 255), and the CRC-32 of its first arrival."""

    shard: int
    times: bytearray = field(default_factory=bytearray)
    digests: array[int] = field(default_factory=lambda: array("I"))
    highest: int = 0
    #: Of those that did not overtake others.
    in_order: int = 0
    #: Sequences that arrived as Discord's replay to a resumed session (the header ``replayed``).
    replayed: set[int] = field(default_factory=set)
    #: Of these, such as arrived again after that, and not as a replay.
    returned: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Receipts:
    """Everything that arrived, from any number of queues."""

    sessions: dict[str, SessionReceipt] = field(default_factory=dict)
    #: Messages by routing key: events as Discord named them, and the gateway's own.
    names: Counter[str] = field(default_factory=Counter)
    arrived: int = 0
    #: Different events among them.
    distinct: int = 0
    #: Arrived again because the broker did not get our acknowledgement, which is not the gateway's doing.
    redelivered: int = 0
    #: First arrivals below one that came before, without a mark that says so (the gateway's, or the broker's when it
    #: delivers again what had not reached us).
    out_of_order: list[str] = field(default_factory=list)
    #: Bodies of RATEWAY_GAP.
    gaps: list[bytes] = field(default_factory=list)

    def add(
        self,
        name: str,
        message_id: str | None,
        body: bytes,
        *,
        republished: bool,
        redelivered: bool,
        ahead: bool = False,
        replayed: bool = False,
    ) -> None:
        """Note one message: *name* is its routing key; *redelivered* is the broker's own mark, *ahead* and *replayed*
        are headers.
        """
        self.names[name] += 1
        if name.startswith("RATEWAY_"):
            if name == "RATEWAY_GAP":
                self.gaps.append(body)
            return
        self.arrived += 1
        parts = (message_id or "").split(":")
        if len(parts) != 3 or not parts[2].isdecimal():
            return
        session, shard, seq = parts[0], int(parts[1]), int(parts[2])
        receipt = self.sessions.get(session)
        if receipt is None:
            receipt = self.sessions[session] = SessionReceipt(shard)
        missing = seq + 1 - len(receipt.times)
        if missing > 0:
            receipt.times.extend(bytes(missing))
            receipt.digests.extend(array("I", bytes(receipt.digests.itemsize * missing)))
        if receipt.times[seq] and redelivered:
            self.redelivered += 1
            return
        if not receipt.times[seq]:
            receipt.digests[seq] = zlib.crc32(body)
            if not ahead:
                is_marked = republished or redelivered
                if seq < receipt.in_order and not is_marked and len(self.out_of_order) < EXAMPLES:
                    self.out_of_order.append(f"{message_id} ({name}) came after {receipt.in_order}")
                receipt.in_order = max(receipt.in_order, seq)
            receipt.highest = max(receipt.highest, seq)
            self.distinct += 1
        if replayed:
            receipt.replayed.add(seq)
        elif seq in receipt.replayed:
            receipt.returned.append(seq)
        receipt.times[seq] = min(receipt.times[seq] + 1, 255)

    @property
    def returned(self) -> int:
        """Arrivals of what Discord's replay had brought before, by another way."""
        return sum(len(receipt.returned) for receipt in self.sessions.values())

    def times(self, session: str, seq: int) -> int:
        """Return how often that event arrived."""
        receipt = self.sessions.get(session)
        return receipt.times[seq] if receipt is not None and seq < len(receipt.times) else 0


@dataclass(frozen=True, slots=True)
class Audit:
    """The result. *doubled* counts arrivals beyond the first of an event, by message_id."""

    sent: int
    delivered: int
    lost: int
    doubled: int
    changed: int
    unknown: int
    out_of_order: int
    examples: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether all that was sent arrived as it was sent, in order."""
        return not (self.lost or self.changed or self.unknown or self.out_of_order)


def audit(ledger: Iterable[Sent], receipts: Receipts) -> Audit:
    """Hold what arrived against what was sent."""
    sent = delivered = lost = doubled = changed = 0
    examples: list[str] = []
    for each in ledger:
        sent += 1
        times = receipts.times(each.session, each.seq)
        if times == 0:
            lost += 1
            if lost <= EXAMPLES:
                examples.append(f"lost: {each.session}:{each.shard}:{each.seq} {each.event}")
            continue
        delivered += 1
        doubled += times - 1
        if receipts.sessions[each.session].digests[each.seq] != each.crc32:
            changed += 1
            if changed <= EXAMPLES:
                examples.append(f"changed: {each.session}:{each.shard}:{each.seq} {each.event}")
    examples += [f"out of order: {words}" for words in receipts.out_of_order]
    return Audit(
        sent,
        delivered,
        lost,
        doubled,
        changed,
        receipts.distinct - delivered,
        len(receipts.out_of_order),
        tuple(examples),
    )
