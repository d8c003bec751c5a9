"""Which rules a client of Discord has to keep: the table that the simulated Discord judges by.

A rule is a violation where Discord's documentation or staff demand it. What is only reported, or what libraries in
production do without harm, is a warning.

`docs/simulator.md` shows the same table to people; a test holds the two together. Sources name pages of
Discord's documentation ("Gateway", "Gateway Events", "Rate Limits", "API Reference") or what its staff or
users of the real service reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its name in violations, the rule as a sentence, and who says so."""

    id: str
    sentence: str
    source: str
    warning: bool = False


# Violations.
_TABLE: tuple[tuple[str, str, str], ...] = (
    (
        "query-resume",
        "A resume uses the same v, encoding and compress as the identify that began the session.",
        "Gateway, Resuming",
    ),
    (
        "upgrade-before-retry-after",
        "After an upgrade that was answered 429 with Retry-After its host is not dialled before that time.",
        "Rate Limits, Header Format",
    ),
    (
        "identify-budget",
        "No more identifies in 24 hours than session_start_limit.total.",
        "Gateway, Session Start Limit; staff: all sessions end and the token is reset",
    ),
    (
        "identify-twice",
        "A connection carries one identify or one resume, never a second.",
        "Gateway Close Event Codes, 4005",
    ),
    (
        "identify-after-fatal",
        "After close code 4004 or 4010 to 4014 the same identify is not tried again.",
        "Gateway Close Event Codes (reconnect: false)",
    ),
    (
        "identify-malformed",
        "An identify has token, intents and properties, and a large_threshold of 50 to 250.",
        "Gateway Events, Identify",
    ),
    ("wrong-token", "Identify and resume carry the bot's token.", "Gateway Close Event Codes, 4004"),
    (
        "invalid-shard",
        "shard is [shard_id, num_shards] with 0 <= shard_id < num_shards.",
        "Gateway Close Event Codes, 4010",
    ),
    ("sharding-required", "A shard has at most 2,500 guilds.", "Gateway, Sharding; close code 4011"),
    (
        "invalid-version",
        "The version of the gateway is one that still exists.",
        "Gateway Close Event Codes, 4012",
    ),
    ("invalid-intents", "intents has only bits that are defined.", "Gateway Close Event Codes, 4013"),
    (
        "disallowed-intents",
        "Privileged intents are asked for only where they are switched on.",
        "Gateway Close Event Codes, 4014",
    ),
    (
        "resume-seq-zero",
        "A resume names a sequence that was received: 0 or null is none.",
        "Gateway, Resuming",
    ),
    (
        "resume-seq-ahead",
        "A resume names no sequence above what the session was sent.",
        "Gateway Close Event Codes, 4007",
    ),
    # Heartbeats
    (
        "heartbeat-missing",
        "A heartbeat comes in every heartbeat_interval.",
        "Gateway, Sending Heartbeats; close code 4009",
    ),
    (
        "heartbeat-late",
        "A heartbeat is not later than its interval and the tolerance.",
        "Gateway, Sending Heartbeats",
    ),
    (
        "heartbeat-unanswered",
        "A heartbeat request (op 1) is answered by a heartbeat at once.",
        "Gateway, Heartbeat Requests",
    ),
    ("heartbeat-malformed", "d of a heartbeat is an integer or null.", "Gateway Events, Heartbeat"),
    (
        "heartbeat-ahead",
        "d of a heartbeat is no higher than the last sequence sent.",
        "Gateway Events, Heartbeat",
    ),
    # Sending
    (
        "not-authenticated",
        "Nothing but heartbeats, identify and resume is sent before READY or RESUMED.",
        "Gateway Close Event Codes, 4003",
    ),
    (
        "send-rate",
        "At most 120 payloads in any 60 seconds of a connection, heartbeats included.",
        "Gateway, Rate Limiting; close code 4008",
    ),
    (
        "presence-rate",
        "At most 5 presence updates in any 20 seconds of a session.",
        "Gateway, Rate Limiting; close code 4008",
    ),
    ("payload-size", "A payload has at most 4,096 bytes.", "Gateway, Sending Events; close code 4002"),
    ("undecodable", "A payload is a JSON object with an integer op.", "Gateway Close Event Codes, 4002"),
    (
        "unknown-opcode",
        "A bot sends only ops 1, 2, 3, 4, 6, 8, 31 and 43.",
        "Gateway Close Event Codes, 4001",
    ),
    (
        "presence-malformed",
        "A presence has activities (a list) and a known status, and values of the documented types.",
        "Gateway Events, Update Presence; reported by users: answered with op 9",
    ),
    (
        "voice-malformed",
        "A voice state has guild_id and channel_id (or null), and booleans.",
        "Gateway Events, Update Voice State",
    ),
    (
        "members-malformed",
        "A member request has one guild_id, and query with limit or at most 100 user_ids.",
        "Gateway Events, Request Guild Members",
    ),
    (
        "members-intents",
        "All members need the GUILD_MEMBERS intent, presences the GUILD_PRESENCES intent.",
        "Gateway Events, Request Guild Members",
    ),
    (
        "request-malformed",
        "Ops 31 and 43 have guild ids and the fields that are documented.",
        "Gateway Events, Request Soundboard Sounds, Request Channel Info",
    ),
    (
        "rest-rate",
        "At most 50 REST requests a second, interaction endpoints aside.",
        "Rate Limits, Global Rate Limit",
    ),
    ("rest-after-401", "After a 401 the token is not used any more.", "API Reference, Authentication"),
    ("rest-before-retry-after", "After a 429 no request comes before its Retry-After.", "Rate Limits"),
    (
        "rest-invalid-requests",
        "At most 10,000 answers of 401, 403 or 429 in 10 minutes.",
        "Rate Limits, Invalid Request Limit",
    ),
)

