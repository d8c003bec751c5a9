"""Reading may pause when delivery takes no more; the silence is then ours, and the session is kept."""

from __future__ import annotations

import pytest
from rateway.session import actions
from rateway.session.actions import State
from rateway_protocol.discord.close_codes import KEEP_SESSION
from tests.session.driver import INTERVAL, Driver, Least, options, stored, voice


def test_heartbeats_go_on_while_reading_pauses_and_their_silence_is_not_judged() -> None:
    driver = Driver(chance=Least(), acks=False).live()
    driver.advance(INTERVAL - 1)
    driver.say({"op": 11})
    driver.fact("pause", driver.now)
    driver.advance(INTERVAL * 0.7)
    assert len(driver.sent(1)) == 2
    driver.fact("resume_reading", driver.now)
    driver.advance(INTERVAL * 0.3 + 0.5)
    # The beat that was sent during the pause is not acknowledged yet: what was sent meanwhile comes first.
    assert driver.state() is State.LIVE
    driver.say({"op": 11})
    driver.advance(INTERVAL - 1)
    assert driver.state() is State.LIVE
    assert driver.all(actions.Disconnect) == []


@pytest.mark.checklist("H21")
def test_a_pause_ends_in_a_close_that_keeps_the_session_before_discord_loses_patience() -> None:
    driver = Driver(chance=Least()).live()
    driver.fact("pause", driver.now)
    driver.fact("pause", driver.now + 1)
    driver.advance(INTERVAL - 0.01)
    assert driver.last(actions.Disconnect).code == KEEP_SESSION
    assert driver.state() is State.BACKING_OFF
    assert driver.session() == "first"
    driver.advance(10_000.0)
    assert driver.state() is State.BACKING_OFF
    driver.fact("resume_reading", driver.now)
    assert driver.state() is State.CONNECTING
    assert driver.last(actions.Connect).resuming
    driver.fact("resume_reading", driver.now)
    assert len(driver.all(actions.Connect)) == 2


@pytest.mark.checklist("H21")
def test_what_discord_asks_during_a_pause_is_answered_when_it_is_read() -> None:
    driver = Driver(chance=Least()).live()
    driver.fact("pause", driver.now)
    driver.advance(5.0)
    # What the socket had already buffered is still handed in.
    before = len(driver.sent(1))
    driver.say({"op": 1})
    assert len(driver.sent(1)) == before + 1
    driver.say({"op": 7})
    assert driver.state() is State.BACKING_OFF
    driver.fact("resume_reading", driver.now)
    assert driver.state() is State.CONNECTING


def test_a_connection_lost_during_a_pause_is_not_opened_again_before_its_end() -> None:
    driver = Driver(chance=Least()).live()
    driver.fact("pause", driver.now)
    driver.fact("closed", None, driver.now)
    assert driver.state() is State.BACKING_OFF
    assert driver.conversation.wake_at is None
    driver.fact("woken", driver.now + 100)
    assert driver.state() is State.BACKING_OFF
    driver.fact("resume_reading", driver.now + 101)
    assert driver.state() is State.CONNECTING


def test_a_back_off_that_is_longer_than_the_pause_is_kept() -> None:
    driver = Driver(chance=Least()).live()
    driver.fact("pause", driver.now)
    driver.say({"op": 9, "d": True})
    driver.fact("resume_reading", driver.now)
    assert driver.state() is State.BACKING_OFF
    driver.advance(1.0)
    assert driver.state() is State.CONNECTING


def test_a_start_during_a_pause_waits_for_its_end() -> None:
    driver = Driver(stored())
    driver.fact("pause", driver.now)
    driver.start()
    assert driver.all(actions.Connect) == []
    driver.fact("resume_reading", driver.now)
    assert driver.state() is State.CONNECTING


def test_a_pause_in_a_handshake_stops_its_clock() -> None:
    driver = Driver(stored(), settings=options(replay_timeout=10.0)).start()
    driver.reconnected()
    driver.advance(9.0)
    driver.fact("pause", driver.now)
    driver.advance(20.0)
    driver.fact("resume_reading", driver.now)
    driver.advance(9.0)
    assert driver.state() is State.RESUMING
    driver.dispatch()
    driver.resumed()
    assert driver.state() is State.LIVE


def test_commands_are_sent_while_reading_pauses() -> None:
    driver = Driver().live()
    driver.fact("pause", driver.now)
    driver.command(4, voice(), "h")
    assert driver.outcomes() == [("h", "sent")]


def test_short_pauses_again_and_again_do_not_add_up() -> None:
    driver = Driver(chance=Least()).live()
    for _ in range(100):
        driver.fact("pause", driver.now)
        driver.advance(INTERVAL / 2)
        driver.fact("resume_reading", driver.now)
        driver.dispatch()
    assert driver.state() is State.LIVE
