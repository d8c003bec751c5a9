"""Names on the wire, exactly as the original's workers know them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway_protocol.contract import messages, topology
from rateway_protocol.discord.events import DOCUMENTED


def test_the_names_are_those_of_the_original() -> None:
    assert topology.exchange(3) == "rateway-3"
    assert topology.incoming(3) == "rateway-incoming-3"
    assert (topology.EXCHANGE_TYPE, topology.GATEWAY_KEY, topology.CACHE_KEY) == (
        "direct",
        "gateway",
        "cache",
    )


@given(st.integers(min_value=1, max_value=10**6))
def test_an_exchange_tells_its_cluster(cluster: int) -> None:
    assert topology.cluster_of_exchange(topology.exchange(cluster)) == cluster


@pytest.mark.parametrize(
    "name", ["rateway-", "rateway-x", "rateway-0", "rateway-01", "rateway-incoming-1", "amq.direct", ""]
)
def test_a_foreign_exchange_is_no_cluster(name: str) -> None:
    assert topology.cluster_of_exchange(name) is None


def test_no_key_of_our_own_is_an_event_of_discord() -> None:
    assert not messages.OWN_KEYS & DOCUMENTED
    assert all(key.startswith(topology.OWN_PREFIX) for key in messages.OWN_KEYS)


def test_exchanges_are_named_one_by_one_while_they_are_few() -> None:
    assert topology.exchanges([3]) == "rateway-3"
    assert topology.exchanges(range(1, 5)) == "rateway-1, rateway-2, rateway-3, rateway-4"
    assert topology.exchanges(range(1, 26)) == "rateway-1 to rateway-25"
    assert topology.exchanges([1, 2, 3, 4, 9]) == "rateway-1, rateway-2, rateway-3, rateway-4, …"
