"""Events that workers have, and that a cache which came from another member still lacks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
from rateway.native.fast_path import EventPipeline
from rateway.runtime.runner.event_forwarder import EventForwarder
from rateway.runtime.runner.event_tallies import EventTallies
from rateway_protocol.discord.envelope import Envelope
from tests.runtime.runner.test_shard_factory import made, with_


class Stream:
    """Notes the sequences that are published."""

    def __init__(self) -> None:
        self.published: list[int] = []

    def publish(self, name: str, body: bytes, seq: int, replayed: bool, *rest: object) -> None:
        self.published.append(seq)


def scene() -> tuple[EventForwarder, Stream, list[int]]:
    pipeline, applied = EventPipeline(), list[int]()
    pipeline.apply = lambda shard, seq, name, d: applied.append(seq)
    nothing: Any = None
    return EventForwarder(pipeline, EventTallies(pipeline), nothing, nothing), Stream(), applied


def dispatch(events: EventForwarder, stream: Any, *numbers: int, replayed: bool = True) -> None:
    for seq in numbers:
        envelope = Envelope(0, msgspec.Raw(b"{}"), seq, "MESSAGE_CREATE")
        events.dispatch(0, stream, envelope, replayed, 0)


def test_what_is_published_already_is_for_the_cache_alone() -> None:
    events, stream, applied = scene()
    events.note_published(0, 7)
    dispatch(events, stream, 6, 7, 8)
    assert (applied, stream.published) == ([6, 7, 8], [8])


def test_another_session_has_numbers_of_its_own() -> None:
    events, stream, applied = scene()
    events.note_published(0, 7)
    dispatch(events, stream, 1, replayed=False)
    dispatch(events, stream, 2, 3)
    assert applied == stream.published == [1, 2, 3]


def test_a_session_is_resumed_from_where_its_cache_is_and_settled_where_it_was() -> None:
    for cached, resumed in ((5, 5), (9, 7), (0, 7), (None, 7)):
        # What the record says of the cache is of another time.
        shards, _, _ = made(with_(applied=3), behind={} if cached is None else {0: cached})
        assert (shards[0].conversation.received_seq, shards[0].stream.settled) == (resumed, 7)


def test_heartbeats_name_nothing_beyond_what_the_next_owner_resumes_from() -> None:
    shards, _, _ = made(with_())
    shard, named = shards[0], list[int]()
    conversation: Any = SimpleNamespace(settle=named.append)
    shard.conversation = conversation
    shard.hold_settled(9)
    shard.settle(8)
    shard.settle(12)
    shard.hold_settled(None)
    shard.settle(12)
    assert named == [8, 9, 12]
