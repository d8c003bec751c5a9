"""Answers in parts are joined, and a part that is missing is noticed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rateway_protocol.contract.errors import ErrorCode, Fault
from rateway_protocol.contract.parts import AnswerParts


def messages(bodies: list[bytes]) -> list[tuple[dict[str, object], bytes]]:
    """The messages of an answer as the gateway sends them."""
    found: list[tuple[dict[str, object], bytes]] = [
        ({"status": "ok", "part": number}, body) for number, body in enumerate(bodies, 1)
    ]
    found[-1][0]["parts"] = len(bodies)
    return found


def test_an_answer_without_parts_is_whole() -> None:
    assert AnswerParts().take({"status": "ok"}, b"{}") == b"{}"


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=6))
def test_parts_are_joined_in_order(bodies: list[bytes]) -> None:
    parts = AnswerParts()
    *before, last = [parts.take(headers, body) for headers, body in messages(bodies)]
    assert before == [None] * (len(bodies) - 1)
    assert last == b"".join(bodies)
    assert parts.size == len(last)


@given(st.lists(st.binary(max_size=8), min_size=2, max_size=6), st.data())
def test_a_missing_part_is_no_answer(bodies: list[bytes], data: st.DataObject) -> None:
    sent = messages(bodies)
    del sent[data.draw(st.integers(0, len(sent) - 2))]
    parts = AnswerParts()
    found = [parts.take(headers, body) for headers, body in sent]
    fault = next(each for each in found if each is not None)
    assert isinstance(fault, Fault) and fault.code is ErrorCode.UNAVAILABLE
