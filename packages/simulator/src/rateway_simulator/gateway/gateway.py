"""The simulated gateway: its connections and sessions, and which event goes to which of them.

The meaning of ops is in `operations.py`, the state of a session in `sessions.py`, injected faults in `injection.py`.
Everything here runs on one event loop and nothing waits, except the GUILD_CREATEs after a READY: they are sent in
slices, so that a start with thousands of guilds does not hold up other connections.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import ssl
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import msgspec
from picows import WSListener, WSUpgradeRequest
from picows.common import WSUpgradeResponse, WSUpgradeResponseWithListener
from rateway_protocol.discord.snowflake import shard_of
from rateway_simulator.gateway import wire
from rateway_simulator.gateway.connection import Connection, Query
from rateway_simulator.gateway.hosts import MAIN, Host, Mode
from rateway_simulator.gateway.sessions import ENDED_BY_CLIENT, Session, buffer_size, message
from rateway_simulator.gateway.upgrades import Upgrades
from rateway_simulator.judge.ledger import Ledger, SessionRecord
from rateway_simulator.judge.limits import IdentifyLimits, Window
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.payloads.values import Json
from rateway_simulator.world import requests, snapshot
from rateway_simulator.world.dispatch import Dispatch
from rateway_simulator.world.visibility import trimmed, visible
from rateway_simulator.world.world import World

# Closes after which Discord holds no session any more.
SESSION_ENDS = frozenset({4003, 4004, 4006, 4007, 4009, *range(4010, 4015)})
# Close codes by which a client ends its session (Gateway, Disconnecting).
CLIENT_ENDS = frozenset({1000, 1001})
VERSIONS = frozenset({"9", "10"})
# How long the stream of guilds may hold the event loop.
SLICE_S = 0.01

encode = msgspec.json.Encoder().encode


class Receive(Protocol):
    """The handling of a client's messages; `operations.receive` is the one that Discord's rules ask for."""

    def __call__(self, gateway: Gateway, connection: Connection, data: bytes, now: float) -> None:
        """Handle one message that arrived at *now*, in seconds of the event loop's clock."""
        ...


