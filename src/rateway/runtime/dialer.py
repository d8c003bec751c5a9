"""Who may open a connection to Discord now? The whole host's handshakes, slowed down together.

Resumes need no permit from Discord, but staff ask for staggering when many shards connect at once, and an edge
that answers an upgrade with 429, 403 or 5xx means this host, not one shard (docs/architecture.md, "Dialling").
So at most ``HANDSHAKES`` are under way, each a little after the one before, and one refusal holds all of them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable

from rateway.discord.hosts import TokenHosts
from rateway.transports.websocket import DialError, MessageHandler, dial

log = logging.getLogger(__name__)

# Resumes of a restart: enough that 1,000 shards are back within seconds, few enough not to look like an attack.
HANDSHAKES = 100
# Between two handshakes of a full house; 1,000 shards are spread over half a second.
STAGGER_S = 0.0005
# Dial, TLS and upgrade together: real libraries wait 5–30 s. A resume hurries, for Discord forgets what it keeps for
# it within seconds on a busy shard: a silent host is left soon at first, and later with each failure.
TIMEOUT_S = 15.0
FIRST_RESUME_TIMEOUT_S = 4.0
# Without a Retry-After: doubled for each refusal in a row, up to five minutes.
FIRST_BACKOFF_S = 2.0
LONGEST_BACKOFF_S = 300.0


class Dialer:
    """Opens connections for all shards of this process; one instance, shared."""

    def __init__(
        self,
        *,
        user_agent: str,
        max_message_bytes: int,
        ssl_context: Callable[[], ssl.SSLContext | None],
        token_hosts: TokenHosts | None = None,
    ) -> None:
        self.on_refusal: Callable[[float], None] = lambda seconds: None
        """Hears for how many seconds dials are held, so that the host's other processes hold theirs as well."""
        self._headers = {"User-Agent": user_agent}
        self._max_message_bytes = max_message_bytes
        self._make_ssl_context = ssl_context
        self._token_hosts = token_hosts
        self._ssl_context: ssl.SSLContext | None = None
        self._slots = asyncio.Semaphore(HANDSHAKES)
        self._closed_until = 0.0
        self._refusals = 0
        self._refused_with = 0

    def refusal(self) -> str:
        """Why no shard of this host may dial now, in words; empty when they may."""
        if asyncio.get_running_loop().time() >= self._closed_until:
            return ""
        answer = f" with HTTP {self._refused_with}" if self._refused_with else ""
        return f"Discord refuses connections{answer}, so all shards of this host wait"

    async def dial(self, url: str, handler: MessageHandler, *, resuming: bool, failures: int) -> None:
        """Open ``url`` when this host may; ``handler.opened`` is told. Raises DialError.

        ``failures``: how many dials of this shard have failed in a row.
        """
        fault = self._token_hosts.fault(url) if self._token_hosts is not None else ""
        if fault:
            raise DialError(f"the token is not sent to {url.partition('?')[0]}: {fault}")
        hurry = FIRST_RESUME_TIMEOUT_S * 2 ** min(failures, 4)
        async with self._slots:
            await self._wait_for_the_host()
            await asyncio.sleep(random.uniform(0, 2 * STAGGER_S * HANDSHAKES))
            try:
                await dial(
                    url,
                    handler,
                    timeout=min(TIMEOUT_S, hurry) if resuming else TIMEOUT_S,
                    max_message_bytes=self._max_message_bytes,
                    headers=self._headers,
                    ssl_context=self._ssl(url),
                )
            except DialError as error:
                self._judge(error)
                raise
            self._refusals = 0

    def _ssl(self, url: str) -> ssl.SSLContext | None:
        if url.startswith("wss:") and self._ssl_context is None:
            self._ssl_context = self._make_ssl_context()
        return self._ssl_context if url.startswith("wss:") else None

    async def _wait_for_the_host(self) -> None:
        loop = asyncio.get_running_loop()
        # The time may be moved on by another refusal while this one waits; no event announces its end.
        while (delay := self._closed_until - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(delay + random.uniform(0, min(5.0, delay / 4)))

    def hold(self, seconds: float) -> None:
        """Another process of this host was refused: no dial for so long."""
        now = asyncio.get_running_loop().time()
        if now >= self._closed_until:
            self._refused_with = 0
        self._closed_until = max(self._closed_until, now + seconds)

    def _judge(self, error: DialError) -> None:
        """429, 403 and 5xx speak to the host: everybody waits. Other failures are the connection's own."""
        status = error.status
        if status is None or not (status in (403, 429) or status >= 500):
            return
        now = asyncio.get_running_loop().time()
        if now < self._closed_until:
            return  # the others that were under way when the first refusal came
        delay = error.retry_after
        if delay is None:
            delay = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**self._refusals)
        self._refusals += 1
        self._refused_with = status
        self._closed_until = now + delay
        self.on_refusal(delay)
        log.warning(
            "Discord answers connections with HTTP %d; no shard dials for %.1f s (sessions are kept)",
            status,
            delay,
            extra={"action": "dial_refused"},
        )
