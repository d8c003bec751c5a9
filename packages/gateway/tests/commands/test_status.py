"""`rateway status`: tables for a person, JSON for a machine, an exit code for a script."""

from __future__ import annotations

import asyncio
import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rateway import cli
from rateway.commands import status_page
from rateway.runtime.monitoring.status import (
    BudgetStatus,
    ClusterStatus,
    GatewayStatus,
    ProcessStatus,
    PublisherStatus,
    ShardStatus,
)
from rateway.transports import control_socket
from rich.console import Console
from tests.http.fleet import Fleet
from tests.http.several import HOSTILE, MINE, OTHER, a_fleet

from tests.aio import run


def plain(kind: type[Any], **given: Any) -> Any:
    """A record with a plain value in every field that is not given."""
    values = {int: 0, float: 0.0, str: "", bool: False}
    fields = msgspec.structs.fields(kind)

    def value(field: msgspec.structs.FieldInfo) -> Any:
        if field.type in values:
            return values[field.type]
        text = str(field.type)
        return {} if text.startswith("dict") else [] if text.startswith("list") else None

    missing = {field.name: value(field) for field in fields if field.required and field.name not in given}
    return kind(**missing, **given)


def a_status(*states: str, notes: list[str] | None = None) -> GatewayStatus:
    publisher = plain(
        PublisherStatus, connected=True, confirmed=1234567, latency_p50_ms=2.0, latency_p99_ms=float("inf")
    )
    cluster = plain(
        ClusterStatus, cluster=1, exchange="rateway-1", owned=True, received=1234567, shards=len(states),
        shards_ready=states.count("live"), publisher=publisher, store="ok", events_per_s=4321.0,
    )  # fmt: skip
    shards = [
        plain(
            ShardStatus,
            shard=number,
            cluster=1,
            state=state,
            why="cut\x1b[2J [red]by a stranger",
            latency_ms=41.0,
        )
        for number, state in enumerate(states)
    ]
    status: GatewayStatus = plain(
        GatewayStatus, version="1.2.3", state="running", shard_count=len(states), clusters=[cluster], shards=shards,
        processes=[plain(ProcessStatus, role="runner 1", pid=42, clusters=[1, 2, 3, 7], cpu_share=0.5)],
        notes=notes or [],
        budget=BudgetStatus(1000, 984, 3600.0, 16, 16),
    )  # fmt: skip
    return status


def shown(status: GatewayStatus, **options: Any) -> str:
    out = StringIO()
    status_page.show(status, console=Console(file=out, width=180, highlight=False), **options)
    return out.getvalue()


def test_the_page_shows_totals_and_what_is_not_well() -> None:
    page = shown(
        a_status("live", "backing_off", "live", notes=["cluster 1: no queue is bound for TYPING_START"])
    )
    for words in (
        "2 live, 1 backing_off",
        "984 of 1000",
        "1.23 M",
        ">10 s",
        "TYPING_START",
        "4,321 a second",
    ):
        assert words in page
    process = next(line for line in page.splitlines() if "runner 1" in line)
    for words in ("42", "1-3, 7", "50 %"):
        assert words in process


def test_the_members_of_a_fleet_are_shown_with_what_they_own_since_when_and_why() -> None:
    status = msgspec.structs.replace(a_status("live"), fleet=a_fleet(how=HOSTILE))
    page = shown(status)
    assert f"bot: this is {MINE}; layout 1; governor {MINE} (epoch 3)" in page
    assert "no member of the fleet bot owns cluster 3" in page
    first, second = (
        next(line for line in page.splitlines() if line.startswith(name)) for name in (MINE, OTHER)
    )
    assert f"1: epoch 4, [red]\\e[2Jb from {OTHER} 62 s ago, record 2 s" in first
    assert "leaving" in second and "2: epoch 7, first 7 s ago, no record, moving" in second


def fleet_status(**changes: Any) -> GatewayStatus:
    fleet = Fleet(200)
    for name, value in changes.items():
        setattr(fleet, name, value)
    return run(fleet.status())


def test_eighty_columns_and_a_few_lines_show_what_is_in_trouble_first() -> None:
    stuck = {"held_up_s": 17.2, "lag_s": 17.3, "unconfirmed": 183_221, "spool_bytes": 3_400_000}
    status = fleet_status(
        publishers={23: stuck, 25: {"connected": False}}, clusters={9: {"events_per_s": 123456.0}}
    )
    out = StringIO()
    console = Console(file=out, width=80, height=24, highlight=False)
    console.print(status_page.fitted(status, console))
    lines = out.getvalue().splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert "…" not in "".join(line for line in lines if not line.startswith("… and"))
    clusters = [line for line in lines if re.match(r" +\d+ +\d+/\d+ ", line)]
    assert clusters[0].split()[0] == "23" and clusters[0].split()[-2:] == ["held", "up"]
    assert clusters[1].split()[0] == "25" and clusters[1].endswith("broker away")
    assert f"… and {25 - len(clusters)} more clusters, all of them well" in lines


def test_every_column_fits_eighty_columns_whatever_the_figures() -> None:
    large = {
        "lag_s": 86_400.0,
        "unconfirmed": 183_221_000,
        "spool_bytes": 900_400_000,
        "latency_p99_ms": 2050.0,
    }
    status = fleet_status(publishers=dict.fromkeys(range(1, 26), large), clusters={9: {"gaps": 1234}})
    page = StringIO()
    status_page.show(status, console=Console(file=page, width=80, highlight=False))
    assert "…" not in page.getvalue() and "2.0 s" in page.getvalue()


