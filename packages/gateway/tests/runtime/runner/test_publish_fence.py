"""Events are held while another member may own the cluster, and not for ever."""

from __future__ import annotations

from rateway.runtime.runner.publish_fence import HOLD_MOST_S, PublishFence


class Sink:
    connected = True

    def __init__(self) -> None:
        self.held = False

    def hold(self, held: bool) -> None:
        self.held = held


class Scene:
    def __init__(self) -> None:
        self.now = 0.0
        self.right = True
        self.sink = Sink()
        self.fence = PublishFence(1, self.sink, lambda: self.right, lambda: self.now)

    def held_after(self, seconds: float, *, right: bool) -> bool:
        self.now += seconds
        self.right = right
        self.fence.look()
        return self.sink.held


def test_without_the_right_events_are_held_until_it_is_back() -> None:
    it = Scene()
    it.fence.begin()
    assert not it.held_after(1, right=True)
    assert it.held_after(1, right=False)
    assert it.held_after(HOLD_MOST_S - 1, right=False)
    assert not it.held_after(1, right=True)
    assert it.held_after(1, right=False)


def test_outside_of_a_tenure_nothing_is_held() -> None:
    it = Scene()
    assert not it.held_after(1, right=False)
    it.fence.begin()
    assert it.held_after(1, right=False)
    it.fence.end()
    assert not it.sink.held
    assert not it.held_after(1, right=False)


def test_a_right_that_does_not_come_back_while_the_broker_takes_events_holds_them_for_so_long_only() -> None:
    it = Scene()
    it.fence.begin()
    assert it.held_after(1, right=False)
    # Nothing could be published.
    it.sink.connected = False
    assert it.held_after(10 * HOLD_MOST_S, right=False)
    it.sink.connected = True
    assert it.held_after(1, right=False)
    assert it.held_after(HOLD_MOST_S - 1, right=False)
    assert not it.held_after(1, right=False)
    assert not it.held_after(1000, right=False)
    # It is the same the next time.
    assert not it.held_after(1, right=True)
    assert it.held_after(1, right=False)
