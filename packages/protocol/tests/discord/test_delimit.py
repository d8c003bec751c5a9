"""The end of a value is found by both forms at the same place, whatever it holds, and in linear time."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway_protocol.discord.delimit import plain_value_end, value_end
from rateway_protocol.discord.envelope import (
    Envelope,
    EnvelopeError,
    NotAnEnvelope,
    UnreadableDispatch,
    decode,
    decode_all,
)

# Bytes that decide where a value ends, and some that do not.
DECIDING = st.lists(
    st.sampled_from([bytes((each,)) for each in b'[]{}"\\,: a1-\n\x00\xff']), max_size=40
).map(b"".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.checklist("K5", "K6")
@given(DECIDING | st.binary(max_size=40), st.integers(0, 70), st.integers(0, 80))
def test_both_forms_find_the_same_end_in_any_bytes(text: bytes, opened: int, closed: int) -> None:
    text = b"[" * opened + text + b"]" * closed
    for at in (0, opened, len(text)):
        assert value_end(text, at) == plain_value_end(text, at)


@given(JSON, st.booleans(), st.binary(max_size=5))
def test_the_end_of_sound_json_is_its_end(value: Any, ascii_only: bool, after: bytes) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    whole = b" " + text + b"," + after
    assert value_end(whole, 1) == plain_value_end(whole, 1) == 1 + len(text)


@pytest.mark.checklist("K6")
@pytest.mark.parametrize("find", [value_end, plain_value_end])
@pytest.mark.parametrize(
    "text",
    [
        b"[" * 1_000_000 + b"]" * 1_000_000,
        b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
        b'["' + b'\\"' * 1_000_000 + b'"]',
        b'["' + b"\\\\" * 1_000_000 + b'"]',
        b"[" + b'"",' * 500_000 + b"]",
        b"[" + b"[]" * 200_000 + b"]",
    ],
    ids=["lists", "objects", "escaped quotes", "backslashes", "strings", "pairs"],
)
def test_depth_and_length_cost_linear_time_and_no_recursion(find: Any, text: bytes) -> None:
    began = time.process_time()
    assert find(text, 0) == len(text)
    assert find(text[:-1], 0) == -1
    assert time.process_time() - began < 5


def dispatch(t: bytes = b'"A"', s: bytes = b"1", op: bytes = b"0", d: bytes = b"{}") -> bytes:
    return b'{"t":%b,"s":%b,"op":%b,"d":%b}' % (t, s, op, d)


@pytest.mark.checklist("K5", "K6")
@pytest.mark.parametrize(
    "d",
    [
        b'"a\\ud800b"', b"[" * 1000 + b"]" * 1000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b'"\\x \\u12"',
        b'"\x00\xff"', b"NaN", b"-01", b'{"a":tru,}',
    ],
    ids=["a lone surrogate", "1,000 deep", "100,000 deep", "escapes", "bytes", "NaN", "-01", "words"],
)  # fmt: skip
def test_d_is_forwarded_byte_for_byte_whatever_it_says(d: bytes) -> None:
    envelope = decode(dispatch(d=d))
    assert (envelope.op, envelope.s, envelope.t, bytes(envelope.d)) == (0, 1, "A", d)
    assert not isinstance(envelope, UnreadableDispatch)
    assert [bytes(each.d) for each in decode_all(dispatch(d=d) * 2) if isinstance(each, Envelope)] == [d, d]


@pytest.mark.checklist("K7")
@pytest.mark.parametrize(
    ("message", "why"),
    [
        (dispatch(t=b'"A\xff"'), "not UTF-8"),
        (dispatch(t=b'"A\\ud800"'), "not UTF-8"),
        (dispatch(t=b'"A\\x"'), "cannot be read"),
        (dispatch(t=b'"' + b"A" * 2_000_000 + b'\\x"'), "longer than a routing key"),
        (dispatch(op=b"9" * 5000), "op is not a whole number"),
        (dispatch(op=b'"0"'), "op is not a whole number"),
        (b'{"s":1,"t":"A","d":{}}', "op is not a whole number"),
    ],
)
def test_a_dispatch_that_has_a_place_but_cannot_be_forwarded_says_why(message: bytes, why: str) -> None:
    envelope = decode(message)
    assert isinstance(envelope, UnreadableDispatch)
    assert (envelope.op, envelope.s, envelope.t) == (0, 1, "")
    assert why in envelope.why


@pytest.mark.checklist("K8")
@pytest.mark.parametrize("digits", [1, 17, 18, 19, 20, 30, 31, 5000])
def test_a_sequence_of_any_size_is_read_or_counts_as_none(digits: int) -> None:
    s = decode(dispatch(s=b"9" * digits, d=b'"\\x"')).s
    assert s == (int("9" * digits) if digits <= 30 else None)


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_no_part_of_a_message_makes_it_raise_anything_else(t: bytes, s: bytes, op: bytes, d: bytes) -> None:
    for message in (dispatch(t, s, op, d), dispatch(b'"%b"' % t, s, op, d), t + s + op + d):
        try:
            found = decode_all(message)
        except EnvelopeError:
            continue
        for each in found:
            if isinstance(each, Envelope):
                assert each.t is None or each.t.encode() is not None
            else:
                assert isinstance(each, NotAnEnvelope)


def test_a_message_of_very_many_documents_is_refused() -> None:
    assert len(decode_all(b'{"op":11}' * 1000)) == 1000
    with pytest.raises(EnvelopeError, match="more than 1000"):
        decode_all(b'{"op":11}' * 1_000_000)
