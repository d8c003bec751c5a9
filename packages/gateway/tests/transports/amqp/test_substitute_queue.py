"""While the node of the inbound queue is away the owner reads a substitute; nothing is lost or taken twice."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from rateway.delivery.port import Message
from rateway.transports.amqp.requests.inbound import Inbound
from rateway.transports.amqp.wire.uri import parse
from tests.transports.amqp.inbound_broker import properties
from tests.transports.amqp.queue_broker import QueueBroker

from tests.aio import run

QUEUE, SUBSTITUTE = "rateway-incoming-1", "rateway-incoming-1-substitute"
_numbers = itertools.count(1)


class Gateway:
    """One gateway's inbound connection: what it took, and what it said."""

    def __init__(self, broker: QueueBroker, *, in_fleet: bool = True) -> None:
        self.broker = broker
        self.taken: list[bytes] = []
        self.held: list[Message] = []
        self.holds = False
        """Whether it keeps what it takes, as commands that wait for their turn."""
        self.said: list[tuple[str, str]] = [("", "")]
        self.inbound = Inbound(
            address=parse(broker.uri), name="test", exchange="rateway-1", queue=QUEUE, keys=("cache", "gateway"),
            on_message=self._take, on_ownership=lambda state, why: self.said.append((state, why)), home="one",
            on_home_taken=(lambda: None) if in_fleet else None, substitute=SUBSTITUTE, uses_substitute=in_fleet,
        )  # fmt: skip

    def _take(self, message: Message) -> None:
        self.taken.append(message.body)
        if message.reply_to is not None:
            self.inbound.answer(message, message.body, (("status", "ok"),))
        if self.holds:
            self.held.append(message)
        else:
            self.inbound.acknowledge(message)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        task = asyncio.create_task(self.inbound.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so here; whatever happens here follows a word to or from the broker."""
        while not condition():  # noqa: ASYNC110  # what the gateway does wakes nobody here
            await asyncio.sleep(0.01)

    async def owns(self) -> None:
        await self.until(lambda: self.said[-1][0] == "owned")

    async def is_served(self) -> None:
        """A request that comes now is taken once, and its answer arrives."""
        name = b"%d" % next(_numbers)
        asked = properties(correlation_id=name, reply_to=b"answers")
        assert self.broker.publish(name, properties=asked), "no queue took it"
        await self.broker.until(lambda: bool(self.answers(name)))
        assert self.taken.count(name) == len(self.answers(name)) == 1

    def answers(self, name: bytes) -> list[bytes]:
        return [each.body for each in self.broker.received if each.body == name]

    async def stands_in(self) -> None:
        await self.until(lambda: f"requests come through {SUBSTITUTE} since" in self.said[-1][1])


def scene(play: Callable[[QueueBroker], object], *, timeout: float = 60.0) -> None:
    async def main() -> None:
        async with QueueBroker() as broker:
            assert isinstance(broker, QueueBroker)
            await play(broker)  # type: ignore[misc]  # a coroutine

    run(main(), timeout=timeout)


def deleted(broker: QueueBroker) -> bool:
    return SUBSTITUTE not in broker.queues


@pytest.mark.parametrize("silent", [False, True], ids=["as 3.10", "as 4"])
def test_requests_come_through_the_substitute_while_the_node_is_away_and_through_the_queue_after_that(
    silent: bool,
) -> None:
    async def play(broker: QueueBroker) -> None:
        async with Gateway(broker).running() as gateway:
            await gateway.owns()
            await gateway.is_served()
            broker.lose(QUEUE, silent=silent)
            await gateway.stands_in()
            assert gateway.said[-1][0] == "away"
            await gateway.is_served()
            if silent:
                # A publisher would be told that its message is refused.
                await broker.until(lambda: not broker.queues[QUEUE].bindings)
                await gateway.is_served()
                assert broker.refused.count(QUEUE) <= 1
            broker.bring_back(QUEUE)
            await broker.until(lambda: deleted(broker))
            await gateway.owns()
            assert broker.queues[QUEUE].bindings == {"cache", "gateway"}
            await gateway.is_served()

    scene(play)


def test_what_both_queues_got_before_the_return_was_noticed_is_taken_once() -> None:
    async def play(broker: QueueBroker) -> None:
        async with Gateway(broker).running() as gateway:
            await gateway.owns()
            broker.lose(QUEUE)
            await gateway.stands_in()
            broker.publish(b"same")
            await gateway.until(lambda: gateway.taken == [b"same"])
            broker.bring_back(QUEUE)
            assert broker.publish(b"both") == 2
            assert broker.publish(b"same") == 2
            await broker.until(lambda: deleted(broker))
            await gateway.owns()
            await gateway.is_served()
            assert sorted(gateway.taken[:-1]) == [b"both", b"same", b"same"]
            await broker.until(lambda: not broker.queues[QUEUE].ready and not broker.unacknowledged(QUEUE))

    scene(play)


def test_a_substitute_is_not_deleted_before_all_that_came_through_it_is_dealt_with() -> None:
    async def play(broker: QueueBroker) -> None:
        async with Gateway(broker).running() as gateway:
            await gateway.owns()
            broker.lose(QUEUE)
            await gateway.stands_in()
            gateway.holds = True
            broker.publish(b"waits")
            await gateway.until(lambda: bool(gateway.held))
            gateway.holds = False
            broker.bring_back(QUEUE)
            await gateway.owns()
            await gateway.is_served()
            # Its connection may still break: the command comes again then.
            broker.cut(SUBSTITUTE)
            await gateway.until(lambda: gateway.taken.count(b"waits") == 2)
            await broker.until(lambda: deleted(broker))

    scene(play)


def test_the_queue_that_goes_away_again_has_its_substitute_again() -> None:
    async def play(broker: QueueBroker) -> None:
        async with Gateway(broker).running() as gateway:
            await gateway.owns()
            for _ in range(3):
                broker.lose(QUEUE)
                await gateway.stands_in()
                await gateway.is_served()
                broker.bring_back(QUEUE)
                await gateway.owns()
                await gateway.is_served()
            await broker.until(lambda: deleted(broker))

    scene(play)


def test_a_substitute_whose_own_node_is_away_at_the_return_is_drained_once_that_one_is_back() -> None:
    async def play(broker: QueueBroker) -> None:
        async with Gateway(broker).running() as gateway:
            await gateway.owns()
            broker.lose(QUEUE)
            await gateway.stands_in()
            gateway.holds = True
            broker.publish(b"waits")
            await gateway.until(lambda: bool(gateway.held))
            gateway.holds = False
            broker.lose(SUBSTITUTE)
            await gateway.until(lambda: f"no request is answered: {SUBSTITUTE}" in gateway.said[-1][1])
            broker.bring_back(QUEUE)
            await gateway.owns()
            await gateway.is_served()
            # It is bound, until the owner has noticed.
            broker.bring_back(SUBSTITUTE)
            assert broker.publish(b"both") == 2
            await broker.until(lambda: deleted(broker))
            await gateway.is_served()
            assert [gateway.taken.count(each) for each in (b"both", b"waits")] == [1, 2]

    scene(play)


@pytest.mark.parametrize("in_fleet", [True, False], ids=["fleet", "no fleet"])
def test_what_is_left_in_a_substitute_is_taken_once_by_a_later_owner_which_deletes_it(in_fleet: bool) -> None:
    async def play(broker: QueueBroker) -> None:
        async with Gateway(broker).running() as former:
            await former.owns()
            broker.lose(QUEUE)
            await former.stands_in()
        await broker.until(lambda: not broker.is_read(SUBSTITUTE))
        assert broker.publish(b"left") == 1
        broker.bring_back(QUEUE)
        assert broker.publish(b"both") == 2
        async with Gateway(broker, in_fleet=in_fleet).running() as later:
            await later.owns()
            await broker.until(lambda: deleted(broker))
            await later.until(lambda: len(later.taken) == 2)
            await later.is_served()
            assert sorted(later.taken[:2]) == [b"both", b"left"]

    scene(play)


def test_the_next_owner_goes_on_with_the_substitute_while_the_node_is_still_away() -> None:
    async def play(broker: QueueBroker) -> None:
        async with Gateway(broker).running() as former:
            await former.owns()
            broker.lose(QUEUE)
            await former.stands_in()
            await former.is_served()
        await broker.until(lambda: not broker.is_read(SUBSTITUTE))
        broker.publish(b"meanwhile")
        async with Gateway(broker).running() as later:
            await later.stands_in()
            await later.until(lambda: later.taken == [b"meanwhile"])
            await later.is_served()

    scene(play)


def test_without_a_fleet_nothing_takes_the_queues_place() -> None:
    async def play(broker: QueueBroker) -> None:
        async with Gateway(broker, in_fleet=False).running() as gateway:
            await gateway.owns()
            broker.lose(QUEUE)
            await gateway.until(lambda: gateway.said[-1][0] == "away")
            broker.bring_back(QUEUE)
            await gateway.owns()
            declared = [each.queue for each in broker.methods if hasattr(each, "queue")]
            bound = [each for each in broker.methods if each.name in ("Queue.Bind", "Queue.Delete")]
            assert SUBSTITUTE not in broker.queues and SUBSTITUTE in declared
            assert {each.queue for each in bound} == {QUEUE}  # type: ignore[attr-defined]  # both have one
            assert all("substitute" not in why for _, why in gateway.said)

    scene(play)


def test_a_gateway_that_waits_for_the_queue_leaves_the_owners_substitute_alone() -> None:
    async def play(broker: QueueBroker) -> None:
        async with Gateway(broker).running() as owner:
            await owner.owns()
            broker.lose(QUEUE)
            await owner.stands_in()
            async with Gateway(broker).running() as second:
                await second.until(lambda: f"no request is answered: {SUBSTITUTE}" in second.said[-1][1])
                await owner.is_served()
                broker.bring_back(QUEUE)
                await second.until(lambda: "owned" in (owner.said[-1][0], second.said[-1][0]))
                await broker.until(lambda: deleted(broker))

    scene(play)
