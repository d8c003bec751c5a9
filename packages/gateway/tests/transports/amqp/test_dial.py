"""Several nodes, several addresses of a name: the first that answers is used, and none holds the others up."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.demo.broker import free_ports
from rateway.transports.amqp.wire.address_file import AddressFile
from rateway.transports.amqp.wire.connection import BrokerRefused, BrokerUnavailable
from rateway.transports.amqp.wire.dial import dial
from rateway.transports.amqp.wire.uri import parse
from tests.transports.amqp.fake_broker import FakeBroker

from tests.aio import keep_silent, run

# How long a silent node may keep its own attempt waiting, ms: no test waits for so long.
SILENT_MS = 600_000


@asynccontextmanager
async def silent(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """A port that takes connections and says nothing."""
    server = await asyncio.start_server(keep_silent, host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.checklist("K38")
@pytest.mark.parametrize("order", list(itertools.permutations(["dead", "silent", "well"])))
def test_a_node_that_answers_is_reached_whatever_the_others_do(order: Sequence[str]) -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker, silent() as quiet:
            ports = {"dead": free_ports(1)[0], "silent": quiet, "well": broker.port}
            hosts = ",".join(f"127.0.0.1:{ports[each]}" for each in order)
            address = parse(f"amqp://user:s3cret@{hosts}/?connection_timeout={SILENT_MS}")
            connection = await dial(address, name="test")
            assert connection.address.port == broker.port
            await connection.close()

    run(scenario())


@pytest.mark.checklist("K38")
def test_a_silent_address_of_a_name_holds_nobody_up() -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker, AsyncExitStack() as stack:
            for last in (2, 3, 4):
                await stack.enter_async_context(silent(f"127.0.0.{last}", broker.port))

            async def resolve(host: str, port: int) -> list[str]:
                assert (host, port) == ("broker.example", broker.port)
                return ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1"]

            address = parse(
                f"amqp://user:s3cret@broker.example:{broker.port}/?connection_timeout={SILENT_MS}"
            )
            for _ in range(3):
                connection = await dial(address, name="test", resolve=resolve)
                assert connection.address.host == "127.0.0.1"
                # A certificate would be for the name.
                assert connection.address.server_name == "broker.example"
                await connection.close()

    run(scenario())


def test_each_host_has_a_time_out_of_its_own() -> None:
    async def scenario() -> None:
        async with silent() as one, silent() as two:
            began = time.monotonic()
            hosts = f"127.0.0.1:{one},127.0.0.1:{two}"
            with pytest.raises(BrokerUnavailable) as caught:
                await dial(parse(f"amqp://user:s3cret@{hosts}/?connection_timeout=1000"), name="test")
            # The second begins half a second after the first.
            assert time.monotonic() - began > 1.4
            words = str(caught.value)
            assert f":{one}/ did not answer" in words and f":{two}/ did not answer" in words
            assert "s3cret" not in words

    run(scenario())


def test_nodes_that_all_refuse_are_a_refusal_and_one_that_is_away_may_yet_take_us() -> None:
    async def scenario() -> None:
        no = (403, "ACCESS_REFUSED - Login was refused")
        async with FakeBroker(refuse_login=no) as one, FakeBroker(refuse_login=no) as two:
            hosts = f"127.0.0.1:{one.port},127.0.0.1:{two.port}"
            with pytest.raises(BrokerRefused, match="Login was refused"):
                await dial(parse(f"amqp://user:s3cret@{hosts}/"), name="test")
            hosts += f",127.0.0.1:{free_ports(1)[0]}"
            with pytest.raises(BrokerUnavailable, match=r"(?s)Login was refused.*|.*cannot be reached"):
                await dial(parse(f"amqp://user:s3cret@{hosts}/"), name="test")

    run(scenario())


def test_nodes_that_are_all_away_are_one_text_in_whatever_order_they_were_tried() -> None:
    async def scenario() -> None:
        hosts = ",".join(f"127.0.0.1:{port}" for port in free_ports(3))
        texts = set()
        for _ in range(12):
            with pytest.raises(BrokerUnavailable) as caught:
                await dial(parse(f"amqp://user:s3cret@{hosts}/"), name="test")
            texts.add(str(caught.value))
        assert len(texts) == 1, texts

    run(scenario())


def test_a_vhost_that_is_down_comes_back_by_itself() -> None:
    async def scenario() -> None:
        down = (530, "NOT_ALLOWED - access to vhost 'bots' refused: vhost 'bots' is down")
        async with FakeBroker(refuse_open=down) as broker:
            with pytest.raises(BrokerUnavailable):
                await dial(parse(broker.uri), name="test")

    run(scenario())


def test_a_dial_that_is_given_up_leaves_no_connection() -> None:
    async def scenario() -> None:
        async with silent() as one, FakeBroker(mechanisms="") as broker:
            address = parse(f"amqp://user:s3cret@127.0.0.1:{one},127.0.0.1:{broker.port}/")
            task = asyncio.ensure_future(dial(address, name="test"))
            await broker.until(lambda: broker.connections > 0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    run(scenario())


hosts = st.sampled_from(["a", "b.example", "10.0.0.1", "[::1]", "a:1", "b.example:5673", "[::1]:7"])


@given(st.lists(hosts, min_size=1, max_size=8), st.sampled_from(["", "u:p%2C%40@"]), st.booleans())
def test_a_list_of_hosts_is_each_of_them_by_itself(each: list[str], user: str, whole: bool) -> None:
    single = [parse(f"amqp://{user}{host}/v?heartbeat=5") for host in each]
    if whole:
        found = parse(",".join(f"amqp://{user}{host}/v?heartbeat=5" for host in each))
    else:
        found = parse(f"amqp://{user}{','.join(each)}/v?heartbeat=5")
    assert found.nodes() == list(dict.fromkeys(single))


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("amqp://u:s3cret@a,,b/", "an empty one"),
        ("amqp://u:s3cret@a,/", "an empty one"),
        ("amqp://u:s3cret@a/v,amqp://u:s3cret@b/w", "differ in more than host and port"),
        ("amqp://u:s3cret@a/v,amqp://u:other@b/v", "differ in more than host and port"),
        ("amqp://u:s3cret@a/v,amqps://u:s3cret@b/v", "differ in more than host and port"),
        ("amqp://u:s3cret@a,b:port/", "the port must be a number"),
        ("amqp://" + ",".join(f"h{n}" for n in range(40)), "at most 32"),
    ],
)
def test_a_wrong_list_says_what_is_wrong_without_the_password(uri: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(uri)
    assert words in str(caught.value) and "s3" not in str(caught.value)


def test_an_address_of_several_nodes_shows_all_of_them_and_no_password() -> None:
    assert str(parse("amqp://bot:s3cret@a,b:7,[::1]/v")) == "amqp://bot@a:5672,b:7,[::1]:5672/v"


@pytest.mark.checklist("K41")
def test_a_password_that_was_replaced_in_its_file_is_used_by_the_next_attempt(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeBroker() as broker:
            file = tmp_path / "uri"
            file.write_text(broker.uri + "\n")
            hidden: list[str] = []
            source = AddressFile(file, broker.uri, hidden.append)
            for password in ("s3cret", "another", "third"):
                file.write_text(f"\n {broker.uri.replace('s3cret', password)}\n\n")
                connection = await dial(source, name="test")
                assert broker.start_ok is not None and broker.start_ok.response == f"\0user\0{password}"
                await connection.close()
            assert hidden == [broker.uri.replace("s3cret", each) for each in ("another", "third")]

    run(scenario())


@pytest.mark.parametrize(
    "text", ["", "amqp://h:port/", "two\nlines", "\xff", "amqp://h/" + " " * 70_000, None]
)
def test_a_file_that_cannot_be_used_leaves_the_address_as_it_was_and_is_said_once(
    tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "uri"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    source = AddressFile(file, "amqp://u:s3cret@h/", lambda secret: None)
    for _ in range(3):
        assert source.current() == parse("amqp://u:s3cret@h/")
    assert len(caplog.records) == 1 and "stays as it was" in caplog.text
    assert "s3cret" not in caplog.text
    file.write_text("amqp://u:new@h/")
    assert source.current().password == "new"


@pytest.mark.checklist("K40")
@pytest.mark.parametrize(
    ("addresses", "machines"),
    [
        (["127.0.0.1"], 1),
        (["127.0.0.1", "::1"], 1),
        (["127.0.0.1", "127.0.0.2", "127.0.0.3"], 3),
        (["127.0.0.1", "127.0.0.2", "::1"], 2),
    ],
)
def test_several_addresses_of_one_family_behind_a_name_are_several_nodes(
    addresses: list[str], machines: int
) -> None:
    async def scenario() -> int:
        async def resolve(host: str, port: int) -> list[str]:
            return addresses

        async with FakeBroker() as broker:
            address = parse(f"amqp://user:s3cret@localhost:{broker.port}/")
            connection = await dial(address, name="test", resolve=resolve)
            await connection.close()
            return connection.nodes

    assert run(scenario()) == machines
