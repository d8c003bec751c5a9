"""What is written down of sessions, in which order, and what a heartbeat may say because of it."""

from __future__ import annotations

import msgspec
import pytest
from rateway.runtime.runner.session_records import SessionRecords
from rateway.transports.store import SessionRecord, StoreFault
from rateway_protocol.contract import messages
from tests.runtime.runner.memory_store import MemoryStore


def session_records(store: MemoryStore) -> SessionRecords:
    return SessionRecords(store, shard_count=4, intents=513, token_hash="bot")


def gap_of(shard_id: int) -> bytes:
    gap = messages.Gap(shard=shard_id, old_session="old", settled=7, received=9, reason="op 9", since=1.0)
    return messages.encode(gap)


def to_tell(store: MemoryStore) -> tuple[str, list[tuple[str, int]]]:
    """What is written down of shard 3: its session, and which guilds are still to be told as gone."""
    return store.committed[3].session_id, list(store.committed[3].pending_left)


def test_a_session_is_stored_once_its_ready_is_confirmed() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    sessions.started(0, "s", "wss://resume", ready_seq=1)
    assert sessions.write([(0, 0)], wall=1.0) == []
    assert store.committed == {}
    assert sessions.write([(0, 1)], wall=2.0) == [(0, 1)]
    assert store.committed[0].session_id == "s"
    assert store.committed[0].settled == 1


@pytest.mark.checklist("H12")
def test_heartbeats_are_told_only_what_was_committed() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    sessions.started(0, "s", "wss://resume", ready_seq=1)
    store.fault = StoreFault("the disk is full")
    assert sessions.write([(0, 5)], wall=1.0) == []
    store.fault = None
    assert sessions.write([(0, 6)], wall=2.0) == [(0, 6)]


def test_what_has_not_changed_is_not_written_again() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    sessions.started(0, "s", "wss://resume", ready_seq=1)
    sessions.write([(0, 5)], wall=1.0)
    commits = store.commits
    assert sessions.write([(0, 5)], wall=2.0) == []
    assert store.commits == commits


@pytest.mark.checklist("H14")
def test_a_lost_session_is_forgotten_in_the_transaction_that_remembers_its_gap() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    sessions.started(3, "old", "wss://resume", ready_seq=1)
    sessions.write([(3, 7)], wall=1.0)
    commits = store.commits
    sessions.lost(3, gap_of(3), wall=2.0)
    assert store.commits == commits + 1
    record = store.committed[3]
    assert record.session_id == ""
    assert record.pending_gap == gap_of(3)
    assert sessions.misfit(record)


@pytest.mark.checklist("H14")
def test_a_gap_stays_pending_over_a_crash_until_it_is_confirmed() -> None:
    store = MemoryStore()
    before = session_records(store)
    before.started(3, "old", "wss://resume", ready_seq=1)
    before.lost(3, gap_of(3), wall=2.0)

    after = session_records(store)
    after.restore(store.committed[3])
    after.started(3, "new", "wss://resume", ready_seq=1)
    assert after.pending_gaps(3) == [gap_of(3)]
    told = messages.with_new_session(gap_of(3), "new")
    after.remember_gaps(3, [told])
    after.gap_confirmed(3, told)
    after.write([(3, 1)], wall=3.0)
    assert store.committed[3].pending_gap is None
    assert store.committed[3].session_id == "new"


@pytest.mark.checklist("H14")
def test_a_gap_that_is_confirmed_late_does_not_hide_the_next_one() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    sessions.started(3, "old", "wss://resume", ready_seq=1)
    sessions.lost(3, gap_of(3), wall=1.0)
    sessions.started(3, "second", "wss://resume", ready_seq=1)
    first = messages.with_new_session(gap_of(3), "second")
    sessions.remember_gaps(3, [first])
    second = messages.encode(
        messages.Gap(shard=3, old_session="second", settled=0, received=4, reason="op 9", since=2.0)
    )
    sessions.lost(3, second, wall=2.0)
    assert sessions.pending_gaps(3) == [first, second]
    sessions.gap_confirmed(3, first)
    assert sessions.pending_gaps(3) == [second]
    assert messages.with_new_session(first, "third") == first


