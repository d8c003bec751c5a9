"""`rateway check` against a simulated Discord and a real broker."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from rateway import cli
from rateway.commands import check
from rateway.commands.plan import Plan
from rateway.config import load
from rateway.runtime.startup import Identity
from rateway.transports.amqp.wire.connect import connect
from rateway.transports.amqp.wire.connection import BrokerTrouble
from rateway.transports.amqp.wire.uri import parse
from rateway.transports.state import FatalRecord, StateDir
from rateway_simulator import certificate
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator
from tests.transports.amqp.fake_broker import FakeBroker

from tests.aio import run
from tests.e2e.harness import stage
from tests.rabbitmq import Broker


def environ(simulator: Simulator, amqp: str, state: Path, **more: str) -> dict[str, str]:
    return {
        "DISCORD_API_URL": simulator.api_url,
        "DISCORD_TOKEN": simulator.options.token,
        "INTENTS": "GUILDS,GUILD_MEMBERS",
        "AMQP_URI": amqp,
        "STATE_DIR": str(state),
        **more,
    }


async def checked(options: SimulatorOptions, amqp: str, state: Path, **more: str) -> Plan:
    async with Simulator(options) as simulator:
        plan = await check.check(load(None, environ(simulator, amqp, state, **more)))
        assert not simulator.ledger.noted, simulator.ledger.noted
        return plan


def test_a_start_that_would_work_is_said_so_and_leaves_no_trace(broker: Broker, tmp_path: Path) -> None:
    options = SimulatorOptions(shards=4, max_concurrency=2)
    plan = run(checked(options, broker.uri, tmp_path / "state"))
    assert plan.ok, plan.problems
    assert plan.shards == 12
    assert plan.broker is not None
    assert "RabbitMQ" in plan.broker.server
    assert plan.broker.exchanges == 0
    assert plan.start is not None and plan.start.seconds == pytest.approx(6 * 5.25)
    assert not (tmp_path / "state").exists()

    async def exchange_is_there() -> bool:
        async with await aio_pika.connect(broker.uri) as connection:
            channel = await connection.channel()
            try:
                await channel.get_exchange("rateway-1", ensure=True)
            except aio_pika.exceptions.ChannelNotFoundEntity:
                return False
            return True

    assert not run(exchange_is_there()), "check declares nothing"


@pytest.mark.checklist("H24")
def test_a_queue_that_the_original_left_with_other_flags_is_named(broker: Broker, tmp_path: Path) -> None:
    async def scenario() -> Plan:
        async with await aio_pika.connect(broker.uri) as connection:
            channel = await connection.channel()
            await channel.declare_queue("rateway-incoming-2", durable=False)
            await channel.declare_exchange("rateway-1", "direct", durable=True)
            return await checked(SimulatorOptions(shards=8), broker.uri, tmp_path)

    plan = run(scenario())
    assert not plan.ok
    (problem,) = plan.problems
    assert "rateway-incoming-2" in problem.what
    assert "delete" in problem.do
    assert plan.broker is not None and plan.broker.exchanges == 1


def test_a_dead_token_and_a_broker_that_is_away_are_both_told(tmp_path: Path) -> None:
    async def scenario() -> Plan:
        async with Simulator(SimulatorOptions()) as simulator:
            settings = load(
                None, environ(simulator, "amqp://u:sw0rdfish@127.0.0.1:1/", tmp_path, DISCORD_TOKEN="a.b.c")
            )
            plan = await check.check(settings)
            assert not simulator.ledger.noted, "a token that was refused is used once"
            return plan

    plan = run(scenario())
    assert [problem.where for problem in plan.problems] == ["broker", "Discord"]
    assert "sw0rdfish" not in str(plan)


def test_an_intent_that_is_not_switched_on_is_found_before_discord_refuses_it(
    broker: Broker, tmp_path: Path
) -> None:
    plan = run(checked(SimulatorOptions(privileged_intents=0), broker.uri, tmp_path))
    assert [problem.where for problem in plan.problems] == ["INTENTS"]


@pytest.mark.checklist("B16")
def test_what_was_fatal_is_told_until_it_is_put_right(broker: Broker, tmp_path: Path) -> None:
    async def with_intents_on(intents: int) -> Plan:
        # The API's address is part of what is remembered, so the simulated Discord keeps its port.
        options = SimulatorOptions(privileged_intents=intents, api_port=PORT[0])
        async with Simulator(options) as simulator:
            PORT[0] = int(simulator.api_url.split(":")[2].split("/")[0])
            settings = load(None, environ(simulator, broker.uri, tmp_path))
            with StateDir.open(tmp_path) as state:
                fingerprint = Identity.of(settings, state).settings
                if not intents:
                    state.remember_fatal(
                        fingerprint, FatalRecord(4014, "disallowed intents", "switch it on", 1.0)
                    )
                plan = await check.check(settings)
                REMEMBERED.append(state.fatal(fingerprint) is not None)
            return plan

    PORT, REMEMBERED = [0], list[bool]()  # noqa: N806 (kept over two lives)
    refused = run(with_intents_on(0))
    allowed = run(with_intents_on(2))
    assert any("4014" in problem.what for problem in refused.problems)
    assert allowed.ok, allowed.problems
    assert REMEMBERED == [True, False]


def test_a_gateway_that_runs_is_named(broker: Broker, tmp_path: Path) -> None:
    with StateDir.open(tmp_path) as state:
        assert state.try_lock()
        assert run(checked(SimulatorOptions(), broker.uri, tmp_path)).running_pid is not None


def test_json_and_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("DISCORD_TOKEN", "INTENTS", "AMQP_URI"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["check", "--json"]) == 78
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [problem["where"] for problem in said["problems"]] == ["DISCORD_TOKEN", "INTENTS", "AMQP_URI"]
    for name, value in {
        "DISCORD_TOKEN": "a.b.c", "INTENTS": "1", "AMQP_URI": "amqp://u:sw0rdfish@127.0.0.1:1/",
        "DISCORD_API_URL": "http://127.0.0.1:1/api/v10", "STATE_DIR": str(tmp_path),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert cli.main(["check"]) == 1
    page = capsys.readouterr().out
    assert "a start would not work" in page and "sw0rdfish" not in page


@pytest.mark.checklist("K65")
@pytest.mark.parametrize(
    "kind", ["a file", "below a file", "below /proc", "for all to write", "another user's"]
)
@pytest.mark.parametrize("name", ["STATE_DIR", "CACHE_PATH"])
def test_a_folder_that_cannot_be_used_is_tried_and_told(
    broker: Broker, tmp_path: Path, kind: str, name: str
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    folder = {"a file": file, "below a file": file / "state", "below /proc": Path("/proc/rateway/state")}.get(
        kind
    )
    if folder is None:
        folder = tmp_path / "state"
        folder.mkdir(mode=0o700)
        if kind == "for all to write":
            folder.chmod(0o777)
        elif os.geteuid() == 0:
            os.chown(folder, 12345, 12345)
        else:
            pytest.skip("gives files to another user")
    state = folder if name == "STATE_DIR" else tmp_path / "fine"
    more = {} if name == "STATE_DIR" else {"CACHE_PATH": str(folder)}
    plan = run(checked(SimulatorOptions(), broker.uri, state, **more))
    assert [problem.where for problem in plan.problems] == [name], plan.problems
    assert str(folder) in plan.problems[0].what
    assert not (tmp_path / "fine").exists() or name == "CACHE_PATH"


def test_the_memory_of_the_machine_is_known() -> None:
    memory = check.machine_memory()
    assert memory is not None and memory > 100_000_000


def test_a_broker_that_is_too_old_for_an_event_log_is_told(tmp_path: Path) -> None:
    async def scenario() -> Plan:
        nothing_there = (404, "NOT_FOUND - no exchange")
        async with FakeBroker(product=("RabbitMQ", "3.8.9"), refuse_declare=nothing_there) as old:
            return await checked(SimulatorOptions(), old.uri, tmp_path, EVENT_LOG="stream")

    assert [warning.do for warning in run(scenario()).warnings if "EVENT_LOG" in warning.what] == [
        "RabbitMQ 3.9 or newer has them"
    ]


def test_what_a_fleet_needs_of_the_broker_is_told(tmp_path: Path) -> None:
    async def scenario(version: str, **more: str) -> Plan:
        nothing_there = (404, "NOT_FOUND - no exchange")
        async with FakeBroker(product=("RabbitMQ", version), refuse_declare=nothing_there) as broker:
            return await checked(SimulatorOptions(), broker.uri, tmp_path, **more)

    old = run(scenario("3.7.28", FLEET="bot"))
    assert [each.do for each in old.problems if each.where == "FLEET"] == ["RabbitMQ 3.8 or newer has them"]
    alone = run(scenario("3.10.8", FLEET="bot"))
    assert [each.where for each in alone.warnings if "names one node" in each.what] == ["FLEET"]
    assert not [each for each in run(scenario("3.7.28")).problems if each.where == "FLEET"]


def test_looking_at_a_broker_that_closes_midway_is_told(tmp_path: Path) -> None:
    async def scenario() -> Plan:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(8)
            writer.close()

        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await checked(SimulatorOptions(), f"amqp://127.0.0.1:{port}/", tmp_path)

    plan = run(scenario())
    assert [problem.where for problem in plan.problems] == ["broker"]


@dataclass(frozen=True)
class Wrong:
    """A mistake in the broker's address, and what is said of it."""

    change: Callable[[str, Broker], str]
    what: str
    do: str


