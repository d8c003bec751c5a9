"""One library's journey: connect, get members, answer a command, come back from each fault, and be judged.

The simulator and the bot are processes of their own. What the bot saw is told by its lines, what it did by the
simulator's journal; both have to agree.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from rateway_simulator.world.mix import DEFAULT_MIX

from tests.world.libraries import Library
from tests.world.toolchains import CACHE, ROOT

# More than the 1,000 members of one chunk, so that a request is answered by two.
MEMBERS: Final = 1_500
# Every kind of event about as often as every other. The bot stays in its guilds, and users ask only what this
# module counts.
MIX: Final = dict.fromkeys(DEFAULT_MIX, 1.0) | {
    "MESSAGE_CREATE": 15.0,
    "GUILD_DELETE": 0.0,
    "INTERACTION_CREATE": 0.0,
}
# Some thirty of each of the eighty kinds.
EVENTS: Final = 2_500
EVENTS_A_SECOND: Final = 250
# Events a second while faults happen: a resume has something to replay.
RATE: Final = 20
# Each step's patience. A JVM's start, Discord's 5 s between identifies and a library's own pause fit well.
STEP_S: Final = 60.0
# How long a bot may take to end after SIGTERM before it is killed.
END_S: Final = 10.0
POLL_S: Final = 0.05
# A user tries again: an answer that comes after Discord's 3 seconds is refused, and a JVM that has just started on a
# busy machine may be behind for longer.
ASK_AGAIN_S: Final = 5.0
HEARTBEAT_MS: Final = 8_000

# Column of the table → the fault, in the order in which they happen.
FAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "cut": {"kind": "cut"},
    "op 7": {"kind": "op7"},
    "op 9, d true": {"kind": "op9", "resumable": True},
    "op 9, d false": {"kind": "op9", "resumable": False},
    "close 4000": {"kind": "close", "code": 4000},
}


class Stuck(Exception):
    """A step that did not come to pass; the message says which, and what was seen instead."""


@dataclass(slots=True)
class Outcome:
    """What became of one library: a word for each step that was done, and what it broke."""

    library: str
    version: str
    steps: dict[str, str] = field(default_factory=dict)
    failure: str = ""
    # Rule or warning → how often.
    violations: dict[str, int] = field(default_factory=dict)
    warnings: dict[str, int] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)
    unsimulated: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def foreign(self, library: Library) -> dict[str, int]:
        """Violations that are not known to be the library's own."""
        return {rule: times for rule, times in self.violations.items() if rule not in library.own}


