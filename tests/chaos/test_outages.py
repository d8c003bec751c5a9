"""Discord in trouble: each scene of ``outages.py`` in its short form, judged by its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aio import run
from tests.chaos.outages import SCENES, Scene
from tests.rabbitmq import Broker

ROWS = {
    "dead_zone": ("K23",), "refusing_zone": ("K23",), "silent_zone": ("K23",), "op9_everywhere": ("K24",),
    "rest_401": ("K25",), "rest_403": ("K25",), "rest_429": ("K30",), "rest_503": ("K25",), "no_ready": ("K26",),
    "outgrown_twice": ("K28", "K29"), "a_multiple": ("K27",), "deaf": ("K31",),
}  # fmt: skip


@pytest.mark.parametrize(
    "scene",
    [pytest.param(each, id=each.name, marks=pytest.mark.checklist(*ROWS[each.name])) for each in SCENES],
)
def test_discord_in_trouble_ends_well(scene: Scene, tmp_path: Path, broker: Broker) -> None:
    end = run(scene.play(tmp_path, broker, scene.short_s), timeout=280)
    assert end.clean, end
