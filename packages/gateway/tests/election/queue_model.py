"""A model of a RabbitMQ quorum queue with a single active consumer, and members that campaign over it in virtual time.

What the model can do to them is what was seen of the real one: a channel's node that is cut off and whose consumer is
held for down, publishes of it that arrive when the cut is mended, confirms and deliveries that are lost with their
connection, members that are frozen, and a queue that drops its oldest ready message above its length.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from rateway.fleet import tenure
from rateway.fleet.port import FleetRecord, Owned, has_right
from rateway.fleet.tenure import QUEUE_LENGTH, SubjectElection


@dataclass(eq=False)
class Link:
    """A channel: what is on its way to the queue and back."""

    member: Member
    ops: deque[tuple[str, object]] = field(default_factory=deque)
    confirms: deque[int] = field(default_factory=deque)
    deliveries: deque[tuple[int, FleetRecord]] = field(default_factory=deque)
    published: int = 0
    tags: int = 0
    is_cut: bool = False
    """Nothing passes, both ends are open."""
    is_over: bool = False
    """The member has closed it, or the connection has ended."""
    is_open: bool = False
    """The member knows that it consumes."""
    checked: dict[int, tuple[int, FleetRecord]] = field(default_factory=dict)
    """Deliveries that the queue holds for not acknowledged, by tag: message id and record."""


class Queue:
    """The queue's log, applied one command after the other."""

    def __init__(self) -> None:
        self.ready: list[tuple[int, FleetRecord]] = []
        self.line: list[Link] = []
        self.active: Link | None = None
        self.evicted: list[FleetRecord] = []
        self._ids = 0

    @property
    def is_empty(self) -> bool:
        return not self.ready and not self.line

    def records(self) -> list[FleetRecord]:
        held = [] if self.active is None else list(self.active.checked.values())
        return [record for _, record in held + self.ready]

    def publish(self, link: Link, record: FleetRecord) -> None:
        self._ids += 1
        self.ready.append((self._ids, record))
        link.published += 1
        link.confirms.append(link.published)
        self._serve()
        while len(self.ready) > QUEUE_LENGTH:
            self.evicted.append(self.ready.pop(0)[1])

    def consume(self, link: Link) -> None:
        self.line.append(link)
        self._serve()

    def acknowledge(self, link: Link, tags: tuple[int, ...]) -> None:
        for tag in tags:
            link.checked.pop(tag, None)

    def leave(self, link: Link) -> None:
        """The consumer is gone, or held for down."""
        if link in self.line:
            self.line.remove(link)
        if self.active is link:
            self.active = None
            self.ready = sorted(link.checked.values(), key=lambda each: each[0]) + self.ready
            link.checked.clear()
            self._serve()

    def _serve(self) -> None:
        if self.active is None and self.line:
            self.active = self.line.pop(0)
        if self.active is not None:
            for ident, record in self.ready:
                self.active.tags += 1
                self.active.checked[self.active.tags] = ident, record
                self.active.deliveries.append((self.active.tags, record))
            self.ready.clear()


