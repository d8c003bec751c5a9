"""Health, metrics, page and event stream over HTTP, answered from the gateway's status.

One status serves all requests: it is collected once a second while a page follows, every five seconds otherwise (for
the history), and at most once a second for probes and scrapes, however many come.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib.resources
import logging
import re
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

import msgspec
from rateway import logs
from rateway.runtime.monitoring import health, metrics
from rateway.runtime.monitoring.history import History
from rateway.runtime.monitoring.page_feed import PageFeed
from rateway.runtime.monitoring.service_manager import Condition
from rateway.runtime.monitoring.status import GatewayStatus
from rateway.transports.http.answers import Answer, Route, Stream

__all__ = ["HttpViews", "StatusSource"]

log = logging.getLogger(__name__)

JSON = "application/json; charset=utf-8"
FOLLOWED_S = 1.0
UNFOLLOWED_S = 5.0
# An answer that is this young is given again.
FRESH_S = 1.0
# Beyond it the processes count as not answering; a runner has 2 s.
ANSWERS_WITHIN_S = 10.0
# Messages that wait for one who follows slowly; then the stream ends, and the page opens another.
MOST_WAITING = 30


class StatusSource(Protocol):
    """The source of the gateway's status, for any number of processes."""

    async def status(self) -> GatewayStatus:
        """All processes together; those that do not answer are left out."""


class HttpViews:
    """``patience_s`` is RESUME_PATIENCE: how long a shard may take to come back before it counts as away."""

    def __init__(self, source: StatusSource, *, patience_s: float) -> None:
        self.patience_for_answers_s = ANSWERS_WITHIN_S
        self.fresh_s = FRESH_S
        """A status that is younger answers another request."""
        self._source = source
        self._patience = patience_s
        self.rejected: Mapping[str, int] = {}
        """The HTTP server's count of requests that found no slot, by kind."""
        self.history = History()
        self._panel = PageFeed(self.history)
        self._followers: set[asyncio.Queue[bytes | None]] = set()
        self._wanted = asyncio.Event()
        self._looking: asyncio.Task[GatewayStatus] | None = None
        self._last: tuple[GatewayStatus, float] | None = None
        self._began = time.monotonic()
        # Processes by pid and when they answered last.
        self._heard: dict[str, tuple[int, float]] = {}
        # Reasons that do not know their age, by kind and cluster, and when they were first seen.
        self._since: dict[tuple[str, int | None], float] = {}
        self._page, self._page_headers = _page()

    def routes(self) -> Mapping[str, Route | Stream]:
        """Return the routes of the HTTP server. The page holds no data; requests without access get the status alone of
        health.
        """
        return {
            "/": Route(self._answer_page, open=True),
            "/events": Stream(self._follow),
            "/health/live": Route(self._answer_live, open=True, probe=True),
            "/health/ready": Route(self._answer_ready, open=True, probe=True),
            "/metrics": Route(self._answer_metrics),
            "/status": Route(self._answer_status),
        }

    async def run(self) -> None:
        """Keep the history and tell those who follow, until cancelled."""
        while True:
            began = time.monotonic()
            try:
                status = await self._look(0.0)
                if status is not None:
                    self._tell(status)
            except Exception:  # the page must not stay blind, and shards go on either way
                log.exception("the gateway could not be looked at", extra={"action": "http"})
            self._wanted.clear()
            pause = (FOLLOWED_S if self._followers else UNFOLLOWED_S) - (time.monotonic() - began)
            try:
                async with asyncio.timeout(max(0.05, pause)):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    # Looking.

    async def _look(self, fresh_s: float) -> GatewayStatus | None:
        """Return a status at most ``fresh_s`` old, or the last one when the processes do not answer."""
        if self._last is not None and time.monotonic() - self._last[1] < fresh_s:
            return self._last[0]
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._source.status())
        try:
            async with asyncio.timeout(self.patience_for_answers_s):
                status = await asyncio.shield(self._looking)
        except TimeoutError:
            words = "the status was not answered within %.0f s"
            log.error(words, self.patience_for_answers_s, extra={"action": "http"})
            return self._last[0] if self._last is not None else None
        now = time.monotonic()
        self._last = (status, now)
        present = {process.pid for process in status.processes}
        # A process that has another role now (the only one, once it has begun) is not missing.
        self._heard = {role: heard for role, heard in self._heard.items() if heard[0] not in present}
        for process in status.processes:
            self._heard[process.role] = (process.pid, now)
        return status

    def _age(self) -> float:
        return time.monotonic() - (self._last[1] if self._last is not None else self._began)

    def _missing(self) -> dict[str, float]:
        """Return processes that were there and do not answer: for how many seconds."""
        seen = self._last[1] if self._last is not None else self._began
        return {role: seen - at for role, (_, at) in self._heard.items() if at < seen}

    def _tell(self, status: GatewayStatus) -> None:
        wall, missing = time.time(), self._missing()
        sample, happenings = self.history.take(status, time.monotonic(), wall)
        message = self._panel.changes(
            status,
            wall,
            self._verdict(status),
            health.judge_live(status, self._age(), missing),
            health.progress(status),
            sample,
            happenings,
            silent=bool(missing),
        )
        for queue in list(self._followers):
            if queue.qsize() >= MOST_WAITING:
                self._followers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(message)

    def _verdict(self, status: GatewayStatus) -> health.Verdict:
        found = health.verdict(status, self._patience, self._missing())
        # It has every reason that there is: what is not among them is over.
        present = {key for reason in found.reasons for key in _keys(reason)}
        self._since = {key: at for key, at in self._since.items() if key in present}
        return health.Verdict(found.level, found.words, self._dated(found.reasons))

    def _dated(self, reasons: list[health.Reason]) -> list[health.Reason]:
        """Return the reasons, each with how long it has been one."""
        now = time.monotonic()
        return [
            reason
            if reason.since_s is not None
            else msgspec.structs.replace(
                reason, since_s=max(now - self._since.setdefault(key, now) for key in _keys(reason))
            )
            for reason in reasons
        ]

    # Answers.

    async def _follow(self) -> AsyncGenerator[bytes, None]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        status = await self._look(self.fresh_s)
        if status is not None and not self._followers:
            self._tell(status)
        self._followers.add(queue)
        self._wanted.set()
        try:
            yield b"retry: 2000\n\n" + _event(self._panel.everything())
            while (message := await queue.get()) is not None:
                yield _event(message)
        finally:
            self._followers.discard(queue)

    async def _answer_page(self, trusted: bool) -> Answer:
        return Answer(self._page, "text/html; charset=utf-8", headers=self._page_headers)

    async def _answer_live(self, trusted: bool) -> Answer:
        status = await self._look(self.fresh_s)
        return _health(health.judge_live(status, self._age(), self._missing()), trusted)

    async def _answer_ready(self, trusted: bool) -> Answer:
        status = await self._look(self.fresh_s)
        return _health(self._ready(status), trusted)

    def _ready(self, status: GatewayStatus | None) -> health.Health:
        if status is None:
            words = "the gateway's processes do not answer"
            return health.Health(False, [health.Reason("processes", words, since_s=self._age())])
        found = health.judge_ready(status, self._patience, self._missing())
        return health.Health(found.ok, self._dated(found.reasons))

    async def _answer_metrics(self, trusted: bool) -> Answer:
        status = await self._look(self.fresh_s)
        if status is None:
            return Answer(b"the gateway's processes do not answer\n", status=503)
        ready = self._ready(status).ok
        # Thousands of lines: a thread keeps the loop free for whatever else it does.
        body = await asyncio.to_thread(metrics.render, status, ready=ready, rejected=self.rejected)
        return Answer(body, metrics.CONTENT_TYPE)

    async def _answer_status(self, trusted: bool) -> Answer:
        status = await self._look(self.fresh_s)
        if status is None:
            return Answer(b'{"error":"the gateway\'s processes do not answer"}', JSON, status=503)
        return Answer(_redacted(msgspec.json.encode(status)), JSON)

    async def condition(self) -> Condition:
        """For the service manager."""
        status = await self._look(self.fresh_s)
        live = health.judge_live(status, self._age(), self._missing()).ok
        if status is None:
            return Condition(begun=False, stopping=False, live=live, words="no answer yet")
        found = self._verdict(status)
        words = found.words if not found.reasons else f"{found.words} {found.reasons[0].text}"
        return Condition(
            begun=status.state == "running" and any(shard.state != "idle" for shard in status.shards),
            stopping=status.state == "stopping",
            live=live,
            words=logs.escape(logs.redact(words)),
        )