@pytest.mark.checklist("B22")
def test_a_session_that_does_not_fit_is_kept_until_another_takes_its_place_and_then_told_as_a_gap() -> None:
    store = MemoryStore()
    before = session_records(store)
    before.started(3, "old", "wss://resume", ready_seq=1)
    before.write([(3, 7)], wall=1.0)
    stored = store.committed[3]

    after = session_records(store)
    after.give_up(stored, gap_of(3))
    assert after.write([(3, 7)], wall=2.0) == []
    assert store.committed[3] == stored
    after.started(3, "new", "wss://resume", ready_seq=1, compression="zlib-stream")
    assert (after.before(3), after.pending_gaps(3)) == ("old", [gap_of(3)])
    assert after.write([(3, 1)], wall=3.0) == [(3, 1)]
    assert store.committed[3].pending_gap == gap_of(3)
    assert (store.committed[3].session_id, store.committed[3].compression) == ("new", "zlib-stream")


def test_the_session_before_is_known_for_what_must_be_told_of_it() -> None:
    sessions = session_records(MemoryStore())
    sessions.started(0, "old", "wss://resume", ready_seq=1)
    sessions.lost(0, gap_of(0), wall=1.0)
    sessions.started(0, "new", "wss://resume", ready_seq=1)
    assert sessions.before(0) == "old"


@pytest.mark.checklist("H14")
def test_a_guild_that_vanished_stays_to_be_told_over_a_crash_until_that_is_confirmed() -> None:
    store = MemoryStore()
    before = session_records(store)
    before.started(3, "old", "wss://resume", ready_seq=1)
    before.write([(3, 7)], wall=1.0)
    before.lost(3, gap_of(3), wall=2.0)
    before.started(3, "second", "wss://resume", ready_seq=1)
    before.leaving(3, (41, 42))
    assert to_tell(store) == ("", [])
    store.commit()
    # Not the second session: its READY is not confirmed. What the store held before stays.
    assert store.committed[3].pending_gap == gap_of(3)
    assert to_tell(store) == ("", [("old", 41), ("old", 42)])

    after = session_records(store)
    after.restore(store.committed[3])
    assert after.before(3) == "old"
    after.started(3, "third", "wss://resume", ready_seq=1)
    assert after.pending_left(3) == (("old", 41), ("old", 42))
    after.left_confirmed(3, "old", 41)
    after.write([(3, 1)], wall=3.0)
    assert to_tell(store) == ("third", [("old", 42)])
    after.left_confirmed(3, "old", 42)
    after.write([(3, 1)], wall=4.0)
    assert to_tell(store) == ("third", [])


@pytest.mark.checklist("H14")
def test_what_is_to_be_told_of_one_lost_session_outlives_the_loss_of_the_next() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    sessions.started(3, "old", "wss://resume", ready_seq=1)
    sessions.lost(3, gap_of(3), wall=1.0)
    sessions.started(3, "second", "wss://resume", ready_seq=1)
    sessions.leaving(3, (41,))
    sessions.lost(3, gap_of(3), wall=2.0)
    assert to_tell(store) == ("", [("old", 41)])
    sessions.started(3, "third", "wss://resume", ready_seq=1)
    assert sessions.pending_left(3) == (("old", 41),)


@pytest.mark.checklist("B22")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"shard_count": 5}, "the number of shards changed from 5 to 4"),
        ({"intents": 1}, "the intents were changed"),
        ({"token_hash": "another"}, "the token is another one, or the state folder has lost its salt"),
        ({"settled": 0}, "none of its events were confirmed"),
        ({"session_id": ""}, "there is no session"),
    ],
)
def test_a_record_of_another_bot_or_layout_is_not_resumed_and_the_reason_says_why(
    change: dict[str, object], why: str
) -> None:
    record = SessionRecord(
        shard_id=0,
        shard_count=4,
        session_id="s",
        resume_url="wss://resume",
        settled=3,
        intents=513,
        token_hash="bot",
        wall=1.0,
    )
    sessions = session_records(MemoryStore())
    assert not sessions.misfit(record)
    assert sessions.misfit(msgspec.structs.replace(record, **change)) == why


