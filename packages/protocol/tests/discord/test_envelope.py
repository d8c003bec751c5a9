"""Envelopes are read whole, in any order of keys, and from garbage without a surprise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway_protocol.discord import control
from rateway_protocol.discord.envelope import (
    FAILURES,
    Envelope,
    EnvelopeError,
    NotAnEnvelope,
    decode,
    decode_all,
    decode_fast,
    split,
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
envelopes = st.fixed_dictionaries(
    {"op": st.integers(0, 50)},
    optional={
        "s": st.none() | st.integers(1, 2**62),
        "t": st.none() | st.text(),
        "d": documents,
        "extra": documents,
    },
)


@pytest.mark.checklist("A9")
@given(envelopes, st.randoms(use_true_random=False))
def test_keys_may_come_in_any_order_and_unknown_ones_are_skipped(
    payload: dict[str, Any], random: Any
) -> None:
    keys = list(payload)
    random.shuffle(keys)
    envelope = decode(json.dumps({key: payload[key] for key in keys}).encode())
    assert (envelope.op, envelope.s, envelope.t) == (payload["op"], payload.get("s"), payload.get("t"))
    assert json.loads(bytes(envelope.d)) == payload.get("d")


def test_d_is_the_bytes_that_came_and_is_null_when_absent() -> None:
    assert bytes(decode(b'{"op":0,"t":"X","s":1,"d": {"b" : 1.50} }').d) == b'{"b" : 1.50}'
    assert bytes(decode(b'{"op":11}').d) == b"null"
    assert bytes(decode(memoryview(b'{"op":0,"d":[1]}')).d) == b"[1]"


@pytest.mark.checklist("B24")
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b'{"op":0,"s":"7","t":"X","d":1}', (0, None, "X")),
        (b'{"op":0,"s":7,"t":5,"d":1}', (0, 7, None)),
        (b'{"op":0.0,"s":7.0,"t":"X"}', (0, 7, "X")),
        (b'{"op":0,"s":7.5,"t":["X"]}', (0, None, None)),
        (b'{"op":0,"s":true,"t":"X"}', (0, None, "X")),
    ],
)
def test_a_field_of_an_odd_type_counts_as_absent(message: bytes, expected: tuple[Any, ...]) -> None:
    envelope = decode(message)
    assert (envelope.op, envelope.s, envelope.t) == expected


@pytest.mark.parametrize(
    "message", [b"[]", b"1", b"null", b'"x"', b"{}", b'{"op":"1"}', b'{"op":true}', b'{"op":1.5}']
)
def test_sound_json_that_is_no_envelope_is_told_from_garbage(message: bytes) -> None:
    with pytest.raises(NotAnEnvelope):
        decode(message)


@pytest.mark.parametrize(
    "message", [b"", b"{", b'{"op":0', b"\xff\xfe", b'{"op":0}x', b'{"op":0,"d":' + b"[" * 100_000]
)
def test_garbage_is_an_envelope_error(message: bytes) -> None:
    with pytest.raises(EnvelopeError) as error:
        decode(message)
    assert not isinstance(error.value, NotAnEnvelope)


@given(st.lists(envelopes, min_size=1, max_size=5), st.sampled_from([b"", b" ", b"\n\n"]))
def test_documents_one_after_another_are_split(payloads: list[dict[str, Any]], between: bytes) -> None:
    whole = between.join(json.dumps(payload).encode() for payload in payloads)
    assert [json.loads(document) for document in split(whole)] == payloads
    assert [each.op for each in decode_all(whole) if isinstance(each, Envelope)] == [
        p["op"] for p in payloads
    ]


def test_bytes_that_are_not_utf8_survive_the_splitting() -> None:
    assert split(b'{"op":0,"d":"\xff"}{"op":1}') == [b'{"op":0,"d":"\xff"}', b'{"op":1}']


@given(st.binary(max_size=200))
def test_no_bytes_make_a_reader_raise_anything_else(garbage: bytes) -> None:
    for reader in (decode, split, decode_all):
        try:
            reader(garbage)
        except EnvelopeError:
            pass
    try:
        decode_fast(garbage)
    except FAILURES:
        pass


@given(envelopes, st.data())
def test_a_cut_or_lengthened_message_is_never_taken_for_whole(
    payload: dict[str, Any], data: st.DataObject
) -> None:
    whole = json.dumps(payload).encode()
    cut = data.draw(st.integers(0, len(whole) - 1))
    for broken in (whole[:cut], whole + b"}", whole + whole[: max(1, cut)]):
        if broken == whole + whole:
            continue
        with pytest.raises(EnvelopeError):
            decode(broken)


@given(documents)
def test_the_readers_of_steering_messages_never_raise(d: Any) -> None:
    raw = decode(json.dumps({"op": 10, "d": d}).encode()).d
    interval = control.read_interval(raw)
    assert interval is None or 0.1 <= interval <= 3600
    ready = control.read_ready(raw)
    assert ready is None or ready.session_id
    limited = control.members_limited(raw)
    assert limited is None or limited[1] >= 0
    assert control.resumable(raw) is (d is True)


def test_hello_ready_and_rate_limited_are_read() -> None:
    def raw(d: Any) -> Any:
        return decode(json.dumps({"op": 0, "d": d}).encode()).d

    assert control.read_interval(raw({"heartbeat_interval": 41250, "_trace": []})) == 41.25
    assert control.read_interval(raw({"heartbeat_interval": 0})) is None
    ready = control.read_ready(raw({"session_id": "a", "resume_gateway_url": "wss://x", "guilds": [{}]}))
    assert ready is not None and (ready.session_id, ready.resume_gateway_url) == ("a", "wss://x")
    odd = control.read_ready(raw({"session_id": "a", "resume_gateway_url": "http://x"}))
    assert odd is not None and odd.resume_gateway_url is None
    assert control.read_ready(raw({"session_id": ""})) is None
    limited = {"opcode": 8, "retry_after": 29.457, "meta": {"guild_id": "7", "nonce": "n"}}
    assert control.members_limited(raw(limited)) == (7, 29.457)
    assert control.members_limited(raw({**limited, "opcode": 3})) is None


@pytest.mark.parametrize("url", ["wss://h", "ws://h:80/x", "ws://[::1]:9"])
def test_gateway_addresses_are_recognised(url: str) -> None:
    assert control.is_gateway_url(url)


@pytest.mark.parametrize("url", ["", "https://h", "wss://", "wss://h:x", "wss://[", "wss://h\n", None, 5])
def test_what_cannot_be_dialled_is_no_gateway_address(url: object) -> None:
    assert not control.is_gateway_url(url)
