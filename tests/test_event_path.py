"""docs/architecture.md walks a usual event's way by file and function: each of them is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "packages/gateway/src/rateway"


def test_each_step_of_an_events_way_names_a_function_that_is_there() -> None:
    steps = re.findall(r"`([\w/]+\.pyx?):([\w.]+)`", (ROOT / "docs/architecture.md").read_text("utf-8"))
    assert len(steps) >= 10
    for file, name in steps:
        text = (SOURCE / file).read_text("utf-8")
        holder, _, function = name.rpartition(".")
        begin = (
            re.search(rf"^(?:cdef )?class {holder}\b", text, re.MULTILINE) if holder else re.match("", text)
        )
        assert begin is not None, f"{file} has no {holder}"
        body = text[begin.end() :]
        stop = re.search(r"^(?:cdef )?class ", body, re.MULTILINE) if holder else None
        body = body[: stop.start()] if stop is not None else body
        found = re.search(
            rf"^ *(?:async )?(?:def|cdef|cpdef) (?:inline )?(?:\w+ )?{function}\(", body, re.MULTILINE
        )
        assert found is not None, f"{file} has no {name}"
