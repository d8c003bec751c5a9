"""A new user's path: the README's commands and its worker, in order, in a clean checkout with nothing installed.

What is not in the README is only what a test has in place of an account: the simulated Discord's address and token, and
a broker at another address.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from rateway.demo.steering import Steering
from rateway_protocol.discord.snowflake import shard_of
from rateway_simulator.options import SimulatorOptions
from rateway_simulator.server import Simulator
from rateway_simulator.world.dispatch import WorldOptions

from tests.aio import run
from tests.browser.test_page_of_a_gateway import free_port
from tests.e2e.harness import LOOK
from tests.rabbitmq import Broker

pytestmark = pytest.mark.world

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
(WORKER,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
ADDRESS = "amqp://guest:guest@localhost/"
#: Discord's recommendation for a small bot; the default of EXTRA_SHARDS makes two clusters of it.
RECOMMENDED = 2
#: What a variable of this machine's own may decide; everything else is as a new user has it.
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "PIP_CERT", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "SSL_CERT_FILE")


def environment(**settings: str) -> dict[str, str]:
    return {name: os.environ[name] for name in KEPT if name in os.environ} | settings


def clean_checkout(folder: Path) -> Path:
    """What is committed, and nothing else."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


async def shell(line: str, folder: Path, **settings: str) -> str:
    """Run a line as a new user pastes it; its output. It has to succeed."""
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", line, cwd=folder, env=environment(**settings), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, f"{line}: {process.returncode}\n{output.decode()}"
    return output.decode()


def test_the_readme_has_the_commands_that_are_run_here() -> None:
    demo, start = COMMANDS
    assert demo == "make demo\n"
    install, gateway = start.splitlines()
    assert install == "make install"
    assert re.fullmatch(
        rf"DISCORD_TOKEN=… INTENTS=[A-Z_,]+ AMQP_URI={re.escape(ADDRESS)} \.venv/bin/rateway", gateway
    )
    assert ADDRESS in WORKER


def test_a_new_user_comes_from_a_clean_checkout_to_the_messages_of_all_servers(
    tmp_path: Path, broker: Broker
) -> None:
    async def scene() -> None:
        folder = clean_checkout(tmp_path / "rateway")
        demo = await shell(COMMANDS[0], folder)
        assert re.search(r"lost\W+0\b", demo), demo
        install, start = COMMANDS[1].splitlines()
        await shell(install, folder)

        world = WorldOptions(guilds=40, members_per_guild=3)
        options = SimulatorOptions(world=world, shards=RECOMMENDED, max_concurrency=16)
        async with Simulator(options) as sim, Steering(sim.control_url) as steering:
            settings = {
                "DISCORD_API_URL": sim.api_url,
                "HTTP_ADDRESS": f"127.0.0.1:{free_port()}",
                "STATE_DIR": str(tmp_path / "state"),
            }
            line = start.replace("DISCORD_TOKEN=…", f"DISCORD_TOKEN={sim.options.token}")
            line = line.replace(ADDRESS, broker.uri)
            plan = " ".join((await shell(f"{line} check", folder, **settings)).split())
            assert "a start would work" in plan
            assert "bind a queue to rateway-1, rateway-2" in plan

            process = await asyncio.create_subprocess_exec(
                "sh", "-c", f"exec env {line}", cwd=folder, env=environment(**settings),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            try:
                await live(folder, settings)
                await hear_all(folder, broker.uri, steering, RECOMMENDED + 8)
                status = await shell(".venv/bin/rateway status", folder, **settings)
                assert "10 live (10 in the whole bot)" in status, status
                await shell(".venv/bin/rateway health", folder, **settings)
                for command in re.findall(r"`rateway ([a-z-]+)`", README):
                    await shell(f".venv/bin/rateway {command} --help", folder)
            finally:
                process.terminate()
                assert await process.wait() == 0

    run(scene(), timeout=900)


async def live(folder: Path, settings: dict[str, str]) -> None:
    """Until `rateway status` says that every shard is live."""
    async with asyncio.timeout(120):
        while True:
            process = await asyncio.create_subprocess_exec(
                ".venv/bin/rateway", "status", "--json", cwd=folder, env=environment(**settings),
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            if await process.wait() == 0:
                return
            await asyncio.sleep(LOOK)


async def hear_all(folder: Path, uri: str, steering: Steering, shards: int) -> None:
    """Paste the worker and let a member of every guild speak: each is heard, whichever cluster its guild is of."""
    program, log = folder / "worker.py", folder / "worker.log"
    program.write_text(WORKER.replace(ADDRESS, uri))
    with log.open("wb") as out:
        worker = await asyncio.create_subprocess_exec(
            ".venv/bin/python", "-u", program, cwd=folder, env=environment(), stdin=asyncio.subprocess.DEVNULL,
            stdout=out, stderr=out,
        )  # fmt: skip
    guilds = await steering.guilds()
    missing = {str(place["id"]) for place in guilds}
    assert {shard_of(int(guild_id), shards) // 8 for guild_id in missing} == {0, 1}
    try:
        async with asyncio.timeout(60):
            while missing and worker.returncode is None:
                for place in guilds:
                    await steering.speak(
                        place["members"][-1], place["channel_id"], f"hello from {place['id']}"
                    )
                await asyncio.sleep(LOOK)
                missing -= {line.removeprefix("hello from ") for line in log.read_text().splitlines()}
    except TimeoutError:
        pass
    finally:
        worker.kill()
        await worker.wait()
    assert not missing, f"{len(missing)} servers were not heard: {log.read_text()[-2000:]}"
