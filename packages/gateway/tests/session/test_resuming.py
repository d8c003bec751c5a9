"""What ends a connection, what becomes of the session, and when the next attempt is made."""

from __future__ import annotations

from typing import Any

import pytest
from rateway.session import actions
from rateway.session.actions import DialFailure, State, StoredSession
from rateway.session.options import SessionOptions
from rateway.session.reconnect import (
    Breaker,
    Delays,
    EndpointSelector,
    JitteredBackoff,
    Patience,
    gateway_address,
)
from rateway_protocol.discord.close_codes import END_SESSION, KEEP_SESSION
from tests.session.driver import (
    GATEWAY,
    INTERVAL,
    RESUME,
    Driver,
    Least,
    Most,
    long_presence,
    options,
    presence,
    stored,
)


def lost(driver: Driver) -> list[str]:
    return [order.session_id for order in driver.all(actions.SessionLost)]


@pytest.mark.checklist("B1")
@pytest.mark.parametrize("fact", [("reconnect", "a new version"), ("stop",)])
def test_our_own_closes_keep_the_session(fact: tuple[str, ...]) -> None:
    driver = Driver().live()
    if fact[0] == "stop":
        driver.fact("stop", driver.now, end_session=False)
        assert driver.state() is State.STOPPED
    else:
        driver.fact(*fact, driver.now)
        assert driver.state() is State.CONNECTING
    assert driver.last(actions.Disconnect).code == KEEP_SESSION
    assert driver.session() == "first"
    assert lost(driver) == []


@pytest.mark.checklist("B2")
def test_a_stop_for_good_closes_with_1000_and_never_resumes() -> None:
    driver = Driver().live()
    driver.fact("stop", driver.now, end_session=True)
    assert driver.last(actions.Disconnect).code == END_SESSION == 1000
    assert driver.session() is None
    assert driver.conversation.wake_at is None
    driver.forget()
    driver.fact("closed", 1000, driver.now)
    driver.fact("woken", driver.now + 1000)
    driver.fact("start", driver.now)
    driver.fact("stop", driver.now, end_session=False)
    assert driver.taken == []


def test_a_stop_gives_the_permit_back_or_ends_it() -> None:
    waiting = Driver(permits=False).start()
    waiting.reconnected()
    waiting.fact("stop", waiting.now, end_session=False)
    assert len(waiting.all(actions.ReturnPermit)) == 1
    identifying = Driver().start()
    identifying.reconnected()
    identifying.fact("stop", identifying.now, end_session=False)
    assert identifying.all(actions.PermitDone) == [actions.PermitDone("closed")]


@pytest.mark.checklist("B3")
@pytest.mark.parametrize(
    ("url", "compression", "expected"),
    [
        ("wss://h", "zstd-stream", "wss://h/?v=10&encoding=json&compress=zstd-stream"),
        ("wss://h/", "zlib-stream", "wss://h/?v=10&encoding=json&compress=zlib-stream"),
        ("ws://h:80/x?v=6&y=1#z", "none", "ws://h:80/x?v=10&encoding=json"),
    ],
)
def test_every_address_is_dialled_with_our_own_query(url: str, compression: Any, expected: str) -> None:
    assert gateway_address(url, compression) == expected


@pytest.mark.checklist("B3")
def test_a_resume_goes_to_the_sessions_own_host_with_the_query_of_the_identify() -> None:
    driver = Driver(settings=options(compression="zlib-stream")).live()
    identify_url = driver.url
    driver.fact("closed", None, driver.now)
    assert driver.url == identify_url.replace(GATEWAY, RESUME)
    driver.open()
    driver.hello()
    assert driver.sent(6) == [{"op": 6, "d": {"token": "secret-token", "session_id": "first", "seq": 1}}]


@pytest.mark.checklist("B3", "B22")
def test_a_stored_session_is_resumed_with_its_own_compression_and_the_next_has_the_settings() -> None:
    session = StoredSession("kept", RESUME, 7, "zlib-stream")
    driver = Driver(session, settings=options(compression="zstd-stream")).start()
    assert driver.url.endswith("compress=zlib-stream")
    driver.reconnected()
    driver.dispatch()
    driver.say({"op": 9, "d": False})
    driver.until(State.CONNECTING)
    assert driver.url.endswith("compress=zstd-stream")
    driver.reconnected()
    driver.ready("second")
    assert driver.last(actions.SessionStarted).compression == "zstd-stream"


