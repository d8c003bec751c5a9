"""Discord in trouble, scene by scene: a zone that is dead, identifies that fail, REST that refuses, layouts that it
takes no longer, sessions that are deaf. Each scene is judged by its end: the time to recover, the identifies that it
cost, and what was said.

The short form fits into a test run. ``python -m tests.chaos --outages`` runs the long one, in which faults last for
longer than any breaker and pauses are waited for.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rateway.transports import control_socket
from rateway_simulator.faults import Fault

from tests.e2e.harness import LOOK, Json, Stage, stage
from tests.e2e.witness import all_live, sessions_of
from tests.rabbitmq import Broker

__all__ = ["SCENES", "End", "Scene"]


class End(msgspec.Struct):
    """How a scene ended. ``allowed_s`` and ``allowed_identifies`` are what it may come to."""

    scene: str
    recovered_s: float
    allowed_s: float
    identifies: int
    allowed_identifies: int
    unsaid: list[str]
    """What should have been said in the notes or the log, and was not."""
    lost: int = 0
    """Events of sessions that went on, or were said to be whole, that did not arrive."""

    @property
    def clean(self) -> bool:
        return (
            self.recovered_s <= self.allowed_s
            and self.identifies <= self.allowed_identifies
            and not self.unsaid
            and self.lost == 0
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene; *seconds* is how long its fault lasts in the short form and in the long one."""

    name: str
    play: Callable[[Path, Broker, float], Coroutine[object, object, End]]
    short_s: float
    long_s: float


