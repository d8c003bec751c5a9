"""The table of kinds: what follows from a row, and that nothing else has to be told of a kind."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rateway.cache.before import BEFORE
from rateway.cache.entity_store import EntityStoreReader
from rateway.cache.kinds import ENTITY_KINDS, INDEXED, SNAPSHOTS, EntityKind, Kind
from rateway.cache.policy import KINDS, CachePolicy
from rateway.cache.prune import adopt_policy
from rateway.cache.queries import ANSWERS, answer
from rateway.cache.query_context import Found, Missing, Refusal, Situation
from rateway.cache.reader import View
from rateway.cache.reducers import IGNORED, REDUCERS
from rateway_protocol.contract.queries import QUERY_TYPES, Query
from tests.cache.scene import GUILD, Scene

ROOT = Path(__file__).parents[4]
SECTION = (
    (ROOT / "docs" / "extending.md").read_text("utf-8").split("## A kind of entity")[1].split("\n## ")[0]
)
NAMED = [path for path in re.findall(r"`([\w./-]+)`", SECTION) if "/" in path or path.endswith(".md")]
POLICY = CachePolicy(kinds=KINDS)
ENTITY = 70
LISTED = [row for row in ENTITY_KINDS if row.snapshot_field]


class Host:
    """The stores of one scene."""

    clusters = (1,)

    def __init__(self, scene: Scene, policy: CachePolicy = POLICY) -> None:
        scene.cache.flush()
        self.storage, self.policy = scene.storage, policy

    def view(self, cluster: int) -> View:
        return View(self.storage, EntityStoreReader(self.storage))

    def ask(self, kind: str, *arguments: int, **options: Any) -> Any:
        found = answer(Query(kind, arguments, **options), self, Situation(), self.policy, 0.0)
        return msgspec.json.decode(found.body) if isinstance(found, Found) else found


def entity(row: EntityKind, **fields: Any) -> dict[str, Any]:
    """An entity with its id where its row says, and as little else as is valid."""
    inner: Any = str(ENTITY)
    for name in reversed(row.id_path[1:]):
        inner = {name: inner}
    if row.kind in (Kind.MEMBER, Kind.PRESENCE):
        inner["username"] = "ann"
    return {row.id_path[0]: inner, "status": "idle", **fields}


def started(row: EntityKind, policy: CachePolicy = POLICY) -> Scene:
    scene = Scene(policy)
    adopt_policy(scene.cache.writer)
    scene.start(**{name: [] for name in SNAPSHOTS} | {row.snapshot_field: [entity(row)]})
    return scene


@pytest.mark.parametrize("row", LISTED, ids=lambda row: row.name)
def test_a_kind_in_a_snapshot_is_listed_counted_and_part_of_its_guild(row: EntityKind) -> None:
    host = Host(started(row))
    assert host.ask("Stats")[row.name] == 1
    (listed,) = host.ask(row.list_query, GUILD)
    assert listed["status"] == "idle" and listed["guild_id"] == str(GUILD)
    (inside,) = host.ask("Guild", GUILD, fields=(row.snapshot_field,))[row.snapshot_field]
    assert inside["status"] == "idle" and ("guild_id" in inside) is row.names_guild
    if row.id_query:
        assert host.ask(row.id_query, ENTITY) == listed


@pytest.mark.parametrize("row", LISTED, ids=lambda row: row.name)
def test_a_kind_that_is_switched_off_is_dropped_and_incomplete_when_it_comes_back(row: EntityKind) -> None:
    scene = started(row)
    scene.cache.flush()
    without = CachePolicy(kinds=KINDS - {row.name})
    scene.cache = type(scene.cache)(scene.storage, without)
    assert row.name in adopt_policy(scene.cache.writer)[0]
    scene.cache.writer.flush()
    refused = Host(scene, without).ask(row.list_query, GUILD)
    assert isinstance(refused, Refusal) and refused.code == "cache_off"
    scene.cache = type(scene.cache)(scene.storage, POLICY)
    assert row.name in adopt_policy(scene.cache.writer)[0]
    scene.cache.writer.flush()
    host = Host(scene)
    assert host.ask("Stats")[row.name] == 0
    refused = host.ask(row.list_query, GUILD)
    assert isinstance(refused, Refusal) and refused.code == "incomplete"


@pytest.mark.parametrize("row", [row for row in ENTITY_KINDS if row.events], ids=lambda row: row.name)
def test_the_events_of_a_row_write_replace_and_remove_its_entities(row: EntityKind) -> None:
    create, update, delete = row.events
    assert row.kind is not None
    scene = Scene(CachePolicy(kinds=KINDS, before=frozenset(row.events)))
    scene.start()
    place = {"guild_id": str(GUILD)}
    scene.tell(create, entity(row, **place))
    changed = scene.tell(update, entity(row, **place) | {"status": "dnd"})
    assert changed is not None and changed.before is not None and b'"idle"' in changed.before
    host = Host(scene)
    assert host.ask("Stats")[row.name] == 1
    if row.list_query:
        assert [each["status"] for each in host.ask(row.list_query, GUILD)] == ["dnd"]
    removed = scene.tell(delete, entity(row, **place))
    assert removed is not None and removed.before is not None and b'"dnd"' in removed.before
    assert Host(scene).ask("Stats")[row.name] == 0
    assert set(row.events) <= REDUCERS.keys() - IGNORED
    assert BEFORE.keys() >= {update, delete}


def test_every_number_of_the_store_and_every_list_stands_in_one_row() -> None:
    numbers = [kind for row in ENTITY_KINDS for kind in (row.kind, *row.beside) if kind is not None]
    assert sorted(numbers) == sorted(Kind)
    for names in (
        [row.name for row in ENTITY_KINDS],
        [row.snapshot_field for row in ENTITY_KINDS if row.snapshot_field],
        [name for row in ENTITY_KINDS for name in row.events],
    ):
        assert len(set(names)) == len(names)
    assert all(row.kind in INDEXED for row in ENTITY_KINDS if row.id_query)


def test_every_type_of_query_of_a_row_is_one_of_the_contract_and_has_an_answer() -> None:
    assert ANSWERS.keys() == QUERY_TYPES.keys()
    for row in ENTITY_KINDS:
        if row.list_query:
            found = QUERY_TYPES[row.list_query]
            assert found.lists and found.arguments == ("guild",)
        if row.id_query:
            assert len(QUERY_TYPES[row.id_query].arguments) == 1


def test_the_page_of_the_cache_lists_every_kind() -> None:
    table = (
        (ROOT / "docs" / "cache.md").read_text("utf-8").split("| Kind (`CACHE_KINDS`)")[1].split("\n\n")[0]
    )
    named = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert named == KINDS


def test_the_files_that_a_new_kind_touches_are_there() -> None:
    assert len(NAMED) >= 8
    for path in NAMED:
        assert (ROOT / path).exists(), path


# Kinds of which nothing is tracked but what they are themselves.
PLAIN_KINDS = {"stickers", "stage_instances", "scheduled_events", "soundboard_sounds", "integrations"}


@functools.cache
def words_of_other_files() -> list[tuple[str, str]]:
    """(file:line, text or ``Kind.NAME``) of the files that need not name a kind."""
    told = [ROOT / path for path in NAMED] + [ROOT / "packages/gateway/src/rateway/cache/reducers"]
    found = []
    for package in ("gateway", "protocol"):
        for path in sorted((ROOT / "packages" / package / "src").rglob("*.py")):
            if any(path == each or each in path.parents for each in told) or path.name == "events.py":
                continue  # events.py of the protocol holds Discord's list of its events
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", node.value))
                elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", f"{node.value.id}.{node.attr}"))
    return found


@pytest.mark.parametrize(
    "row", [row for row in ENTITY_KINDS if row.name in PLAIN_KINDS], ids=lambda row: row.name
)
def test_no_other_file_of_the_source_names_a_kind(row: EntityKind) -> None:
    words = {row.name, *row.events, row.list_query} - {""}
    if row.kind is not None:
        words.add(f"Kind.{row.kind.name}")
    assert [place for place, word in words_of_other_files() if word in words] == []


def test_an_entity_that_is_not_there_is_missing() -> None:
    host = Host(started(LISTED[0]))
    assert isinstance(host.ask("Role", 5), Missing)
