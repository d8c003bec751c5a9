"""All connections of bots in this process: how sessions begin, go on elsewhere, and end.

An IDENTIFY attaches to the tails of its logs first and reads the gateway's cache after that, so that no event falls
between the two. A RESUME needs its session id and the log alone, not the gateway.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec
from rateway.delivery.proxy_port import Gateway, LogReader
from rateway.proxy.log.dispatch import dispatch
from rateway.proxy.log.fanout import Visible
from rateway.proxy.log.reading import Timers
from rateway.proxy.log.replay import PATIENCE, MissedEvents, Replay
from rateway.proxy.log.stream import Feed, Numbers, Position, Stream, gateway_shards
from rateway.proxy.log.tails import Tails
from rateway.proxy.sessions.answers import PendingAnswers
from rateway.proxy.sessions.bot_commands import BotCommands
from rateway.proxy.sessions.bot_connection import BotConnection, Identify, Resume, Wire
from rateway.proxy.sessions.gateway_state import GatewayState
from rateway.proxy.sessions.numbers import CountedNumbers, OffsetNumbers
from rateway.proxy.sessions.session_id import Session, SessionIds
from rateway.proxy.sessions.snapshot import guild_unavailable, ready, without_own_voice
from rateway_protocol.contract.errors import Fault
from rateway_protocol.contract.snapshots import ClusterList, GuildOfShard
from rateway_protocol.discord import intents

__all__ = ["ConnectionLimits", "Connections"]

logger = logging.getLogger(__name__)

# Guilds that are asked for at once.
GUILDS_AT_ONCE: Final = 50
# Snapshots pause while the bot has so many bytes to take.
SNAPSHOT_WAITING: Final = 1 << 20
# Seconds in which a log that has entries brings the first.
FIRST_ENTRY: Final = 0.5
# Seconds that a RESUME waits for the gateway's layout; the log alone is enough where it does not answer.
LAYOUT_PATIENCE: Final = 1.0
# Seconds between two looks at all connections.
LOOK_EVERY: Final = 5.0
# Seconds for which the last snapshot waits for the log to come to what the snapshots contain. discord.py takes a pause
# of two seconds for their end.
HOLD: Final = 0.5
# Seconds after which what a snapshot contains and the log has not brought is taken for filtered by the gateway.
SETTLE: Final = 5.0
# Seconds for which a session over several logs can be resumed.
KEEP_MERGED: Final = 300.0
MOST_MERGED: Final = 256

Work: TypeAlias = Callable[[], Coroutine[Any, Any, object]]
"""What a task does."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of what is done at once."""

    snapshots: int = 8
    """Sessions whose snapshots are being sent; others wait, and their bots with them."""


@dataclass(slots=True)
class _Merged:
    """A session over several logs."""

    stream: Stream
    numbers: CountedNumbers
    left_at: float | None = None


@dataclass(slots=True)
class _Begin:
    """What a session begins with."""

    number: int
    """Of its session id."""
    stream: Stream
    numbers: Numbers
    guilds: dict[int, list[GuildOfShard]]
    """Each shard's guilds that get a GUILD_CREATE: none without the intent."""
    positions: dict[int, Position]
    feeds: list[Feed] = field(default_factory=list)
    missed_since: dict[str, int] = field(default_factory=dict)
    """Up to where the bot's former connection had seen the logs."""


