"""The compiled form finds the end of a value where the plain one does, in any bytes and at any depth."""

from __future__ import annotations

import importlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.native import fast_path
from rateway_protocol.discord.delimit import plain_value_end, value_end

# Bytes that decide where a value ends, and some that do not.
DECIDING = st.lists(
    st.sampled_from([bytes((each,)) for each in b'[]{}"\\,: a1-\n\x00\xff']), max_size=40
).map(b"".join)


def test_the_gateway_uses_the_compiled_form_where_it_has_one() -> None:
    if fast_path.COMPILED:
        compiled = importlib.import_module("rateway.native.fast_path.compiled")
        text = b"[" + b"[]" * 2_000_000 + b"]"
        began = time.process_time()
        assert value_end(text, 0) == compiled.value_end(text, 0) == len(text)
        # The plain form needs seconds.
        assert time.process_time() - began < 1


@pytest.mark.checklist("K5", "K6")
@given(DECIDING | st.binary(max_size=40), st.integers(0, 70), st.integers(0, 80))
def test_both_forms_find_the_same_end_in_any_bytes(text: bytes, opened: int, closed: int) -> None:
    text = b"[" * opened + text + b"]" * closed
    for at in (0, opened, len(text)):
        assert value_end(text, at) == plain_value_end(text, at)
