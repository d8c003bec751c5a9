"""The cost of the cache: bytes a member, members a second, µs an event, queries. ``python -m benchmarks.cache``

Everything through the real store on disk, in one process. Times are the process's CPU; *added* is what applying adds
to decoding the same envelopes, in turns, so that noise meets both. ``--members 1000000`` is the large case.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rateway.cache.policy import CachePolicy
from rateway.transports.store import Answer, Queries, Store
from rateway.transports.store.reader import StoreReader
from rateway_protocol.contract.queries import Query, SnapshotFor
from rateway_protocol.discord import intents
from rateway_protocol.discord.envelope import decode

from benchmarks.cache_data import Maker

PER_GUILD = 100
# GUILD_CREATEs in one wake-up of the loop: 256 KiB of them.
PER_WAKE_UP = 6
# Events that carry a member beside their own news.
CARRIERS = frozenset({"MESSAGE_CREATE", "TYPING_START", "MESSAGE_REACTION_ADD", "VOICE_STATE_UPDATE"})


class Id(msgspec.Struct):
    id: str


class Member(msgspec.Struct):
    user: Id | None = None


class Carrying(msgspec.Struct):
    guild_id: str
    member: Member | None = None
    author: Id | None = None


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


@dataclass(frozen=True, slots=True)
class Cost:
    """What some events cost, µs each: decoding their envelopes, and what the cache adds."""

    envelope: float
    added: float


def events(store: Store, stream: list[tuple[str, bytes]], batch: int) -> list[Cost]:
    """The costs of the first tenth of a stream, and of its last three."""
    seq = store.applied(0)
    frames = [
        b'{"t":"%b","s":%d,"op":0,"d":%b}' % (name.encode(), seq + at, d)
        for at, (name, d) in enumerate(stream, 1)
    ]
    gc.collect()
    gc.freeze()
    batch = min(batch, -(-len(frames) // 10))  # each tenth has a commit of its own at least
    spent = [[0.0, 0.0] for _ in range(10)]
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
        tenth = spent[at * 10 // len(frames)]
        tenth[0] += second - first
        tenth[1] += third - second - (second - first)
    scale = 1e6 / len(frames)
    return [
        Cost(
            sum(tenth[0] for tenth in some) / len(some) * 10 * scale,
            sum(tenth[1] for tenth in some) / len(some) * 10 * scale,
        )
        for some in (spent[:1], spent[7:])
    ]


def people(stream: list[tuple[str, bytes]]) -> list[tuple[int, float]]:
    """For the same parts: how many members events carry, and the share of events whose member was carried before."""
    before: set[tuple[str, str]] = set()
    tenth = len(stream) // 10
    found = []
    for some in (stream[:tenth], stream[tenth : 7 * tenth], stream[7 * tenth :]):
        speakers, known, all_of_them = set(), 0, 0
        for name, d in some:
            if name in CARRIERS:
                event = msgspec.json.decode(d, type=Carrying)
                user = event.author or (event.member.user if event.member is not None else None)
                who = (event.guild_id, user.id if user is not None else "")
                all_of_them += 1
                known += who in before
                before.add(who)
                speakers.add(who)
        found.append((len(speakers), known / all_of_them))
    return [found[0], found[2]]


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
    query_queue = Queries({1: store.reader()}, store.policy)
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
        answer = query_queue.answer(asked[0])
        assert isinstance(answer, Answer), (kind, answer)
        assert answer.body, kind
        each = iter(asked * 10_000)
        found[kind] = rate(lambda each=each: query_queue.answer(next(each)))  # type: ignore[misc]
    page = Query("GuildMembers", (int(maker.guilds[0]["id"]),), limit=100)
    found["GuildMembers of 100"] = rate(lambda: query_queue.answer(page))
    wanted = SnapshotFor(intents.ALL, 250)
    snapshots = [Query("GuildSnapshot", (int(guild["id"]),), options=wanted) for guild in maker.guilds]
    turn = itertools.cycle(snapshots)
    found["GuildSnapshot of 100 members"] = rate(lambda: query_queue.answer(next(turn)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=100_000, help="in guilds of 100 (default 100,000)")
    parser.add_argument("--events", type=int, default=100_000, help="events of the mix (default 100,000)")
    parser.add_argument("--batch", type=int, default=1000, help="events in one transaction (default 1,000)")
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
        f"disk      {reader.used_bytes() / members:10.1f} bytes a member, its user, its guild and the indexes"
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
    store.close()
    for taken in (False, True):
        for restarted in (False, True):
            mixed(folder / f"events-{taken}", maker, count, batch, taken=taken, restarted=restarted)


def mixed(path: Path, maker: Maker, count: int, batch: int, *, taken: bool, restarted: bool) -> None:
    """What events of the mix cost, in a process that took the guilds in itself or in one that was started since."""
    store = opened(path, CachePolicy(members_from_events=taken))
    if not restarted:
        load(store, list(maker.creates()))
    stream = maker.events(count)
    words = "members from all events" if taken else "members by their own events"
    since = "restarted since the guilds came" if restarted else "the guilds came in this process"
    print(f"events    {words}; {since}; {len(maker.guilds):,} guilds, {count:,} events, {batch:,} a commit")
    for part, cost, (who, known) in zip(
        ("the first tenth", "the last three"), events(store, stream, batch), people(stream), strict=True
    ):
        print(
            f"          {cost.added:10.2f} µs added to {cost.envelope:.2f} ({cost.added / cost.envelope:.1f} ×), "
            f"{part}: {who:,} members speak, {known:.0%} of the time they have before"
        )
    store.close()


def sizes(reader: StoreReader, members: int) -> None:
    """Where the bytes are."""
    for name, used, entries in reader.tables():
        if entries:
            print(f"  {name:8} {used / members:10.1f} bytes a member, {entries:,} entries")


if __name__ == "__main__":
    main()
