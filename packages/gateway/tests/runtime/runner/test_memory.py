"""Memory that a flood needed is given back in a calm moment, and nobody looks through the heap for nothing."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from rateway.runtime.runner import memory
from rateway.runtime.runner.memory import CALM_SHARE, GROWN_BYTES, MemoryTrimmer, anonymous_bytes


class Process:
    """A process whose memory and work are said by the test; trimming gives back half of what was grown."""

    def __init__(self) -> None:
        self.size = 100 * GROWN_BYTES
        self.cpu = 0.0
        self.trimmer = MemoryTrimmer(size=lambda: self.size, trim=self.trim, cpu=lambda: self.cpu)

    def trim(self) -> None:
        self.size -= GROWN_BYTES // 2
        self.cpu += 10.0

    def second(self, *, grown: int = 0, busy: float = 0.0) -> int:
        """One look after a second; how often memory has been given back so far."""
        self.size += grown
        self.cpu += busy
        self.trimmer.look(1.0)
        return self.trimmer.given_back


def test_a_flood_is_given_back_once_it_is_over() -> None:
    process = Process()
    assert process.second(grown=3 * GROWN_BYTES, busy=0.9) == 0
    assert process.second(busy=CALM_SHARE + 0.01) == 0
    assert process.second(busy=0.01) == 1
    # The rest is in use: no second look through the heap for it.
    assert [process.second(busy=0.01) for _ in range(5)] == [1] * 5
    assert process.second(grown=GROWN_BYTES, busy=0.01) == 2


def test_what_went_by_itself_counts_again_when_it_comes_back() -> None:
    process = Process()
    assert process.second(grown=-2 * GROWN_BYTES) == 0
    assert process.second(grown=GROWN_BYTES - 1) == 0
    assert process.second(grown=1) == 1


def test_what_was_in_use_then_and_is_freed_now_is_given_back_too() -> None:
    process = Process()
    assert process.second(grown=2 * GROWN_BYTES) == 1
    for _ in range(3):
        process.trimmer.look(1.0, GROWN_BYTES // 4)
    assert process.trimmer.given_back == 1
    process.trimmer.look(1.0, GROWN_BYTES // 4)
    assert process.trimmer.given_back == 2
    # And no second time.
    assert process.second() == 2


def test_a_freed_heap_with_something_living_at_its_end_shrinks() -> None:
    # What tests before this one have freed would be filled first.
    memory.give_back()
    before = anonymous_bytes()
    kept, freed = [], []
    for number in range(40_000):
        freed.append(bytes(2000))
        if number % 50 == 49:
            kept.append(bytes(600))
    full = anonymous_bytes()
    assert full - before > 60_000_000
    del freed[:]
    memory.give_back()
    assert full - anonymous_bytes() > 50_000_000
    assert len(kept) == 800


def page_faults(begin: str) -> int:
    """Page faults of ten floods in a process that begins with that line."""
    script = f"""
import resource
from rateway.runtime.runner import memory
{begin}
def flood():
    # Written together, and freed once it is confirmed.
    written = [b"x" * 200_000 for _ in range(50)]
flood()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    flood()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(found.stdout)


def test_memory_that_was_freed_serves_the_next_flood() -> None:
    assert page_faults("memory.keep_free_memory()") < page_faults("pass") / 10


def grown_by_stores(begin: str, folder: Path) -> int:
    """Bytes that twenty stores take in a process that begins with that line, each opened twice as at a start."""
    folder.mkdir()
    script = f"""
import lmdb
from rateway.runtime.runner import memory
{begin}
before = memory.anonymous_bytes()
kept = []
for number in range(20):
    path = f"{folder}/{{number}}"
    lmdb.open(path, map_size=1 << 24).close()
    kept.append(lmdb.open(path, map_size=1 << 24))
print(memory.anonymous_bytes() - before)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(found.stdout)


def test_what_stores_allocate_and_hardly_fill_takes_no_memory(tmp_path: Path) -> None:
    plain = grown_by_stores("pass", tmp_path / "plain")
    assert grown_by_stores("memory.spare_untouched_memory()", tmp_path / "spared") < plain / 4


def test_of_a_buffer_whole_pages_are_given_back_and_nothing_beside_them() -> None:
    page = resource.getpagesize()
    whole = bytearray(b"x" * (40 * page))
    unused = memoryview(whole)[page // 2 : -page // 2]
    memory.give_back_pages([memoryview(b""), unused])
    gone = whole.count(0)
    assert 37 * page <= gone <= 39 * page and gone % page == 0
    # In one piece, within what was named.
    begin = whole.index(0)
    assert not whole[begin : begin + gone].strip(b"\0") and page // 2 <= begin <= 40 * page - page // 2 - gone
    whole[:] = b"y" * len(whole)
    assert whole.count(b"y") == 40 * page
