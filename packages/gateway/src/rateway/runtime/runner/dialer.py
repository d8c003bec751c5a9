"""Pace the connections that a process opens to Discord, host by host.

Resumes need no permit from Discord, but staff ask for staggering when many shards connect at once, and a host that
answers an upgrade with 429, 403 or 5xx means this machine, not one shard (docs/architecture.md, "Dialling"). So at most
``HANDSHAKES`` of a host are under way, each a little after the one before, and one refusal holds all dials of that
host. It holds no other: a session may be resumed at two hosts, and the one that is well is not made to wait for the
one that is not.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Literal
from urllib.parse import urlsplit

from rateway.backoff import Backoff
from rateway.transports.websocket import DialError, MessageHandler, dial
from rateway_protocol.discord.hosts import TokenHosts

__all__ = ["Dialer", "Hold"]

log = logging.getLogger(__name__)

# Resumes of a restart: enough that 1,000 shards are back within seconds, few enough not to look like an attack.
HANDSHAKES = 100
# Between two handshakes of a full house; 1,000 shards are spread over half a second.
STAGGER_S = 0.0005
# Dial, TLS and upgrade together: real libraries wait 5–30 s. A resume hurries, for Discord forgets what it keeps for
# it within seconds on a busy shard: a silent host is left soon at first, and later with each failure.
TIMEOUT_S = 15.0
RESUME_TIMEOUT = Backoff(4.0, TIMEOUT_S)
# Without a Retry-After: doubled for each refusal in a row, up to five minutes. A host that is not well itself (5xx) is
# asked again within a minute, as a shard alone would ask: every second away costs events.
REFUSED = Backoff(2.0, 300.0)
REFUSED_WITH_5XX = Backoff(2.0, 60.0)
# No Retry-After of Discord's is longer than its windows of a day.
LONGEST_RETRY_AFTER_S = 86_400.0
# For so long after a dial without an answer, resumes that have another host go there at once.
AWAY_S = 2.0
# READY names the hosts of resumes; Discord has some ten zones. Beyond that the ones that are well are forgotten.
MOST_HOSTS = 64
# Held hosts that the status names one by one.
MOST_NOTES = 5
# Addresses that got no token and are logged, and characters of each.
MOST_FOREIGN = 20
LONGEST_SHOWN = 200

Reason = Literal["429", "403", "5xx", "silent", "unreachable", "refused", "foreign"]


class Hold:
    """One host name's state: its handshakes, and until when it is held."""

    __slots__ = ("away_until", "held_until", "name", "refusals", "slots", "status", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.slots = asyncio.Semaphore(HANDSHAKES)
        self.held_until = 0.0
        """No dial before (the loop's time)."""
        self.away_until = 0.0
        """Until then shards that have another host dial that one."""
        self.refusals = 0
        self.status = 0
        self.waiting = 0

    def held(self, now: float) -> bool:
        return now < self.held_until

    def away(self, now: float) -> bool:
        """Return whether the host is known to be down: it has just answered 5xx, or not at all."""
        return now < self.away_until


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
        self.on_refusal: Callable[[str, float, int], None] = lambda host, seconds, status: None
        """Told which host is held, for how many seconds and for what status, so that the machine's other processes
        hold it as well."""
        self.failures: Counter[Reason] = Counter()
        """Dials that failed, by reason: ``429``, ``403``, ``5xx``, ``refused`` (another status), ``silent``,
        ``unreachable``, ``foreign`` (the token must not go there)."""
        self._headers = {"User-Agent": user_agent}
        self._max_message_bytes = max_message_bytes
        self._make_ssl_context = ssl_context
        self._token_hosts = token_hosts
        # What was said of addresses that get no token.
        self._foreign: list[str] = []
        self._ssl_context: ssl.SSLContext | None = None
        self._hosts: dict[str, Hold] = {}

    def _foreign_address(self, url: str, fault: str) -> DialError:
        """Nothing is dialled where the token must not go: counted, and said once for each address."""
        self.failures["foreign"] += 1
        reason = f"the token is not sent to {ascii(url.partition('?')[0][:LONGEST_SHOWN])[1:-1]}: {fault}"
        if reason not in self._foreign and len(self._foreign) < MOST_FOREIGN:
            self._foreign.append(reason)
            log.error("%s", reason, extra={"action": "dial_refused"})
        return DialError(reason)

    def refusal(self, host: str) -> str:
        """Return why no shard of this machine may dial *host* now; empty when they may."""
        hold = self._hosts.get(host)
        if hold is None or not hold.held(asyncio.get_running_loop().time()):
            return ""
        answer = f" with HTTP {hold.status}" if hold.status else ""
        return f"{host} refuses connections{answer}, so all shards of this machine wait before they dial it"

    def notes(self) -> list[str]:
        """Return the operator's notes about hosts that refuse connections now."""
        now = asyncio.get_running_loop().time()
        held = [hold for hold in self._hosts.values() if hold.held(now)]
        return [
            f"{hold.name} answers connections with HTTP {hold.status}: it is not dialled for "
            f"{hold.held_until - now:.0f} s"
            for hold in held[:MOST_NOTES]
        ] + self._foreign[:MOST_NOTES]

    async def dial(
        self,
        url: str,
        handler: MessageHandler,
        *,
        resuming: bool,
        failures: int,
        other: str | None = None,
        own: bool = True,
    ) -> None:
        """Open ``url`` as soon as its host may be dialled, and call ``handler.opened``. Raises DialError.

        ``failures``: how many dials of this shard have failed in a row. ``other``: another address for the resume; if
        that host is up and this one is not, DialError is raised at once and nothing is dialled. ``own``: this is the
        session's own host; it does not wait for another one that is held, for whatever reason.
        """
        fault = self._token_hosts.fault(url) if self._token_hosts is not None else ""
        if fault:
            raise self._foreign_address(url, fault)
        hurry = RESUME_TIMEOUT.delay(failures)
        host = self._host(url)
        beside = self._host(other) if other is not None else None
        host.waiting += 1
        try:
            self._leave_if_unwell(host, beside, own)
            async with host.slots:
                self._leave_if_unwell(host, beside, own)
                await self._wait_for(host, beside, own)
                await asyncio.sleep(random.uniform(0, 2 * STAGGER_S * HANDSHAKES))
                self._leave_if_unwell(host, beside, own)
                try:
                    await dial(
                        url,
                        handler,
                        timeout=hurry if resuming else TIMEOUT_S,
                        max_message_bytes=self._max_message_bytes,
                        headers=self._headers,
                        ssl_context=self._ssl(url),
                    )
                except DialError as error:
                    self._judge(host, error)
                    raise
                host.refusals, host.away_until = 0, 0.0
        finally:
            host.waiting -= 1

    def _host(self, url: str) -> Hold:
        name = urlsplit(url).netloc
        found = self._hosts.get(name)
        if found is None:
            if len(self._hosts) >= MOST_HOSTS:
                self._forget_the_well()
            found = self._hosts[name] = Hold(name)
        return found

    def _forget_the_well(self) -> None:
        now = asyncio.get_running_loop().time()
        self._hosts = {name: each for name, each in self._hosts.items() if each.waiting or each.held(now)}

    def _ssl(self, url: str) -> ssl.SSLContext | None:
        if url.startswith("wss:") and self._ssl_context is None:
            self._ssl_context = self._make_ssl_context()
        return self._ssl_context if url.startswith("wss:") else None

    async def _wait_for(self, host: Hold, beside: Hold | None, own: bool) -> None:
        loop = asyncio.get_running_loop()
        # The time may be moved on by another refusal while this one waits; no event announces its end.
        while (delay := host.held_until - loop.time()) > 0:
            self._leave_if_unwell(host, beside, own)
            if beside is not None and (host.away(loop.time()) or not own):
                # Both are unwell: the first that may be dialled again is.
                delay = min(delay, max(beside.away_until, beside.held_until) - loop.time())
            await asyncio.sleep(delay + random.uniform(0, min(5.0, delay / 4)))

    def _leave_if_unwell(self, host: Hold, beside: Hold | None, own: bool) -> None:
        now = asyncio.get_running_loop().time()
        if beside is None or beside.away(now) or beside.held(now):
            return
        if not host.away(now) and (own or not host.held(now)):
            return
        if host.held(now):
            status = host.status
            raise DialError(f"{host.name} answered another shard with HTTP {status}", status)
        raise DialError(f"{host.name} did not answer another shard", silent=True)

    def hold(self, host: str, seconds: float, status: int) -> None:
        """Another process of this machine was refused by *host*: no dial of it for so long."""
        now = asyncio.get_running_loop().time()
        found = self._host(f"//{host}")
        if now + seconds > found.held_until:
            found.held_until, found.status = now + seconds, status
            if status >= 500:
                found.away_until = found.held_until

    def _judge(self, host: Hold, error: DialError) -> None:
        """Judge a failed dial. 429, 403 and 5xx are about the host: all its dials wait. Other failures are the
        connection's own, and turn shards that have another host to that one.
        """
        status = error.status
        self.failures[_reason(error)] += 1
        now = asyncio.get_running_loop().time()
        if status is None:
            host.away_until = max(host.away_until, now + AWAY_S)
            return
        if not (status in (403, 429) or status >= 500):
            return
        if now < host.held_until:
            return  # the others that were under way when the first refusal came
        delay = error.retry_after
        if delay is None or not delay > 0:
            delay = (REFUSED_WITH_5XX if status >= 500 else REFUSED).delay(host.refusals)
        delay = min(delay, LONGEST_RETRY_AFTER_S)
        host.refusals += 1
        host.status = status
        host.held_until = now + delay
        if status >= 500:
            host.away_until = host.held_until
        self.on_refusal(host.name, delay, status)
        log.warning(
            "%s answers connections with HTTP %d; no shard dials it for %.1f s (sessions are kept, and resumed at "
            "their other host where that is well)",
            host.name,
            status,
            delay,
            extra={"action": "dial_refused"},
        )


def _reason(error: DialError) -> Reason:
    if error.status is None:
        return "silent" if error.silent else "unreachable"
    if error.status >= 500:
        return "5xx"
    return "429" if error.status == 429 else "403" if error.status == 403 else "refused"
