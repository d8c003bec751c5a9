"""Whatever Discord, the network and the clock do: nothing raises, nothing is lost, no limit is exceeded."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rateway.session import actions
from rateway.session.actions import DialFailure, State
from tests.session.driver import RESUME, Driver, members, options, presence, stored, voice

CODES = [None, 1000, 1001, 1006, 1009, 1011, 4000, 4001, 4002, 4003, 4005, 4006, 4007, 4008, 4009, 4999]
FATAL = [4004, 4010, 4011, 4012, 4013, 4014]

COMMANDS = [
    (3, presence("a")),
    (4, voice()),
    (8, members()),
    (8, members(user_ids=["1"])),
    (31, {"guild_ids": [str(1 << 30)]}),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
payloads = st.fixed_dictionaries(
    {"op": st.sampled_from([0, 0, 0, 1, 7, 9, 10, 11, 5, 99]) | json_values},
    optional={
        "s": st.none() | st.integers(-2, 50) | json_values,
        "t": st.sampled_from(["READY", "RESUMED", "MESSAGE_CREATE", "RATE_LIMITED"]) | json_values,
        "d": st.sampled_from(
            [True, False, {"heartbeat_interval": 41250}, {"session_id": "x", "resume_gateway_url": RESUME}]
        )
        | json_values,
    },
)
facts = st.one_of(
    st.tuples(st.just("say"), payloads),
    st.tuples(st.just("raw"), st.binary(max_size=30)),
    st.tuples(st.just("closed"), st.sampled_from(CODES + FATAL) | st.integers(-5, 70_000)),
    st.tuples(st.just("advance"), st.floats(0, 300)),
    st.tuples(st.just("sleep"), st.floats(0, 300)),
    st.tuples(st.just("command"), st.sampled_from(COMMANDS)),
    st.tuples(
        st.sampled_from(
            [
                "start",
                "opened",
                "permitted",
                "pause",
                "resume_reading",
                "woken",
                "dial",
                "refuse",
                "reconnect",
                "renew",
            ]
        ),
        st.none(),
    ),
    st.tuples(st.sampled_from(["walk", "walk", "walk", "stop", "end", "settle"]), st.integers(0, 60)),
)


def carry_out(driver: Driver, kind: str, value: Any) -> None:
    now = driver.now
    if kind in ("say", "raw", "advance"):
        getattr(driver, kind)(value)
    elif kind == "sleep":
        driver.now += value
        driver.fact("woken", driver.now)
    elif kind == "closed":
        driver.fact("closed", value, now)
    elif kind == "command":
        driver.command(value[0], value[1])
    elif kind == "dial":
        driver.fact("dial_failed", DialFailure("x", 503, 5.0), now)
    elif kind == "refuse":
        driver.fact("refused", now + 10, "budget", now)
    elif kind in ("reconnect", "renew"):
        driver.fact(kind, "x", now)
    elif kind == "settle":
        driver.conversation.settle(value)
    elif kind in ("stop", "end"):
        # Rarely, so that most walks go on.
        if value == 0:
            driver.fact("stop", now, end_session=kind == "end")
    elif kind == "walk":
        walk(driver)
    else:
        driver.fact(kind, now)


def walk(driver: Driver) -> None:
    """What a healthy Discord would do next."""
    state = driver.state()
    if state is State.IDLE:
        driver.start()
    elif state is State.CONNECTING:
        driver.open()
    elif state is State.WAITING_HELLO:
        driver.hello()
    elif state is State.IDENTIFYING:
        driver.ready()
    elif state is State.RESUMING:
        driver.seq = driver.conversation.received_seq
        driver.resumed()
    elif state is State.LIVE:
        driver.seq = driver.conversation.received_seq
        driver.dispatch()


@settings(max_examples=300)
@given(st.lists(facts, max_size=40), st.sampled_from(["none", "zstd-stream", "zlib-stream"]), st.booleans())
def test_no_sequence_of_facts_raises_or_breaks_what_must_hold(
    steps: list[tuple[str, Any]], compression: str, stores: bool
) -> None:
    driver = Driver(stored(5) if stores else None, settings=options(compression=compression))
    beats: list[int] = []
    is_paused = False
    for kind, value in steps:
        carry_out(driver, kind, value)
        if kind in ("pause", "resume_reading"):
            is_paused = kind == "pause"
        conversation = driver.conversation
        assert conversation.orders == []
        assert (conversation.state is State.RESUMING) == conversation.replaying
        if conversation.state is State.LIVE:
            assert conversation.session_id is not None
        if conversation.state in (State.STOPPED, State.FATAL):
            assert conversation.wake_at is None
        elif conversation.state not in (State.IDLE, State.CONNECTING, State.WAITING_PERMIT):
            assert conversation.wake_at is not None or (is_paused and conversation.state is State.BACKING_OFF)
    for order in driver.taken:
        # Rule: no session is ended by accident.
        if isinstance(order, actions.Disconnect) and order.reason != "stopping":
            assert order.code == 4900
        if isinstance(order, actions.SessionStarted | actions.SessionLost):
            beats.clear()
        if isinstance(order, actions.Send):
            payload = json.loads(order.data)
            if payload["op"] == 1 and payload["d"] is not None:
                assert not beats or payload["d"] >= beats[-1]
                beats.append(payload["d"])
            if payload["op"] == 6 and beats:
                assert payload["d"]["seq"] >= beats[-1]
    permits = [
        type(order) for order in driver.taken if isinstance(order, actions.Identify | actions.PermitDone)
    ]
    assert all(a is not b for a, b in itertools.pairwise(permits) if a is actions.PermitDone)
    connections = [order.connection for order in driver.all(actions.Connect)]
    assert connections == list(range(1, len(connections) + 1))


def misbehave(driver: Driver, chance: random.Random, kind: str) -> None:
    """One connection's life with a Discord that fails in one way, or in all of them."""
    state = driver.state()
    mood = (
        chance.choice(["dial", "hello", "op7", "op9", "close", "silent", "live"]) if kind == "mixed" else kind
    )
    if state is not State.CONNECTING:
        driver.until(State.CONNECTING, at_most=1e6)
    if mood == "dial":
        driver.fact("dial_failed", DialFailure("refused"), driver.now)
        return
    driver.open()
    if mood == "hello":
        driver.advance(25.0)
        return
    driver.hello()
    if driver.state() is State.IDENTIFYING and mood in ("close", "op7", "live", "silent"):
        driver.ready(f"session {driver.now}")
    elif driver.state() is State.RESUMING and chance.random() < 0.5:
        driver.seq = driver.conversation.received_seq
        driver.resumed()
    if mood == "live":
        driver.advance(chance.uniform(0, 400))
        driver.fact("closed", chance.choice(CODES), driver.now)
    elif mood == "op7":
        driver.say({"op": 7})
    elif mood == "op9":
        driver.say({"op": 9, "d": chance.random() < 0.3})
    elif mood == "close":
        driver.fact("closed", chance.choice(CODES), driver.now)
    elif mood == "silent":
        driver.acks = False
        driver.advance(150.0)
        driver.acks = True


