"""Session ids of the proxy: what a RESUME needs, signed."""

from __future__ import annotations

import base64
import hmac

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.proxy.sessions.session_id import Session, SessionIds

SESSION = Session(
    1 << 60, "rateway-log-7-0123456789abcdef", 41, 3, 0, 1, 16, 53_608_447, 250, 1 << 62, "discord.py"
)
IDS = SessionIds(b"k" * 32)


@given(
    st.builds(
        Session, st.integers(0, 1 << 62), st.text(max_size=200), st.integers(-1, 1 << 60), st.integers(0, 100_000),
        st.integers(0, 100_000), st.integers(1, 100_000), st.integers(1, 100_000), st.integers(0, 1 << 30),
        st.integers(50, 250), st.integers(0, (1 << 64) - 1), st.text(max_size=40),
    )
)  # fmt: skip
def test_an_id_says_what_was_put_into_it(session: Session) -> None:
    text = IDS.issue(session)
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()
    assert IDS.read(text) == session or len(text) > 1_000


def test_an_id_is_short() -> None:
    assert len(IDS.issue(SESSION)) < 180


def test_an_id_of_a_version_that_kept_no_library_is_read() -> None:
    fields = msgspec.msgpack.encode(msgspec.structs.astuple(SESSION)[:-1])
    signed = hmac.digest(b"k" * 32, fields, "sha256")[:16] + fields
    assert IDS.read(base64.urlsafe_b64encode(signed).decode()) == msgspec.structs.replace(SESSION, library="")


def test_an_id_that_was_changed_or_is_of_another_bot_is_none() -> None:
    text = IDS.issue(SESSION)
    for at in range(len(text)):
        other = "A" if text[at] != "A" else "B"
        changed = IDS.read(text[:at] + other + text[at + 1 :])
        # The last character has bits that say nothing.
        assert changed is None or (at == len(text) - 1 and changed == SESSION)
        assert IDS.read(text[:at]) is None
    assert SessionIds(b"x" * 32).read(text) is None


@given(st.text())
def test_whatever_a_bot_sends_is_read_without_an_error(text: str) -> None:
    assert IDS.read(text) is None


@pytest.mark.parametrize(
    ("snapshots", "seq", "offset"),
    [(3, 1, None), (3, 3, None), (3, 4, 41), (3, 5, 42), (3, 100, 137), (0, 1, None), (0, 2, 42)],
)
def test_a_number_says_an_offset_once_the_bot_has_all_snapshots(
    snapshots: int, seq: int, offset: int | None
) -> None:
    session = Session(1, "log", 41, snapshots, 0, 1, 1, 0, 50, 80)
    assert session.offset_of(seq) == offset
    if offset is not None:
        assert session.seq_of(offset) == seq
