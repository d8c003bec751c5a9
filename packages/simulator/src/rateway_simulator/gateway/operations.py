"""Carry out the ops that a client sends, and judge the rules about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from rateway_protocol.discord import command_forms
from rateway_protocol.discord import intents as discord_intents
from rateway_protocol.discord.command_forms import Documented, Fault
from rateway_protocol.discord.envelope import FAILURES
from rateway_protocol.discord.opcodes import Opcode
from rateway_protocol.discord.snowflake import shard_of
from rateway_simulator.gateway.connection import Connection
from rateway_simulator.gateway.gateway import Gateway
from rateway_simulator.gateway.hosts import MAIN
from rateway_simulator.gateway.sessions import ENDED_BY_CLIENT, Refusal
from rateway_simulator.judge import identify as judge
from rateway_simulator.judge.limits import Verdict
from rateway_simulator.world import requests

HEARTBEAT_ACK = b'{"t":null,"s":null,"op":11,"d":null}'
PREFIX = "Bot "

Handler = Callable[[Gateway, Connection, Any, float], None]


def receive(gateway: Gateway, connection: Connection, data: bytes, now: float) -> None:
    """A message from a client."""
    options = gateway.options
    if not connection.sends.admit(now):
        gateway.refuse(
            connection, "send-rate", f"more than {options.sends} in {options.sends_window:g} s", 4008
        )
        return
    if len(data) > options.payload_bytes:
        gateway.refuse(connection, "payload-size", f"{len(data)} bytes", 4002)
        return
    try:
        payload = msgspec.json.decode(data)
    except FAILURES as error:
        gateway.refuse(connection, "undecodable", str(error), 4002)
        return
    op = payload.get("op") if isinstance(payload, dict) else None
    if not isinstance(op, int) or isinstance(op, bool):
        gateway.refuse(connection, "undecodable", "no integer op", 4002)
        return
    handler = OPERATIONS.get(op)
    if handler is None:
        gateway.refuse(connection, "unknown-opcode", f"op {op}", 4001)
    elif op not in BEFORE_READY and connection.session is None:
        if connection.invalidated:
            return
        gateway.refuse(connection, "not-authenticated", f"op {op} without a session", 4003)
    else:
        if op not in BEFORE_READY:
            gateway.ledger.count(f"command {Opcode(op).name.lower()}")
        handler(gateway, connection, payload.get("d"), now)


def _heartbeat(gateway: Gateway, connection: Connection, d: Any, now: float) -> None:
    if d is not None and (not isinstance(d, int) or isinstance(d, bool)):
        gateway.refuse(connection, "heartbeat-malformed", f"d is {d!r}", 4002)
        return
    interval = gateway.options.heartbeat_interval_ms / 1000
    since = now - (connection.hello_at if connection.beat_at is None else connection.beat_at)
    gateway.latest_beat = max(gateway.latest_beat, since - interval)
    if since > interval + gateway.options.heartbeat_tolerance:
        gateway.violation(connection, "heartbeat-late", f"after {since:.3f} s, interval {interval:g} s")
    connection.beat_at = now
    connection.beat_asked_at = None
    session = connection.session
    if session is not None:
        named = session.named
        if d is not None and d > session.seq:
            gateway.violation(connection, "heartbeat-ahead", f"d is {d}, the last sent was {session.seq}")
        elif named is not None and (d is None or d < named):
            gateway.violation(connection, "heartbeat-backwards", f"d is {d} after {named}")
        elif d is not None:
            session.name(d)
            gateway.ledger.sessions[session.id].named = d
    connection.send(HEARTBEAT_ACK)


def _identify(gateway: Gateway, connection: Connection, d: Any, now: float) -> None:
    if connection.authenticated:
        gateway.refuse(connection, "identify-twice", "op 2 on a connection that has a session", 4005)
        return
    fault = judge.identify_fault(d)
    if fault is not None:
        gateway.refuse(connection, "identify-malformed", fault, 4002)
        return
    if d.get("presence") is not None:
        form = command_forms.read_identify_presence(d["presence"])
        if not isinstance(form, Documented):
            gateway.refuse(connection, "identify-malformed", form.reason, 4002)
            return
        _warn(gateway, connection, Opcode.IDENTIFY, form)
        d = {**d, "presence": form.d}
    shard, count = d["shard"] if judge.shard_fault(d.get("shard")) is None and d.get("shard") else (0, 1)
    connection.shard = shard
    gateway.ledger.count("identify")
    if connection.host != MAIN and not connection.invalidated:
        gateway.violation(connection, "identify-resume-host", f"on resume host {connection.host}")
    token = d["token"].removeprefix(PREFIX)
    key = (token, shard, count, d["intents"])
    if key in gateway.fatal:
        gateway.violation(connection, "identify-after-fatal", f"tried again after {gateway.fatal[key]}")
    verdict = _fatal_verdict(gateway, d, token, shard, count)
    if verdict is not None:
        rule, detail, code = verdict
        gateway.fatal[key] = code
        gateway.refuse(connection, rule, detail, code)
        return
    if d["intents"] & discord_intents.UNDOCUMENTED:
        gateway.violation(connection, "identify-intents", f"bit {discord_intents.UNDOCUMENTED:#x}")
        d = {**d, "intents": d["intents"] & discord_intents.ALL}
    if gateway.is_held(shard, count):
        # A second session beside one that goes on.
        gateway.ledger.count("identify_beside")
    granted, since = gateway.limits.arrived(shard, now)
    gateway.ledger.note("identify", shard, detail=granted.value)
    if granted is Verdict.BUDGET_SPENT:
        gateway.violation(connection, "identify-budget", "no identify was left today")
        gateway.reset_token()
    elif granted is Verdict.TOO_EARLY:
        bucket = shard % gateway.limits.max_concurrency
        gateway.violation(
            connection, "identify-concurrency", f"{since:.3f} s after the last one of bucket {bucket}"
        )
        gateway.refuse_identify(connection)
    elif gateway.meets("op9_identify"):
        connection.send(gateway.invalid_session(resumable=False))
    else:
        connection.authenticated = True
        if not gateway.meets("no_ready"):
            gateway.begin(connection, d, (shard, count))


def _fatal_verdict(
    gateway: Gateway, d: Any, token: str, shard: int, count: int
) -> tuple[str, str, int] | None:
    """Rule, detail and close code of an identify that cannot be, whatever the time."""
    options, intents = gateway.options, d["intents"]
    if token != gateway.token:
        return "wrong-token", "in an identify", 4004
    shard_fault = judge.shard_fault(d.get("shard"))
    if shard_fault is not None:
        return "invalid-shard", shard_fault, 4010
    if count % options.shards_multiple:
        return "invalid-shard", f"num_shards {count} is not a multiple of {options.shards_multiple}", 4010
    undefined = intents & ~(discord_intents.ALL | discord_intents.UNDOCUMENTED)
    if undefined:
        return "invalid-intents", f"undefined bits {undefined:#x}", 4013
    disallowed = intents & discord_intents.PRIVILEGED & ~gateway.privileged_intents
    if disallowed:
        return "disallowed-intents", ", ".join(discord_intents.names(disallowed)), 4014
    guilds = len(gateway.guilds_of(shard, count))
    if guilds > gateway.most_guilds:
        return "sharding-required", f"shard {shard} of {count} has {guilds} guilds", 4011
    return None


def _resume(gateway: Gateway, connection: Connection, d: Any, now: float) -> None:
    if connection.authenticated:
        gateway.refuse(connection, "identify-twice", "op 6 on a connection that has a session", 4005)
        return
    if (
        not isinstance(d, dict)
        or not isinstance(d.get("token"), str)
        or not isinstance(d.get("session_id"), str)
    ):
        gateway.refuse(connection, "undecodable", "op 6 without token or session_id", 4002)
        return
    gateway.ledger.count("resume")
    record = gateway.ledger.sessions.get(d["session_id"])
    if record is not None:
        connection.shard = record.shard
        gateway.ledger.note("resume", record.shard, record.session, f"from {d.get('seq')!r}")
    if d["token"].startswith(PREFIX):
        gateway.violation(connection, "resume-token-prefix", "the token begins with 'Bot '")
    if d["token"].removeprefix(PREFIX) != gateway.token:
        gateway.refuse(connection, "wrong-token", "in a resume", 4004)
        return
    session = gateway.sessions.get(d["session_id"])
    if session is None or session.expired(now):
        if record is not None and record.ended == ENDED_BY_CLIENT:
            gateway.violation(connection, "resume-after-end", f"session {record.session}")
        gateway.refuse_resume(connection, session, "expired")
        return
    if connection.query.key() != session.query:
        was, now_is = "&".join(session.query), "&".join(connection.query.key())
        gateway.violation(connection, "query-resume", f"{now_is} instead of {was}", session=session)
        gateway.refuse_resume(connection, session, "resumed with another query string")
        return
    seq = d.get("seq")
    seq = seq if isinstance(seq, int) and not isinstance(seq, bool) else session.first - 1
    if session.named is not None and session.first <= seq < session.named:
        gateway.violation(
            connection,
            "resume-seq-below-heartbeat",
            f"{seq} after a heartbeat with {session.named}",
            session=session,
        )
    refusal = session.refusal(seq, now)
    if refusal is Refusal.AHEAD:
        detail = f"{seq}, the last sent was {session.seq}"
        gateway.violation(connection, "resume-seq-ahead", detail, session=session)
        gateway.end(session, "resumed from a sequence never sent")
        gateway.close(connection, 4007)
    elif refusal is not None:
        if refusal is Refusal.NONE:
            gateway.violation(connection, "resume-seq-zero", f"seq is {d.get('seq')!r}", session=session)
        gateway.refuse_resume(
            connection, session, f"resumed from {seq}, kept from {session.forgotten + 1} on"
        )
    else:
        connection.authenticated = True
        gateway.resume(connection, session, seq)


def _documented(
    gateway: Gateway, connection: Connection, op: Opcode, d: Any, rule: str
) -> dict[str, Any] | None:
    """Return the documented form of a command, with a warning if it was not written so; None if Discord refuses it."""
    session = connection.session
    assert session is not None
    form = command_forms.read(op, d, intents=session.intents)
    if not isinstance(form, Documented) and form.fault is Fault.NONCE:
        gateway.violation(connection, "nonce-size", form.reason)
        form = command_forms.read(
            op, {key: value for key, value in d.items() if key != "nonce"}, intents=session.intents
        )
    if not isinstance(form, Documented):
        gateway.violation(connection, "members-intents" if form.fault is Fault.INTENTS else rule, form.reason)
        return None
    _warn(gateway, connection, op, form)
    return form.d


def _warn(gateway: Gateway, connection: Connection, op: Opcode, form: Documented) -> None:
    if form.deviations:
        gateway.violation(connection, "payload-form", f"op {op}: {'; '.join(form.deviations)}")


def _presence(gateway: Gateway, connection: Connection, d: Any, now: float) -> None:
    session = connection.session
    assert session is not None
    presence = _documented(gateway, connection, Opcode.PRESENCE_UPDATE, d, "presence-malformed")
    options = gateway.options
    if presence is None:
        gateway.invalidate(connection, resumable=False, why="malformed presence")
    elif not session.presences.admit(now):
        detail = f"more than {options.presences} in {options.presences_window:g} s"
        gateway.refuse(connection, "presence-rate", detail, 4008)
    else:
        requests.own_presence(gateway.world, presence["status"], presence["activities"])
        gateway.drain()


def _voice(gateway: Gateway, connection: Connection, d: Any, now: float) -> None:
    voice = _documented(gateway, connection, Opcode.VOICE_STATE_UPDATE, d, "voice-malformed")
    if voice is not None and _is_here(gateway, connection, voice["guild_id"]):
        gateway.dispatch_all(requests.voice_update(gateway.world, voice))


def _is_here(gateway: Gateway, connection: Connection, guild_id: str) -> bool:
    """Return whether the guild belongs to the connection's shard; record a warning if not."""
    session = connection.session
    assert session is not None
    owner = shard_of(int(guild_id), session.shard_count)
    if owner != session.shard:
        gateway.violation(connection, "wrong-shard", f"guild {guild_id} is on shard {owner}")
    return owner == session.shard