@pytest.mark.checklist("B4")
def test_a_dead_resume_host_is_left_after_two_failures_for_the_main_one_with_the_same_session() -> None:
    driver = Driver().live()
    driver.fact("closed", None, driver.now)
    dialled = []
    for _ in range(6):
        driver.until(State.CONNECTING)
        dialled.append(driver.url.partition("/?")[0])
        driver.fact("dial_failed", DialFailure("refused"), driver.now)
    # The main host is dead as well: both are tried in turn, for as long as it takes.
    assert dialled == [RESUME, RESUME, GATEWAY, GATEWAY, RESUME, RESUME]
    assert lost(driver) == []
    driver.until(State.CONNECTING)
    driver.open()
    driver.hello()
    assert driver.sent(6)[-1]["d"]["session_id"] == "first"
    driver.say({"op": 9, "d": False})
    assert lost(driver) == ["first"]
    driver.reconnected()
    assert driver.url.startswith(GATEWAY)
    assert len(driver.sent(2)) == 2


@pytest.mark.checklist("B4")
def test_the_main_host_is_kept_once_it_worked_and_a_new_session_has_its_own_again() -> None:
    driver = Driver(stored()).start()
    for _ in range(2):
        driver.fact("dial_failed", DialFailure("refused"), driver.now)
        driver.until(State.CONNECTING)
    driver.reconnected()
    driver.resumed()
    driver.fact("closed", None, driver.now)
    driver.until(State.CONNECTING)
    assert driver.url.startswith(GATEWAY)
    driver.reconnected()
    driver.say({"op": 9, "d": False})
    driver.reconnected()
    driver.ready("second")
    driver.fact("closed", None, driver.now)
    driver.until(State.CONNECTING)
    assert driver.url.startswith(RESUME)


@pytest.mark.checklist("B5")
def test_a_resume_is_given_up_after_three_and_three_minutes_without_progress() -> None:
    driver = Driver(stored(), chance=Most()).start()
    sent_at = []
    while not lost(driver):
        driver.until(State.CONNECTING)
        driver.open()
        driver.hello()
        sent_at.append(driver.now)
        driver.fact("closed", 1006, driver.now)
    assert len(sent_at) >= 3
    assert 180.0 <= driver.now - sent_at[0] < 260.0
    assert sent_at[-2] - sent_at[0] < 180.0
    driver.reconnected()
    assert driver.last(actions.RequestPermit).lost is True


@pytest.mark.checklist("B5")
def test_a_silent_resume_is_given_up_too() -> None:
    driver = Driver(
        stored(), chance=Least(), settings=options(replay_timeout=60.0, resume_patience=180.0)
    ).start()
    began = driver.now
    while not lost(driver):
        driver.reconnected()
        driver.until(State.CONNECTING)
    assert 180.0 <= driver.now - began < 260.0
    assert len(driver.sent(6)) == 3


@pytest.mark.checklist("B5")
def test_failed_dials_and_missing_hellos_never_count_against_a_session() -> None:
    driver = Driver(stored()).start()
    for attempt in range(100):
        driver.until(State.CONNECTING)
        if attempt % 3 == 0:
            driver.fact("dial_failed", DialFailure("TLS"), driver.now)
        elif attempt % 3 == 1:
            driver.open()
            driver.fact("closed", [None, 1000, 4000, 4009, 4999][attempt % 5], driver.now)
        else:
            driver.open()
            driver.say([{"op": 7}, {"op": 9, "d": False}][attempt % 2])
    assert lost(driver) == []
    driver.reconnected()
    assert driver.sent(6)[-1]["d"] == {"token": "secret-token", "session_id": "stored", "seq": 100}


@pytest.mark.checklist("B5")
def test_a_replayed_event_is_progress_and_one_that_was_known_is_not() -> None:
    driver = Driver(stored(), chance=Least(), settings=options(resume_patience=100.0)).start()
    for _ in range(10):
        driver.reconnected()
        driver.dispatch()
        driver.advance(50.0)
        driver.fact("closed", None, driver.now)
        driver.until(State.CONNECTING)
    assert lost(driver) == []
    for _ in range(10):
        if lost(driver):
            break
        driver.reconnected()
        driver.say({"op": 0, "t": "OLD", "s": 105, "d": {}})
        driver.advance(50.0)
        driver.fact("closed", None, driver.now)
        driver.until(State.CONNECTING)
    assert lost(driver) == ["stored"]


