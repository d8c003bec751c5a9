"""The election in memory: a form of ``rateway.fleet.port`` for tests that need no broker, nor real time.

A :class:`Coordinator` is what all members share. ``cut`` and ``heal`` break and mend a member's connection to it; a
member that is killed is one that is cut and never healed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from rateway.fleet.port import MOST_BODY, RIGHT_S, FleetRecord, How, Owned, WriteResult

# Seconds that a released subject waits for the member that it is meant for.
MEANT_S = 5.0


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


@dataclass(eq=False)
class _Campaign:
    member: MemoryElections
    won: asyncio.Future[Owned]
    on_lost: Callable[[str], None]


@dataclass(eq=False)
class _Subject:
    name: str
    record: FleetRecord | None = None
    owner: MemoryElections | None = None
    """None: nobody that the coordinator hears of."""
    free_since: float = -RIGHT_S
    line: list[_Campaign] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


@dataclass(eq=False)
class _Tenure:
    epoch: int
    on_lost: Callable[[str], None]
    body: bytes
    confirmed_at: float
    """Counts while the member is cut; until then each moment is one."""


class Coordinator:
    """The records and owners of all subjects. *patience*: seconds before an unreleased subject is inherited."""

    def __init__(self, *, clock: Callable[[], float] = _loop_time, patience: float = RIGHT_S) -> None:
        self.clock = clock
        self._patience = patience
        self._subjects: dict[str, _Subject] = {}

    def member(self, name: str) -> MemoryElections:
        """Return the port of one more member."""
        return MemoryElections(self, name)

    def record(self, subject: str) -> FleetRecord | None:
        """The newest confirmed record."""
        return self.subject(subject).record

    def owner(self, subject: str) -> str | None:
        """The member that the coordinator holds for the owner."""
        owner = self.subject(subject).owner
        return None if owner is None else owner.name

    def subject(self, name: str) -> _Subject:
        return self._subjects.setdefault(name, _Subject(name))

    def all_subjects(self) -> list[_Subject]:
        return list(self._subjects.values())

    def free(self, subject: _Subject) -> None:
        """Its owner is gone, for the coordinator."""
        subject.owner = None
        subject.free_since = self.clock()
        self.advance(subject)

    def advance(self, subject: _Subject) -> None:
        """Give a free subject to the first in line, once its time has come."""
        if subject.timer is not None:
            subject.timer.cancel()
            subject.timer = None
        line = [each for each in subject.line if not (each.member.is_cut or each.won.done())]
        if subject.owner is not None or not line:
            return
        record, now = subject.record, self.clock()
        due, chosen = now, line[0]
        if record is not None and not record.released:
            due = subject.free_since + self._patience
        elif record is not None and record.to:
            meant = [each for each in line if each.member.name == record.to]
            if meant:
                chosen = meant[0]
            else:
                due = subject.free_since + MEANT_S
        if due > now:
            loop = asyncio.get_running_loop()
            subject.timer = loop.call_later(due - now, self.advance, subject)
            return
        subject.line.remove(chosen)
        epoch, body = (1, b"") if record is None else (record.epoch + 1, record.body)
        subject.owner = chosen.member
        subject.record = FleetRecord(epoch, 1, chosen.member.name, body=body)
        how: How = "first" if record is None else "released" if record.released else "inherited"
        chosen.member.begin(subject.name, _Tenure(epoch, chosen.on_lost, body, now))
        chosen.won.set_result(Owned(epoch, record, how))


class MemoryElections:
    """One member's :class:`~rateway.fleet.port.Elections`."""

    def __init__(self, coordinator: Coordinator, name: str) -> None:
        self.name = name
        self.is_cut = False
        self._coordinator = coordinator
        self._tenures: dict[str, _Tenure] = {}

    async def campaign(self, subject: str, on_lost: Callable[[str], None]) -> Owned:
        found = self._coordinator.subject(subject)
        if subject in self._tenures or any(each.member is self for each in found.line):
            raise RuntimeError(f"a campaign or a tenure of {subject} is under way")
        mine = _Campaign(self, asyncio.get_running_loop().create_future(), on_lost)
        found.line.append(mine)
        self._coordinator.advance(found)
        try:
            return await mine.won
        except asyncio.CancelledError:
            if mine in found.line:
                found.line.remove(mine)
            elif (tenure := self._tenures.pop(subject, None)) is not None and found.owner is self:
                # It was won in the same moment.
                assert found.record is not None
                found.record = FleetRecord(
                    tenure.epoch, found.record.number + 1, self.name, True, body=tenure.body
                )
                self._coordinator.free(found)
            raise

    async def write(self, subject: str, epoch: int, body: bytes) -> WriteResult:
        if len(body) > MOST_BODY:
            raise ValueError(f"a record of {len(body)} bytes, above {MOST_BODY}")
        tenure = self._tenures.get(subject)
        if tenure is None or tenure.epoch != epoch:
            return "stale"
        tenure.body = body
        found = self._coordinator.subject(subject)
        if self.is_cut or found.owner is not self:
            return "away"
        assert found.record is not None
        found.record = FleetRecord(epoch, found.record.number + 1, self.name, body=body)
        return "confirmed"

    async def release(self, subject: str, epoch: int, body: bytes, to: str = "") -> bool:
        tenure = self._tenures.get(subject)
        if tenure is None or tenure.epoch != epoch:
            return False
        del self._tenures[subject]
        found = self._coordinator.subject(subject)
        if self.is_cut or found.owner is not self:
            return False
        assert found.record is not None
        found.record = FleetRecord(epoch, found.record.number + 1, self.name, True, to, body)
        self._coordinator.free(found)
        return True

    def confirmed_at(self, subject: str) -> float | None:
        tenure = self._tenures.get(subject)
        if tenure is None:
            return None
        if self._coordinator.subject(subject).owner is self and not self.is_cut:
            tenure.confirmed_at = self._coordinator.clock()
        return tenure.confirmed_at

    def begin(self, subject: str, tenure: _Tenure) -> None:
        """The coordinator's word: this member owns *subject*."""
        self._tenures[subject] = tenure

    # What a test does to it.

    def cut(self) -> None:
        """Break the connection to the coordinator, which notices at once."""
        for subject in self._tenures:
            self.confirmed_at(subject)
        self.is_cut = True
        for found in self._coordinator.all_subjects():
            if found.owner is self:
                self._coordinator.free(found)
            else:
                self._coordinator.advance(found)

    def heal(self) -> None:
        """Mend it: a tenure that nobody took meanwhile goes on, the others end."""
        self.is_cut = False
        for subject, tenure in list(self._tenures.items()):
            found = self._coordinator.subject(subject)
            record = found.record
            if found.owner is None and record is not None and record.epoch == tenure.epoch:
                found.owner = self
                found.record = FleetRecord(tenure.epoch, record.number + 1, self.name, body=tenure.body)
                self._coordinator.advance(found)
            else:
                del self._tenures[subject]
                tenure.on_lost("another member owns it")
        for found in self._coordinator.all_subjects():
            self._coordinator.advance(found)
