"""When session records are written, and what shards learn of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from rateway.runtime.runner import session_writer
from rateway.runtime.runner.session_records import SessionRecords
from rateway.runtime.runner.session_writer import SessionWriter
from rateway.transports.store import StoreFault
from tests.runtime.runner.memory_store import MemoryStore

from tests.aio import run


class ShardDouble:
    """A shard whose stream is settled up to a number, and which keeps what it is told."""

    def __init__(self) -> None:
        self.stream = SimpleNamespace(settled=0)
        self.told: asyncio.Queue[int] = asyncio.Queue()

    def settle(self, seq: int) -> None:
        self.told.put_nowait(seq)


class Scene:
    def __init__(self) -> None:
        self.store, self.shard = MemoryStore(), ShardDouble()
        self.records = SessionRecords(self.store, shard_count=1, intents=513, token_hash="bot")
        shards: dict[int, Any] = {0: self.shard}
        self.writer = SessionWriter(self.records, shards)
        self.records.started(0, "s", "wss://resume", ready_seq=1)

    def settle(self, seq: int) -> None:
        self.shard.stream.settled = seq
        self.writer.note_change()


@asynccontextmanager
async def running() -> AsyncIterator[Scene]:
    scene = Scene()
    task = asyncio.create_task(scene.writer.run())
    try:
        yield scene
    finally:
        task.cancel()


def test_what_is_settled_is_written_and_then_told_to_the_shard() -> None:
    async def scenario() -> None:
        async with running() as scene:
            for seq in (1, 5):
                scene.settle(seq)
                assert await scene.shard.told.get() == seq
                assert scene.store.committed[0].settled == seq

    run(scenario())


def test_changes_that_come_close_together_are_one_write() -> None:
    async def scenario() -> None:
        async with running() as scene:
            scene.settle(1)
            assert await scene.shard.told.get() == 1
            commits = scene.store.commits
            for seq in range(2, 50):
                scene.settle(seq)
            assert await scene.shard.told.get() == 49
            assert scene.store.commits == commits + 1

    run(scenario())


def test_a_session_that_is_not_written_yet_does_not_wait_for_the_next_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Longer than this test may run.
    monkeypatch.setattr(session_writer, "WRITE_EVERY_S", 3600.0)

    async def scenario() -> None:
        async with running() as scene:
            scene.settle(1)
            assert await scene.shard.told.get() == 1
            scene.records.started(0, "t", "wss://resume", ready_seq=1)
            scene.settle(1)
            assert await scene.shard.told.get() == 1
            assert scene.store.committed[0].session_id == "t"

    run(scenario())


def test_a_shard_is_told_nothing_that_could_not_be_written() -> None:
    scene = Scene()
    scene.store.fault = StoreFault("the disk is full")
    scene.shard.stream.settled = 5
    scene.writer.write()
    assert scene.shard.told.empty()
    scene.store.fault = None
    scene.writer.write()
    assert scene.shard.told.get_nowait() == 5