def _members(gateway: Gateway, connection: Connection, d: Any, now: float) -> None:
    session = connection.session
    assert session is not None
    request = _documented(gateway, connection, Opcode.REQUEST_GUILD_MEMBERS, d, "members-malformed")
    if request is None or not _is_here(gateway, connection, request["guild_id"]):
        return
    guild_id, nonce = request["guild_id"], request.get("nonce")
    if command_forms.whole_guild(Opcode.REQUEST_GUILD_MEMBERS, request):
        wait = gateway.members_asked.get(guild_id, now) - now
        if wait > 0:
            gateway.violation(connection, "members-rate", f"guild {guild_id}, {wait:.3f} s too early")
            meta = {"guild_id": guild_id} | ({"nonce": nonce} if nonce else {})
            gateway.reply(session, "RATE_LIMITED", {"opcode": 8, "retry_after": round(wait, 3), "meta": meta})
            return
        gateway.members_asked[guild_id] = now + gateway.options.members_window
    gateway.drain()
    for chunk in requests.members_chunk(gateway.world, request, intents=session.intents):
        gateway.reply(session, chunk.name, chunk.d)


def _sounds(gateway: Gateway, connection: Connection, d: Any, now: float) -> None:
    session = connection.session
    assert session is not None
    request = _documented(gateway, connection, Opcode.REQUEST_SOUNDBOARD_SOUNDS, d, "request-malformed")
    if request is None:
        return
    here = [guild_id for guild_id in request["guild_ids"] if _is_here(gateway, connection, guild_id)]
    gateway.drain()
    for answer in requests.soundboard_sounds(gateway.world, here):
        gateway.reply(session, answer.name, answer.d)


def _channel_info(gateway: Gateway, connection: Connection, d: Any, now: float) -> None:
    session = connection.session
    assert session is not None
    request = _documented(gateway, connection, Opcode.REQUEST_CHANNEL_INFO, d, "request-malformed")
    if request is not None and _is_here(gateway, connection, request["guild_id"]):
        gateway.drain()
        for answer in requests.channel_info(gateway.world, request):
            gateway.reply(session, answer.name, answer.d)


OPERATIONS: Mapping[int, Handler] = {
    Opcode.HEARTBEAT: _heartbeat,
    Opcode.IDENTIFY: _identify,
    Opcode.PRESENCE_UPDATE: _presence,
    Opcode.VOICE_STATE_UPDATE: _voice,
    Opcode.RESUME: _resume,
    Opcode.REQUEST_GUILD_MEMBERS: _members,
    Opcode.REQUEST_SOUNDBOARD_SOUNDS: _sounds,
    Opcode.REQUEST_CHANNEL_INFO: _channel_info,
}
BEFORE_READY = frozenset({Opcode.HEARTBEAT, Opcode.IDENTIFY, Opcode.RESUME})
