"""What cannot be forwarded is told in its place, through conversation, cluster and publisher; the others are served."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from rateway.runtime.runner.event_tallies import MOST_EVENT_NAMES
from tests.fast_path.test_fast_path import Observer, Outcome, dispatch, walked


def after(messages: list[bytes], *, fast: bool = True, cache: bool = False) -> Outcome:
    return asyncio.run(walked(messages, "none", fast=fast, cache=cache))


def odd(s: int, t: bytes = b'"A"', op: bytes = b"0", d: bytes = b"{}") -> bytes:
    return b'{"t":%b,"s":%d,"op":%b,"d":%b}' % (t, s, op, d)


@pytest.mark.checklist("K5", "K6", "K7")
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (odd(3, t=b'"A\xff"'), "its name is not UTF-8"),
        (odd(3, t=b'"A\\ud800"'), "its name is not UTF-8"),
        (odd(3, t=b'"%b"' % (b"X" * 256)), "its name is longer than a routing key may be"),
        (odd(3, t=b'"%b"' % ("ä" * 128).encode()), "its name is longer than a routing key may be"),
        (odd(3, op=b"9" * 5000), "its op is not a whole number"),
        (odd(3, t=b"null"), "it has no name"),
        (odd(3, t=b'""'), "it has no name"),
        (odd(3, t=b"7"), "it has no name"),
        (odd(3, t=b'"gateway"'), "its name is a key of the gateway's own"),
        (odd(3, t=b'"RATEWAY_GAP"'), "its name is a key of the gateway's own"),
    ],
)
def test_a_dispatch_that_cannot_be_forwarded_is_told_in_its_place_and_settled(
    poison: bytes, reason: str, fast: bool
) -> None:
    found = after([dispatch("A", 2, 1), poison, dispatch("A", 4, 2)], fast=fast)
    assert [each[0] for each in found.published] == ["READY", "A", "RATEWAY_UNREADABLE", "A"]
    _, body, _, message_id, _ = found.published[2]
    told = json.loads(body)
    assert (told["shard"], told["seq"], told["reason"]) == (3, 3, reason)
    assert message_id == "unreadable:s1:3:3"
    settled = found.numbers[11]
    assert settled == 4
    assert "a message that cannot be read" not in " ".join(found.told)


@pytest.mark.checklist("K5", "K6")
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    "d", [b'"a\\ud800b"', b"[" * 1000 + b"]" * 1000, b"[nul]"], ids=["surrogate", "deep", "odd"]
)
def test_an_odd_d_reaches_the_worker_byte_for_byte(d: bytes, fast: bool) -> None:
    found = after([dispatch("A", 2, 1), odd(3, d=d), dispatch("A", 4, 2)], fast=fast)
    assert [(each[0], each[1]) for each in found.published][1:] == [("A", b"1"), ("A", d), ("A", b"2")]


@pytest.mark.checklist("K8")
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("s", [10**17, 10**18 - 1, 10**18, 10**19 - 1, 2**63 - 1, 2**63, 10**30])
def test_a_sequence_of_any_size_passes_or_counts_as_none(s: int, fast: bool) -> None:
    messages = [dispatch("A", 2, 1), dispatch("A", s, 2), dispatch("A", s + 1, 3), dispatch("A", s + 2, 4)]
    found = after(messages, fast=fast, cache=True)
    assert [json.loads(each[1]) for each in found.published if each[0] == "A"] == [1, 2, 3, 4]
    numbers = [each[2].get("seq") for each in found.published if each[0] == "A"]
    assert numbers == [2, *(each if each < 2**63 else None for each in (s, s + 1, s + 2))]


@pytest.mark.checklist("K17")
@pytest.mark.parametrize("fast", [True, False])
def test_event_names_without_end_are_forwarded_and_fill_no_table(fast: bool) -> None:
    count = 3 * MOST_EVENT_NAMES
    messages = [dispatch(f"NAME_{s}", s, s) for s in range(2, count)]
    found = after([*messages, dispatch("MESSAGE_CREATE", count, 0)], fast=fast)
    assert len(found.published) == count
    assert found.counts["MESSAGE_CREATE"] == 1
    assert len(found.counts) <= MOST_EVENT_NAMES + 1
    assert sum(found.counts.values()) + found.numbers[-1] == count


@pytest.mark.checklist("K17")
def test_both_ways_count_names_without_end_alike() -> None:
    messages: list[Any] = [dispatch(f"NAME_{s % 700}", s, s) for s in range(2, 1500)]
    assert after(messages, fast=True) == after(messages, fast=False)


@pytest.mark.checklist("K7")
@pytest.mark.parametrize("fast", [True, False])
def test_a_mistake_of_the_gateways_own_costs_the_event_that_it_met(fast: bool) -> None:
    messages = [dispatch("A", 2, 1), dispatch("BREAKS", 3, 0), dispatch("BREAKS", 4, 0), dispatch("A", 5, 2)]
    found = after(messages, fast=fast, cache=True)
    assert [each[0] for each in found.published] == [
        "READY",
        "A",
        "RATEWAY_UNREADABLE",
        "RATEWAY_UNREADABLE",
        "A",
    ]
    told = [json.loads(each[1]) for each in found.published if each[0] == "RATEWAY_UNREADABLE"]
    assert [(each["seq"], each["reason"]) for each in told] == [
        (3, "the gateway failed on it (RuntimeError)"),
        (4, "the gateway failed on it (RuntimeError)"),
    ]
    assert found.numbers[11] == 5
    assert "backing_off" not in " ".join(found.told) and "reconnect" not in " ".join(found.told)


def test_an_order_that_fails_keeps_no_other_from_being_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Observer, shard: Any, order: Any) -> None:
        raise RuntimeError("a mistake in the cluster")

    monkeypatch.setattr(Observer, "state_changed", broken)
    found = after([dispatch("A", 2, 1), dispatch("A", 3, 2)])
    assert [json.loads(each[1]) for each in found.published if each[0] == "A"] == [1, 2]