class Member:
    """One member's election, its channel and its caller, who campaigns again whenever a tenure has ended."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.world = world
        self.election = SubjectElection(name)
        self.link: Link | None = None
        self.is_connected = True
        self.is_frozen = False
        self.reopen_at: float | None = None
        self.writes = 0
        self.owned: Owned | None = None
        self.lost = 0
        self.election.campaign()
        self.open_soon()

    def open_soon(self, after: float = 0.0) -> None:
        self.reopen_at = self.world.now + after

    def open(self) -> None:
        self.reopen_at = None
        if self.election.is_idle:
            self.election.campaign()
        link = self.link = Link(self)
        self.world.links.append(link)
        link.ops.append(("consume", None))

    def has_right(self) -> bool:
        return has_right(self.election.confirmed_at, self.world.now)

    def body(self) -> bytes:
        self.writes += 1
        return f"{self.name}-{self.writes}".encode()

    def write(self) -> None:
        epoch = self.election.epoch
        if epoch is not None:
            self.carry_out(self.election.write(self.world.now, epoch, self.body(), self.writes))

    def release(self, to: str) -> None:
        epoch = self.election.epoch
        if epoch is not None:
            self.carry_out(self.election.release(self.world.now, epoch, self.body(), to))

    def tick(self) -> None:
        if self.reopen_at is not None and self.reopen_at <= self.world.now and self.is_connected:
            self.open()
        wake = self.election.wake_at()
        if wake is not None and wake <= self.world.now:
            self.carry_out(self.election.tick(self.world.now))

    def wake_at(self) -> float | None:
        times = [self.election.wake_at(), self.reopen_at if self.is_connected else None]
        return min((each for each in times if each is not None), default=None)

    def receive(self, confirm: bool) -> bool:
        """Take one thing from the channel; False when nothing is there."""
        link = self.link
        if link is None or link.is_cut or self.is_frozen or not link.is_open:
            return False
        if confirm and link.confirms:
            self.carry_out(self.election.confirmed(self.world.now, link.confirms.popleft(), False))
        elif link.deliveries:
            self.carry_out(self.election.delivered(self.world.now, *link.deliveries.popleft()))
        elif link.confirms:
            self.carry_out(self.election.confirmed(self.world.now, link.confirms.popleft(), False))
        else:
            return False
        self.world.check()
        return True

    def carry_out(self, orders: list[tenure.Order]) -> None:
        for order in orders:
            match order:
                case tenure.Publish(record):
                    assert self.link is not None
                    self.link.ops.append(("publish", record))
                case tenure.Acknowledge(tags):
                    assert self.link is not None
                    self.link.ops.append(("acknowledge", tags))
                case tenure.Close():
                    self._close()
                    self.open_soon()
                case tenure.Reopen(after):
                    self._close()
                    self.open_soon(after)
                case tenure.Won(owned):
                    self.owned = owned
                    self.world.won(self, owned)
                case tenure.Lost():
                    self.lost += 1
                case tenure.Answer() | tenure.Released():
                    pass
        self.world.note_confirmed(self)

    def _close(self) -> None:
        if self.link is not None:
            self.link.is_over = True
            self.link.ops.append(("close", None))
            self.link = None

    def disconnect(self) -> None:
        """The member finds its connection ended."""
        self.link = None
        self.carry_out(self.election.closed(self.world.now))
        self.open_soon()


class World:
    """All members, the queue, and the time."""

    def __init__(self, names: str) -> None:
        self.now = 100.0
        self.queue = Queue()
        self.links: list[Link] = []
        self.tenures: list[tuple[str, Owned]] = []
        # The greatest record that was confirmed to its writer, by epoch.
        self.confirmed: dict[int, tuple[int, int]] = {}
        self._broken: list[Member] = []
        self.members = [Member(self, name) for name in names]

    # What happens.

    def pass_ops(self, member: Member, most: int) -> None:
        """Let the queue take what a member has sent, on all of its channels."""
        for link in [each for each in self.links if each.member is member]:
            self._pass_ops(link, most)

    def _pass_ops(self, link: Link, most: int) -> None:
        while link.ops and most and not link.is_cut:
            most -= 1
            kind, argument = link.ops.popleft()
            match kind:
                case "consume":
                    is_empty = self.queue.is_empty
                    self.queue.consume(link)
                    if link.member.link is link:
                        link.is_open = True
                        link.member.carry_out(link.member.election.opened(self.now, is_empty))
                case "publish":
                    assert isinstance(argument, FleetRecord)
                    self.queue.publish(link, argument)
                case "acknowledge":
                    assert isinstance(argument, tuple)
                    self.queue.acknowledge(link, argument)
                case "close":
                    self.queue.leave(link)
                    self.links.remove(link)

    def flow(self) -> None:
        """Let everything arrive that can."""
        while True:
            for link in list(self.links):
                self._pass_ops(link, 1000)
            if not any(member.receive(confirm=False) for member in self.members) and not any(
                link.ops and not link.is_cut for link in self.links
            ):
                return

    def pass_time_with_latency(self, seconds: float, latency: float) -> None:
        """Everything takes so long each way, and what is due in the same moment is done before it is read."""
        for _ in range(round(seconds / latency)):
            self.now += latency
            for member in self.members:
                link = member.link
                arrived = 0 if link is None else len(link.deliveries) + len(link.confirms)
                if not member.is_frozen:
                    member.tick()
                for _ in range(arrived):
                    member.receive(confirm=False)
            for each in list(self.links):
                self._pass_ops(each, len(each.ops))
            self.check()

    def pass_time(self, seconds: float, *, prompt: bool) -> None:
        """*prompt*: whatever is sent arrives at once."""
        until = self.now + seconds
        while True:
            if prompt:
                self.flow()
            due = [
                (wake, member)
                for member in self.members
                if not member.is_frozen and (wake := member.wake_at()) is not None and wake <= until
            ]
            if not due:
                break
            wake, member = min(due, key=lambda each: each[0])
            self.now = max(self.now, wake)
            member.tick()
            self.check()
        self.now = until
        self.check()

    def cut(self, member: Member) -> None:
        """The node that a member is connected to is cut off; its connection stays."""
        for link in self.links:
            if link.member is member:
                link.is_cut = True

    def suspect(self, member: Member, *, loses: bool) -> None:
        """The queue holds the consumers of a node that is cut off for down."""
        for link in self.links:
            if link.member is member and link.is_cut:
                self.queue.leave(link)
                if loses:
                    link.deliveries.clear()

    def mend(self, member: Member) -> None:
        """The node is back: its consumers are at the end of the line, what it held back arrives."""
        for link in self.links:
            if link.member is member and link.is_cut:
                link.is_cut = False
                consumes = not any(kind == "consume" for kind, _ in link.ops)
                if consumes and link is not self.queue.active and link not in self.queue.line:
                    self.queue.consume(link)

    def drop(self, member: Member, arrives: int) -> None:
        """A member's connection ends. *arrives*: so many of the things that it has sent do."""
        for link in [each for each in self.links if each.member is member]:
            if not link.is_cut:
                self._pass_ops(link, arrives)
            self.queue.leave(link)
            if link in self.links:
                self.links.remove(link)
        if member.is_frozen:
            self._broken.append(member)
        elif member.link is not None:
            member.disconnect()

    def thaw(self, member: Member) -> None:
        member.is_frozen = False
        if member in self._broken:
            self._broken.remove(member)
            if member.link is not None and member.link not in self.links:
                member.disconnect()

    def settle(self, latency: float = 0.0) -> None:
        """Mend everything, and let the members come to an end of their quarrels."""
        for member in self.members:
            self.thaw(member)
            self.mend(member)
            member.is_connected = True
        if latency:
            self.pass_time_with_latency(60, latency)
        else:
            self.pass_time(60, prompt=True)

    # What must hold.

    def won(self, member: Member, owned: Owned) -> None:
        for _, former in self.tenures:
            assert owned.epoch > former.epoch, "epochs grow"
        self.tenures.append((member.name, owned))
        for epoch, order in self.confirmed.items():
            self._known(owned, epoch, order)

    def note_confirmed(self, member: Member) -> None:
        """A record counts as confirmed once the member's right says so: its successors must know it."""
        election = member.election
        order = election.confirmed_order
        if order is not None and order != self.confirmed.get(order[0]):
            assert order >= self.confirmed.get(order[0], (0, 0)), "what is confirmed grows"
            self.confirmed[order[0]] = order
            for _, owned in self.tenures:
                self._known(owned, order[0], order)

    @staticmethod
    def _known(owned: Owned, epoch: int, order: tuple[int, int]) -> None:
        if owned.epoch > epoch:
            assert owned.record is not None, "a successor is given a record"
            assert owned.record.order >= order, "a successor is given every confirmed record"

    def check(self) -> None:
        assert sum(member.has_right() for member in self.members) <= 1, "the right is one member's"
        newest = max(self.confirmed.values(), default=(0, 0))
        assert all(record.order < newest for record in self.queue.evicted if record.number), (
            "the greatest record stays"
        )
        if self.confirmed:
            assert any(record.number and record.order >= newest for record in self.queue.records()), (
                "the queue holds the newest confirmed record"
            )