class Gateway:
    """All hosts, connections and sessions of the simulated Discord."""

    def __init__(
        self,
        options: SimulatorOptions,
        world: World,
        ledger: Ledger,
        ssl_context: ssl.SSLContext | None,
        receive: Receive,
    ) -> None:
        self.options = options
        self.world = world
        self.ledger = ledger
        self._receive = receive
        self.loop = asyncio.get_running_loop()
        self.token: str = options.token
        self.shards = options.shards
        self.privileged_intents = options.privileged_intents
        self.limits = IdentifyLimits(
            max_concurrency=options.max_concurrency,
            window=options.identify_window,
            total=options.identifies_total,
            remaining=options.identifies_remaining,
            reset=options.identifies_reset,
            now=self.loop.time(),
        )
        self.chance = random.Random(options.seed)
        self.upgrades = Upgrades()
        self.most_guilds = options.max_guilds_per_shard
        # Fault of identifying → until when, and how many identifies it still hits (0: no limit).
        self.identify_faults: dict[str, tuple[float, int]] = {}
        self.sessions: dict[str, Session] = {}
        self.connections: set[Connection] = set()
        self.fatal: dict[tuple[str, int, int, int], int] = {}
        self.members_asked: dict[str, float] = {}
        self.hosts = [
            Host(number, options.host, self._upgrade, ssl_context)
            for number in range(-1, options.resume_hosts)
        ]
        self.deliveries = 0
        self.stream_work = asyncio.Event()
        # Set when a session or connection came, went, or can take more.
        # By how many seconds the latest of all heartbeats was later than its interval.
        self.latest_beat = -float("inf")
        self.changed = asyncio.Event()
        self._attached: dict[str, Connection] = {}
        self._layouts: dict[int, dict[int, list[Session]]] = {}
        self._names: dict[str, bytes] = {}
        self._streaming: deque[Session] = deque()

    # Start and stop

    async def start(self) -> None:
        """Listen on all hosts."""
        for host in self.hosts:
            await host.start(self.options.port if host.number == MAIN else 0)

    async def stop(self) -> None:
        """Stop listening and drop all connections; their sessions are not judged any further."""
        for host in self.hosts:
            await host.stop()
        for connection in list(self.connections):
            connection.cut()
        # Transports report their end in the event loop's next round.
        for _ in range(3):
            await asyncio.sleep(0)

    @property
    def url(self) -> str:
        """The main host's bare URL."""
        return self.hosts[0].url

    def resume_host(self, number: int) -> Host:
        """Return the host by its number; MAIN is the main one."""
        return self.hosts[number + 1]

    # Dialling

    def _upgrade(self, number: int, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        now = self.loop.time()
        self.ledger.count("dial")
        host = self.resume_host(number)
        if host.retry_from <= now < host.retry_at:
            self.ledger.violation("upgrade-before-retry-after", f"{host.retry_at - now:.3f} s too early")
        status = self.upgrades.answer(now)
        retry_after = self.upgrades.retry_after if status else None
        if not status and host.mode is Mode.REFUSING:
            status = host.status
        if status:
            return self._refused_upgrade(host, status, retry_after, now)
        parameters = parse_qs(urlsplit(request.path.decode("latin-1")).query)
        first = {name: values[0] for name, values in parameters.items()}
        query = Query(first.get("v", ""), first.get("encoding", ""), first.get("compress", ""))
        if not query.version:
            self.ledger.violation("query-version", "v is missing")
        if query.encoding not in ("json", "etf"):
            self.ledger.violation("query-encoding", f"encoding is {query.encoding!r}")
        if query.compress and query.compress not in wire.COMPRESSIONS[1:]:
            self.ledger.violation("query-compress", f"compress is {query.compress!r}")
        if query.encoding == "etf":
            return _answer(400, "encoding=etf is not simulated: use encoding=json\n")
        sends = Window(self.options.sends, self.options.sends_window)
        connection = Connection(self, number, query, sends, self.options.backlog_bytes)
        connection.split_bytes, connection.fragment_bytes = (
            self.options.split_bytes,
            self.options.fragment_bytes,
        )
        return connection

    def _refused_upgrade(
        self, host: Host, status: int, retry_after: float | None, now: float
    ) -> WSUpgradeResponseWithListener:
        self.ledger.count(f"upgrade {status}")
        if status == 429 and retry_after is not None and now >= host.retry_at:
            host.retry_from, host.retry_at = now + self.options.retry_grace, now + retry_after
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        return _answer(status, f"simulated {status}\n", headers)

    def opened(self, connection: Connection) -> None:
        """A connection is there: Hello, unless its version or a fault forbids it."""
        self.connections.add(connection)
        connection.hello_at = self.loop.time()
        if connection.query.version and connection.query.version not in VERSIONS:
            self.refuse(connection, "invalid-version", f"v is {connection.query.version!r}", 4012)
            return
        instead = self.upgrades.instead_of_hello(connection.hello_at)
        if instead == "op7_hello":
            connection.send(b'{"t":null,"s":null,"op":7,"d":null}')
        elif instead is None:
            interval = self.options.heartbeat_interval_ms
            connection.send(
                encode({"t": None, "s": None, "op": 10, "d": {"heartbeat_interval": interval, "_trace": []}})
            )

    def received(self, connection: Connection, data: bytes) -> None:
        """A message from a client."""
        self._receive(self, connection, data, self.loop.time())

    def gone(self, connection: Connection, code: int | None) -> None:
        """A connection has ended; its session waits to be resumed, or ends if the client said so."""
        self.connections.discard(connection)
        session = connection.session
        if session is not None and self._attached.get(session.id) is connection:
            self._detach(session)
            if code in CLIENT_ENDS:
                self.end(session, ENDED_BY_CLIENT)

    def drained(self, connection: Connection) -> None:
        """A connection can take more of its guilds."""
        self._stir()

    def _stir(self) -> None:
        self.stream_work.set()
        self.changed.set()

    def all_writable(self) -> bool:
        """Return whether no connection with a session is behind."""
        return all(connection.writable for connection in self._attached.values())

    # Verdicts

    def violation(
        self, connection: Connection, rule: str, detail: str, *, session: Session | None = None
    ) -> None:
        """Note a rule that this connection's client broke, as a violation or a warning."""
        session = session or connection.session
        self.ledger.violation(rule, detail, session=session.id if session else None, shard=connection.shard)

    def refuse(self, connection: Connection, rule: str, detail: str, code: int) -> None:
        """A broken rule that Discord answers with a close."""
        self.violation(connection, rule, detail)
        self.close(connection, code)

    def close(self, connection: Connection, code: int) -> None:
        """Close a connection; whether its session outlives that depends on the code."""
        if connection.closing:
            return
        self.ledger.count(f"close {code}")
        session = connection.session
        connection.close(code, f"simulated {code}")
        if session is not None and self._attached.get(session.id) is connection:
            self._detach(session)
            if code in SESSION_ENDS:
                self.end(session, f"closed with {code}")

    def cut(self, connection: Connection) -> None:
        """Drop a connection without a close frame."""
        connection.cut()

    @staticmethod
    def invalid_session(*, resumable: bool) -> bytes:
        """Op 9."""
        return (
            b'{"t":null,"s":null,"op":9,"d":true}' if resumable else b'{"t":null,"s":null,"op":9,"d":false}'
        )

    def invalidate(self, connection: Connection, *, resumable: bool, why: str) -> None:
        """Op 9 on a running session."""
        connection.send(self.invalid_session(resumable=resumable))
        session, connection.session = connection.session, None
        connection.authenticated, connection.invalidated = False, True
        if session is not None and self._attached.get(session.id) is connection:
            self._detach(session)
            if not resumable:
                self.end(session, why)

    def refuse_identify(self, connection: Connection) -> None:
        """Op 9 to an identify that came too early, a few seconds later."""
        connection.invalidated = True
        op9 = self.invalid_session(resumable=False)
        self.loop.call_later(self.options.identify_refusal_delay, connection.send, op9)

    def refuse_resume(self, connection: Connection, session: Session | None, why: str) -> None:
        """End a session that cannot be resumed, and its other connection if it has one; answer with op 9."""
        self.ledger.count("resume refused")
        connection.invalidated = True
        if session is not None:
            other = self._attached.get(session.id)
            self.end(session, why)
            if other is not None:
                other.session = None
                other.cut()
        if self.options.refuse_with_4007 and session is not None:
            self.close(connection, 4007)
        else:
            connection.send(self.invalid_session(resumable=False))

    # Sessions

    def guilds_of(self, shard: int, count: int) -> Sequence[int]:
        """Return the guilds of one shard."""
        return [guild_id for guild_id in self.world.guild_ids if shard_of(guild_id, count) == shard]

    def meets(self, fault: str) -> bool:
        """Return whether this identify, or the session that it begins, meets that fault."""
        until, count = self.identify_faults.get(fault, (0.0, 0))
        if self.loop.time() >= until or count == 1:
            self.identify_faults.pop(fault, None)
        elif count:
            self.identify_faults[fault] = (until, count - 1)
        return self.loop.time() < until

    def is_held(self, shard: int, count: int) -> bool:
        """Return whether a shard has a session with a connection."""
        return any(
            (each.shard, each.shard_count) == (shard, count) and each.id in self._attached
            for each in self.sessions.values()
        )

    def begin(self, connection: Connection, d: Json, place: tuple[int, int]) -> None:
        """A granted identify: READY, now or after the delay that is set."""
        if self.options.ready_delay:
            self.loop.call_later(self.options.ready_delay, self._ready, connection, d, place)
        else:
            self._ready(connection, d, place)

    def _ready(self, connection: Connection, d: Json, place: tuple[int, int]) -> None:
        if connection.closing:
            return
        options, (shard, count) = self.options, place
        self.drain()
        guilds = self.guilds_of(shard, count)
        session_id = secrets.token_hex(16)
        if options.repeat_session_ids:
            session_id = f"{zlib.crc32(b'%d of %d' % place):032x}"
            self._replace(session_id)
        session = Session(
            id=session_id,
            shard=shard,
            shard_count=count,
            intents=d["intents"],
            large_threshold=d.get("large_threshold") or 50,
            query=connection.query.key(),
            host=shard % options.resume_hosts if options.resume_hosts else MAIN,
            capacity=options.replay_events or buffer_size(len(guilds)),
            keep_seconds=options.replay_seconds,
            presences=Window(options.presences, options.presences_window),
            first=options.first_sequence,
        )
        self.know(session)
        connection.compress_payloads = d.get("compress") is True
        self._attach(session, connection)
        if session.intents & 1 and not self.meets("no_guilds"):
            session.pending = dict.fromkeys(guilds)
        self.ledger.note("ready", shard, session.id)
        self.reply(session, "READY", self._ready_data(session, guilds, connection.query.version))
        if d.get("presence"):
            requests.own_presence(self.world, d["presence"]["status"], d["presence"]["activities"])
            self.drain()
        if session.pending:
            self._streaming.append(session)
        self._stir()

    def _replace(self, session_id: str) -> None:
        """End the session that has this id already: a new one is about to begin under it."""
        session = self.sessions.get(session_id)
        if session is not None:
            connection = self._attached.get(session_id)
            self.end(session, "identified again under the same id")
            if connection is not None:
                connection.session = None
                connection.cut()

    def know(self, session: Session) -> None:
        """Begin to keep a session: one that READY names, or one that another run of the simulator kept."""
        shard, count = session.shard, session.shard_count
        self.sessions[session.id] = session
        self._layouts.setdefault(count, {}).setdefault(shard, []).append(session)
        self.ledger.session_started(
            SessionRecord(session.id, shard, count, session.intents, session.query[2], self.ledger.wall())
        )

    def _ready_data(self, session: Session, guilds: Iterable[int], version: str) -> Json:
        application = self.world.application(self.privileged_intents)
        return {
            "v": int(version or 10),
            "user": self.world.ready_user(),
            "user_settings": {},
            "session_type": "normal",
            "session_id": session.id,
            "resume_gateway_url": self.resume_host(session.host).url,
            "relationships": [],
            "private_channels": [],
            "presences": [],
            "guilds": [{"id": str(guild_id), "unavailable": True} for guild_id in guilds],
            "guild_join_requests": [],
            "geo_ordered_rtc_regions": [],
            "shard": [session.shard, session.shard_count],
            "application": {"id": application["id"], "flags": application["flags"]},
            "_trace": ["simulated"],
        }

    def resume(self, connection: Connection, session: Session, seq: int) -> None:
        """A granted resume: the replay, RESUMED, and the rest of the guilds if READY's stream was cut."""
        old = self._attached.get(session.id)
        if old is not None:
            self._detach(session)
            old.session = None
            old.cut()
        for payload in session.replay(seq):
            connection.send(payload)
        record = self.ledger.sessions[session.id]
        record.resumes += 1
        record.connections += 1
        self._attach(session, connection)
        self.ledger.note("resumed", session.shard, session.id)
        self.reply(session, "RESUMED", {"_trace": ["simulated"]})
        self._stir()

    def _attach(self, session: Session, connection: Connection) -> None:
        session.detached_at = None
        connection.session, connection.shard = session, session.shard
        self._attached[session.id] = connection

    def _detach(self, session: Session) -> None:
        session.detached_at = self.loop.time()
        self.ledger.note("detached", session.shard, session.id)
        self._attached.pop(session.id, None)
        self._stir()

    def end(self, session: Session, why: str) -> None:
        """The session is over and cannot be resumed."""
        if self.sessions.pop(session.id, None) is None:
            return
        self.ledger.session_ended(session.id, why)
        self._attached.pop(session.id, None)
        session.pending.clear()
        self._layouts[session.shard_count][session.shard].remove(session)

    def connection_of(self, session: Session) -> Connection | None:
        """Return the connection that carries the session now."""
        return self._attached.get(session.id)

    def reset_token(self) -> None:
        """Do what Discord does when the day's budget is overrun: end all sessions and reset the token."""
        self.token = secrets.token_hex(16)
        for connection in list(self.connections):
            self.close(connection, 4004)
        for session in list(self.sessions.values()):
            self.end(session, "the token was reset")

    # Dispatching

    def dispatch(self, event: Dispatch) -> None:
        """Send an event to all sessions that should see it."""
        guild_id = event.guild_id
        encoded: dict[int, bytes] = {}
        for count, shards in self._layouts.items():
            for session in shards.get(0 if guild_id is None else shard_of(guild_id, count), ()):
                if not visible(event, session.intents):
                    continue
                if session.pending and guild_id in session.pending and not self._unlocks(session, event):
                    continue
                data = encoded.get(session.intents)
                if data is None:
                    data = encoded[session.intents] = encode(self._seen_by(session, event))
                self.deliver(session, event.name, data)

    def _seen_by(self, session: Session, event: Dispatch) -> Json:
        if event.name != "GUILD_CREATE" or event.guild_id is None or event.d.get("unavailable") is True:
            return trimmed(event, session.intents, self.world.bot_id)
        # Members and presences depend on intents and threshold, as in the stream after READY.
        return snapshot.guild_create(
            self.world,
            event.guild_id,
            intents=session.intents,
            large_threshold=session.large_threshold,
            fresh="unavailable" not in event.d,
        )

    @staticmethod
    def _unlocks(session: Session, event: Dispatch) -> bool:
        """Return whether an event of a guild whose GUILD_CREATE is still due may be sent, which is when none is due any
        more.
        """
        if event.guild_id is None or event.name not in ("GUILD_CREATE", "GUILD_DELETE"):
            return False
        del session.pending[event.guild_id]
        return True

    def dispatch_all(self, events: Iterable[Dispatch]) -> None:
        """Send events in order, after all that waits in the world."""
        self.drain()
        for event in events:
            self.dispatch(event)

    def drain(self) -> None:
        """Send what waits in the world, so that a snapshot taken now comes after all that led to it."""
        if self.world.outbox:
            for event in self.world.drain():
                self.dispatch(event)

    def reply(self, session: Session, name: str, d: Any) -> None:
        """Send an event to one session."""
        self.deliver(session, name, encode(d))

    def deliver(self, session: Session, name: str, data: bytes) -> None:
        """Number an event, keep it, and send it if the session has a connection."""
        if session.deaf and name not in ("READY", "RESUMED"):
            return
        name_bytes = self._names.get(name)
        if name_bytes is None:
            name_bytes = self._names[name] = name.encode()
        seq = session.append((name_bytes, data), self.loop.time())
        self.ledger.sent(session.id, seq, name, data)
        self.deliveries += 1
        connection = self._attached.get(session.id)
        if connection is not None:
            connection.send(message(name_bytes, seq, data))

    # Duties in the background

    async def stream_guilds(self) -> None:
        """Send the GUILD_CREATEs that new sessions wait for, a slice of each session's in turn; never returns."""
        while True:
            self.stream_work.clear()
            deadline = self.loop.time() + SLICE_S
            progress = False
            for _ in range(len(self._streaming)):
                session = self._streaming.popleft()
                if not session.pending or session.id not in self.sessions:
                    self.changed.set()
                    continue
                self._streaming.append(session)
                connection = self._attached.get(session.id)
                if connection is None or connection.writable:
                    self._next_guild(session)
                    progress = True
                if self.loop.time() > deadline:
                    break
            if self.options.guild_delay and progress:
                await asyncio.sleep(self.options.guild_delay)
            elif progress:
                await asyncio.sleep(0)
            else:
                await self.stream_work.wait()

    def _next_guild(self, session: Session) -> None:
        self.drain()
        if not session.pending:
            return
        guild_id = next(iter(session.pending))
        del session.pending[guild_id]
        d = snapshot.guild_create(
            self.world, guild_id, intents=session.intents, large_threshold=session.large_threshold
        )
        self.reply(session, "GUILD_CREATE", d)
        if not session.pending:
            self.changed.set()

    @property
    def streaming(self) -> bool:
        """Whether GUILD_CREATEs of a session are still due."""
        return any(session.pending for session in self._streaming)

    async def sweep(self) -> None:
        """Judge what does not happen: missing heartbeats, sessions that are not resumed. Never returns."""
        missing = self.options.heartbeat_interval_ms / 1000 + self.options.heartbeat_missing
        pause = min(
            1.0, missing / 8, self.options.heartbeat_answer / 4, max(0.02, self.options.replay_seconds / 8)
        )
        while True:
            await asyncio.sleep(pause)
            now = self.loop.time()
            for connection in list(self.connections):
                self._sweep(connection, now, missing)
            for session in [session for session in self.sessions.values() if session.expired(now)]:
                self.end(session, "it was not resumed in time")

    def _sweep(self, connection: Connection, now: float, missing: float) -> None:
        if connection.closing:
            return
        asked = connection.beat_asked_at
        if asked is not None and now - asked > self.options.heartbeat_answer:
            connection.beat_asked_at = None
            self.violation(connection, "heartbeat-unanswered", f"for {now - asked:.3f} s")
        since = now - (connection.hello_at if connection.beat_at is None else connection.beat_at)
        if since > missing and connection.authenticated:
            self.refuse(connection, "heartbeat-missing", f"for {since:.3f} s", 4009)
        elif since > missing:
            # It never identified: it has no session.
            connection.cut()


def _answer(status: int, text: str, headers: dict[str, str] | None = None) -> WSUpgradeResponseWithListener:
    response = WSUpgradeResponse.create_error_response(status, text.encode(), headers or {})
    return WSUpgradeResponseWithListener(response, None)
