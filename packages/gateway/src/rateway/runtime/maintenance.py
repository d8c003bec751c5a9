"""Find what only shows over time: shards that have gone quiet, sessions that are too old, a cache that is not complete.

It reads the gateway's status: it costs events nothing, and is the same for one process and for several.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from rateway.runtime.monitoring.health import unrouted
from rateway.runtime.monitoring.status import GatewayStatus, ProcessStatus, ShardStatus

log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
# Twice what one shard's new session takes: identifies of a bucket are five seconds apart.
FILL_EVERY_S = 10.0
# A session that dispatches nothing but interactions for so long is one that Discord has half forgotten.
QUIET_AFTER_LOOKS = 60

# A live shard without an event for so long is named, if most others had one within the last minute.
QUIET_S = 600.0
LIVELY_S = 60.0
# A guild that was left a moment ago may still be named by a few events.
UNKNOWN_GUILD_EVENTS = 10
# Shards that a note names one by one.
MOST_NAMED = 20

__all__ = ["Maintenance", "Renewal", "quiet_shards", "sick_notes", "unread_notes"]


@dataclass(frozen=True, slots=True)
class Look:
    """One reading of the status: the session and sequence of each shard; the interactions and guilds of each cluster so
    far.
    """

    shards: dict[int, tuple[int, str | None, int]]
    interactions: dict[int, int]
    guilds: dict[int, int]

    @classmethod
    def of(cls, status: GatewayStatus) -> Look:
        return cls(
            {
                shard.shard: (shard.cluster, shard.session, shard.received)
                for shard in status.shards
                if shard.state == "live"
            },
            {cluster.cluster: cluster.events.get("INTERACTION_CREATE", 0) for cluster in status.clusters},
            {cluster.cluster: cluster.events.get("GUILD_CREATE", 0) for cluster in status.clusters},
        )


def quiet_shards(before: Look, now: Look) -> list[int]:
    """Return shards with the same session at both looks whose events in between can all have been interactions.

    Clusters that never saw a guild are left out: without guilds, or without guild intents, silence is nothing new.
    """
    quiet = []
    for shard_id, (cluster, session, received) in now.shards.items():
        was = before.shards.get(shard_id)
        if was is None or was[1] != session or session is None or not now.guilds.get(cluster):
            continue
        interactions = now.interactions.get(cluster, 0) - before.interactions.get(cluster, 0)
        if received - was[2] <= interactions:
            quiet.append(shard_id)
    return quiet


def sick_notes(shards: Sequence[ShardStatus]) -> list[str]:
    """Return the operator's notes about sessions that are live and do not receive what they should."""
    live = [shard for shard in shards if shard.state == "live"]
    lively = [shard for shard in live if shard.dispatch_s is not None and shard.dispatch_s <= LIVELY_S]
    quiet = [shard for shard in live if shard.dispatch_s is not None and shard.dispatch_s >= QUIET_S]
    unknown = [shard for shard in live if shard.unknown_guild_events >= UNKNOWN_GUILD_EVENTS]
    renew = "`rateway restart-shard N --new-session` renews the session of one, for one identify"
    notes = []
    if quiet and 2 * len(lively) >= len(live):
        longest = max(shard.dispatch_s or 0.0 for shard in quiet)
        notes.append(
            f"{len(quiet)} shards are live and have had no event for up to {longest / 60:.0f} min, while others have: "
            f"{_named(quiet)}. {renew}"
        )
    if unknown:
        count = sum(shard.unknown_guild_events for shard in unknown)
        notes.append(
            f"{count} events were about guilds that never came, on the shards {_named(unknown)}. {renew}"
        )
    return notes


def unread_notes(processes: Sequence[ProcessStatus]) -> list[str]:
    """Return the operator's notes about messages between this gateway's processes that were passed over."""
    by_role = [
        f"{process.role}: {process.messages_unread}" for process in processes if process.messages_unread
    ]
    if not by_role:
        return []
    note = (
        "messages between the gateway's own processes were passed over, because they could not be read or carried out "
        f"({', '.join(by_role)}). This is a fault of the gateway: the log names the first of them; please report it"
    )
    return [note]


def _named(shards: Sequence[ShardStatus]) -> str:
    names = ", ".join(str(shard.shard) for shard in shards[:MOST_NAMED])
    return names + (" …" if len(shards) > MOST_NAMED else "")


