"""Everything that can be set about the simulated Discord, in one frozen record."""

from __future__ import annotations

from dataclasses import dataclass, field

from rateway_simulator.faults import Scheduled
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.people import TOKEN

# GUILD_MEMBERS, GUILD_PRESENCES, MESSAGE_CONTENT (docs: Gateway, Privileged Intents).
PRIVILEGED = 1 << 1 | 1 << 8 | 1 << 15
# "As fast as the machine can" as a rate.
FLAT_OUT = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """Settings of one simulated Discord. Seconds unless the name says otherwise; the defaults are Discord's."""

    world: WorldOptions = field(default_factory=WorldOptions)
    # Where to listen; port 0 takes a free one.
    host: str = "127.0.0.1"
    port: int = 0
    api_port: int = 0
    # How many further ports resume_gateway_url points to, by shard; 0: the main one.
    resume_hosts: int = 1
    # wss and https with a certificate made at the start.
    tls: bool = False
    token: str = field(default=TOKEN, repr=False)
    # Recommended by GET /gateway/bot.
    shards: int = 1
    # num_shards must be a multiple of this (very large bots), else 4010.
    shards_multiple: int = 1
    max_guilds_per_shard: int = 2500
    max_concurrency: int = 1
    identify_window: float = 5.0
    # After how long op 9 answers an identify that came too early: "after a few seconds" (api-docs#1328).
    identify_refusal_delay: float = 2.5
    identifies_total: int = 1000
    # Left at the start; None: all.
    identifies_remaining: int | None = None
    identifies_reset: float = 86_400.0
    # Privileged intents that are switched on; others are refused with 4014.
    privileged_intents: int = PRIVILEGED
    heartbeat_interval_ms: int = 41_250
    # A beat later than its interval by this much is late, by that much is missing: the connection is closed.
    heartbeat_tolerance: float = 10.0
    heartbeat_missing: float = 15.0
    # A requested heartbeat has to come within this time.
    heartbeat_answer: float = 5.0
    sends: int = 120
    sends_window: float = 60.0
    presences: int = 5
    presences_window: float = 20.0
    members_window: float = 30.0
    payload_bytes: int = 4096
    # Events kept for a resume; None: max(100, min(3500, 75 x guilds of the shard)).
    replay_events: int | None = None
    # How long an event, and a session without a connection, is kept.
    replay_seconds: float = 180.0
    # How a resume from a forgotten sequence is refused: op 9 (false) or close code 4007.
    refuse_with_4007: bool = False
    # Give each identify of a shard the same session id, as Spacebar does (Discord never does).
    repeat_session_ids: bool = False
    # The number of a session's first event, its READY: 1 at Discord, 0 at Spacebar.
    first_sequence: int = 1
    # Between identify and READY; between one guild's GUILD_CREATE and the next.
    ready_delay: float = 0.0
    guild_delay: float = 0.0
    # Events a second from the world's mix, in all or for each session: 0 none, FLAT_OUT as fast as possible.
    rate: float = 0.0
    rate_per_shard: bool = False
    # Take events from a recorded pool instead of the living world: cheap, but the world stands still meanwhile.
    recorded: bool = False
    # How many different events the pool has, all shards together.
    recorded_pool: int = 10_000
    # No more than so many events from the source, in all; None: no end.
    source_events: int | None = None
    # Split gateway messages over WebSocket messages (zlib-stream only) or over frames of at most so many bytes.
    split_bytes: int = 0
    fragment_bytes: int = 0
    # A connection whose reader is further behind than this is cut.
    backlog_bytes: int = 256 << 20
    rest_per_second: int = 50
    # Answers of 401, 403 and 429 in 10 minutes.
    rest_invalid: int = 10_000
    # What was under way when a 429 was answered may still come for so long.
    retry_grace: float = 0.5
    # Seed of the source's and the faults' chance; the world has its own.
    seed: int = 1
    scenario: tuple[Scheduled, ...] = ()
    # Events that the ledger remembers, 26 bytes each.
    ledger_events: int = 20_000_000