# Warnings.
_WARNINGS: tuple[tuple[str, str, str], ...] = (
    # Dialling
    (
        "query-version",
        "The gateway URL carries v=10 or v=9.",
        "Gateway, Connecting (the default is an old version)",
    ),
    (
        "query-encoding",
        "The gateway URL carries encoding=json or encoding=etf.",
        "Gateway, Connecting (serenity leaves it out)",
    ),
    (
        "query-compress",
        "compress in the gateway URL is zlib-stream or zstd-stream, or is not there.",
        "Gateway, Transport Compression (the answer to others is not known)",
    ),
    # Identifying
    (
        "identify-concurrency",
        "Between two identifies of one bucket (shard_id % max_concurrency) lie at least 5 seconds.",
        "Gateway, Rate Limiting: max_concurrency (answered with op 9, some seconds later)",
    ),
    (
        "identify-intents",
        "intents has only documented bits.",
        "Gateway, List of Intents (interactions.py asks for 1 << 17 by default, and Discord takes it)",
    ),
    (
        "identify-resume-host",
        "resume_gateway_url is for resuming; an identify goes to the url of GET /gateway/bot.",
        "Gateway, Resuming (staff: after op 9 the same connection can be used)",
    ),
    # Resuming
    (
        "resume-token-prefix",
        "The token of a resume comes without the prefix 'Bot '.",
        "reported once, in 2019: close code 4006; eris, oceanic.js, discordgo and twilight send it today",
    ),
    (
        "resume-seq-below-heartbeat",
        "A resume names no sequence below one that a heartbeat of the session has named.",
        "docs/delivery.md: what a heartbeat names may be forgotten",
    ),
    (
        "resume-after-end",
        "A session that the client ended itself (close code 1000 or 1001) is not resumed.",
        "Gateway, Disconnecting (answered with op 9)",
    ),
    (
        "heartbeat-backwards",
        "d of a heartbeat never goes down within a session, reconnects included.",
        "docs/delivery.md: what a heartbeat names may be forgotten",
    ),
    (
        "members-rate",
        "All members of a guild are requested at most once in 30 seconds.",
        "Gateway Events, Request Guild Members; answered with RATE_LIMITED",
    ),
    (
        "nonce-size",
        "A nonce has at most 32 bytes.",
        "Gateway Events, Request Guild Members (it is dropped without notice)",
    ),
    (
        "wrong-shard",
        "A command names a guild of its own shard.",
        "Gateway, Sharding (else no answer ever comes)",
    ),
    # REST
    (
        "rest-user-agent",
        "Every REST request has a User-Agent 'DiscordBot (url, version)'.",
        "API Reference, User Agent (oceanic.js sends another)",
    ),
    (
        "payload-form",
        "Ops 3, 4, 8, 31 and 43 and the presence of an identify have the documented fields and types.",
        "Gateway Events, Send Events (libraries in production send others, and Discord takes them)",
    ),
)

RULES: Mapping[str, Rule] = {row[0]: Rule(*row) for row in _TABLE} | {
    row[0]: Rule(*row, warning=True) for row in _WARNINGS
}
