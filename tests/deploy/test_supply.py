"""What a gateway runs with is pinned, hashed, and its licences are listed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker

ROOT = Path(__file__).parents[2]
# How many packages each names at the least.
FILES = {"requirements/runtime.txt": 20, "requirements/dev.txt": 60, "requirements/build.txt": 4}


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_is_pinned_and_hashed(name: str) -> None:
    text = (ROOT / name).read_text()
    pinned = re.split(r"\n(?=\S)", text.strip())
    assert len(pinned) >= FILES[name]
    for each in pinned:
        assert re.match(r"[\w.-]+==\S+", each), each[:80]
        assert "--hash=sha256:" in each, each[:80]
    assert "://" not in text


def test_what_runs_and_what_builds_it_are_the_same_in_all_lists() -> None:
    runtime, dev, build = (
        dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE)) for name in FILES
    )
    assert {name: dev.get(name) for name in runtime | build} == runtime | build
    backend = tomllib.loads((ROOT / "packages/gateway/pyproject.toml").read_text())["build-system"][
        "requires"
    ]
    assert {re.split(r"\W", each)[0].lower() for each in backend} <= set(build)


def test_every_licence_is_listed_and_none_is_unknown() -> None:
    """Fails? `make licences`."""
    done = subprocess.run([sys.executable, "tools/licences", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0
    text = (ROOT / "docs/licences.md").read_text()
    assert "not said" not in text and "GPL" not in text


def test_a_bill_of_materials_names_all_that_runs(tmp_path: Path) -> None:
    """As `tools/release` makes it, here of the environment that the tests run in."""
    out = tmp_path / "bom.json"
    program = Path(sys.executable).parent / "cyclonedx-py"
    project = "packages/gateway/pyproject.toml"
    words = ["environment", "--of", "JSON", "--pyproject", project, "-o", str(out), sys.executable]
    subprocess.run([program, *words], cwd=ROOT, check=True, capture_output=True, timeout=300)
    listed = {
        re.sub(r"[._]", "-", each["name"].lower()): each for each in json.loads(out.read_text())["components"]
    }
    pins = re.findall(
        r"^([\w.-]+)==([^\s;]+)(?: ; ([^\\\n]+))?",
        (ROOT / "requirements/runtime.txt").read_text(),
        re.MULTILINE,
    )
    wanted = {
        name: version for name, version, marker in pins if not marker or Marker(marker.strip()).evaluate()
    }
    assert {name: listed[name]["version"] for name in wanted} == wanted
    # These say it in the text that they ship alone; docs/licences.md has read it.
    assert {name for name in wanted if not listed[name].get("licenses")} <= {
        "aiofastnet",
        "multidict",
        "picows",
    }


def test_no_tracked_file_names_an_index_or_a_mirror() -> None:
    """Where packages come from is the business of the machine that installs them."""
    hosts = (
        "pypi" + ".org",
        "pythonhosted" + ".org",
        "deb.debian" + ".org",
        "crates" + ".io",
        "npmjs" + ".org",
    )
    words = [each for host in hosts for each in ("-e", host)]
    done = subprocess.run(
        ["git", "grep", "-lIF", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    # 1: nothing found; a source without its history has nothing to ask.
    assert (ROOT / ".git").exists() and (done.returncode, done.stdout) == (1, "")