@pytest.mark.checklist("B6")
def test_a_live_session_declared_invalid_is_replaced() -> None:
    driver = Driver().live()
    driver.dispatch()
    driver.say({"op": 9, "d": False})
    assert driver.all(actions.SessionLost) == [
        actions.SessionLost("first", 2, "Discord says the session is invalid")
    ]
    assert driver.last(actions.Disconnect).code == KEEP_SESSION
    assert driver.session() is None
    assert driver.conversation.received_seq == 0
    driver.reconnected()
    assert driver.sent(6) == []
    assert driver.last(actions.RequestPermit).lost is True
    driver.ready("second")
    assert driver.session() == "second"
    assert driver.state() is State.LIVE


@pytest.mark.checklist("B7")
def test_an_invalid_session_that_may_be_resumed_is_resumed() -> None:
    driver = Driver().live()
    driver.say({"op": 9, "d": True})
    driver.reconnected()
    assert driver.sent(6)[0]["d"]["session_id"] == "first"
    assert len(driver.sent(2)) == 1
    assert lost(driver) == []


@pytest.mark.parametrize("d", [None, 1, "true", {}, [True]])
def test_only_a_bare_true_means_resumable(d: Any) -> None:
    driver = Driver().live()
    driver.say({"op": 9, "d": d})
    assert lost(driver) == ["first"]


@pytest.mark.checklist("B8")
@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize(("chance", "wait"), [(Least(), 1.0), (Most(), 5.0)])
def test_an_invalid_session_is_followed_by_a_random_wait(resumable: bool, chance: Any, wait: float) -> None:
    driver = Driver(chance=chance).live()
    driver.advance(61.0)
    before = driver.now
    driver.say({"op": 9, "d": resumable})
    assert driver.state() is State.BACKING_OFF
    driver.until(State.CONNECTING)
    assert driver.now - before == pytest.approx(wait)


@pytest.mark.checklist("B9")
def test_invalid_after_identify_tells_the_bucket_and_after_resume_identifies() -> None:
    driver = Driver().start()
    driver.reconnected()
    driver.say({"op": 9, "d": False})
    assert driver.all(actions.PermitDone) == [actions.PermitDone("invalid")]
    driver.reconnected()
    driver.ready()
    driver.fact("closed", None, driver.now)
    driver.reconnected()
    driver.forget()
    driver.say({"op": 9, "d": False})
    assert driver.all(actions.PermitDone) == []
    driver.reconnected()
    assert len(driver.sent(2)) == 1


@pytest.mark.checklist("B10")
def test_the_next_resume_uses_the_newest_session_and_address() -> None:
    driver = Driver(stored()).start()
    driver.reconnected()
    driver.say({"op": 9, "d": False})
    driver.reconnected()
    driver.ready("second", "wss://second.discord.test")
    driver.dispatch()
    driver.fact("closed", None, driver.now)
    driver.until(State.CONNECTING)
    assert driver.url.startswith("wss://second.discord.test/?")
    driver.open()
    driver.hello()
    assert driver.sent(6)[-1]["d"] == {"token": "secret-token", "session_id": "second", "seq": 2}


@pytest.mark.checklist("B11")
def test_the_sequence_survives_reconnects_and_starts_again_only_with_a_session() -> None:
    driver = Driver().live()
    for _ in range(3):
        driver.dispatch()
        driver.fact("closed", None, driver.now)
        assert driver.conversation.received_seq == driver.seq
        driver.reconnected()
        assert driver.sent(6)[-1]["d"]["seq"] == driver.seq
        driver.resumed()
    driver.say({"op": 9, "d": False})
    driver.reconnected()
    driver.ready("second")
    assert driver.conversation.received_seq == 1


@pytest.mark.checklist("B12")
@pytest.mark.parametrize("code", [4007, 4009])
def test_a_refused_sequence_or_a_timed_out_session_leads_to_a_new_one(code: int) -> None:
    for live in (True, False):
        driver = Driver(stored()).start()
        driver.reconnected()
        if live:
            driver.resumed()
        driver.fact("closed", code, driver.now)
        assert lost(driver) == ["stored"]
        driver.reconnected()
        driver.ready("second")
        assert driver.session() == "second"


