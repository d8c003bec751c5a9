"""Every Python example in the documentation is a complete program, and does here what the page says."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

from rateway.demo.children import Child
from rateway.demo.steering import Steering
from rateway_protocol.discord.snowflake import shard_of

from tests.aio import run
from tests.contract.test_original_workers import sent_to_discord
from tests.e2e.harness import LOOK, Json, Stage, stage
from tests.rabbitmq import Broker

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packages/*/README.md")])
SNIPPETS = {
    f"{page.relative_to(ROOT)}:{number}": program
    for page in PAGES
    for number, program in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL), start=1
    )
}
#: The address in the examples; a test's broker has another.
ADDRESS = "amqp://guest:guest@localhost/"
#: A guild's id in the examples of queries.
GUILD = "290926798626357250"

#: Example → what members of every guild say while it runs, and what has to be in its output for each cluster's guild.
WORKERS = {
    "README.md:1": ("hello {cluster}", ["hello 1", "hello 2"]),
    "docs/contract.md:1": ("hello {cluster}", ["MESSAGE_CREATE hello 1", "MESSAGE_CREATE hello 2"]),
    "docs/delivery.md:1": ("hello {cluster}", ['"hello 1"', '"hello 2"']),
    "docs/from_libraries.md:1": ("!ping", ["pong to "]),
    "docs/workers.md:1": ("!where", ["in {name}"]),
    "docs/workers.md:2": ("hello {cluster}", ["MESSAGE_CREATE 0 {{"]),
    "docs/workers.md:3": ("hello {cluster}", ["hello 1", "hello 2"]),
    "packages/client/README.md:1": ("hello {cluster}", ["hello 1", "hello 2"]),
}
#: Example that ends by itself → what it prints.
PROGRAMS = {
    "docs/amqp.md:1": "bound",
    "docs/contract.md:2": "",  # it prints nothing: the simulated Discord gets the presence
    "docs/queries.md:1": "'name': '{name}'",
    "docs/simulator.md:1": "resumed, and no rule was broken",
    "docs/simulator_world.md:1": "",  # it changes a library and prints nothing
    "packages/protocol/README.md:1": "513 8",
}
#: A program that takes longer has not done what its page says.
PATIENCE_S = 90.0


def test_every_example_is_run_here_and_none_is_a_fragment() -> None:
    assert SNIPPETS.keys() == WORKERS.keys() | PROGRAMS.keys()
    for program in SNIPPETS.values():
        compile(program, "a page", "exec")


def cluster_of(place: Json) -> int:
    """The cluster of a guild: each has one of two shards."""
    return shard_of(int(place["id"]), 2) + 1


def program(name: str, it: Stage, folder: Path, guild_id: str) -> Child:
    """An example as a process; addresses and ids of the page become those of the stage."""
    path = folder / (re.sub(r"\W", "_", name) + ".py")
    text = SNIPPETS[name].replace(ADDRESS, it.broker.uri).replace(GUILD, guild_id)
    path.write_text(text)
    return Child(name, ["-u", str(path)], {}, path.with_suffix(".log"))


async def printed(child: Child, words: list[str], say: str, simulator: Steering) -> list[str]:
    """Let members speak until every one of *words* is in the output; what is missing after PATIENCE_S."""
    guilds = await simulator.guilds()
    missing = words
    try:
        async with asyncio.timeout(PATIENCE_S):
            while missing and child.running:
                for place in guilds:
                    text = say.format(cluster=cluster_of(place))
                    await simulator.speak(place["members"][-1], place["channel_id"], text)
                await asyncio.sleep(LOOK)
                missing = [each for each in words if not any(each in line for line in child.lines())]
    except TimeoutError:
        pass
    return missing


def test_the_examples_do_what_their_pages_say(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        failed: dict[str, str] = {}
        async with (
            stage(tmp_path, broker, shards=2, per_cluster=1, guilds=6) as it,
            Steering(it.sim.control_url) as simulator,
        ):
            await it.ready()
            guilds = await simulator.guilds()
            assert {cluster_of(place) for place in guilds} == {1, 2}
            first = next(place for place in guilds if cluster_of(place) == 1)
            for name, (say, words) in WORKERS.items():
                child = program(name, it, tmp_path, str(first["id"]))
                process = await child.start()
                wanted = [each.format(name=first["name"]) for each in words]
                missing = await printed(child, wanted, say, simulator)
                if missing:
                    failed[name] = f"{missing} not printed: {child.tail()}"
                # As Ctrl-C does it.
                child.signal(signal.SIGINT)
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        await process.wait()
                except TimeoutError:
                    failed[name] = f"does not end at Ctrl-C: {child.tail()}"
                if any("Traceback" in line for line in child.lines()):
                    failed[name] = f"ends with a traceback: {child.tail()}"
                await child.kill()
            for name, output in PROGRAMS.items():
                child = program(name, it, tmp_path, str(first["id"]))
                process = await child.start()
                async with asyncio.timeout(PATIENCE_S):
                    code = await process.wait()
                if code != 0 or output.format(name=first["name"]) not in "\n".join(child.lines()):
                    failed[name] = f"ended with {code}: {child.tail()}"
            await sent_to_discord(it, "presence_update")
        assert failed == {}

    run(main(), timeout=280)
