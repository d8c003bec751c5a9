"""A short chaos run of each form of the gateway; ``make chaos`` runs longer ones. A failing seed is added here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aio import run
from tests.chaos.faults import FAULTS
from tests.chaos.plan import KINDS, plan
from tests.chaos.runner import chaos
from tests.rabbitmq import Broker

FAULTS_IN_SHORT = len(KINDS) + 6


def test_a_seed_gives_the_same_faults_and_every_kind_comes() -> None:
    steps = plan(7, 100)
    assert steps == plan(7, 100)
    assert steps != plan(8, 100)
    assert {step.kind for step in steps} == set(KINDS) == set(FAULTS)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("seed", "processes"), [(1, 1), (2, 2)])
def test_nothing_is_lost_and_nothing_spent_whatever_fails(
    tmp_path: Path, broker: Broker, seed: int, processes: int
) -> None:
    steps = plan(seed, FAULTS_IN_SHORT)
    result = run(chaos(tmp_path, broker, steps, seed=seed, processes=processes, say=print), timeout=880)
    assert result.lost == 0, result.audit
    assert result.violations == []
    assert result.identifies <= result.identifies_allowed
    assert result.clean, result.audit
