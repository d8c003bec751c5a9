"""Everything that the demonstration needs, running: broker, simulated Discord, gateway, workers, a bot."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import ClientError, ClientResponseError, ClientSession
from rateway.demo.broker import BrokerUnavailable, PrivateBroker, free_ports
from rateway.demo.children import Child
from rateway.demo.collector import Collector
from rateway.demo.relay import Relay
from rateway.demo.steering import Steering
from rateway.secret import Secret
from rateway.transports import control_socket
from rateway.transports.amqp.wire import connection as amqp
from rateway.transports.amqp.wire.connect import connect
from rateway.transports.amqp.wire.uri import parse
from yarl import URL

#: How long the simulated Discord may take to listen, seconds: it grows its world first.
SIMULATOR_PATIENCE = 60.0
#: Pings are said in so many guilds, in turns.
PING_GUILDS = 64
#: How a worker logs a reply that Discord has taken, or could not: its channel is gone by now, or closed to the bot.
TAKEN = ("replied with 200 ", "replied with 404 ", "replied with 403 ")
#: How long a worker may take to bind its queue, seconds: 1 s is usual.
WORKER_PATIENCE = 60.0
#: How long the bot may take until it is ready, seconds: one connection a shard, and 2 s that discord.py waits.
BOT_PATIENCE = 60.0
#: Seconds between the bot's death and its next start.
BOT_AWAY = 3.0
#: How long the bot's shards may take to resume, seconds: ten are usual, a machine with much else to do needs a minute.
RESUME_PATIENCE = 100.0
#: Between two looks at something that announces itself nowhere, seconds.
LOOK = 0.1


class WorkerGone(RuntimeError):
    """A worker did not begin to listen; the text says what it logged."""


class BotGone(RuntimeError):
    """The bot behind the proxy did not become ready; the text says what it logged."""


class SimulatorGone(RuntimeError):
    """The simulated Discord did not start, or ended before the demonstration did; the text says how."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the demonstration. *seconds* after the first event, 0 without an end; *rate* events a second over
    all shards.
    """

    seconds: float = 30.0
    rate: float = 1000.0
    shards: int = 16
    per_cluster: int = 8
    guilds: int = 480
    faults: frozenset[str] = frozenset({"bot", "cut", "broker", "proxy", "runner", "kill"})
    amqp_uri: Secret | None = None
    keep: Path | None = None

    @property
    def clusters(self) -> int:
        return math.ceil(self.shards / self.per_cluster)


@dataclass(slots=True)
class Scene:
    """The processes, and what can be done to them."""

    options: Options
    folder: Path
    broker: PrivateBroker | None
    relay: Relay | None
    simulator: Child
    steering: Steering
    gateway: Child
    workers: list[Child]
    #: A bot with discord.py, behind the gateway's proxy.
    bot: Child
    #: Where it keeps its sessions and the pings that it has seen (SQLite).
    bot_database: Path
    collector: Collector
    state_dir: Path
    #: The address of the gateway's page, with a slash at the end.
    page: str
    #: The broker's address as the processes use it.
    uri: str
    #: Places where one can speak: (user, channel) of each guild.
    places: list[tuple[str, str]] = field(default_factory=list)
    #: The ids of the messages `!ping`.
    pings: list[str] = field(default_factory=list)
    #: The gateway is away because we killed it.
    killing: bool = False
    #: How often it ended by itself.
    crashes: int = 0
    #: The bot behind the proxy is away because we killed it.
    killing_bot: bool = False
    #: What was killed under the bot, "bot" or "proxy" → how many of its shards resumed, the fewest of all times.
    resumed: dict[str, int] = field(default_factory=dict)

    def check_simulator(self) -> None:
        """SimulatorGone when it has ended by itself: without its ledger there is nothing to show."""
        if not self.simulator.running:
            process = self.simulator.process
            code = None if process is None else process.returncode
            raise SimulatorGone(
                f"the simulated Discord has ended with exit code {code}:\n{self.simulator.tail()}"
            )

    async def status(self) -> dict[str, Any] | None:
        """What the gateway says about itself (docs/operating.md); None while it does not answer."""
        try:
            answer = await control_socket.ask(self.state_dir, "status")
            found: dict[str, Any] = msgspec.json.decode(answer)
        except (control_socket.ControlError, msgspec.DecodeError):
            return None
        return None if "error" in found else found

    async def cut_shards(self, count: int) -> int:
        """Drop the TCP connections of *count* shards; how many were hit."""
        return await self.steering.fault("cut", shards=f"random:{count}")

    async def disturb_broker(self) -> str:
        """Restart the private broker; with a given one, cut the demonstration's connections. What was done."""
        if self.broker is not None:
            started = time.monotonic()
            await asyncio.to_thread(self.broker.stop)
            await asyncio.to_thread(self.broker.start)
            return f"the broker was restarted, {time.monotonic() - started:.0f} s away"
        if self.relay is not None:
            return f"{self.relay.cut()} connections to the broker were cut"
        return "connections to a broker with TLS cannot be cut from outside: nothing was done"

    async def kill_gateway(self) -> None:
        """SIGKILL, and a new one at once, as a supervisor would."""
        self.killing = True
        await self.gateway.kill()
        await self.gateway.start()
        self.killing = False

    async def kill_runner(self) -> str:
        """Kill one of the gateway's runners with SIGKILL; return what was done."""
        status = await self.status()
        processes = [] if status is None else status["processes"]
        runners = [each for each in processes if each["clusters"]]
        if len(runners) < 2:
            return "the gateway has no runner to kill on this machine: nothing was done"
        victim = runners[-1]
        os.kill(victim["pid"], signal.SIGKILL)
        clusters = ", ".join(map(str, victim["clusters"]))
        return f"killed the gateway's runner {victim['pid']} with -9 (cluster {clusters})"

    async def kill_bot(self) -> int:
        """SIGKILL for the bot, and a new one after :data:`BOT_AWAY` seconds; how many of its shards then resume."""
        self.killing_bot = True
        await self.bot.kill()
        before = len(self.bot.lines())
        await asyncio.sleep(BOT_AWAY)
        await self.bot.start()
        self.killing_bot = False
        return await self._resumed("bot", before)

    async def kill_proxy(self) -> int:
        """SIGKILL for the gateway's proxy, which the gateway starts again; how many of the bot's shards then resume."""
        status = await self.status()
        if status is None or not status["proxy"]:
            # The summary says that no shard resumed.
            return self.resumed.setdefault("proxy", 0)
        before = len(self.bot.lines())
        os.kill(status["proxy"]["pid"], signal.SIGKILL)
        return await self._resumed("proxy", before)

    async def _resumed(self, fault: str, before: int) -> int:
        """Wait until all shards have resumed after the first *before* lines of the bot's log; how many have."""
        since, shards = time.monotonic(), set[str]()
        while len(shards) < self.options.shards and time.monotonic() < since + RESUME_PATIENCE:
            await asyncio.sleep(LOOK)
            shards = {line for line in self.bot.lines()[before:] if line.endswith(" resumed")}
        self.resumed[fault] = min(len(shards), self.resumed.get(fault, self.options.shards))
        return len(shards)

    async def start_bot(self) -> None:
        """Start the bot and wait until it is ready; BotGone when it is not in time."""
        # discord.py does not try a second time to log in where nothing listens.
        if await self.gateway.line_with("bots connect to", BOT_PATIENCE) is None:
            raise BotGone(f"the gateway's proxy does not serve bots:\n{self.gateway.tail()}")
        await self.bot.start()
        if await self.bot.line_with("ready with", BOT_PATIENCE) is None:
            raise BotGone(f"the bot behind the proxy is not ready:\n{self.bot.tail()}")

    async def health(self) -> str:
        """Return the answer of the gateway's readiness probe in words."""
        try:
            async with ClientSession() as http, http.get(f"{self.page}health/ready") as response:
                return "ready" if response.status == 200 else f"not ready ({response.status})"
        except ClientError:
            return "no answer"

    async def look_for_places(self) -> None:
        """Find members and text channels to speak as and in."""
        guilds = await self.steering.guilds(PING_GUILDS)
        self.places = [(each["members"][-1], each["channel_id"]) for each in guilds if each.get("members")]

    async def ping(self) -> None:
        """A user says `!ping` in the next guild."""
        if not self.places:
            return
        user, channel = self.places[len(self.pings) % len(self.places)]
        try:
            message_id = await self.steering.speak(user, channel, "!ping")
        except ClientResponseError:
            # The world lives: that member has left, or the channel is gone.
            await self.look_for_places()
        else:
            self.pings.append(message_id)

    def seen_by_bot(self) -> Counter[str]:
        """How often the bot behind the proxy has seen each of the pings that it has seen."""
        try:
            with contextlib.closing(
                sqlite3.connect(f"file:{self.bot_database}?mode=ro", uri=True)
            ) as database:
                rows = database.execute("SELECT message_id FROM seen").fetchall()
        except sqlite3.Error:
            # It has not begun yet.
            rows = []
        pings = set(self.pings)
        return Counter(message_id for (message_id,) in rows if message_id in pings)

    def answered(self) -> int:
        """Return how many of the pings a worker has answered; one that came twice counts once."""
        lines = [line for worker in self.workers for line in worker.lines()]
        answers = {line.split(" to ")[1].split()[0] for line in lines if line.startswith(TAKEN)}
        return len(answers.intersection(self.pings))


