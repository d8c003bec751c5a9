"""One library's journey behind the gateway proxy: connect, get members, answer a command, and miss nothing.

Simulator, RabbitMQ, gateway, proxy and bot are processes of their own. Bot and proxy speak through a relay, which can
cut their connections. While something is away numbered notes are written in a channel; the bot has to see each once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp
from rateway.demo.broker import PrivateBroker, free_ports
from rateway.demo.children import Child
from rateway.demo.relay import Relay

from tests.world.journey import (
    MEMBERS,
    POLL_S,
    STEP_S,
    Bot,
    Discord,
    Outcome,
    Stuck,
    bot,
    command,
    counted,
    discord,
    let_events_happen,
    wait_for,
)
from tests.world.libraries import Library
from tests.world.toolchains import CACHE, ROOT

# Each of the bot's shards is one of the gateway's, in a cluster of its own.
SHARDS: Final = 2
# Notes written while something is away, and seconds between two of them.
NOTES: Final = 20
NOTE_EVERY_S: Final = 0.1

# What the bots set their presence to.
PRESENCE: Final = ("idle", ["the journey"])

STEPS: Final = (
    "connects", "presence", "members", "command", "events", "cut", "bot restarted", "proxy killed", "gateway killed",
    "broker killed",
)  # fmt: skip


class House:
    """RabbitMQ, the gateway and the proxy in front of one simulated Discord."""

    def __init__(self, folder: Path, server: Discord, broker: PrivateBroker, port: int) -> None:
        settings = {
            "DISCORD_TOKEN": server.ready["token"],
            "DISCORD_API_URL": server.ready["api_url"],
            "AMQP_URI": broker.uri,
            "STATE_DIR": str(folder / "state"),
            "LOG_FORMAT": "text",
            "HTTP_ADDRESS": "",
            "INTENTS": "ALL",
            "SHARDS": str(SHARDS),
            "SHARDS_PER_CLUSTER": "1",
            "EVENT_LOG": "stream",
        }
        if server.ready["ca_file"]:
            settings["SSL_CERT_FILE"] = server.ready["ca_file"]
        self.broker = broker
        self.gateway = Child("gateway", ["-m", "rateway"], settings, folder / "gateway.log")
        self.proxy = Child(
            "proxy",
            ["-m", "rateway", "proxy"],
            settings | {"PROXY_ADDRESS": f"127.0.0.1:{port}"},
            folder / "proxy.log",
        )

    async def serves(self, api_url: str, token: str) -> None:
        """Wait until bots can log in. Raises Stuck."""
        headers = {"Authorization": f"Bot {token}"}
        try:
            async with asyncio.timeout(STEP_S), aiohttp.ClientSession(headers=headers) as http:
                while True:
                    with contextlib.suppress(aiohttp.ClientError):
                        async with http.get(f"{api_url}/gateway/bot") as response:
                            if response.status == 200:
                                return
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise Stuck(
                f"the proxy does not serve: {self.proxy.tail(3)!r}, {self.gateway.tail(3)!r}"
            ) from None

    async def end(self) -> None:
        """Stop what runs."""
        await self.proxy.terminate()
        await self.gateway.terminate()


class ProxyJourney:
    """The steps of one library behind the proxy."""

    def __init__(
        self, library: Library, server: Discord, house: House, relay: Relay, outcome: Outcome, guild_id: str
    ) -> None:
        self._library = library
        self._discord = server
        self._house = house
        self._relay = relay
        self._outcome = outcome
        self._guild_id = guild_id
        self._notes = itertools.count(1)
        self._bot: Bot | None = None

    async def _until(self, what: str, condition: Callable[[], Awaitable[bool]]) -> None:
        await wait_for(self.bot, what, condition, self._proxy_said)

    async def _proxy_said(self) -> str:
        return f"the proxy said {self._house.proxy.tail(3)!r}"

    @property
    def bot(self) -> Bot:
        assert self._bot is not None
        return self._bot

    async def walk(self, start: Callable[[AsyncExitStack], Awaitable[Bot]]) -> None:
        """All steps in order; *start* starts a bot that lives as long as the stack. Raises Stuck at the first that
        does not come to pass."""
        steps = self._outcome.steps
        async with AsyncExitStack() as first:
            self._bot = await start(first)
            await self._connected(SHARDS)
            steps["connects"] = "yes"
            await self._until("its presence at Discord", self._has_presence)
            steps["presence"] = "yes"

            async def members() -> bool:
                return bool(self.bot.saw("members"))

            await self._until("members by op 8", members)
            if (count := self.bot.saw("members")[0]["count"]) != MEMBERS:
                raise Stuck(f"members by op 8: {count} instead of {MEMBERS}")
            steps["members"] = "yes"
            await self._command("hello")
            steps["command"] = "yes"
            await self._events()
            steps["events"] = "yes"
            steps["cut"] = await self._away("cut", self._cut)
            missed = await self._kill_bot()
        async with AsyncExitStack() as second:
            self._bot = await start(second)
            steps["bot restarted"] = await self._restarted(missed)
            steps["proxy killed"] = await self._away("proxy killed", self._kill_proxy)
            await self._away("gateway killed", self._kill_gateway)
            steps["gateway killed"] = "stays"
            steps["broker killed"] = await self._away("broker killed", self._kill_broker)

    async def _connected(self, times: int) -> None:
        async def ready() -> bool:
            return len(self.bot.saw("ready")) >= times

        await self._until("connect", ready)

    async def _has_presence(self) -> bool:
        found = await self._discord.get("presence")
        return (found["status"], [each["name"] for each in found["activities"]]) == PRESENCE

    async def _kill_bot(self) -> list[str]:
        """Kill the bot, and write notes that it misses; their texts."""
        # What is on its way to a bot that dies may come again or not at all: that is the bot's own affair.
        (last,) = await self._write_notes(1)
        await self._until("a note before its end", self._has_note(last))
        self.bot.process.kill()
        await self.bot.process.wait()
        return await self._write_notes(NOTES)

    async def _restarted(self, missed: list[str]) -> str:
        """How a bot went on that was started again: with a new session, or with its former one and what it missed."""
        if self._library.keeps_session:
            await self._until("the notes of its absence", self._has_note(missed[-1]))
            if self.bot.saw("ready"):
                raise Stuck("bot restarted: it identified, though it had kept its sessions")
            seen = [line["text"] for line in self.bot.saw("note") if line["text"] in missed]
            if seen != missed:
                raise Stuck(f"bot restarted: it got {seen} instead of {missed}")
            if not self._library.silent_resumes:
                await self._until("a resume of each shard", self._has_resumed)
        else:
            await self._connected(SHARDS)
        await self._command("after the bot's restart")
        return "resumes" if self._library.keeps_session else "new session"

    async def _has_resumed(self) -> bool:
        return len(self.bot.saw("resumed")) >= SHARDS

    def _has_note(self, text: str) -> Callable[[], Awaitable[bool]]:
        async def has() -> bool:
            return bool(self.bot.saw("note", text=text))

        return has

    async def _command(self, text: str) -> None:
        await command(self._discord, self.bot, self._guild_id, text, self._until)

    async def _events(self) -> None:
        """Every kind of event passes, and the connection lives."""
        came = len(self.bot.saw("ready")) + len(self.bot.saw("resumed"))
        await let_events_happen(self._discord, self._until)
        await self._command("after events")
        if len(self.bot.saw("ready")) + len(self.bot.saw("resumed")) != came:
            raise Stuck("events: the bot connected anew without a fault")

    async def _away(self, what: str, fault: Callable[[], Awaitable[None]]) -> str:
        """Notes before, during and after a fault: the bot has to see each once. How it came back."""
        resumed, ready = len(self.bot.saw("resumed")), len(self.bot.saw("ready"))
        writing = asyncio.create_task(self._write_notes(NOTES))
        await asyncio.sleep(NOTES * NOTE_EVERY_S / 4)
        await fault()
        written = await writing
        await self._command(f"after {what}")
        # Written behind the fault: it comes after all that the bot has missed.
        written += await self._write_notes(1)
        await self._until(f"the last note after {what}", self._has_note(written[-1]))
        anew = len(self.bot.saw("ready")) > ready
        seen = Counter(line["text"] for line in self.bot.saw("note"))
        if doubled := [text for text in written if seen[text] > 1]:
            raise Stuck(f"{what}: {doubled} came twice")
        # Discord does not give what a bot missed before it identified anew.
        if not anew and (missing := [text for text in written if not seen[text]]):
            raise Stuck(f"{what}: {len(missing)} of {len(written)} notes are missing: {missing[:5]}")
        if anew:
            return "new session"
        return (
            "resumes" if len(self.bot.saw("resumed")) > resumed or self._library.silent_resumes else "stays"
        )

    async def _write_notes(self, count: int) -> list[str]:
        """Users write so many numbered notes; their texts."""
        guilds = await self._discord.get("guilds")
        guild = next(each for each in guilds if each["id"] == self._guild_id)
        written = []
        for _ in range(count):
            text = f"note {next(self._notes)}"
            body = {"channel_id": guild["channel_id"], "content": text}
            await self._discord.post(f"users/{guild['members'][0]}/messages", body)
            written.append(text)
            await asyncio.sleep(NOTE_EVERY_S)
        return written

    async def _cut(self) -> None:
        if self._relay.cut() == 0:
            raise Stuck("cut: no connection was there to be cut")

    async def _kill_proxy(self) -> None:
        await self._house.proxy.kill()
        await self._house.proxy.start()

    async def _kill_gateway(self) -> None:
        await self._house.gateway.kill()
        await self._house.gateway.start()

    async def _kill_broker(self) -> None:
        await asyncio.to_thread(self._house.broker.kill)
        await asyncio.to_thread(self._house.broker.start)


async def _settled(server: Discord) -> None:
    """Wait until the gateway's shards have all their guilds: a session of the gateway's that begins later ends the
    bot's, which counts as a fault here."""
    async with asyncio.timeout(STEP_S):
        sent = -1
        while True:
            sessions = await server.get("sessions")
            before, sent = sent, sum(session["sent"] for session in sessions)
            if len(sessions) == SHARDS and sent == before:
                return
            await asyncio.sleep(1.0)


