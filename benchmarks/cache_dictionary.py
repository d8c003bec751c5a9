"""Train the dictionary of the cache's pages: ``python -m benchmarks.cache_dictionary``.

It is part of the store's format: another dictionary makes every store of before unreadable (they are thrown away and
come back from Discord), so train it anew only with a change of the format. What it learns are field names and common
values; names, ids and hashes are noise in the samples.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import zstandard
from rateway.cache.pages import PAGE_ITEMS
from rateway.native.objects import page
from rateway_simulator.world import snapshot
from rateway_simulator.world.dispatch import WorldOptions
from rateway_simulator.world.world import World

from benchmarks.cache_data import Maker

SIZE = 16_384
PLACE = Path(__file__).parents[1] / "packages/gateway/src/rateway/cache/dictionary.zstd"
LISTS = ("members", "channels", "roles", "emojis", "stickers", "threads", "soundboard_sounds")
_noise = Maker(4711, 0, 0)


def scrubbed(item: object) -> object:
    """An object whose texts for people are noise."""
    if isinstance(item, dict):
        free = ("name", "username", "global_name", "nick", "topic", "description")
        return {
            key: _noise.name() if key in free and isinstance(value, str) else scrubbed(value)
            for key, value in item.items()
        }
    return [scrubbed(each) for each in item] if isinstance(item, list) else item


def pages_of(guild: dict[str, object]) -> list[bytes]:
    found = []
    for name in LISTS:
        items = scrubbed(guild[name]) if name in guild else []
        assert isinstance(items, list)
        for at in range(0, len(items), PAGE_ITEMS):
            chunk = [
                (int(item.get("id") or item.get("sound_id") or item["user"]["id"]), msgspec.json.encode(item))
                for item in items[at : at + PAGE_ITEMS]
            ]
            chunk.sort()
            found.append(page([each[0] for each in chunk], [each[1] for each in chunk], 0, len(chunk)))
    own = {name: value for name, value in guild.items() if not isinstance(value, list) or name == "features"}
    found.append(msgspec.json.encode(scrubbed(own)))
    return found


def main() -> None:
    samples: list[bytes | bytearray | memoryview] = []
    world = World(WorldOptions(seed=11, guilds=25, members_per_guild=40))
    for guild_id in world.guild_ids:
        samples += pages_of(snapshot.guild_create(world, guild_id))
    for guild in Maker(12, 120, 40).guilds:
        samples += pages_of(guild)
    PLACE.write_bytes(zstandard.train_dictionary(SIZE, list(samples), level=1).as_bytes())
    print(f"{PLACE}: {PLACE.stat().st_size} bytes from {len(samples)} pages")


if __name__ == "__main__":
    main()
