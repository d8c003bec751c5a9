"""Every line of the log has an ``action`` of the closed list in docs/logs.md, and the list has no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: Heading in docs/logs.md → the package whose lines are listed there.
PARTS = {"The gateway": "packages/gateway/src", "The client": "packages/client/src"}
#: What the modules call their logger; `log` is a cluster's event log in some of them.
LOGGERS = ("log", "logger")
LEVELS = {
    "debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error",
    "critical": "critical",
}  # fmt: skip


def listed(heading: str) -> dict[str, set[str]]:
    """The actions of one table, with their levels."""
    text = (ROOT / "docs" / "logs.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?:\*\*)?`(\w+)`(?:\*\*)? \| ([\w, ]+) \|", text, re.MULTILINE)
    return {action: set(levels.split(", ")) for action, levels in rows}


def literal(extra: ast.expr | None, function: ast.AST) -> object:
    """The action in a call's ``extra``: a dict, or a name for one in the same function. None where it is neither."""
    if isinstance(extra, ast.Name):
        name = extra.id
        assigned = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
        ]
        extra = assigned[0] if assigned else None
    if not isinstance(extra, ast.Dict):
        return None
    for key, value in zip(extra.keys, extra.values, strict=True):
        if isinstance(key, ast.Constant) and key.value == "action" and isinstance(value, ast.Constant):
            return value.value
    return None


def lines(folder: str) -> Iterator[tuple[str, str | None, object]]:
    """Each call that logs: where it stands, its level (None where the call decides), its action."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        functions = [
            node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            logger = node.func.value
            if not (isinstance(logger, ast.Name) and logger.id in LOGGERS) or node.func.attr not in {
                *LEVELS,
                "log",
            }:
                continue
            around = [each for each in functions if each.lineno <= node.lineno <= (each.end_lineno or 0)]
            extra = next((keyword.value for keyword in node.keywords if keyword.arg == "extra"), None)
            yield (
                f"{path.relative_to(ROOT)}:{node.lineno}",
                LEVELS.get(node.func.attr),
                literal(extra, around[-1] if around else tree),
            )


@pytest.mark.parametrize("heading", PARTS)
def test_each_line_has_an_action_of_the_list_and_the_list_no_other(heading: str) -> None:
    documented, found = listed(heading), list(lines(PARTS[heading]))
    assert len(found) > 10, "log calls are recognised by the logger's name"
    assert [where for where, _, action in found if action is None] == []
    assert {str(action) for _, _, action in found} == documented.keys()


@pytest.mark.parametrize("heading", PARTS)
def test_the_levels_are_those_of_the_lines(heading: str) -> None:
    documented, levels = listed(heading), dict[str, set[str]]()
    decided = set()
    for _, level, action in lines(PARTS[heading]):
        if level is None:
            decided.add(str(action))
        else:
            levels.setdefault(str(action), set()).add(level)
    for action, documented_levels in documented.items():
        # Where a call decides on the level, the list may have more than can be read from the code.
        assert levels.get(action, set()) <= documented_levels, action
        if action not in decided:
            assert documented_levels == levels[action], action


def test_every_logger_has_one_of_these_names() -> None:
    """What the other tests look for."""
    for folder in PARTS.values():
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name in re.findall(
                r"^(\w+) = logging\.getLogger\(__name__\)", path.read_text(), re.MULTILINE
            ):
                assert name in LOGGERS, path
