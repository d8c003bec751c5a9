"""How far a cluster's owner has come is answered by the owner alone, by this process itself where it is the one."""

from __future__ import annotations

from rateway.fleet.leftovers import SessionPosition
from rateway.runtime.fleet.positions import OwnerPositions, owner_of
from tests.fleet_line.memory import MemoryHub
from tests.proxy.virtual_time import run

FOUND = [SessionPosition(0, "s", 7, is_open=True), SessionPosition(1, "t", 9, is_open=False)]


def test_the_owner_answers_and_nobody_else() -> None:
    async def scene() -> None:
        hub = MemoryHub()
        owned = {2}
        asker = OwnerPositions(hub.line("host-1"), lambda number: None)
        OwnerPositions(hub.line("host-2"), lambda number: FOUND if number in owned else None)
        hub.wires[owner_of(1)] = hub.wires[owner_of(2)] = hub.wires["host-2"]
        assert list(await asker.ask(2) or ()) == FOUND
        assert await asker.ask(1) is None
        owned.clear()
        assert await asker.ask(2) is None
        # A cluster that nobody may run.
        assert await asker.ask(3) is None

    run(scene())


def test_a_process_that_owns_the_cluster_asks_itself() -> None:
    async def scene() -> None:
        hub = MemoryHub()
        asker = OwnerPositions(hub.line("host-1"), lambda number: FOUND)
        assert await asker.ask(1) == FOUND

    run(scene())
