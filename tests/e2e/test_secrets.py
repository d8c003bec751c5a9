"""The token and the passwords are in nothing that comes out: no log, answer, page, metric, state file, command line."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import aiohttp
from tests.simulator.running import fault

from tests.aio import run
from tests.browser.test_page_of_a_gateway import free_port
from tests.e2e.harness import Stage, stage
from tests.rabbitmq import Broker

TOKEN = "MTMxMzg5MjUyOTU3MzIwMDc2Nw.Gmarked.never-show-this-token-0123456789abcdef"
PASSWORD = "never show/this:pass@word"
HTTP_TOKEN = "never-show-this-http-token"
PATHS = ("/", "/health/live", "/health/ready", "/status", "/metrics", "/nothing")


def needles() -> list[bytes]:
    """Every form in which one of them could leave."""
    forms = []
    for secret in (TOKEN, PASSWORD, HTTP_TOKEN):
        plain = secret.encode()
        forms += [
            plain,
            quote(secret).encode(),
            quote(secret, safe="").encode(),
            base64.b64encode(plain)[:-4],
        ]
        forms += [plain[len(plain) // 2 :], base64.b64encode(b"\0rateway\0" + plain)[12:-4]]
    return forms


def clean(what: str, data: bytes) -> None:
    for needle in needles():
        at = data.find(needle)
        assert at < 0, f"{what}: {data[max(0, at - 200) : at + 100]!r}"


def test_the_search_finds_a_secret_in_each_of_its_forms() -> None:
    for leaked in (TOKEN, quote(PASSWORD, safe=""), "Bot " + TOKEN, HTTP_TOKEN[-14:]):
        try:
            clean("leak", leaked.encode())
        except AssertionError:
            continue
        raise AssertionError(f"{leaked} was not found")


async def answers(port: int) -> bytes:
    """All that HTTP says, with and without its token."""
    said = []
    async with aiohttp.ClientSession() as session:
        for headers in (
            {},
            {"Authorization": f"Bearer {HTTP_TOKEN}"},
            {"Authorization": f"Bearer {HTTP_TOKEN}x"},
        ):
            for path in PATHS:
                async with session.get(f"http://127.0.0.1:{port}{path}", headers=headers) as answer:
                    said += [repr(answer.headers).encode(), await answer.read()]
        events = {"Authorization": f"Bearer {HTTP_TOKEN}"}
        async with session.get(f"http://127.0.0.1:{port}/events", headers=events) as answer:
            said.append(await answer.content.readuntil(b"\n\n"))
            said.append(await answer.content.readuntil(b"\n\n"))
    return b"\n".join(said)


def command_lines(pid: int) -> bytes:
    """Of a process and all below it: what `ps` shows to everybody."""
    shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/comm").read_bytes()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return shown + b"".join(command_lines(int(child)) for child in children)


def files_of(folder: Path) -> None:
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert len(found) > 3
    for path in found:
        clean(str(path), path.read_bytes())
    assert folder.stat().st_mode & 0o777 == 0o700


async def look(it: Stage, port: int) -> None:
    clean("HTTP", await answers(port))
    clean("status", repr(await it.gateway.status()).encode())
    assert it.gateway.pid is not None
    clean("ps", command_lines(it.gateway.pid))
    assert (it.gateway.state_dir / "status.sock").stat().st_mode & 0o777 == 0o600


def test_nothing_of_a_gateway_in_good_days_and_bad_ones_shows_a_secret(
    tmp_path: Path, broker: Broker
) -> None:
    async def main() -> None:
        vhost = quote(broker.vhost, safe="")
        await broker.api("PUT", "users/marked", {"password": PASSWORD, "tags": ""})
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        await broker.api("PUT", f"permissions/{vhost}/marked", rights)
        port = free_port()
        uri = f"amqp://marked:{quote(PASSWORD, safe='')}@127.0.0.1:{broker.port}/{vhost}"
        simulator = {"token": TOKEN}
        async with stage(
            tmp_path, broker, shards=4, per_cluster=2, simulator=simulator, amqp_uri=uri, expect=frozenset({"*"}),
            LOG_LEVEL="debug", PROCESSES="2", HTTP_ADDRESS=f"127.0.0.1:{port}", HTTP_TOKEN=HTTP_TOKEN,
            PYTHONASYNCIODEBUG="1",
        ) as it:  # fmt: skip
            await it.ready()
            await look(it, port)
            await it.sim.inject(fault("cut:shards=0"))
            await it.sim.inject(fault("forget:shards=1"))
            await it.events(50)
            await broker.api("PUT", "users/marked", {"password": "another", "tags": ""})
            await broker.close_connections()
            await it.gateway.until(
                lambda now: not all(each["publisher"]["connected"] for each in now["clusters"])
            )
            await look(it, port)
            await broker.api("PUT", "users/marked", {"password": PASSWORD, "tags": ""})
            await it.gateway.until(
                lambda now: all(each["publisher"]["connected"] for each in now["clusters"])
            )
            await it.ready()
            await it.gateway.kill()
            await it.gateway.start()
            await it.ready()
            await it.gateway.stop()
            # Discord does not know the token any more.
            it.gateway.environment["DISCORD_TOKEN"] = TOKEN + "x"
            it.gateway.environment["PROCESSES"] = "1"
            await it.gateway.start()
            assert await it.gateway.exited() == 78
        await broker.api("DELETE", "users/marked")
        log = it.gateway.log.read_bytes()
        assert b"DEBUG" in log or b"debug" in log
        clean("log", log)
        files_of(it.gateway.state_dir)

    run(main())


def test_no_mistake_in_a_configuration_shows_a_secret(tmp_path: Path) -> None:
    good = {
        "DISCORD_TOKEN": TOKEN,
        "INTENTS": "GUILDS",
        "AMQP_URI": f"amqp://user:{quote(PASSWORD, safe='')}@127.0.0.1:1/",
        "HTTP_TOKEN": HTTP_TOKEN,
        "STATE_DIR": str(tmp_path / "state"),
        "DISCORD_API_URL": "http://127.0.0.1:1",
    }
    toml = tmp_path / "broken.toml"
    toml.write_text(f'token = "{TOKEN}\namqp = "{PASSWORD}"')
    wrong: list[tuple[list[str], dict[str, str]]] = [
        ([], {"INTENTS": "GUILDZ"}),
        ([], {"DISCORD_TOKEN": f"{TOKEN} {TOKEN}", "INTENTS": "GUILDS"}),
        ([], {"DISCORD_TOKEN": f"Bot\n{TOKEN}"}),
        ([], {"INTENTS": TOKEN}),
        ([], {"AMQP_URI": f"amqp://user:{PASSWORD}@nowhere:port/x"}),
        ([], {"AMQP_URI": f"http://user:{quote(PASSWORD, safe='')}@host"}),
        ([], {"HTTP_TOKEN": f"{HTTP_TOKEN} with blanks"}),
        ([], {"HTTP_ADDRESS": "everywhere", "LOG_FORMAT": "json"}),
        ([], {"DISCORD_TOKEN_FILE": str(toml)}),
        (["-c", str(toml)], {}),
        (["check"], {}),
        (["check", "--json"], {"INTENTS": "nonsense"}),
    ]

    async def one(words: list[str], changes: dict[str, str]) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **good, **changes}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rateway", *words, env=environment, cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await asyncio.wait_for(process.communicate(), 90.0)
        assert process.returncode in (1, 78), said
        clean(f"{words} {list(changes)}", said)

    async def main() -> None:
        for start in range(0, len(wrong), 3):
            await asyncio.gather(*(one(words, changes) for words, changes in wrong[start : start + 3]))

    run(main())
