"""Health: live only says that the event loops move; ready that events flow; both give their reasons."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest
from rateway.runtime.monitoring import health
from rateway.runtime.monitoring.fleet_status import here
from rateway.runtime.monitoring.status import GatewayStatus, Note
from tests.http.fleet import Fleet, get, served
from tests.http.several import MINE, a_fleet

from tests.aio import run

TROUBLED: dict[str, dict[str, Any]] = {
    "away": {"connected": False, "why": "connection refused"},
    "blocked": {"blocked": True},
    "paused": {"paused": True},
    "slow": {"lag_s": 31.0, "oldest": "GUILD_CREATE"},
}


def look(fleet: Fleet) -> GatewayStatus:
    return run(fleet.status())


def ready(fleet: Fleet) -> list[str]:
    found = health.judge_ready(look(fleet), 180.0, {})
    assert found.ok == (not found.reasons)
    return [reason.text for reason in found.reasons]


def test_a_healthy_gateway_is_ready_and_all_is_well() -> None:
    fleet = Fleet()
    assert ready(fleet) == []
    assert (
        health.verdict(look(fleet), 180.0, {}).words
        == "All is well: 16 shards are live, the broker confirms."
    )


def test_a_shard_that_resumes_in_time_keeps_the_gateway_ready_and_one_that_does_not_ends_it() -> None:
    fleet = Fleet()
    fleet.shards[3] = {"state": "resuming", "away_s": 179.0, "since_s": 2.0}
    assert ready(fleet) == []
    assert health.verdict(look(fleet), 180.0, {}).level == "notice"
    fleet.shards[3] = {"state": "backing_off", "away_s": 181.0, "since_s": 2.0, "why": "no route"}
    assert ready(fleet) == ["shard 3: waiting to connect again, no route"]
    assert health.verdict(look(fleet), 180.0, {}).words == "1 shard is away."


@pytest.mark.parametrize("state", ["waiting_permit", "identifying", "stopped", "fatal"])
def test_a_shard_that_will_not_resume_is_not_ready(state: str) -> None:
    fleet = Fleet()
    fleet.shards[3] = {"state": state, "away_s": 1.0}
    assert len(ready(fleet)) == 1


def test_a_shard_without_a_session_is_not_ready_while_it_connects() -> None:
    fleet = Fleet()
    fleet.shards[0] = {"state": "connecting", "session": None, "away_s": 1.0}
    assert ready(fleet) == ["shard 0: connecting"]


@pytest.mark.parametrize("trouble", TROUBLED)
def test_without_confirms_it_is_not_ready_and_yet_live(trouble: str) -> None:
    fleet = Fleet()
    fleet.publishers[2] = TROUBLED[trouble]
    (reason,) = ready(fleet)
    assert "cluster 2" in reason
    assert health.judge_live(look(fleet), 0.0, {}).ok
    assert health.verdict(look(fleet), 180.0, {}).level == "trouble"


def test_a_hung_broker_is_the_headline_in_one_line_for_all_clusters() -> None:
    fleet = Fleet(200)
    stuck = {"held_up_s": 17.0, "lag_s": 17.0}
    fleet.publishers = dict.fromkeys(range(1, 26), stuck)
    fleet.shards = {shard: {"state": "resuming", "away_s": 3.0} for shard in range(60)}
    found = health.verdict(look(fleet), 180.0, {})
    assert found.level == "trouble"
    assert found.words == "The broker does not confirm, 60 shards are coming back."
    assert [reason.text for reason in found.reasons] == [
        "the broker confirms nothing of clusters 1-25", "60 shards (0-59): resuming",
    ]  # fmt: skip
    assert found.reasons[0].since_s == 17.0


def test_the_worst_cause_comes_first_and_says_how_much_it_concerns() -> None:
    fleet = Fleet(24)
    fleet.shards[3] = {"state": "backing_off", "away_s": 500.0}
    fleet.publishers[2] = {"connected": False, "why": "connection refused", "spool_events": 9}
    found = health.verdict(look(fleet), 180.0, {})
    assert found.words == "The broker is away for 1 of 3 clusters, 1 shard is away."
    assert [reason.kind for reason in found.reasons] == ["broker_away", "shards", "spool"]


def test_notes_that_are_true_of_several_clusters_are_one_line() -> None:
    notes = [
        Note("the broker has confirmed nothing for {seconds} s", number, 10.0 + number) for number in (1, 2)
    ]
    assert health.told([*notes, Note("a host is away"), Note("paused", 7)]) == [
        "clusters 1-2: the broker has confirmed nothing for 12 s", "a host is away", "cluster 7: paused",
    ]  # fmt: skip


def test_discord_away_for_every_shard_leaves_it_live() -> None:
    fleet = Fleet()
    fleet.shards = {shard: {"state": "backing_off", "away_s": 4000.0} for shard in range(16)}
    assert health.judge_live(look(fleet), 0.0, {}).ok
    (reason,) = health.judge_ready(look(fleet), 180.0, {}).reasons
    assert reason.text == "16 shards (0-15): waiting to connect again"
    assert reason.since_s == 4000.0


def test_an_event_loop_that_stands_still_is_not_live() -> None:
    fleet = Fleet()
    fleet.process = {"silent_s": 29.0}
    assert health.judge_live(look(fleet), 0.0, {}).ok
    fleet.process = {"silent_s": 31.0}
    found = health.judge_live(look(fleet), 0.0, {})
    assert not found.ok
    assert found.reasons[0].text == "the event loop of gateway (pid 4000) stands still"


def test_processes_that_do_not_answer_end_readiness_at_once_and_liveness_later() -> None:
    status = look(Fleet())
    assert not health.judge_ready(status, 180.0, {"runner 2": 3.0}).ok
    assert health.judge_live(status, 0.0, {"runner 2": 59.0}).ok
    assert not health.judge_live(status, 0.0, {"runner 2": 61.0}).ok
    assert not health.judge_live(status, 31.0, {}).ok
    assert not health.judge_live(None, 31.0, {}).ok


def test_a_start_shows_how_far_it_is_and_what_is_left() -> None:
    fleet = Fleet(64)
    new = {"session": None, "identifies": 0, "away_s": 9.0}
    fleet.shards = {shard: {"state": "waiting_permit", **new} for shard in range(20, 64)}
    status = look(fleet)
    assert health.progress(status) == health.Progress(20, 64, 3 * 5.25)
    found = health.verdict(status, 180.0, {})
    assert (found.level, found.words) == ("starting", "Starting: 20 of 64 shards are live.")
    assert [reason.text for reason in found.reasons] == ["44 shards (20-63): waiting to identify"]


def test_probes_get_200_or_503_and_the_reasons() -> None:
    async def scene() -> None:
        fleet = Fleet()
        async with served(fleet) as (port, _):
            assert await get(port, "/health/live") == (200, '{"status":"ok","reasons":[]}')
            assert await get(port, "/health/ready") == (200, '{"status":"ok","reasons":[]}')
        fleet.publishers[1] = TROUBLED["away"]
        async with served(fleet) as (port, _):
            assert (await get(port, "/health/live"))[0] == 200
            status, body = await get(port, "/health/ready")
            assert status == 503
            (reason,) = msgspec.json.decode(body)["reasons"]
            assert reason.pop("since_s") >= 0.0
            text = "the broker is away for cluster 1: connection refused"
            assert reason == {"kind": "broker_away", "text": text, "cluster": 1}

    run(scene())


def test_a_reason_keeps_its_age_while_its_words_change_and_begins_anew_after_it_was_over() -> None:
    async def scene() -> None:
        fleet = Fleet()
        async with served(fleet) as (port, http_views):

            async def since() -> tuple[float, float] | None:
                """When the reason began, at the earliest and at the latest: the answer takes its time."""
                http_views.fresh_s = 0.0
                asked = time.monotonic()
                reasons = msgspec.json.decode((await get(port, "/health/ready"))[1])["reasons"]
                answered = time.monotonic()
                await http_views.condition()
                return (asked - reasons[0]["since_s"], answered - reasons[0]["since_s"]) if reasons else None

            fleet.publishers[1] = {"connected": False, "why": "connection refused"}
            assert await since() is not None
            first_seen = time.monotonic()
            fleet.publishers[1] = {"connected": False, "why": "no route to host"}
            again = await since()
            assert again is not None and again[0] <= first_seen
            fleet.publishers[2] = fleet.publishers[1]
            again = await since()
            assert again is not None and again[0] <= first_seen, (
                "another cluster joins: it is the same trouble"
            )
            fleet.publishers = {}
            assert await since() is None
            over = time.monotonic()
            fleet.publishers[1] = {"connected": False, "why": "no route to host"}
            later = await since()
            assert later is not None and later[1] >= over

    run(scene())


def test_without_the_token_probes_learn_the_status_alone() -> None:
    async def scene() -> None:
        fleet = Fleet()
        fleet.publishers[1] = TROUBLED["away"]
        async with served(fleet, token="open-sesame") as (port, _):
            assert await get(port, "/health/live") == (200, '{"status":"ok"}')
            assert await get(port, "/health/ready") == (503, '{"status":"failing"}')
            _, body = await get(port, "/health/ready", Authorization="Bearer open-sesame")
            assert "the broker is away" in body

    run(scene())


def test_processes_that_hang_do_not_hang_the_probes() -> None:
    async def scene() -> None:
        fleet = Fleet()
        async with served(fleet) as (port, http_views):
            assert (await get(port, "/health/live"))[0] == 200
            fleet.hang = asyncio.Event()
            http_views.patience_for_answers_s = 0.05
            http_views.fresh_s = 0.0
            status, _ = await get(port, "/health/live")
            assert status == 200
            fleet.hang.set()

    run(scene())


def test_a_worker_that_is_gone_is_missed() -> None:
    async def scene() -> None:
        fleet = Fleet()
        fleet.processes = 2
        async with served(fleet) as (port, http_views):
            assert (await get(port, "/health/ready"))[0] == 200
            fleet.processes = 1
            http_views.fresh_s = 0.0
            status, body = await get(port, "/health/ready")
            assert status == 503
            assert "runner 2 does not answer" in body

    run(scene())


def test_a_process_that_has_another_role_now_is_not_missed() -> None:
    async def scene() -> None:
        fleet = Fleet()
        fleet.process = {"role": "supervisor"}
        async with served(fleet) as (port, http_views):
            assert (await get(port, "/health/ready"))[0] == 200
            fleet.process = {"role": "gateway"}
            http_views.fresh_s = 0.0
            assert (await get(port, "/health/ready"))[0] == 200

    run(scene())


def level_and_reasons(*names: tuple[list[str], list[str]]) -> tuple[str, list[health.Reason]]:
    """Of clusters of which each has these names without a queue, and these with one."""
    fleet = Fleet(8 * len(names))
    for number, (without, routed) in enumerate(names, 1):
        fleet.publishers[number] = {"unrouted": without, "routed": routed}
    found = health.verdict(look(fleet), 180.0, {})
    return found.level, found.reasons


def test_nothing_bound_at_all_is_one_sentence_for_all_clusters() -> None:
    level, reasons = level_and_reasons((["A", "B"], []), (["A"], []))
    assert (level, [reason.kind for reason in reasons]) == ("notice", ["unbound"])


@pytest.mark.parametrize(("names", "said"), [((["A", "B"], []), "anything"), ((["A"], ["B"]), "A")])
def test_a_cluster_that_lacks_what_others_have_is_trouble(
    names: tuple[list[str], list[str]], said: str
) -> None:
    level, reasons = level_and_reasons(([], ["A", "B"]), names)
    assert (level, [reason.cluster for reason in reasons]) == ("trouble", [2])
    assert f"no queue is bound for {said} of cluster 2" in reasons[0].text


def test_a_name_that_no_cluster_wants_is_listed_on_demand() -> None:
    fleet = Fleet(16)
    fleet.publishers = {
        1: {"unrouted": ["TYPING_START", "A"], "routed": ["B"]},
        2: {"unrouted": ["TYPING_START"], "routed": ["A"]},
    }
    assert health.unwanted(look(fleet).clusters) == {"TYPING_START": [1, 2]}


def test_a_name_that_no_cluster_wants_is_no_finding() -> None:
    assert level_and_reasons((["TYPING_START"], ["A"]), (["TYPING_START"], ["A"])) == ("well", [])


def test_a_cluster_that_no_member_of_the_fleet_owns_is_trouble() -> None:
    fleet = Fleet()
    fleet.more = {"fleet": a_fleet()}
    found = health.verdict(look(fleet), 180.0, {})
    assert found.level == "trouble"
    assert [(reason.kind, reason.cluster) for reason in found.reasons] == [("unowned", 3)]
    # Whoever owns nothing of it is ready all the same: restarting this member would help nobody.
    assert ready(fleet) == []


def test_a_member_that_does_not_hear_the_others_does_not_judge_them() -> None:
    fleet = Fleet()
    fleet.more = {"fleet": a_fleet(connected=False, governor=False)}
    assert health.verdict(look(fleet), 180.0, {}).level == "well"


def test_a_fleet_without_a_governor_is_said() -> None:
    fleet = Fleet()
    fleet.more = {"fleet": a_fleet(governor=False)}
    kinds = [reason.kind for reason in health.verdict(look(fleet), 180.0, {}).reasons]
    assert kinds == ["unowned", "no_governor"]


def test_a_member_that_others_leave_nothing_to_run_is_ready_and_well() -> None:
    status = msgspec.structs.replace(look(Fleet()), clusters=[], shards=[], shards_here=0, fleet=a_fleet())
    assert [reason.text for reason in health.judge_ready(status, 180.0, {}).reasons] == ["no shard runs yet"]
    others = [
        msgspec.structs.replace(each, owner="host-b-2e") for each in a_fleet().clusters if each.owner != MINE
    ]
    full = msgspec.structs.replace(status, fleet=msgspec.structs.replace(a_fleet(), clusters=others))
    assert health.judge_ready(full, 180.0, {}).ok
    assert (
        health.verdict(full, 180.0, {}).words == "All is well: other members of the fleet own every cluster."
    )


def test_clusters_and_shards_of_other_members_are_no_business_of_this_one() -> None:
    status = look(Fleet(24))
    clusters = [msgspec.structs.replace(each, owned=each.cluster == 1) for each in status.clusters]
    kept, shards = here(a_fleet(), clusters, status.shards)
    assert [each.cluster for each in kept] == [1, 3]
    assert {each.cluster for each in shards} == {1, 3}