@pytest.mark.checklist("H25")
def test_the_age_of_a_record_does_not_matter() -> None:
    record = SessionRecord(
        shard_id=0,
        shard_count=4,
        session_id="s",
        resume_url="wss://resume",
        settled=3,
        intents=513,
        token_hash="bot",
        wall=-1e12,
    )
    assert not session_records(MemoryStore()).misfit(record)


def test_ended_sessions_are_forgotten() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    sessions.started(0, "s", "wss://resume", ready_seq=1)
    sessions.write([(0, 5)], wall=1.0)
    sessions.forget_all()
    assert store.committed == {}


def test_a_new_session_is_unwritten_until_a_commit_holds_it() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    sessions.started(0, "s", "wss://resume", ready_seq=1)
    sessions.started(1, "t", "wss://resume", ready_seq=1)
    sessions.write([(0, 1), (1, 0)], wall=1.0)
    assert sessions.has_unwritten
    store.fault = StoreFault("full")
    sessions.write([(0, 1), (1, 1)], wall=2.0)
    assert sessions.has_unwritten
    store.fault = None
    sessions.write([(0, 1), (1, 1)], wall=3.0)
    assert not sessions.has_unwritten


def test_a_lost_or_ended_session_is_not_waited_for() -> None:
    sessions = session_records(MemoryStore())
    sessions.started(0, "s", "wss://resume", ready_seq=1)
    sessions.lost(0, gap_of(0), wall=1.0)
    assert not sessions.has_unwritten
    sessions.started(0, "t", "wss://resume", ready_seq=1)
    sessions.forget_all()
    assert not sessions.has_unwritten


@pytest.mark.checklist("K33")
def test_a_workers_presence_is_written_down_and_outlives_the_session() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    sessions.started(0, "s", "wss://resume", ready_seq=1)
    sessions.write([(0, 5)], wall=1.0)
    sessions.presence_set(0, b'{"status":"dnd"}')
    sessions.write([(0, 5)], wall=2.0)
    assert store.committed[0].presence == b'{"status":"dnd"}'
    sessions.lost(0, gap_of(0), wall=3.0)
    assert (store.committed[0].session_id, store.committed[0].presence) == ("", b'{"status":"dnd"}')
    # A later start, which identifies.
    again = session_records(store)
    again.restore(store.committed[0])
    again.started(0, "t", "wss://resume", ready_seq=1)
    again.write([(0, 1)], wall=4.0)
    assert store.committed[0].presence == b'{"status":"dnd"}'
    again.presence_setting_changed("another")
    again.write([(0, 1)], wall=5.0)
    assert store.committed[0].presence is None


@pytest.mark.checklist("K33")
@pytest.mark.parametrize(
    ("change", "counts"),
    [({}, True), ({"intents": 1}, True), ({"session_id": ""}, True), ({"token_hash": "x"}, False),
     ({"shard_count": 5}, False), ({"presence_setting": "x"}, False)],
)  # fmt: skip
def test_a_presence_of_another_bot_layout_or_setting_does_not_count(
    change: dict[str, object], counts: bool
) -> None:
    record = SessionRecord(
        shard_id=0,
        shard_count=4,
        session_id="s",
        resume_url="wss://resume",
        settled=3,
        intents=513,
        token_hash="bot",
        wall=1.0,
        presence=b"{}",
    )
    found = session_records(MemoryStore()).with_presence_that_counts(
        msgspec.structs.replace(record, **change)
    )
    assert (found.presence == b"{}") is counts


@pytest.mark.checklist("K9")
def test_a_message_that_could_not_be_read_is_written_down_at_once_and_forgotten_with_its_session() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    sessions.started(3, "first", "wss://r", 1)
    sessions.failed(3, 1)
    assert store.committed == {}
    sessions.write([(3, 5)], 1.0)
    assert (store.committed[3].settled, store.committed[3].failed_at) == (5, 1)
    sessions.failed(3, 9)
    assert (store.committed[3].settled, store.committed[3].failed_at) == (5, 9)
    restarted = session_records(store)
    restarted.restore(store.committed[3])
    restarted.write([(3, 7)], 2.0)
    assert (store.committed[3].settled, store.committed[3].failed_at) == (7, 9)
    sessions.started(3, "second", "wss://r", 1)
    sessions.write([(3, 1)], 3.0)
    assert store.committed[3].failed_at == 0


