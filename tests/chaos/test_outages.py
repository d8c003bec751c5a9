"""Discord in trouble: each scene of ``outages.py`` in its short form, judged by its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aio import run
from tests.chaos.outages import SCENES
from tests.rabbitmq import Broker

PLAYED = [
    pytest.param("dead_zone", marks=pytest.mark.checklist("K23")),
    pytest.param("refusing_zone", marks=pytest.mark.checklist("K23")),
    pytest.param("silent_zone", marks=pytest.mark.checklist("K23")),
    pytest.param("op9_everywhere", marks=pytest.mark.checklist("K24")),
    pytest.param("rest_401", marks=pytest.mark.checklist("K25")),
    pytest.param("rest_403", marks=pytest.mark.checklist("K25")),
    pytest.param("rest_429", marks=pytest.mark.checklist("K30")),
    pytest.param("rest_503", marks=pytest.mark.checklist("K25")),
    pytest.param("no_ready", marks=pytest.mark.checklist("K26")),
    pytest.param("outgrown_twice", marks=pytest.mark.checklist("K28", "K29")),
    pytest.param("a_multiple", marks=pytest.mark.checklist("K27")),
    pytest.param("deaf", marks=pytest.mark.checklist("K31")),
]


@pytest.mark.parametrize("name", PLAYED)
def test_discord_in_trouble_ends_well(name: str, tmp_path: Path, broker: Broker) -> None:
    scene = next(scene for scene in SCENES if scene.name == name)
    end = run(scene.play(tmp_path, broker, scene.short_s), timeout=280)
    assert end.clean, end


def test_every_scene_is_played() -> None:
    assert [param.values[0] for param in PLAYED] == [scene.name for scene in SCENES]