class Connections:
    """All connections. Runs in :meth:`run`; *application* asks for READY's own part where the gateway has none."""

    def __init__(
        self,
        gateway: Gateway,
        reader: LogReader,
        session_ids: SessionIds,
        admits: Callable[[str], bool],
        visible: Visible,
        timers: Timers,
        clock: Callable[[], float],
        application: Callable[[], Awaitable[msgspec.Raw | None]] | None = None,
        limits: ConnectionLimits | None = None,
        replay: Replay | None = None,
    ) -> None:
        self._counts: Counter[str] = Counter()
        self._reader = reader
        self._visible = visible
        self._timers = timers
        self._replay = replay
        self._session_ids = session_ids
        self._admits = admits
        self._clock = clock
        self._application = application
        self._answers = PendingAnswers(clock)
        self._tails = Tails(reader, timers, visible, self._answers, self._on_log_lost)
        self._commands = BotCommands(gateway, self._answers, self._start)
        self._snapshots = asyncio.Semaphore((limits or ConnectionLimits()).snapshots)
        self._tasks: asyncio.TaskGroup | None = None
        self._connections: dict[BotConnection, None] = {}
        # What a connection waits for, and what sets it free when its socket has room.
        self._starting: dict[BotConnection, asyncio.Task[None]] = {}
        self._room: dict[BotConnection, asyncio.Event] = {}
        self._merged: dict[int, _Merged] = {}
        self._missed: dict[BotConnection, MissedEvents] = {}
        self._state = GatewayState(gateway, clock, self._on_layout)
        self._generations = itertools.count(1)

    # For the front.

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                while True:
                    await asyncio.sleep(LOOK_EVERY)
                    self._look()
        finally:
            self._tasks = None
            self._tails.close()

    def connect(self, wire: Wire, version: int, url: str) -> BotConnection:
        """Begin with a bot that has connected; HELLO goes out. *url* becomes its ``resume_gateway_url``."""
        connection = BotConnection(wire, self, version, url, self._clock)
        if connection.state != "closed":
            self._connections[connection] = None
        return connection

    def reconnect_all(self) -> None:
        """Ask all bots to come back, before the end of this process: op 7."""
        for connection in tuple(self._connections):
            connection.reconnect()

    @property
    def counts(self) -> Counter[str]:
        """What happened, by name: ``identified``, ``resumed``, ``refused`` (a RESUME), ``sent`` (events), ``replayed``
        (of these, what bots had missed), ``failed`` (a mistake here)."""
        streams = [each.stream for each in self._connections if each.stream is not None]
        return self._counts + Counter(sent=sum(feed.sent for stream in streams for feed in stream.feeds))

    async def layout(self) -> ClusterList | Fault:
        """Return the gateway's layout, some seconds old at most."""
        return await self._state.layout()

    async def layout_within(self, seconds: float) -> ClusterList | None:
        """Return the layout, the last one known where the gateway does not answer in time; None where there is
        none."""
        return await self._state.layout_within(seconds)

    @property
    def commands(self) -> BotCommands:
        """The commands of bots."""
        return self._commands

    def __iter__(self) -> Iterator[BotConnection]:
        return iter(tuple(self._connections))

    def behind(self, connection: BotConnection) -> tuple[int, int]:
        """Entries of its logs that a connection which resumes has still to get, and the seconds between the last that
        it got and the newest."""
        stream = connection.stream
        if stream is None or connection.state != "resuming":
            return 0, 0
        entries = seconds = 0
        for feed in stream.feeds:
            tail = self._tails.get(feed.log)
            if tail is not None:
                entries += max(0, tail.last - feed.at)
                if feed.at_timestamp:
                    seconds = max(seconds, tail.last_timestamp - feed.at_timestamp)
        return entries, seconds

    # For the connections (bot_connection.Sessions).

    def accepts(self, token: str) -> bool:
        return self._admits(token)

    def identify(self, connection: BotConnection, identify: Identify) -> None:
        self._begin(connection, functools.partial(self._begin_session, connection, identify))

    def resume(self, connection: BotConnection, resume: Resume) -> None:
        self._begin(connection, functools.partial(self._resume_session, connection, resume))

    def command(self, connection: BotConnection, op: int, d: dict[str, Any]) -> None:
        self._commands.carry_out(connection, op, d)

    def beat(self, connection: BotConnection, seq: int) -> None:
        stream = connection.stream
        if stream is None:
            return
        feed = stream.feeds[0]
        if not 0 <= seq <= feed.numbers.present(feed):
            # Of the session before (JDA sends it until it has read READY), or of none: no place of this one.
            return
        feed.numbers.acknowledge(seq)
        self._keep_place(stream, feed.numbers, seq)

    def _keep_place(self, stream: Stream, numbers: Numbers, seq: int) -> None:
        """Remember what the bot has, for its next IDENTIFY."""
        if self._replay is not None:
            self._start(functools.partial(self._replay.keep, stream, numbers.places(seq)))

    def resume_sending(self, connection: BotConnection) -> None:
        room = self._room.get(connection)
        if room is not None:
            room.set()
        if connection in self._missed:
            self._missed[connection].acknowledge()
        if connection.stream is not None:
            for feed in connection.stream.feeds:
                tail = self._tails.get(feed.log)
                if tail is not None:
                    tail.on_writable()

    def leave(self, connection: BotConnection) -> None:
        if connection.state == "closed":
            self._connections.pop(connection, None)
        task = self._starting.pop(connection, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        self._room.pop(connection, None)
        missed = self._missed.pop(connection, None)
        if missed is not None:
            missed.close()
        self._commands.leave(connection)
        stream, connection.stream = connection.stream, None
        if stream is None:
            return
        for feed in stream.feeds:
            feed.is_open = False
            self._counts["sent"] += feed.sent
            feed.sent = 0
            tail = self._tails.get(feed.log)
            if tail is not None:
                tail.leave(feed)
            self._tails.release(feed.log)
        for key, merged in tuple(self._merged.items()):
            if merged.stream is stream:
                if connection.state == "closed":
                    merged.numbers.leave()
                    merged.left_at = self._clock()
                else:
                    del self._merged[key]

    # IDENTIFY.

    async def _begin_session(self, connection: BotConnection, identify: Identify) -> None:
        connection.generation = next(self._generations)
        layout = await self._state.known_layout()
        missing = identify.intents & ~layout.intents
        if missing:
            logger.error(
                "a bot asks for intents that the gateway does not have: %s; add them to INTENTS",
                ", ".join(intents.names(missing)), extra={"action": "proxy"},
            )  # fmt: skip
            connection.close(4014, "Disallowed intents: the gateway was not given them (INTENTS).")
            return
        shards = gateway_shards(identify.shard, identify.count, layout.shard_count)
        logs = await self._state.logs_of(shards)
        for log in logs:
            self._tails.use(log)
        try:
            # Outside: a bot that waits for a cluster or a log that is away keeps no other from beginning.
            await asyncio.gather(*map(self._when_begun, logs))
            await self._state.when_told(shards)
            async with self._snapshots:
                begin = await self._send_ready(connection, identify, layout.shard_count, logs)
                if not await self._send_guilds(connection, begin):
                    return
                for feed in begin.feeds:
                    if feed.log in begin.missed_since:
                        await self._send_missed(connection, feed, begin.missed_since[feed.log])
                if connection.stream is begin.stream and isinstance(begin.numbers, CountedNumbers):
                    # A RESUME brings nothing of what is sent before.
                    self._keep_merged(begin.number, _Merged(begin.stream, begin.numbers))
                self._attach(connection, begin)
        finally:
            for log in logs:
                self._tails.release(log)
        if connection.stream is not begin.stream:
            return
        await asyncio.sleep(HOLD)
        for feed in begin.feeds:
            tail = self._tails.get(feed.log)
            if tail is not None and feed.is_quiet(tail.order):
                feed.settle()
            feed.release()

    async def _send_ready(
        self, connection: BotConnection, identify: Identify, total: int, logs: dict[str, list[int]],
        slow: frozenset[str] = frozenset(),
    ) -> _Begin:  # fmt: skip
        """Send READY. *slow* are logs that are known to have entries, the first of which was not read in time."""
        ends = (self._last_of(log, PATIENCE if log in slow else FIRST_ENTRY) for log in logs)
        bases = dict(zip(logs, await asyncio.gather(*ends), strict=True))
        shards = list(itertools.chain.from_iterable(logs.values()))
        found = {each.shard: each for each in await self._state.shards(shards)}
        first = next(iter(found.values()))
        own_id = int(msgspec.json.decode(first.user)["id"])
        stream = Stream(
            connection, shard=identify.shard, count=identify.count, total=total, intents=identify.intents,
            large_threshold=identify.large_threshold, own_id=own_id, session_id="",
        )  # fmt: skip
        guilds = {
            shard_id: [guild for guild in snapshot.guilds if stream.has_guild(int(guild.id))]
            for shard_id, snapshot in found.items()
        }
        missed_since = await self._replay.places(stream) if self._replay is not None else {}
        if not slow:
            # A log that a bot has seen entries of is not empty. Up to where what was missed goes has to be known.
            slow = frozenset(log for log in logs if bases[log] < 0 <= missed_since.get(log, -1))
            if slow:
                return await self._send_ready(connection, identify, total, logs, slow)
        told = guilds if identify.intents & intents.Intents.GUILDS else {}
        snapshots = sum(map(len, told.values()))
        log = next(iter(logs))
        if len(logs) > 1:
            log = ""
        session = Session(
            secrets.randbits(62), log, bases.get(log, -1), snapshots, identify.shard, identify.count, total,
            identify.intents, identify.large_threshold, own_id, connection.library,
        )  # fmt: skip
        stream.session_id = self._session_ids.issue(session)
        numbers: OffsetNumbers | CountedNumbers
        if log:
            numbers = OffsetNumbers(session)
        else:
            numbers = CountedNumbers(snapshots)
        begin = _Begin(
            session.number, stream, numbers, told,
            {shard_id: Position(each.session, each.seq) for shard_id, each in found.items()},
            missed_since=missed_since,
        )  # fmt: skip
        for log, shards in logs.items():
            feed = Feed(stream, numbers, log, shards, bases[log])
            feed.set_positions({shard_id: begin.positions[shard_id] for shard_id in shards})
            begin.feeds.append(feed)
        if isinstance(numbers, CountedNumbers):
            numbers.begin(begin.feeds)
        application = first.application
        if application is None and self._application is not None:
            application = await self._application()
        listed = [guild for shard_guilds in guilds.values() for guild in shard_guilds]
        d = ready(
            version=connection.version, user=first.user, application=application, guilds=listed,
            session_id=stream.session_id, url=connection.url, shard=(identify.shard, identify.count),
        )  # fmt: skip
        for feed in begin.feeds:
            self._tails.use(feed.log)
        stream.feeds = begin.feeds
        connection.stream = stream
        if identify.presence is not None:
            # Before READY: what the bot sets at READY is the newer one.
            self._commands.set_presence(connection, identify.presence)
        connection.send(dispatch("READY", 1, d))
        self._counts["identified"] += 1
        return begin

    async def _send_guilds(self, connection: BotConnection, begin: _Begin) -> bool:
        """Send a GUILD_CREATE for each guild of READY, shard after shard: discord.py takes a pause of two seconds for
        the end. Return false where a session of the gateway's was lost meanwhile."""
        numbers = itertools.count(2)
        stream = begin.stream
        # The next one to be sent: its name, its number, its d, its guild.
        last: tuple[str, int, bytes, str] | None = None
        for shard_id, guilds in begin.guilds.items():
            position = begin.positions[shard_id]
            is_alone = not self._has_others(connection, shard_id)
            for at in range(0, len(guilds), GUILDS_AT_ONCE):
                some = guilds[at : at + GUILDS_AT_ONCE]
                found = await self._state.guilds(shard_id, some, stream.intents, stream.large_threshold)
                for guild, snapshot in zip(some, found, strict=True):
                    seq = next(numbers)
                    if snapshot == "gone":
                        # Its GUILD_DELETE comes with the log.
                        continue
                    if last is not None:
                        connection.send(dispatch(*last[:3]))
                    if snapshot == "unavailable":
                        last = "GUILD_DELETE", seq, guild_unavailable(guild.id), guild.id
                        continue
                    if snapshot.session != position.session:
                        connection.invalidate()
                        return False
                    position.add(int(guild.id), snapshot.seq)
                    d = bytes(snapshot.guild)
                    silent = without_own_voice(d, stream.own_id) if is_alone else None
                    if silent is not None:
                        d = silent
                        self._commands.leave_voice(shard_id, guild.id)
                    last = "GUILD_CREATE", seq, d, guild.id
                await self._wait_for_room(connection)
        if last is not None:
            name, seq, d, guild_id = last
            if len(begin.feeds) == 1:
                begin.feeds[0].hold(name, d, int(guild_id))
            else:
                connection.send(dispatch(name, seq, d))
        return True

    async def _send_missed(self, connection: BotConnection, feed: Feed, since: int) -> None:
        """Send the events that the bot missed in one log (``PROXY_REPLAY``)."""
        assert self._replay is not None
        feed.release()
        feed.replayed, feed.missed_since = self._replay.names, since
        if feed.at < 0 <= since:
            logger.warning(
                "what a bot missed cannot be read: %s brings nothing", feed.log, extra={"action": "proxy"}
            )
        if since >= feed.at:
            return
        done = asyncio.Event()
        missed = self._missed[connection] = MissedEvents(
            feed, since, self._replay, self._reader, self._timers, self._visible, done.set
        )
        await done.wait()
        self._missed.pop(connection, None)
        self._counts["replayed"] += missed.count
        feed.sent += missed.count

    def _attach(self, connection: BotConnection, begin: _Begin) -> None:
        waiting = len(begin.feeds)

        def joined(is_here: bool) -> None:
            nonlocal waiting
            waiting -= 1
            if connection.stream is not begin.stream:
                return
            if not is_here:
                connection.invalidate()
            elif not waiting:
                # A bot that dies before its first heartbeat has its snapshots and what was sent with them.
                self._keep_place(begin.stream, begin.numbers, 1)
                connection.go_live()

        for feed in begin.feeds:
            self._join(feed, joined)

    async def _when_begun(self, log: str) -> None:
        """Wait until a log's tail is attached, or the log is lost."""
        tail = self._tails.get(log)
        if tail is not None:
            await _called(tail.when_begun)

    async def _last_of(self, log: str, seconds: float) -> int:
        """Return the offset of a log's newest entry once its tail is attached; -1 for a log that brings none in so many
        seconds."""
        await self._when_begun(log)
        tail = self._tails.get(log)
        if tail is not None:
            try:
                async with asyncio.timeout(seconds):
                    await _called(tail.when_read)
            except TimeoutError:
                pass
        return tail.end if tail is not None else -1

    async def _wait_for_room(self, connection: BotConnection) -> None:
        while connection.waiting > SNAPSHOT_WAITING:
            room = self._room[connection] = asyncio.Event()
            await room.wait()
        self._room.pop(connection, None)

    def _has_others(self, connection: BotConnection, shard_id: int) -> bool:
        """Whether another connection has a session of a shard."""
        return any(
            each.stream is not None and shard_id in each.stream.shards()
            for each in self._connections
            if each is not connection
        )

    # RESUME.

    async def _resume_session(self, connection: BotConnection, resume: Resume) -> None:
        connection.generation = next(self._generations)
        session = self._session_ids.read(resume.session_id)
        if session is None:
            self._refuse(connection, "its session id is not one of this bot's proxies")
            return
        for other in tuple(self._connections):
            if other.stream is not None and other.stream.session_id == resume.session_id:
                other.close(4000, "The session was resumed on another connection.")
        layout = await self._state.layout_within(LAYOUT_PATIENCE)
        if layout is not None and layout.shard_count != session.total:
            words = f"the gateway has {layout.shard_count} shards and had {session.total} when it began"
            self._refuse(connection, words)
            return
        connection.library = session.library
        if not session.log:
            self._resume_merged(connection, session, resume.seq)
            return
        at = session.offset_of(resume.seq)
        if at is None or at < 0:
            self._refuse(connection, "the bot left before it had all guilds, or before its log had an event")
            return
        stream = Stream(
            connection, shard=session.shard, count=session.count, total=session.total, intents=session.intents,
            large_threshold=session.large_threshold, own_id=session.bot_id, session_id=resume.session_id,
        )  # fmt: skip
        feed = Feed(stream, OffsetNumbers(session), session.log, stream.shards(), at)
        self._tails.use(session.log)
        stream.feeds = [feed]
        connection.stream = stream

        def joined(is_here: bool) -> None:
            if is_here:
                self._resumed(connection)
            else:
                self._refuse(connection, f"{session.log} does not have what the bot missed (EVENT_LOG_AGE)")

        self._join(feed, joined)

    def _resume_merged(self, connection: BotConnection, session: Session, seq: int) -> None:
        merged = self._merged.get(session.number)
        if (
            merged is None
            or merged.left_at is None
            # Where a log that was empty goes on is not known.
            or any(feed.at < 0 for feed in merged.stream.feeds)
            or not merged.numbers.resume(seq)
        ):
            self._refuse(
                connection, "a shard over several clusters resumes at its own proxy, within five minutes"
            )
            return
        merged.left_at = None
        stream = merged.stream
        stream.receiver = connection
        connection.stream = stream
        waiting = len(stream.feeds)

        def joined(is_here: bool) -> None:
            nonlocal waiting
            waiting -= 1
            if not is_here or (not waiting and not merged.numbers.is_complete):
                self._refuse(connection, "an event log does not have what the bot missed (EVENT_LOG_AGE)")
            elif not waiting and connection.stream is stream:
                self._resumed(connection)

        for feed in stream.feeds:
            self._tails.use(feed.log)
            feed.receiver = connection
            feed.is_open = True
        for feed in stream.feeds:
            self._join(feed, joined)

    def _resumed(self, connection: BotConnection) -> None:
        stream = connection.stream
        if stream is not None and stream.feeds:
            stream.feeds[0].tell("RESUMED", b"{}")
            self._counts["replayed"] += sum(feed.sent for feed in stream.feeds)
            connection.go_live()
            self._counts["resumed"] += 1

    def _refuse(self, connection: BotConnection, why: str) -> None:
        if connection.state == "resuming":
            self._counts["refused"] += 1
            words = "a session is not resumed, its bot begins a new one: %s"
            logger.info(words, why, extra={"action": "proxy"})
            connection.invalidate()

    def _keep_merged(self, key: int, merged: _Merged) -> None:
        while len(self._merged) >= MOST_MERGED:
            left = min(self._merged, key=lambda each: self._merged[each].left_at or float("inf"))
            del self._merged[left]
        self._merged[key] = merged

    # Both.

    def _join(self, feed: Feed, joined: Callable[[bool], None]) -> None:
        tail = self._tails.get(feed.log)
        if tail is None or not feed.is_open:
            joined(False)
        else:
            tail.join(feed, joined)

    def _on_log_lost(self, text: str) -> None:
        logger.error("the sessions of an event log end: %s", text, extra={"action": "proxy"})
        self._state.doubt()

    def _on_layout(self, layout: ClusterList) -> None:
        for connection in tuple(self._connections):
            if connection.stream is not None and connection.stream.total != layout.shard_count:
                connection.invalidate()
        logs = {shard_id: row.log for row in layout.clusters for shard_id in row.shards}
        for tail in tuple(self._tails.all()):
            present = {logs.get(shard_id) for feed in tail.feeds for shard_id in feed.shards} - {None}
            if tail.log not in present and (present or (tail.trouble and tail.log not in logs.values())):
                trouble = f" ({tail.trouble})" if tail.trouble else ""
                tail.lose(f"the gateway writes to another log than {tail.log}{trouble}")

    # Time, tasks.

    def _look(self) -> None:
        now = self._clock()
        for connection in tuple(self._connections):
            connection.on_timer(now)
            if (
                connection.state == "live"
                and connection.stream is not None
                and now - connection.live_since > SETTLE
            ):
                for feed in connection.stream.feeds:
                    feed.settle()
        self._tails.close_unused()
        for tail in self._tails.all():
            tail.watch()
        for key, merged in tuple(self._merged.items()):
            if merged.left_at is not None and now - merged.left_at > KEEP_MERGED:
                del self._merged[key]
        if self._connections:
            self._start(self._look_at_layout)

    async def _look_at_layout(self) -> None:
        await self._state.layout_within(LOOK_EVERY)

    def _begin(self, connection: BotConnection, what: Work) -> None:
        task = self._start(functools.partial(self._guarded, connection, what))
        if task is None:
            connection.close(4000, "The proxy is starting or stopping.")
        else:
            self._starting[connection] = task

    async def _guarded(self, connection: BotConnection, what: Work) -> None:
        try:
            await what()
        except Exception:
            # A mistake here costs this connection alone; its bot comes back.
            self._counts["failed"] += 1
            logger.exception("a bot's session could not begin", extra={"action": "proxy"})
            connection.close(4000, "Unknown error.")
        finally:
            if self._starting.get(connection) is asyncio.current_task():
                del self._starting[connection]

    def _start(self, what: Work) -> asyncio.Task[None] | None:
        return None if self._tasks is None else self._tasks.create_task(self._logged(what))

    async def _logged(self, what: Work) -> None:
        try:
            await what()
        except Exception:
            self._counts["failed"] += 1
            logger.exception("a bot's request failed", extra={"action": "proxy"})


async def _called(register: Callable[[Callable[[], None]], None]) -> None:
    """Wait until what was registered is called back."""
    called = asyncio.Event()
    register(called.set)
    await called.wait()
