"""The election against the model of its queue: whatever happens to whom, its promises hold, and it comes to an end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway.fleet.port import FleetRecord
from rateway.fleet.tenure import DOUBT_S, MOST_YIELDS, QUEUE_LENGTH, Publish, SubjectElection
from tests.election.queue_model import Member, World

MEMBERS = "abc"

# One beyond the last: the owner, whoever that is.
_whom = st.integers(0, len(MEMBERS))
_few = st.integers(0, 4)
_hundredths = st.sampled_from([1, 10, 50, 110, 300])
_SIMPLE = [
    "flow",
    "write",
    "cut",
    "suspect",
    "lose",
    "isolate",
    "mend",
    "freeze",
    "thaw",
    "drop",
    "away",
    "back",
]
_steps = st.one_of(
    st.tuples(st.sampled_from(["ops", "receive", "confirm"]), _whom, _few),
    st.tuples(st.sampled_from(["time", "prompt"]), _whom, _hundredths),
    st.tuples(st.sampled_from(["prompt"]), _whom, _hundredths),
    st.tuples(st.sampled_from(_SIMPLE), _whom, _few),
    st.tuples(st.sampled_from(["isolate", "mend", "write"]), _whom, _few),
    st.tuples(st.just("release"), _whom, st.integers(0, len(MEMBERS))),
)


def _step(world: World, kind: str, whom: int, amount: int) -> None:
    owners = [each for each in world.members if each.election.epoch is not None]
    member = owners[0] if whom == len(MEMBERS) and owners else world.members[whom % len(MEMBERS)]
    match kind:
        case "ops":
            world.pass_ops(member, amount)
        case "receive" | "confirm":
            for _ in range(amount):
                member.receive(kind == "confirm")
        case "time" | "prompt":
            world.pass_time(amount / 100, prompt=kind == "prompt")
        case "flow":
            world.flow()
        case "write":
            if not member.is_frozen:
                member.write()
        case "release":
            if not member.is_frozen:
                member.release([*MEMBERS, ""][amount])
        case "cut":
            world.cut(member)
        case "isolate":
            world.cut(member)
            world.suspect(member, loses=amount == 0)
        case "suspect" | "lose":
            world.suspect(member, loses=kind == "lose")
        case "mend":
            world.mend(member)
        case "freeze":
            member.is_frozen = True
        case "thaw":
            world.thaw(member)
        case "drop":
            world.drop(member, amount)
        case "away":
            member.is_connected = False
            world.drop(member, amount)
        case "back":
            member.is_connected = True
    world.check()


@settings(max_examples=150)
@given(st.lists(_steps, min_size=20, max_size=150), st.sampled_from([0.0, 0.0, 0.0, 0.01]))
def test_whatever_happens_the_right_is_one_members_and_no_confirmed_record_is_lost(
    steps: list[tuple[str, int, int]], latency: float
) -> None:
    world = World(MEMBERS)
    world.pass_time(10, prompt=True)
    assert len(world.tenures) == 1
    for kind, whom, amount in steps:
        _step(world, kind, whom, amount)
    world.settle(latency)
    owners = [member for member in world.members if member.has_right()]
    assert len(owners) == 1
    # It is an end: nobody loses it afterwards, and the queue keeps little.
    tenures = len(world.tenures)
    world.pass_time(120, prompt=True)
    assert [member for member in world.members if member.has_right()] == owners
    assert len(world.tenures) == tenures
    assert len(world.queue.records()) <= 4


def _isolate(world: World, member: Member) -> None:
    world.cut(member)
    world.suspect(member, loses=False)


def _two() -> tuple[World, Member, Member]:
    """The owner and its heir, both connected."""
    world = World("ab")
    world.pass_time(10, prompt=True)
    owner, heir = sorted(world.members, key=lambda each: not each.has_right())
    assert owner.has_right()
    return world, owner, heir


def test_an_owner_that_is_back_before_another_has_claimed_keeps_its_tenure() -> None:
    world, owner, _ = _two()
    # However often that happens.
    for _ in range(5):
        world.drop(owner, 0)
        world.pass_time(2, prompt=True)
        world.settle()
        assert owner.has_right()
    assert owner.lost == 0
    assert len(world.tenures) == 1


def test_a_replaced_owner_that_stays_connected_finds_out() -> None:
    world, owner, heir = _two()
    _isolate(world, owner)
    world.pass_time(5, prompt=True)
    assert heir.has_right()
    assert owner.lost == 0
    world.mend(owner)
    world.pass_time(DOUBT_S + 3, prompt=True)
    assert owner.lost == 1
    assert heir.has_right()


def test_a_candidate_that_was_not_active_all_the_time_collects_again() -> None:
    world, owner, heir = _two()
    _isolate(world, owner)
    world.pass_time(2.5, prompt=True)
    # The queue gives the subject back to the owner, who is confirmed a write, and then to the heir again. More often
    # than a candidate lets a living owner have it back by itself.
    for _ in range(MOST_YIELDS + 1):
        _isolate(world, heir)
        world.mend(owner)
        world.pass_time(0.3, prompt=True)
        assert owner.has_right()
        _isolate(world, owner)
        world.mend(heir)
        world.pass_time(2.5, prompt=True)
        assert not heir.has_right()
    world.pass_time(3, prompt=True)
    assert heir.has_right()
    assert len(world.tenures) == 2


def test_a_claim_that_arrives_after_the_owner_was_active_once_more_does_not_stand() -> None:
    world, owner, heir = _two()
    _isolate(world, owner)
    world.pass_time(2.9, prompt=True)
    # Its claim is written, and stays on the way.
    world.cut(heir)
    world.pass_time(0.2, prompt=True)
    world.suspect(heir, loses=False)
    world.mend(owner)
    world.pass_time(0.3, prompt=True)
    assert owner.has_right()
    _isolate(world, owner)
    world.mend(heir)
    world.pass_time(2.5, prompt=True)
    assert not heir.has_right()
    world.pass_time(3, prompt=True)
    assert heir.has_right()
    assert world.tenures[-1][1].epoch == 3


def test_two_candidates_never_begin_the_same_epoch() -> None:
    world = World(MEMBERS)
    world.pass_time(10, prompt=True)
    owner = next(each for each in world.members if each.has_right())
    owner.is_connected = False
    first, second = [link.member for link in world.queue.line]
    world.drop(owner, 0)
    world.pass_time(2.9, prompt=True)
    # The claim of the first stays on the way.
    world.cut(first)
    world.pass_time(0.2, prompt=True)
    world.suspect(first, loses=False)
    world.flow()
    # That of the second stands, and its first record stays on the way.
    world.pass_time(3.1, prompt=False)
    world.pass_ops(second, 1)
    second.receive(confirm=False)
    _isolate(world, second)
    world.mend(first)
    world.flow()
    assert first.election.epoch is None
    world.mend(second)
    world.settle()
    assert [owned.epoch for _, owned in world.tenures] == [1, 3]


def test_an_owner_whose_silent_channel_is_still_the_active_one_keeps_its_tenure() -> None:
    world, owner, _ = _two()
    # Its node says nothing any more, and it has connected to another one.
    silent = owner.link
    assert silent is not None
    silent.is_cut = True
    owner.disconnect()
    world.pass_time(10, prompt=True)
    assert not owner.has_right()
    # The node is given up.
    world.queue.leave(silent)
    world.links.remove(silent)
    world.pass_time(5, prompt=True)
    assert owner.has_right()
    assert owner.lost == 0
    assert len(world.tenures) == 1


@pytest.mark.parametrize("after_ms", range(0, 780, 60))
def test_a_release_to_an_owner_that_was_replaced_and_writes_on_has_a_next_owner_in_seconds(
    after_ms: int,
) -> None:
    world, owner, heir = _two()
    _isolate(world, owner)
    world.pass_time(5, prompt=True)
    assert heir.has_right()
    # It is back, in line behind its heir, and writes its old body until it knows; the heir releases the subject to it.
    world.mend(owner)
    world.pass_time_with_latency(0.5 + after_ms / 1000, 0.003)
    # What the old owner writes lands behind the released record.
    world.cut(owner)
    world.pass_time_with_latency(0.8, 0.003)
    heir.release(owner.name)
    world.pass_time_with_latency(0.006, 0.003)
    world.mend(owner)
    won = len(world.tenures)
    world.pass_time_with_latency(12.0, 0.003)
    assert sum(member.has_right() for member in world.members) == 1
    assert len(world.tenures) > won
    assert len(world.queue.records()) < QUEUE_LENGTH / 2


def test_a_claim_that_was_interrupted_is_no_reason_to_leave_the_place() -> None:
    heir = SubjectElection("b")
    heir.campaign()
    heir.opened(100.0, False)
    released, stale = FleetRecord(2, 8, "a", True, "b", b"x"), FleetRecord(1, 16, "c", body=b"x")
    assert heir.delivered(100.0, 1, released) == [Publish(FleetRecord(3, 0, "b"))]
    # The record of an owner before that begins a collection of three seconds; what was claimed meanwhile is void.
    assert heir.delivered(100.0, 2, stale) == []
    assert heir.delivered(100.01, 3, FleetRecord(3, 0, "b")) == []
    heir.confirmed(100.02, 1, False)
    wake = heir.wake_at()
    assert wake is not None and wake > 102.9
    assert heir.tick(wake) == [Publish(FleetRecord(4, 0, "b"))]
    began = heir.delivered(wake + 0.01, 4, FleetRecord(4, 0, "b"))
    assert began == [Publish(FleetRecord(4, 1, "b", body=b"x"))]


def test_a_claim_of_a_former_process_of_the_same_member_is_not_taken_for_this_ones() -> None:
    # Killed with (5, 0) and (5, 1) written and what it had acknowledged lost: all of that is delivered again.
    again = SubjectElection("c", b"second")
    again.campaign()
    again.opened(100.0, False)
    released = FleetRecord(4, 9, "a", True, "c", b"older")
    assert again.delivered(100.0, 1, released) == [Publish(FleetRecord(5, 0, "c", body=b"second"))]
    assert again.delivered(100.0, 2, FleetRecord(5, 0, "c", body=b"first")) == []
    assert again.delivered(100.0, 3, FleetRecord(5, 1, "c", body=b"newest")) == []
    wake = again.wake_at()
    assert wake is not None
    (claim,) = again.tick(wake)
    assert claim == Publish(FleetRecord(6, 0, "c", body=b"second"))
    began = again.delivered(wake, 4, claim.record)
    assert began == [Publish(FleetRecord(6, 1, "c", body=b"newest"))]