class Said:
    """Collects the notes of statuses: what is said while a fault lasts is gone afterwards."""

    def __init__(self, it: Stage) -> None:
        self._it = it
        self.notes: set[str] = set()

    async def look(self) -> Json | None:
        status = await self._it.gateway.status()
        if status is not None:
            self.notes.update(status["notes"])
        return status

    async def until(self, fact: Callable[[Json], bool]) -> Json:
        while True:
            assert self._it.gateway.running, self._it.gateway.tail(60)
            status = await self.look()
            if status is not None and fact(status):
                return status
            await asyncio.sleep(LOOK)

    async def during(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            await self.look()
            await asyncio.sleep(0.25)

    def unsaid(self, *words: str) -> list[str]:
        """Which of these stand neither in a note nor in the log."""
        log = self._it.gateway.log.read_text(errors="replace")
        return [each for each in words if each not in log and not any(each in note for note in self.notes)]


async def _ask(it: Stage, *words: str) -> Json:
    found: Json = msgspec.json.decode(await control_socket.ask(it.gateway.state_dir, *words, patience=30.0))
    return found


def zone(kind: str, allowed_s: float) -> Callable[[Path, Broker, float], Coroutine[object, object, End]]:
    """The own hosts of 64 sessions die at once, and their connections with them; the main host is well."""

    async def play(folder: Path, broker: Broker, seconds: float) -> End:
        simulator = {"resume_hosts": 2, "replay_events": 3500}
        async with stage(
            folder,
            broker,
            shards=64,
            per_cluster=32,
            guilds=64,
            members=2,
            simulator=simulator,
            PROCESSES="1",
        ) as it:
            await it.ready()
            it.sim.set_rate(640.0)
            said, spent = Said(it), it.count("identify")
            await it.sim.inject(Fault(kind=kind, status=503, seconds=seconds))
            began = time.monotonic()
            noted = len(it.sim.ledger.journal)
            await it.sim.inject(Fault(kind="cut"))

            def back() -> set[int]:
                journal = itertools.islice(it.sim.ledger.journal, noted, None)
                return {entry.shard for entry in journal if entry.what in ("ready", "resumed")}

            await said.until(lambda status: len(back()) == 64 and all_live(status))
            recovered = time.monotonic() - began
            it.sim.set_rate(0)
            audit = await it.settled()
            words = ["HTTP 503"] if kind == "refusing_host" else []
            return End(
                kind, recovered, allowed_s, it.count("identify") - spent, 0, said.unsaid(*words), audit.lost
            )

    return play


async def op9_everywhere(folder: Path, broker: Broker, seconds: float) -> End:
    """All sessions are lost, and every IDENTIFY is answered with op 9. No breaker may strike."""
    # Fewer than what fails in the time: a breaker that took this for a shard's fault would stop it for six hours.
    breaker = "3" if seconds < 600 else "10"
    async with stage(
        folder, broker, shards=4, guilds=8, members=2, simulator={"max_concurrency": 4}, PROCESSES="2",
        per_cluster=2, expect=frozenset({"*"}), CRASH_LOOP_IDENTIFIES=breaker,
    ) as it:  # fmt: skip
        await it.ready()
        said, spent = Said(it), it.count("identify")
        began = time.monotonic()
        await it.sim.inject(Fault(kind="op9_identify", seconds=seconds))
        await it.sim.inject(Fault(kind="forget"))
        await said.during(seconds)
        ended = time.monotonic()
        await said.until(all_live)
        recovered = time.monotonic() - ended
        identifies = it.count("identify") - spent
        assert identifies > 4, "the fault was met"
        words = ["fail alike", "op 9", "identifies succeed again"]
        # A tenth of the fault's age between two tries, what a shard waits by itself, and then all of them at once.
        # A breaker would take six hours.
        allowed = 0.1 * (ended - began) + 120.0
        return End(
            "op9_everywhere", recovered, allowed, identifies, 30 + int(seconds / 10), said.unsaid(*words)
        )


def rest(status: int) -> Callable[[Path, Broker, float], Coroutine[object, object, End]]:
    """REST answers with this status while a session is lost; the day's budget is not known yet."""

    async def play(folder: Path, broker: Broker, seconds: float) -> End:
        async with stage(
            folder, broker, shards=2, guilds=8, members=2, PROCESSES="1",
            expect=frozenset({"rest-after-401"}),
        ) as it:  # fmt: skip
            await it.ready()
            await it.gateway.until(lambda found: all(each["settled"] > 0 for each in found["shards"]))
            # Resumed from what is stored: nobody has asked for the budget.
            await it.gateway.stop()
            await it.gateway.start()
            await it.ready()
            said, spent = Said(it), it.count("identify")
            refused_rest = it.count(f"rest {status}")
            retry_after = 1.0 if status == 429 else None
            await it.sim.inject(Fault(kind="rest", status=status, seconds=seconds, retry_after=retry_after))
            await it.sim.inject(Fault(kind="op9", shards="1"))
            while it.count(f"rest {status}") == refused_rest:
                await said.look()
                await asyncio.sleep(LOOK)
            # A pause of a minute at most, and what a busy machine adds.
            words, allowed = [f"answered {status}"], 150.0
            if status == 401:
                words += ["sessions live with the same token", "asked again in"]
                # The simulator has answered; the gateway may not have read it yet.
                await said.until(lambda now: not said.unsaid("asked again in"))
                found = await _ask(it, "restart-shard", "1")
                words += [] if "401" in found.get("error", "") else [f"a refusal of restart-shard: {found}"]
                other = await _ask(it, "restart-shard", "0")
                words += [] if "ok" in other else [f"a restart of a live shard: {other}"]
                allowed = 310.0
                await said.until(lambda now: now["shards"][0]["state"] == "live")
            await said.during(seconds)
            ended = time.monotonic()
            if status == 401 and seconds < 60:
                # The long form waits for the pause to end.
                return End(
                    f"rest_{status}", 0.0, allowed, it.count("identify") - spent, 0, said.unsaid(*words)
                )
            await said.until(all_live)
            return End(
                f"rest_{status}", time.monotonic() - ended, allowed, it.count("identify") - spent, 1,
                said.unsaid(*words),
            )  # fmt: skip

    return play


async def no_ready(folder: Path, broker: Broker, seconds: float) -> End:
    """One of four shards of a bot with one bucket gets no READY: the others need not wait for it."""
    async with stage(
        folder,
        broker,
        shards=4,
        guilds=8,
        members=2,
        simulator={"max_concurrency": 1},
        start=False,
        PROCESSES="1",
    ) as it:
        await it.sim.inject(Fault(kind="no_ready", count=1))
        await it.gateway.start()
        said = Said(it)
        while it.count("identify") == 0:  # noqa: ASYNC110  # the ledger announces nothing
            await asyncio.sleep(LOOK)
        began = time.monotonic()
        await said.until(lambda status: sum(shard["state"] == "live" for shard in status["shards"]) == 3)
        recovered = time.monotonic() - began
        # 15 s of the shard, and 5.25 s for each of two others; with a bucket that waits it would be ten minutes.
        return End("no_ready", recovered, 150.0, it.count("identify"), 4, [])


async def outgrown_twice(folder: Path, broker: Broker, seconds: float) -> End:
    """Discord closes with 4011, and once more after the bot has grown again; in between the budget is too small."""
    simulator = {"shards": 2, "max_concurrency": 16, "identifies_reset": 60.0}
    async with stage(
        folder, broker, shards=2, guilds=32, members=2, simulator=simulator, PROCESSES="1",
        expect=frozenset({"sharding-required"}), CRASH_LOOP_IDENTIFIES="0",
    ) as it:  # fmt: skip
        await it.ready()
        said, spent = Said(it), it.count("identify")

        async def outgrows(most: int, recommended: int) -> None:
            await it.sim.inject(Fault(kind="most_guilds", value=most))
            await it.sim.inject(Fault(kind="shards", value=recommended))
            await it.sim.inject(Fault(kind="op9", shards="0"))

        def runs(shards: int) -> Callable[[Json], bool]:
            return lambda status: status["shard_count"] == shards and all_live(status)

        began = time.monotonic()
        await outgrows(14, 4)
        await said.until(runs(4))
        first = time.monotonic() - began
        # Fewer identifies than eight shards need: the three other sessions live on until the count starts anew, which
        # is not within the next 40 s.
        loop = asyncio.get_running_loop()
        while it.sim.gateway.limits.session_start_limit(loop.time())["reset_after"] < 40_000:  # noqa: ASYNC110  # a clock announces nothing
            await asyncio.sleep(LOOK)
        await it.sim.inject(Fault(kind="budget", value=5))
        before = sessions_of(await it.gateway.until(all_live))
        await outgrows(7, 8)
        note = await said.until(lambda status: any("are kept until" in note for note in status["notes"]))
        kept = {shard["shard"]: shard["session"] for shard in note["shards"] if shard["state"] == "live"}
        missing = [] if kept == {shard: before[shard] for shard in (1, 2, 3)} else [f"kept sessions: {kept}"]
        began = time.monotonic()
        await said.until(runs(8))
        recovered = max(first, time.monotonic() - began)
        words = ["4 shards: Discord recommends 4", "8 shards: Discord recommends 8", "4011", *missing]
        identifies = it.count("identify") - spent
        return End("outgrown_twice", recovered, 200.0, identifies, (1 + 4) + (1 + 8), said.unsaid(*words))


async def a_multiple(folder: Path, broker: Broker, seconds: float) -> End:
    """Discord demands a multiple of 16: the sum of recommendation and extra shards is refused, and rounded up."""
    simulator = {"shards": 16, "shards_multiple": 16, "max_concurrency": 16}
    async with stage(
        folder, broker, shards=32, per_cluster=16, guilds=32, members=1, simulator=simulator, PROCESSES="1",
        EXTRA_SHARDS="8", expect=frozenset({"invalid-shard"}),
    ) as it:  # fmt: skip
        began = time.monotonic()
        said = Said(it)
        await said.until(lambda status: status["shard_count"] == 32 and all_live(status))
        recovered = time.monotonic() - began
        words = ["24 shards: Discord recommends 16, and 8 extra", "4010", "32 shards: Discord refused 24"]
        return End("a_multiple", recovered, 150.0, it.count("identify"), 16 + 32, said.unsaid(*words))


async def deaf(folder: Path, broker: Broker, seconds: float) -> End:
    """The guilds of one session never come; another lives and gets no events. Both are seen, and renewed alone."""
    async with stage(
        folder, broker, shards=4, guilds=32, members=4, per_cluster=2, PROCESSES="2", start=False
    ) as it:
        await it.sim.inject(Fault(kind="no_guilds", count=1))
        await it.gateway.start()
        await it.ready()
        said, spent = Said(it), it.count("identify")
        began = time.monotonic()
        it.sim.set_rate(100.0)

        def empty(status: Json) -> list[int]:
            return [shard["shard"] for shard in status["shards"] if shard["unknown_guild_events"] >= 10]

        found = empty(await said.until(lambda now: bool(empty(now))))
        unsaid = [] if len(found) == 1 else [f"one shard without guilds: {found}"]
        renewed = await _ask(it, "restart-shard", str(found[0]), "new-session")
        await said.until(lambda now: all_live(now) and not empty(now))
        await it.sim.inject(Fault(kind="deaf", shards="1"))

        def is_seen(status: Json) -> bool:
            ages = {shard["shard"]: shard["dispatch_s"] for shard in status["shards"]}
            return bool(ages[1] is not None and ages[1] > 5.0 and all(ages[each] < 3.0 for each in (0, 2, 3)))

        sick = sessions_of(await said.until(is_seen))[1]
        # A resume keeps the session as it is.
        resumed = await _ask(it, "restart-shard", "1")
        kept = sessions_of(await said.until(all_live))[1]
        unsaid += [] if kept == sick else ["a restart that keeps the session"]
        again = await _ask(it, "restart-shard", "1", "new-session")
        await said.until(lambda now: all_live(now) and sessions_of(now)[1] != sick)
        recovered = time.monotonic() - began
        it.sim.set_rate(0)
        unsaid += [f"ok: {each}" for each in (renewed, resumed, again) if "ok" not in each]
        unsaid += said.unsaid("guilds that never came, on the shards", "asked for by an operator")
        return End("deaf", recovered, 200.0, it.count("identify") - spent, 2, unsaid)


SCENES = (
    # A recovery within half of the fault was one without the sessions' own hosts, however busy the machine was.
    Scene("dead_zone", zone("dead_host", 75.0), 150.0, 150.0),
    Scene("refusing_zone", zone("refusing_host", 75.0), 150.0, 150.0),
    Scene("silent_zone", zone("silent_host", 75.0), 150.0, 150.0),
    Scene("op9_everywhere", op9_everywhere, 40.0, 1300.0),
    Scene("rest_401", rest(401), 6.0, 70.0),
    Scene("rest_403", rest(403), 6.0, 60.0),
    Scene("rest_429", rest(429), 6.0, 60.0),
    Scene("rest_503", rest(503), 6.0, 60.0),
    Scene("no_ready", no_ready, 0.0, 0.0),
    Scene("outgrown_twice", outgrown_twice, 0.0, 0.0),
    Scene("a_multiple", a_multiple, 0.0, 0.0),
    Scene("deaf", deaf, 0.0, 0.0),
)
