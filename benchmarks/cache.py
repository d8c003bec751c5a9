"""What does the cache cost? ``python -m benchmarks.cache``: bytes a member, members a second, µs an event, queries.

Everything through the real store on disk, in one process. Times are the process's CPU; *added* is what applying adds
to decoding the same envelopes, in turns, so that noise meets both. ``--members 1000000`` is the large case.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.cache_data import Maker
from rateway.cache.policy import CachePolicy
from rateway.contract.queries import Query
from rateway.discord.envelope import decode
from rateway.transports.store import Answer, Queries, Store
from rateway.transports.store.reader import StoreReader

PER_GUILD = 100
# GUILD_CREATEs in one wake-up of the loop: 256 KiB of them.
PER_WAKE_UP = 6


def opened(path: Path, policy: CachePolicy) -> Store:
    store = Store.open(path, cluster=1, policy=policy, wall=time.time())
    assert isinstance(store, Store), store
    return store


def load(store: Store, creates: list[bytes]) -> float:
    """CPU seconds to take guilds in."""
    store.apply(0, 1, "READY", b'{"user":{"id":"1"},"guilds":[],"session_id":"bench","shard":[0,1]}')
    started = time.process_time()
    for seq, d in enumerate(creates, 2):
        store.apply(0, seq, "GUILD_CREATE", d)
        if seq % PER_WAKE_UP == 0:
            store.commit()
    while store.dirty:  # the last ids move into the index over some commits
        store.commit()
    return time.process_time() - started


def events(store: Store, maker: Maker, count: int, batch: int) -> tuple[float, float]:
    """µs an event of decoding envelopes, and what the cache adds."""
    seq = store.applied(0)
    frames = []
    for name, d in maker.events(count):
        seq += 1
        frames.append(b'{"t":"%b","s":%d,"op":0,"d":%b}' % (name.encode(), seq, d))
    gc.collect()
    gc.freeze()
    floor = full = 0.0
    measured = 0
    for at in range(0, len(frames), batch):
        part = frames[at : at + batch]
        for frame in part:  # once for the caches of the processor
            decode(frame)
        first = time.process_time()
        for frame in part:
            decode(frame)
        second = time.process_time()
        for frame in part:
            envelope = decode(frame)
            store.apply(0, envelope.s or 0, envelope.t or "", envelope.d)
        store.commit()
        third = time.process_time()
        if at >= len(frames) // 2:
            floor, full, measured = floor + second - first, full + third - second, measured + len(part)
    return floor / measured * 1e6, (full - floor) / measured * 1e6


def rate(ask: Callable[[], object], seconds: float = 0.5) -> float:
    """Calls a second of CPU."""
    calls, started = 0, time.process_time()
    while (spent := time.process_time() - started) < seconds:
        for _ in range(50):
            ask()
        calls += 50
    return calls / spent


def queries(store: Store, maker: Maker) -> dict[str, float]:
    """Queries a second by type, in the process, without the broker."""
    desk = Queries({1: store.reader()}, store.policy)
    chance = maker.chance
    found = {}

    def single(kind: str) -> Query:
        guild = chance.choice(maker.guilds)
        ids = {
            "Guild": (guild["id"],),
            "Member": (guild["id"], chance.choice(guild["members"])["user"]["id"]),
            "User": (chance.choice(guild["members"])["user"]["id"],),
            "GuildChannel": (chance.choice(guild["channels"])["id"],),
            "Role": (chance.choice(guild["roles"])["id"],),
        }[kind]
        return Query(kind, tuple(map(int, ids)))

    for kind in ("Guild", "Member", "User", "GuildChannel", "Role"):
        asked = [single(kind) for _ in range(2000)]
        answer = desk.answer(asked[0])
        assert isinstance(answer, Answer), (kind, answer)
        assert answer.body, kind
        each = iter(asked * 10_000)
        found[kind] = rate(lambda each=each: desk.answer(next(each)))  # type: ignore[misc]
    page = Query("GuildMembers", (int(maker.guilds[0]["id"]),), limit=100)
    found["GuildMembers of 100"] = rate(lambda: desk.answer(page))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=100_000, help="in guilds of 100 (default 100,000)")
    parser.add_argument("--events", type=int, default=60_000, help="events of the mix (default 60,000)")
    parser.add_argument("--batch", type=int, default=100, help="events in one transaction (default 100)")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rateway-cache-"))
    try:
        report(folder, arguments.members, arguments.events, arguments.batch)
    finally:
        shutil.rmtree(folder)


def report(folder: Path, members: int, count: int, batch: int) -> None:
    policy = CachePolicy(members_from_events=False)
    # A million members as Python objects do not fit: guilds beyond the first thousand are loaded and forgotten.
    maker = Maker(1, min(members // PER_GUILD, 1000), PER_GUILD)
    store = opened(folder / "store", policy)
    spent = load(store, list(maker.creates()))
    loaded = len(maker.guilds) * PER_GUILD
    print(f"load      {loaded / spent:10,.0f} members/s of CPU, {spent / loaded * 1e6:.2f} µs a member")
    for more in range(1, -(-members // 100_000)):
        further = Maker(1000 + more, 1000, PER_GUILD)
        seq = store.applied(0)
        for number, d in enumerate(further.creates(), 1):
            store.apply(0, seq + number, "GUILD_CREATE", d)
            if number % PER_WAKE_UP == 0:
                store.commit()
    while store.dirty:
        store.commit()
    reader = store.reader()
    print(
        f"disk      {reader.disk_bytes() / members:10.1f} bytes a member, its user, its guild and the indexes"
    )
    sizes(reader, members)
    for kind, per_second in queries(store, maker).items():
        print(f"query     {per_second:10,.0f} a second of CPU  {kind}")
    store.close()
    started = time.perf_counter()
    store = opened(folder / "store", policy)
    first = Queries({1: store.reader()}, policy).answer(Query("Guild", (int(maker.guilds[0]["id"]),)))
    assert isinstance(first, Answer), first
    print(f"restart   {(time.perf_counter() - started) * 1e3:10.1f} ms until the first answer")
    for taken in (False, True):
        store.close()
        store = opened(folder / "store", CachePolicy(members_from_events=taken))
        floor, added = events(store, maker, count, batch)
        words = "with members from all events" if taken else "members by their own events"
        print(
            f"events    {added:10.2f} µs added to {floor:.2f} ({added / floor + 1:.1f} ×), {words}, {batch} a commit"
        )
    store.close()


def sizes(reader: StoreReader, members: int) -> None:
    """Where the bytes are."""
    for name, used, entries in reader.tables():
        if entries:
            print(f"  {name:8} {used / members:10.1f} bytes a member, {entries:,} entries")


if __name__ == "__main__":
    main()
