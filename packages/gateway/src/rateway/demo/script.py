"""The course of the demonstration: wait for the guilds, let things go wrong, drain, audit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import ClientError
from rateway.demo import scene as scenes
from rateway.demo.asking import ask
from rateway.demo.audit import audit
from rateway.demo.children import memory_of
from rateway.demo.scene import Options, Scene, SimulatorGone
from rateway.demo.show import MIB, Frame, Show, about_doubled, clusters_of, summary_of
from rich.console import Console

#: Seconds between two frames.
FRAME = 0.5
#: Seconds between two users who say `!ping`.
PING = 0.5
#: The gateway's first event has to come within this time, and so has each further one of its guilds', seconds.
START_PATIENCE = 90.0
#: At the end, so long without a new arrival means that nothing more comes, seconds.
SILENCE = 20.0
#: The same of the bot, seconds: discord.py waits 5 s before it identifies with a shard whose session was invalidated,
#: and identifies with one shard after the other; the sixteen of a demonstration take 80 s.
BOT_SILENCE = 100.0
#: Seconds between two looks at what the workers have answered.
ANSWERS = 0.25
#: Without an end, the faults come again in rounds of so many seconds.
ROUND = 60.0

#: Violations shown in full at the end.
MOST_VIOLATIONS = 20
#: What was killed under the bot → the row of the summary that says how many of its shards resumed.
RESUMES = {
    "proxy": "its proxy killed with -9: resumed",
    "bot": "killed with -9, came back: resumed",
}
#: When each fault comes, as a share of the time.
FAULTS = (
    (0.1, "cut"), (0.2, "broker"), (0.4, "proxy"), (0.5, "bot"), (0.6, "cut"), (0.7, "runner"), (0.8, "kill"),
)  # fmt: skip


async def run(options: Options, console: Console) -> int:
    """Show it; 0 when nothing was lost or violated, else 1."""
    show = Show(console)
    async with scenes.opened(options, show.say) as scene:
        try:
            await beginning(scene)
        except TimeoutError:
            show.say(
                f"no event within {START_PATIENCE:.0f} s; the gateway's last words:\n{scene.gateway.tail()}"
            )
            return 1
        try:
            with show.running():
                await _shown(scene, show)
        except ClientError as error:
            # Its end may be a moment away from being known.
            await asyncio.sleep(FRAME)
            scene.check_simulator()
            raise SimulatorGone(f"the simulated Discord does not answer: {error}") from error
        return await _result(scene, show)


async def _shown(scene: Scene, show: Show) -> None:
    """The course and the wait for what is under way at its end, in moving pictures."""
    frames = asyncio.create_task(_frames(scene, show, time.monotonic()))
    try:
        try:
            await _course(scene, show, frames)
        except asyncio.CancelledError:
            # Ctrl-C ends the course, not the audit; the next one ends that as well.
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
        await _drain(scene, show)
    finally:
        frames.cancel()
        await asyncio.gather(frames, return_exceptions=True)


async def beginning(scene: Scene) -> None:
    """Until every guild has arrived; then Discord may stir. Of a guild that is still to come it would tell nothing."""
    names, arrival = scene.collector.receipts.names, scene.collector.arrival
    while names["GUILD_CREATE"] < scene.options.guilds:
        arrival.clear()
        async with asyncio.timeout(START_PATIENCE):
            await arrival.wait()
    await scene.start_bot()
    await scene.steering.rate(scene.options.rate)


async def _course(scene: Scene, show: Show, frames: asyncio.Task[None]) -> None:
    seconds = scene.options.seconds
    duties = [
        asyncio.create_task(_pings(scene)),
        asyncio.create_task(_watch(scene, show)),
    ]
    if scene.options.faults:
        duties.append(asyncio.create_task(_faults(scene, show)))
    try:
        # A duty that fails ends the course at once; only faults have an end of their own.
        endless = [frames, *(duties[:2] if seconds else duties)]
        done, _ = await asyncio.wait(endless, timeout=seconds or None, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        if scene.options.faults:
            await duties[2]
    finally:
        for task in duties:
            task.cancel()
        await asyncio.gather(*duties, return_exceptions=True)


async def _frames(scene: Scene, show: Show, started: float) -> None:
    before, looked = scene.collector.receipts.arrived, started
    while True:
        await asyncio.sleep(FRAME)
        ledger, status = await asyncio.gather(scene.steering.ledger(), scene.status())
        now, receipts = time.monotonic(), scene.collector.receipts
        arriving = (receipts.arrived - before) / (now - looked)
        before, looked = receipts.arrived, now
        show.frame(
            Frame(
                elapsed=now - started,
                seconds=scene.options.seconds,
                sent=ledger["events"],
                delivered=receipts.distinct,
                arriving=arriving,
                violations=ledger["violations"] + ledger["warnings"],
                gateway_memory=memory_of(scene.gateway.pid),
                status=status,
            )
        )


async def _watch(scene: Scene, show: Show) -> None:
    """Report a gateway that ends by itself, and start it again; it counts as a failure."""
    while True:
        await asyncio.sleep(FRAME)
        scene.check_simulator()
        if not scene.gateway.running and not scene.killing:
            process = scene.gateway.process
            code = None if process is None else process.returncode
            scene.crashes += 1
            show.say(f"the gateway ended by itself with exit code {code}:\n{scene.gateway.tail()}")
            await scene.gateway.start()
        await _revive_bot(scene, show)


async def _revive_bot(scene: Scene, show: Show) -> None:
    """Start the bot behind the proxy again where it has ended, as whatever supervises a bot does: discord.py ends when
    it cannot log in."""
    if scene.bot.starts and not scene.bot.running and not scene.killing_bot:
        show.say("the bot behind the proxy could not log in and is started again")
        await scene.bot.start()


async def _pings(scene: Scene) -> None:
    while True:
        await asyncio.sleep(PING)
        await scene.ping()


async def _faults(scene: Scene, show: Show) -> None:
    async def cut() -> None:
        count = min(2, scene.options.shards)
        show.say(f"cutting {count} shards")
        await scene.cut_shards(count)

    async def broker() -> None:
        show.say("the broker goes away")
        show.say(await scene.disturb_broker())

    async def runner() -> None:
        show.say(await scene.kill_runner())

    async def kill() -> None:
        show.say("killing the gateway with -9 and starting it again")
        await scene.kill_gateway()

    async def bot() -> None:
        show.say("killing the bot behind the proxy with -9")
        count = await scene.kill_bot()
        show.say(f"the bot came back with its sessions: {count} of {scene.options.shards} shards resumed")

    async def proxy() -> None:
        show.say("killing the gateway's proxy with -9")
        count = await scene.kill_proxy()
        show.say(
            f"the bot has reconnected to the next proxy: {count} of {scene.options.shards} shards resumed"
        )

    acts: dict[str, Callable[[], Awaitable[None]]] = {
        "bot": bot,
        "cut": cut,
        "broker": broker,
        "proxy": proxy,
        "runner": runner,
        "kill": kill,
    }
    length = scene.options.seconds or ROUND
    started = time.monotonic()
    while True:
        for share, name in FAULTS:
            await asyncio.sleep(max(0.0, started + share * length - time.monotonic()))
            if name in scene.options.faults:
                await acts[name]()
        if scene.options.seconds:
            return
        await asyncio.sleep(max(0.0, started + length - time.monotonic()))
        started = time.monotonic()


async def _drain(scene: Scene, show: Show) -> None:
    """Stop the source and wait until everything sent has arrived, or nothing more comes."""
    show.say("the source stops; waiting for what is under way (Ctrl-C: no longer)")
    await scene.steering.rate(0)
    await _arrive(scene, show)
    # Each reply of a worker is one more event: before the last ones are counted, no worker may write any more.
    await _answers(scene, show)
    await asyncio.gather(*(worker.terminate() for worker in [*scene.workers, scene.bot]))
    await _arrive(scene, show)


async def _answers(scene: Scene, show: Show) -> None:
    """Until each ping has its answer and the bot has seen each: who comes back is given what was said meanwhile."""
    done, since = scene.answered() + len(scene.seen_by_bot()), time.monotonic()
    while done < 2 * len(scene.pings):
        is_answered = scene.answered() >= len(scene.pings)
        silence = BOT_SILENCE if is_answered else SILENCE
        if time.monotonic() - since >= silence:
            who = "the bot has seen nothing new" if is_answered else "no worker has answered"
            show.say(f"{who} for {silence:.0f} s")
            return
        await _revive_bot(scene, show)
        await asyncio.sleep(ANSWERS)
        before, done = done, scene.answered() + len(scene.seen_by_bot())
        if done > before:
            since = time.monotonic()


async def _arrive(scene: Scene, show: Show) -> None:
    receipts, arrival = scene.collector.receipts, scene.collector.arrival
    while True:
        sent = int((await scene.steering.ledger())["events"])
        # From here on an arrival is noticed: the last one may have come while the ledger was asked for.
        arrival.clear()
        if receipts.distinct >= sent:
            return
        try:
            async with asyncio.timeout(SILENCE):
                await arrival.wait()
        except TimeoutError:
            show.say(f"nothing came for {SILENCE:.0f} s")
            return
        await asyncio.sleep(FRAME / 2)


async def _result(scene: Scene, show: Show) -> int:
    facts = await _facts(scene)
    code = await scene.gateway.terminate()
    if code != 0:
        show.say(f"the gateway ended with exit code {code}; its last words:\n{scene.gateway.tail()}")
    ledger, sent, broken = await asyncio.gather(
        scene.steering.ledger(), scene.steering.sent(), scene.steering.violations()
    )
    receipts = scene.collector.receipts
    result = audit(sent, receipts)
    counts = ledger["counts"]
    facts = {
        "sessions (identifies)": f"{ledger['sessions']:,} ({counts.get('identify', 0)})",
        "resumes": str(counts.get("resume", 0)),
        "gateway started": "once" if scene.gateway.starts == 1 else f"{scene.gateway.starts} times",
    } | facts
    show.console.print(summary_of(result, len(broken), receipts.redelivered, facts))
    if result.doubled:
        show.line(about_doubled(result.doubled))
    for words in result.examples:
        show.line(words)
    for each in broken[:MOST_VIOLATIONS]:
        show.line(f"violation: {each['rule']} shard {each['shard']}: {each['detail']}")
    for gap in receipts.gaps:
        show.line(f"gap: {gap.decode(errors='replace')}")
    is_well = bot_is_well(scene)
    if not is_well:
        show.line(f"the bot behind the proxy has missed something; its log:\n{scene.bot.tail()}")
    clean = result.clean and not broken and is_well
    return 0 if clean and code == 0 and not scene.crashes and result.sent else 1


def _seen(scene: Scene) -> tuple[int, int, int]:
    """Pings that the bot behind the proxy has seen, has missed, and has seen more than once."""
    seen = scene.seen_by_bot()
    return len(seen), len(scene.pings) - len(seen), sum(times > 1 for times in seen.values())


def bot_is_well(scene: Scene) -> bool:
    """Whether the bot behind the proxy has missed nothing, got nothing twice, and resumed with every shard."""
    _, missed, twice = _seen(scene)
    return not missed and not twice and all(count == scene.options.shards for count in scene.resumed.values())


async def _facts(scene: Scene) -> dict[str, str]:
    """What the running gateway, the workers' logs and the bot's database have to say at the end."""
    seen, missed, twice = _seen(scene)
    facts = {
        "!ping said, answered by workers": f"{len(scene.pings)}, {scene.answered()}",
        "discord.py bot behind the proxy": f"!ping seen {seen}, missed {missed}, twice {twice}",
    }
    for fault, words in RESUMES.items():
        if fault in scene.resumed:
            facts[words] = f"{scene.resumed[fault]} of {scene.options.shards} shards"
    facts |= {
        "that bot started": "once" if scene.bot.starts == 1 else f"{scene.bot.starts} times",
        "health": await scene.health(),
    }
    caches = [each["cache"] for each in clusters_of(await scene.status()) if each.get("cache")]
    members, size = (sum(cache[name] for cache in caches) for name in ("members", "disk_bytes"))
    if members:
        facts["cache"] = f"{size / MIB:.1f} MiB for {members:,} members and all that is around them"
        facts |= await _questions(scene)
    return facts


async def _questions(scene: Scene) -> dict[str, str]:
    """A few questions to the last cluster about a guild of any: the cache is shared."""
    place = (await scene.steering.guilds(1))[0]
    guild, user, channel = place["id"], place["members"][-1], place["channel_id"]
    asked = [("Guild", [guild]), ("Member", [guild, user]), ("GuildChannel", [channel]), ("Guild", ["1"])]
    try:
        answers = await ask(scene.uri, scene.options.clusters, asked)
    except TimeoutError:
        return {"queries": "not answered"}
    told = ", ".join(f"{kind} {found.status}" for (kind, _), found in zip(asked, answers, strict=True))
    return {"queries": told, "slowest answer": f"{max(found.ms for found in answers):.1f} ms"}
