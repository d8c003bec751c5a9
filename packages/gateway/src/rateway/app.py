"""The composition root: settings in, exit code out. The only place that constructs and connects."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any

import uvloop
from rateway import __version__, exit_codes, hardening, logs
from rateway.config import ConfigurationError, Settings, load
from rateway.config.broker import broker_address
from rateway.delivery.port import QueueCount
from rateway.native.form import form
from rateway.runtime.control import Control
from rateway.runtime.gateway import Gateway
from rateway.runtime.ignored_signals import say_ignored_signals
from rateway.runtime.maintenance import Maintenance
from rateway.runtime.monitoring.loop_lag import LoopLag
from rateway.runtime.monitoring.queue_watch import QueueWatch
from rateway.runtime.monitoring.service_manager import keep_informed
from rateway.runtime.progress import StartProgress
from rateway.runtime.proxy_child import ProxyChild
from rateway.runtime.runner.memory import tune_garbage_collection
from rateway.transports import control_socket
from rateway.transports.state import StateDir, StateError, refuse_foreign
from rateway.transports.systemd import Notifier

log = logging.getLogger(__name__)

__all__ = ["run"]


def run(settings: Settings) -> int:
    """Run the gateway until it is stopped; return the process's exit code.

    0, 75 when another start may succeed (the disk is full), or 78 for what an operator must change.
    """
    logs.configure(settings.log.level, settings.log.format, secrets=settings.secrets())
    log.info("rateway %s, %s", __version__, form(), extra={"action": "start"})
    tune_garbage_collection()
    # Until the gateway has handlers of its own: the first process of a container has no default for SIGTERM.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hardening.ignore_ending_signals()
    try:
        return uvloop.run(_run(settings))
    except StateError as error:
        log.critical("%s", error, extra={"action": "state_folder"})
        return exit_codes.TEMPORARY if error.passing else exit_codes.CONFIGURATION
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED


async def _run(settings: Settings) -> int:
    say_ignored_signals(asyncio.get_running_loop())
    with StateDir.open(settings.process.state_dir) as state:
        if settings.cache.path is not None:
            refuse_foreign(settings.cache.path, "CACHE_PATH")
        await state.lock(lambda pid: _say_wait(settings, pid))
        gateway = Gateway(settings, state)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, lambda: gateway.stop(end_sessions=state.take_end_sessions()))
        loop.add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(_reload(gateway, settings)))
        loop_lag = LoopLag()
        proxy = ProxyChild(settings) if settings.proxy.address is not None else None
        queues = _queue_watch(settings, gateway)
        control = Control(gateway, loop_lag, proxy, queues)
        progress = StartProgress(gateway, live=sys.stderr.isatty() and settings.log.format == "text")
        async with control_socket.serve(state.path, control.answer):
            maintenance = Maintenance(control.status, gateway.renewal())
            work = [
                progress.run(), loop_lag.run(), maintenance.run(), queues.run(), *_watched(settings, control),
            ]  # fmt: skip
            if proxy is not None:
                work.append(proxy.run())
            beside = [asyncio.create_task(each) for each in work]
            try:
                return await gateway.run()
            finally:
                if proxy is not None:
                    await proxy.stop()
                for task in beside:
                    task.cancel()
                await asyncio.wait(beside, timeout=2.0)


def _queue_watch(settings: Settings, gateway: Gateway) -> QueueWatch:
    """Return what looks for queues without consumers. The AMQP client is imported with the first question only."""
    address = broker_address(settings)

    async def count(names: Iterable[str]) -> list[QueueCount] | None:
        from rateway.transports.amqp.requests.queue_counts import count_queues

        return await count_queues(address, names)

    bound = None
    if settings.broker.management is not None:
        from rateway.transports.rabbitmq_management import RabbitManagement

        bound = RabbitManagement(settings.broker.management, address.current().vhost).bound_to
    return QueueWatch(
        settings.broker.queues, count, bound, lambda: gateway.exchanges, lambda: gateway.given_up
    )


def _watched(settings: Settings, control: Control) -> Iterator[Coroutine[Any, Any, None]]:
    """What shows the gateway to the outside: history, HTTP, the service manager. Loaded only where it is wanted."""
    manager = Notifier.of(os.environ)
    if settings.http.address is None and manager is None:
        return
    from rateway.runtime.monitoring.http_views import HttpViews

    http_views = HttpViews(control, patience_s=settings.session.resume_patience)
    if settings.http.address is not None:
        from rateway.transports.http.server import HttpServer

        yield http_views.run()
        server = HttpServer(settings.http.address, settings.http.token, http_views.routes())
        http_views.rejected = server.rejected
        yield server.run()
    if manager is not None:
        yield keep_informed(manager, http_views.condition)


async def _reload(gateway: Gateway, settings: Settings) -> None:
    """SIGHUP: read the file and the environment again."""
    try:
        gateway.reload(load(settings.source, os.environ))
    except ConfigurationError as error:
        log.error("the changed configuration is not used: %s", error, extra={"action": "reload"})


def _say_wait(settings: Settings, pid: int | None) -> None:
    log.warning(
        "another gateway%s uses STATE_DIR %s; waiting until it has left",
        f" (pid {pid})" if pid else "",
        settings.process.state_dir,
        extra={"action": "lock"},
    )
