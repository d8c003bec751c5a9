"""`rateway query` against a real broker, with the cache of a simulated world behind it."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage
from rateway import exit_codes
from rateway.cache.policy import CachePolicy
from rateway.commands import query
from rateway.transports.store import Queries, Store
from rateway_protocol.contract import topology
from rateway_protocol.contract.errors import Fault, Status, error_body
from rateway_protocol.contract.queries import QUERY_TYPES, Query, parse_query
from rich.console import Console
from tests.cache.world_feed import stream

from tests.aio import run
from tests.rabbitmq import Broker


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter)
    query.configure(parser)
    return parser.parse_args(words)


@asynccontextmanager
async def gateway(broker: Broker, queries: Queries) -> AsyncIterator[None]:
    """A cluster that answers from a store."""
    async with await aio_pika.connect(broker.uri) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(topology.exchange(1), topology.EXCHANGE_TYPE, durable=True)
        queue = await channel.declare_queue(topology.incoming(1))
        await queue.bind(exchange, topology.CACHE_KEY)

        async def asked(message: AbstractIncomingMessage) -> None:
            request = parse_query(message.body, has_reply_to=True)
            assert not isinstance(request, Fault) and isinstance(request.queries[0], Query)
            answer = queries.answer(request.queries[0])
            body = error_body(answer) if isinstance(answer, Fault) else answer.body
            status = Status.ERROR if isinstance(answer, Fault) else answer.status
            reply = aio_pika.Message(
                body, correlation_id=message.correlation_id, headers={"status": status.value}
            )
            await channel.default_exchange.publish(reply, message.reply_to or "")

        await queue.consume(asked, no_ack=True)
        yield


def test_it_prints_tables_and_json_and_says_what_is_not_known(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMQP_URI", broker.uri)
    world, events = stream(2, 0, guilds=2, members_per_guild=15)
    store = Store.open(tmp_path, cluster=1, policy=CachePolicy(), wall=1.8e9)
    assert isinstance(store, Store)
    for seq, name, d in events:
        store.apply(0, seq, name, d)
    store.commit()
    guild_id = str(world.guild_ids[0])
    asked = [
        options("Guild", guild_id, "--fields", "name,id", "--json"),
        options("GuildMembers", guild_id, "--limit", "3"),
        options("Guild", "5"),
        options("Message", "1", "2"),
        options("Stats"),
    ]

    async def main() -> list[int]:
        async with gateway(broker, Queries({1: store.reader()}, store.policy)):
            return [await asyncio.to_thread(query.run, each) for each in asked]

    codes = run(main())
    store.close()
    said = capsys.readouterr()
    assert codes == [0, 0, exit_codes.NOT_FOUND, 1, 0]
    first, *rest = said.out.splitlines()
    assert json.loads(first)["id"] == guild_id
    assert "3 entries" in "\n".join(rest) and "guilds" in "\n".join(rest)
    assert "not known" in said.err and "cache_off" in said.err


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("Gild", "1"), "did you mean Guild"),
        (("Guild",), "takes these arguments: guild"),
        (("Guild", "abc"), "is no id"),
        (("Guild", "1", "--limit", "5"), "is no list"),
        (("Guilds", "--limit", "100000"), "limit is no number"),
    ],
)
def test_mistakes_are_named_before_anything_is_sent(
    words: tuple[str, ...], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert query.run(options(*words)) == 2
    assert wrong in capsys.readouterr().err


def test_nobody_there_is_said(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMQP_URI", broker.uri)
    assert query.run(options("CurrentUser")) == exit_codes.UNAVAILABLE
    assert "no exchange rateway-1" in capsys.readouterr().err


def test_every_type_is_in_the_help() -> None:
    assert all(
        f"  {name} " in query.DESCRIPTION or f"  {name}\n" in query.DESCRIPTION for name in QUERY_TYPES
    )


@pytest.mark.parametrize("name", sorted(QUERY_TYPES))
def test_each_type_has_a_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options(name, "--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    kind = QUERY_TYPES[name]
    usage, about = shown.split("positional arguments")[0].split("\n\n", 1)
    assert usage.startswith(f"usage: rateway query {name}")
    assert all(argument.upper() in usage and argument.upper() in about for argument in kind.arguments)
    assert ("--after" in " ".join(usage.split())) is kind.lists
    # The example can be pasted.
    line = next(each for each in shown.splitlines() if each.startswith("  rateway query"))
    assert query.question(options(*line.split()[2:]))


def test_a_table_shows_what_a_person_looks_for_first() -> None:
    console = Console(width=200)
    rows = [
        {f"x{number}": number for number in range(12)}
        | {"name": "n", "id": "1", "user": {"id": "2", "username": "ann"}}
    ]
    with console.capture() as shown:
        console.print(query.table_of(rows))
    head = shown.get().splitlines()[1]
    assert [name in head for name in ("id", "user", "name")] == [True, True, True]
    assert "7 more fields" in shown.get() and "ann (2)" in shown.get()
    with console.capture() as shown:
        console.print(query.table_of({"id": "1", "roles": ["2"]}))
    assert '["2"]' in shown.get()


# What somebody at Discord may call a guild, a role or themselves.
NAMES = [
    "[/]", "[red]x[/red]", "[link=file:///etc/passwd]x", "\x1b]0;title\x07", "\x1b[2J", "a\rb\nc",
    "\u202egnp.exe", "\x9b31m", "[", "]", "\\[", "", " ",
]  # fmt: skip


@pytest.mark.checklist("K78")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("as_json", [True, False])
def test_names_are_shown_as_text_and_give_a_terminal_no_orders(
    name: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    member = {"nick": name, "user": {"id": "1", "username": name}, name: {name: name}}
    for found in (member, [member, {"name": name}], [name], name, [[name]]):
        assert query.report("ok", json.dumps(found, ensure_ascii=False).encode(), as_json=as_json) == 0
    error = {"error": {"code": "invalid", "message": name}}
    assert query.report("error", json.dumps(error, ensure_ascii=False).encode(), as_json=as_json) == 1
    shown = capsys.readouterr()
    for order in ("\x1b", "\x07", "\r", "\x9b", "\u202e"):
        assert order not in shown.out + shown.err
    if name.startswith("[") and not as_json:
        assert name in shown.out


@pytest.mark.checklist("K78")
@pytest.mark.parametrize(
    "body", [b"{", b"\xff\xfe", b"[" * 100_000, b"nan nan", b'{"error": 5}', b'{"error": null}', b"5"]
)
@pytest.mark.parametrize("status", ["ok", "error"])
@pytest.mark.parametrize("as_json", [True, False])
def test_an_answer_of_any_bytes_ends_in_an_exit_code(body: bytes, status: str, as_json: bool) -> None:
    assert query.report(status, body, as_json=as_json) in (0, 1)
