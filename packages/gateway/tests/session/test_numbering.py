"""Every dispatch is forwarded, whatever its number or name; numbers give it its identity."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.session import actions
from rateway.session.actions import State
from tests.session.driver import Driver, stored


def seen(driver: Driver) -> list[tuple[Any, Any, int]]:
    return [(envelope.t, envelope.s, repeat) for envelope, repeat, _ in driver.delivered]


def notes(driver: Driver) -> list[str]:
    return [note.text for note in driver.all(actions.Note)]


@pytest.mark.checklist("B24", "B25")
@pytest.mark.parametrize("d", [None, 5, "text", [], [{}], True, {"": {}}])
def test_whatever_d_is_the_event_is_forwarded_and_counted(d: Any) -> None:
    driver = Driver().live()
    driver.say({"op": 0, "t": "MESSAGE_CREATE", "s": 2, "d": d})
    assert seen(driver)[-1] == ("MESSAGE_CREATE", 2, 0)
    assert json.loads(bytes(driver.delivered[-1][0].d)) == d
    assert driver.conversation.received_seq == 2
    assert driver.state() is State.LIVE


@pytest.mark.checklist("B25")
def test_unknown_events_are_forwarded_and_unknown_opcodes_ignored_and_noted_once() -> None:
    driver = Driver().live()
    driver.dispatch("SOMETHING_NEW")
    for op in (2, 3, 5, 12, 14, 99, -1, 2**40):
        for _ in range(3):
            driver.say({"op": op, "d": {}})
    assert driver.names() == ["READY", "SOMETHING_NEW"]
    assert driver.conversation.ignored == 24
    assert len(notes(driver)) == 8
    assert driver.state() is State.LIVE


@pytest.mark.checklist("B25")
@pytest.mark.parametrize(
    "message", ["[]", "5", "null", '"x"', "{}", '{"op":"zero"}', '{"op":null}', '{"op":[0]}']
)
def test_sound_json_that_is_no_envelope_is_ignored_and_counted(message: str) -> None:
    driver = Driver().live()
    driver.raw(message.encode())
    assert driver.conversation.ignored == 1
    assert driver.state() is State.LIVE


@pytest.mark.checklist("B24")
def test_a_dispatch_with_odd_fields_keeps_what_can_be_read() -> None:
    driver = Driver().live()
    driver.raw(b'{"op":0,"t":5,"s":2,"d":{}}')
    driver.raw(b'{"op":0,"t":"A","s":"3","d":{}}')
    driver.raw(b'{"op":0,"t":null,"s":3,"d":{}}')
    assert seen(driver)[1:] == [("", 2, 0), ("A", None, 0), ("", 3, 0)]
    assert driver.conversation.received_seq == 3


def test_a_dispatch_without_a_number_is_forwarded_without_one() -> None:
    driver = Driver().live()
    driver.say({"op": 0, "t": "A", "d": {}})
    driver.say({"op": 0, "t": "B", "s": None, "d": {}})
    driver.say({"op": 0, "t": "C", "s": 0, "d": {}})
    driver.say({"op": 0, "t": "D", "s": -7, "d": {}})
    driver.say({"op": 0, "t": "E", "s": 2**63, "d": {}})
    assert seen(driver)[1:] == [(name, None, 0) for name in "ABCDE"]
    assert driver.conversation.received_seq == 1


def test_a_dispatch_outside_a_session_is_forwarded_without_a_number() -> None:
    driver = Driver(stored(100), permits=False).start()
    driver.open()
    driver.say({"op": 0, "t": "BEFORE_HELLO", "s": 101, "d": {}})
    driver.hello()
    driver.say({"op": 9, "d": False})
    driver.reconnected()
    driver.say({"op": 0, "t": "BEFORE_READY", "s": 7, "d": {}})
    driver.say({"op": 0, "t": "RESUMED", "s": 8, "d": {}})
    driver.say({"op": 0, "t": "READY", "s": 1, "d": {"session_id": "x"}})
    assert seen(driver) == [
        ("BEFORE_HELLO", None, 0),
        ("BEFORE_READY", None, 0),
        ("RESUMED", None, 0),
        ("READY", None, 0),
    ]
    assert driver.state() is State.WAITING_PERMIT
    assert driver.sent(6)[0]["d"]["seq"] == 100


@pytest.mark.parametrize("rest", ["none", "after a message", "after the fast path"])
def test_a_number_that_is_used_again_counts_its_repeats_and_the_same_event_is_none(rest: str) -> None:
    driver = Driver().live()

    def say(s: int, n: int) -> None:
        event = {"op": 0, "t": "A", "s": s, "d": {"n": n}}
        driver.say(event)
        if rest == "after the fast path" and s == driver.conversation.received_seq:
            # It leaves the document.
            driver.conversation.receive_state.last = json.dumps(event).encode()
        if rest != "none":
            driver.conversation.rest()

    say(2, 0)
    say(2, 0)
    say(2, 1)
    say(2, 1)
    say(2, 2)
    say(3, 0)
    say(2, 3)
    say(1, 9)
    say(4, 0)
    say(5, 0)
    assert [(s, repeat) for _, s, repeat in seen(driver)[1:]] == [
        (2, 0), (2, 0), (2, 1), (2, 1), (2, 2), (3, 0), (2, 3), (1, 1), (4, 0), (5, 0),
    ]  # fmt: skip
    assert driver.conversation.received_seq == 5
    assert driver.conversation.repeat == 0


def test_another_name_under_the_same_number_is_a_repeat_after_a_rest() -> None:
    driver = Driver().live()
    for name in ("A", "B", "B"):
        driver.say({"op": 0, "t": name, "s": 2, "d": {}})
        driver.conversation.rest()
    assert seen(driver)[1:] == [("A", 2, 0), ("B", 2, 1), ("B", 2, 1)]


def test_a_quiet_shard_keeps_nothing_of_a_large_event() -> None:
    driver = Driver().live()
    driver.say({"op": 0, "t": "GUILD_CREATE", "s": 2, "d": {"name": "x" * 100_000}})
    assert driver.conversation.rest() > 100_000
    assert driver.conversation.receive_state.last is None
    assert driver.conversation.rest() == 0


def test_two_events_never_share_a_number_and_repeat_unless_they_are_the_same() -> None:
    driver = Driver(stored(100)).start()
    driver.reconnected()
    driver.say({"op": 0, "t": "A", "s": 101, "d": {}})
    driver.say({"op": 0, "t": "B", "s": 101, "d": {}})
    driver.say({"op": 0, "t": "RESUMED", "s": 101, "d": {}})
    assert seen(driver) == [("A", 101, 0), ("B", 101, 1), ("RESUMED", 101, 2)]
    again = Driver(stored(100)).start()
    again.reconnected()
    again.say({"op": 0, "t": "RESUMED", "s": 100, "d": {}})
    assert seen(again) == [("RESUMED", 100, 1)]
    again.dispatch()
    assert seen(again)[1:] == [("MESSAGE_CREATE", 101, 0)]


def test_a_replay_that_reaches_back_further_gives_the_same_identities() -> None:
    driver = Driver(stored(100)).start()
    driver.reconnected()
    for s in (98, 99, 100, 101):
        driver.say({"op": 0, "t": "A", "s": s, "d": {"n": s}})
    assert seen(driver) == [("A", 98, 0), ("A", 99, 0), ("A", 100, 0), ("A", 101, 0)]


def test_numbers_that_were_left_out_are_noted_and_nothing_else() -> None:
    driver = Driver().live()
    driver.say({"op": 0, "t": "A", "s": 9, "d": {}})
    assert driver.conversation.received_seq == 9
    assert notes(driver) == ["sequences were left out by Discord"]


def test_a_second_hello_and_a_second_ready_change_no_session() -> None:
    driver = Driver().live()
    driver.hello(1000)
    driver.say({"op": 0, "t": "READY", "s": 2, "d": {"session_id": "ghost"}})
    assert driver.session() == "first"
    assert driver.names() == ["READY", "READY"]
    assert driver.conversation.ignored == 1


def test_notes_are_bounded_whatever_comes() -> None:
    driver = Driver().live()
    for op in range(100, 1000):
        driver.say({"op": op})
    assert len(notes(driver)) <= 200
    assert driver.conversation.ignored == 900


numbers = st.none() | st.integers(-3, 12) | st.sampled_from([2**62, 2**63, 2**64])


@given(st.lists(st.tuples(numbers, st.integers(0, 2)), max_size=40))
def test_every_dispatch_is_forwarded_once_and_identities_are_single(
    dispatches: list[tuple[int | None, int]],
) -> None:
    driver = Driver().live()
    for s, n in dispatches:
        driver.say({"op": 0, "t": "A", "s": s, "d": n})
    assert len(driver.delivered) == len(dispatches) + 1
    highest = 1
    contents: dict[tuple[int, int], bytes] = {}
    for envelope, repeat, _ in driver.delivered[1:]:
        if envelope.s is None:
            continue
        content = bytes(envelope.d)
        assert contents.setdefault((envelope.s, repeat), content) == content
        if envelope.s > highest:
            highest = envelope.s
            assert repeat == 0
    assert driver.conversation.received_seq == highest


@pytest.mark.checklist("K49")
def test_a_ready_numbered_0_keeps_its_number_and_the_next_event_is_1() -> None:
    driver = Driver()
    driver.start()
    driver.reconnected()
    d = {"session_id": "first", "resume_gateway_url": "wss://resume.invalid"}
    driver.say({"op": 0, "t": "READY", "s": 0, "d": d})
    driver.say({"op": 0, "t": "GUILD_CREATE", "s": 1, "d": {}})
    assert seen(driver) == [("READY", 0, 0), ("GUILD_CREATE", 1, 0)]
    # Only READY: a 0 within a session cannot be a number.
    driver.say({"op": 0, "t": "GUILD_CREATE", "s": 0, "d": {}})
    assert seen(driver)[-1] == ("GUILD_CREATE", None, 0)
