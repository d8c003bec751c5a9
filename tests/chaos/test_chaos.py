"""A short chaos run of each form of the gateway; ``make chaos`` runs longer ones. A failing seed is added here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aio import run
from tests.chaos.faults import FAULTS
from tests.chaos.lanes import run_lanes
from tests.chaos.plan import KINDS, LAST, plan

FAULTS_IN_SHORT = 100


def test_a_seed_gives_the_same_faults_and_every_kind_comes() -> None:
    steps = plan(7, 100)
    assert steps == plan(7, 100)
    assert steps != plan(8, 100)
    assert {step.kind for step in steps} == set(KINDS) == set(FAULTS)
    assert not any(step.together for step in steps if step.kind in LAST)
    assert not steps[-1].together


@pytest.mark.timeout(1500)
def test_nothing_is_lost_and_nothing_spent_whatever_fails(tmp_path: Path) -> None:
    results = run(run_lanes(tmp_path, FAULTS_IN_SHORT, 1, (2, 1), say=print), timeout=1480)
    assert sum(result.faults for result in results) == FAULTS_IN_SHORT, [result.notes for result in results]
    for result in results:
        assert result.lost == 0, result.notes
        assert result.violations == [], result.notes
        assert result.identifies <= result.identifies_allowed, result.notes
        assert result.tracebacks == 0, result.notes
        assert result.log_missing == 0, result.notes
        assert result.clean, result.notes
    assert [result.event_log for result in results] == [True, False]
