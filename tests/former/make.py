"""Make the state folder of this tree's version, for later versions to read: `python -m tests.former.make NAME`.

Run in a checkout of the version whose folder is wanted (this file copied into it), it leaves `NAME.tar.xz` in the
current directory: the folder `state`, and `said.json`, what the simulated Discord kept of its sessions and what that
version's cache answered. What is in the folder: two sessions, a cache with every kind of entity, a spool with events
that no broker has seen, the ledger of identifies, and a token that Discord refused.
"""

from __future__ import annotations

import base64
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from rateway_simulator.world.dispatch import WorldOptions

from tests.e2e.harness import Stage, stage
from tests.e2e.witness import Witness, all_live, all_settled, relayed, witness
from tests.rabbitmq import Broker, fresh_vhost, private_rabbitmq

# The folder names the address of its Discord; nothing else of a machine listens there.
HOST, PORT, API_PORT = "127.83.10.1", 4510, 4511
SHARDS, PER_CLUSTER = 2, 8
# The cache keeps none unless told to.
MESSAGES_KEPT = "20"
SIMULATOR: dict[str, Any] = {"host": HOST, "port": PORT, "api_port": API_PORT, "resume_hosts": 0}
WORLD = WorldOptions(guilds=4, members_per_guild=8, channels_per_guild=12, messages_per_channel=4)
REFUSED_TOKEN = "MTAwMDAwMDAwMDAwMDAwMDAw.refused.token"
LISTS = (
    "GuildChannels", "GuildThreads", "GuildRoles", "GuildEmojis", "GuildStickers", "GuildMembers", "GuildVoiceStates",
    "GuildPresences", "GuildScheduledEvents", "GuildStageInstances", "GuildSoundboardSounds",
)  # fmt: skip
Json = dict[str, Any]


async def answers(it: Stage, worker: Witness) -> list[Json]:
    """Every kind of query, and what the cache says to it."""
    asked: list[tuple[str, list[int]]] = [("CurrentUser", []), ("Guilds", [])]
    for guild_id in it.sim.world.guild_ids:
        asked.append(("Guild", [guild_id]))
        asked += [(kind, [guild_id]) for kind in LISTS]
        _, members = await worker.ask(1, "cache", {"type": "GuildMembers", "arguments": [guild_id]})
        for member in members[:3]:
            user_id = int(member["user"]["id"])
            # A timeout ends with time, and permissions change then.
            if not member.get("communication_disabled_until"):
                asked.append(("MemberPermissions", [guild_id, user_id]))
            asked += [
                ("Member", [guild_id, user_id]),
                ("User", [user_id]),
                ("MutualGuilds", [user_id]),
            ]
    for message in worker.named("MESSAGE_CREATE")[-6:]:
        d = msgspec.json.decode(message.body)
        asked.append(("Message", [int(d["channel_id"]), int(d["id"])]))
    found = []
    for kind, arguments in asked:
        status, body = await worker.ask(1, "cache", {"type": kind, "arguments": arguments})
        assert status in ("ok", "not_found"), (kind, arguments, body)
        found.append({"type": kind, "arguments": arguments, "status": status, "answer": body})
    return found


def sessions(it: Stage) -> list[Json]:
    """What Discord keeps of the sessions."""
    return [
        {
            "id": session.id,
            "shard": session.shard,
            "shard_count": session.shard_count,
            "intents": session.intents,
            "large_threshold": session.large_threshold,
            "query": session.query,
            "capacity": session.capacity,
            "seq": session.seq,
            "named": session.named,
            "buffer": [[name.decode(), base64.b64encode(d).decode()] for name, d in session.buffer],
        }
        for session in it.sim.gateway.sessions.values()
    ]


async def make(name: str, folder: Path, broker: Broker) -> None:
    async with (
        relayed(broker) as (relay, uri),
        witness(broker) as worker,
        stage(
            folder,
            broker,
            shards=SHARDS,
            per_cluster=PER_CLUSTER,
            simulator=SIMULATOR | {"world": WORLD},
            amqp_uri=uri,
            start=False,
            expect=frozenset({"*"}),
            MESSAGE_CACHE_SIZE=MESSAGES_KEPT,
            PROCESSES="1",
        ) as it,
    ):
        token = it.gateway.environment["DISCORD_TOKEN"]
        it.gateway.environment["DISCORD_TOKEN"] = REFUSED_TOKEN
        await it.gateway.start()
        assert await it.gateway.exited() == 78 and (it.gateway.state_dir / "fatal.json").exists()
        it.gateway.environment["DISCORD_TOKEN"] = token
        await it.gateway.start()
        await it.ready()
        await it.events(250, rate=500)
        await it.all_arrived()
        confirmed = {session: receipt.highest for session, receipt in it.receipts.sessions.items()}
        relay.refuse(True)
        await it.events(60, rate=500)
        await it.gateway.until(all_settled)
        await it.gateway.stop()
        await it.events(60, rate=500)
        said: Json = {"discord": sessions(it), "confirmed": confirmed}
        shutil.copytree(it.gateway.state_dir, folder / "kept", ignore=shutil.ignore_patterns("*.sock"))
        shutil.copytree(it.gateway.state_dir, folder / "copy", ignore=shutil.ignore_patterns("*.sock"))
        it.gateway.state_dir = folder / "copy"
        it.gateway.environment["STATE_DIR"] = str(folder / "copy")
        relay.refuse(False)
        await it.gateway.start()
        await it.gateway.until(all_live)
        await it.all_arrived()
        said["answers"] = await answers(it, worker)
        said["answered_kinds"] = sorted({each["type"] for each in said["answers"] if each["answer"]})
        assert it.count("identify") == SHARDS
    (folder / "said.json").write_bytes(msgspec.json.encode(said))
    with tarfile.open(f"{name}.tar.xz", "w:xz") as archive:
        archive.add(folder / "kept", "state", filter=_anonymous)
        archive.add(folder / "said.json", "said.json", filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def main() -> None:
    with private_rabbitmq() as node, fresh_vhost(node) as broker, tempfile.TemporaryDirectory() as folder:
        uvloop.run(make(sys.argv[1], Path(folder), broker))


if __name__ == "__main__":
    main()
