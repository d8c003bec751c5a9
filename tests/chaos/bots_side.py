"""The bot's side of a lane: two proxies at one address, and a bot with discord.py behind them.

The bot reaches the proxies, and the proxies reach the broker, through relays. A bot that ends is started again, as an
operator would.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from rateway.demo.children import Child
from rateway.demo.relay import Relay
from rateway.proxy.http.tokens import Tokens
from rateway.proxy.sessions.session_id import SessionIds
from rateway.secret import Secret
from rateway_simulator.world import snapshot

from tests.chaos.stream_audit import BotSession, Entry, Found, audit_merged, audit_session, is_event
from tests.e2e.harness import Stage
from tests.e2e.proxied import Proxy, free_port
from tests.event_log import Log

__all__ = ["BotsSide", "bots_side"]

BOT = Path(__file__).parent / "bot.py"
# Between two starts of a bot that ends at once.
RESTART_S = 0.5
# Things that happen at the end, so that each shard's last event comes by itself.
LAST_EVENTS = 200
STATE_KINDS = ("guild", "channel", "role", "member", "thread")
# A directory (Discord: "Channel Types"): discord.py holds none.
DIRECTORY = 14


class BotsSide:
    """What of it faults act on, and what the bot got."""

    def __init__(
        self,
        folder: Path,
        stage: Stage,
        shards: int,
        to_broker: Relay,
        front: Relay,
        environment: Mapping[str, str],
    ) -> None:
        self.to_broker = to_broker
        """Between proxies and broker."""
        self.front = front
        """Between bot and proxies."""
        settings = {
            "PROXY_ADDRESS": f"127.0.0.1:{front.target}",
            "AMQP_URI": stage.broker.uri.replace(f":{stage.broker.port}/", f":{to_broker.port}/"),
            **environment,
        }
        self.proxies = tuple(Proxy(folder, stage, f"proxy-{number}", **settings) for number in (1, 2))
        self.bot = Child(
            "bot",
            [str(BOT)],
            {
                "PROXY": f"127.0.0.1:{front.port}",
                "TOKEN": stage.sim.options.token,
                "SHARDS": str(shards),
                "STATE": str(folder / "bot-state.json"),
            },
            folder / "bot.log",
        )
        self.sessions: list[BotSession] = []
        self._stage = stage
        self._shards = shards
        self._read_id = SessionIds(Tokens(Secret(stage.sim.options.token), None).key(b"sessions")).read
        # The bot's client → its session.
        self._current: dict[int, BotSession] = {}
        self._arrival = asyncio.Event()
        self._state_written = asyncio.Event()

    async def run_bot(self) -> None:
        """Keep the bot running until cancelled."""
        while True:
            process = await self.bot.start(pipe=True)
            assert process.stdout is not None
            async for line in process.stdout:
                self._take(line.decode())
            await process.wait()
            for session in self._current.values():
                session.is_last = False
            self._current.clear()
            await asyncio.sleep(RESTART_S)

    def _take(self, line: str) -> None:
        words = line.split()
        if words[0] == "state":
            self._state_written.set()
            return
        client, seq, crc32 = map(int, words[:3])
        name = words[3]
        if name == "READY":
            session_id = self._read_id(words[4])
            assert session_id is not None, "READY has a session id of another bot"
            if (former := self._current.get(client)) is not None:
                former.is_last = False
            self._current[client] = BotSession(session_id, set(words[5:]))
            self.sessions.append(self._current[client])
        self._current[client].add(seq, crc32, name, self._stage.sim.ledger.events, *words[4:5])
        self._arrival.set()

    async def caught_up(self) -> None:
        """Wait until every client of the bot has got an event of each of its shards that Discord sent after this was
        called."""
        since = self._stage.sim.ledger.events
        began = {id(session): len(session.crcs) for session in self.sessions}
        fresh: dict[int, set[int]] = {shard: set() for shard in range(self._shards)}
        while True:
            self._arrival.clear()
            for sent in self._stage.sim.ledger.log(since):
                fresh[sent.shard].add(sent.crc32)
                since = sent.index + 1
            if len(self._current) == self._shards + 1 and not any(
                fresh[shard].isdisjoint(session.crcs[began.get(id(session), 0) :])
                for client, session in self._current.items()
                for shard in self._shards_of(client)
            ):
                return
            await self._arrival.wait()

    def _shards_of(self, client: int) -> Iterable[int]:
        return (client,) if client < self._shards else range(self._shards)

    async def finish(self) -> None:
        """Let some last things happen, and wait until each client has got the last event of each of its shards."""
        while True:
            since = self._stage.sim.ledger.events
            await self._stage.events(LAST_EVENTS)
            last = {sent.shard: sent.crc32 for sent in self._stage.sim.ledger.log(since)}
            if len(last) == self._shards:
                break
        while not all(
            client in self._current and last[shard] in self._current[client].crcs[-2 * LAST_EVENTS :]
            for client in range(self._shards + 1)
            for shard in self._shards_of(client)
        ):
            self._arrival.clear()
            await self._arrival.wait()

    def audit(self, logs: Mapping[str, Log]) -> Found:
        """Hold the sessions against the present logs, by name."""
        index = {(sent.session, sent.seq): sent.index for sent in self._stage.sim.ledger.log()}
        entries: dict[int, dict[int, Entry]] = {shard: {} for shard in range(self._shards)}
        offsets: dict[str, dict[tuple[str, int], list[int]]] = {name: {} for name in logs}
        seen: set[str] = set()
        for name, log in logs.items():
            for line in log.lines:
                offsets[name].setdefault((line.name, line.crc32), []).append(line.offset)
                parts = line.message_id.split(":")
                if len(parts) >= 3 and is_event(line.name) and line.message_id not in seen:
                    seen.add(line.message_id)
                    place = index[parts[0], int(parts[2])]
                    entries[int(parts[1])][line.offset] = Entry(line.offset, line.name, line.crc32, place)
        found = Found()
        for session in self.sessions:
            if session.id.log in logs:
                found.add(audit_session(session, entries[session.id.shard], offsets[session.id.log]))
            elif not session.id.log:
                found.add(audit_merged(session, entries))
        return found

    async def differences(self) -> list[str]:
        """What the bot holds and Discord does not, or the other way round."""
        self._state_written.clear()
        self.bot.signal(signal.SIGUSR1)
        await self._state_written.wait()
        held = json.loads(Path(self.bot.environment["STATE"]).read_text())
        world = snapshot.state(
            self._stage.sim.world,
            STATE_KINDS,
            [
                each
                for each in self._stage.sim.world.guild_ids
                if each not in self._stage.sim.world.unavailable
            ],
        )
        found = []
        for kind in STATE_KINDS:
            field = "nick" if kind == "member" else "name"
            there = {key: each[field] for key, each in world[kind].items() if each.get("type") != DIRECTORY}
            found += [
                f"{kind} {key}: the bot has {held[kind].get(key, 'nothing')!r}, Discord {there.get(key, 'nothing')!r}"
                for key in sorted(held[kind].keys() | there.keys())
                if (key in held[kind], held[kind].get(key)) != (key in there, there.get(key))
            ]
        return found

    async def start(self) -> None:
        """Start the proxies."""
        for proxy in self.proxies:
            await proxy.start()
        for proxy in self.proxies:
            await proxy.logged("bots connect to")


@asynccontextmanager
async def bots_side(
    folder: Path, stage: Stage, shards: int, environment: Mapping[str, str]
) -> AsyncIterator[BotsSide]:
    """Proxies and bot, started; the bot has a session on each shard."""
    address = urlsplit(stage.broker.uri)
    assert address.hostname is not None
    async with (
        Relay(address.hostname, stage.broker.port) as to_broker,
        Relay("127.0.0.1", free_port()) as front,
    ):
        side = BotsSide(folder, stage, shards, to_broker, front, environment)
        try:
            await side.start()
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(side.run_bot())
                yield side
                running.cancel()
        finally:
            for child in (side.bot, *side.proxies):
                await child.kill()