@asynccontextmanager
async def opened(options: Options, say: Callable[[str], None]) -> AsyncIterator[Scene]:
    """Start everything but the gateway's events; all of it has ended when this is left.

    Raises BrokerUnavailable, SimulatorGone and WorkerGone. The bot is not started yet.
    """
    if options.amqp_uri is not None:
        await _try_broker(options.amqp_uri)
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="rateway-demo-")))
        logs = options.keep or folder
        logs.mkdir(parents=True, exist_ok=True)
        for old in logs.glob("*.log"):
            # Lines are counted at the end; those of an earlier run are not ours.
            old.unlink()
        simulator = Child("simulator", _simulator_arguments(options), {}, logs / "simulator.log")
        exits.push_async_callback(simulator.terminate)
        say(f"starting the simulated Discord: {options.guilds} guilds on {options.shards} shards")
        addresses = asyncio.create_task(_start_simulator(simulator))
        broker, relay, uri = await _reach_broker(options, exits, say)
        found = await addresses
        steering = await exits.enter_async_context(Steering(found["control_url"]))
        collector = Collector(uri, range(1, options.clusters + 1))
        await exits.enter_async_context(collector.running())
        workers = await _start_workers(exits, uri, found, logs)
        state_dir = folder / "state"
        http, proxy = (f"127.0.0.1:{port}" for port in free_ports(2))
        more = {"HTTP_ADDRESS": http, "PROXY_ADDRESS": proxy}
        settings = _settings(options, uri, found, state_dir) | more
        gateway = Child("gateway", ["-m", "rateway"], settings, logs / "gateway.log")
        exits.push_async_callback(gateway.terminate)
        bot_database = folder / "bot.db"
        environment = {
            "BOT_API": f"http://{proxy}/api/v10",
            "BOT_GATEWAY": f"ws://{proxy}/",
            "DISCORD_TOKEN": found["token"],
            "SESSIONS": str(bot_database),
        }
        bot = Child("bot", ["-m", "rateway.demo.library_bot"], environment, logs / "bot.log")
        exits.push_async_callback(bot.terminate)
        scene = Scene(
            options=options,
            folder=folder,
            broker=broker,
            relay=relay,
            simulator=simulator,
            steering=steering,
            gateway=gateway,
            workers=workers,
            bot=bot,
            bot_database=bot_database,
            collector=collector,
            state_dir=state_dir,
            page=f"http://{http}/",
            uri=uri,
        )
        await scene.look_for_places()
        say(f"starting the gateway: {options.clusters} clusters, a proxy for bots; its page is {scene.page}")
        await gateway.start()
        yield scene


