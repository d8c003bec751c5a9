"""What strikes a member costs no identify and loses no event. ``python -m benchmarks.fleet`` plays these scenes, and
more of them, on three RabbitMQ nodes and with Discord's sizes, and measures the seconds; here only a shard that
Discord has given up meanwhile would have taken too long.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aio import run
from tests.fleet.network import why_impossible
from tests.fleet.scenes import SCENES, Measured, play
from tests.fleet.stage import fleet_stage
from tests.rabbitmq import Broker

RATE_PER_SHARD = 5.0
# Of a member that was there one moment and not the next.
DEAD = frozenset({"heartbeat-missing", "heartbeat-late", "heartbeat-unanswered"})


def played(folder: Path, broker: Broker, *names: str, namespaces: bool = False) -> list[Measured]:
    """Play these scenes one after the other, each on the owner of the first cluster."""

    async def main() -> list[Measured]:
        found = []
        # On a machine that others use a member may be followed so late that Discord would have ended its sessions.
        patient = {"heartbeat_missing": 120.0}
        async with fleet_stage(
            folder, [broker], fleet="scenes", namespaces=namespaces, simulator=patient
        ) as it:
            await it.whole()
            it.sim.set_rate(RATE_PER_SHARD, per_shard=True)
            await it.flowing()
            for name in names:
                scene = next(scene for scene in SCENES if scene.name == name)
                owners = await it.owners()
                found.append(await play(it, scene, owners[1], away_s=0.0))
            assert [each for each in it.sim.ledger.noted if each.rule not in DEAD] == []
            it.sim.set_rate(0)
            whole = await it.arrived()
            assert whole.clean, whole
        return found

    return run(main())


def costs_nothing(found: Measured) -> bool:
    """Whether no identify was sent, nothing is lost or told, no event came under two ids, and none twice but what a
    member had published just before it was struck.
    """
    return not (
        found.identifies or found.lost or found.told or found.two_ids or found.wrong or found.too_often
    )


def test_a_stop_hands_over_without_a_double_and_a_death_is_taken_over(tmp_path: Path, broker: Broker) -> None:
    stopped, killed = played(tmp_path, broker, "sigterm", "kill")
    assert costs_nothing(stopped) and stopped.doubled == 0, stopped
    assert costs_nothing(killed), killed


def test_a_member_whose_network_is_gone_is_taken_over_and_harms_nothing_when_it_is_back(
    tmp_path: Path, broker: Broker
) -> None:
    if impossible := why_impossible():
        pytest.skip(impossible)
    (gone,) = played(tmp_path, broker, "network_gone", namespaces=True)
    assert costs_nothing(gone), gone


def test_a_member_that_was_frozen_or_cut_from_the_broker_under_load_publishes_nothing_a_second_time(
    tmp_path: Path, broker: Broker
) -> None:
    frozen, cut = played(tmp_path, broker, "frozen", "cut_from_broker")
    assert costs_nothing(frozen), frozen
    assert costs_nothing(cut), cut


def test_what_was_kept_while_the_broker_was_away_for_all_is_published_once(
    tmp_path: Path, broker: Broker
) -> None:
    (away,) = played(tmp_path, broker, "broker_away")
    assert not (away.lost or away.told or away.two_ids or away.wrong or away.too_often), away
