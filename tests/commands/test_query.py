"""`rateway query`: the question as a worker's, the answer as a table or as JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from rateway import cli
from rateway.contract import topology
from tests.aio import run
from tests.rabbitmq import Broker


@pytest.fixture
def amqp(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AMQP_URI", broker.uri)
    return broker.uri


def ask(uri: str, words: list[str], body: bytes, status: str = "ok") -> tuple[int, dict[str, Any]]:
    """`rateway query` against a gateway that gives one answer; the exit code and what was asked."""

    async def scenario() -> tuple[int, dict[str, Any]]:
        async with await aio_pika.connect(uri) as connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange(topology.exchange(1), "direct", durable=True)
            queue = await channel.declare_queue(topology.incoming(1), durable=True)
            await queue.bind(exchange, topology.CACHE_KEY)
            seen: dict[str, Any] = {}

            async def on_query(message: AbstractIncomingMessage) -> None:
                seen.update(json.loads(message.body))
                answer = aio_pika.Message(
                    body, correlation_id=message.correlation_id, headers={"status": status}
                )
                assert message.reply_to is not None
                await channel.default_exchange.publish(answer, message.reply_to)

            await queue.consume(on_query, no_ack=True)
            return await asyncio.to_thread(cli.main, ["query", *words]), seen

    return run(scenario())


def test_a_guild_is_asked_for_and_shown(amqp: str, capsys: pytest.CaptureFixture[str]) -> None:
    guild = {"name": "a \x1b[2J[red]guild", "owner_id": "42"}
    code, seen = ask(amqp, ["Guild", "123", "--fields", "name, owner_id"], json.dumps(guild).encode())
    assert code == 0
    assert seen == {"type": "Guild", "arguments": ["123"], "fields": ["name", "owner_id"]}
    page = capsys.readouterr().out
    assert "42" in page and "a \\e[2J[red]guild" in page


def test_a_list_is_a_table_with_its_number_of_entries(amqp: str, capsys: pytest.CaptureFixture[str]) -> None:
    members = [
        {"user": {"id": str(number), "username": f"user {number}"}, "roles": []} for number in range(3)
    ]
    code, seen = ask(
        amqp, ["GuildMembers", "1", "--limit", "3", "--after", "7"], json.dumps(members).encode()
    )
    assert code == 0
    assert (seen["limit"], seen["after"]) == (3, "7")
    page = capsys.readouterr().out
    assert "user 2" in page and "3 entries" in page


def test_json_is_the_answer_itself(amqp: str, capsys: pytest.CaptureFixture[str]) -> None:
    stats = {"guilds": 10, "shards": [1, 2]}
    assert ask(amqp, ["Stats", "--json"], json.dumps(stats).encode())[0] == 0
    assert json.loads(capsys.readouterr().out) == stats


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        ("not_found", b"", 4, "not found"),
        (
            "error",
            b'{"error": {"code": "loading", "message": "shard 3 starts"}}',
            1,
            "loading: shard 3 starts",
        ),
        ("ok", b"{torn", 1, "not JSON"),
    ],
)
def test_what_cannot_be_answered_is_told(
    amqp: str, status: str, body: bytes, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(amqp, ["Role", "1"], body, status)[0] == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [(["Gild", "1"], "did you mean Guild?"), (["Member", "1"], "guild, user"), (["Guild", "x"], "no id"),
     (["Guild", "1", "--limit", "3"], "no list"), (["Guilds", "--limit", "5000"], "1 to 1000")],
)  # fmt: skip
def test_a_slip_is_told_without_asking_anybody(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["query", *words]) == 1
    assert said in capsys.readouterr().err


def test_no_gateway_is_told(amqp: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["query", "Stats"]) == 69
    assert "rateway-1" in capsys.readouterr().err
