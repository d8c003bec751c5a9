"""The middleware in front of every REST route: it judges the client's requests and simulates REST's outages."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable

from aiohttp import web
from rateway_simulator.judge.ledger import Ledger
from rateway_simulator.judge.limits import Window
from rateway_simulator.rest.answers import json_answer

USER_AGENT = re.compile(r"DiscordBot \([^()]*(https?://|\S+\.\S+)[^()]*\)")
# Their answers do not depend on the bot, and have limits of their own (docs: Rate Limits, Global Rate Limit).
NOT_COUNTED = re.compile(r"/api(/v\d+)?/(interactions|webhooks)/")
INVALID = frozenset({401, 403, 429})
INVALID_SECONDS = 600.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RestJudge:
    """The judge of `/api`, as aiohttp middleware. Paths outside it pass."""

    def __init__(self, ledger: Ledger, *, per_second: int, most_invalid: int, retry_grace: float) -> None:
        self._ledger = ledger
        self._rate = Window(per_second, 1.0)
        self._per_second = per_second
        self._refused: set[str] = set()
        self._invalid: deque[float] = deque(maxlen=most_invalid + 1)
        self._most_invalid = most_invalid
        self._retry_grace = retry_grace
        self._retry: tuple[float, float] = (0.0, 0.0)
        self._outage: tuple[int, float | None, float] | None = None
        self._outage_over = asyncio.Event()

    def outage(self, status: int, retry_after: float | None, until: float) -> None:
        """REST answers nothing but this status (0: not at all) until then (the loop's time)."""
        self._outage_over.set()
        self._outage_over = asyncio.Event()
        self._outage = (status, retry_after, until)

    def end_outage(self) -> None:
        """REST answers again; requests that hang are dropped."""
        self._outage = None
        self._outage_over.set()

    @web.middleware
    async def judge(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Judge the request, let an outage answer it, or pass it on."""
        if not request.path.startswith("/api"):
            return await handler(request)
        now = asyncio.get_running_loop().time()
        excess = self._judge_request(request, now)
        if self._outage is not None:
            status, retry_after, until = self._outage
            if now < until:
                return self._judged(request, await self._no_answer(status, retry_after, until - now), now)
            self._outage = None
        if excess:
            return self._judged(request, _too_many(1.0, is_global=True), now)
        return self._judged(request, await handler(request), now)

    def _judge_request(self, request: web.Request, now: float) -> bool:
        """Note broken rules; whether the request is one too many."""
        agent = request.headers.get("User-Agent", "")
        # discord.py names itself everywhere but there, and Discord answers it.
        if not USER_AGENT.match(agent) and not NOT_COUNTED.match(request.path):
            self._ledger.violation("rest-user-agent", f"{request.path}: {agent!r}")
        token = request.headers.get("Authorization", "")
        if token and token in self._refused:
            self._ledger.violation("rest-after-401", request.path)
        if self._retry[0] <= now < self._retry[1]:
            self._ledger.violation(
                "rest-before-retry-after", f"{request.path}: {self._retry[1] - now:.3f} s too early"
            )
        if NOT_COUNTED.match(request.path) or self._rate.admit(now):
            return False
        self._ledger.violation("rest-rate", f"{request.path}: more than {self._per_second} in a second")
        return True

    def _judged(self, request: web.Request, response: web.StreamResponse, now: float) -> web.StreamResponse:
        self._ledger.count(f"rest {response.status}")
        if response.status == 401:
            self._refused.add(request.headers.get("Authorization", ""))
        if response.status == 429 and response.headers.get("X-RateLimit-Global") == "true":
            self._retry = (now + self._retry_grace, now + float(response.headers["Retry-After"]))
        if response.status in INVALID:
            self._invalid.append(now)
            if len(self._invalid) > self._most_invalid and now - self._invalid[0] < INVALID_SECONDS:
                self._ledger.violation(
                    "rest-invalid-requests", f"{self._most_invalid + 1} in {now - self._invalid[0]:.0f} s"
                )
                self._invalid.clear()
        return response

    async def _no_answer(self, status: int, retry_after: float | None, seconds: float) -> web.StreamResponse:
        if status == 429:
            return _too_many(1.0 if retry_after is None else retry_after, is_global=True)
        if status:
            headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
            return web.Response(status=status, text=f"simulated {status}\n", headers=headers)
        over = self._outage_over
        try:
            async with asyncio.timeout(None if seconds == float("inf") else seconds):
                await over.wait()
        except TimeoutError:
            pass
        raise web.HTTPServiceUnavailable(text="the simulated outage is over\n")


def _too_many(retry_after: float, *, is_global: bool) -> web.Response:
    return json_answer(
        {"message": "You are being rate limited.", "retry_after": retry_after, "global": is_global},
        status=429,
        headers={
            "Retry-After": f"{retry_after:g}",
            "X-RateLimit-Global": str(is_global).lower(),
            "X-RateLimit-Scope": "global",
        },
    )
