"""What gateways in Rust and Go cost beside ours: ``python -m benchmarks.peers [--runs N] [--only WORDS]``

All rows are taken in turns, as in ``benchmarks.path``: the same streams, the same core, CPU of the whole process tree.

*twilight proxy* (Rust) forwards every dispatch to a client over WebSocket, as gateway-proxy does: no broker, no cache,
no guarantee. *proxy by queues* is the same program going gateway-proxy's own way inside.
*twilight and lapin* (Rust) and *discordgo and amqp091* (Go) publish each dispatch persistent and await its confirm,
without cache, spool or any record of what was confirmed. discordgo speaks no stream compression.
Ours is without its cache and does all else that it does.
"""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.path.__main__ import Variant, measure
from benchmarks.peers import build
from benchmarks.rig import child, machine
from benchmarks.rig.child import Child
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.streams import TOKEN

PROXY, QUEUES = "twilight proxy", "twilight proxy by queues"
LAPIN, GO = "twilight and lapin", "discordgo and amqp091"
RUST = (PROXY, QUEUES, LAPIN)
# What gateway-proxy speaks, and for twilight and lapin what is cheaper.
COMPRESSIONS = {
    "rateway": ("zstd", "zlib"),
    PROXY: ("zlib",),
    QUEUES: ("zlib",),
    LAPIN: ("zstd",),
    GO: ("none",),
}
# (shards, events a second a shard, where events go; a proxy has its client instead)
SHAPES: list[tuple[int, float | None, str]] = [
    (64, 50, "sink"),
    (4, None, "sink"),
    (4, None, "rabbitmq"),
    (4, 400, "rabbitmq"),
]
CLIENT = "client"


def variants() -> list[Variant]:
    """All rows, each once."""
    found = []
    for shards, rate, broker in SHAPES:
        for who, compressions in COMPRESSIONS.items():
            where = CLIENT if who in (PROXY, QUEUES) else broker
            found += [
                Variant(compression=each, shards=shards, rate=rate, broker=where, who=who)
                for each in compressions
            ]
    return list(dict.fromkeys(found))


class Peers:
    """Starts a peer, and brings the client of a proxy to it."""

    def __init__(self, client: Child) -> None:
        self._client = client

    @contextmanager
    def start(self, variant: Variant, port: int, folder: Path, broker: str) -> Iterator[Child]:
        """A peer with its shards under way."""
        environment = {"DISCORD_TOKEN": TOKEN} | variant.settings
        shards, url = str(variant.shards), f"ws://127.0.0.1:{port}"
        if variant.who == GO:
            command: tuple[Path, str] = (build.BUILT / "discordgo", f"http://127.0.0.1:{port}/api/v10")
        else:
            name = "broker" if variant.who == LAPIN else "proxy"
            command = (build.BUILT / variant.compression / "release" / name, url)
        if variant.who == QUEUES:
            environment["ROUTE"] = "queues"
        last = broker if variant.broker != CLIENT else str(_free_port())
        log = folder / "peer.log"
        with child.child(
            *command, shards, last, environment=environment, log=log, cores=machine.MEASURED
        ) as found:
            if variant.broker == CLIENT:
                self._client.say(f"{last} {shards}")
                self._client.hear()
            yield found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def draw(rows: list[dict[str, Any]]) -> None:
    """A bar for each row."""
    from benchmarks.rig import pictures

    pictures.bars(
        "peers",
        "CPU an event, whole process tree",
        [(row["label"], row["us"]) for row in rows],
        "µs",
        ours="rateway",
    )


def main() -> None:
    """Build, measure, write results and picture."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", default="", help="only rows whose label has all of these words")
        parser.add_argument("--events", type=int, default=80_000, help="events of one round flat out")

    options = arguments(__doc__, add)
    os.chdir(child.ROOT)
    rust, go = build.rust(), build.go()
    wanted = [
        each
        for each in variants()
        if all(word in each.label for word in options.only.split())
        and (rust or each.who not in RUST)
        and (go or each.who != GO)
    ]
    report = Report("peers", "python -m benchmarks.peers")
    report.facts["machine"]["versions"] |= rust | go
    with child.child("benchmarks.peers.client") as client:
        starters = dict.fromkeys((*RUST, GO), Peers(client).start)
        places = {CLIENT: (client.count, "", [client.pid])}
        measure(report, wanted, options.runs, options.events, starters=starters, places=places)
    report.write()
    draw(report.rows)


if __name__ == "__main__":
    main()
