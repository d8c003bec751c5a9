"""The figures of the pages are those of ``benchmarks/results.json``, and its tables say what was measured."""

from __future__ import annotations

import copy
import json
import re
import signal
import struct
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables
from benchmarks.path.__main__ import Variant
from benchmarks.peers.__main__ import GO, LAPIN, LOADS, OURS, QUEUES, variant_of
from benchmarks.rig.results import PUBLISHED, ratio, spread

RESULTS: dict[str, Any] = json.loads(PUBLISHED.read_text())
PICTURES = PUBLISHED.parent / "pictures"
REMEDY = "run `python -m benchmarks.tables --write`"


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: str(page.name))
def test_the_tables_of_a_page_are_those_of_the_results(page: Path) -> None:
    text = page.read_text()
    assert tables.BLOCK.search(text)
    assert text == tables.written(text, RESULTS), REMEDY


def test_every_table_is_on_a_page_and_each_once() -> None:
    shown = [
        name for page in tables.PAGES for name in re.findall(r"<!-- figures: ([\w-]+) -->", page.read_text())
    ]
    assert sorted(shown) == sorted(tables.BLOCKS)


@pytest.mark.parametrize("name", ["peers", "path"])
def test_a_picture_shows_the_rows_of_the_results(name: str) -> None:
    data = (PICTURES / f"{name}.png").read_bytes()
    at, words = 8, {}
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"tEXt":
            key, _, value = data[at + 8 : at + 8 + size].partition(b"\0")
            words[key] = value.decode()
        at += size + 12
    assert words[b"Description"] == tables.digest(RESULTS[name]["rows"]), REMEDY


def test_no_picture_is_left_that_no_page_shows() -> None:
    shown = {
        found
        for page in tables.PAGES
        for found in re.findall(r"benchmarks/pictures/([\w.-]+)", page.read_text())
    }
    assert {path.name for path in PICTURES.iterdir()} == shown


def row(variant: Variant, rounds: dict[int, float]) -> dict[str, Any]:
    """A row as a benchmark writes it."""
    return {
        "label": variant.label,
        "us": spread(rounds.values()),
        "rounds": list(rounds),
        "variant": asdict(variant),
    }


def results(*rows: dict[str, Any]) -> dict[str, Any]:
    """A file with the peers' rows and nothing else."""
    return {"peers": copy.deepcopy(RESULTS["peers"]) | {"rows": list(rows)}}


FLAT = LOADS[0]


def test_a_ratio_is_taken_of_the_rounds_that_both_have() -> None:
    ours, other = variant_of(OURS, "off", FLAT), variant_of(LAPIN, "off", FLAT)
    found = ratio(row(ours, {1: 10.0, 2: 20.0, 4: 40.0}), row(other, {1: 20.0, 3: 1.0, 4: 20.0}))
    assert found is not None and found["runs"] == [0.5, 2.0]
    assert ratio(row(ours, {1: 10.0}), row(other, {2: 10.0})) is None


def test_a_peer_that_is_cheaper_is_shown_and_the_goal_is_said_to_be_missed() -> None:
    text = tables.peers(
        results(
            row(variant_of(OURS, "off", FLAT), {1: 20.0, 2: 24.0}),
            row(variant_of(OURS, "all", FLAT), {1: 40.0, 2: 44.0}),
            row(variant_of(QUEUES, "off", FLAT), {1: 10.0, 2: 12.0}),
            row(variant_of(LAPIN, "off", FLAT), {1: 100.0, 2: 120.0}),
        ),
        whole=True,
    )
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert "11 (10–12) · **2.00** · 3.83" in lines[tables.NAMES[QUEUES]]
    assert "110 (100–120) · **0.20** · 0.38" in lines[tables.NAMES[LAPIN]]
    assert "2.00 (2.00–2.00)" in lines[f"{tables.NAMES[QUEUES]}: 4 shards flat out → sink"]
    assert "0.75: **missed**" in lines[f"{tables.NAMES[QUEUES]}: 4 shards flat out → sink"]
    assert "missed" not in lines[f"{tables.NAMES[LAPIN]}: 4 shards flat out → sink"]


def test_a_row_that_was_not_measured_leaves_its_cell_empty_and_one_that_lost_events_says_so() -> None:
    second = LOADS[2]
    lost = row(variant_of(LAPIN, "off", second), {1: 5.0}) | {"missing": spread([7.0])}
    text = tables.peers(
        results(
            row(variant_of(OURS, "off", FLAT), {1: 1.0}),
            row(variant_of(OURS, "off", second), {1: 1.0}),
            row(variant_of(GO, "off", FLAT), {1: 4.0}),
            lost,
        ),
        whole=False,
    )
    cells = {
        line.split("|")[1].strip(): line.split("|")[2:-1]
        for line in text.splitlines()
        if line.startswith("| ")
    }
    assert [each.strip() for each in cells[tables.NAMES[GO]]] == ["4.0 · **0.25**", ""]
    assert (
        cells[tables.NAMES[LAPIN]][1].strip() == "5.0 · **0.20** (up to 7 events of a round did not arrive)"
    )


def test_a_fleets_row_says_the_worst_of_its_runs_and_whether_that_is_too_long() -> None:
    scene: dict[str, Any] = dict.fromkeys(("identifies", "lost", "two_ids", "concurrency", "doubled"), 0)
    report = copy.deepcopy(RESULTS["peers"]) | {
        "rows": [
            {"label": "frozen", "scene": "frozen", "runs": 2, "live_s": spread([11.0, 21.4]),
             "pause_s": spread([12.0, 24.0]), "hole_s": spread([11.0, 19.0]), **scene, "doubled": 1417, "failed": 1,
             "commit": "0123456789ab"},
        ]
    }  # fmt: skip
    text = tables.fleet({"fleet": report})
    cells = [each.strip() for each in text.splitlines()[2].split("|")[1:-1]]
    runs = "2 (1 ended without a result)"
    assert cells == ["frozen", runs, "21 (20: **missed**)", "24", "19 (20)", "0", "0", "0", "0", "1,417"]
    assert "`0123456789ab`" in text.splitlines()[-1]


def test_every_table_says_which_command_and_commit_made_it() -> None:
    for name, block in tables.BLOCKS.items():
        text = block(RESULTS)
        # A fleet is measured by itself, for half an hour: its results may not be there yet.
        if name != "needs" and (text or name != "fleet"):
            assert re.search(r"`python -m benchmarks\.\w+[^`]*`: ", text), name
            assert re.search(r"commit `[0-9a-f]{12}`", text), name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.414, "0.41"),
        (0.999, "1.0"),
        (9.96, "10"),
        (15.4, "15"),
        (154_604.7, "154,605"),
        (-20.4, "-20"),
    ],
)
def test_figures_have_the_digits_that_count(value: float, text: str) -> None:
    assert tables.number(value) == text


def test_a_benchmark_that_is_told_to_end_ends_what_it_has_started() -> None:
    program = (
        "import sys, time; from benchmarks.rig import child; from benchmarks.rig.results import arguments\n"
        "arguments('x')\n"
        "with child.child(__import__('pathlib').Path('/bin/sleep'), '600') as found:\n"
        "    print(found.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=tables.ROOT
    ) as run:
        try:
            assert run.stdout is not None
            pid = int(run.stdout.readline())
            assert Path(f"/proc/{pid}").exists()
            run.terminate()
            assert run.wait(60) == 128 + signal.SIGTERM
        finally:
            run.kill()
    assert not Path(f"/proc/{pid}").exists()
