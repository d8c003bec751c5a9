"""What a gateway runs with is pinned, hashed, and its licences are listed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("requirements/runtime.txt", "requirements/dev.txt")


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_is_pinned_and_hashed(name: str) -> None:
    text = (ROOT / name).read_text()
    pinned = re.split(r"\n(?=\S)", text.strip())
    assert len(pinned) > 20
    for each in pinned:
        assert re.match(r"[\w.-]+==\S+", each), each[:80]
        assert "--hash=sha256:" in each, each[:80]
    assert "://" not in text


def test_what_runs_is_the_same_in_both_lists() -> None:
    runtime, dev = (
        dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE)) for name in FILES
    )
    assert {name: dev.get(name) for name in runtime} == runtime


def test_every_licence_is_listed_and_none_is_unknown() -> None:
    """Fails? `make licences`."""
    done = subprocess.run([sys.executable, "tools/licences", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0
    text = (ROOT / "docs/licences.md").read_text()
    assert "not said" not in text and "GPL" not in text


def test_a_bill_of_materials_names_all_that_runs(tmp_path: Path) -> None:
    out = tmp_path / "bom.json"
    program = Path(sys.executable).parent / "cyclonedx-py"
    words: list[str | Path] = [
        program,
        "requirements",
        "--of",
        "JSON",
        "--pyproject",
        "pyproject.toml",
        "-o",
        out,
    ]
    subprocess.run(
        [*words, "requirements/runtime.txt"], cwd=ROOT, check=True, capture_output=True, timeout=60
    )
    found = {each["name"].lower() for each in json.loads(out.read_text())["components"]}
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "requirements/runtime.txt").read_text(), re.MULTILINE)
    assert found == set(pinned)
