"""The inbound queue with every default queue type, before and after it exists; and who may call it his own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import aio_pika
import pytest
from rateway.demo.broker import PrivateBroker
from rateway.transports.amqp.requests.inbound import Inbound, Message
from rateway.transports.amqp.wire.uri import parse
from rateway_protocol.contract import topology

from tests.aio import run
from tests.rabbitmq import VERSIONS, Broker, fresh_vhost, private_rabbitmq

QUEUE = topology.incoming(1)
SUBSTITUTE = topology.substitute(1)
TYPES = ["none", "classic", "quorum", "stream"]


class Owner:
    """One gateway's inbound connection and what it said."""

    def __init__(self, uri: str, home: str = "", in_fleet: bool = False) -> None:
        self.may_own = True
        self.homes_taken = 0
        self.said: list[tuple[str, str]] = []
        self.taken: list[Message] = []
        self.others_live = 0
        self.changed = asyncio.Event()
        self.inbound = Inbound(
            address=parse(uri), name="test", exchange="rateway-1", queue=QUEUE, keys=("cache", "gateway"),
            on_message=self._take, on_ownership=self._say, on_other_live=self._live, home=home,
            on_home_taken=self._count_home if in_fleet else None, may_own=lambda: self.may_own,
            substitute=SUBSTITUTE, uses_substitute=in_fleet,
        )  # fmt: skip

    def _take(self, message: Message) -> None:
        self.taken.append(message)
        self.inbound.acknowledge(message)
        self.changed.set()

    def _say(self, state: str, why: str) -> None:
        self.said.append((state, why))
        self.changed.set()

    def _count_home(self) -> None:
        self.homes_taken += 1

    def _live(self) -> None:
        self.others_live += 1
        self.changed.set()

    @property
    def state(self) -> str:
        return self.said[-1][0] if self.said else ""

    async def until(self, state: str) -> str:
        """Wait for a state; why it is so."""
        while self.state != state:
            self.changed.clear()
            await self.changed.wait()
        return self.said[-1][1]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Owner]:
        task = asyncio.create_task(self.inbound.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture(scope="module", params=VERSIONS)
def node(request: pytest.FixtureRequest) -> Iterator[PrivateBroker]:
    with private_rabbitmq(version=request.param) as started:
        yield started


@pytest.fixture(scope="module", params=VERSIONS[1:])
def quorum_node(request: pytest.FixtureRequest) -> Iterator[PrivateBroker]:
    """A node whose own default is quorum; only 4.x can be told so."""
    with private_rabbitmq(version=request.param, default_queue_type="quorum") as started:
        yield started


def set_default_type(broker: Broker, kind: str, *, anew: bool) -> None:
    """Give a virtual host a default queue type, in an empty one made *anew* (3.10 has no other way) or from now on."""
    if kind == "none":
        return
    name = quote(broker.vhost, safe="")
    if anew:
        broker.node.delete_vhost(broker.vhost)
    # 3.10 reads the first of these names.
    broker.node.api("PUT", f"vhosts/{name}", {"defaultqueuetype": kind, "default_queue_type": kind})
    if anew:
        broker.node.create_vhost(broker.vhost)
        assert broker.node.api("GET", f"vhosts/{name}")["default_queue_type"] == kind


async def declared(uri: str, **arguments: str | int) -> None:
    async with await aio_pika.connect(uri) as connection:
        channel = await connection.channel()
        await channel.declare_queue(
            QUEUE, durable=True, arguments={key.replace("_", "-"): value for key, value in arguments.items()}
        )


async def one_owns_and_the_other_waits(broker: Broker, uri: str) -> None:
    async with Owner(uri).running() as first:
        await first.until("owned")
        async with Owner(uri).running() as second:
            assert "another gateway reads" in await second.until("elsewhere")
            assert first.state == "owned"
            queue = await broker.queue(QUEUE)
            assert (queue["type"], queue["durable"]) == ("classic", True)


@pytest.mark.checklist("K35")
@pytest.mark.parametrize("kind", TYPES)
def test_one_gateway_owns_a_cluster_whatever_the_default_queue_type_is(
    node: PrivateBroker, kind: str
) -> None:
    with fresh_vhost(node) as broker:
        set_default_type(broker, kind, anew=True)
        run(one_owns_and_the_other_waits(broker, broker.uri))


@pytest.mark.checklist("K36")
@pytest.mark.parametrize("kind", TYPES)
def test_a_queue_of_before_is_met_when_the_default_queue_type_is_changed(
    node: PrivateBroker, kind: str
) -> None:
    with fresh_vhost(node) as broker:
        run(declared(broker.uri))
        set_default_type(broker, kind, anew=False)
        run(one_owns_and_the_other_waits(broker, broker.uri))
        # And with what an operator gave it.
        run(broker.ctl("delete_queue", "-p", broker.vhost, QUEUE), timeout=120)
        run(declared(broker.uri, x_queue_type="classic", x_max_length=1000))
        run(one_owns_and_the_other_waits(broker, broker.uri))


@pytest.mark.checklist("K35", "K36")
def test_a_node_whose_default_is_quorum_gives_the_cluster_one_owner(quorum_node: PrivateBroker) -> None:
    with fresh_vhost(quorum_node) as broker:
        run(one_owns_and_the_other_waits(broker, broker.uri))


@pytest.mark.checklist("K35")
def test_a_quorum_queue_which_lets_two_gateways_read_is_nobodys_until_it_is_deleted(
    node: PrivateBroker,
) -> None:
    async def scenario(broker: Broker) -> None:
        await declared(broker.uri, x_queue_type="quorum")
        async with await aio_pika.connect(broker.uri) as connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange("rateway-1", "direct", durable=True)
            for key in ("cache", "gateway"):
                await (await channel.get_queue(QUEUE)).bind(exchange, key)
            await exchange.publish(aio_pika.Message(b"1"), "cache")
            async with Owner(broker.uri).running() as first, Owner(broker.uri).running() as second:
                for owner in (first, second):
                    why = await owner.until("refused")
                    assert "two gateways could both own" in why and f"delete_queue {QUEUE}" in why
                    # Nobody answers what is not his to answer.
                    assert not owner.taken
                await channel.queue_delete(QUEUE)
                while {first.state, second.state} != {"owned", "elsewhere"}:
                    for owner in (first, second):
                        owner.changed.clear()
                    await asyncio.wait(
                        [asyncio.ensure_future(owner.changed.wait()) for owner in (first, second)],
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                assert ("owned", "") in first.said + second.said

    with fresh_vhost(node) as broker:
        run(scenario(broker))


@pytest.mark.checklist("K35")
def test_what_waits_in_the_queue_is_taken_once_the_lock_is_sure_and_in_order(node: PrivateBroker) -> None:
    async def scenario(broker: Broker) -> None:
        async with await aio_pika.connect(broker.uri) as connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange("rateway-1", "direct", durable=True)
            queue = await channel.declare_queue(QUEUE, durable=True)
            await queue.bind(exchange, "cache")
            for number in range(200):
                await exchange.publish(aio_pika.Message(b"%d" % number), "cache")
            async with Owner(broker.uri).running() as owner:
                while len(owner.taken) < 200:
                    owner.changed.clear()
                    await owner.changed.wait()
            assert [message.body for message in owner.taken] == [b"%d" % number for number in range(200)]
            assert not any(message.redelivered for message in owner.taken)

    with fresh_vhost(node) as broker:
        run(scenario(broker))


@pytest.mark.checklist("K43")
def test_a_waiting_gateway_learns_whether_the_owner_has_sessions_and_whether_it_is_its_own_former_self(
    node: PrivateBroker,
) -> None:
    async def scenario(broker: Broker) -> None:
        async with Owner(broker.uri, home="one").running() as first:
            await first.until("owned")
            assert first.inbound.existed is False
            async with (
                Owner(broker.uri, home="two").running() as second,
                Owner(broker.uri, home="one").running() as heir,
            ):
                assert "another gateway" in await second.until("elsewhere")
                assert "this state folder" in await heir.until("elsewhere")
                assert second.others_live == 0
                await first.inbound.tell_live()
                while not second.others_live:
                    second.changed.clear()
                    await second.changed.wait()
                assert heir.others_live == 0
        async with Owner(broker.uri).running() as third:
            await third.until("owned")
            assert third.inbound.existed is True

    with fresh_vhost(node) as broker:
        run(scenario(broker))


def test_a_former_owner_of_a_fleet_lets_the_queue_go_to_the_next_one_and_does_not_take_it_again(
    node: PrivateBroker,
) -> None:
    async def scenario(broker: Broker) -> None:
        former, successor = (Owner(broker.uri, home="fleet", in_fleet=True) for _ in range(2))
        async with former.running():
            await former.until("owned")
            succeeding = asyncio.create_task(successor.inbound.run())
            # It is away for the successor, which runs the cluster all the same.
            assert "still reads" in await successor.until("away")
            assert successor.homes_taken
            former.may_own = False
            named: list[str] = []
            while not named:  # the management learns of a connection some seconds later
                listed = await broker.api("GET", "connections")
                named = [each["name"] for each in listed if each.get("vhost") == broker.vhost]
            for name in named:
                await broker.api("DELETE", f"connections/{quote(name, safe='')}")
            await former.until("away")
            await successor.until("owned")
            assert former.state == "away"
            succeeding.cancel()
            await asyncio.wait([succeeding])

    with fresh_vhost(node) as broker:
        run(scenario(broker))
