"""Each package works alone: its wheel in an environment that has only what it declares, in the pinned versions."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from rateway_simulator import patches

from tests.aio import run
from tests.packages.workspace import PACKAGES, ROOT, canonical, projects
from tests.rabbitmq import Broker

# A worker as the client's README has it: events, a query, a command.
WORKER = """
import asyncio, os
from rateway_client import Worker

async def main():
    async with Worker(os.environ["AMQP_URI"], cluster=1, events=["GUILD_CREATE"], queue="alone") as worker:
        print("listening", flush=True)
        async for event in worker.events():
            guild_id = event.data["id"]
            await event.done()
            guild = await worker.cache.guild(guild_id, fields=["id", "name"])
            assert guild == {"id": guild_id, "name": event.data["name"]}, guild
            await worker.update_presence(0, activities=[{"type": 0, "name": "alone"}])
            print("done", guild_id, flush=True)
            return

asyncio.run(main())
"""
# A bot of somebody else's.
BOT = """
import sys
import discord
{patch}
class Bot(discord.Client):
    async def on_ready(self):
        print("ready", len(self.guilds), flush=True)
        await self.close()

Bot(intents=discord.Intents.default()).run({token!r}, log_handler=None)
"""


def needed(names: set[str]) -> set[str]:
    """Return the distributions that these need on this Python, themselves and ours left out."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        for line in metadata.requires(waiting.pop()) or ():
            requirement = Requirement(line)
            name = canonical(requirement.name)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            if name not in found:
                found.add(name)
                waiting.append(name)
    return {name for name in found if not name.startswith("rateway")}


def copy_of(name: str, site: Path) -> None:
    """Copy an installed distribution: the tests' own environment has it in the pinned version, without a network."""
    for file in metadata.files(name) or ():
        if file.parts[0] == ".." or "__pycache__" in file.parts:
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(file.locate()), target)


class Environments:
    """One environment for each package, made when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels = folder / "wheels"
        for name in PACKAGES:
            # The compiled form of a wheel is proved by tools/release and tests/compiled.
            self._call(
                [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(self.wheels)],
                cwd=ROOT / "packages" / name,
                RATEWAY_PLAIN="1",
            )

    def of(self, name: str) -> Path:
        """The environment's folder of programs."""
        place = self.folder / name
        if not place.exists():
            venv.create(place, with_pip=False, symlinks=True)
            (site,) = place.glob("lib/python*/site-packages")
            for each in sorted(needed({name})):
                copy_of(each, site)
            # pip refuses what does not fit the declared requirements, and has no index to look for more.
            pip = [
                sys.executable,
                "-m",
                "pip",
                "--python",
                str(place / "bin/python"),
                "--disable-pip-version-check",
            ]
            self._call([*pip, "install", "-q", "--no-index", "--find-links", str(self.wheels), name])
            self._call([*pip, "check"])
        return place / "bin"

    def _call(self, words: list[str], cwd: Path | None = None, **environ: str) -> None:
        done = subprocess.run(
            words,
            cwd=cwd or self.folder,
            env=os.environ | environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    folder = tmp_path_factory.mktemp("alone")
    yield Environments(folder)
    shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def running(
    words: list[str], folder: Path, **environ: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with nothing of the tests' environment; ended when this is left."""
    with (folder / f"{Path(words[0]).name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *words,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)} | environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@asynccontextmanager
async def discord(environments: Environments, folder: Path) -> AsyncIterator[dict[str, Any]]:
    """The simulator in its own environment; where it is to be found."""
    program = str(environments.of("rateway-simulator") / "rateway-simulate")
    async with running([program, "--json", "--guilds", "2", "--members", "5"], folder) as simulator:
        yield json.loads(await line_of(simulator))["ready"]


def test_the_protocol_is_imported_with_nothing_but_what_it_declares(environments: Environments) -> None:
    python = environments.of("rateway-protocol") / "python"
    program = (
        "import pkgutil, importlib, rateway_protocol as p\n"
        "for each in pkgutil.walk_packages(p.__path__, 'rateway_protocol.'): importlib.import_module(each.name)\n"
        "print(p.__version__)"
    )
    done = subprocess.run(
        [python, "-I", "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == (projects()[0].version, "")


def test_discord_py_connects_to_the_simulator_alone(environments: Environments, tmp_path: Path) -> None:
    async def main() -> None:
        async with discord(environments, tmp_path) as found:
            program = BOT.format(
                patch=patches.discord_py(found["api_url"], found["gateway_url"]), token=found["token"]
            )
            async with running([sys.executable, "-c", program], tmp_path) as bot:
                assert await line_of(bot) == "ready 2"

    run(main())


def test_the_gateway_says_its_version_and_that_it_can_be_checked(environments: Environments) -> None:
    program = environments.of("rateway") / "rateway"
    for words, said in (
        (["--version"], projects()[-1].version),
        (["check", "--help"], "usage: rateway check"),
    ):
        done = subprocess.run([program, *words], capture_output=True, text=True, check=False, timeout=200)
        assert said in done.stdout and done.returncode == 0, done.stderr


def test_without_the_simulator_the_gateway_says_how_to_get_it(environments: Environments) -> None:
    program = environments.of("rateway") / "rateway"
    for word in ("simulate", "demo"):
        done = subprocess.run([program, word], capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 69 and "rateway[demo]" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_a_worker_of_the_client_receives_asks_and_commands_with_all_four_apart(
    environments: Environments, broker: Broker, tmp_path: Path
) -> None:
    async def main() -> None:
        async with discord(environments, tmp_path) as found:
            python = str(environments.of("rateway-client") / "python")
            async with running([python, "-I", "-c", WORKER], tmp_path, AMQP_URI=broker.uri) as worker:
                assert await line_of(worker) == "listening"
                settings = {
                    "AMQP_URI": broker.uri,
                    "DISCORD_API_URL": found["api_url"],
                    "DISCORD_TOKEN": found["token"],
                    "INTENTS": "GUILDS",
                    "EXTRA_SHARDS": "0",
                    "STATE_DIR": str(tmp_path / "state"),
                }
                program = str(environments.of("rateway") / "rateway")
                async with running([program], tmp_path, **settings):
                    word, guild_id = (await line_of(worker)).split()
                    assert word == "done" and guild_id.isdigit()
                assert await worker.wait() == 0

    run(main(), timeout=200)