def other_port(uri: str, broker: Broker) -> str:
    assert broker.node.ports.management is not None
    return uri.replace(f":{broker.port}/", f":{broker.node.ports.management}/")


WRONG_ADDRESSES = {
    "password": Wrong(
        lambda uri, _: uri.replace("guest:guest@", "guest:never-show@"),
        "ACCESS_REFUSED",
        "the password is wrong",
    ),
    "user": Wrong(
        lambda uri, _: uri.replace("guest:guest@", "nobody:guest@"), "ACCESS_REFUSED", "the password is wrong"
    ),
    "virtual host": Wrong(lambda uri, _: f"{uri}-none", "not found", "rabbitmqctl add_vhost"),
    "another's virtual host": Wrong(
        lambda uri, _: uri.replace("guest:guest@", "stranger:pw@"), "refused for user", "set_permissions"
    ),
    "the port of the management": Wrong(other_port, "HTTP is spoken there", "usually 5672"),
    "TLS at the plain port": Wrong(
        lambda uri, _: uri.replace("amqp://", "amqps://"), "no TLS is spoken there", "5671"
    ),
    "a closed port": Wrong(
        lambda uri, broker: uri.replace(f":{broker.port}/", ":1/"),
        "cannot be reached",
        "whether the broker runs",
    ),
}


