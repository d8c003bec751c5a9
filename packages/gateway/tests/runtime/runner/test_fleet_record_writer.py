"""What a cluster's owner writes into the fleet's record, and what its shards are told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from rateway.fleet.cluster_record import EndedSession, LastTenure, adopt, decode
from rateway.fleet.leftovers import SessionPosition
from rateway.fleet.port import Owned, WriteResult
from rateway.native.ledger import Cursor, Run
from rateway.runtime.runner.fleet_record_writer import FleetRecordWriter
from rateway.runtime.runner.session_records import SessionRecords
from rateway.runtime.runner.session_writer import SessionWriter
from tests.election.memory import Coordinator, MemoryElections
from tests.proxy.virtual_time import pass_time, run
from tests.runtime.runner.memory_store import MemoryStore

SUBJECT = "cluster-1"


class ShardDouble:
    """A shard whose stream is settled up to a number, and which keeps what it is told."""

    def __init__(self) -> None:
        self.stream = SimpleNamespace(settled=0)
        self.told: list[int] = []

    def settle(self, seq: int) -> None:
        self.told.append(seq)


class Elections(MemoryElections):
    """A confirm takes its time."""

    written = 0

    async def write(self, subject: str, epoch: int, body: bytes) -> WriteResult:
        self.written += 1
        await pass_time(0.005)
        return await super().write(subject, epoch, body)


class Scene:
    def __init__(self) -> None:
        self.coordinator = Coordinator()
        self.elections = Elections(self.coordinator, "one")
        self.shard = ShardDouble()
        shards: dict[int, Any] = {0: self.shard}
        self.store = MemoryStore()
        self.records = SessionRecords(self.store, shard_count=1, intents=513, token_hash="bot")
        self.writer = FleetRecordWriter(self.elections, SUBJECT, self.records, shards)
        self.local = SessionWriter(self.records, shards)
        self.local.on_written = self.writer.note_change

    def settle(self, seq: int) -> None:
        self.shard.stream.settled = seq
        self.local.write()

    def recorded(self) -> list[tuple[str, int]]:
        record = self.coordinator.record(SUBJECT)
        assert record is not None
        return [(each.session_id, each.settled) for each in decode(record.body).sessions]


@asynccontextmanager
async def owning() -> AsyncIterator[Scene]:
    scene = Scene()
    owned = await scene.elections.campaign(SUBJECT, lambda why: None)
    scene.records.started(0, "s", "wss://resume", ready_seq=1)
    task = asyncio.ensure_future(scene.writer.run(owned.epoch))
    yield scene
    task.cancel()


def test_a_shard_is_told_what_the_fleet_has_and_not_what_its_own_store_has() -> None:
    async def scene() -> None:
        async with owning() as it:
            it.settle(1)
            await pass_time()
            assert (it.recorded(), it.shard.told[-1]) == ([("s", 1)], 1)
            it.elections.cut()
            it.settle(9)
            await pass_time(30)
            assert it.shard.told[-1] == 1
            it.elections.heal()
            await pass_time(2)
            assert (it.recorded(), it.shard.told[-1]) == ([("s", 9)], 9)

    run(scene())


def test_whenever_a_member_is_killed_it_resumes_from_no_less_than_a_heartbeat_has_named() -> None:
    async def scene() -> None:
        async with owning() as it:
            writing = asyncio.ensure_future(it.local.run())
            write = it.elections.write

            async def write_late(subject: str, epoch: int, body: bytes) -> WriteResult:
                # Once: from then on the record is written between two writes of the store.
                it.elections.write = write  # type: ignore[method-assign]
                await pass_time(0.7)
                return await write(subject, epoch, body)

            it.elections.write = write_late  # type: ignore[method-assign]
            compared = 0
            for seq in range(1, 501):
                it.shard.stream.settled = seq
                it.local.note_change()
                await pass_time(0.01)
                record = it.coordinator.record(SUBJECT)
                if record is None or not it.shard.told:
                    continue
                owned = Owned(record.epoch + 1, record, "inherited")
                last = LastTenure("f", record.epoch)
                found = adopt(owned, list(it.store.committed.values()), last, fleet="f", member=record.owner)
                assert found.sessions[0].settled >= max(it.shard.told)
                compared += 1
            writing.cancel()
            assert compared > 300

    run(scene())


def test_the_number_of_a_session_that_was_replaced_meanwhile_is_told_to_nobody() -> None:
    async def scene() -> None:
        async with owning() as it:
            it.settle(50)
            # Its confirm is under way.
            await pass_time(0.001)
            it.records.started(0, "t", "wss://resume", ready_seq=1)
            it.shard.stream.settled = 0
            await pass_time()
            assert 50 not in it.shard.told
            it.settle(2)
            await pass_time(1)
            assert (it.recorded(), it.shard.told[-1]) == ([("t", 2)], 2)

    run(scene())


def test_a_lost_session_is_named_with_how_far_it_is_settled_by_now() -> None:
    async def scene() -> None:
        async with owning() as it:
            lost = Cursor(0, 77)
            lost.runs.append(Run(lost, 0.0))
            it.writer.note_lost(0, "s", lost)
            it.writer.note_lost(0, "", Cursor(0, 5))
            it.settle(1)
            await pass_time()
            record = it.coordinator.record(SUBJECT)
            assert record is not None
            assert decode(record.body).ended == (EndedSession(0, "s", 77),)
            assert SessionPosition(0, "s", 77, is_open=True) in it.writer.positions()
            lost.runs.clear()
            lost.settled = 90
            assert SessionPosition(0, "s", 90, is_open=False) in it.writer.positions()
            it.settle(2)
            await pass_time(1)
            record = it.coordinator.record(SUBJECT)
            assert record is not None
            assert decode(record.body).ended == (EndedSession(0, "s", 90),)

    run(scene())


def test_at_most_two_records_are_written_in_a_second_whatever_changes() -> None:
    async def scene() -> None:
        async with owning() as it:
            for seq in range(1, 1001):
                it.settle(seq)
                await pass_time(0.01)
            written = it.elections.written
            assert 18 <= written <= 21
            await pass_time(1)
            assert (it.recorded(), it.shard.told[-1]) == ([("s", 1000)], 1000)

    run(scene())
