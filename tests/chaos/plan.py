"""The plan of a chaos run: the same seed and count give the same faults, to the letter."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["BOTS_KINDS", "CODES", "KINDS", "LAST", "LOSING_CODES", "Step", "plan"]

# Kind → how often it comes, relative to the others. Quick ones come more often, so that a short run sees many.
KINDS: dict[str, int] = {
    # Processes
    "kill_gateway": 6,
    "kill_runner": 6,
    "kill_supervisor": 3,
    "stop_gateway": 4,
    "freeze": 3,
    # Broker
    "broker_killed": 1,
    "broker_restarted": 1,
    "long_outage_and_gateway_killed": 1,
    "broker_connections_closed": 3,
    "broker_blocks": 2,
    "a_queue_rejects": 2,
    "exchange_deleted": 2,
    # Network
    "broker_network_cut": 5,
    "broker_network_away": 3,
    "broker_network_stalls": 2,
    "broker_network_delayed": 2,
    "discord_network_cut": 3,
    "discord_network_away": 2,
    "discord_network_stalls": 2,
    "discord_network_delayed": 2,
    # Discord
    "cut": 6,
    "op7": 4,
    "op9_resumable": 2,
    "op9_lost": 2,
    "close": 6,
    "close_lost": 1,
    "corrupt": 3,
    "silence": 1,
    "dead_resume_hosts": 2,
    "refusing_resume_hosts": 2,
    "silent_resume_hosts": 1,
    "upgrades_refused": 2,
    "no_hello": 1,
    "op7_for_hello": 2,
    "rest_away_at_start": 2,
    "another_recommendation": 1,
    # The machine
    "disk_full": 3,
    "state_read_only": 2,
    "torn_store": 1,
    "clock_jumps": 3,
}
# Of lanes with proxies and a bot behind them, besides.
BOTS_KINDS: dict[str, int] = {
    "proxy_killed": 4,
    "proxy_stopped": 3,
    "proxies_killed": 2,
    "proxy_frozen": 2,
    "proxy_broker_network_cut": 3,
    "proxy_broker_network_away": 2,
    "proxy_broker_network_stalls": 1,
    "bot_killed": 2,
    "bot_frozen": 1,
    "bot_network_cut": 4,
    "bot_network_away": 1,
    "bot_network_stalls": 1,
}
# Discord's codes that keep or may keep the session (reference, 1.11), one that nobody knows included.
CODES = (1000, 1001, 1011, 1012, 1013, 1014, 4000, 4001, 4002, 4005, 4008, 4242)
# Codes after which Discord holds the session no more.
LOSING_CODES = (4003, 4007, 4009)

# The next fault strikes before this one is recovered from, so often.
TOGETHER = 0.4
# Nothing strikes until these are recovered from: a session that is not stored yet costs another identify
# (docs/delivery.md, "Where it ends").
LAST = frozenset({"op9_lost", "close_lost", "torn_store"})
# These need everything well before them.
FIRST = frozenset({"torn_store", "exchange_deleted"})


@dataclass(frozen=True, slots=True)
class Step:
    """One fault. ``size`` in [0, 1) decides whatever has a size: how long, how many, which variant."""

    number: int
    kind: str
    size: float
    pause: float
    """Seconds of quiet before it."""
    turn: int = 0
    """How many of its kind came before it."""
    together: bool = False
    """The next fault strikes while this one is still felt."""


def plan(seed: int, count: int, *, kinds: dict[str, int] | None = None) -> list[Step]:
    """``count`` faults. Every kind comes once before chance decides alone, as far as ``count`` reaches."""
    chance = random.Random(seed)
    weights = kinds if kinds is not None else KINDS
    once = list(weights)
    chance.shuffle(once)
    rest = chance.choices(list(weights), weights=list(weights.values()), k=max(0, count - len(once)))
    order = (once + rest)[:count]
    chance.shuffle(order)
    steps: list[Step] = []
    for number, kind in enumerate(order, 1):
        follower = order[number] if number < len(order) else None
        together = chance.random() < TOGETHER
        steps.append(
            Step(
                number,
                kind,
                size=chance.random(),
                pause=chance.uniform(0.0, 0.4),
                turn=order[: number - 1].count(kind),
                together=together and kind not in LAST and follower is not None and follower not in FIRST,
            )
        )
    return steps
