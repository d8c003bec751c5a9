"""Pages of small JSON objects: eight to a page, each after its id, compressed by zstd with a dictionary.

A page's text is ``\\n`` and then ``<id><object>\\n`` for each object, ascending by id: an id is found by one search in
C and the object is a slice. Objects are Discord's own bytes, so that every field, null and absence survives.
"""

from __future__ import annotations

import hashlib
from importlib import resources

import msgspec
import zstandard
from rateway.native.objects import page

__all__ = [
    "DICTIONARY_HASH",
    "PAGE_ITEMS",
    "compact",
    "pack",
    "shrink",
    "split",
    "unpack",
    "unshrink",
]

# Eight members with their users compress to about 660 bytes; five or six such pages fill one page of LMDB (4 KiB).
# More to a page compresses hardly better (83 bytes a member with sixteen, 86 with eight), leaves more of LMDB's pages
# empty, and costs more to read one entity of (2.4 µs with eight).
PAGE_ITEMS = 8

# A text that compresses to more than this would need pages of its own in LMDB (its limit for a node that shares a
# page is 2,030 bytes): such a page holds fewer objects.
PAGE_BYTES = 1_990

_DICTIONARY = resources.files("rateway.cache").joinpath("dictionary.zstd").read_bytes()
DICTIONARY_HASH = hashlib.blake2b(_DICTIONARY, digest_size=8).hexdigest()

# Why not the standard library's zstd (or its backport), which inflates the gateway's stream: it makes a context for
# each call, 9 µs where one that is kept reads a page in 2.4. Contexts are not for several threads at once: the cache
# is written, and queries are answered, on the event loop's thread.
_dictionary = zstandard.ZstdCompressionDict(_DICTIONARY)
_dictionary.precompute_compress(level=1)
_compressor = zstandard.ZstdCompressor(
    level=1,
    dict_data=_dictionary,
    # The dictionary's hash is in the store's format; naming it in each frame again would cost 4 bytes.
    write_dict_id=False,
)
_compress = _compressor.compress
_decompress = zstandard.ZstdDecompressor(dict_data=_dictionary).decompress


def compact(raw: bytes) -> bytes:
    """Return JSON without line breaks between its tokens (Discord sends none; a page's text rests on it)."""
    return msgspec.json.format(raw, indent=-1) if b"\n" in raw else raw


def pack(ids: list[int], items: list[bytes]) -> list[tuple[int, bytes]]:
    """Pages of objects ascending by id: the greatest id of each and its bytes."""
    pages: list[tuple[int, bytes]] = []
    count = len(ids)
    if not count:
        return pages
    size = -(-count // -(-count // PAGE_ITEMS))  # as many pages as needed, all about as full
    for start in range(0, count, size):
        _pack(ids, items, start, min(start + size, count), pages)
    return pages


def _pack(ids: list[int], items: list[bytes], start: int, end: int, pages: list[tuple[int, bytes]]) -> None:
    """One page, or two of half as many objects if it would be too large."""
    packed = _compress(page(ids, items, start, end))
    if len(packed) <= PAGE_BYTES or end - start == 1:
        pages.append((ids[end - 1], packed))
        return
    middle = (start + end) // 2
    _pack(ids, items, start, middle, pages)
    _pack(ids, items, middle, end, pages)


def unpack(page: bytes) -> bytes:
    """Return a page's text."""
    return _decompress(page)


def split(text: bytes) -> list[tuple[int, bytes]]:
    """Return all objects of a page's text."""
    items = []
    for line in text.split(b"\n")[1:-1]:
        at = line.index(b"{")
        items.append((int(line[:at]), line[at:]))
    return items


def shrink(raw: bytes) -> bytes:
    """Return a single object, compressed when that is worth its while (short ones stay as they are)."""
    return raw if len(raw) < 200 else _compress(raw)


def unshrink(value: bytes) -> bytes:
    """Undo :func:`shrink`: JSON objects begin with ``{``, frames never do."""
    return value if value[:1] == b"{" else _decompress(value)
