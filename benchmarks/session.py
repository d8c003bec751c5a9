"""The session's part of a dispatch: µs of CPU beyond inflating and decoding the envelope, one number a mode.

python -m benchmarks.session
"""

from __future__ import annotations

import json
import random
import time
import zlib
from collections.abc import Callable

from rateway.native.inflate import zstd
from rateway.session.actions import State
from rateway.session.conversation import Conversation
from rateway.session.options import Compression, SessionOptions
from rateway_protocol.discord.envelope import Envelope, decode_fast
from zlib_ng import zlib_ng

EVENTS = 20_000
ROUNDS = 5
MODES: tuple[Compression, ...] = ("zstd-stream", "zlib-stream", "none")


def event(seq: int, chance: random.Random) -> bytes:
    """A message of about 700 bytes, as a public bot sees it."""

    def snowflake(kinds: int) -> str:
        return str(10**17 + chance.randrange(kinds))

    d = {
        "id": str(chance.getrandbits(60)),
        "content": "".join(chance.choice("abcdefghij klmnop") for _ in range(120)),
        "channel_id": snowflake(50),
        "guild_id": snowflake(50),
        "author": {
            "id": snowflake(500),
            "username": f"user{chance.randrange(500)}",
            "avatar": None,
            "bot": False,
        },
        "member": {"roles": [snowflake(99) for _ in range(5)], "joined_at": "2020-01-01T00:00:00"},
        "timestamp": "2026-01-01T00:00:00.000000+00:00",
        **{key: [] for key in ("embeds", "mentions", "attachments", "components", "mention_roles")},
        **dict.fromkeys(("tts", "pinned", "mention_everyone"), False),
    }
    return json.dumps({"t": "MESSAGE_CREATE", "s": seq, "op": 0, "d": d}).encode()


def recorded(mode: Compression) -> list[memoryview]:
    """A connection from Hello on, as its WebSocket messages."""
    chance = random.Random(1)
    ready = {"session_id": "s", "resume_gateway_url": "wss://r"}
    plain = [
        json.dumps({"op": 10, "d": {"heartbeat_interval": 41250}}).encode(),
        json.dumps({"op": 0, "t": "READY", "s": 1, "d": ready}).encode(),
        *(event(seq, chance) for seq in range(2, EVENTS + 2)),
    ]
    if mode == "zstd-stream":
        frame = zstd.ZstdCompressor()
        plain = [frame.compress(each) + frame.flush(zstd.ZstdCompressor.FLUSH_BLOCK) for each in plain]
    elif mode == "zlib-stream":
        stream = zlib.compressobj()
        plain = [stream.compress(each) + stream.flush(zlib.Z_SYNC_FLUSH) for each in plain]
    return [memoryview(each) for each in plain]


def bare(mode: Compression) -> Callable[[memoryview], Envelope]:
    inflate: Callable[[memoryview], bytes]
    if mode == "zstd-stream":
        inflate = zstd.ZstdDecompressor().decompress
    elif mode == "zlib-stream":
        inflate = zlib_ng.decompressobj().decompress
    else:
        inflate = bytes
    return lambda message: decode_fast(inflate(message))


def live(mode: Compression, handshake: list[memoryview]) -> Conversation:
    conversation = Conversation(
        shard_id=0,
        shard_count=1,
        options=SessionOptions(token="t", intents=1, compression=mode),
        gateway_url="wss://g",
        session=None,
        chance=random.Random(1),
    )
    conversation.start(0.0)
    conversation.opened(0.0)
    conversation.received(handshake[0], mode != "none", 0.0)
    conversation.permitted(0.0)
    conversation.received(handshake[1], mode != "none", 0.0)
    assert conversation.state is State.LIVE
    return conversation


def measure(mode: Compression) -> tuple[float, float]:
    """µs of CPU per event: inflate and envelope alone, and the session's ``received``; the best of some rounds."""
    messages = recorded(mode)
    alone = whole = float("inf")
    for _ in range(ROUNDS):
        decode = bare(mode)
        for message in messages[:2]:
            decode(message)
        began = time.process_time_ns()
        for message in messages[2:]:
            decode(message)
        alone = min(alone, time.process_time_ns() - began)
        received, binary = live(mode, messages).received, mode != "none"
        began = time.process_time_ns()
        for message in messages[2:]:
            received(message, binary, 1.0)
        whole = min(whole, time.process_time_ns() - began)
    return alone / EVENTS / 1000, whole / EVENTS / 1000


if __name__ == "__main__":
    for compression in MODES:
        inflated, taken = measure(compression)
        beyond = taken - inflated
        print(
            f"{compression:12} inflate + envelope {inflated:.2f} µs, received {taken:.2f}, beyond {beyond:.2f}"
        )
