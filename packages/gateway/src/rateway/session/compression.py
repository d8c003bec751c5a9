"""Choose the compression that a connection asks for.

A session is resumed with the one that it was begun with. A new one begins with what the options prefer, or with the
next that works, once streams of the preferred have proved to be spoilt before anything could be read of them.
"""

from __future__ import annotations

from typing import Final

from rateway.session.options import Compression

__all__ = ["ZSTD_MOST_SHARDS", "Preference", "compression_of"]

# Of a bot, where the settings name no compression. At usual rates zstd and zlib cost the same CPU, and flat out zstd
# saves 0.2 µs an event; its decompressors take 0.4 to 2.1 MB a shard in traffic, and zlib's 0.04 (docs/performance.md,
# "Memory"). From here on they would take more than the rest of the gateway.
ZSTD_MOST_SHARDS: Final = 100

# Corrupt streams in a row before Hello after which the next compression is tried.
CORRUPT_HELLOS: Final = 2
FOLLOWING: Final[dict[Compression, Compression]] = {"zstd-stream": "zlib-stream", "zlib-stream": "none"}


def compression_of(setting: Compression | None, shards: int) -> Compression:
    """Return the compression of a bot's new sessions: the *setting*, or what its number of shards says without one."""
    if setting is not None:
        return setting
    return "zstd-stream" if shards <= ZSTD_MOST_SHARDS else "zlib-stream"


class Preference:
    """One shard's. ``current`` is what its connection, or the next one that resumes, speaks."""

    __slots__ = ("_corrupt_hellos", "_preferred", "current")

    def __init__(self, preferred: Compression, begun_with: Compression | None) -> None:
        """*begun_with*: of a stored session, None for none or when that is not known."""
        self._preferred: Compression = preferred
        self._corrupt_hellos = 0
        self.current: Compression = begun_with or preferred

    def begin(self) -> None:
        """The next connection identifies."""
        self.current = self._preferred

    def greeted(self) -> None:
        """Hello could be read."""
        self._corrupt_hellos = 0

    def corrupt(self, *, resuming: bool) -> Compression | None:
        """Hello could not be read: what is preferred from now on, None for the same as before."""
        self._corrupt_hellos += 1
        following = FOLLOWING.get(self.current)
        if self._corrupt_hellos < CORRUPT_HELLOS or following is None or resuming:
            return None
        self._corrupt_hellos = 0
        self._preferred = following
        return following
