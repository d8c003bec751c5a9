"""Decide the next planned move: which cluster goes from which member to which, one at a time.

A move takes a cluster's shards away for about a second. So none is begun while shards are away or a cluster has no
owner, and a cluster that could not be moved is left in peace for a while. A member that leaves hands over first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rateway.fleet.layout import Layout, spread
from rateway.fleet.roster import SeenMember

__all__ = ["MOVE_WITHIN_S", "Balance", "BalanceMember", "Move", "balance_member", "hand_over", "next_move"]

# A move that has not ended after so long has failed.
MOVE_WITHIN_S = 60.0
# Seconds until a cluster whose move failed is moved again.
REST_AFTER_FAILURE_S = 120.0
# Seconds that a cluster stays where a person wanted it, whatever the spread is.
PINNED_S = 3600.0
# Seconds without a word of a member after which nothing is moved, until it speaks or is counted no more.
SILENT_AFTER_S = 2.5
# Seconds from one move to the next: what came back must be seen to stay.
BETWEEN_MOVES_S = 0.5


@dataclass(frozen=True, slots=True)
class Move:
    """One planned move. *asked*: a person wants it."""

    cluster: int
    sender: str
    receiver: str
    asked: bool = False


@dataclass(frozen=True, slots=True)
class BalanceMember:
    """A member as the spread sees it."""

    name: str
    clusters: frozenset[int]
    allowed: frozenset[int] | None = None
    """The clusters that it may run; None: all."""
    takes: bool = True
    """Whether it may be given clusters."""
    leaving: bool = False
    """Whether its clusters are to go to others."""
    shares: tuple[frozenset[int], ...] = ()
    """The clusters that each of its processes runs when they are owned; empty: it has one."""

    def may_run(self, cluster: int) -> bool:
        return self.allowed is None or cluster in self.allowed

    def share_of(self, cluster: int) -> frozenset[int]:
        """Return the owned clusters that run in the same process as this one does, or would."""
        share = next((each for each in self.shares if cluster in each), None)
        return self.clusters if share is None else self.clusters & share


def next_move(
    members: Sequence[BalanceMember],
    sizes: Mapping[int, int],
    *,
    resting: Collection[int] = (),
    pinned: Collection[int] = (),
) -> Move | None:
    """Return the move that evens the numbers of shards most; None when none does.

    *sizes* are the shards of each cluster, *resting* clusters that are not moved now, *pinned* those that stay where
    they are unless their member leaves. The sum of the squares of the members' shards gets smaller with each move
    between members that stay, so that it ends. Of moves that are alike, one from a full process to an empty one.
    """
    load = {each.name: _load(each, sizes) for each in members}
    best: tuple[tuple[int, int, int, int, str], Move] | None = None
    for sender in members:
        stay = set(resting) if sender.leaving else {*resting, *pinned}
        for cluster in sorted((sender.clusters & sizes.keys()) - stay):
            size = sizes[cluster]
            for receiver in members:
                if receiver is sender or not _takes(receiver) or not receiver.may_run(cluster):
                    continue
                gain = load[sender.name] - load[receiver.name] - size
                if not sender.leaving and gain <= 0:
                    continue
                # Whatever the loads are a leaving member's cluster goes, to the member with the fewest shards.
                rank = (0, load[receiver.name]) if sender.leaving else (1, -gain * size)
                full = _sum(receiver.share_of(cluster), sizes) - _sum(sender.share_of(cluster), sizes)
                key = (*rank, full, cluster, receiver.name)
                if best is None or key < best[0]:
                    best = key, Move(cluster, sender.name, receiver.name)
    return None if best is None else best[1]


def hand_over(
    leaving: BalanceMember, others: Iterable[BalanceMember], sizes: Mapping[int, int]
) -> dict[int, str]:
    """Return which member takes which cluster of one that leaves at once: evenly. A cluster that no other member may
    run is not in it."""
    takers = {each.name: each for each in others if each.name != leaving.name and _takes(each)}
    found: dict[int, str] = {}
    for cluster in sorted(leaving.clusters & sizes.keys(), key=lambda number: (-sizes[number], number)):
        able = [
            (_load(each, sizes), _sum(each.share_of(cluster), sizes), name)
            for name, each in takers.items()
            if each.may_run(cluster)
        ]
        if able:
            found[cluster] = name = min(able)[-1]
            takers[name] = replace(takers[name], clusters=takers[name].clusters | {cluster})
    return found


def _takes(member: BalanceMember) -> bool:
    return member.takes and not member.leaving


def _load(member: BalanceMember, sizes: Mapping[int, int]) -> int:
    return _sum(member.clusters, sizes)


def _sum(clusters: Iterable[int], sizes: Mapping[int, int]) -> int:
    return sum(sizes.get(cluster, 0) for cluster in clusters)


@dataclass(slots=True)
class Balance:
    """The governor's planned moves: what the members announce goes in with the time, the next move comes out.

    Times are seconds of one clock, that of ``SeenMember.heard_at`` too.
    """

    layout: Layout
    generation: int
    moving: Move | None = None
    """The move under way."""
    last: str = ""
    """How the last one ended, in words."""
    done: int = 0
    failed: int = 0
    _began_at: float = 0.0
    _free_at: float = 0.0
    _resting: dict[int, float] = field(default_factory=dict)
    _pinned: dict[int, float] = field(default_factory=dict)
    _asked: list[Move] = field(default_factory=list)

    def ask(self, cluster: int, receiver: str) -> None:
        """A person wants the cluster at that member: it goes there after the move under way, and stays for an hour."""
        self._asked = [each for each in self._asked if each.cluster != cluster]
        self._asked.append(Move(cluster, "", receiver, asked=True))

    def decide(self, seen: Sequence[SeenMember], now: float) -> Move | None:
        """Return the move to begin now; None: none, or one is under way."""
        owners = self._owners(seen)
        away = any(view.away or view.moving for each in seen for view in each.said.clusters)
        whole = len(owners) == len(self.layout.clusters) and not away
        takers = {each.name for each in seen if not each.said.leaving}
        if self.moving is not None and not self._has_ended(owners, whole, takers, now):
            return None
        if now < self._free_at or not whole or not all(self._runs(each, now) for each in seen):
            return None
        for kept in (self._resting, self._pinned):
            for cluster in [cluster for cluster, until in kept.items() if until <= now]:
                del kept[cluster]
        members = [
            balance_member(
                each, (cluster for cluster, owner in owners.items() if owner == each.name), self.layout
            )
            for each in seen
        ]
        # Of two who announce a cluster one does not know yet that it was replaced: it must not be given it back now.
        said = Counter(view.cluster for each in seen for view in each.said.clusters)
        twice = {cluster for cluster, number in said.items() if number > 1}
        found = self._next_asked(members, owners, twice, now)
        if found is None:
            sizes = {number: len(self.layout.shards_of(number)) for number in self.layout.clusters}
            found = next_move(members, sizes, resting={*self._resting, *twice}, pinned=self._pinned)
        if found is not None:
            self.moving, self._began_at = found, now
        return found

    def _has_ended(self, owners: Mapping[int, str], whole: bool, takers: Collection[str], now: float) -> bool:
        move = self.moving
        assert move is not None
        if whole and owners.get(move.cluster) == move.receiver:
            self.done += 1
            self.last = f"cluster {move.cluster} went from {move.sender} to {move.receiver}"
            if move.asked:
                self._pin(move.cluster, now)
        elif now - self._began_at > MOVE_WITHIN_S:
            self.failed += 1
            self.last = f"cluster {move.cluster} did not get from {move.sender} to {move.receiver}"
            self._resting[move.cluster] = now + REST_AFTER_FAILURE_S
        elif move.receiver not in takers:
            # The order is not repeated: the cluster would be without an owner until that member is back.
            self.failed += 1
            self.last = f"cluster {move.cluster} does not go to {move.receiver}, which has left"
        else:
            return False
        self.moving = None
        self._free_at = now + BETWEEN_MOVES_S
        return True

    def _next_asked(
        self,
        members: Sequence[BalanceMember],
        owners: Mapping[int, str],
        resting: Collection[int],
        now: float,
    ) -> Move | None:
        for wish in [each for each in self._asked if each.cluster not in resting]:
            self._asked.remove(wish)
            sender = owners[wish.cluster]
            receiver = next((each for each in members if each.name == wish.receiver), None)
            if sender == wish.receiver:
                self._pin(wish.cluster, now)
            elif receiver is None or not receiver.may_run(wish.cluster):
                self.failed += 1
                self.last = f"cluster {wish.cluster} does not go to {wish.receiver}, which has left"
            else:
                return Move(wish.cluster, sender, receiver.name, asked=True)
        return None

    def _pin(self, cluster: int, now: float) -> None:
        self._pinned[cluster] = now + PINNED_S

    def _owners(self, seen: Sequence[SeenMember]) -> dict[int, str]:
        found: dict[int, tuple[int, str]] = {}
        for each in seen:
            for view in each.said.clusters:
                if view.cluster in self.layout.clusters:
                    found[view.cluster] = max(found.get(view.cluster, (0, "")), (view.epoch, each.name))
        return {cluster: name for cluster, (_, name) in found.items()}

    def _runs(self, each: SeenMember, now: float) -> bool:
        """Whether the member runs this layout, and was heard of just now: one that died is not known to be gone yet."""
        return each.said.generation == self.generation and now - each.heard_at < SILENT_AFTER_S


def balance_member(each: SeenMember, owned: Iterable[int], layout: Layout) -> BalanceMember:
    """Return a member with these clusters as the spread sees it."""
    said = each.said
    may_run = [number for number in layout.clusters if said.allowed is None or number in said.allowed]
    return BalanceMember(
        each.name,
        frozenset(owned),
        None if said.allowed is None else frozenset(said.allowed),
        takes=not said.deaf,
        leaving=said.leaving,
        shares=tuple(frozenset(share) for share in spread(may_run, said.processes)),
    )
