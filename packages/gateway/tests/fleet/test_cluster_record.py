"""What a new owner of a cluster takes over, from the fleet's record or from its own store."""

from __future__ import annotations

import msgspec
import pytest
from rateway.fleet.cluster_record import (
    MOST_ENDED,
    ClusterRecord,
    EndedSession,
    LastTenure,
    adopt,
    decode,
    encode,
    with_ended,
)
from rateway.fleet.port import FleetRecord, Owned
from rateway.native.objects.applied import SessionRecord


def session(name: str, settled: int, shard_id: int = 0, wall: float = 1.0) -> SessionRecord:
    return SessionRecord(
        shard_id=shard_id,
        shard_count=1,
        session_id=name,
        resume_url="wss://resume",
        settled=settled,
        intents=513,
        token_hash="bot",
        wall=wall,
    )


ENDED = (EndedSession(0, "older", 7),)


def owned(record: ClusterRecord | None, *, owner: str = "there", epoch: int = 4) -> Owned:
    if record is None:
        return Owned(1, None, "first")
    return Owned(epoch + 1, FleetRecord(epoch, 9, owner, body=encode(record)), "inherited")


LOCAL = [session("local", 90)]
FLEET = ClusterRecord((session("fleet", 50),), ENDED)


@pytest.mark.parametrize(
    ("owner", "last", "own"),
    [
        # Another member was the last owner, or the same one in a later tenure than this folder knows of.
        ("there", LastTenure("f", 4), False),
        ("here", LastTenure("f", 3), False),
        ("here", None, False),
        ("here", LastTenure("another", 4), False),
        # Nobody owned it since.
        ("here", LastTenure("f", 4), True),
    ],
)
def test_the_own_store_counts_only_where_nobody_owned_the_cluster_since(
    owner: str, last: LastTenure | None, own: bool
) -> None:
    found = adopt(owned(FLEET, owner=owner), LOCAL, last, fleet="f", member="here")
    assert found.sessions == (tuple(LOCAL) if own else FLEET.sessions)
    assert (found.source, found.follows_own) == (("local", True) if own else ("fleet", False))
    assert found.ended == ENDED


def test_a_gateway_that_becomes_the_first_of_a_fleet_takes_its_sessions_along() -> None:
    found = adopt(owned(None), LOCAL, None, fleet="f", member="here")
    assert (found.sessions, found.source, found.follows_own) == (tuple(LOCAL), "local", True)


@pytest.mark.parametrize(
    ("local", "recorded", "found"),
    [
        # The two are written one after the other, so that either may be ahead for a moment.
        (session("s", 90, wall=2.0), session("s", 70, wall=1.5), ("s", 90)),
        (session("s", 70, wall=1.5), session("s", 90, wall=2.0), ("s", 90)),
        # It ran without FLEET meanwhile, and has another session now.
        (session("newer", 5, wall=9.0), session("s", 70, wall=1.5), ("newer", 5)),
        # The disk of the store was full, and a session was lost and replaced meanwhile.
        (session("s", 70, wall=1.5), session("newer", 5, wall=9.0), ("newer", 5)),
        (session("s", 70, wall=1.5), session("", 0, wall=9.0), ("", 0)),
    ],
)
def test_of_an_own_store_and_the_record_of_the_same_tenure_the_newer_counts_shard_by_shard(
    local: SessionRecord, recorded: SessionRecord, found: tuple[str, int]
) -> None:
    others = session("a", 1, 1, wall=5.0), session("b", 2, 2, wall=5.0)
    tenure = owned(ClusterRecord((recorded, others[1])), owner="here")
    sessions = adopt(tenure, [local, others[0]], LastTenure("f", 4), fleet="f", member="here").sessions
    assert {each.shard_id: (each.session_id, each.settled) for each in sessions} == {
        0: found, 1: ("a", 1), 2: ("b", 2),
    }  # fmt: skip


def test_an_own_store_that_was_lost_is_replaced_by_the_fleets_record() -> None:
    found = adopt(owned(FLEET, owner="here"), [], LastTenure("f", 4), fleet="f", member="here")
    assert (found.sessions, found.source) == (FLEET.sessions, "fleet")


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x93\x01\x02", encode(FLEET)[:-3], b"{}"])
def test_a_record_that_cannot_be_read_is_one_without_sessions(body: bytes) -> None:
    assert decode(body) == ClusterRecord()


def test_a_record_says_all_that_a_resume_needs() -> None:
    full = msgspec.structs.replace(
        session("s", 7, 3),
        pending_gap=b"{}\n{}",
        pending_left=(("s", 5),),
        presence=b"{}",
        earlier=("a", "b"),
    )
    assert decode(encode(ClusterRecord((full,), ENDED))) == ClusterRecord((full,), ENDED)


def test_a_record_names_the_latest_of_the_lost_sessions_each_once() -> None:
    ended: tuple[EndedSession, ...] = ENDED
    for number in range(MOST_ENDED + 5):
        ended = with_ended(ended, EndedSession(0, f"s{number}", number))
    ended = with_ended(ended, EndedSession(0, "s100", 101))
    assert len(ended) == MOST_ENDED and ended[-1] == EndedSession(0, "s100", 101)
    assert [each.name for each in ended].count("s100") == 1