@pytest.mark.checklist("B13", "B14")
def test_not_authenticated_is_not_the_end_but_revoked_intents_are() -> None:
    driver = Driver().live()
    driver.fact("closed", 4003, driver.now)
    assert driver.all(actions.Fatal) == []
    assert lost(driver) == ["first"]
    driver.reconnected()
    driver.fact("closed", 4014, driver.now)
    (fatal,) = driver.all(actions.Fatal)
    assert fatal.code == 4014
    assert "MESSAGE_CONTENT" in fatal.help
    assert driver.state() is State.FATAL
    assert driver.last(actions.PermitDone).outcome == "closed"


@pytest.mark.checklist("B15", "B17")
@pytest.mark.parametrize("code", [4001, 4002, 4003, 4005, 4006, 4007, 4008, 4009, 4000, 4015, 4999])
@pytest.mark.parametrize("where", ["identifying", "live", "resuming"])
def test_every_code_that_is_not_fatal_reconnects(code: int, where: str) -> None:
    driver = Driver().start()
    driver.reconnected()
    if where != "identifying":
        driver.ready()
    if where == "resuming":
        driver.fact("closed", None, driver.now)
        driver.reconnected()
    driver.fact("closed", code, driver.now)
    driver.until(State.CONNECTING)
    assert driver.all(actions.Fatal) == []


@pytest.mark.checklist("B16")
@pytest.mark.parametrize("code", [4004, 4010, 4011, 4012, 4013, 4014])
@pytest.mark.parametrize("where", ["hello", "identifying", "live", "resuming"])
def test_fatal_codes_stop_without_another_attempt(code: int, where: str) -> None:
    driver = Driver().start()
    driver.open()
    if where != "hello":
        driver.hello()
    if where in ("live", "resuming"):
        driver.ready()
    if where == "resuming":
        driver.fact("closed", None, driver.now)
        driver.reconnected()
    driver.forget()
    driver.fact("closed", code, driver.now)
    assert [fatal.code for fatal in driver.all(actions.Fatal)] == [code]
    assert driver.conversation.wake_at is None
    driver.fact("woken", driver.now + 10_000)
    driver.fact("reconnect", "x", driver.now)
    assert driver.all(actions.Connect) == []
    assert driver.state() is State.FATAL


@pytest.mark.checklist("B17", "B18")
@pytest.mark.parametrize("code", [1000, 4015, 4999])
def test_a_server_that_closes_normally_or_oddly_is_resumed_once_then_identified(code: int) -> None:
    driver = Driver().live()
    driver.fact("closed", code, driver.now)
    assert lost(driver) == []
    driver.reconnected()
    assert len(driver.sent(6)) == 1
    driver.fact("closed", code, driver.now)
    assert lost(driver) == ["first"]
    driver.reconnected()
    assert len(driver.sent(2)) == 2


@pytest.mark.checklist("B17", "B18")
def test_a_resume_that_worked_in_between_starts_the_count_again() -> None:
    driver = Driver().live()
    for _ in range(5):
        driver.fact("closed", 1000, driver.now)
        driver.reconnected()
        driver.resumed()
    assert lost(driver) == []


@pytest.mark.checklist("B17")
def test_a_legacy_invalid_session_code_leads_to_a_new_session() -> None:
    driver = Driver().live()
    driver.fact("closed", 4006, driver.now)
    assert lost(driver) == ["first"]
    driver.reconnected()
    driver.ready("second")
    assert driver.state() is State.LIVE


@pytest.mark.checklist("B18")
def test_going_away_is_resumed() -> None:
    driver = Driver().live()
    for _ in range(2):
        driver.fact("closed", 1001, driver.now)
        driver.reconnected()
    assert len(driver.sent(6)) == 2
    assert lost(driver) == []


@pytest.mark.checklist("B19")
def test_a_shard_that_fails_on_every_attempt_spends_few_identifies() -> None:
    driver = Driver().start()
    end = driver.now + 86_400.0
    while driver.now < end:
        driver.reconnected()
        driver.ready(f"session {driver.now}")
        driver.fact("closed", 1011, driver.now)
        driver.reconnected()
        driver.say({"op": 9, "d": False})
    assert 30 < len(driver.sent(2)) <= 12 * 24 + 12


@pytest.mark.checklist("B19")
def test_a_server_in_trouble_is_not_tried_at_once() -> None:
    for code in (1011, 1012, 1013, 1014):
        driver = Driver(chance=Most()).live()
        driver.advance(61.0)
        driver.fact("closed", code, driver.now)
        assert driver.state() is State.BACKING_OFF


