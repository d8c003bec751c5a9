"""The course of the demonstration: wait for the first event, let things go wrong, drain, audit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import ClientError
from rich.console import Console

from rateway.demo import scene as scenes
from rateway.demo.asking import ask
from rateway.demo.audit import audit
from rateway.demo.children import memory_of
from rateway.demo.scene import Options, Scene, SimulatorGone
from rateway.demo.show import MIB, Frame, Show, clusters_of, summary_of

#: Seconds between two frames.
FRAME = 0.5
#: Seconds between two users who say `!ping`.
PING = 0.5
#: The gateway's first event has to come within this time, seconds.
START_PATIENCE = 90.0
#: At the end, so long without a new arrival means that nothing more comes, seconds.
SILENCE = 20.0
#: Workers that have replied to nobody for so long have replied to all that they heard, seconds.
REPLIES = 2.0
#: Without an end, the faults come again in rounds of so many seconds.
ROUND = 60.0

#: Violations shown in full at the end.
MOST_VIOLATIONS = 20
#: When each fault comes, as a share of the time.
FAULTS = ((0.1, "cut"), (0.2, "broker"), (0.5, "cut"), (0.62, "worker"), (0.8, "kill"))


async def run(options: Options, console: Console) -> int:
    """Show it; 0 when nothing was lost or violated, else 1."""
    show = Show(console)
    async with scenes.opened(options, show.say) as scene:
        try:
            await _first_event(scene)
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


async def _first_event(scene: Scene) -> None:
    """Until something arrives; with the rate at 0 before, that is a READY."""
    async with asyncio.timeout(START_PATIENCE):
        await scene.collector.arrival.wait()
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
                violations=ledger["violations"],
                gateway_memory=memory_of(scene.gateway.pid),
                status=status,
            )
        )


async def _watch(scene: Scene, show: Show) -> None:
    """A gateway that ends by itself is told and started again; it counts as a failure."""
    while True:
        await asyncio.sleep(FRAME)
        scene.check_simulator()
        if not scene.gateway.running and not scene.killing:
            process = scene.gateway.process
            code = None if process is None else process.returncode
            scene.crashes += 1
            show.say(f"the gateway ended by itself with exit code {code}:\n{scene.gateway.tail()}")
            await scene.gateway.start()


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

    async def worker() -> None:
        show.say(await scene.kill_worker_process())

    async def kill() -> None:
        show.say("killing the gateway with -9 and starting it again")
        await scene.kill_gateway()

    acts: dict[str, Callable[[], Awaitable[None]]] = {
        "cut": cut,
        "broker": broker,
        "worker": worker,
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
    before = -1
    while before < (replied := _replied(scene)) < scene.pings:
        before = replied
        await asyncio.sleep(REPLIES)
    await asyncio.gather(*(worker.terminate() for worker in scene.workers))
    await _arrive(scene, show)


async def _arrive(scene: Scene, show: Show) -> None:
    receipts, arrival = scene.collector.receipts, scene.collector.arrival
    while receipts.distinct < int((await scene.steering.ledger())["events"]):
        arrival.clear()
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
    for words in result.examples:
        show.line(words)
    for each in broken[:MOST_VIOLATIONS]:
        show.line(f"violation: {each['rule']} shard {each['shard']}: {each['detail']}")
    for gap in receipts.gaps:
        show.line(f"gap: {gap.decode(errors='replace')}")
    return 0 if result.clean and not broken and code == 0 and not scene.crashes and result.sent else 1


async def _facts(scene: Scene) -> dict[str, str]:
    """What the running gateway and the workers' logs have to say at the end."""
    facts = {
        "!ping said, replies by workers": f"{scene.pings}, {_replied(scene)}",
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


def _replied(scene: Scene) -> int:
    """How many replies Discord has taken from the workers."""
    lines = [line for worker in scene.workers for line in worker.log.read_text(errors="replace").splitlines()]
    return sum(line.startswith("replied with 200") for line in lines)