def test_a_record_of_a_version_that_knew_no_failures_is_read() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    sessions.started(3, "first", "wss://r", 1)
    sessions.write([(3, 5)], 1.0)
    data = msgspec.msgpack.decode(msgspec.msgpack.encode(store.committed[3]))
    del data["failed_at"]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(data), type=SessionRecord) == store.committed[3]


@pytest.mark.checklist("K49")
def test_a_session_with_the_id_of_an_earlier_one_has_a_name_of_its_own() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    names = [
        sessions.started(3, each, "wss://resume", ready_seq=1) for each in ("a", "a", "b", "a", "b", "c")
    ]
    assert names == ["a", "a~1", "b", "a~2", "b~3", "c"]
    assert sessions.session(3) == "c" and sessions.before(3) == "b~3"
    assert sessions.write([(3, 1)], wall=1.0) == [(3, 1)]

    # Known after a restart too, after a loss, and after an end on purpose.
    again = session_records(store)
    again.restore(store.committed[3])
    assert again.session(3) == "c"
    again.lost(3, gap_of(3), wall=2.0)
    assert again.started(3, "a", "wss://resume", ready_seq=1) == "a~4"
    assert again.write([(3, 2)], wall=3.0) == [(3, 2)]
    assert (store.committed[3].session_id, store.committed[3].name) == ("a", "a~4")
    again.forget_all()
    last = session_records(store)
    last.restore(store.committed[3])
    assert store.committed[3].session_id == "" and last.session(3) == ""
    assert last.started(3, "c", "wss://resume", ready_seq=1) == "c~5"


@pytest.mark.checklist("K49")
def test_a_record_of_an_earlier_version_knows_its_own_session() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    sessions.restore(
        SessionRecord(
            shard_id=3, shard_count=4, session_id="a", resume_url="", settled=5, intents=513, token_hash="bot", wall=1.0
        )
    )  # fmt: skip
    assert sessions.session(3) == "a"
    assert sessions.started(3, "a", "wss://resume", ready_seq=1) == "a~1"


def test_a_snapshot_holds_what_a_resume_elsewhere_needs_whatever_the_own_store_takes() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    store.fault = StoreFault("the disk is full")
    sessions.started(0, "s", "wss://resume", ready_seq=1)
    sessions.started(1, "not confirmed", "wss://resume", ready_seq=1)
    sessions.lost(3, gap_of(3), wall=1.0)
    assert sessions.write([(0, 5), (1, 0)], wall=2.0) == []
    found = {each.shard_id: each for each in sessions.snapshot([(0, 5), (1, 0), (3, 0)], wall=2.0)}
    assert (found[0].session_id, found[0].settled) == ("s", 5)
    # Its READY is nowhere but here: another gateway cannot resume it.
    assert (found[1].session_id, found[1].settled) == ("", 0)
    assert (found[3].session_id, found[3].pending_gap) == ("", gap_of(3))


def test_records_of_another_owner_replace_all_that_was_known() -> None:
    store = MemoryStore()
    sessions = session_records(store)
    for shard_id in (0, 1):
        sessions.started(shard_id, f"own {shard_id}", "wss://resume", ready_seq=1)
    sessions.write([(0, 5), (1, 5)], wall=2.0)
    taken = msgspec.structs.replace(store.committed[0], session_id="theirs", settled=90)
    sessions.replace_all([taken])
    assert store.committed == {0: taken}
    assert (sessions.session(0), sessions.session(1)) == ("", "")
    sessions.restore(taken)
    assert [(each.session_id, each.settled) for each in sessions.snapshot([(0, 91)], wall=3.0)] == [
        ("theirs", 91)
    ]
