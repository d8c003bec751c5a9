"""Fields of a header table: found among whatever else is in it, and no table raises anything but its own error."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import encode
from rateway_protocol.contract.header_table import (
    MOST_FIELDS,
    TableUnreadable,
    fields_of,
    sound_fields,
    with_integer,
)

NAMES = {b"shard_id", b"guild_id"}
flat = st.dictionaries(
    st.text("abcdefgh_", min_size=1, max_size=12) | st.sampled_from(["shard_id", "guild_id"]),
    st.integers(-(2**31), 2**63 - 1)
    | st.text(max_size=20)
    | st.booleans()
    | st.none()
    | st.lists(st.integers(0, 9)),
    max_size=8,
)


def table_of(headers: Any) -> bytes:
    return encode.field_table(headers)[4:]


@given(flat)
def test_fields_are_found_among_others_as_the_library_wrote_them(headers: dict[str, Any]) -> None:
    wanted = {
        name: value
        for name, value in headers.items()
        if name.encode() in NAMES and not isinstance(value, list)
    }
    wanted = {name: value.encode() if isinstance(value, str) else value for name, value in wanted.items()}
    found = {name: value for name, value in fields_of(table_of(headers), NAMES).items() if value != []}
    assert found == wanted


@given(flat, st.integers(-(2**63), 2**63 - 1))
def test_one_field_is_replaced_and_every_other_stays_as_it_is(headers: dict[str, Any], value: int) -> None:
    table = table_of(headers)
    changed = with_integer(table, b"hops", value)
    assert changed.startswith(table) and fields_of(changed, {b"hops"}) == {"hops": value}
    again = with_integer(changed, b"hops", 7)
    assert again == with_integer(table, b"hops", 7)


@pytest.mark.checklist("K2", "K3")
@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_are_not(table: bytes) -> None:
    def attempt(read: Any) -> bool:
        try:
            read()
        except TableUnreadable:
            return False
        return True

    readable = attempt(lambda: fields_of(table, NAMES))
    assert readable == attempt(lambda: with_integer(table, b"x", 1))
    assert readable == attempt(lambda: sound_fields(table, {b"x": frozenset(b"S")}))


@pytest.mark.checklist("K3")
def test_a_table_has_so_many_fields_and_a_deep_or_wide_value_is_one_of_them() -> None:
    assert fields_of(b"\x01aV" * (MOST_FIELDS - 1) + table_of({"shard_id": 3}), NAMES) == {"shard_id": 3}
    with pytest.raises(TableUnreadable, match="more than"):
        fields_of(b"\x01aV" * (MOST_FIELDS + 1), NAMES)
    wide = b"\x01xA" + struct.pack(">I", 60_000) + b"V" * 60_000
    assert fields_of(wide + table_of({"shard_id": 3}), NAMES) == {"shard_id": 3}
