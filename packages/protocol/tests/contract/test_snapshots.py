"""The answers that the gateway proxy asks for can be read as they are written."""

from __future__ import annotations

import msgspec
import pytest
from rateway_protocol.contract.snapshots import ShardSnapshot

ANSWER = (
    b'{"shard":3,"shard_count":16,"session":"e1","seq":7,"user":{"id":"5"},"application":%b,'
    b'"guilds":[{"id":"9","unavailable":true}]}'
)


@pytest.mark.parametrize(
    ("application", "read"),
    [(b'{"id":"5","flags":1}', b'{"id":"5","flags":1}'), (b"null", None), (b"{}", b"{}")],
)
def test_a_shard_is_read_with_its_application_and_without(application: bytes, read: bytes | None) -> None:
    found = msgspec.json.decode(ANSWER % application, type=ShardSnapshot)
    assert (None if found.application is None else bytes(found.application)) == read
    assert msgspec.json.encode(found) == ANSWER % application
