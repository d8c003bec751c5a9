"""Which faults come, in which order? A seeded plan: the same seed and count give the same faults, to the letter."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["KINDS", "Step", "plan"]

# Kind → how often it comes, relative to the others. Quick ones come more often, so that a short run sees many.
KINDS: dict[str, int] = {
    "kill_gateway": 6,
    "kill_worker": 6,
    "kill_supervisor": 3,
    "stop_gateway": 4,
    "freeze": 2,
    "broker_killed": 1,
    "broker_restarted": 1,
    "broker_away_and_gateway_killed": 1,
    "broker_connections_closed": 5,
    "broker_blocks": 2,
    "broker_network_cut": 5,
    "broker_network_away": 3,
    "broker_network_stalls": 2,
    "a_queue_rejects": 2,
    "cut": 6,
    "op7": 4,
    "op9_resumable": 3,
    "op9_lost": 2,
    "close": 6,
    "corrupt": 3,
    "dead_resume_hosts": 2,
    "refusing_resume_hosts": 2,
    "silent_resume_hosts": 1,
    "upgrades_refused": 2,
    "no_hello": 1,
    "op7_for_hello": 2,
    "rest_away_at_start": 2,
    "another_recommendation": 1,
    "torn_store": 1,
}
# What a machine without these cannot do; a run says so.
NOT_RUN = {
    "state_folder_read_only": "root may write everywhere; tests/transports/test_store.py refuses writes instead",
    "clock_jumps": "the machine's clock is not ours; tests/fleet/test_identify.py moves an injected one",
}
# Discord's codes that keep or may keep the session.
CODES = (1001, 1011, 4000, 4001, 4002, 4005, 4008)


@dataclass(frozen=True, slots=True)
class Step:
    """One fault. ``size`` in [0, 1) decides whatever has a size: how long, how many, which code."""

    number: int
    kind: str
    size: float
    pause: float
    """Seconds of quiet before it."""

    def code(self) -> int:
        return CODES[int(self.size * len(CODES))]


def plan(seed: int, count: int, *, kinds: dict[str, int] | None = None) -> list[Step]:
    """``count`` faults. Every kind comes once before chance decides alone, as far as ``count`` reaches."""
    chance = random.Random(seed)
    weights = kinds if kinds is not None else KINDS
    once = list(weights)
    chance.shuffle(once)
    rest = chance.choices(list(weights), weights=list(weights.values()), k=max(0, count - len(once)))
    order = (once + rest)[:count]
    chance.shuffle(order)
    return [
        Step(number, kind, chance.random(), chance.uniform(0.1, 0.6)) for number, kind in enumerate(order, 1)
    ]