@pytest.mark.checklist("K66")
@pytest.mark.parametrize("kind", WRONG_ADDRESSES)
def test_what_is_wrong_with_the_brokers_address_is_said(broker: Broker, tmp_path: Path, kind: str) -> None:
    wrong = WRONG_ADDRESSES[kind]

    async def scenario() -> Plan:
        await broker.api("PUT", "users/stranger", {"password": "pw", "tags": ""})
        return await checked(SimulatorOptions(), wrong.change(broker.uri, broker), tmp_path)

    (problem,) = run(scenario()).problems
    assert problem.where == "broker"
    assert wrong.what in problem.what and wrong.do in problem.do, problem
    assert "never-show" not in str(problem)
    # The gateway's own attempt ends in the same words.
    with pytest.raises(BrokerTrouble) as caught:
        run(connect(parse(wrong.change(broker.uri, broker)), name="test"))
    assert wrong.what in str(caught.value) and wrong.do in str(caught.value)


@pytest.mark.checklist("K66")
def test_a_plain_address_at_the_port_of_tls_is_said(tmp_path: Path) -> None:
    async def scenario() -> Plan:
        file, key = certificate.make(tmp_path, "127.0.0.1")

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        context = certificate.server_context(file, key)
        server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await checked(SimulatorOptions(), f"amqp://127.0.0.1:{port}/", tmp_path / "state")

    (problem,) = run(scenario()).problems
    assert "write amqps://" in problem.do


@pytest.mark.checklist("K66")
def test_a_gateway_says_the_same_of_a_wrong_password(broker: Broker, tmp_path: Path) -> None:
    async def scenario() -> None:
        uri = broker.uri.replace("guest:guest@", "guest:never-show@")
        async with stage(tmp_path, broker, shards=1, guilds=1, amqp_uri=uri) as it:
            line = await it.gateway.logged("the user or the password is wrong")
            assert "ACCESS_REFUSED" in line and "never-show" not in line

    run(scenario())


@pytest.mark.checklist("K40")
def test_a_broker_that_is_reached_by_ipv4_and_by_ipv6_is_not_taken_for_a_cluster(
    broker: Broker, tmp_path: Path
) -> None:
    uri = broker.uri.replace("127.0.0.1", "localhost")
    plan = run(checked(SimulatorOptions(), uri, tmp_path))
    assert plan.broker is not None and plan.broker.reached and plan.broker.nodes == []
    assert not any("RabbitMQ cluster" in note for note in plan.notes)


def test_what_this_machine_does_not_let_the_proxy_have_is_named(broker: Broker, tmp_path: Path) -> None:
    odd = tmp_path / "odd.pem"
    odd.write_text("this is no certificate")

    async def scenario() -> Plan:
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as taken:
            address = "{}:{}".format(*taken.sockets[0].getsockname())
            more = {"PROXY_ADDRESS": address, "PROXY_CERT": str(odd)}
            return await checked(SimulatorOptions(), broker.uri, tmp_path / "state", **more)

    plan = run(scenario())
    assert [each.where for each in plan.problems] == ["PROXY_CERT"] and "PEM" in plan.problems[0].do
    assert any(each.where == "PROXY_ADDRESS" and "listened on" in each.what for each in plan.warnings)
