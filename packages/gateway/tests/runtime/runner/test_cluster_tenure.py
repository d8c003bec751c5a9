"""A cluster's tenures between two orders: what is won while this gateway leaves is given back at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from rateway.fleet.membership import Membership
from rateway.fleet.port import cluster_subject
from rateway.runtime.fleet.part import FleetPart
from rateway.runtime.runner.cluster import Cluster
from rateway.runtime.runner.cluster_tenure import ClusterTenure
from tests.election.memory import Coordinator
from tests.proxy.virtual_time import pass_time, run

SUBJECT = cluster_subject(1)


async def _never() -> None:
    raise AssertionError("it serves a cluster that it gave back")


@pytest.mark.parametrize("to", ["", "three"])
def test_a_cluster_that_is_won_while_its_gateway_leaves_goes_to_the_next_one_at_once(to: str) -> None:
    async def scene() -> None:
        coordinator = Coordinator()
        one, two, three = (coordinator.member(name) for name in ("one", "two", "three"))
        await one.campaign(SUBJECT, lambda why: None)
        await one.write(SUBJECT, 1, b"sessions")
        part = FleetPart(Membership(fleet="test", member="two"), two, clock=coordinator.clock)
        tenure = ClusterTenure(
            cast("Cluster", SimpleNamespace(number=1)),
            part,
            serve=_never,
            on_waiting=lambda: None,
            last=None,
            on_begun=lambda last: None,
            settle_timeout=1.0,
        )
        running = asyncio.ensure_future(tenure.run())
        await pass_time()
        next_one = asyncio.ensure_future(three.campaign(SUBJECT, lambda why: None))
        await pass_time()
        assert await one.release(SUBJECT, 1, b"sessions")
        assert coordinator.owner(SUBJECT) == "two"
        began = coordinator.clock()
        assert await tenure.leave(to=to)
        await running
        owned = await next_one
        assert coordinator.clock() - began < 0.5
        assert owned.how == "released"
        assert owned.record is not None
        assert owned.record.body == b"sessions"

    run(scene())