class Bot:
    """A bot's process and the lines that it has written."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.lines: list[dict[str, Any]] = []
        self.log = log
        self.process = process
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        with self.log.open("ab") as log:
            async for line in self.process.stdout:
                log.write(line)
                log.flush()
                # Libraries write what they like beside the bot's own lines.
                if line.startswith(b'{"saw"'):
                    self.lines.append(json.loads(line))

    def saw(self, what: str, **fields: Any) -> list[dict[str, Any]]:
        """The lines of this kind with these fields."""
        wanted = fields | {"saw": what}
        return [line for line in self.lines if wanted.items() <= line.items()]

    async def end(self) -> None:
        """Ask it to end, and see to it that it does."""
        if self.process.returncode is None:
            self.process.terminate()
            try:
                async with asyncio.timeout(END_S):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await self._reading


class Discord:
    """A `rateway simulate` process and its control interface."""

    def __init__(self, ready: Mapping[str, Any], http: aiohttp.ClientSession) -> None:
        self.ready = ready
        self._http = http

    async def get(self, path: str) -> Any:
        """The answer of a route below `/simulator`."""
        async with self._http.get(f"{self.ready['control_url']}/{path}") as response:
            response.raise_for_status()
            return await response.json()

    async def post(self, path: str, body: Any) -> Any:
        """Post to a route below `/simulator`."""
        async with self._http.post(f"{self.ready['control_url']}/{path}", json=body) as response:
            response.raise_for_status()
            return await response.json()


@asynccontextmanager
async def discord(library: Library, folder: Path, *more: str) -> AsyncIterator[Discord]:
    """`rateway simulate` as a process, with Discord's own pauses and limits; *more* are arguments of its own."""
    ready_file = folder / "simulator.json"
    ready_file.unlink(missing_ok=True)
    arguments = [
        "simulate",
        "--json",
        *("--ready-file", str(ready_file)),
        *("--guilds", "3"),
        *("--members", "30"),
        *("--largest-guild", str(MEMBERS)),
        *(word for event, weight in MIX.items() for word in ("--mix", f"{event}={weight:g}")),
        *("--resume-hosts", "1"),
        *("--heartbeat-ms", str(HEARTBEAT_MS)),
        *(["--tls"] if library.tls else []),
        *more,
    ]
    with (folder / "simulator.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "rateway", *arguments),
            cwd=ROOT,
            env=dict(os.environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        async with asyncio.timeout(STEP_S):
            while not ready_file.exists():
                if process.returncode is not None:
                    raise Stuck(f"the simulator ended with {process.returncode}: {folder / 'simulator.log'}")
                await asyncio.sleep(POLL_S)
        ready = json.loads(ready_file.read_text())
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as http:
            yield Discord(ready, http)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.wait()


@asynccontextmanager
async def bot(
    library: Library,
    folder: Path,
    logs: Path,
    ready: Mapping[str, Any],
    guild_id: str,
    *,
    shards: int = 1,
    sessions: Path | None = None,
) -> AsyncIterator[Bot]:
    """The library's bot as a process, with so many shards; its output goes to *logs*, its sessions are kept in
    *sessions* if it can.
    """
    log = logs / "bot.log"
    log.unlink(missing_ok=True)
    environment = {
        "BOT_API": ready["api_url"],
        "BOT_GATEWAY": ready["gateway_url"],
        "BOT_TOKEN": ready["token"],
        "BOT_GUILD": guild_id,
        "BOT_SHARDS": str(shards),
    }
    if sessions is not None:
        environment |= {"BOT_SESSIONS": str(sessions)}
    if ready["ca_file"]:
        environment |= {"NODE_EXTRA_CA_CERTS": ready["ca_file"]}
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *library.toolchain.start(folder),
            cwd=folder,
            env=os.environ | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    running = Bot(process, log)
    try:
        yield running
    finally:
        await running.end()


async def wait_for(
    bot: Bot, what: str, condition: Callable[[], Awaitable[bool]], others_saw: Callable[[], Awaitable[str]]
) -> None:
    """Wait for a condition. Raises Stuck, with what the bot and others saw."""
    try:
        async with asyncio.timeout(STEP_S):
            while not await condition():
                if bot.process.returncode is not None:
                    raise Stuck(f"{what}: the bot ended with {bot.process.returncode}")
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise Stuck(
            f"{what}: not within {STEP_S:g} s; the bot saw {bot.lines[-3:]}, {await others_saw()}"
        ) from None


async def let_events_happen(
    server: Discord, until: Callable[[str, Callable[[], Awaitable[bool]]], Awaitable[None]]
) -> None:
    """Let some of every kind of event happen, and stop. Waits by *until*."""
    before = (await server.get("ledger"))["events"]
    await server.post("rate", {"rate": EVENTS_A_SECOND})

    async def sent() -> bool:
        return bool((await server.get("ledger"))["events"] >= before + EVENTS)

    await until("events", sent)
    await server.post("rate", {"rate": 0})


async def command(
    server: Discord,
    bot: Bot,
    guild_id: str,
    text: str,
    until: Callable[[str, Callable[[], Awaitable[bool]]], Awaitable[None]],
) -> None:
    """A user uses the bot's command; the bot's answer has to stand in the world. Waits by *until*."""
    asked_at = time.monotonic() - ASK_AGAIN_S

    async def answered() -> bool:
        nonlocal asked_at
        if bot.saw("answered", text=text):
            path = f"world?kinds=message&guilds={guild_id}"
            messages = (await server.get(path))["message"]
            return any(message["content"] == f"pong {text}" for message in messages.values())
        if time.monotonic() - asked_at >= ASK_AGAIN_S:
            asked_at = time.monotonic()
            # Channels and members come and go with the events.
            guilds = await server.get("guilds")
            guild = next(each for each in guilds if each["id"] == guild_id)
            where = {"channel_id": guild["channel_id"], "name": "ping", "options": {"text": text}}
            await server.post(f"users/{guild['members'][0]}/commands", where)
        return False

    await until(f"the command with {text!r}", answered)


class Journey:
    """The steps of one library."""

    def __init__(self, library: Library, discord: Discord, bot: Bot, outcome: Outcome, guild_id: str) -> None:
        self._silent_resumes = library.silent_resumes
        self._discord = discord
        self._bot = bot
        self._outcome = outcome
        self._guild_id = guild_id

    async def _until(self, what: str, condition: Callable[[], Awaitable[bool]]) -> None:
        await wait_for(self._bot, what, condition, self._discord_saw)

    async def _discord_saw(self) -> str:
        journal = await self._discord.get("journal")
        last = [f"{entry['what']} {entry['detail']}".strip() for entry in journal[-4:]]
        return f"Discord saw {last}"

    async def walk(self) -> None:
        """All steps in order. Raises Stuck at the first that does not come to pass."""
        bot, steps = self._bot, self._outcome.steps

        async def connected() -> bool:
            return bool(bot.saw("ready"))

        async def members() -> bool:
            return bool(bot.saw("members"))

        await self._until("connect", connected)
        steps["connects"] = "yes"
        await self._until("members by op 8", members)
        count = bot.saw("members")[0]["count"]
        if count != MEMBERS:
            raise Stuck(f"members by op 8: {count} instead of {MEMBERS}")
        steps["members"] = "yes"
        await self._command("hello")
        steps["command"] = "yes"
        steps["events"] = await self._events()
        await self._discord.post("rate", {"rate": RATE})
        for name, fault in FAULTS.items():
            steps[name] = await self._fault(name, fault)

    async def _events(self) -> str:
        """Every kind of event passes, and the connection lives: what a library cannot read ends it in some."""
        since = len(await self._discord.get("journal"))
        await let_events_happen(self._discord, self._until)
        # Answered after all of them.
        await self._command("after events")
        happened = (await self._discord.get("journal"))[since:]
        if happened:
            raise Stuck(f"events: {[entry['what'] for entry in happened]} without a fault")
        return "yes"

    async def _command(self, text: str) -> None:
        await command(self._discord, self._bot, self._guild_id, text, self._until)

    async def _fault(self, name: str, fault: Mapping[str, Any]) -> str:
        """Make a fault happen; how the bot came back."""
        since = len(await self._discord.get("journal"))
        resumed, ready = len(self._bot.saw("resumed")), len(self._bot.saw("ready"))
        hit = (await self._discord.post("faults", dict(fault)))["connections"]
        if hit != 1:
            raise Stuck(f"{name}: {hit} connections were hit")
        how = ""

        async def back() -> bool:
            nonlocal how
            journal = (await self._discord.get("journal"))[since:]
            ways = [entry["what"] for entry in journal if entry["what"] in ("ready", "resumed")]
            how = ways[-1] if ways else ""
            if how == "resumed":
                return self._silent_resumes or len(self._bot.saw("resumed")) > resumed
            return how == "ready" and len(self._bot.saw("ready")) > ready

        await self._until(f"back from {name}", back)
        await self._command(f"after {name}")
        return "resumes" if how == "resumed" else "new session"


def counted(entries: list[dict[str, Any]], key: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry[key]] = counts.get(entry[key], 0) + 1
    return counts


async def travel(library: Library, folder: Path) -> Outcome:
    """Take a library, whose environment is in *folder*, through all steps."""
    outcome = Outcome(library.name, library.toolchain.version(folder, library.package))
    logs = CACHE / "logs" / library.folder
    logs.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    async with discord(library, logs) as server:
        guild_id = max(await server.get("guilds"), key=lambda each: int(each["member_count"]))["id"]
        try:
            async with bot(library, folder, logs, server.ready, guild_id) as running:
                await Journey(library, server, running, outcome, guild_id).walk()
        except Stuck as stuck:
            outcome.failure = f"{stuck} (logs: {logs.relative_to(ROOT)})"
        # After the bot's end: how it goes is judged as well.
        violations, warnings = await server.get("violations"), await server.get("warnings")
        outcome.violations = counted(violations, "rule")
        outcome.warnings = counted(warnings, "rule")
        outcome.details = [f"{each['rule']}: {each['detail']}" for each in violations + warnings]
        outcome.unsimulated = [f"{each['method']} {each['path']}" for each in await server.get("unsimulated")]
    outcome.seconds = round(time.monotonic() - started, 1)
    return outcome
