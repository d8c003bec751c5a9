"""The container image: built by buildah as deploy/Dockerfile says, run as its own user, stopped and run again."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.aio import run
from tests.browser.test_page_of_a_gateway import free_port
from tests.e2e.harness import LOOK, Stage, stage
from tests.rabbitmq import Broker

pytestmark = pytest.mark.world

ROOT = Path(__file__).parents[2]
NAME = "localhost/rateway-test"
#: Every file of a layer is copied, which needs nothing of the kernel; runs are changes of root in the host's network.
ENVIRONMENT = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
TOKEN = "a-token-of-the-test"
PATIENCE_S = 60.0


def buildah(*words: str) -> str:
    done = subprocess.run(["buildah", *words], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    if os.geteuid() != 0 or shutil.which("buildah") is None:
        pytest.skip("needs root and buildah: apt-get install buildah debootstrap")
    built = subprocess.run(
        [ROOT / "tools" / "container-image", NAME],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    name = buildah("from", NAME)
    yield name
    buildah("rm", name)


def config(container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(buildah("inspect", container))["OCIv1"]["config"]
    return found


async def started(container: str, volume: Path, settings: dict[str, str]) -> asyncio.subprocess.Process:
    """What the image's entry point starts, with its own user and environment."""
    environment = [f"--env={name}={value}" for name, value in settings.items()]
    return await asyncio.create_subprocess_exec(
        "buildah", "run", f"--volume={volume}:/var/lib/rateway", *environment, container, "--",
        *config(container)["Entrypoint"],
        env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


async def running(address: str) -> dict[str, Any]:
    """The status, once every shard is live and the broker confirms."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession(headers=headers) as session:
        while True:
            try:
                async with (
                    session.get(f"{address}/health/ready") as ready,
                    session.get(f"{address}/status") as status,
                ):
                    if ready.status == 200:
                        found: dict[str, Any] = await status.json()
                        return found
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(LOOK)


async def live(it: Stage, container: str, volume: Path) -> None:
    """One life of the container: it runs as nobody, answers its own health check, and ends by its stop signal."""
    port = free_port()
    settings = {
        "AMQP_URI": it.broker.uri, "DISCORD_API_URL": it.sim.api_url, "DISCORD_TOKEN": it.sim.options.token,
        "INTENTS": "ALL", "EXTRA_SHARDS": "0", "HTTP_ADDRESS": f"127.0.0.1:{port}", "HTTP_TOKEN": TOKEN,
    }  # fmt: skip
    process = await started(container, volume, settings)
    try:
        status = await running(f"http://127.0.0.1:{port}")
        pid = status["processes"][0]["pid"]
        uids = next(
            line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:")
        )
        assert set(uids.split()[1:]) == {config(container)["User"].split(":")[0]}
        asked = [f"--env={name}={settings[name]}" for name in ("HTTP_ADDRESS", "HTTP_TOKEN")]
        health = (
            config(container)
            .get("Healthcheck", {})
            .get("Test", ["CMD", "python", "-P", "-m", "rateway", "health"])
        )
        await asyncio.to_thread(buildah, "run", *asked, container, "--", *health[1:])
        os.kill(pid, signal.Signals[config(container)["StopSignal"]])
        async with asyncio.timeout(PATIENCE_S):
            output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def test_it_is_compiled_and_has_no_compiler(container: str) -> None:
    assert buildah("run", container, "--", "python", "-P", "-m", "rateway", "--version").endswith(
        "(compiled)"
    )
    buildah("run", container, "--", "sh", "-c", "! command -v gcc && ! command -v cc")


def test_it_runs_as_nobody_and_resumes_when_it_is_started_again(
    container: str, tmp_path: Path, broker: Broker
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o700)
    os.chown(volume, 10001, 10001)

    async def scene() -> None:
        async with stage(tmp_path, broker, shards=2, guilds=6, start=False) as it:
            await live(it, container, volume)
            assert it.count("identify") == 2
            await live(it, container, volume)
            assert (it.count("identify"), it.count("resume")) == (2, 2)

    run(scene())
