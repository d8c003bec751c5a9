"""A cluster's tenures: what is won while this gateway leaves is given back at once, and a member that has no sessions
lets one that may have them be first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest
from rateway.fleet.membership import Membership
from rateway.fleet.port import cluster_subject
from rateway.runtime.fleet.part import FleetPart
from rateway.runtime.runner.cluster import Cluster
from rateway.runtime.runner.cluster_tenure import ASIDE_S, ASIDE_TAKEN_S, ClusterTenure
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


@dataclass
class Stage:
    """A member with these sessions, and a cluster that so many gateways read; None: no gateway has run it."""

    readers: int | None
    sessions: Sequence[object] = ()
    coordinator: Coordinator = field(default_factory=Coordinator)

    def tenure(self) -> ClusterTenure:
        async def readers() -> int | None:
            return self.readers

        async def wait(epoch: int = 0) -> None:
            await asyncio.get_running_loop().create_future()

        cluster = SimpleNamespace(
            number=1,
            stored_sessions=lambda: self.sessions,
            adopt=lambda found: None,
            fleet_record=SimpleNamespace(run=wait),
        )
        member = self.coordinator.member("two")
        return ClusterTenure(
            cast("Cluster", cluster),
            FleetPart(Membership(fleet="test", member="two"), member, clock=self.coordinator.clock),
            serve=wait,
            on_waiting=lambda: None,
            last=None,
            on_begun=lambda last: None,
            settle_timeout=1.0,
            readers=readers,
        )


def test_a_member_without_sessions_is_followed_at_once_by_one_that_may_have_them() -> None:
    async def scene() -> None:
        # A gateway outside the fleet runs the cluster, for long; then it is started again as a member.
        stage = Stage(readers=1)
        tenure = stage.tenure()
        running = asyncio.ensure_future(tenure.run())
        await asyncio.sleep(10 * ASIDE_S)
        assert tenure.owned is None
        stage.readers = 0
        await asyncio.sleep(ASIDE_TAKEN_S)
        owned = await stage.coordinator.member("one").campaign(SUBJECT, lambda why: None)
        assert owned.record is not None and owned.record.body == b""
        running.cancel()

    run(scene())


@pytest.mark.parametrize(
    ("readers", "sessions", "waits"),
    [(0, [], ASIDE_S), (None, [], 0.0), (0, [SimpleNamespace(session_id="one")], 0.0)],
)
def test_a_member_runs_a_cluster_whose_sessions_no_other_member_brings(
    readers: int | None, sessions: Sequence[object], waits: float
) -> None:
    async def scene() -> None:
        stage = Stage(readers, sessions)
        tenure = stage.tenure()
        running = asyncio.ensure_future(tenure.run())
        began = stage.coordinator.clock()
        while tenure.owned is None:  # noqa: ASYNC110  # virtual time
            await asyncio.sleep(0.25)
        assert waits <= stage.coordinator.clock() - began <= waits + 2
        assert tenure.is_first
        running.cancel()

    run(scene())


def test_a_member_that_stands_aside_leaves_at_once() -> None:
    async def scene() -> None:
        tenure = Stage(readers=1).tenure()
        running = asyncio.ensure_future(tenure.run())
        await asyncio.sleep(1)
        assert not await tenure.leave()
        await running

    run(scene())
