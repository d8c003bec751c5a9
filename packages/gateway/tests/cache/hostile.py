"""Hostile events: what a sound one becomes when some place in it holds what nobody would write there."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import msgspec
from rateway.cache.apply import Cache
from rateway.cache.policy import CachePolicy
from rateway.cache.repair import repaired
from rateway.cache.storage import MemoryStorage
from tests.cache.world_feed import EVERYTHING, Event

# Stand-ins for what Python's JSON cannot write.
DEEP, BYTES = "@deep@", "@bytes@"
_WRITTEN = {
    b'"%b"' % DEEP.encode(): b"[" * 2000 + b"]" * 2000,
    b'"%b"' % BYTES.encode(): b'"\xff\xfe"',
}

VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 1e300, 2**64, 2**70, "", "x", "-1", "007", " 1", str(2**64), "9" * 30, [], {}, [None], [[]],
    {"id": None}, {"id": {}}, {"id": "1"}, {"user": None}, {"user": {"id": []}}, "a\ud800b", "\udc00", DEEP, BYTES,
]  # fmt: skip
WHOLE = [b"null", b'"text"', b"[]", b"[null]", b"5", b" {\n}\n", b"{}", b'{\n"id": "\\ud800"}', b"true"]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document, by the keys that lead there."""
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        found += places(item, (*path, key))
    return found


def spoilt(d: bytes, chance: random.Random, values: list[Any] = VALUES) -> bytes:
    """The event with one to three places replaced, taken away, or with something put before them."""
    document = msgspec.json.decode(d)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        found = places(document)
        if not found:
            break
        # A place that is deep is as likely as one at the top.
        depth = chance.choice(sorted({len(path) for path in found}))
        *way, last = chance.choice([path for path in found if len(path) == depth])
        holder = document
        for key in way:
            holder = holder[key]
        how = chance.random()
        if how < 0.6:
            holder[last] = copy.deepcopy(chance.choice(values))
        elif isinstance(holder, list):
            holder.insert(last, copy.deepcopy(chance.choice(values)))
        elif how < 0.8:
            del holder[last]
        else:
            holder[last] = copy.deepcopy([holder[last], chance.choice(values)])
    return written(document)


def written(document: Any) -> bytes:
    raw = json.dumps(document, separators=(",", ":")).encode()
    for stand_in, text in _WRITTEN.items():
        raw = raw.replace(stand_in, text)
    return raw


def torn(d: bytes, chance: random.Random) -> bytes:
    """The event with some bytes changed, doubled or taken away: mostly no JSON at all."""
    raw = bytearray(d)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(raw))
        how = chance.random()
        if how < 0.5:
            raw[at] = chance.choice(b'"\\{}[],:0-.eEtfnu \n\t\x00\x1f\x7f\x80\xc3\xed\xff')
        elif how < 0.75:
            del raw[at]
        else:
            raw[at:at] = chance.choice(
                (b"0", b'"', b"\\", b"\\u", b"\\x", b"\x01", b"\xff", b",", b"[", b"}")
            )
        if not raw:
            break
    return bytes(raw)


def hostile(d: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.1:
        return chance.choice(WHOLE)
    if chance.random() < 0.15:
        return torn(d, chance)
    raw = spoilt(d, chance)
    return raw.replace(b'":', b'" :\n ') if chance.random() < 0.1 else raw


def reasons_for(name: str, d: bytes) -> tuple[bytes | None, list[str]]:
    """The event as it is taken in, and why not all of it is."""
    reasons: list[str] = []
    return repaired(name, d, reasons.append), reasons


def apply_all(events: list[Event], policy: CachePolicy = EVERYTHING) -> tuple[Cache, list[Any]]:
    cache = Cache(MemoryStorage(), policy)
    told = []
    for seq, name, d in events:
        told.append(cache.apply(0, seq, name, d))
        if seq % 50 == 0:
            cache.flush()
    cache.flush()
    return cache, told