@dataclass(frozen=True, slots=True)
class Renewal:
    """New sessions of our own will: ``renew(shard, why)`` takes one if ``may`` says that the day has room for it."""

    max_age_s: float | None
    """SESSION_MAX_AGE, the age at which a session is renewed; None for no limit."""
    may: Callable[[], bool]
    renew: Callable[[int, str], bool]
    fills_cache: bool = False
    """CACHE_RENEW: whether a shard takes a new session for what its guilds came without."""


class Maintenance:
    """``status`` is asked once a minute, and every ten seconds where the cache may be filled."""

    def __init__(self, status: Callable[[], Awaitable[GatewayStatus]], renewal: Renewal | None) -> None:
        self._status = status
        self._renewal = renewal
        self._looks: deque[Look] = deque(maxlen=QUIET_AFTER_LOOKS + 1)
        self._said: set[int] = set()
        # Shards that took a new session to fill the cache, and for which incompleteness: one is enough.
        self._filled: dict[int, int] = {}
        # Whose events no queue takes, as it was said last.
        self._said_unrouted: list[str] = []

    async def run(self) -> None:
        """Look after things, until cancelled."""
        fills = self._renewal is not None and self._renewal.fills_cache
        a_minute = round(LOOK_EVERY_S / FILL_EVERY_S) if fills else 1
        for looks in itertools.count(1):
            await asyncio.sleep(FILL_EVERY_S if fills else LOOK_EVERY_S)
            status = await self._status()
            if looks % a_minute == 0:
                self.look(status)
            if fills:
                self.fill(status)

    def look(self, status: GatewayStatus) -> None:
        """One look."""
        self._looks.append(Look.of(status))
        self._report_unrouted([reason.text for reason in unrouted(status.clusters)])
        if len(self._looks) > QUIET_AFTER_LOOKS:
            self._report_quiet(quiet_shards(self._looks[0], self._looks[-1]))
        if self._renewal is not None:
            self._renew(self._renewal, status.shards)

    def fill(self, status: GatewayStatus) -> None:
        """Let one shard take a new session for what its guilds came without; the next when all are live again."""
        renewal = self._renewal
        if renewal is None or any(shard.state != "live" for shard in status.shards):
            return
        for shard in status.shards:
            if shard.incomplete_since <= self._filled.get(shard.shard, 0):
                continue
            if renewal.may() and renewal.renew(shard.shard, "the cache is incomplete (CACHE_RENEW)"):
                self._filled[shard.shard] = shard.incomplete_since
                log.info(
                    "shard %d: its session is renewed, for its guilds came before all was kept that is kept now "
                    "(CACHE_RENEW)",
                    shard.shard,
                    extra={"shard": shard.shard, "action": "renew"},
                )
            return

    def _report_unrouted(self, found: list[str]) -> None:
        """Say once whose events no queue takes, and once that they have one."""
        for text in found:
            if text not in self._said_unrouted:
                log.warning("%s", text, extra={"action": "unrouted"})
        if self._said_unrouted and not found:
            log.info("each cluster has the queues that others have", extra={"action": "unrouted"})
        self._said_unrouted = found

    def _report_quiet(self, quiet: list[int]) -> None:
        self._said.intersection_update(quiet)
        new = sorted(set(quiet) - self._said)
        self._said.update(new)
        if new:
            log.warning(
                "%d shards have dispatched nothing but interactions for an hour: %s. If the bot's servers are not that "
                "quiet, `rateway restart-shard N --new-session` gets the shard a new session, for one identify",
                len(new),
                ", ".join(map(str, new[:20])) + (" …" if len(new) > 20 else ""),
                extra={"action": "quiet"},
            )

    def _renew(self, renewal: Renewal, shards: list[ShardStatus]) -> None:
        """One session a look, the oldest first: the workers see a gap announced, not a storm."""
        max_age_s = renewal.max_age_s
        if max_age_s is None:
            return
        old = [shard for shard in shards if shard.state == "live" and shard.session_s >= max_age_s]
        if not old or not renewal.may():
            return
        oldest = max(old, key=lambda shard: shard.session_s)
        if renewal.renew(oldest.shard, "the session reached SESSION_MAX_AGE"):
            log.info(
                "shard %d: its session is %.0f h old and is renewed (SESSION_MAX_AGE)",
                oldest.shard,
                oldest.session_s / 3600,
                extra={"shard": oldest.shard, "action": "renew"},
            )
