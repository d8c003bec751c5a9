"""Three RabbitMQ nodes on this machine that are one cluster: each may be killed, frozen, stopped and started.

The nodes differ in name and ports, share an epmd of their own and a cookie, listen on loopback only, and are kept
small: a quarter of a gigabyte each before RabbitMQ's own alarm.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aio_pika
from aio_pika.abc import AbstractConnection
from rateway.demo.broker import BrokerUnavailable, PrivateBroker
from rateway_client.line import FAILURES

from tests.rabbitmq import Broker, programs_of

NODES = 3
# How often a start is tried, each time with other ports.
STARTS = 3
_numbers = itertools.count(1)
SETTINGS = {
    "cluster_formation.peer_discovery_backend": "classic_config",
    "vm_memory_high_watermark.absolute": "256MB",
    # Quorum queues write ahead in files of 512 MB unless told otherwise.
    "raft.wal_max_size_bytes": "33554432",
}
# One scheduler a node: the machine is shared.
ERLANG = "+S 1:1"
# Erlang gives a silent node up after so many seconds, unless told otherwise.
NET_TICKTIME = 60
# For a node's greeting, and between two tries; seconds.
CONNECT_S = 10.0
RETRY_S = 0.1


@dataclass(slots=True)
class RabbitCluster:
    """Nodes of one cluster; what is done to one of them is done by its number, from 0."""

    nodes: list[PrivateBroker]
    vhost: str = "/"

    def uri(self, query: str = "") -> str:
        """The address that names every node."""
        hosts = ",".join(f"127.0.0.1:{node.ports.amqp}" for node in self.nodes)
        return f"amqp://guest:guest@{hosts}/{quote(self.vhost, safe='')}{query}"

    @property
    def uris(self) -> list[str]:
        """Each node's address by itself."""
        return [node.uri_of(self.vhost) for node in self.nodes]

    def on(self, number: int) -> Broker:
        """One node."""
        return Broker(self.nodes[number], self.vhost, self.nodes[number].uri_of(self.vhost))

    def at(self, address: str) -> int:
        """The number of the node that is reached at ``host:port``, or whose Erlang name it is."""
        for number, node in enumerate(self.nodes):
            if address in (f"127.0.0.1:{node.ports.amqp}", node.node):
                return number
        raise AssertionError(f"no node of the cluster is {address}")

    async def kill(self, number: int) -> None:
        await asyncio.to_thread(self.nodes[number].kill)

    async def stop(self, number: int) -> None:
        await asyncio.to_thread(self.nodes[number].stop)

    async def start(self, *numbers: int) -> None:
        """Start nodes at the same time: one that was not the last to stop may wait for others."""
        await asyncio.gather(*(asyncio.to_thread(self.nodes[number].start) for number in numbers))

    def freeze(self, number: int) -> None:
        self.nodes[number].freeze()

    def thaw(self, number: int) -> None:
        self.nodes[number].thaw()

    async def part(self, number: int) -> None:
        """Part a node from the others until `join`: it refuses their cookie, and they refuse its."""
        others = [node.node for node in self.nodes if node is not self.nodes[number]]
        names = ",".join(f"'{name}'" for name in others)
        await self.ctl(
            number,
            "eval",
            f"[begin erlang:set_cookie(N, parted), erlang:disconnect_node(N) end || N <- [{names}]].",
        )

    async def join(self, number: int) -> None:
        """End what `part` began."""
        others = [node.node for node in self.nodes if node is not self.nodes[number]]
        names = ",".join(f"'{name}'" for name in others)
        cookie = self.nodes[number].cookie
        await self.ctl(number, "eval", f"[erlang:set_cookie(N, '{cookie}') || N <- [{names}]].")

    async def whole(self) -> None:
        """Wait until every node says that all run: one that was parted stops first, and starts again."""
        for number in range(len(self.nodes)):
            while not await asyncio.to_thread(self._sees_all, number):  # noqa: ASYNC110  # the node tells nobody
                await asyncio.sleep(RETRY_S)

    def _sees_all(self, number: int) -> bool:
        try:
            found = self.nodes[number].api("GET", "nodes")
        except OSError:
            return False
        return sum(bool(each["running"]) for each in found) == len(self.nodes)

    @asynccontextmanager
    async def connected(self, *numbers: int) -> AsyncIterator[AbstractConnection]:
        """A connection to the first of these nodes that takes one: not all may have begun with a new virtual host."""
        for number in itertools.cycle(numbers):
            try:
                connection = await aio_pika.connect(self.uris[number], timeout=CONNECT_S)
            except FAILURES:
                await asyncio.sleep(RETRY_S)
                continue
            async with connection:
                yield connection
            return

    async def ctl(self, number: int, *arguments: str) -> str:
        return await asyncio.to_thread(self.nodes[number].ctl, *arguments)

    async def queue(self, number: int, name: str) -> Any:
        """What the management API of one node says about a queue."""
        return await self.on(number).queue(name)

    async def home_of(self, number: int, queue: str) -> int:
        """The node that a queue lives on, or whose replica leads it; asked of node *number*."""
        return self.at((await self.queue(number, queue))["node"])

    def begin(self) -> None:
        """Have every node run, and take a virtual host that nobody used."""
        for node in self.nodes:
            node.thaw()
        with ThreadPoolExecutor(NODES) as threads:
            list(threads.map(PrivateBroker.start, self.nodes))
        self.vhost = f"test-{next(_numbers)}"
        for tries in range(30):
            try:
                self.nodes[0].create_vhost(self.vhost)
            except OSError:
                # It waits for all nodes, of which one has only just come back, or its HTTP is not there yet.
                if tries == 29:
                    raise
                time.sleep(1)
            else:
                return


@contextmanager
def rabbitmq_cluster(
    version: str = "installed", *, net_ticktime: int = NET_TICKTIME, **settings: str
) -> Iterator[RabbitCluster]:
    """Three running nodes; *settings* are further lines of rabbitmq.conf (`a__b` is `a.b`)."""
    lines = SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}
    for left in reversed(range(STARTS)):
        with ExitStack() as stack:
            try:
                nodes = _start(stack, version, f"{ERLANG} -kernel net_ticktime {net_ticktime}", lines)
            except BrokerUnavailable:
                # Beside other nodes that start, a free port may be taken by the time it is used.
                if left:
                    continue
                raise
            yield RabbitCluster(nodes)
            return


def _start(stack: ExitStack, version: str, erlang: str, lines: dict[str, str]) -> list[PrivateBroker]:
    nodes: list[PrivateBroker] = []
    for _ in range(NODES):
        beside = nodes[0] if nodes else None
        node = PrivateBroker(programs=programs_of(version), beside=beside, erlang=erlang)
        nodes.append(node)
        stack.callback(node.close)
    names = {
        f"cluster_formation.classic_config.nodes.{number}": node.node for number, node in enumerate(nodes, 1)
    }
    for node in nodes:
        node.configure(lines | names)
    with ThreadPoolExecutor(NODES) as threads:
        list(threads.map(PrivateBroker.start, nodes))
    return nodes
