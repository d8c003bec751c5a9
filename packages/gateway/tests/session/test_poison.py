"""What cannot be read costs itself alone, or the session once; it never comes for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway.session import actions
from rateway.session.actions import State, StoredSession
from tests.session.driver import GATEWAY, RESUME, Driver, options, stored

BROKEN = [
    b'{"op":0,"t":"A","s":2,"d":[}',
    b'{"op":0,"t":"A","s":2,"d":"no end}',
    b"\xff\xfe\x00",
    b'{"op":0,"t":"A","s":2,"d":"' + b"x" * 3000 + b'"}',
]


def small(**changes: Any) -> Any:
    return options(max_message_bytes=2000, **changes)


def again(driver: Driver, message: bytes) -> None:
    """The connection that was ordered, up to its RESUME; then *message*, as a replay has it."""
    driver.until(State.CONNECTING)
    driver.open()
    driver.hello()
    assert driver.state() is State.RESUMING
    driver.raw(message)


@pytest.mark.checklist("K7", "K9")
@pytest.mark.parametrize("message", BROKEN, ids=["brackets", "no end", "bytes", "too large"])
def test_what_fails_twice_at_the_same_sequence_ends_the_session_with_its_reason(message: bytes) -> None:
    driver = Driver(settings=small()).live()
    driver.raw(message)
    assert driver.session() == "first" and driver.all(actions.SessionLost) == []
    again(driver, message)
    lost = driver.last(actions.SessionLost)
    assert (lost.session_id, lost.received_seq) == ("first", 1)
    assert lost.reason.startswith("twice a message that cannot be read: ")
    assert all(order.code == 4900 for order in driver.all(actions.Disconnect))
    driver.reconnected()
    driver.ready("second")
    assert driver.state() is State.LIVE and driver.conversation.failed_at == 0


@pytest.mark.checklist("K9")
def test_a_message_beyond_the_bound_is_tried_twice_and_never_again() -> None:
    driver = Driver(settings=small()).live()
    resumes = 0
    while driver.session() == "first":
        driver.raw(BROKEN[3])
        if driver.session() == "first":
            resumes += 1
            driver.until(State.CONNECTING)
            driver.open()
            driver.hello()
    assert resumes == 1
    assert "2000" in driver.last(actions.SessionLost).reason


@pytest.mark.checklist("K7")
def test_a_resumed_between_the_failures_is_no_progress_and_an_event_is() -> None:
    driver = Driver(settings=small()).live()
    driver.raw(b"{")
    driver.reconnected()
    driver.resumed()
    driver.dispatch()
    driver.raw(b"{")
    assert driver.session() == "first"
    driver.reconnected()
    driver.resumed()
    driver.raw(b"{")
    assert driver.session() is None


def test_a_connection_that_was_live_for_long_is_not_charged_with_an_older_failure() -> None:
    driver = Driver(settings=small()).live()
    for _ in range(5):
        driver.raw(b"{")
        assert driver.session() == "first"
        driver.reconnected()
        driver.resumed()
        driver.advance(61.0)


@pytest.mark.checklist("K9")
def test_a_restart_remembers_the_first_failure() -> None:
    driver = Driver(StoredSession("stored", RESUME, 90, None, 100), settings=small())
    driver.seq = 90
    driver.start()
    driver.reconnected()
    for _ in range(10):
        driver.dispatch()
    driver.raw(b"{")
    assert driver.last(actions.SessionLost).received_seq == 100
    fresh = Driver(stored(100), settings=small()).start()
    fresh.reconnected()
    fresh.raw(b"{")
    assert fresh.session() == "stored" and fresh.conversation.failed_at == 100


@pytest.mark.checklist("K9")
def test_what_the_shell_refused_counts_as_what_could_not_be_read() -> None:
    driver = Driver(settings=small()).live()
    for _ in range(2):
        driver.fact("closed", None, driver.now, unreadable="a frame of 999 bytes")
        if driver.session():
            driver.reconnected()
    assert "a frame of 999 bytes" in driver.last(actions.SessionLost).reason


@pytest.mark.checklist("K8")
@pytest.mark.parametrize("s", [10**18 - 1, 10**18, 2**63 - 1, 2**63, 10**30, 10**400])
def test_a_sequence_of_any_size_is_forwarded_and_the_session_lives(s: int) -> None:
    driver = Driver().live()
    driver.dispatch(s=s)
    driver.dispatch(d="next")
    known = s if s < 2**63 else None
    assert [envelope.s for envelope, _, _ in driver.delivered] == [1, known, 3]
    assert driver.state() is State.LIVE


hostile = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(lambda d: b'{"op":0,"t":"A","s":7,"d":' + d + b"}"),
    st.binary(max_size=20).map(lambda t: b'{"op":0,"t":"' + t + b'","s":7,"d":1}'),
    st.binary(max_size=20).map(lambda s: b'{"op":0,"t":"A","s":' + s + b',"d":1}'),
    st.integers(-(10**40), 10**40).map(lambda s: b'{"op":0,"t":"A","s":%d,"d":1}' % s),
    st.integers(1, 3000).map(lambda n: b'{"op":0,"t":"A","s":7,"d":' + b"[" * n + b"]" * n + b"}"),
    st.sampled_from([b"x" * 5000, b'{"op":' + b"9" * 1500 + b',"s":8}', b"[" * 1500]),
)


@pytest.mark.checklist("K5", "K6", "K7", "K8", "K9")
@settings(max_examples=200)
@given(st.lists(hostile, max_size=6), st.sampled_from(["none", "zstd-stream", "zlib-stream"]))
def test_a_replay_that_holds_hostile_messages_ends_in_a_live_session(
    poison: list[bytes], compression: str
) -> None:
    """Discord sends what was not acknowledged again on every connection, hostile messages included."""
    driver = Driver(settings=small(compression=compression)).live()
    messages = [*poison, json.dumps({"op": 0, "t": "LAST", "s": 99, "d": 1}).encode()]
    connections = 0
    while "LAST" not in driver.names() and driver.session() == "first":
        for message in messages:
            if driver.state() in (State.LIVE, State.RESUMING):
                # A message that begins so is none that Discord's compressor has made.
                torn = message[:1] in (b"t", b"\x00", b"(")
                driver.raw(message if torn else driver.wire.pack(message))
        if driver.state() not in (State.LIVE, State.RESUMING):
            connections += 1
            # At most twice at each of the places that the hostile messages make.
            assert connections <= 2 * len(poison) + 2
            driver.until(State.CONNECTING)
            driver.open()
            driver.hello()
    assert "LAST" in driver.names() or driver.all(actions.SessionLost)
    assert all(order.code == 4900 for order in driver.all(actions.Disconnect))


@pytest.mark.checklist("K69")
@pytest.mark.parametrize(
    "odd",
    [rb'"name\ud800"', b"[1,]", b"007", b'"\x00"', b"[" * 50_000 + b"]" * 50_000],
    ids=["surrogate", "comma", "zeros", "control", "deep"],
)
def test_a_ready_with_an_odd_value_begins_a_session_at_once(odd: bytes) -> None:
    """It came again with every identify, and a day's identifies are few."""
    driver = Driver().start()
    driver.reconnected()
    ready = b'{"op":0,"t":"READY","s":1,"d":{"user":%b,"session_id":"first","resume_gateway_url":"%b"}}'
    driver.raw(ready % (odd, RESUME.encode()))
    assert driver.state() is State.LIVE and driver.session() == "first"
    assert driver.conversation.resume_url == RESUME
    assert len(driver.all(actions.Identify)) == 1
    assert driver.names() == ["READY"] and bytes(driver.delivered[0][0].d).count(odd) == 1


@pytest.mark.checklist("K70")
@pytest.mark.parametrize(
    "host", ["a..discord.test", "." * 9, "a" * 64 + ".discord.test", "\u200d.discord.test"]
)
def test_an_address_to_resume_at_that_cannot_be_looked_up_is_not_used(host: str) -> None:
    driver = Driver().start()
    driver.reconnected()
    driver.ready(url=f"wss://{host}")
    assert driver.state() is State.LIVE
    driver.fact("closed", None, driver.now)
    driver.until(State.CONNECTING)
    assert driver.last(actions.Connect).url.startswith(GATEWAY)
    stored_there = Driver(StoredSession("stored", f"wss://{host}", 9)).start()
    assert stored_there.last(actions.Connect).url.startswith(GATEWAY)
    assert stored_there.last(actions.Connect).resuming
