"""Read the state folders of former versions: sessions resume, the spool is published, the cache answers.

How such a folder is made is in make.py; this version's Discord is told the sessions that it is about.
"""

from __future__ import annotations

import base64
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rateway.cache.policy import KINDS, CachePolicy
from rateway.cache.stats import stats_of
from rateway.transports.store import Store
from rateway_simulator.gateway.sessions import Session
from rateway_simulator.judge.limits import Window
from rateway_simulator.server import Simulator

from tests.aio import run
from tests.e2e.harness import Stage, stage
from tests.e2e.witness import all_live, witness
from tests.former.make import MESSAGES_KEPT, PER_CLUSTER, REFUSED_TOKEN, SHARDS, SIMULATOR, WORLD
from tests.rabbitmq import Broker

FOLDER = Path(__file__).parent
VERSIONS = sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz"))
Json = dict[str, Any]


def unpacked(version: str, folder: Path) -> Json:
    """The state folder as ``folder``/state, and what its version had to say."""
    with tarfile.open(FOLDER / f"{version}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    said: Json = msgspec.json.decode((folder / "said.json").read_bytes())
    # Where it was made the folder was the owner's alone, which an archive does not carry over everywhere.
    (folder / "state").chmod(0o700)
    return said


def remember(sim: Simulator, kept: Json) -> None:
    """Give the simulated Discord a session, as far as it has not been replayed."""
    session = Session(
        id=kept["id"],
        shard=kept["shard"],
        shard_count=kept["shard_count"],
        intents=kept["intents"],
        large_threshold=kept["large_threshold"],
        query=tuple(kept["query"]),
        host=-1,
        capacity=kept["capacity"],
        keep_seconds=600.0,
        presences=Window(5, 20.0),
        named=kept["named"],
    )
    session.seq = kept["seq"]
    session.buffer.extend((name.encode(), base64.b64decode(d)) for name, d in kept["buffer"])
    session.detached_at = sim.gateway.loop.time()
    sim.gateway.know(session)


def still_says(old: Any, new: Any) -> bool:
    """Whether an answer has all that it had; more keys are not less."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(key in new and still_says(value, new[key]) for key, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(still_says, old, new))
    return bool(old == new)


async def resumes_and_answers(it: Stage, said: Json) -> None:
    for kept in said["discord"]:
        remember(it.sim, kept)
    async with witness(it.broker) as worker:
        # A token that was refused is still known to be: nothing is sent with it.
        token = it.gateway.environment["DISCORD_TOKEN"]
        it.gateway.environment["DISCORD_TOKEN"] = REFUSED_TOKEN
        await it.gateway.start()
        assert await it.gateway.exited() == 78
        assert await it.gateway.line_with("the last start with these settings ended so") is not None
        assert it.count("dial") == 0

        it.gateway.environment["DISCORD_TOKEN"] = token
        await it.gateway.start()
        status = await it.gateway.until(all_live)
        assert {shard["session"] for shard in status["shards"]} == {kept["id"] for kept in said["discord"]}
        assert (it.count("identify"), it.count("resume")) == (0, SHARDS)

        missing = {
            f"{kept['id']}:{kept['shard']}:{seq}": (kept, seq)
            for kept in said["discord"]
            for seq in range(said["confirmed"][kept["id"]] + 1, kept["seq"] + 1)
        }
        await worker.until(lambda worker: missing.keys() <= set(worker.ids()))
        # The spooled ones and the replayed ones, each as Discord sent it.
        bodies = {str(message.message_id): message.body for message in worker.heard}
        for identity, (kept, seq) in missing.items():
            name, d = kept["buffer"][seq - kept["seq"] - 1]
            assert bodies[identity] == base64.b64decode(d), f"{identity} {name}"

        for each in said["answers"]:
            query = {"type": each["type"], "arguments": each["arguments"]}
            status_word, answer = await worker.ask(1, "cache", query)
            assert status_word == each["status"], (query, answer)
            assert still_says(each["answer"], answer), (query, each["answer"], answer)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_state_folder_of_a_former_version_resumes_its_sessions_and_answers(
    tmp_path: Path, broker: Broker, version: str
) -> None:
    said = unpacked(version, tmp_path)

    async def main() -> None:
        async with stage(
            tmp_path,
            broker,
            shards=SHARDS,
            per_cluster=PER_CLUSTER,
            simulator=SIMULATOR | {"world": WORLD},
            start=False,
            MESSAGE_CACHE_SIZE=MESSAGES_KEPT,
            PROCESSES="1",
        ) as it:
            await resumes_and_answers(it, said)

    run(main())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cache_of_a_former_version_and_the_same_settings_is_as_complete_as_it_was(
    tmp_path: Path, version: str
) -> None:
    unpacked(version, tmp_path)
    kept_by_it = CachePolicy(messages_per_channel=int(MESSAGES_KEPT))
    store = Store.open(
        tmp_path / "state" / "clusters" / "1" / "store", cluster=1, policy=kept_by_it, wall=0.0
    )
    assert isinstance(store, Store)
    assert store.words == ()
    with store.reader().view() as view:
        assert all(view.is_complete(kind) for kind in ("guilds", *KINDS))
        assert stats_of(view)["members"]
    store.close()


def test_there_are_former_versions() -> None:
    assert VERSIONS
