"""What an hour shows: quiet shards are said once, old sessions renewed one at a time and within the budget."""

from __future__ import annotations

import logging

import msgspec
import pytest
from rateway.runtime.maintenance import QUIET_AFTER_LOOKS, Maintenance, Renewal, sick_notes
from rateway.runtime.monitoring.status import ClusterStatus, GatewayStatus, PublisherStatus, ShardStatus
from tests.http.fleet import Fleet

from tests.aio import run

ZERO = {int: 0, float: 0.0, str: "", bool: False}


def blank(kind: type[msgspec.Struct], **known: object) -> object:
    """A status record of zeros but for what is known."""
    fields = {}
    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in known:
            fields[field.name] = ZERO.get(field.type, {} if "dict" in str(field.type) else None)
    return kind(**fields, **known)


def shard(
    number: int, received: int, *, age: float = 0.0, incomplete: int = 0, state: str = "live"
) -> ShardStatus:
    made = blank(
        ShardStatus,
        shard=number,
        cluster=1,
        state=state,
        session=f"session {number}",
        received=received,
        session_s=age,
        incomplete_since=incomplete,
    )
    assert isinstance(made, ShardStatus)
    return made


def status(shards: list[ShardStatus], *, interactions: int = 0, guilds: int = 10) -> GatewayStatus:
    publisher = blank(PublisherStatus, unrouted=[])
    cluster = blank(
        ClusterStatus,
        cluster=1,
        events={"INTERACTION_CREATE": interactions, "GUILD_CREATE": guilds},
        publisher=publisher,
    )
    made = blank(GatewayStatus, clusters=[cluster], shards=shards, processes=[], notes=[])
    assert isinstance(made, GatewayStatus)
    return made


async def never() -> GatewayStatus:
    raise AssertionError("not asked in these tests")


def test_a_shard_with_nothing_but_interactions_for_an_hour_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    maintenance = Maintenance(never, None)
    with caplog.at_level(logging.WARNING):
        for look in range(QUIET_AFTER_LOOKS + 20):
            shards = [shard(0, 100 + look), shard(1, 1000 * look)]
            maintenance.look(status(shards, interactions=look))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "1 shards" in said[0]
    assert ": 0." in said[0]


def test_a_lacking_queue_is_logged_once_for_all_clusters_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    maintenance, fleet = Maintenance(never, None), Fleet(200)
    lacking = {"routed": [], "unrouted": ["MESSAGE_CREATE"]}
    bound = {"routed": ["MESSAGE_CREATE"], "unrouted": ["TYPING_START"]}
    with caplog.at_level(logging.INFO):
        for publishers in (
            {1: bound, **dict.fromkeys(range(2, 26), lacking)},
            {1: bound, **dict.fromkeys(range(2, 26), lacking)},
            dict.fromkeys(range(1, 26), bound),
            dict.fromkeys(range(1, 26), bound),
        ):
            fleet.publishers = publishers
            maintenance.look(run(fleet.status()))
    first, last = (record.getMessage() for record in caplog.records)
    assert "no queue is bound for anything of clusters 2-25" in first
    assert last == "each cluster has the queues that others have"


def test_a_bot_without_guilds_is_never_called_quiet(caplog: pytest.LogCaptureFixture) -> None:
    maintenance = Maintenance(never, None)
    with caplog.at_level(logging.WARNING):
        for _ in range(QUIET_AFTER_LOOKS + 5):
            maintenance.look(status([shard(0, 5)], guilds=0))
    assert caplog.records == []


def test_the_oldest_session_is_renewed_one_a_look() -> None:
    renewed: list[int] = []

    def renew(shard_id: int, why: str) -> bool:
        renewed.append(shard_id)
        return True

    maintenance = Maintenance(never, Renewal(3600.0, lambda: True, renew))
    shards = [shard(0, 1, age=4000), shard(1, 1, age=9000), shard(2, 1, age=10)]
    maintenance.look(status(shards))
    assert renewed == [1]


def test_nothing_is_renewed_without_room_in_the_budget() -> None:
    renewed: list[int] = []

    def renew(shard_id: int, why: str) -> bool:
        renewed.append(shard_id)
        return True

    maintenance = Maintenance(never, Renewal(3600.0, lambda: False, renew))
    maintenance.look(status([shard(0, 1, age=9000)]))
    assert renewed == []


def test_the_cache_is_filled_one_shard_at_a_time_and_once_for_each_incompleteness() -> None:
    renewed: list[int] = []

    def renew(shard_id: int, why: str) -> bool:
        assert "CACHE_RENEW" in why
        renewed.append(shard_id)
        return True

    maintenance = Maintenance(never, Renewal(None, lambda: True, renew, fills_cache=True))
    maintenance.fill(status([shard(0, 1), shard(1, 1, incomplete=7), shard(2, 1, incomplete=7)]))
    assert renewed == [1]
    maintenance.fill(
        status([shard(0, 1), shard(1, 1, incomplete=7, state="connecting"), shard(2, 1, incomplete=7)])
    )
    assert renewed == [1]
    # A guild of shard 1 still has not come: another session would not bring it, either.
    maintenance.fill(status([shard(0, 1), shard(1, 1, incomplete=7), shard(2, 1, incomplete=7)]))
    maintenance.fill(status([shard(0, 1), shard(1, 1, incomplete=7), shard(2, 1)]))
    assert renewed == [1, 2]
    maintenance.fill(status([shard(0, 1), shard(1, 1, incomplete=9), shard(2, 1)]))
    assert renewed == [1, 2, 1]


def test_the_cache_is_not_filled_without_room_in_the_budget() -> None:
    def renew(shard_id: int, why: str) -> bool:
        raise AssertionError("there is no room for it")

    maintenance = Maintenance(never, Renewal(None, lambda: False, renew, fills_cache=True))
    maintenance.fill(status([shard(0, 1, incomplete=7)]))


@pytest.mark.checklist("K31")
def test_a_live_shard_without_an_event_is_named_while_the_others_have_some() -> None:
    def at(number: int, seconds: float, state: str = "live") -> ShardStatus:
        return msgspec.structs.replace(shard(number, 10, state=state), dispatch_s=seconds)

    deaf = [at(0, 2.0), at(1, 1500.0), at(2, 3.0), at(3, 9999.0, "resuming")]
    assert len(sick_notes(deaf)) == 1
    assert "1 shards" in sick_notes(deaf)[0] and ": 1." in sick_notes(deaf)[0]
    assert "restart-shard N --new-session" in sick_notes(deaf)[0]
    quiet_bot = [at(number, 1500.0) for number in range(4)]
    assert sick_notes(quiet_bot) == []
    assert sick_notes([at(number, 2.0) for number in range(4)]) == []


@pytest.mark.checklist("K31")
def test_shards_whose_guilds_never_came_are_named_and_a_few_stray_events_are_not() -> None:
    def lacking(number: int, events: int) -> ShardStatus:
        return msgspec.structs.replace(shard(number, 10), unknown_guild_events=events)

    assert sick_notes([lacking(0, 3), lacking(1, 0)]) == []
    notes = sick_notes([lacking(0, 3), lacking(7, 40)])
    assert len(notes) == 1
    assert "40 events" in notes[0] and "the shards 7." in notes[0]
    assert len(sick_notes([lacking(number, 40) for number in range(1000)])[0]) < 400