@pytest.mark.checklist("B20")
def test_a_token_with_its_prefix_is_sent_without() -> None:
    driver = Driver(settings=options(token="Bot abc")).live()
    driver.fact("closed", None, driver.now)
    driver.reconnected()
    assert driver.sent(2)[0]["d"]["token"] == driver.sent(6)[0]["d"]["token"] == "abc"


@pytest.mark.checklist("B21", "B23")
def test_a_replay_is_marked_until_resumed_and_no_ready_is_waited_for() -> None:
    driver = Driver(stored(100)).start()
    driver.reconnected()
    assert driver.conversation.replaying
    for _ in range(3):
        driver.dispatch()
    driver.resumed()
    driver.dispatch()
    assert driver.state() is State.LIVE
    assert [(envelope.t, envelope.s, replayed) for envelope, _, replayed in driver.delivered] == [
        ("MESSAGE_CREATE", 101, True),
        ("MESSAGE_CREATE", 102, True),
        ("MESSAGE_CREATE", 103, True),
        ("RESUMED", 104, False),
        ("MESSAGE_CREATE", 105, False),
    ]
    assert driver.all(actions.SessionResumed) == [actions.SessionResumed()]
    assert driver.all(actions.SessionStarted) == []


def test_a_replayed_event_and_resumed_in_one_message_are_told_apart() -> None:
    driver = Driver(stored(100)).start()
    driver.reconnected()
    driver.raw(
        b'{"op":0,"t":"A","s":101,"d":{}}{"op":0,"t":"RESUMED","s":102,"d":{}}{"op":0,"t":"B","s":103,"d":{}}'
    )
    assert [(envelope.t, replayed) for envelope, _, replayed in driver.delivered] == [
        ("A", True),
        ("RESUMED", False),
        ("B", False),
    ]


@pytest.mark.checklist("B22")
def test_a_restarted_process_resumes_from_what_was_settled() -> None:
    driver = Driver(stored(251, "kept"), permits=False).start()
    assert driver.last(actions.Connect).resuming
    assert driver.url.startswith(RESUME)
    driver.reconnected()
    assert driver.sent(6) == [{"op": 6, "d": {"token": "secret-token", "session_id": "kept", "seq": 251}}]
    assert driver.all(actions.RequestPermit) == []


@pytest.mark.checklist("B22")
def test_without_a_usable_session_a_restarted_process_identifies() -> None:
    fresh = Driver(None).start()
    fresh.reconnected()
    assert (len(fresh.sent(2)), len(fresh.sent(6))) == (1, 0)
    empty = Driver(stored(0)).start()
    assert lost(empty) == ["stored"]
    empty.reconnected()
    assert (len(empty.sent(2)), len(empty.sent(6))) == (1, 0)


def test_a_stored_address_that_is_none_falls_back_to_the_main_one() -> None:
    driver = Driver(StoredSession("kept", "not an address", 5)).start()
    assert driver.url.startswith(GATEWAY)
    driver.reconnected()
    assert driver.sent(6)[0]["d"]["session_id"] == "kept"


@pytest.mark.checklist("D8")
def test_a_resume_never_waits_for_the_identify_queue() -> None:
    driver = Driver(stored(), permits=False).start()
    driver.reconnected()
    assert driver.state() is State.RESUMING
    assert driver.all(actions.RequestPermit) == []


@pytest.mark.checklist("H12", "H13")
def test_a_heartbeat_carries_what_was_written_down_never_more_and_never_less() -> None:
    driver = Driver(chance=Least()).live()
    driver.advance(0.0)
    assert driver.sent(1)[-1]["d"] is None
    for _ in range(9):
        driver.dispatch()
    driver.conversation.settle(7)
    driver.conversation.settle(5)
    driver.conversation.settle(0)
    driver.conversation.settle(99)
    driver.conversation.settle(9, session_id="another")
    driver.advance(INTERVAL)
    assert driver.sent(1)[-1]["d"] == 7
    driver.conversation.settle(9, session_id="first")
    driver.fact("closed", None, driver.now)
    driver.reconnected()
    driver.advance(0.0)
    assert driver.sent(1)[-1]["d"] == 9
    assert driver.sent(6)[-1]["d"]["seq"] == 10
    driver.say({"op": 9, "d": False})
    driver.reconnected()
    driver.advance(0.0)
    assert driver.sent(1)[-1]["d"] is None
    driver.ready("second")
    driver.say({"op": 1})
    assert driver.sent(1)[-1]["d"] is None


