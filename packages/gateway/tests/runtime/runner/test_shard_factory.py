"""Which stored sessions the shards of a cluster resume, and what is reported of the others."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest
from rateway.fleet.layout import Layout
from rateway.native.fast_path import EventPipeline
from rateway.runtime.runner.event_forwarder import EventForwarder
from rateway.runtime.runner.event_tallies import EventTallies
from rateway.runtime.runner.gap_reports import GapReports
from rateway.runtime.runner.session_records import SessionRecords
from rateway.runtime.runner.session_writer import SessionWriter
from rateway.runtime.runner.shard import Shard
from rateway.runtime.runner.shard_factory import ShardFactory, ShardTools
from rateway.runtime.runner.shard_observer import ClusterShardObserver
from rateway.session.actions import CommandDone
from rateway.transports.store import SessionRecord
from rateway_protocol.discord.commands import encode
from tests.delivery.memory import MemorySink
from tests.runtime.runner.memory_store import MemoryStore
from tests.session.driver import GATEWAY, Driver, long_presence, options, presence

RECORD = SessionRecord(
    shard_id=0,
    shard_count=4,
    session_id="s",
    resume_url="wss://resume.discord.test",
    settled=7,
    intents=513,
    token_hash="bot",
    wall=1.0,
)


def with_(**changes: object) -> SessionRecord:
    return msgspec.structs.replace(RECORD, **changes)


def made(
    *stored: SessionRecord,
    shard_ids: range = range(2),
    behind: dict[int, int] | None = None,
    store: MemoryStore | None = None,
) -> tuple[dict[int, Shard], SessionRecords, list[str]]:
    """The shards made from stored sessions, the records, and the reasons of the gaps that are to be reported."""

    async def scenario() -> tuple[dict[int, Shard], SessionRecords, list[str]]:
        nothing: Any = None
        sink: Any = MemorySink(clock=time, most=10, observer=nothing)
        records = SessionRecords(store or MemoryStore(), shard_count=4, intents=513, token_hash="bot")
        reports = GapReports(records, sink, lambda: None)
        pipeline = EventPipeline()
        events = EventForwarder(pipeline, EventTallies(pipeline), sink, reports.leave_guilds)
        tools = ShardTools(Layout(4, 2), GATEWAY, options(), nothing, nothing)
        factory = ShardFactory(tools, sink, events, records, reports, nothing, nothing)
        shards = factory.make(shard_ids, stored, behind)
        numbers = {*shards, *(record.shard_id for record in stored)}
        gaps = [
            msgspec.json.decode(gap) for number in sorted(numbers) for gap in records.pending_gaps(number)
        ]
        return shards, records, [gap["reason"] for gap in gaps]

    return asyncio.run(scenario())


def test_a_stored_session_is_resumed_from_what_was_settled() -> None:
    shards, records, reasons = made(RECORD)
    assert (shards[0].conversation.session_id, shards[0].conversation.received_seq) == ("s", 7)
    assert (shards[0].stream.settled, records.session(0)) == (7, "s")
    assert shards[1].conversation.session_id is None
    assert reasons == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"token_hash": "another"}, "the token is another one, or the state folder has lost its salt"),
        ({"intents": 1}, "the intents were changed"),
        ({"shard_count": 8}, "the number of shards changed from 8 to 4"),
    ],
)
def test_a_session_that_does_not_fit_is_reported_as_a_gap_with_the_reason(
    change: dict[str, object], reason: str
) -> None:
    shards, _, reasons = made(with_(**change))
    assert shards[0].conversation.session_id is None and shards[0].stream.settled == 0
    assert reasons == [reason]


def test_a_session_of_a_shard_that_moved_to_another_cluster_is_reported_as_a_gap() -> None:
    _, _, reasons = made(with_(shard_id=3))
    assert reasons == ["the shard belongs to another cluster now"]


@pytest.mark.parametrize("shown", [b"{", encode(long_presence())])
def test_a_presence_that_cannot_be_read_or_has_no_room_in_an_identify_is_forgotten(shown: bytes) -> None:
    store = MemoryStore()
    shards, records, _ = made(with_(presence=shown), store=store)
    assert shards[0].conversation.session_id == "s"
    assert shards[0].conversation.presence is None
    records.write([(0, 8)], 2.0)
    assert store.committed[0].presence is None


def test_a_presence_with_no_room_in_an_identify_is_not_written_down_and_ends_the_one_before() -> None:
    nothing: Any = None
    store = MemoryStore()
    shards, records, _ = made(with_(presence=encode(presence("before"))), store=store)
    observer = ClusterShardObserver(
        1, shards, nothing, records, SessionWriter(records, shards), nothing, nothing
    )
    driver = Driver(shown=presence("before")).live()
    shards[0].conversation = driver.conversation
    for shown, kept in ((presence("set"), presence("set")), (long_presence(), None)):
        driver.command(3, shown, handle="a worker's")
        observer.command_done(shards[0], driver.last(CommandDone))
        records.write([(0, 8)], 2.0)
        written = store.committed[0].presence
        assert (None if written is None else msgspec.json.decode(written)) == kept
