"""What stands beside us in ``benchmarks/peers`` is counted and named correctly."""

from __future__ import annotations

import random
import socket
import time

import pytest
from rateway_simulator.gateway import wire

from benchmarks.path.__main__ import Variant
from benchmarks.peers import build
from benchmarks.peers.__main__ import GATEWAYS, LAPIN, LOADS, OURS, RUST, variant_of, variants
from benchmarks.peers.client import Frames
from benchmarks.rig import child

TEXT, BINARY, PING = 1, 2, 9


def frames(count: int, chance: random.Random) -> bytes:
    """Text frames of all three sizes of heads, with others between them."""
    sizes = (0, 1, 125, 126, 127, 1000, 65_535, 65_536, 70_000)
    made = []
    for _ in range(count):
        made.append(wire.frame(TEXT, bytes([0x81]) * chance.choice(sizes)))
        if chance.random() < 0.3:
            made.append(wire.frame(chance.choice((BINARY, PING)), b"\x81\x7e" * chance.randrange(60)))
    return b"".join(made)


def test_frames_are_counted_whole_and_byte_by_byte() -> None:
    data = frames(12, random.Random(1))
    whole, single = Frames(), Frames()
    whole.feed(data)
    for at in range(len(data)):
        single.feed(data[at : at + 1])
    assert (whole.count, single.count) == (12, 12)


@pytest.mark.parametrize("seed", range(20))
def test_frames_are_counted_however_reads_cut_them(seed: int) -> None:
    chance = random.Random(seed)
    data = memoryview(frames(40, chance))
    counted, at = Frames(), 0
    while at < len(data):
        size = chance.choice((1, 2, 3, 9, 500, 64 * 1024))
        counted.feed(data[at : at + size])
        at += size
    assert counted.count == 40


def test_a_client_says_that_a_proxy_takes_none_and_goes_on_with_the_next_proxy() -> None:
    with child.child("benchmarks.peers.client") as client:
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            client.say(f"{deaf.getsockname()[1]} 1")
            deaf.accept()[0].close()
            assert client.hear() == "0\n"
        with socket.create_server(("127.0.0.1", 0)) as proxy:
            client.say(f"{proxy.getsockname()[1]} 1")
            plug, _ = proxy.accept()
            with plug:
                plug.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + wire.frame(TEXT, b"{}"))
                assert client.hear() == "1\n"
                plug.sendall(wire.frame(TEXT, b"{}"))
                deadline = time.monotonic() + child.PATIENCE
                while (count := client.count()) < 2 and time.monotonic() < deadline:
                    time.sleep(0.01)
                assert count == 2


def test_each_program_is_built_for_the_compressions_that_its_rows_have() -> None:
    asked = {
        (each.compression, "broker" if each.who == LAPIN else "proxy")
        for each in variants()
        if each.who in RUST
    }
    assert asked == {(compression, name) for compression, names in build.PROGRAMS.items() for name in names}


def test_versions_are_those_that_are_pinned() -> None:
    rust = build.pinned()
    assert set(rust) == set(build.CRATES)
    go = build.modules((build.HERE / "go" / "go.mod").read_text())
    assert set(go) == {"discordgo", "amqp091-go"}
    assert all(version[0].isdigit() for version in (*rust.values(), *go.values()))


def test_every_shape_has_ours_and_each_peer() -> None:
    found = variants()
    shapes = {(each.shards, each.rate) for each in found}
    for shards, rate in shapes:
        here = {each.who for each in found if (each.shards, each.rate) == (shards, rate)}
        assert here == {each.who for each in found}
        caches = {each.cache for each in found if (each.who, each.shards, each.rate) == (OURS, shards, rate)}
        assert caches == {"off", "all"}
    assert len({each.label for each in found}) == len(found)
    assert Variant(shards=64, rate=50) in found


def test_the_readmes_rows_are_some_of_all() -> None:
    assert set(variants(readme=True)) < set(variants())
    assert len(variants(readme=True)) == len({variant_of(*each, load) for each in GATEWAYS for load in LOADS})


def test_two_rows_of_a_ratio_have_the_same_load_and_a_compression_of_the_same_kind() -> None:
    for load in LOADS:
        ours, lapin = (variant_of(who, "off", load) for who in (OURS, LAPIN))
        assert (ours.shards, ours.rate, ours.compression, ours.broker) == (
            lapin.shards,
            lapin.rate,
            lapin.compression,
            lapin.broker,
        )
