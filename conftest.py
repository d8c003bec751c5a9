"""Fixtures and settings that all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from rateway import logs
from rateway.demo.broker import PrivateBroker

from tests.rabbitmq import Broker, fresh_vhost, private_rabbitmq

# The machine is shared, so an example's time says nothing; a failing example is printed and reproducible.
settings.register_profile(
    "rateway", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
# For `make sanitize MINUTES=…`: other examples each time, and more.
settings.register_profile("search", settings.get_profile("rateway"), derandomize=False, max_examples=300)
settings.load_profile("rateway")

# A shell lets what it starts in the background ignore these two, and the processes that tests start inherit that.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


ROOT = Path(__file__).parent
#: What `make test-fast` runs: pure parts, and fakes of what is outside. No broker, no browser, no process.
FAST = (
    "packages/client/tests/client/test_seen.py",
    "packages/gateway/tests/cache",
    "packages/gateway/tests/config",
    "packages/gateway/tests/delivery",
    "packages/gateway/tests/fleet",
    "packages/gateway/tests/fast_path",
    "packages/gateway/tests/session",
    "packages/protocol/tests",
    "packages/simulator/tests/judge",
)
#: Files below these that alone take as long as all the others together.
SLOW = ("packages/gateway/tests/cache/test_odd_events.py", "packages/gateway/tests/cache/test_properties.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make test-fast` runs."""
    for item in items:
        path = item.path.relative_to(ROOT).as_posix() if item.path.is_relative_to(ROOT) else ""
        if path.startswith(FAST) and path not in SLOW:
            item.add_marker(pytest.mark.fast)


@pytest.fixture(autouse=True)
def nothing_is_secret_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test tells the log to hide is no secret in the next."""
    monkeypatch.setattr(logs, "_hidden", logs._Hidden())


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[PrivateBroker]:
    """The session's RabbitMQ node. Tests that only need a place to publish take `broker` instead."""
    with private_rabbitmq() as node:
        yield node


@pytest.fixture
def broker(rabbitmq: PrivateBroker) -> Iterator[Broker]:
    """A fresh virtual host: `broker.uri`; the node itself may be stopped, killed and restarted through it."""
    with fresh_vhost(rabbitmq) as each:
        yield each
