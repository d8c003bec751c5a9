"""The messages that steer a session: what is needed of them is read, whatever stands beside it."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway_protocol.discord import control

# Values that are delimited and no JSON.
UNSOUND = [
    b'"\\ud800"',
    b"[1,]",
    b"01",
    b'"\x00"',
    b"nan",
    b"[" * 50_000 + b"]" * 50_000,
    b'{"a" 1}',
    b'"\\x"',
]

KEYS = [
    "session_id", "resume_gateway_url", "heartbeat_interval", "opcode", "retry_after", "meta", "guild_id",
]  # fmt: skip


def raw(d: bytes) -> msgspec.Raw:
    return msgspec.Raw(d)


@pytest.mark.checklist("K69")
@pytest.mark.parametrize("beside", UNSOUND)
def test_an_odd_value_beside_costs_ready_hello_and_rate_limited_nothing(beside: bytes) -> None:
    ready = control.read_ready(
        raw(b'{"user":%b,"session_id":"s","x":%b,"resume_gateway_url":"wss://a.b"}' % (beside, beside))
    )
    assert ready is not None and (ready.session_id, ready.resume_gateway_url) == ("s", "wss://a.b")
    assert control.read_interval(raw(b'{"_trace":%b,"heartbeat_interval":41250}' % beside)) == 41.25
    limited = raw(b'{"x":%b,"opcode":8,"retry_after":2.5,"meta":{"guild_id":"7"}}' % beside)
    assert control.members_limited(limited) == (7, 2.5)


@pytest.mark.checklist("K69")
@pytest.mark.parametrize(
    "url", [*UNSOUND, b"5", b"null", b"{}", b'"http://a"', b'"wss://a..b"', b'"wss://a:0x1"']
)
def test_an_odd_address_to_resume_at_costs_itself_alone(url: bytes) -> None:
    ready = control.read_ready(raw(b'{"session_id":"s","resume_gateway_url":%b}' % url))
    assert ready is not None and (ready.session_id, ready.resume_gateway_url) == ("s", None)


@pytest.mark.checklist("K69")
@pytest.mark.parametrize("session_id", [*UNSOUND, b'""', b"5", b"null", b"[]"])
def test_a_ready_whose_session_has_no_id_is_none(session_id: bytes) -> None:
    assert control.read_ready(raw(b'{"session_id":%b,"user":"\\ud800"}' % session_id)) is None


@pytest.mark.checklist("K69")
@pytest.mark.parametrize(
    "guild",
    [b"1e308", b"1.5", b'" 7 "', b'"1_0"', b"-7", b"true", b"18446744073709551616", b"null", b"[]",
     b'"%b"' % (b"9" * 5_000)],
)  # fmt: skip
def test_a_limit_of_no_guild_is_none(guild: bytes) -> None:
    assert (
        control.members_limited(raw(b'{"opcode":8,"retry_after":1,"meta":{"guild_id":%b}}' % guild)) is None
    )


@pytest.mark.checklist("K69")
@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)  # fmt: skip
def test_no_bytes_make_a_reader_raise(d: bytes) -> None:
    interval = control.read_interval(raw(d))
    assert interval is None or 0.1 <= interval <= 3600.0
    ready = control.read_ready(raw(d))
    assert ready is None or ready.session_id
    limited = control.members_limited(raw(d))
    assert limited is None or (0 <= limited[0] < 1 << 64 and 0 <= limited[1] <= 86_400)
    assert control.resumable(raw(d)) == (d.strip() == b"true")
