"""Queues that nobody reads: what two looks in a row find, over AMQP and over the management API."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import aio_pika
from rateway.delivery.port import Bound, QueueCount
from rateway.runtime.monitoring import health
from rateway.runtime.monitoring.queue_watch import QueueWatch
from rateway.runtime.monitoring.status import EventLogStatus
from rateway.secret import Secret
from rateway.transports.amqp.requests.queue_counts import count_queues
from rateway.transports.amqp.wire.uri import parse
from rateway.transports.rabbitmq_management import RabbitManagement
from rateway_protocol.contract import topology
from tests.http.fleet import Fleet

from tests.aio import run
from tests.rabbitmq import Broker


class Counts:
    """A broker that has these consumers, by queue."""

    def __init__(self, **consumers: int) -> None:
        self.consumers = {name.replace("_", "-"): count for name, count in consumers.items()}
        self.away = False

    async def __call__(self, names: Iterable[str]) -> list[QueueCount] | None:
        if self.away:
            return None
        return [QueueCount(name, 7, self.consumers[name]) for name in names if name in self.consumers]


def watch(counts: Counts, names: Iterable[str] = (), given_up: Iterable[int] = ()) -> QueueWatch:
    return QueueWatch(names, counts, None, list, lambda: given_up)


def test_a_queue_is_unread_after_two_looks_without_a_consumer() -> None:
    async def scene() -> None:
        counts = Counts(bot=0, other=1)
        found = watch(counts, ["bot", "other", "never-declared"])
        await found.look()
        assert found.unread == [], "a worker may be deployed anew just now"
        await found.look()
        assert found.unread == [QueueCount("bot", 7, 0)]
        counts.away = True
        await found.look()
        assert found.unread == [], "nothing is known of it any more"
        counts.away = False
        counts.consumers["bot"] = 1
        await found.look()
        await found.look()
        assert found.unread == []

    run(scene())


def test_a_drained_cluster_is_unheld_until_a_gateway_reads_its_queue() -> None:
    async def scene() -> None:
        counts = Counts(rateway_incoming_2=0)
        found = watch(counts, given_up=[2])
        await found.look()
        await found.look()
        assert (found.unheld, found.unread) == ([2], [])
        counts.consumers["rateway-incoming-2"] = 1
        await found.look()
        assert found.unheld == []

    run(scene())


def test_a_name_that_no_workers_queue_takes_beside_an_event_log_is_found_by_the_bindings() -> None:
    async def scene() -> None:
        # No TYPING_START was received: what is not sent needs no queue.
        names = {
            "rateway-1": frozenset({"GUILD_CREATE", "MESSAGE_CREATE", "TYPING_START"}),
            "rateway-2": frozenset({"GUILD_CREATE"}),
        }
        log = QueueCount("rateway-log-1-0123456789ab", 7, 0)

        async def bound(exchanges: Iterable[str]) -> Bound:
            return Bound([log], dict(names))

        found = QueueWatch((), Counts(), bound, lambda: ["rateway-1", "rateway-2"], list)
        fleet = Fleet(16)
        kept = EventLogStatus("kept", 60.0, "a log", "", 1, 80)
        fleet.clusters = {each: {"event_log": kept} for each in (1, 2)}
        fleet.publishers = {each: {"routed": [], "unrouted": []} for each in (1, 2)}

        async def told() -> list[str]:
            await found.look()
            clusters = found.see_past_logs((await fleet.status()).clusters)
            return [reason.text for reason in health.unrouted(clusters)]

        assert await told() == [], "a worker may be deployed anew just now"
        (text,) = await told()
        assert "bound for MESSAGE_CREATE of cluster 2" in text and "rateway-2" in text
        assert found.unread == [], "a log needs no reader"
        del names["rateway-2"]
        await told()
        (text,) = await told()
        assert "anything of cluster 2" in text
        names.clear()
        await told()
        assert await told() == [], "bots behind proxies need no worker"

    run(scene())


def test_without_an_event_log_the_returned_names_count() -> None:
    async def scene() -> None:
        async def bound(exchanges: Iterable[str]) -> Bound:
            return Bound([], {"rateway-1": frozenset({"MESSAGE_CREATE"})})

        found = QueueWatch((), Counts(), bound, lambda: ["rateway-1", "rateway-2"], list)
        for _ in range(2):
            await found.look()
        fleet = Fleet(16)
        fleet.clusters = {each: {"event_log": None} for each in (1, 2)}
        clusters = (await fleet.status()).clusters
        assert found.see_past_logs(clusters) == clusters

    run(scene())


def test_the_verdict_names_a_cluster_that_nobody_has_and_queues_that_nobody_reads() -> None:
    fleet = Fleet(16)
    fleet.more = {"unheld": [2], "unread_queues": [QueueCount("bot", 12_345, 0)]}
    found = health.verdict(run(fleet.status()), 180.0, {})
    assert found.level == "trouble" and found.words.startswith(
        "No gateway has cluster 2, which this one was told"
    )
    assert [reason.kind for reason in found.reasons] == ["unheld", "unread"]
    assert "nobody reads bot, where 12,345 messages wait" in found.reasons[1].text
    fleet.more = {"unread_queues": [QueueCount("bot", 12_345, 0)]}
    assert health.verdict(run(fleet.status()), 180.0, {}).level == "notice"


def test_rabbitmq_tells_both_ways(broker: Broker) -> None:
    async def scene() -> None:
        connection = await aio_pika.connect(broker.uri)
        async with connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange("rateway-1", "direct", durable=True)
            bound = await channel.declare_queue("bound", durable=True)
            await bound.bind(exchange, "MESSAGE_CREATE")
            await exchange.publish(aio_pika.Message(b"{}"), "MESSAGE_CREATE")
            read = await channel.declare_queue("read", durable=True)
            await read.bind(exchange, "MESSAGE_CREATE")

            async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
                """Read it."""

            await read.consume(take, no_ack=True)
            await channel.declare_queue("elsewhere", durable=True)
            log = topology.event_log(1, "0123456789ab")
            own = await channel.declare_queue(log, durable=True)
            await own.bind(exchange, "TYPING_START")

            found = await count_queues(parse(broker.uri), ["bound", "not-there", "read"])
            assert found is not None
            assert {each.name: (each.messages, each.consumers) for each in found} == {
                "bound": (1, 0),
                "read": (0, 1),
            }

            address = urlsplit(broker.uri)
            url = f"http://{address.username}:{address.password}@127.0.0.1:{broker.node.ports.management}"
            management = RabbitManagement(Secret(url), broker.vhost)
            while True:
                # It counts every few seconds.
                told = await management.bound_to(["rateway-1", "rateway-2"])
                assert told is not None
                if {each.name: each.consumers for each in told.queues} == {"bound": 0, "read": 1, log: 0}:
                    break
            assert told.names == {"rateway-1": {"MESSAGE_CREATE"}, "rateway-2": frozenset()}
            wrong = RabbitManagement(Secret(url.replace(":" + str(address.password), ":wrong")), broker.vhost)
            assert await wrong.bound_to(["rateway-1"]) is None
        await broker.stop()
        assert await count_queues(parse(broker.uri), ["bound"]) is None
        await broker.start()

    run(scene())
