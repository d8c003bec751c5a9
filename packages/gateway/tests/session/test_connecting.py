"""From dialling to READY, and whether a connection is alive."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from rateway.native.inflate import zstd
from rateway.session import actions
from rateway.session.actions import DialFailure, State
from rateway.session.heartbeat import Health, Heartbeat
from rateway_protocol.discord.close_codes import KEEP_SESSION
from tests.session.driver import (
    GATEWAY,
    INTERVAL,
    RESUME,
    TOKEN,
    Driver,
    Least,
    Most,
    options,
    presence,
    stored,
)


def test_a_first_start_connects_identifies_and_is_live_at_ready() -> None:
    driver = Driver(permits=False, settings=options(compression="zstd-stream"))
    driver.start()
    connect = driver.last(actions.Connect)
    assert connect.url == f"{GATEWAY}/?v=10&encoding=json&compress=zstd-stream"
    assert not connect.resuming
    driver.open()
    assert driver.state() is State.WAITING_HELLO
    driver.hello()
    assert driver.state() is State.WAITING_PERMIT
    assert driver.last(actions.RequestPermit).lost is False
    assert driver.sent(2) == []
    driver.fact("permitted", driver.now)
    (identify,) = driver.sent(2)
    assert identify["d"]["token"] == TOKEN
    assert identify["d"]["shard"] == [0, 1]
    driver.ready("first")
    assert driver.state() is State.LIVE
    assert driver.all(actions.PermitDone) == [actions.PermitDone("ready")]
    assert driver.all(actions.SessionStarted) == [actions.SessionStarted("first", RESUME, "zstd-stream")]
    kinds = [type(order) for order in driver.taken]
    assert kinds.index(actions.SessionStarted) < kinds.index(actions.Deliver)
    assert driver.names() == ["READY"]
    assert (driver.session(), driver.conversation.received_seq) == ("first", 1)
    assert [change.new.value for change in driver.all(actions.StateChanged)] == [
        "connecting", "waiting_hello", "waiting_permit", "identifying", "live",
    ]  # fmt: skip


def test_the_identify_has_the_shards_own_presence() -> None:
    asked: list[tuple[int, int]] = []

    def shown(shard: int, total: int) -> dict[str, Any]:
        asked.append((shard, total))
        return presence(f"shard {shard}")

    driver = Driver(shard=(3, 4), settings=options(presence=shown))
    driver.start()
    driver.reconnected()
    assert driver.sent(2)[0]["d"]["presence"] == presence("shard 3")
    assert asked == [(3, 4)]


def test_no_order_shows_the_token() -> None:
    driver = Driver(stored()).start()
    driver.reconnected()
    driver.say({"op": 9, "d": False})
    driver.reconnected()
    assert len(driver.sent(2)) == len(driver.sent(6)) == 1
    assert all(TOKEN not in repr(order) for order in driver.taken)
    assert TOKEN not in repr(driver.settings)


@pytest.mark.checklist("A1")
def test_a_reconnect_in_place_of_hello_is_followed_at_once() -> None:
    driver = Driver().start()
    driver.open()
    driver.say({"op": 7, "d": None})
    assert driver.last(actions.Disconnect).code == KEEP_SESSION
    assert driver.state() is State.CONNECTING
    assert len(driver.all(actions.Connect)) == 2
    driver.open()
    driver.hello()
    driver.ready()
    assert driver.state() is State.LIVE


@pytest.mark.checklist("A2")
def test_a_host_that_never_says_hello_is_left_after_a_time_for_the_other_one_with_the_same_session() -> None:
    driver = Driver(stored(), settings=options(hello_timeout=10.0)).start()
    for host, patience in ((RESUME, 10.0), (GATEWAY, 20.0), (RESUME, 40.0), (GATEWAY, 60.0), (RESUME, 60.0)):
        driver.until(State.CONNECTING)
        assert driver.url.startswith(host)
        driver.open()
        driver.advance(patience - 0.1)
        assert driver.state() is State.WAITING_HELLO
        driver.advance(0.1)
        assert driver.last(actions.Disconnect) == actions.Disconnect(KEEP_SESSION, "no Hello")
    assert driver.session() == "stored"
    assert driver.all(actions.SessionLost) == []


@pytest.mark.checklist("A2")
def test_a_host_that_is_silent_to_the_dial_is_left_at_once_and_a_refusing_one_after_two() -> None:
    silent = Driver(stored()).start()
    silent.fact("dial_failed", DialFailure("no upgrade", silent=True), silent.now)
    assert silent.state() is State.CONNECTING
    assert silent.url.startswith(GATEWAY)
    refusing = Driver(stored(), chance=Most()).start()
    refusing.fact("dial_failed", DialFailure("refused"), refusing.now)
    assert refusing.url.startswith(RESUME)
    refusing.fact("dial_failed", DialFailure("HTTP 403", 403), refusing.now)
    assert refusing.state() is State.CONNECTING
    assert refusing.url.startswith(GATEWAY)


@pytest.mark.checklist("A2")
def test_an_upgrade_that_never_comes_is_reported_by_the_shell_and_tried_again() -> None:
    driver = Driver().start()
    driver.fact("dial_failed", DialFailure("no WebSocket upgrade within 15 s"), driver.now)
    assert len(driver.all(actions.Connect)) == 2
    driver.fact("dial_failed", DialFailure("no WebSocket upgrade within 15 s"), driver.now)
    assert driver.state() is State.BACKING_OFF
    assert "no WebSocket upgrade" in driver.last(actions.StateChanged).why


def test_attempts_that_fail_are_spread_up_to_a_minute() -> None:
    driver = Driver(chance=Most()).start()
    waits = []
    for _ in range(10):
        before = driver.now
        driver.fact("dial_failed", DialFailure("refused"), driver.now)
        driver.until(State.CONNECTING)
        waits.append(driver.now - before)
    assert waits == pytest.approx([0, 1, 2, 4, 8, 16, 32, 60, 60, 60])


def test_retry_after_is_kept_and_429_does_not_speak_against_the_host() -> None:
    driver = Driver(stored(), chance=Least()).start()
    for _ in range(3):
        before = driver.now
        driver.fact("dial_failed", DialFailure("HTTP 429", 429, 30.0), driver.now)
        driver.until(State.CONNECTING)
        assert driver.now - before == pytest.approx(30.0)
        assert driver.last(actions.Connect).url.startswith(RESUME)
    for odd in (float("nan"), float("inf"), -5.0):
        driver.fact("dial_failed", DialFailure("HTTP 503", 503, odd), driver.now)
        driver.until(State.CONNECTING, at_most=61.0)
    assert driver.session() == "stored"


@pytest.mark.checklist("K23")
@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 522, 530])
@pytest.mark.parametrize("retry_after", [None, 5.0, 600.0])
def test_the_first_5xx_of_a_resume_host_turns_to_the_main_one_at_once(
    status: int, retry_after: float | None
) -> None:
    driver = Driver(stored(), chance=Most()).start()
    assert driver.last(actions.Connect).other == GATEWAY
    driver.fact("dial_failed", DialFailure(f"HTTP {status}", status, retry_after), driver.now)
    assert driver.state() is State.CONNECTING
    assert driver.url.startswith(GATEWAY)
    assert driver.last(actions.Connect).other == RESUME
    assert not driver.last(actions.Connect).own


@pytest.mark.checklist("K23")
@pytest.mark.parametrize("status", [403, 429, 503])
def test_what_the_main_host_asks_for_does_not_delay_the_sessions_own(status: int) -> None:
    driver = Driver(stored(), chance=Most()).start()
    driver.fact("dial_failed", DialFailure("HTTP 503", 503), driver.now)
    for _ in range(2 if status == 403 else 1):
        driver.until(State.CONNECTING)
        assert driver.url.startswith(GATEWAY)
        driver.fact(
            "dial_failed", DialFailure(f"HTTP {status}", status, 120.0 if status != 403 else None), driver.now
        )
    before = driver.now
    driver.until(State.CONNECTING)
    assert driver.url.startswith(RESUME)
    assert driver.now - before <= 2.0


@pytest.mark.checklist("K23")
def test_a_session_whose_own_host_is_the_main_one_has_no_other() -> None:
    driver = Driver().start()
    driver.reconnected()
    driver.ready(url=GATEWAY)
    driver.fact("closed", None, driver.now)
    driver.until(State.CONNECTING)
    assert driver.last(actions.Connect).other is None
    driver.fact("dial_failed", DialFailure("HTTP 503", 503, 30.0), driver.now)
    before = driver.now
    driver.until(State.CONNECTING)
    assert driver.now - before >= 30.0


@pytest.mark.checklist("A3")
def test_a_requested_beat_is_sent_at_once_and_is_no_zombie() -> None:
    driver = Driver(chance=Least(), acks=False).live()
    driver.advance(0.0)
    assert len(driver.sent(1)) == 1
    driver.advance(INTERVAL / 2)
    driver.say({"op": 1, "d": None})
    assert len(driver.sent(1)) == 2
    driver.say({"op": 11})
    driver.advance(INTERVAL / 2)
    assert len(driver.sent(1)) == 3
    assert driver.state() is State.LIVE


@pytest.mark.checklist("A3")
def test_a_requested_beat_with_no_answer_yet_leaves_the_regular_timer_alone() -> None:
    driver = Driver(chance=Least(), acks=False).live()
    driver.advance(INTERVAL - 0.1)
    driver.say({"op": 1})
    driver.advance(0.2)
    assert len(driver.sent(1)) == 3
    assert driver.state() is State.LIVE


@pytest.mark.checklist("A4")
def test_a_late_acknowledgement_behind_a_flood_is_waited_for_one_interval_more() -> None:
    driver = Driver(chance=Least(), acks=False).live()
    for _ in range(19):
        driver.advance(INTERVAL / 10)
        driver.dispatch("GUILD_CREATE")
    driver.say({"op": 11})
    driver.advance(INTERVAL)
    assert driver.state() is State.LIVE
    assert driver.all(actions.Disconnect) == []


@pytest.mark.checklist("A4", "A5")
def test_data_without_any_acknowledgement_is_not_believed_for_ever() -> None:
    driver = Driver(chance=Least(), acks=False).live()
    for _ in range(25):
        driver.advance(INTERVAL / 10)
        if driver.state() is not State.LIVE:
            break
        driver.dispatch()
    assert "two intervals" in driver.last(actions.Disconnect).reason


@pytest.mark.checklist("A5", "A6")
def test_silence_after_a_beat_disconnects_but_keeps_the_session() -> None:
    driver = Driver(chance=Least(), acks=False).live()
    driver.advance(INTERVAL + 0.01)
    disconnect = driver.last(actions.Disconnect)
    assert disconnect.code not in (1000, 1001)
    assert disconnect.code == KEEP_SESSION
    assert "not acknowledged" in disconnect.reason
    assert driver.state() is State.CONNECTING
    assert driver.last(actions.Connect).resuming
    assert driver.session() == "first"


@pytest.mark.checklist("A6")
def test_whatever_ends_a_connection_of_ours_the_code_is_never_1000_or_1001() -> None:
    endings: list[Any] = [{"op": 7, "d": None}, {"op": 9, "d": True}, {"op": 9, "d": False}]
    for ending in endings:
        driver = Driver().live()
        driver.say(ending)
        assert driver.last(actions.Disconnect).code == KEEP_SESSION
    for fact in (("reconnect", "planned"), ("renew", "old")):
        driver = Driver().live()
        driver.fact(*fact, driver.now)
        assert driver.last(actions.Disconnect).code == KEEP_SESSION
    driver = Driver().live()
    driver.raw(b"garbage")
    assert driver.last(actions.Disconnect).code == KEEP_SESSION


def test_a_timer_that_comes_far_too_late_reconnects_instead_of_beating() -> None:
    driver = Driver(chance=Least()).live()
    driver.advance(1.0)
    driver.now += INTERVAL * 3
    driver.fact("woken", driver.now)
    # What waits in the socket is read first.
    assert driver.all(actions.Disconnect) == []
    driver.advance(0.1)
    assert "slept" in driver.last(actions.Disconnect).reason
    assert driver.last(actions.Connect).resuming


def test_a_late_timer_is_forgiven_when_discord_kept_talking() -> None:
    driver = Driver(chance=Least()).live()
    driver.advance(1.0)
    driver.now += INTERVAL * 3
    driver.fact("woken", driver.now)
    driver.dispatch()
    driver.advance(0.1)
    assert driver.all(actions.Disconnect) == []
    assert len(driver.sent(1)) == 2


def test_an_acknowledgement_that_waits_in_the_socket_while_the_process_stalls_is_not_missed() -> None:
    driver = Driver(chance=Least(), acks=False).live()
    driver.advance(0.0)
    driver.now += INTERVAL + 1.0
    driver.fact("woken", driver.now)
    driver.say({"op": 11})
    driver.advance(0.1)
    assert driver.state() is State.LIVE
    assert len(driver.sent(1)) == 2


@pytest.mark.checklist("A7")
def test_heartbeats_do_not_wait_for_dispatches_to_be_taken() -> None:
    # Nobody drains what is delivered: heartbeats, answers and acknowledgements go on by themselves.
    driver = Driver(chance=Least(), acks=False).live()
    for _ in range(1000):
        driver.dispatch()
    driver.advance(0.0)
    driver.say({"op": 1})
    assert [payload["op"] for payload in driver.sent(1)] == [1, 1]
    driver.say({"op": 11})
    driver.advance(INTERVAL)
    assert driver.state() is State.LIVE


@pytest.mark.checklist("A8")
def test_messages_that_are_no_dispatch_leave_the_sequence_alone() -> None:
    driver = Driver().live()
    driver.dispatch()
    for message in ({"op": 11, "s": None}, {"op": 11, "s": 3}, {"op": 1, "s": 0}, {"op": 99, "s": 3}):
        driver.say(message)
    assert driver.conversation.received_seq == 2


@pytest.mark.checklist("A10")
def test_what_an_old_connection_still_says_does_not_touch_the_new_one() -> None:
    driver = Driver().live()
    driver.fact("closed", 4000, driver.now, 1)
    second = driver.last(actions.Connect)
    assert second.connection == 2
    driver.forget()
    driver.fact("closed", 4004, driver.now, 1)
    driver.fact("dial_failed", DialFailure("late"), driver.now, 1)
    driver.fact("opened", driver.now, 1)
    assert driver.taken == []
    assert driver.state() is State.CONNECTING
    driver.open()
    driver.hello()
    assert len(driver.sent(6)) == 1


@pytest.mark.checklist("A10")
def test_nothing_is_heard_between_our_close_and_the_next_connection() -> None:
    driver = Driver(chance=Most()).live()
    driver.say({"op": 9, "d": True})
    assert driver.state() is State.BACKING_OFF
    driver.forget()
    driver.dispatch()
    driver.say({"op": 9, "d": False})
    driver.fact("closed", 1000, driver.now)
    driver.fact("opened", driver.now)
    assert driver.taken == []
    assert driver.delivered == []


@pytest.mark.checklist("A11")
def test_events_that_come_with_ready_or_before_it_keep_their_order() -> None:
    driver = Driver().start()
    driver.reconnected()
    driver.say({"op": 0, "t": "EARLY", "s": 5, "d": {}})
    session = {"session_id": "x", "resume_gateway_url": RESUME}
    one_message = [
        {"op": 0, "t": "READY", "s": 1, "d": session},
        {"op": 0, "t": "GUILD_CREATE", "s": 2, "d": {}},
        {"op": 11},
        {"op": 0, "t": "GUILD_CREATE", "s": 3, "d": {}},
    ]
    driver.raw(b"".join(json.dumps(each).encode() for each in one_message))
    driver.say({"op": 0, "t": "MESSAGE_CREATE", "s": 4, "d": {}})
    assert driver.names() == ["EARLY", "READY", "GUILD_CREATE", "GUILD_CREATE", "MESSAGE_CREATE"]
    assert [envelope.s for envelope, _, _ in driver.delivered] == [None, 1, 2, 3, 4]
    assert driver.conversation.received_seq == 4


@pytest.mark.checklist("A12")
def test_first_beats_are_spread_evenly_over_the_interval() -> None:
    dues = [Heartbeat(40.0, 100.0, random.Random(seed)).due - 100.0 for seed in range(2000)]
    assert all(0.0 <= due < 40.0 for due in dues)
    tenths = [sum(1 for due in dues if i * 4 <= due < i * 4 + 4) for i in range(10)]
    assert all(140 < tenth < 260 for tenth in tenths)
    assert Heartbeat(40.0, 100.0, Most()).judge(139.9, 100.0, False) is Health.WAIT
    assert Heartbeat(40.0, 100.0, Least()).judge(100.0, 100.0, False) is Health.BEAT


def test_a_share_of_the_interval_brings_each_beat_sooner() -> None:
    heart = Heartbeat(40.0, 100.0, Most(), 0.75)
    assert 129.0 < heart.due <= 130.0
    heart.beaten(heart.due)
    assert 159.0 < heart.due <= 160.0
    heart.acknowledged(140.0)
    assert heart.judge(heart.due, heart.due, False) is Health.BEAT


def test_beats_come_every_interval_of_this_connections_hello() -> None:
    driver = Driver(chance=Least()).start()
    driver.open()
    driver.hello(10_000)
    driver.ready()
    driver.advance(35.0)
    assert len(driver.sent(1)) == 4
    driver.fact("closed", None, driver.now)
    driver.forget()
    driver.open()
    driver.hello(20_000)
    driver.advance(35.0)
    assert len(driver.sent(1)) == 2


@pytest.mark.parametrize("interval", [None, 0, -5, "41250", True, 1e300, [], {}])
def test_a_hello_that_makes_no_sense_gets_the_usual_interval(interval: Any) -> None:
    driver = Driver(chance=Least()).start()
    driver.open()
    driver.hello(interval)
    driver.ready()
    driver.advance(41.25 * 2)
    assert len(driver.sent(1)) == 3


def test_latency_is_the_last_round_trip() -> None:
    driver = Driver(chance=Least(), acks=False).live()
    assert driver.conversation.latency is None
    driver.advance(0.0)
    driver.now += 0.125
    driver.say({"op": 11})
    assert driver.conversation.latency == pytest.approx(0.125)
    driver.say({"op": 11})
    assert driver.conversation.latency == pytest.approx(0.125)


def test_a_ready_that_takes_minutes_is_waited_for_with_heartbeats() -> None:
    driver = Driver(chance=Least()).start()
    driver.reconnected()
    driver.advance(400.0)
    assert driver.state() is State.IDENTIFYING
    assert len(driver.sent(1)) == 10
    driver.ready()
    assert driver.state() is State.LIVE


def test_a_ready_that_never_comes_ends_the_permit_as_timed_out() -> None:
    driver = Driver(settings=options(ready_timeout=600.0)).start()
    driver.reconnected()
    driver.advance(601.0)
    assert driver.all(actions.PermitDone) == [actions.PermitDone("timeout")]
    assert driver.all(actions.Disconnect)[0].code == KEEP_SESSION


def test_a_ready_without_a_session_is_forwarded_and_tried_again_with_care() -> None:
    driver = Driver(chance=Most()).start()
    driver.reconnected()
    driver.dispatch("READY", {"guilds": []})
    assert driver.names() == ["READY"]
    assert driver.all(actions.PermitDone) == [actions.PermitDone("invalid")]
    assert driver.state() is State.BACKING_OFF


def test_a_permit_that_is_no_longer_needed_is_given_back() -> None:
    driver = Driver(permits=False).start()
    driver.reconnected()
    driver.fact("closed", None, driver.now)
    assert len(driver.all(actions.ReturnPermit)) == 1
    driver.fact("permitted", driver.now)
    assert len(driver.all(actions.ReturnPermit)) == 2
    assert driver.sent(2) == []


def test_a_refused_permit_is_waited_for_without_a_connection() -> None:
    driver = Driver(permits=False).start()
    driver.reconnected()
    driver.fact("refused", driver.now + 3600.0, "the day's identifies are spent", driver.now)
    assert driver.last(actions.Disconnect).code == KEEP_SESSION
    assert driver.state() is State.BACKING_OFF
    assert driver.conversation.wake_at == pytest.approx(driver.now + 3600.0)
    driver.advance(3600.0)
    driver.reconnected()
    assert len(driver.all(actions.RequestPermit)) == 2
    driver.fact("refused", float("inf"), "stopped after too many identifies", driver.now)
    assert driver.conversation.wake_at is None


def test_a_spend_that_could_not_be_written_down_gives_the_permit_back() -> None:
    driver = Driver().start()
    driver.reconnected()
    assert driver.state() is State.IDENTIFYING
    driver.fact("refused", driver.now, "the ledger cannot be written", driver.now)
    assert len(driver.all(actions.ReturnPermit)) == 1
    assert driver.all(actions.PermitDone) == []
    assert driver.conversation.wake_at == pytest.approx(driver.now + 1.0)


@pytest.mark.checklist("C6")
@pytest.mark.parametrize("compression", ["zstd-stream", "zlib-stream"])
def test_each_connection_begins_with_a_fresh_stream(compression: str) -> None:
    driver = Driver(settings=options(compression=compression)).live()
    driver.dispatch()
    driver.fact("closed", None, driver.now)
    driver.open()
    driver.hello()
    driver.dispatch()
    driver.resumed()
    assert driver.state() is State.LIVE
    assert driver.names() == ["READY", "MESSAGE_CREATE", "MESSAGE_CREATE", "RESUMED"]


@pytest.mark.checklist("C9")
@pytest.mark.parametrize("compression", ["zstd-stream", "zlib-stream", "none"])
def test_a_corrupt_message_closes_the_connection_and_resumes(compression: str) -> None:
    driver = Driver(settings=options(compression=compression)).live()
    driver.dispatch()
    message = driver.wire.pack(b'{"op":0,"t":"X","s":3,"d":' + b"1" * 50 + b"}")
    driver.raw(
        b"\x00" + message[1:] if compression == "none" else message[:2] + b"\xff\xff\xff" + message[5:]
    )
    assert driver.last(actions.Disconnect).code == KEEP_SESSION
    assert driver.conversation.received_seq == 2
    driver.open()
    driver.hello()
    assert driver.sent(6)[-1]["d"]["seq"] == 2


def test_a_bomb_closes_the_connection_and_keeps_the_session() -> None:
    driver = Driver(settings=options(compression="zstd-stream", max_message_bytes=100_000)).live()
    driver.raw(driver.wire.pack(b" " * 200_000))
    assert driver.last(actions.Disconnect).code == KEEP_SESSION
    assert driver.session() == "first"


def test_a_compression_that_fails_at_hello_twice_is_given_up_for_the_next() -> None:
    driver = Driver(settings=options(compression="zstd-stream")).start()
    for compression in ("zstd-stream", "zstd-stream", "zlib-stream", "zlib-stream"):
        driver.until(State.CONNECTING)
        assert driver.last(actions.Connect).url.endswith(f"compress={compression}")
        driver.open()
        driver.raw(b"garbage\x00\x00\xff\xff", binary=True)
    driver.until(State.CONNECTING)
    assert "compress" not in driver.last(actions.Connect).url


def test_several_payloads_in_one_message_of_any_compression_are_all_heard() -> None:
    for compression in ("zstd-stream", "zlib-stream"):
        driver = Driver(settings=options(compression=compression)).live()
        first, second = b'{"op":0,"t":"A","s":2,"d":{}}', b'{"op":0,"t":"B","s":3,"d":{}}'
        driver.raw(driver.wire.pack(first + second))
        assert driver.names() == ["READY", "A", "B"]
        driver.raw(driver.wire.pack(first.replace(b"2", b"4")) + driver.wire.pack(second.replace(b"3", b"5")))
        assert driver.names() == ["READY", "A", "B", "A", "B"]
        assert driver.conversation.received_seq == 5


def test_what_follows_an_order_to_go_in_the_same_message_is_left_to_the_replay() -> None:
    driver = Driver().live()
    driver.raw(b'{"op":0,"t":"A","s":2,"d":{}}{"op":7,"d":null}{"op":0,"t":"B","s":3,"d":{}}')
    assert driver.names() == ["READY", "A"]
    driver.open()
    driver.hello()
    assert driver.sent(6)[-1]["d"]["seq"] == 2


def test_a_text_frame_on_a_compressed_connection_is_plain() -> None:
    driver = Driver(settings=options(compression="zstd-stream")).live()
    assert driver.raw(b'{"op":0,"t":"X","s":2,"d":{}}', binary=False) is not None


def test_a_session_of_several_zstd_frames_is_read() -> None:
    driver = Driver(settings=options(compression="zstd-stream")).start()
    driver.open()
    for payload in (
        {"op": 10, "d": {"heartbeat_interval": 41250}},
        {"op": 0, "t": "READY", "s": 1, "d": {"session_id": "x", "resume_gateway_url": RESUME}},
        {"op": 0, "t": "X", "s": 2, "d": {}},
    ):
        driver.raw(zstd.compress(json.dumps(payload).encode()), binary=True)
    assert driver.names() == ["READY", "X"]


def test_zlib_messages_split_over_websocket_messages_are_joined() -> None:
    driver = Driver(settings=options(compression="zlib-stream")).live()
    message = driver.wire.pack(b'{"op":0,"t":"X","s":2,"d":{}}')
    for part in (message[:3], message[3:-1], message[-1:]):
        driver.raw(part)
    assert driver.names() == ["READY", "X"]