async def travel_behind_proxy(library: Library, folder: Path) -> Outcome:
    """Take a library, whose environment is in *folder*, through all steps behind the proxy."""
    outcome = Outcome(library.name, library.toolchain.version(folder, library.package))
    logs = CACHE / "logs" / f"{library.folder}-behind-proxy"
    logs.mkdir(parents=True, exist_ok=True)
    for log in ("gateway.log", "proxy.log"):
        (logs / log).unlink(missing_ok=True)
    # What an earlier run left there names the event logs of a broker that is gone.
    shutil.rmtree(logs / "state", ignore_errors=True)
    started = time.monotonic()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(discord(library, logs, "--shards", str(SHARDS)))
        broker = PrivateBroker(management=False)
        stack.push_async_callback(asyncio.to_thread, broker.close)
        await asyncio.to_thread(broker.start)
        (port,) = free_ports(1)
        house = House(logs, server, broker, port)
        stack.push_async_callback(house.end)
        await house.gateway.start()
        await house.proxy.start()
        relay = await stack.enter_async_context(Relay("127.0.0.1", port))
        front = relay.port
        guild_id = max(await server.get("guilds"), key=lambda each: int(each["member_count"]))["id"]
        addresses: dict[str, Any] = {
            "api_url": f"http://127.0.0.1:{front}/api/v10",
            "gateway_url": f"ws://127.0.0.1:{front}",
            "token": server.ready["token"],
            "ca_file": server.ready["ca_file"],
        }
        if library.tls:
            # Its REST knows TLS only, and goes to Discord itself.
            addresses["api_url"] = server.ready["api_url"]

        sessions = Path(stack.enter_context(TemporaryDirectory(prefix="rateway-sessions-")))

        async def start(life: AsyncExitStack) -> Bot:
            return await life.enter_async_context(
                bot(library, folder, logs, addresses, guild_id, shards=SHARDS, sessions=sessions)
            )

        try:
            await house.serves(f"http://127.0.0.1:{front}/api/v10", addresses["token"])
            await _settled(server)
            await ProxyJourney(library, server, house, relay, outcome, guild_id).walk(start)
        except Stuck as stuck:
            outcome.failure = f"{stuck} (logs: {logs.relative_to(ROOT)})"
        begun = await server.get("sessions")
        if not outcome.failure and len(begun) != SHARDS:
            outcome.failure = f"{len(begun)} sessions at Discord instead of {SHARDS}: a restart was not free"
        violations, warnings = await server.get("violations"), await server.get("warnings")
        outcome.violations, outcome.warnings = counted(violations, "rule"), counted(warnings, "rule")
        outcome.details = [f"{each['rule']}: {each['detail']}" for each in violations + warnings]
        outcome.unsimulated = [f"{each['method']} {each['path']}" for each in await server.get("unsimulated")]
    outcome.seconds = round(time.monotonic() - started, 1)
    return outcome