@pytest.mark.checklist("H12")
def test_the_first_heartbeat_after_a_restart_carries_the_stored_sequence() -> None:
    driver = Driver(stored(251), chance=Least()).start()
    driver.reconnected()
    driver.advance(0.0)
    assert driver.sent(1)[0]["d"] == 251


def test_a_first_resume_is_immediate_and_the_following_are_spread() -> None:
    driver = Driver(chance=Most()).live()
    driver.advance(61.0)
    waits = []
    for _ in range(9):
        before = driver.now
        driver.fact("closed", None, driver.now)
        driver.reconnected()
        waits.append(driver.now - before)
        driver.resumed()
    assert waits == pytest.approx([0, 1, 2, 4, 8, 16, 32, 60, 60])
    driver.advance(61.0)
    before = driver.now
    driver.fact("closed", None, driver.now)
    assert driver.state() is State.CONNECTING


def test_a_moment_of_life_makes_the_next_resume_immediate_until_the_shard_flaps() -> None:
    driver = Driver(chance=Most()).live()
    driver.advance(61.0)
    waits = []
    for _ in range(20):
        driver.advance(2.0)
        before = driver.now
        driver.fact("closed", None, driver.now)
        driver.reconnected()
        waits.append(driver.now - before)
        driver.resumed()
    assert waits[:10] == [0.0] * 10
    assert max(waits[10:]) > 5.0


def test_identifies_that_fail_are_delayed_up_to_ten_minutes() -> None:
    driver = Driver(chance=Most(), settings=options(identifies_per_hour=1000)).start()
    waits = []
    for _ in range(10):
        driver.reconnected()
        before = driver.now
        driver.fact("closed", 4000, driver.now)
        driver.until(State.CONNECTING)
        waits.append(driver.now - before)
    assert waits == pytest.approx([5, 10, 20, 40, 80, 160, 320, 600, 600, 600])


def test_ready_alone_does_not_start_the_delays_again() -> None:
    driver = Driver(chance=Most(), settings=options(identifies_per_hour=1000)).start()
    waits = []
    for _ in range(5):
        driver.reconnected()
        driver.ready()
        driver.advance(59.0)
        before = driver.now
        driver.fact("closed", 4009, driver.now)
        driver.until(State.CONNECTING)
        waits.append(driver.now - before)
    assert waits == pytest.approx([5, 10, 20, 40, 80])


@pytest.mark.checklist("K24")
def test_a_fault_that_many_shards_meet_keeps_the_backoff_and_closes_no_breaker() -> None:
    driver = Driver(chance=Most()).start()
    driver.fact("excuse")
    waits = []
    for _ in range(40):
        driver.reconnected()
        before = driver.now
        driver.say({"op": 9, "d": False})
        driver.until(State.CONNECTING)
        waits.append(driver.now - before)
    assert waits == pytest.approx([5, 10, 20, 40, 80, 160, 320] + [600] * 33)


@pytest.mark.checklist("K24")
def test_the_end_of_such_a_fault_lets_a_shard_without_a_session_try_at_once_and_forgets_its_failures() -> (
    None
):
    driver = Driver(chance=Most()).start()
    for _ in range(11):
        driver.reconnected()
        driver.say({"op": 9, "d": False})
    assert driver.state() is State.BACKING_OFF
    driver.fact("forgive", driver.now)
    assert driver.state() is State.CONNECTING
    driver.reconnected()
    before = driver.now
    driver.say({"op": 9, "d": False})
    driver.until(State.CONNECTING)
    assert driver.now - before == pytest.approx(5.0)


@pytest.mark.checklist("K24")
def test_the_end_of_such_a_fault_leaves_a_resume_to_its_own_time() -> None:
    driver = Driver(stored(), chance=Most()).start()
    for _ in range(4):
        driver.until(State.CONNECTING)
        driver.fact("dial_failed", DialFailure("refused"), driver.now)
    assert driver.state() is State.BACKING_OFF
    driver.fact("forgive", driver.now)
    assert driver.state() is State.BACKING_OFF


