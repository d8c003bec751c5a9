"""Connect to any of the broker's nodes.

Every host of the address, and every address of a host's name, is tried in random order, each with a time-out of its
own. A silent one holds the others up for half a second only: the next is tried beside it, and the first connection
that is open is used (the method of *Happy Eyeballs*, RFC 8305).
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from rateway.transports.amqp.wire.connect import connect
from rateway.transports.amqp.wire.connection import BrokerRefused, BrokerUnavailable, Connection
from rateway.transports.amqp.wire.uri import AddressSource, AmqpAddress

__all__ = ["Resolver", "addresses_of", "dial", "machines_at"]

# A node that answers does so within milliseconds. Three silent ones before it still leave fail-over below 2 s.
STAGGER_S: Final = 0.5
# Addresses of one name; more are no cluster's nodes.
_MOST_ADDRESSES: Final = 16

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the IP addresses of a host's name; raises OSError."""


async def dial(source: AddressSource, *, name: str, resolve: Resolver | None = None) -> Connection:
    """Connect to one of the nodes of the address that *source* gives now. ``name`` is for the broker's management.

    Raises BrokerRefused when every node refuses, BrokerUnavailable when at least one may be tried again.
    """
    nodes = source.current().nodes()
    random.shuffle(nodes)
    hosts = [_Host(node, name, resolve) for node in nodes]
    connection = await _first(hosts)
    connection.nodes = sum(host.machines for host in hosts)
    return connection


def machines_at(addresses: Iterable[AmqpAddress]) -> int:
    """Return how many machines the addresses of one name stand for, as far as can be known: a machine has one of IPv4,
    one of IPv6, or one of each."""
    families = Counter(":" in address.host for address in addresses)
    return max(families.values(), default=1)


async def addresses_of(node: AmqpAddress, resolve: Resolver | None = None) -> list[AmqpAddress]:
    """Return each address behind the name of a node, at least one; BrokerUnavailable when it has none."""
    if _is_ip(node.host):
        return [node]
    try:
        async with asyncio.timeout(node.connection_timeout):
            found = await (resolve or _resolved)(node.host, node.port)
    except TimeoutError:
        raise BrokerUnavailable(f"the name of the broker at {node} was not resolved in time") from None
    except OSError as error:
        words = error.strerror or type(error).__name__
        raise BrokerUnavailable(f"the broker at {node} cannot be reached: {words}") from None
    each = list(dict.fromkeys(found))[:_MOST_ADDRESSES]
    if len(each) < 2:
        return [node]
    # The certificate is for the name, not for the address behind it.
    server_name = node.server_name or node.host
    return [replace(node, host=ip, server_name=server_name) for ip in each]


class _Host:
    """An attempt to connect to one host: to each of its addresses."""

    def __init__(self, node: AmqpAddress, name: str, resolve: Resolver | None) -> None:
        self._node = node
        self._name = name
        self._resolve = resolve
        self.machines = 1
        """See :func:`machines_at`; 1 until the name has been looked up."""

    async def __call__(self) -> Connection:
        each = await addresses_of(self._node, self._resolve)
        self.machines = machines_at(each)
        random.shuffle(each)
        return await _first([_Address(one, self._name) for one in each])


class _Address:
    """An attempt to connect to one IP address."""

    def __init__(self, address: AmqpAddress, name: str) -> None:
        self._address = address
        self._name = name

    async def __call__(self) -> Connection:
        return await connect(self._address, name=self._name)


async def _first(attempts: Sequence[Callable[[], Awaitable[Connection]]]) -> Connection:
    """Return the first connection that opens; start one attempt after the other, and do not wait for slow ones."""
    waiting = deque(attempts)
    running: set[asyncio.Task[Connection]] = set()
    failures: list[BrokerRefused | BrokerUnavailable] = []
    winner: Connection | None = None
    try:
        while winner is None and (waiting or running):
            if waiting:
                running.add(asyncio.ensure_future(_awaited(waiting.popleft())))
            pause = STAGGER_S if waiting else None
            done, running = await asyncio.wait(running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                try:
                    connection = task.result()
                except (BrokerRefused, BrokerUnavailable) as error:
                    failures.append(error)
                    continue
                if winner is None:
                    winner = connection
                else:
                    connection.abort("another node was faster")
    finally:
        for task in running:
            task.cancel()
        for late in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(late, Connection):
                late.abort("another node was faster")
    if winner is None:
        raise _together(failures)
    return winner


async def _awaited(attempt: Callable[[], Awaitable[Connection]]) -> Connection:
    return await attempt()


def _together(failures: Sequence[BrokerRefused | BrokerUnavailable]) -> BrokerRefused | BrokerUnavailable:
    """Return one failure for all addresses: a refusal only where none of them may answer otherwise in a moment."""
    if len(failures) == 1:
        return failures[0]
    # Sorted: the same failures are one text, which is logged once, in whatever order they came.
    what = "; ".join(sorted({each.what for each in failures}))
    remedy = "; ".join(sorted({each.remedy for each in failures if each.remedy}))
    if all(isinstance(each, BrokerRefused) for each in failures):
        return BrokerRefused(what, remedy)
    return BrokerUnavailable(what, remedy)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


async def _resolved(host: str, port: int) -> list[str]:
    """Return the addresses of the machine's resolver."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(place[0]) for _, _, _, _, place in found]
