"""A short chaos run over three members; ``make chaos-fleet`` runs longer ones, with three RabbitMQ nodes. A failing
seed is added here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aio import run
from tests.chaos.plan import plan
from tests.fleet.chaos import FAULTS, chaos_fleet, kinds_for
from tests.rabbitmq import Broker

FAULTS_IN_SHORT = 6
# What takes half a minute and more each is left to long runs.
QUICK = ("stop", "kill", "connections_closed", "cut", "op7", "close")


def test_every_kind_can_be_made_and_what_the_place_does_not_allow_is_left_out() -> None:
    assert set(kinds_for(nodes=3, namespaces=True)) == set(FAULTS)
    left = set(FAULTS) - set(kinds_for(nodes=1, namespaces=False))
    assert left == {"unplug", "node_killed", "node_restarted", "node_parted"}
    assert {step.kind for step in plan(3, 40, kinds=kinds_for(nodes=3, namespaces=True))} == set(FAULTS)


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_spent_in_a_fleet_whatever_fails(tmp_path: Path, broker: Broker) -> None:
    kinds = {kind: weight for kind, weight in kinds_for(nodes=1, namespaces=False).items() if kind in QUICK}
    outcome = run(
        chaos_fleet(tmp_path, [broker], FAULTS_IN_SHORT, seed=1, kinds=kinds, say=print), timeout=280
    )
    assert outcome.clean, outcome