@pytest.mark.checklist("K31")
@pytest.mark.parametrize("before", ["live", "resuming", "connecting", "backing off", "waiting for hello"])
def test_a_session_is_renewed_wherever_it_stands(before: str) -> None:
    driver = Driver(chance=Most()).live()
    driver.advance(61.0)
    if before != "live":
        driver.fact("closed", None, driver.now)
        driver.until(State.CONNECTING)
    if before in ("waiting for hello", "resuming"):
        driver.open()
    if before == "resuming":
        driver.hello()
    while before == "backing off" and driver.state() is not State.BACKING_OFF:
        driver.until(State.CONNECTING)
        driver.fact("dial_failed", DialFailure("refused"), driver.now)
    driver.forget()
    driver.fact("renew", "asked for by an operator", driver.now)
    assert [(each.session_id, each.reason) for each in driver.all(actions.SessionLost)] == [
        ("first", "asked for by an operator")
    ]
    assert driver.state() is State.CONNECTING
    driver.reconnected()
    assert driver.last(actions.RequestPermit).lost is True
    driver.ready("second")
    assert driver.session() == "second"


@pytest.mark.checklist("K25")
def test_a_shard_that_waits_for_its_next_attempt_makes_it_when_a_person_asks() -> None:
    driver = Driver(chance=Most()).start()
    driver.reconnected()
    driver.fact("closed", 4000, driver.now)
    assert driver.state() is State.BACKING_OFF
    driver.fact("reconnect", "asked for by an operator", driver.now)
    assert driver.state() is State.CONNECTING


def test_a_renewed_session_is_told_as_lost_and_replaced() -> None:
    driver = Driver().live()
    driver.advance(61.0)
    driver.fact("renew", "older than SESSION_MAX_AGE", driver.now)
    assert driver.last(actions.SessionLost).reason == "older than SESSION_MAX_AGE"
    driver.reconnected()
    driver.ready("second")
    assert driver.session() == "second"


def test_a_lost_sessions_presence_is_shown_again_by_the_next_identify() -> None:
    driver = Driver().live()
    driver.command(3, presence("set by a worker"))
    driver.say({"op": 9, "d": False})
    driver.reconnected()
    assert driver.sent(2)[-1]["d"]["presence"] == presence("set by a worker")


def test_a_presence_for_which_an_identify_has_no_room_goes_out_and_is_not_shown_by_the_next_session() -> None:
    driver = Driver(settings=options(presence=lambda shard, shards: presence("configured"))).live()
    driver.command(3, presence("before"))
    driver.command(3, long_presence(), "long")
    driver.command(3, long_presence(), "again")
    assert driver.sent(3)[-1]["d"] == long_presence()
    assert driver.outcomes()[-2:] == [("long", "sent"), ("again", "sent")]
    (note,) = driver.all(actions.Note)
    assert "longer than the 4096 bytes" in note.text
    driver.say({"op": 9, "d": False})
    driver.reconnected()
    assert len(driver.last(actions.Identify).data) <= 4096
    assert driver.sent(2)[-1]["d"]["presence"] == presence("configured")
    driver.ready("second")
    driver.command(3, presence("shorter"))
    assert driver.conversation.presence == presence("shorter")


def test_a_stored_presence_for_which_an_identify_has_no_room_is_left_out() -> None:
    driver = Driver(shown=long_presence()).live()
    assert "presence" not in driver.sent(2)[-1]["d"]
    assert len(driver.all(actions.Note)) == 1


def test_facts_that_come_at_the_wrong_time_change_nothing() -> None:
    driver = Driver()
    for fact in (
        ("opened", 0.0),
        ("closed", 4004, 0.0),
        ("dial_failed", DialFailure("x"), 0.0),
        ("refused", 1.0, "x", 0.0),
        ("woken", 0.0),
        ("resume_reading", 0.0),
        ("reconnect", "x", 0.0),
        ("renew", "x", 0.0),
    ):
        driver.fact(*fact)
    driver.raw(b'{"op":9,"d":false}')
    assert driver.taken == []
    assert driver.state() is State.IDLE


def test_the_breaker_lets_a_number_through_in_any_hour() -> None:
    breaker = Breaker(3)
    assert breaker.closed_until(0.0) == 0.0
    for at in (0.0, 10.0, 20.0):
        breaker.identified(at)
    assert breaker.closed_until(30.0) == 3600.0
    breaker.identified(3600.0)
    assert breaker.closed_until(3601.0) == 3610.0