def _simulator_arguments(options: Options) -> list[str]:
    words = ["-m", "rateway", "simulate", "--json", "--rate", "0", "--members", "20"]
    words += ["--shards", str(options.shards), "--concurrency", str(options.shards)]
    return [*words, "--guilds", str(options.guilds)]


async def _start_simulator(simulator: Child) -> dict[str, str]:
    process = await simulator.start(pipe=True)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SIMULATOR_PATIENCE):
            line = await process.stdout.readline()
        found: dict[str, str] = json.loads(line)["ready"]
    except (TimeoutError, ValueError, KeyError):
        raise SimulatorGone(f"the simulated Discord did not start:\n{simulator.tail()}") from None
    return found


async def _try_broker(given: Secret) -> None:
    """A gateway and its workers would wait for it for ever; a viewer of the demonstration would not."""
    try:
        connection = await connect(parse(given.reveal()), name="rateway demo")
    except (ValueError, amqp.BrokerUnavailable, amqp.BrokerRefused) as error:
        raise BrokerUnavailable(f"AMQP_URI: {error}") from None
    await connection.close()


async def _reach_broker(
    options: Options, exits: AsyncExitStack, say: Callable[[str], None]
) -> tuple[PrivateBroker | None, Relay | None, str]:
    if options.amqp_uri is None:
        say("starting a private RabbitMQ on loopback")
        broker = PrivateBroker(management=False)
        exits.push_async_callback(asyncio.to_thread, broker.close)
        await asyncio.to_thread(broker.start)
        return broker, None, broker.uri
    url = URL(options.amqp_uri.reveal())
    say(f"using the broker at {url.host}")
    if url.scheme != "amqp" or url.host is None:
        return None, None, str(url)
    relay = await exits.enter_async_context(Relay(url.host, url.port or 5672))
    return None, relay, str(url.with_host("127.0.0.1").with_port(relay.port))


async def _start_workers(exits: AsyncExitStack, uri: str, found: dict[str, str], logs: Path) -> list[Child]:
    environment = {"AMQP_URI": uri, "DISCORD_API_URL": found["api_url"], "DISCORD_TOKEN": found["token"]}
    workers = []
    # Two that share one queue: one knows only the original contract, one is written with our client.
    for module in ("plain_worker", "client_worker"):
        name = module.replace("_", " ")
        worker = Child(
            name, ["-m", f"rateway.demo.{module}"], environment, logs / f"{name.replace(' ', '-')}.log"
        )
        exits.push_async_callback(worker.terminate)
        await worker.start()
        workers.append(worker)
    # What is published before a queue is bound reaches no worker.
    for worker in workers:
        if await worker.line_with("listening on", WORKER_PATIENCE) is None:
            raise WorkerGone(f"{worker.name} does not listen:\n{worker.tail()}")
    return workers


def _settings(options: Options, uri: str, found: dict[str, str], state_dir: Path) -> dict[str, str]:
    return {
        "AMQP_URI": uri,
        "DISCORD_API_URL": found["api_url"],
        "DISCORD_TOKEN": found["token"],
        "INTENTS": "ALL",
        "EXTRA_SHARDS": "0",
        "SHARDS_PER_CLUSTER": str(options.per_cluster),
        "STATE_DIR": str(state_dir),
        "LOG_FORMAT": "text",
    }