@pytest.mark.checklist("D10")
@pytest.mark.parametrize("kind", ["dial", "hello", "op7", "op9", "close", "silent", "live", "mixed"])
@pytest.mark.parametrize("seed", range(3))
def test_for_any_schedule_of_failures_a_days_identifies_are_few(kind: str, seed: int) -> None:
    chance = random.Random(seed)
    driver = Driver(chance=random.Random(seed + 100))
    driver.start()
    identifies: list[float] = []
    resumes: list[float] = []

    def note(order: actions.Order) -> None:
        if isinstance(order, actions.Identify):
            identifies.append(driver.now)
        elif isinstance(order, actions.Connect):
            resumes.append(driver.now)
            # Only times are asked about: a day of orders need not be remembered.
            driver.taken.clear()
            driver.delivered.clear()

    driver.on_order = note
    end = driver.now + 86_400.0
    while driver.now < end:
        misbehave(driver, chance, kind)
    assert len(identifies) <= 12 * 25
    for start in identifies:
        assert sum(1 for at in identifies if start <= at < start + 3600.0) <= 12
    # Connections are free, but an endless flood of them would be none of the kind.
    assert len(resumes) < 86_400 / 5


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_through_any_failures_the_events_of_a_session_come_in_order_and_once(seed: int) -> None:
    """A Discord that keeps what was not received, as the real one does, and a network that breaks anywhere."""
    chance = random.Random(seed)
    driver = Driver(
        chance=random.Random(seed + 1), settings=options(compression=chance.choice(["none", "zstd-stream"]))
    )
    driver.live()
    kept = 1
    for _ in range(60):
        if driver.state() is State.LIVE:
            for _ in range(chance.randrange(4)):
                kept += 1
                if chance.random() < 0.2:
                    driver.fact("closed", chance.choice([None, 1001, 4000, 4008]), driver.now)
                if driver.state() is State.LIVE:
                    driver.say({"op": 0, "t": "E", "s": kept, "d": kept})
            if chance.random() < 0.3 and driver.state() is State.LIVE:
                driver.say({"op": 7})
        if driver.state() is State.BACKING_OFF:
            driver.until(State.CONNECTING)
        if driver.state() is State.CONNECTING:
            driver.open()
            driver.hello()
            asked = driver.sent(6)[-1]["d"]["seq"]
            for s in range(asked + 1, kept + 1):
                driver.say({"op": 0, "t": "E", "s": s, "d": s})
                if chance.random() < 0.1:
                    driver.fact("closed", None, driver.now)
                    break
            else:
                kept += 1
                driver.say({"op": 0, "t": "RESUMED", "s": kept, "d": kept})
    numbers = [envelope.s for envelope, _, _ in driver.delivered]
    assert numbers == list(range(1, len(numbers) + 1))
    assert driver.all(actions.SessionLost) == []


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_commands_are_answered_exactly_once_whatever_happens(seed: int) -> None:
    chance = random.Random(seed)
    driver = Driver(
        chance=random.Random(seed + 1), settings=options(intents=53608447, command_queue=20)
    ).start()
    given_out = 0
    for _ in range(80):
        for _ in range(chance.randrange(12)):
            op, d = chance.choice([(3, presence(str(given_out))), (4, voice()), (8, members())])
            driver.command(op, d, given_out, lasts=chance.uniform(0, 200))
            given_out += 1
        if chance.random() > 0.3:
            walk(driver)
        elif driver.state() in (State.CONNECTING, State.BACKING_OFF):
            misbehave(driver, chance, "mixed")
        else:
            driver.fact("closed", chance.choice(CODES), driver.now)
        driver.advance(chance.uniform(0, 30))
    driver.advance(300.0)
    handles = [handle for handle, _ in driver.outcomes()]
    assert sorted(handles) == list(range(given_out))
    assert driver.conversation.waiting_commands == 0
