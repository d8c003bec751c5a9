"""What a session keeps for a resume, and for how long."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st
from rateway_simulator.gateway.sessions import Refusal, Session, buffer_size, message
from rateway_simulator.judge.limits import Window


def _session(capacity: int = 100, keep_seconds: float = 180.0) -> Session:
    return Session(
        id="s",
        shard=0,
        shard_count=1,
        intents=0,
        large_threshold=50,
        query=("10", "json", ""),
        host=0,
        capacity=capacity,
        keep_seconds=keep_seconds,
        presences=Window(5, 20.0),
    )


def _filled(amount: int, capacity: int = 100) -> Session:
    session = _session(capacity)
    for number in range(1, amount + 1):
        assert session.append((b"E", b"%d" % number), 0.0) == number
    return session


def test_the_buffer_is_as_large_as_discord_is_said_to_make_it() -> None:
    assert [buffer_size(guilds) for guilds in (0, 1, 2, 40, 47, 2500)] == [100, 100, 150, 3000, 3500, 3500]


def test_a_message_has_name_number_and_data() -> None:
    assert message(b"E", 7, b'{"a":1}') == b'{"t":"E","s":7,"op":0,"d":{"a":1}}'


def test_a_replay_has_what_follows_in_order() -> None:
    session = _filled(5)
    assert session.replay(3) == [message(b"E", 4, b"4"), message(b"E", 5, b"5")]
    assert session.replay(5) == []


@given(st.integers(0, 40), st.integers(1, 10), st.lists(st.integers(0, 50), max_size=5), st.integers(-1, 60))
def test_a_resume_is_granted_exactly_when_nothing_after_its_sequence_is_forgotten(
    amount: int, capacity: int, named: list[int], seq: int
) -> None:
    session = _filled(amount, capacity)
    named = [min(value, amount) for value in named]
    for value in named:
        session.name(value)
    kept_from = max([amount - capacity, 0, *named])
    refusal = session.refusal(seq, 0.0)
    if seq <= 0:
        assert refusal is Refusal.NONE
    elif seq > amount:
        assert refusal is Refusal.AHEAD
    elif seq < kept_from:
        assert refusal is Refusal.FORGOTTEN
    else:
        assert refusal is None
        assert session.replay(seq) == [message(b"E", n, b"%d" % n) for n in range(seq + 1, amount + 1)]


def test_a_run_of_events_is_numbered_as_single_ones_are() -> None:
    session = _filled(2)
    assert session.extend([(b"E", b"3"), (b"E", b"4")], 2, 1.0) == 3
    assert session.seq == 4 and session.forgotten == 0
    assert session.replay(2) == [message(b"E", 3, b"3"), message(b"E", 4, b"4")]


def test_old_events_are_forgotten_before_young_ones() -> None:
    session = _session(keep_seconds=10.0)
    for number in range(20):
        session.append((b"E", b"0"), float(number))
    assert session.refusal(1, 9.0) is None
    # At 25 s, what came before second 15 (events 1 to 15) is older than 10 s.
    assert session.refusal(14, 25.0) is Refusal.FORGOTTEN
    assert session.refusal(15, 25.0) is None
    assert session.refusal(19, 100.0) is Refusal.FORGOTTEN
    assert session.refusal(20, 100.0) is None


def test_a_session_without_a_connection_expires() -> None:
    session = _session(keep_seconds=10.0)
    assert not session.expired(1000.0)
    session.detached_at = 5.0
    assert not session.expired(15.0) and session.expired(15.1)


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=60), st.floats(0.0, 5.0))
def test_what_is_younger_than_the_buffer_keeps_is_there_and_what_is_older_goes(
    gaps: list[float], later: float
) -> None:
    session = _session(keep_seconds=5.0)
    times = list(accumulate(gaps))
    for number, at in enumerate(times, 1):
        session.append((b"E", b"%d" % number), at)
        session.age(at)
    now = times[-1] + later
    session.age(now)
    # A fifth of a second on either side: ages are known in steps.
    assert session.forgotten <= sum(1 for at in times if now - at >= 4.8)
    assert session.forgotten >= sum(1 for at in times if now - at > 5.2)