def test_names_that_nobody_wants_are_shown_on_demand() -> None:
    quiet = {"unrouted": ["TYPING_START"], "routed": ["MESSAGE_CREATE"]}
    status = fleet_status(publishers=dict.fromkeys(range(1, 26), quiet))
    assert "TYPING_START" not in shown(status)
    assert re.search(r"TYPING_START +clusters 1-25", shown(status, unrouted_names=True))
    without_log = fleet_status(clusters={number: {"event_log": None} for number in range(1, 26)})
    assert "no event name was returned" in shown(without_log, unrouted_names=True)
    assert "MANAGEMENT_URL" in shown(fleet_status(), unrouted_names=True), "beside a log nothing is returned"


def test_a_figure_that_is_not_measured_any_more_is_not_shown() -> None:
    status = fleet_status(publishers={1: {"held_up_s": 17.0, "latency_p99_ms": 64.0}})
    assert "64 ms" not in shown(status)
    assert "The broker does not confirm for 1 of 25 clusters." in shown(status)


def test_what_a_stranger_said_is_shown_once_and_without_its_control_characters() -> None:
    page = shown(a_status("live", "backing_off", "live"))
    assert "cut\\e[2J [red]by a stranger" in page
    assert page.count("by a stranger") == 1, "shards that are live are counted, not listed"
    assert shown(a_status("live", "live"), every_shard=True).count("by a stranger") == 2


def test_a_thousand_shards_in_trouble_are_told_in_short() -> None:
    page = shown(a_status(*["backing_off"] * 1000))
    assert page.count("by a stranger") == 20
    assert "980 more" in page


def ask(folder: Path, answer: object, *options: str) -> int:
    async def handler(words: list[str]) -> object:
        assert words == ["status"]
        return answer

    async def scenario() -> int:
        async with control_socket.serve(folder, handler):
            return await asyncio.to_thread(cli.main, ["status", "--state-dir", str(folder), *options])

    return run(scenario())


def test_the_exit_code_says_whether_every_shard_is_live(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(tmp_path, a_status("live", "live")) == 0
    assert ask(tmp_path, a_status("live", "connecting")) == 1
    assert ask(tmp_path, a_status("live"), "--json") == 0
    assert ask(tmp_path, a_status("connecting"), "--json") == 1
    # A process does not answer: nobody knows how its shard is.
    hidden = msgspec.structs.replace(a_status("live"), shards_here=2)
    assert ask(tmp_path, hidden) == ask(tmp_path, hidden, "--json") == 1
    assert "1 of which nothing is known" in shown(hidden)
    # A start that does not know its shards yet, or a worker that does not answer.
    assert ask(tmp_path, a_status()) == ask(tmp_path, a_status(), "--json") == 1
    assert cli.main(["status", "--state-dir", str(tmp_path)]) == 69
    said = capsys.readouterr()
    assert "no gateway answers" in said.err


def test_json_is_the_gateway_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(tmp_path, a_status("live"), "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["version"] == "1.2.3"
    assert said["shards"][0]["state"] == "live"


def test_an_answer_of_another_version_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(tmp_path, {"version": 3}) == 69
    assert "another version" in capsys.readouterr().err


def test_watching_goes_on_over_a_restart_of_the_gateway(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pause between two looks lets the next thing happen, until the person has seen enough."""

    async def handler(words: list[str]) -> object:
        return a_status("live")

    async def scenario() -> int:
        loop = asyncio.get_running_loop()
        pauses: asyncio.Queue[asyncio.Future[bool]] = asyncio.Queue()

        def pause(seconds: float) -> None:
            async def seen_enough() -> bool:
                answer: asyncio.Future[bool] = loop.create_future()
                await pauses.put(answer)
                return await answer

            if asyncio.run_coroutine_threadsafe(seen_enough(), loop).result():
                raise KeyboardInterrupt

        monkeypatch.setattr("rateway.commands.status.time.sleep", pause)
        options = ["status", "--watch", "--json", "--state-dir", str(tmp_path)]
        watching = asyncio.ensure_future(asyncio.to_thread(cli.main, options))
        async with control_socket.serve(tmp_path, handler):
            enough = await pauses.get()
        enough.set_result(False)
        enough = await pauses.get()
        async with control_socket.serve(tmp_path, handler):
            enough.set_result(False)
            enough = await pauses.get()
        enough.set_result(True)
        return await watching

    assert cli.main(["status", "--watch", "--state-dir", str(tmp_path)]) == 69, "nobody was ever there"
    assert run(scenario()) == 130
    said = capsys.readouterr()
    assert [json.loads(line)["version"] for line in said.out.splitlines()] == ["1.2.3", "1.2.3"]
    assert "no gateway answers" in said.err


def test_the_proxy_is_shown_in_one_line_where_it_is_wanted() -> None:
    assert re.search(
        r"proxy +127.0.0.1:7878: 2 bots \(1 live, 1 resuming\), 96,000 events sent", shown(fleet_status())
    )
    assert re.search(r"proxy +down", shown(fleet_status(proxy=None)))
    assert "proxy" not in shown(fleet_status(proxy=None, wants_proxy=False))
