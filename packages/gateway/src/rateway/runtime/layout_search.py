"""Find a layout in place of one that Discord refuses, and wait until the day has an identify for each of its shards."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from rateway.config import Settings
from rateway.fleet.choice import Choice, take_recommended
from rateway.fleet.layout import Layout
from rateway.runtime.identify.permits import LocalPermits
from rateway.session.actions import Fatal
from rateway.transports.rest import GatewayBot, RestFailure, backoff

log = logging.getLogger(__name__)

# A shard would hold more guilds than Discord takes.
SHARDING_REQUIRED = 4011
# Invalid shard, sharding required: another number of shards may work.
RESHARDING = frozenset({4010, SHARDING_REQUIRED})
# Layouts that Discord may refuse in a row, with no READY between, before a person has to look.
MOST_LAYOUTS = 3
# Discord's own count of identifies is asked for again this often while a new layout waits for it.
LOOK_AT_BUDGET_EVERY_S = 3600.0
# Beyond the moment at which the count is reset.
RESET_MARGIN_S = 5.0

__all__ = ["MOST_LAYOUTS", "RESHARDING", "LayoutSearch"]


class LayoutSearch:
    """Asks Discord through the permits, which know the day's budget."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._answer: GatewayBot | None = None
        self.note = ""
        """What it waits for, for the operator."""

    def learn(self, answer: GatewayBot) -> None:
        """Take in an answer of Discord's."""
        self._answer = answer

    async def run(
        self,
        refused: Fatal,
        choice: Choice,
        permits: LocalPermits,
        identifies_for: Callable[[Layout], int],
        live: Callable[[], int],
    ) -> Choice:
        """Return the layout that replaces *choice*, once the day has its identifies. Live sessions are kept until then.

        *identifies_for* returns how many a layout needs, *live* how many sessions are live.
        """
        failures = 0
        total = choice.layout.shards
        words = f"Discord refuses {total} shards ({refused.code}: {refused.meaning})"
        log.warning("%s: asking Discord for its recommendation", words, extra={"action": "layout"})
        while True:
            permits.hold_back(f"{words}: another layout is looked for")
            failure = await permits.learn_budget()
            if failure is not None or self._answer is None:
                failures += 1
                wait = backoff(failure, failures, random.random()) if failure is not None else 1.0
                await self._wait(f"{words}, and does not recommend another number", failure, wait)
                continue
            new = take_recommended(
                shards=None,
                recommended=self._answer.shards,
                extra=self._settings.layout.extra,
                per_cluster=self._settings.layout.per_cluster,
                gateway_url=self._answer.url,
                refused=total,
            )
            needed = identifies_for(new.layout)
            governor, now = permits.governor, permits.now()
            if governor.needs(needed, now):
                break
            left, reset = governor.available(now), governor.reset_in(now) or 0.0
            kept = (
                f"{words}. {new.layout.shards} shards take their place, which needs {needed} identifies; {left} are "
                f"left. The {live()} live sessions are kept until the count starts anew in {reset / 3600:.1f} h"
            )
            if refused.code == SHARDING_REQUIRED:
                # A shard with fewer guilds still gets READY, and the others are refused one by one.
                permits.hold_back("")
            await self._wait(kept, None, min(LOOK_AT_BUDGET_EVERY_S, reset + RESET_MARGIN_S))
        log.warning("%s: %s", words, new.words, extra={"action": "layout"})
        return new

    async def ask(
        self, permits: LocalPermits, *, shards: int | None, extra: int, per_cluster: int, refused: int
    ) -> Choice | str:
        """Return the layout of these settings, or why it cannot be taken now: the day has too few identifies.

        *refused*: the total that Discord refused last; 0: none.
        """
        failure = await permits.learn_budget()
        if failure is not None or self._answer is None:
            return failure.text if failure is not None else "Discord does not say what it recommends"
        choice = take_recommended(
            shards=shards,
            recommended=self._answer.shards,
            extra=extra,
            per_cluster=per_cluster,
            gateway_url=self._answer.url,
            refused=refused,
        )
        needed, left = choice.layout.shards, permits.governor.available(permits.now())
        if not permits.governor.needs(needed, permits.now()):
            return f"{needed} shards need as many identifies, and {left} of the day are left"
        return choice

    async def _wait(self, words: str, failure: RestFailure | None, seconds: float) -> None:
        note = words if failure is None else f"{words}: {failure.text}"
        if note.partition(" left.")[0] != self.note.partition(" left.")[0]:
            log.error("%s", note, extra={"action": "layout"})
        self.note = note
        await asyncio.sleep(seconds)
