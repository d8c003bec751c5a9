"""The proxy that the gateway starts for ``PROXY_ADDRESS``: a process of its own, watched and replaced.

Nothing of the gateway imports the proxy. It may die or be killed at any time: its bots resume at the next one. The
gateway holds the socket that it listens with, so that a bot that dials meanwhile waits: most libraries give their
session up after a dial that is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import sys
import time

from rateway import exit_codes, hardening, logs
from rateway.backoff import Backoff
from rateway.config import VARIABLES, Settings
from rateway.config.handover import encode_settings
from rateway.runtime.supervisor.supervisor import how_ended, pump_lines
from rateway.transports.proxy_line import STOP, ProxyLine, ProxyStatus

__all__ = ["ProxyChild"]

log = logging.getLogger(__name__)

# A proxy that has lived that long was sound; the next one is started at once.
SOUND_AFTER_S = 30.0
RESTART = Backoff(0.1, 30.0)
# A proxy that does not run for longer than that keeps no bot waiting: their dials are refused, or go to another proxy.
HELD_S = 1.0
# It sends its bots away and waits a moment for them to leave.
STOPS_WITHIN_S = 10.0


class ProxyChild:
    """Keeps one proxy running. :meth:`stop` ends it in order."""

    def __init__(self, settings: Settings) -> None:
        self.status: ProxyStatus | None = None
        """What it said last; None while none runs."""
        self.restarts = 0
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._line: ProxyLine | None = None
        self._held: socket.socket | None = None
        self._stopping = False
        # Why no other is started; empty while one is.
        self._given_up = ""

    def notes(self) -> list[str]:
        """What a person should know of it."""
        if self._given_up:
            return [self._given_up]
        if self.status is None:
            return [f"the gateway proxy is down (restarts: {self.restarts})"]
        return self.status.notes

    async def run(self) -> None:
        """Start it, and again whenever it ends, until it is stopped or cancelled."""
        try:
            await self._keep_running()
        finally:
            self._let_go()

    async def _keep_running(self) -> None:
        failures = 0
        while not self._stopping:
            began = time.monotonic()
            code = await self._one_life()
            if self._is_stopping():
                return
            if code == exit_codes.CONFIGURATION:
                self._given_up = (
                    "the gateway proxy cannot run with these settings: its log says what to change"
                )
                log.error(
                    "%s; the gateway goes on without it", self._given_up, extra={"action": "proxy_died"}
                )
                return
            failures = 0 if time.monotonic() - began >= SOUND_AFTER_S else failures + 1
            delay = RESTART.delay(failures)
            self.restarts += 1
            words = "the gateway proxy ended (%s); starting it again in %.1f s, its bots resume"
            log.error(words, how_ended(code), delay, extra={"action": "proxy_died"})
            if delay > HELD_S:
                self._let_go()
            await asyncio.sleep(delay)

    async def stop(self) -> None:
        """Let it send its bots away and end."""
        self._stopping = True
        # Its own copy is closed first of all that it does: bots that dial then go to another proxy.
        self._let_go()
        process = self._process
        if self._line is not None:
            self._line.send(STOP)
        if process is None or process.returncode is not None:
            return
        try:
            async with asyncio.timeout(STOPS_WITHIN_S):
                await process.wait()
        except TimeoutError:
            log.error("the gateway proxy does not stop: it is killed", extra={"action": "stop"})
            process.kill()

    def _is_stopping(self) -> bool:
        return self._stopping

    def _let_go(self) -> None:
        """Close the socket here: the address is the proxy's alone."""
        if self._held is not None:
            self._held.close()
            self._held = None

    async def _one_life(self) -> int | None:
        """Start the process and listen to it until it has ended; its exit code, None where it could not be started."""
        ours, theirs = socket.socketpair()
        if self._held is None:
            self._held = _socket_for(self._settings.proxy.address)
        passed = [theirs.fileno()] if self._held is None else [theirs.fileno(), self._held.fileno()]
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *hardening.child_command("rateway.proxy.process", *map(str, passed)),
                # Settings, secrets among them, go over the socket.
                env=hardening.child_environment(os.environ, VARIABLES, logs.redact),
                pass_fds=passed,
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                # A terminal's Ctrl-C goes to the whole group; the gateway alone decides.
                start_new_session=True,
            )
        except OSError as error:
            log.error("the gateway proxy cannot be started: %s", error, extra={"action": "proxy_died"})
            ours.close()
            return None
        finally:
            theirs.close()
        assert process.stderr is not None
        before = logs.line_start(sys.stderr, self._settings.log.format).encode()
        pumping = asyncio.create_task(pump_lines(process.stderr, sys.stderr.buffer, before))
        line = self._line = await ProxyLine.open(ours)
        try:
            line.send(encode_settings(self._settings))
            if self._stopping:
                line.send(STOP)
            while (status := await line.read_status()) is not None:
                self.status = status
            return await process.wait()
        finally:
            self.status = self._line = None
            line.close()
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            await asyncio.wait([pumping], timeout=1.0)
            pumping.cancel()


def _socket_for(address: str | None) -> socket.socket | None:
    """Return a socket for the proxy to bind and to listen with; None where only it can tell which one: for a name."""
    host, _, _ = (address or "").rpartition(":")
    try:
        version = ipaddress.ip_address(host.strip("[]")).version
        found = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET)
    except (ValueError, OSError):
        return None
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # The next gateway's proxy shares the address with one that is left behind.
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if version == 6:
        found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return found
