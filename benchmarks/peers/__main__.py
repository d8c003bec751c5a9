"""What gateways in Rust and Go cost beside ours: ``python -m benchmarks.peers [--runs N] [--only WORDS]``

All rows are taken in turns, as in ``benchmarks.path``: the same streams, the same core, CPU of the whole process tree.
``--only readme`` takes the rows of the README's table and no others.

*twilight proxy* (Rust) forwards every dispatch to a client over WebSocket, as gateway-proxy does: no broker, no cache,
no guarantee. *proxy by queues* is the same program going gateway-proxy's own way inside.
*twilight and lapin* (Rust) and *discordgo and amqp091* (Go) publish each dispatch persistent and await its confirm,
without cache, spool or any record of what was confirmed. discordgo speaks no stream compression.
Ours does all that it does always, without its cache and with it.
"""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.path.__main__ import Variant, measure
from benchmarks.peers import build
from benchmarks.rig import child, machine
from benchmarks.rig.child import Child
from benchmarks.rig.results import Report, arguments
from benchmarks.rig.streams import TOKEN

OURS = "rateway"
PROXY, QUEUES = "twilight proxy", "twilight proxy by queues"
LAPIN, GO = "twilight and lapin", "discordgo and amqp091"
RUST = (PROXY, QUEUES, LAPIN)
PROXIES = (PROXY, QUEUES)
# Where a proxy's events go: there is a client in the broker's place.
CLIENT = "client"
README = "readme"


@dataclass(frozen=True, slots=True)
class Load:
    """``rate``: events a second a shard, None as fast as it goes; ``compression``: of who can choose; ``broker``: where
    events go.
    """

    shards: int
    rate: float | None
    compression: str
    broker: str


# Above 100 shards zlib is ours without a setting.
LOADS = (
    Load(4, None, "zstd", "sink"),
    Load(4, None, "zstd", "rabbitmq"),
    Load(64, 50, "zstd", "sink"),
    Load(4, 400, "zstd", "rabbitmq"),
    Load(64, 20, "zlib", "sink"),
    Load(256, 20, "zlib", "sink"),
)
# (who, the cache)
GATEWAYS = ((OURS, "off"), (OURS, "all"), (QUEUES, "off"), (LAPIN, "off"), (GO, "off"))
# What the README leaves out: the barest proxy that there can be.
MORE = ((PROXY, "off"),)


def variant_of(who: str, cache: str, load: Load) -> Variant:
    """What stands for a gateway under a load."""
    # gateway-proxy speaks zlib.
    compression = "zlib" if who in PROXIES else "none" if who == GO else load.compression
    return Variant(
        compression=compression,
        cache=cache,
        shards=load.shards,
        rate=load.rate,
        broker=CLIENT if who in PROXIES else load.broker,
        who=who,
    )


def variants(*, readme: bool = False) -> list[Variant]:
    """All rows, each once, those of one load beside each other."""
    found = []
    for load in LOADS:
        found += [variant_of(who, cache, load) for who, cache in GATEWAYS + (() if readme else MORE)]
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
                self._client.forget()
                self._client.say(f"{last} {shards}")
                if int(self._client.hear()) != variant.shards:
                    raise child.Hung(f"the proxy took no client{found.tail()}")
            yield found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def main() -> None:
    """Build, measure, write the results."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--only", default="", help=f"only rows whose label has all of these words; {README}: the README's"
        )
        parser.add_argument("--events", type=int, default=80_000, help="events of one round flat out")

    options = arguments(__doc__, add)
    os.chdir(child.ROOT)
    rust, go = build.rust(), build.go()
    words = set(options.only.split())
    wanted = [
        each
        for each in variants(readme=README in words)
        if all(word in each.label for word in words - {README})
        and (rust or each.who not in RUST)
        and (go or each.who != GO)
    ]
    report = Report("peers")
    report.facts["machine"]["versions"] |= rust | go
    with child.child("benchmarks.peers.client") as client:
        starters = dict.fromkeys((*RUST, GO), Peers(client).start)
        places = {CLIENT: (client.count, "", [client.pid])}
        measure(
            report,
            wanted,
            options.runs,
            options.events,
            starters=starters,
            places=places,
            # Its rows are compared with one another.
            floors=False,
        )
    report.write()


if __name__ == "__main__":
    main()
