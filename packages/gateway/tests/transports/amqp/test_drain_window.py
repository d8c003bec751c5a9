"""How much of a spool is unconfirmed at once, in time."""

from __future__ import annotations

from rateway.delivery.limits import DeliveryLimits
from rateway.transports.amqp.events.drain_window import DrainWindow


def test_it_doubles_while_the_spool_is_drained_up_to_a_bound_and_is_small_again_for_the_next_time() -> None:
    window = DrainWindow(DeliveryLimits(drain_window=50, drain_grows_after=5.0, drain_window_most=150))
    sizes = []
    for now, is_draining in ((0.0, False), (4.9, True), (5.0, True), (9.9, True), (10.0, True), (15.0, True)):
        window.look(now, is_draining=is_draining)
        sizes.append(window.size)
    assert sizes == [50, 50, 100, 100, 150, 150]
    window.look(16.0, is_draining=False)
    assert window.size == 50
    window.look(20.9, is_draining=True)
    assert window.size == 50
    window.look(21.0, is_draining=True)
    assert window.size == 100


def test_a_first_bound_above_the_last_one_is_kept() -> None:
    window = DrainWindow(DeliveryLimits(drain_window=300, drain_grows_after=1.0, drain_window_most=150))
    window.look(0.0, is_draining=False)
    window.look(1.0, is_draining=True)
    assert window.size == 300
