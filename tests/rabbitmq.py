"""The broker of the tests: one private RabbitMQ node for a session, a fresh virtual host for each test."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from rateway.demo.broker import PrivateBroker

_numbers = itertools.count(1)

#: Where tools/install-rabbitmq-4 puts RabbitMQ 4.
RABBITMQ_4 = Path(os.environ.get("RATEWAY_CACHE", "/var/cache/rateway"), "rabbitmq-4", "programs")
#: Values of a parameter `version`: the RabbitMQ of `make test`, and 4.x where that is not it.
VERSIONS = [
    pytest.param("installed", id="installed"),
    pytest.param("4", id="4", marks=pytest.mark.world),
]


def programs_of(version: str) -> Path | None:
    """The folder of that RabbitMQ's programs, None for the usual one; the test is skipped where it is missing."""
    if version == "installed":
        return None
    if not (RABBITMQ_4 / "rabbitmq-server").exists():
        pytest.skip("RabbitMQ 4 is not installed here: tools/install-rabbitmq-4, run by root, does that")
    return RABBITMQ_4


@contextmanager
def private_rabbitmq(
    *, management: bool = True, version: str = "installed", **settings: str
) -> Iterator[PrivateBroker]:
    """A private node for one test that needs its own; *settings* are lines of rabbitmq.conf (`a__b` is `a.b`)."""
    lines = {key.replace("__", "."): value for key, value in settings.items()}
    with PrivateBroker(settings=lines, management=management, programs=programs_of(version)) as node:
        yield node


@dataclass(frozen=True, slots=True)
class Broker:
    """One virtual host of a node, empty at first. The node may be restarted: it is shared, but by nobody else now."""

    node: PrivateBroker
    vhost: str
    uri: str

    @property
    def port(self) -> int:
        return self.node.ports.amqp

    async def stop(self) -> None:
        await asyncio.to_thread(self.node.stop)

    async def start(self) -> None:
        await asyncio.to_thread(self.node.start)

    async def kill(self) -> None:
        """SIGKILL; `start` brings the node back with what was on disk."""
        await asyncio.to_thread(self.node.kill)

    async def write_down(self) -> None:
        """Have the node write down which queues there are. It holds that back for some seconds (Mnesia's log; the
        table in which quorum queues find their files), and a node that is killed meanwhile has forgotten them."""
        await self.ctl("eval", "mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()].")

    async def restart(self) -> None:
        await asyncio.to_thread(self.node.restart)

    async def close_connections(self) -> None:
        await asyncio.to_thread(self.node.close_connections, self.vhost)

    async def ctl(self, *arguments: str) -> str:
        """`rabbitmqctl ARGUMENTS`; give `-p`, `broker.vhost` where the command wants it."""
        return await asyncio.to_thread(self.node.ctl, *arguments)

    async def api(self, method: str, path: str, body: object = None) -> Any:
        return await asyncio.to_thread(self.node.api, method, path, body)

    async def queue(self, name: str) -> Any:
        """What the management API says about a queue of this virtual host."""
        return await self.api("GET", f"queues/{quote(self.vhost, safe='')}/{quote(name, safe='')}")

    async def add_full_queue(self, keys: Iterable[str]) -> None:
        """Bind a queue that rejects every message to the first cluster's exchange, under *keys*: what is published
        after the first message that it rejects waits until the queue is gone."""
        vhost = quote(self.vhost, safe="")
        await self.api("PUT", f"exchanges/{vhost}/rateway-1", {"type": "direct", "durable": True})
        full = {"durable": True, "arguments": {"x-max-length": 0, "x-overflow": "reject-publish"}}
        await self.api("PUT", f"queues/{vhost}/full", full)
        for key in keys:
            await self.api("POST", f"bindings/{vhost}/e/rateway-1/q/full", {"routing_key": key})

    async def delete_full_queue(self) -> None:
        await self.api("DELETE", f"queues/{quote(self.vhost, safe='')}/full")

    async def set_policy(
        self, name: str, pattern: str, definition: dict[str, object], to: str = "queues"
    ) -> None:
        body = {"pattern": pattern, "definition": definition, "apply-to": to}
        await self.api("PUT", f"policies/{quote(self.vhost, safe='')}/{name}", body)


@contextmanager
def fresh_vhost(node: PrivateBroker) -> Iterator[Broker]:
    """A virtual host that nobody used before, deleted at the end; starts the node when a test left it stopped."""
    node.start()
    vhost = f"test-{os.getpid()}-{next(_numbers)}"
    uri = node.create_vhost(vhost)
    try:
        yield Broker(node, vhost, uri)
    finally:
        node.start()
        node.delete_vhost(vhost)
