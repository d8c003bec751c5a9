"""The floor: the same frames inflated and their envelopes decoded in one loop of one process, nothing else.

A process of its own: ``python -m benchmarks.path.floor RECIPE COMPRESSION`` prints, for each line of its input that
names a number of rounds, a JSON list of µs of CPU an event, one a round. Shards take turns by what one read of a
socket brings, as they do in the gateway. With events a second after that number it is the floor at that rate: a loop
that sleeps as long as the gateway does and then inflates what has come meanwhile, one event of each shard in turn. What
a sleep costs, and caches that others have filled meanwhile, is in it.
"""

from __future__ import annotations

import gc
import json
import sys
import time

from rateway.native.inflate import zstd
from rateway.runtime.runner.wakeup_batching import wait_for
from rateway_protocol.discord.envelope import decode_fast
from rateway_simulator.gateway import wire
from zlib_ng import zlib_ng

from benchmarks.rig.streams import Recipe, Stream, recorded

# Bytes that one read of a socket brings when there is more: as in picows.
READ = 64 * 1024
PACED_SECONDS = 1.0
NAMES = {"zstd": "zstd-stream", "zlib": "zlib-stream", "none": "none"}


def packed(stream: Stream, compression: str) -> tuple[list[bytes], list[bytes]]:
    """(messages that begin the session, events) as they come out of their WebSocket frames."""
    context = wire.stream(NAMES[compression])
    begin, events = stream
    return [context.pack(each) for each in begin], [context.pack(each) for each in events]


def inflater(compression: str):  # type: ignore[no-untyped-def]  # three libraries' own types
    """What inflates one message of a fresh connection."""
    if compression == "zstd":
        return zstd.ZstdDecompressor().decompress
    if compression == "zlib":
        return zlib_ng.decompressobj().decompress
    return bytes


def reads(shards: list[list[bytes]]) -> list[tuple[int, list[bytes]]]:
    """(shard, messages of one read), shards in turn."""
    cut: list[list[list[bytes]]] = []
    for messages in shards:
        pieces: list[list[bytes]] = [[]]
        size = 0
        for each in messages:
            if size > READ:
                pieces.append([])
                size = 0
            pieces[-1].append(each)
            size += len(each)
        cut.append(pieces)
    longest = max(map(len, cut))
    return [
        (shard, pieces[turn])
        for turn in range(longest)
        for shard, pieces in enumerate(cut)
        if turn < len(pieces)
    ]


def round_of(shards: list[tuple[list[bytes], list[bytes]]], compression: str) -> float:
    """µs of CPU an event."""
    inflaters = []
    for begin, _ in shards:
        inflate = inflater(compression)
        for each in begin:
            inflate(each)
        inflaters.append(inflate)
    turns = reads([events for _, events in shards])
    decode = decode_fast
    began = time.process_time_ns()
    for shard, messages in turns:
        inflate = inflaters[shard]
        for message in messages:
            decode(inflate(message))
    spent = time.process_time_ns() - began
    return spent / 1000 / sum(len(events) for _, events in shards)


def paced_of(shards: list[tuple[list[bytes], list[bytes]]], compression: str, per_s: float) -> float:
    """µs of CPU an event when it has to be slept between them."""
    work = []
    for begin, events in shards:
        inflate = inflater(compression)
        for each in begin:
            inflate(each)
        work.append([(inflate, event) for event in events])
    turns = [each for turn in zip(*work, strict=False) for each in turn][: int(per_s * PACED_SECONDS)]
    decode, sleep, clock = decode_fast, time.sleep, time.monotonic
    wait = wait_for(1 / per_s)
    done, began = 0, time.monotonic()
    spent = time.process_time_ns()
    while done < len(turns):
        sleep(wait)
        due = min(len(turns), int((clock() - began) * per_s))
        while done < due:
            inflate, event = turns[done]
            decode(inflate(event))
            done += 1
    return (time.process_time_ns() - spent) / 1000 / len(turns)


def main() -> None:
    """Take rounds until the input ends."""
    recipe, compression = Recipe(**json.loads(sys.argv[1])), sys.argv[2]
    shards = [packed(stream, compression) for stream in recorded(recipe)]
    gc.freeze()
    for line in sys.stdin:
        rounds, *rate = line.split()
        if rate:
            found = [paced_of(shards, compression, float(rate[0])) for _ in range(int(rounds))]
        else:
            found = [round_of(shards, compression) for _ in range(int(rounds))]
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