def _keys(reason: health.Reason) -> list[tuple[str, int | None]]:
    """Return the keys by which the age of a reason is remembered: it continues when further clusters join."""
    clusters: list[int] | list[int | None] = reason.clusters or [reason.cluster]
    return [(reason.kind, number) for number in clusters]


def _event(message: bytes) -> bytes:
    return b"data: " + message + b"\n\n"


def _health(found: health.Health, trusted: bool) -> Answer:
    body = {"status": "ok" if found.ok else "failing"}
    if not trusted:
        return Answer(msgspec.json.encode(body), JSON, status=200 if found.ok else 503)
    whole = {**body, "reasons": found.reasons}
    return Answer(_redacted(msgspec.json.encode(whole)), JSON, status=200 if found.ok else 503)


def _redacted(body: bytes) -> bytes:
    return logs.redact(body.decode()).encode()


def _page() -> tuple[bytes, dict[str, str]]:
    """Return the page, and a policy under which nothing but its own script and style runs."""
    text = importlib.resources.files("rateway.transports.http").joinpath("page.html").read_text("utf-8")
    policy = [
        "default-src 'none'",
        f"script-src {_hashes(text, 'script')}",
        f"style-src {_hashes(text, 'style')}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return text.encode(), {"Content-Security-Policy": "; ".join(policy)}


def _hashes(text: str, tag: str) -> str:
    parts = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", text, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
