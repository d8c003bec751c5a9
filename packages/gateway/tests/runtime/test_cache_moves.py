"""The cache of a cluster goes from one member's store to another's, or does not, and then nothing of it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rateway.runtime.fleet import cache_moves
from rateway.runtime.fleet.cache_moves import CacheMoves, LoadedCache, place_of
from rateway.runtime.fleet.line import FleetLine
from rateway.transports.store import Store
from tests.cache.scene import GUILD, guild
from tests.cache.world_feed import encode
from tests.fleet_line.memory import MemoryHub
from tests.transports.test_store import begin, name_of, opened

from tests.aio import run


@dataclass
class Cluster:
    """A cluster with a store, whose shards run or not."""

    store: Store | None
    is_in_use: bool = False
    keeps_cache: bool = True
    loaded_cache: LoadedCache | None = None
    held: list[Mapping[int, int] | None] = field(default_factory=list)

    def hold_heartbeats(self, positions: Mapping[int, int] | None) -> None:
        self.held.append(positions)


@dataclass
class Scene:
    hub: MemoryHub
    giver: Cluster
    taker: Cluster
    moves: CacheMoves
    taken: CacheMoves
    """The taker's end."""


def scene(folder: Path) -> Scene:
    source, target = opened(folder / "a"), opened(folder / "b")
    begin(source, 0, "one", encode(guild(name="here")))
    assert source.commit() is None
    hub = MemoryHub()
    giver, taker = Cluster(source, is_in_use=True), Cluster(target)
    moves = CacheMoves(hub.line("a"), {1: giver})
    # A process reads under its own key and under one for each of its clusters.
    wire = hub.line(place_of("b", 1))
    hub.wires["b"] = hub.wires[place_of("b", 1)]
    taken = CacheMoves(_named(wire, "b"), {1: taker})
    return Scene(hub, giver, taker, moves, taken)


def _named(line: FleetLine, name: str) -> FleetLine:
    line.member = name
    return line


def test_a_cache_arrives_whole_and_heartbeats_wait_for_its_next_owner(tmp_path: Path) -> None:
    async def main() -> None:
        it = scene(tmp_path)
        cache = await it.moves.send(1, "b")
        assert cache and it.taker.loaded_cache is not None and it.taker.loaded_cache.name == cache
        assert it.giver.held == [{0: 2}]
        assert it.taker.store is not None
        assert name_of(it.taker.store.reader()) == "here"

    run(main())


def test_members_that_leave_at_once_do_not_wait_for_each_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        it = scene(tmp_path)
        it.moves.is_leaving = it.taken.is_leaving = True
        assert await it.moves.send(1, "b") == ""
        assert "it leaves as well" in caplog.text

    run(main())


@pytest.mark.parametrize("why", ["runs", "off", "no store", "cut", "alone"])
def test_a_member_that_cannot_take_a_cache_costs_the_move_its_cache_alone(
    tmp_path: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_moves, "OFFER_S", 0.1)
    monkeypatch.setattr(cache_moves, "OFFER_AGAIN_S", 0.05)

    async def main() -> None:
        it = scene(tmp_path)
        it.taker.is_in_use, it.taker.keeps_cache = why == "runs", why != "off"
        if why == "no store":
            it.taker.store = None
        it.hub.wires["a"].is_cut = why == "cut"
        it.hub.wires["b"].is_cut = why == "alone"
        assert await it.moves.send(1, "b") == ""
        # Heartbeats go on as they would.
        assert it.giver.held[-1:] == [None]
        assert it.taker.loaded_cache is None

    run(main())


def test_a_cache_is_offered_again_to_a_member_that_is_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_moves, "OFFER_AGAIN_S", 0.05)

    async def main() -> None:
        it = scene(tmp_path)
        # The first offer finds nobody, the answer to the second is lost.
        sent = iter([True, False, True])
        it.hub.loses = lambda: next(sent, False)
        assert await it.moves.send(1, "b")
        assert it.taker.loaded_cache is not None

    run(main())


def test_a_cache_whose_parts_do_not_all_arrive_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_moves, "PIECE_S", 0.1)

    async def main() -> None:
        it = scene(tmp_path)
        sent = iter([False, False, True])
        # The offer and its answer arrive.
        it.hub.loses = lambda: next(sent, False)
        assert await it.moves.send(1, "b") == ""
        assert it.taker.loaded_cache is None

    run(main())


@pytest.mark.parametrize("whole", [False, True])
def test_a_store_that_was_taking_a_cache_when_its_gateway_ended_begins_empty(
    tmp_path: Path, whole: bool
) -> None:
    store = opened(tmp_path / "b")
    begin(store, 0, "old", encode(guild(GUILD + (1 << 22))))
    assert store.commit() is None
    source = opened(tmp_path / "a")
    begin(source, 0, "one", encode(guild()))
    assert source.commit() is None
    snapshot = source.snapshot()
    loader = store.load(snapshot.head)
    for piece in snapshot.pieces():
        assert loader.take(piece) == ""
    if whole:
        # What came since at the other member has not come here.
        assert loader.end(snapshot.end()) == ""
    snapshot.close()
    store.close()
    again = opened(tmp_path / "b")
    assert any("being taken over" in line for line in again.words)
    assert name_of(again.reader()) is None
    again.close()
    assert opened(tmp_path / "b").words == ()


def test_nothing_is_asked_of_a_member_where_this_one_has_no_cache(tmp_path: Path) -> None:
    async def main() -> None:
        it = scene(tmp_path)
        it.giver.keeps_cache = False
        assert await it.moves.send(1, "b") == ""
        assert it.giver.held == []
        await asyncio.sleep(0)
        assert it.taker.loaded_cache is None

    run(main())
