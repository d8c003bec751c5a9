"""The proxy that the gateway starts, as a program: ``python -P -m rateway.proxy.process DESCRIPTOR [HELD]``.

Its settings come over the socket pair, and so does its stop (``transports/proxy_line.py``). HELD is the descriptor of a
socket to listen with, which the gateway keeps for the next proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys

import uvloop
from rateway import hardening, logs
from rateway.config.handover import decode_settings
from rateway.proxy.proxy import Proxy, tune_memory
from rateway.transports.proxy_line import ProxyLine

__all__ = ["work"]

log = logging.getLogger(__name__)

STATUS_EVERY_S = 1.0
# A gateway that died is started again within seconds, by hand within half a minute. Its next proxy shares the address
# with this one: until then no dial of a bot is refused.
ORPHANED_S = 30.0


def work(descriptor: int, held_descriptor: int | None = None) -> int:
    """Run the proxy; ``descriptor`` is its end of the socket pair to the gateway, ``held_descriptor`` a socket that it
    listens with. The exit code."""
    end = socket.socket(fileno=descriptor)
    held = None if held_descriptor is None else socket.socket(fileno=held_descriptor)
    # The gateway alone decides, while it lives; a stop reaches the proxy over the line.
    for name in (signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    hardening.ignore_ending_signals()
    hardening.keep_memory_private()
    return uvloop.run(_work(end, held))


async def _work(end: socket.socket, held: socket.socket | None) -> int:
    # Without the gateway it counts: a service manager ends what is left of a service before it starts it again.
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    line = await ProxyLine.open(end)
    first = await line.read()
    if first is None:
        return 0
    settings = decode_settings(first)
    logs.configure(settings.log.level, settings.log.format, secrets=settings.secrets(), process="proxy")
    tune_memory()
    proxy = Proxy(settings, held=held)
    telling = asyncio.create_task(_tell(line, proxy))
    listening = asyncio.create_task(_listen(line, proxy, asked))
    try:
        return await proxy.run()
    finally:
        telling.cancel()
        listening.cancel()


async def _tell(line: ProxyLine, proxy: Proxy) -> None:
    while True:
        line.send(proxy.status())
        await asyncio.sleep(STATUS_EVERY_S)


async def _listen(line: ProxyLine, proxy: Proxy, asked: asyncio.Event) -> None:
    if await line.read() is None:
        words = "the gateway is gone: bots are served for %d s more"
        log.warning(words, ORPHANED_S, extra={"action": "orphaned"})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ORPHANED_S):
                await asked.wait()
    proxy.stop()


if __name__ == "__main__":
    sys.exit(work(*map(int, sys.argv[1:])))
