"""When shards dial whose cluster's owner may have been replaced."""

from __future__ import annotations

from rateway.fleet.dial_right import AGAIN_S, FIRST_S, SILENT_S, TAKEN_BACK_AGAIN_S, DialRight
from rateway.fleet.port import RIGHT_S


def at(
    right: DialRight,
    shard_id: int,
    *,
    resuming: bool,
    confirmed_at: float | None,
    now: float,
    silent_s: float | None = 0.0,
    asked: bool = False,
) -> float | None:
    return right.dial_at(
        shard_id, resuming=resuming, asked=asked, silent_s=silent_s, confirmed_at=confirmed_at, now=now
    )


def test_with_the_right_a_shard_dials_at_once_whether_it_resumes_or_identifies() -> None:
    right = DialRight()
    for resuming in (True, False):
        assert at(right, 0, resuming=resuming, confirmed_at=98.0, now=100.0) == 100.0


def test_without_the_right_no_shard_identifies_however_long_it_waits() -> None:
    right = DialRight()
    for now in (100.0, 1_000.0, 100_000.0):
        assert at(right, 0, resuming=False, confirmed_at=now - RIGHT_S, now=now) is None
        assert at(right, 0, resuming=False, confirmed_at=None, now=now) is None


def test_without_the_right_a_shard_resumes_ten_seconds_after_its_connections_end_and_then_once_a_minute() -> (
    None
):
    right = DialRight()
    assert at(right, 0, resuming=True, confirmed_at=50.0, now=100.0) == 100.0 + FIRST_S
    # Asked again, it is the same attempt.
    assert at(right, 0, resuming=True, confirmed_at=50.0, now=105.0) == 100.0 + FIRST_S
    right.dialled(0, 110.0)
    assert at(right, 0, resuming=True, confirmed_at=50.0, now=112.0) == 110.0 + AGAIN_S
    right.dialled(0, 170.0)
    assert at(right, 0, resuming=True, confirmed_at=50.0, now=171.0) == 170.0 + AGAIN_S
    # Another shard has attempts of its own.
    assert at(right, 1, resuming=True, confirmed_at=50.0, now=171.0) == 171.0 + FIRST_S


def test_the_right_that_is_back_ends_every_wait_and_the_next_outage_begins_anew() -> None:
    right = DialRight()
    assert at(right, 0, resuming=True, confirmed_at=None, now=100.0) == 110.0
    right.dialled(0, 110.0)
    assert at(right, 0, resuming=True, confirmed_at=119.0, now=120.0) == 120.0
    right.dialled(0, 120.0)
    assert at(right, 0, resuming=True, confirmed_at=119.0, now=200.0) == 200.0 + FIRST_S


def test_a_session_that_is_taken_back_at_once_is_left_to_its_successor_for_long() -> None:
    right = DialRight()
    for shard_id in (0, 1):
        at(right, shard_id, resuming=True, confirmed_at=None, now=100.0)
        right.dialled(shard_id, 110.0)
        right.resumed(shard_id, 111.0)
    assert at(right, 0, resuming=True, confirmed_at=None, now=113.0) == 113.0 + TAKEN_BACK_AGAIN_S
    # The other one lived on for minutes: nobody took it.
    assert at(right, 1, resuming=True, confirmed_at=None, now=400.0) == 110.0 + AGAIN_S
    # With the right nothing waits.
    assert at(right, 0, resuming=True, confirmed_at=119.0, now=120.0) == 120.0


def test_a_shard_that_discord_asks_to_reconnect_soon_after_its_resume_was_not_taken_back() -> None:
    right = DialRight()
    for silent_s in (0.0, None):
        now = 100.0
        at(right, 0, resuming=True, asked=True, silent_s=silent_s, confirmed_at=None, now=now)
        for _ in range(3):
            right.dialled(0, now + FIRST_S)
            right.resumed(0, now + FIRST_S + 1)
            found = at(
                right, 0, resuming=True, asked=True, silent_s=silent_s, confirmed_at=None, now=now + 20
            )
            assert found == now + FIRST_S + AGAIN_S
            now = found - FIRST_S
        right = DialRight()


def test_a_cluster_whose_connections_have_all_ended_unasked_is_left_to_its_likely_successor() -> None:
    right = DialRight()
    for now in (100.0, 110.0, 1_000.0):
        assert at(right, 0, resuming=True, silent_s=None, confirmed_at=50.0, now=now) is None
    # Another shard is live after all: nobody took them, and it has waited long enough.
    assert at(right, 0, resuming=True, silent_s=0.0, confirmed_at=50.0, now=1_000.0) == 100.0 + FIRST_S
    assert at(right, 0, resuming=True, silent_s=None, confirmed_at=1_001.0, now=1_002.0) == 1_002.0


def test_a_cluster_that_hears_nothing_of_discord_waits_until_it_has_heard_it_for_a_while() -> None:
    right = DialRight()
    assert at(right, 0, resuming=True, silent_s=2.0, confirmed_at=50.0, now=100.0) == 110.0
    # The network is gone, and other shards have not noticed yet.
    for now in (104.0, 110.0, 128.0):
        found = at(right, 0, resuming=True, silent_s=SILENT_S + 0.1, confirmed_at=50.0, now=now)
        assert found == max(110.0, now + FIRST_S)
    # It is back.
    assert at(right, 0, resuming=True, silent_s=0.1, confirmed_at=50.0, now=130.0) == 138.0
    # Asked or not.
    assert at(right, 1, resuming=True, asked=True, silent_s=20.0, confirmed_at=50.0, now=130.0) == 140.0
    assert at(right, 1, resuming=True, asked=True, silent_s=30.0, confirmed_at=50.0, now=140.0) == 150.0
    # Discord has asked all shards to reconnect: none can hear.
    assert at(right, 2, resuming=True, asked=True, silent_s=None, confirmed_at=50.0, now=130.0) == 140.0
    assert at(right, 2, resuming=True, asked=True, silent_s=None, confirmed_at=50.0, now=140.0) == 140.0


def test_a_connection_that_took_long_to_open_is_not_used_without_the_right() -> None:
    right = DialRight()
    right.dialled(0, 100.0)
    assert right.may_open(0, confirmed_at=None, now=100.5)
    assert not right.may_open(0, confirmed_at=None, now=100.0 + RIGHT_S)
    assert right.may_open(0, confirmed_at=119.0, now=120.0)
