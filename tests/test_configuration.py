"""One configuration of the tests, the root's, whichever folder they are run from."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "package", sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
)
def test_a_package_has_no_pytest_configuration_that_would_hide_the_root_s(package: str) -> None:
    # pytest takes the nearest pyproject.toml with such a table, and looks for conftest.py no higher than there.
    folder = ROOT / "packages" / package
    assert "pytest" not in tomllib.loads((folder / "pyproject.toml").read_text())["tool"]
    assert not any((folder / name).exists() for name in ("pytest.ini", ".pytest.ini", "tox.ini", "setup.cfg"))


def test_an_example_has_no_deadline() -> None:
    assert settings.default is not None and settings.default.deadline is None
