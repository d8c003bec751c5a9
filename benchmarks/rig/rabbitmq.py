"""A private RabbitMQ for a benchmark, and how many events it has confirmed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rateway.demo.broker import PrivateBroker

from benchmarks.rig import machine

Counter = Callable[[], int]
# Messages that a queue keeps: what nobody reads must not fill the disk.
KEEP = 50_000


@contextmanager
def rabbitmq() -> Iterator[tuple[Counter, str, list[int]]]:
    """(how many publishes it has confirmed since the start, told seconds late; its address; its processes)."""
    with PrivateBroker(settings={"collect_statistics_interval": "250"}) as broker:

        def confirmed() -> int:
            stats = broker.api("GET", "overview").get("message_stats", {})
            return int(stats.get("confirm", 0))

        assert broker.pid is not None
        yield confirmed, broker.uri, machine.tree(broker.pid)
