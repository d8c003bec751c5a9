"""The election against the model of its queue: whatever happens to whom, its promises hold, and it comes to an end."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.election.queue_model import World

MEMBERS = "abc"

_whom = st.integers(0, len(MEMBERS) - 1)
_few = st.integers(0, 4)
_steps = st.one_of(
    st.tuples(st.just("ops"), _whom, _few),
    st.tuples(st.just("receive"), _whom, _few),
    st.tuples(st.just("confirm"), _whom, _few),
    st.tuples(st.just("time"), _whom, st.sampled_from([1, 10, 50, 110, 300])),
    st.tuples(st.just("prompt"), _whom, st.sampled_from([1, 10, 50, 110, 300, 1000])),
    st.tuples(
        st.sampled_from(["flow", "write", "cut", "suspect", "lose", "mend", "freeze", "thaw"]), _whom, _few
    ),
    st.tuples(st.just("release"), _whom, st.integers(0, len(MEMBERS))),
    st.tuples(st.sampled_from(["drop", "away", "back"]), _whom, _few),
)


def _step(world: World, kind: str, whom: int, amount: int) -> None:
    member = world.members[whom]
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
@given(st.lists(_steps, min_size=20, max_size=150))
def test_whatever_happens_the_right_is_one_members_and_no_confirmed_record_is_lost(
    steps: list[tuple[str, int, int]],
) -> None:
    world = World(MEMBERS)
    world.pass_time(10, prompt=True)
    assert len(world.tenures) == 1
    for kind, whom, amount in steps:
        _step(world, kind, whom, amount)
    world.settle()
    owners = [member for member in world.members if member.has_right()]
    assert len(owners) == 1
    # It is an end: nobody loses it afterwards, and the queue keeps little.
    tenures = len(world.tenures)
    world.pass_time(120, prompt=True)
    assert [member for member in world.members if member.has_right()] == owners
    assert len(world.tenures) == tenures
    assert len(world.queue.records()) <= 4
