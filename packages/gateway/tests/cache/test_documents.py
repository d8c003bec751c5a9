"""docs/queries.md against the contract: every type, with an example that can be pasted."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from rateway_protocol.contract.errors import ErrorCode, Fault
from rateway_protocol.contract.queries import QUERY_TYPES, Query, parse_query

DOCS = Path(__file__).parents[4] / "docs"
QUERIES = (DOCS / "queries.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", QUERIES, re.MULTILINE | re.DOTALL))


def test_every_type_of_query_has_its_section() -> None:
    assert list(QUERY_TYPES.keys() - SECTIONS.keys()) == []
    assert list(SECTIONS.keys() - QUERY_TYPES.keys()) == []


@pytest.mark.parametrize("kind", sorted(SECTIONS))
def test_each_example_is_a_query_that_would_be_answered(kind: str) -> None:
    question, *answer = re.findall(r"```json\n(.*?)```", SECTIONS[kind], re.DOTALL)
    request = parse_query(question.encode(), has_reply_to=True)
    assert not isinstance(request, Fault), request
    (query,) = request.queries
    assert isinstance(query, Query), query
    assert query.type == kind
    found = [json.loads(each) for each in answer]
    assert all(
        isinstance(each, list) is (QUERY_TYPES[kind].lists or kind == "VoiceChannelStates") for each in found
    )
    if query.fields is not None:
        (entity, *_) = found[0] if isinstance(found[0], list) else found
        assert list(entity) == list(query.fields)


def test_every_reason_for_no_answer_is_a_word_of_the_contract() -> None:
    table = QUERIES.split("## Why there is no answer")[1].split("An error's body")[0]
    # The first two columns: the status, and the codes of an error.
    words = {
        word
        for row in re.findall(r"^\|[^|]*\|([^|]*)\|", table, re.MULTILINE)
        for word in re.findall(r"`([a-z_]+)`", row)
    }
    assert {"loading", "elsewhere"} <= words <= {code.value for code in ErrorCode}


@pytest.mark.parametrize("name", ["queries.md", "workers.md", "cache.md"])
def test_every_python_example_is_python(name: str) -> None:
    text = (DOCS / name).read_text("utf-8")
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        ast.parse(example)
