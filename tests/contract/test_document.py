"""docs/contract.md names everything that is on the wire."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from rateway_protocol.contract import messages, topology
from rateway_protocol.contract.commands import ALLOWED
from rateway_protocol.contract.errors import ErrorCode
from rateway_protocol.contract.queries import DEFAULT_LIMIT, MAX_LIMIT, MAX_QUERIES, QUERY_TYPES

PAGE = (Path(__file__).parents[2] / "docs" / "contract.md").read_text("utf-8")
OWN = (messages.ShardStatus, messages.Gap, messages.Oversize, messages.Refused, messages.GuildLeft)


@pytest.mark.parametrize("name", sorted(QUERY_TYPES))
def test_every_type_of_query_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_error_code_is_documented(code: ErrorCode) -> None:
    assert f"| `{code.value}` |" in PAGE


@pytest.mark.parametrize("kind", OWN)
def test_every_message_of_our_own_is_documented_with_its_fields(kind: type[messages.OwnMessage]) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{kind.key}` |")]
    assert all(f"`{field.name}`" in row for field in msgspec.structs.fields(kind))


def test_names_and_bounds_are_documented() -> None:
    for name in (topology.exchange(1).replace("1", "<i>"), topology.incoming(1).replace("1", "<i>")):
        assert f"`{name}`" in PAGE
    assert all(f"{op} (" in PAGE for op in ALLOWED)
    assert f"1 to {MAX_LIMIT:,}, by default {DEFAULT_LIMIT}" in PAGE
    assert f"at most {MAX_QUERIES:,}" in PAGE