def test_the_parts_of_the_reconnect_policy() -> None:
    backoff = JitteredBackoff(1.0, 60.0, Most())
    for _ in range(2000):
        backoff.failed()
    assert backoff.delay() == 60.0
    patience = Patience(3, 180.0)
    patience.resume_sent(0.0)
    assert not patience.exhausted(1000.0)
    patience.resume_sent(1.0)
    patience.resume_sent(2.0)
    assert not patience.exhausted(179.0)
    assert patience.exhausted(180.0)
    patience.progress()
    assert not patience.exhausted(1e9)
    hosts = EndpointSelector()
    assert hosts.choose(None, "main") == "main"
    hosts.failed()
    hosts.worked()
    hosts.failed()
    assert hosts.choose("own", "main") == "own"
    delays = Delays(SessionOptions(token="", intents=0), Most())
    delays.not_at_once()
    assert delays.next(0.0, greeted=True, identify=False) == 1.0
    assert delays.next(0.0, greeted=True, identify=False) == 2.0
    assert delays.next(0.0, greeted=False, identify=False) == 0.0
    delays.lived(0.0, 1.0)
    assert delays.next(0.0, greeted=True, identify=False) == 0.0
    delays.identified(0.0)
    assert delays.next(0.0, greeted=False, identify=True) == 5.0
    delays.lived(0.0, 60.0)
    assert delays.next(0.0, greeted=False, identify=True) == 2.0


def test_a_resume_that_may_name_only_what_was_written_down_takes_nothing_twice_of_what_is_replayed() -> None:
    driver = Driver(settings=options(resume_from_settled=True)).live()
    for _ in range(4):
        driver.dispatch()
    driver.fact("closed", None, driver.now)
    driver.reconnected()
    # Nothing was written down yet: nobody else knows the session.
    assert driver.sent(6)[-1]["d"]["seq"] == 5
    driver.resumed()
    driver.fact("settle", 3)
    driver.fact("closed", None, driver.now)
    driver.reconnected()
    assert driver.sent(6)[-1]["d"]["seq"] == 3
    driver.forget()
    for seq in (4, 5, 7):
        driver.say({"op": 0, "t": "MESSAGE_CREATE", "s": seq, "d": {"n": seq}})
    assert [(envelope.s, repeat, replayed) for envelope, repeat, replayed in driver.delivered] == [
        (7, 0, True)
    ]
    assert driver.all(actions.Note) == []
    driver.seq = 7
    driver.resumed()
    driver.dispatch()
    assert [envelope.s for envelope, _, _ in driver.delivered] == [7, 8, 9]


def test_what_stays_unsettled_for_a_minute_is_not_asked_for_again_or_a_broker_that_is_away_would_cost_the_session() -> (
    None
):
    driver = Driver(settings=options(resume_from_settled=True)).live()
    driver.dispatch()
    driver.fact("settle", driver.seq)
    settled = driver.seq
    driver.dispatch()
    named = []
    for _ in range(5):
        driver.fact("closed", None, driver.now)
        driver.reconnected()
        named.append((driver.sent(6)[-1]["d"]["seq"], driver.seq))
        driver.resumed()
        driver.dispatch()
        driver.advance(25.0)
    assert [seq for seq, _ in named[:2]] == [settled, settled]
    assert [seq for seq, _ in named[3:]] == [received for _, received in named[3:]]
    # Once all of it is settled, nothing is old.
    driver.fact("settle", driver.seq)
    settled = driver.seq
    driver.dispatch()
    driver.fact("closed", None, driver.now)
    driver.reconnected()
    assert driver.sent(6)[-1]["d"]["seq"] == settled


def test_a_connection_that_discord_asked_for_is_told_from_one_that_follows_an_end() -> None:
    driver = Driver().live()
    driver.fact("closed", None, driver.now)
    assert not driver.last(actions.Connect).asked
    driver.reconnected()
    driver.resumed()
    driver.say({"op": 7, "d": None})
    driver.until(State.CONNECTING)
    assert driver.last(actions.Connect).asked
    # Still the same reconnection.
    driver.fact("dial_failed", DialFailure("refused"), driver.now)
    driver.until(State.CONNECTING)
    assert driver.last(actions.Connect).asked
    driver.reconnected()
    driver.resumed()
    driver.fact("closed", 4000, driver.now)
    driver.until(State.CONNECTING)
    assert not driver.last(actions.Connect).asked
