"""Metrics: what is served is what docs/metrics.md lists, no more and no less, and Prometheus can read it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rateway.runtime.maintenance import unread_notes
from rateway.runtime.monitoring import metrics
from rateway.runtime.runner import dialer
from tests.http.fleet import Fleet, get, served
from tests.http.several import a_fleet

from tests.aio import run

DOCUMENT = Path(__file__).parents[4] / "docs" / "metrics.md"


def exposition(fleet: Fleet, *, ready: bool = True) -> str:
    return metrics.render(run(fleet.status()), ready=ready).decode()


def samples(fleet: Fleet) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition(fleet))
        for sample in family.samples
    }


def value(fleet: Fleet, name: str, /, **labels: str) -> float:
    return samples(fleet)[name, frozenset(labels.items())]


def test_the_document_lists_every_metric_as_the_code_has_it() -> None:
    """Fails? `python -m tests.http.test_metrics` writes the table."""
    assert metrics.document() in DOCUMENT.read_text()


def test_every_documented_metric_is_served_and_no_other() -> None:
    fleet = Fleet()
    fleet.shards[3] = {"closes": {"4000": 2, "none": 1, "99999": 1}}
    fleet.more = {"fleet": a_fleet()}
    served_names = set(re.findall(r"^# TYPE (\S+) ", exposition(fleet), re.MULTILINE))
    assert served_names == {row.name for row in metrics.METRICS}


def test_types_and_labels_are_the_documented_ones() -> None:
    fleet = Fleet()
    fleet.shards[3] = {"closes": {"4000": 2}}
    fleet.more = {"fleet": a_fleet()}
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposition(fleet), re.MULTILINE))
    labels: dict[str, set[str]] = {}
    for name, found in samples(fleet):
        base = re.sub(r"_(bucket|count|sum)$", "", name) if name not in kinds else name
        labels.setdefault(base, set()).update(key for key, _ in found if key != "le")
    for row in metrics.METRICS:
        assert kinds[row.name] == row.kind
        assert labels[row.name] == set(row.labels), row.name


def test_promtool_has_nothing_to_say() -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=exposition(Fleet()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_numbers_are_those_of_the_status() -> None:
    fleet = Fleet()
    fleet.rate = 0.0
    fleet.shards[3] = {
        "state": "resuming",
        "away_s": 4.0,
        "closes": {"4000": 2, "77777": 1},
        "latency_ms": None,
    }
    fleet.publishers[1] = {
        "lag_s": 2.5,
        "connected": False,
        "unrouted": ["TYPING_START"],
        "unrouted_events": 7,
    }
    fleet.clusters[2] = {"gaps": 1, "store": "disk full"}
    assert value(fleet, "rateway_shards", cluster="1", state="resuming") == 1
    assert value(fleet, "rateway_shards", cluster="1", state="live") == 7
    assert value(fleet, "rateway_shards_away_seconds", cluster="1") == 4.0
    assert value(fleet, "rateway_closes_total", cluster="1", code="4000") == 2
    assert value(fleet, "rateway_closes_total", cluster="1", code="other") == 1
    assert value(fleet, "rateway_lag_seconds", cluster="1") == 2.5
    assert value(fleet, "rateway_broker_connected", cluster="1") == 0
    assert value(fleet, "rateway_unrouted_names", cluster="1") == 1
    assert value(fleet, "rateway_unrouted_total", cluster="1") == 7
    assert value(fleet, "rateway_gaps_total", cluster="2") == 1
    assert value(fleet, "rateway_store_ok", cluster="2") == 0
    assert value(fleet, "rateway_queries_total", process="gateway", type="Guild", outcome="ok") == 10
    assert value(fleet, "rateway_events_by_name_total", process="gateway", event="other") == 4
    assert value(fleet, "rateway_confirm_seconds_bucket", process="gateway", le="+Inf") == 34_000_000 - 4
    assert value(fleet, "rateway_written_seconds_bucket", process="gateway", le="+Inf") == 34_000_000
    assert value(fleet, "rateway_query_seconds_count", process="gateway") == 12
    assert value(fleet, "rateway_cache_entities", cluster="1", kind="members") == 52_000
    assert 7 < value(fleet, "rateway_compression_ratio", cluster="1") < 8
    assert value(fleet, "rateway_proxy_connections", state="resuming") == 1
    assert value(fleet, "rateway_proxy_lag_events") == 812
    assert value(fleet, "rateway_proxy_turned_away_total", reason="slow") == 1


def test_a_proxy_that_is_down_is_told_from_one_that_is_not_wanted() -> None:
    fleet = Fleet()
    fleet.proxy = None
    assert value(fleet, "rateway_proxy_up") == 0
    assert not any(name.startswith("rateway_proxy_con") for name, _ in samples(fleet))
    fleet.wants_proxy = False
    assert not any(name.startswith("rateway_proxy") for name, _ in samples(fleet))


def test_a_member_of_a_fleet_tells_what_it_owns_and_one_without_a_fleet_tells_nothing_of_it() -> None:
    fleet = Fleet()
    assert not any(name.startswith("rateway_fleet") for name, _ in samples(fleet))
    fleet.more = {"fleet": a_fleet()}
    assert value(fleet, "rateway_fleet_members") == 2
    assert value(fleet, "rateway_fleet_leaving") == 1
    assert value(fleet, "rateway_fleet_governor") == 1
    owned = [value(fleet, "rateway_fleet_owned", fleet="bot", cluster=str(number)) for number in (1, 2, 3)]
    assert owned == [1, 0, 0]
    assert value(fleet, "rateway_fleet_epoch", cluster="1") == 4
    assert value(fleet, "rateway_fleet_record_age_seconds", cluster="1") == 1.5
    assert not any(
        labels == {("cluster", "2")} for name, labels in samples(fleet) if name == "rateway_fleet_epoch"
    )


def test_no_metric_is_labelled_by_shard_and_strangers_make_no_labels() -> None:
    fleet = Fleet(1)
    for shards in (8, 16, 24, 1000):
        fleet = Fleet(shards)
        fleet.clusters[1] = {"events": {f"NAME_{n}": 1 for n in range(500)}}
        by_event = [labels for name, labels in samples(fleet) if name == "rateway_events_by_name_total"]
        assert len(by_event) <= 3
    assert not any(label == "shard" for row in metrics.METRICS for label in row.labels)


def test_without_a_budget_or_shards_nothing_is_invented() -> None:
    async def scene() -> None:
        fleet = Fleet(0)
        fleet.state = "starting"
        async with served(fleet) as (port, _):
            status, text = await get(port, "/metrics")
            assert status == 200
            assert 'rateway_state{state="starting"} 1.0' in text
            assert "rateway_ready 0.0" in text

    run(scene())


def test_a_scrape_of_a_thousand_shards_is_cheap() -> None:
    text = exposition(Fleet(1000))
    assert len(text.encode()) < 1_500_000


@pytest.mark.checklist("K31")
def test_deaf_sessions_show_without_a_label_for_each_shard() -> None:
    fleet = Fleet(shards=16, per_cluster=8)
    for number in range(16):
        fleet.shards[number] = {"dispatch_s": 1.0}
    fleet.shards[3] = {"dispatch_s": 700.0}
    fleet.shards[4] = {"dispatch_s": 9000.0, "state": "resuming"}
    fleet.clusters[1] = {"unknown_guild_events": 12}
    assert value(fleet, "rateway_quiet_seconds", cluster="1") == 700.0
    assert value(fleet, "rateway_quiet_seconds", cluster="2") == 1.0
    assert [value(fleet, "rateway_shards_quiet", **{"cluster": "1", "for": each}) for each in ("1m", "10m", "1h")] == [
        1, 1, 0,
    ]  # fmt: skip
    assert value(fleet, "rateway_unknown_guild_events_total", cluster="1") == 12


def test_every_reason_that_a_dial_fails_for_is_a_label() -> None:
    assert set(metrics.DIALS) == set(get_args(dialer.Reason))
    fleet = Fleet()
    fleet.process = {"dials_failed": {"foreign": 3, "silent": 2}}
    assert value(fleet, "rateway_dials_failed_total", process="gateway", reason="foreign") == 3
    assert value(fleet, "rateway_dials_failed_total", process="gateway", reason="silent") == 2


def test_the_time_in_which_discord_was_not_read_is_counted_by_process() -> None:
    fleet = Fleet()
    fleet.process = {"unread_s": 1.25}
    assert value(fleet, "rateway_process_unread_seconds_total", process="gateway") == 1.25


def test_what_processes_of_the_gateway_could_not_read_of_each_other_is_a_number_and_a_note() -> None:
    fleet = Fleet()
    assert value(fleet, "rateway_process_messages_unread_total", process="gateway") == 0
    assert unread_notes(run(fleet.status()).processes) == []
    fleet.process = {"messages_unread": 4}
    assert value(fleet, "rateway_process_messages_unread_total", process="gateway") == 4
    (note,) = unread_notes(run(fleet.status()).processes)
    assert "gateway: 4" in note and "report" in note


if __name__ == "__main__":
    before, _, rest = DOCUMENT.read_text().partition("| Metric |")
    after = rest.partition("\n\n")[2]
    DOCUMENT.write_text(f"{before}{metrics.document()}\n{after}")
