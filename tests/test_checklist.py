"""The table of docs/checklist.toml and the tests agree: no row without a state, no number without a row."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STATE = re.compile(r"tested|later:[a-z]+|not ours: \S.{9,}")
#: Rows of each section; a row that vanishes from the table is as bad as one without a state.
SIZES = {"A": 14, "B": 25, "C": 14, "D": 15, "E": 16, "F": 16, "G": 21, "H": 25, "K": 78}


def table() -> dict[str, dict[str, str]]:
    sections = tomllib.loads((ROOT / "docs/checklist.toml").read_text())
    return {f"{section}{number}": row for section, rows in sections.items() for number, row in rows.items()}


def marks(source: str) -> Iterator[str]:
    """The numbers in `@pytest.mark.checklist(...)` of a module's tests and in its `pytestmark`."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and ast.unparse(node.func) == "pytest.mark.checklist"
        ):
            for argument in node.args:
                if not isinstance(argument, ast.Constant):
                    raise TypeError(
                        f"line {node.lineno}: {ast.unparse(node)}: rows are written out, so that a search "
                        "for one finds its tests"
                    )
                yield str(argument.value)


def covered() -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted([*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("packages/*/tests/**/test_*.py")]):
        for number in marks(path.read_text()):
            found[number].append(str(path.relative_to(ROOT)))
    return found


def test_marks_are_found_on_tests_and_on_modules() -> None:
    source = (
        "pytestmark = pytest.mark.checklist('A1')\n"
        "@pytest.mark.checklist('B2', 'B3')\n"
        "def test_x() -> None: ...\n"
    )
    assert list(marks(source)) == ["A1", "B2", "B3"]


@pytest.mark.parametrize("rows", ["*ROWS", "*ROWS[name]", "ROW"])
def test_marks_that_are_not_written_out_are_refused(rows: str) -> None:
    with pytest.raises(TypeError, match=r"line 2: .* rows are written out"):
        list(marks(f"\n@pytest.mark.checklist({rows})\ndef test_x() -> None: ...\n"))


def test_every_row_is_there_and_has_a_title_and_a_state() -> None:
    rows = table()
    assert set(rows) == {f"{section}{n}" for section, size in SIZES.items() for n in range(1, size + 1)}
    unassigned = [number for number, row in rows.items() if not STATE.fullmatch(row.get("state", ""))]
    untitled = [number for number, row in rows.items() if len(row.get("title", "")) < 10]
    assert (unassigned, untitled) == ([], [])


def test_no_test_carries_an_unknown_number() -> None:
    known = table()
    assert {number: where for number, where in covered().items() if number not in known} == {}


def test_every_row_in_state_tested_has_a_test() -> None:
    tests = covered()
    missing = [number for number, row in table().items() if row["state"] == "tested" and number not in tests]
    assert missing == []


def test_a_row_that_has_a_test_does_not_say_later() -> None:
    tests = covered()
    behind = [
        number for number, row in table().items() if row["state"].startswith("later:") and number in tests
    ]
    assert behind == []
