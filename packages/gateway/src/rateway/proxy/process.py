"""The proxy that the gateway starts, as a program: ``python -P -m rateway.proxy.process DESCRIPTOR``.

Its settings come over the socket pair, and the end of that is its stop (``transports/proxy_line.py``).
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys

import uvloop
from rateway import hardening, logs
from rateway.config.handover import decode_settings
from rateway.proxy.proxy import Proxy, tune_memory
from rateway.transports.proxy_line import ProxyLine

__all__ = ["work"]

STATUS_EVERY_S = 1.0


def work(descriptor: int) -> int:
    """Run the proxy; ``descriptor`` is its end of the socket pair to the gateway. The exit code."""
    end = socket.socket(fileno=descriptor)
    # The gateway alone decides; a stop reaches the proxy over the line.
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    hardening.ignore_ending_signals()
    hardening.keep_memory_private()
    return uvloop.run(_work(end))


async def _work(end: socket.socket) -> int:
    line = await ProxyLine.open(end)
    first = await line.read()
    if first is None:
        return 0
    settings = decode_settings(first)
    logs.configure(settings.log.level, settings.log.format, secrets=settings.secrets(), process="proxy")
    tune_memory()
    proxy = Proxy(settings)
    telling = asyncio.create_task(_tell(line, proxy))
    listening = asyncio.create_task(_listen(line, proxy))
    try:
        return await proxy.run()
    finally:
        telling.cancel()
        listening.cancel()


async def _tell(line: ProxyLine, proxy: Proxy) -> None:
    while True:
        line.send(proxy.status())
        await asyncio.sleep(STATUS_EVERY_S)


async def _listen(line: ProxyLine, proxy: Proxy) -> None:
    while await line.read() is not None:
        pass
    proxy.stop()


if __name__ == "__main__":
    sys.exit(work(int(sys.argv[1])))
