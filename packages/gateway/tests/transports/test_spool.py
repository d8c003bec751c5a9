"""Events on disk: in order, bounded, whole after a crash at any byte."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.delivery.message import Publish
from rateway.transports.spool import Spool, SpoolFull

MIB = 1024 * 1024


def message(number: int, size: int = 100) -> Publish:
    return Publish(b"MESSAGE_CREATE", b"\x00\x01" + b"p" * (number % 50), b"%d:" % number + b"x" * size)


def number_of(publish: Publish) -> int:
    return int(publish.body.partition(b":")[0])


def read_all(spool: Spool) -> list[int]:
    found = []
    while batch := spool.read(100, MIB):
        found += [number_of(publish) for _, publish in batch]
    return found


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that takes so many bytes of each file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@contextmanager
def no_free_descriptors() -> Iterator[None]:
    """A process that may open no more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_is_appended_is_read_back_in_order_and_unchanged(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "s", 10 * MIB)
    messages = [message(number) for number in range(1000)]
    assert spool.append(messages[:600]) == 1
    assert spool.append(messages[600:]) == 601
    assert spool.events == spool.unread == 1000
    found = []
    while batch := spool.read(77, MIB):
        found += batch
    assert found == list(enumerate(messages, 1))
    assert spool.unread == 0 and spool.events == 1000
    spool.close()


def test_confirmed_segments_give_their_disk_back(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, 2 * MIB)
    for number in range(1000):
        spool.append([message(number, 1000)])
    files = len(list(tmp_path.glob("*.spool")))
    assert files > 3
    spool.confirm(range(2, 900))
    # Their names tell how many events the first one has.
    assert len(list(tmp_path.glob("*.spool"))) == files and spool.bytes < 800_000
    spool.confirm([1])
    assert len(list(tmp_path.glob("*.spool"))) < 3
    spool.confirm(range(900, 1001))
    assert (spool.events, spool.bytes) == (0, 0) and not list(tmp_path.glob("*.spool"))
    assert spool.append([message(7)]) == 1001
    assert read_all(spool) == [7]


def test_one_event_that_is_never_confirmed_keeps_no_disk_of_those_after_it(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, 2 * MIB)
    spool.append([message(1)])
    spool.pass_over()
    for _ in range(20):
        first = spool.append([message(number, 1000) for number in range(500)])
        assert len(spool.read(1000, 2 * MIB)) == 500
        spool.confirm(range(first, first + 500))
        assert spool.bytes < 1.3 * MIB
        assert sum(path.stat().st_size for path in tmp_path.glob("*.spool")) == spool.bytes
    assert spool.events == 1
    last = spool.append([message(7)])
    assert last == 10_002
    spool.rewind()
    assert read_all(spool) == [1, 7] and spool.lost == 0
    # It is known over a restart, but for what came last.
    spool.close()
    spool = Spool.open(tmp_path, 2 * MIB)
    found = spool.read(20_000, 20 * MIB)
    assert found[0] == (1, message(1)) and found[-1] == (last, message(7))
    assert len(found) == spool.events < 1500
    assert spool.fetch(300) is None and spool.fetch(last) == message(7)
    spool.confirm(number for number, _ in found)
    assert (spool.events, spool.bytes, spool.front) == (0, 0, last + 1) and spool.lost == 0
    assert not list(tmp_path.glob("*.spool"))


def test_one_event_that_is_never_confirmed_keeps_no_memory_of_those_after_it(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, MIB)
    some = [message(number) for number in range(500)]

    def take_and_confirm(times: int) -> int:
        for _ in range(times):
            first = spool.append(some)
            spool.pass_over()
            spool.confirm(range(first, first + 500))
        return tracemalloc.get_traced_memory()[0]

    spool.append([message(1)])
    tracemalloc.start()
    try:
        before = take_and_confirm(10)
        assert take_and_confirm(100) - before < 500_000
    finally:
        tracemalloc.stop()


def test_a_segment_that_was_confirmed_while_it_was_read_is_not_read_further(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, 2 * MIB)
    for number in range(1, 1001):
        spool.append([message(number, 1000)])
    first, second, third = sorted(int(path.stem) for path in tmp_path.glob("*.spool"))[:3]
    assert [number for number, _ in spool.read(second + 9, 2 * MIB)] == [*range(first, second + 10)]
    spool.confirm(range(second, third))
    assert read_all(spool) == [*range(third, 1001)] and spool.lost == 0
    # Confirmed twice counts once.
    spool.confirm(range(second, third))
    assert spool.events == 1000 - (third - second)
    spool.confirm(range(first, second))
    assert spool.front == third


class History:
    """A spool beside what it must hold, over restarts of the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = Spool.open(folder, MIB)
        self.appended: dict[int, Publish] = {}
        self.unconfirmed: set[int] = set()

    def append(self, size: int) -> None:
        publish = message(len(self.appended) + 1, size)
        with suppress(SpoolFull):
            number = self.spool.append([publish])
            # A number is of one message for ever.
            assert number == len(self.appended) + 1
            self.appended[number] = publish
            self.unconfirmed.add(number)

    def confirm(self, numbers: Iterable[int]) -> None:
        confirmed = self.unconfirmed.intersection(numbers)
        self.spool.confirm(confirmed)
        self.unconfirmed -= confirmed

    def start_again(self) -> None:
        self.spool.close()
        self.spool = Spool.open(self.folder, MIB)
        found = self.read_all()
        # What was confirmed out of order may come again, under its own number.
        assert self.unconfirmed <= found and len(found) == self.spool.events
        self.unconfirmed = found

    def read_all(self) -> set[int]:
        self.spool.rewind()
        found: dict[int, Publish] = {}
        while some := self.spool.read(20, MIB):
            found.update(some)
        assert all(self.appended[number] == publish for number, publish in found.items())
        return set(found)


@given(st.data())
def test_whatever_is_confirmed_in_whichever_order_nothing_is_lost_and_each_keeps_its_number(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    history = History(tmp_path_factory.mktemp("spool"))
    steps = st.sampled_from(["append", "append", "append", "confirm", "most", "read", "start again"])
    for step in data.draw(st.lists(steps, max_size=60)):
        numbers = sorted(history.unconfirmed)
        match step:
            case "append":
                history.append(data.draw(st.sampled_from([10, 30_000, 90_000, 200_000])))
            case "confirm" if numbers:
                history.confirm(data.draw(st.sets(st.sampled_from(numbers))))
            case "most" if numbers:
                history.confirm({*numbers} - {data.draw(st.sampled_from(numbers))})
            case "read":
                history.spool.read(data.draw(st.integers(1, 5)), MIB)
            case "start again":
                history.start_again()
        spool = history.spool
        assert spool.lost == 0 and spool.events == len(history.unconfirmed)
        assert spool.front == min(history.unconfirmed, default=len(history.appended) + 1)
        assert sum(path.stat().st_size for path in history.folder.glob("*.spool")) == spool.bytes
    assert history.read_all() == history.unconfirmed


def test_a_restart_goes_on_where_the_confirms_were(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, MIB)
    spool.append([message(number) for number in range(1, 101)])
    spool.confirm([*range(1, 41), 50])
    spool.close()
    again = Spool.open(tmp_path, MIB)
    assert again.events == 60
    assert read_all(again) == list(range(41, 101))
    assert again.append([message(101)]) == 101
    assert read_all(again) == [101]
    again.confirm(range(1, 102))
    again.close()
    empty = Spool.open(tmp_path, MIB)
    assert (empty.events, empty.unread) == (0, 0)
    assert empty.append([message(1)]) == 102


def test_the_reader_rewinds_to_what_is_not_confirmed(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, MIB)
    spool.append([message(number) for number in range(1, 11)])
    assert len(spool.read(8, MIB)) == 8
    spool.confirm([1, 2, 5])
    spool.rewind()
    assert read_all(spool) == [3, 4, 6, 7, 8, 9, 10]


def test_the_reader_can_pass_over_what_was_written_from_memory(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, MIB)
    spool.append([message(1), message(2)])
    spool.pass_over()
    spool.append([message(3)])
    assert read_all(spool) == [3] and spool.events == 3


def test_one_message_can_be_fetched_by_its_number(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, 4 * MIB)
    for number in range(1, 400):
        spool.append([message(number, 2000)])
    found = spool.fetch(333)
    assert found is not None and number_of(found) == 333
    assert spool.fetch(400) is None
    assert read_all(spool)[:3] == [1, 2, 3]


def test_a_message_larger_than_a_read_and_a_segment_comes_back_whole(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, 20 * MIB)
    large = message(2, 5 * MIB)
    spool.append([message(1)])
    spool.append([large])
    spool.append([message(3)])
    spool.close()
    again = Spool.open(tmp_path, 20 * MIB)
    assert [publish for _, publish in again.read(10, 100 * MIB)] == [message(1), large, message(3)]


def test_the_bound_refuses_and_keeps_what_is_there(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, 200_000)

    def fill() -> None:
        for number in range(1, 1000):
            spool.append([message(number, 1000)])

    with pytest.raises(SpoolFull, match="bound of 200,000 bytes"):
        fill()
    held = spool.events
    assert 150 < held < 200 and spool.bytes <= 200_000
    assert sum(path.stat().st_size for path in tmp_path.glob("*.spool")) == spool.bytes
    assert read_all(spool) == list(range(1, held + 1))
    spool.confirm(range(1, 100))
    spool.append([message(5000, 1000)])
    assert read_all(spool) == [5000]


def test_a_disk_that_takes_no_more_leaves_whole_records_and_recovers(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, 10 * MIB)
    spool.append([message(1)])
    size = next(tmp_path.glob("*.spool")).stat().st_size
    with files_of_at_most(size + 50), pytest.raises(SpoolFull, match="the disk does not take more"):
        spool.append([message(2), message(3)])
    assert spool.trouble == "File too large"
    assert next(tmp_path.glob("*.spool")).stat().st_size == size
    spool.append([message(4)])
    assert spool.trouble == ""
    spool.close()
    assert read_all(Spool.open(tmp_path, MIB)) == [1, 4]


# The segment's signature and a part of its first record; and not even the signature.
@pytest.mark.parametrize("taken", [16, 50, 10])
# What fits into a segment, and what is larger than one.
@pytest.mark.parametrize("size", [1000, 700_000])
def test_what_is_appended_after_a_segment_could_not_be_begun_stays(
    tmp_path: Path, taken: int, size: int
) -> None:
    spool = Spool.open(tmp_path, 4 * MIB)
    for _ in range(2):
        with files_of_at_most(taken), pytest.raises(SpoolFull, match="the disk does not take more"):
            spool.append([message(1, size)])
    assert (spool.events, spool.bytes) == (0, 0)
    spool.append([message(1, size)])
    spool.append([message(2, size)])
    assert sum(path.stat().st_size for path in tmp_path.glob("*.spool")) == spool.bytes
    assert read_all(spool) == [1, 2] and spool.lost == 0
    spool.close()
    again = Spool.open(tmp_path, 4 * MIB)
    assert read_all(again) == [1, 2]
    again.confirm([1, 2])
    assert again.bytes == 0 and not list(tmp_path.glob("*.spool"))


def test_a_segment_with_the_name_of_one_that_could_not_be_removed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    spool = Spool.open(tmp_path, 4 * MIB)
    with monkeypatch.context() as disk:
        disk.setattr(Path, "unlink", refuse)
        with files_of_at_most(16), pytest.raises(SpoolFull):
            spool.append([message(1)])
    spool.append([message(1)])
    # Larger than a segment, so that another one is begun, and removed.
    with files_of_at_most(16), pytest.raises(SpoolFull):
        spool.append([message(2, 700_000)])
    assert read_all(spool) == [1] and spool.lost == 0


def test_segments_have_the_size_that_goes_with_the_present_bound(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "s", 64 * MIB)
    spool.append([message(1)])
    # What is kept beside it takes nearly all of the room for a while.
    spool.limit = 200_000
    spool.split_off(tmp_path / "left")
    spool.limit = 64 * MIB
    for number in range(200):
        spool.append([message(number, 10_000)])
    assert len(list((tmp_path / "s").glob("*.spool"))) == 1


def test_a_folder_that_cannot_be_used_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file"):
        Spool.open(tmp_path / "file" / "spool", MIB)


@given(st.data())
def test_a_tail_torn_at_any_byte_loses_only_what_was_torn(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool.open(folder, MIB)
    ends = [16]
    for number in range(1, 6):
        spool.append([message(number, data.draw(st.integers(0, 200)))])
        ends.append(spool.bytes)
    spool.close()
    path = next(folder.glob("*.spool"))
    cut = data.draw(st.integers(0, ends[-1]))
    garbage = data.draw(st.binary(max_size=40))
    whole = path.read_bytes()
    path.write_bytes(whole[:cut] + garbage)
    again = Spool.open(folder, MIB)
    found = read_all(again)
    sound = sum(1 for end in ends[1:] if end <= cut)
    # Garbage may happen to be the very bytes that were cut.
    assert found == list(range(1, len(found) + 1)) and len(found) >= sound
    assert len(found) == sound or (whole[:cut] + garbage)[: ends[len(found)]] == whole[: ends[len(found)]]
    first = again.append([message(99)])
    assert first == len(found) + 1
    again.close()
    assert read_all(Spool.open(folder, MIB)) == [*found, 99]


def test_a_damaged_segment_in_the_middle_is_counted_and_passed_over(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, MIB)
    for number in range(1, 301):
        spool.append([message(number, 1000)])
    spool.close()
    second = sorted(tmp_path.glob("*.spool"))[1]
    damaged = bytearray(second.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    second.write_bytes(damaged)
    again = Spool.open(tmp_path, MIB)
    found = read_all(again)
    lost = again.lost
    assert 0 < lost < 200 and len(found) == 300 - lost
    assert found == sorted(found) and found[-1] == 300
    again.confirm(range(1, 301))
    assert again.events == 0 and again.bytes == 0


def test_a_process_without_a_free_descriptor_reads_later_and_loses_nothing(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, MIB)
    for number in range(1, 301):
        spool.append([message(number, 1000)])
    with no_free_descriptors():
        assert spool.read(1000, MIB) == []
        assert spool.fetch(200) is None
    assert spool.unread == 300 and spool.trouble == "Too many open files"
    # The first file is opened, the second one cannot be.
    found = [number_of(publish) for _, publish in spool.read(1, MIB)]
    with no_free_descriptors():
        while batch := spool.read(10, MIB):
            found += [number_of(publish) for _, publish in batch]
    assert 1 < len(found) == 300 - spool.unread < 300
    assert found + read_all(spool) == list(range(1, 301)) and spool.lost == 0


def test_a_file_that_the_disk_cannot_read_is_counted_and_passed_over(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, MIB)
    for number in range(1, 301):
        spool.append([message(number, 1000)])
    files = sorted(tmp_path.glob("*.spool"))
    first, after = (int(path.stem) for path in files[1:3])
    spool.confirm([first])
    # It can be opened, and each read is an error.
    files[1].unlink()
    files[1].mkdir()
    assert spool.fetch(first + 1) is None
    assert read_all(spool) == [*range(1, first), *range(after, 301)]
    # The one that was confirmed is not lost.
    assert spool.lost == after - first - 1 and spool.events == 300 - (after - first)
    # Nor is it again, where the rest goes.
    assert spool.split_off(tmp_path.with_name("left")).lost == 0 and spool.lost == after - first - 1


def test_kill_9_in_the_middle_of_writing_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        from rateway.delivery.message import Publish
        from rateway.transports.spool import Spool
        spool = Spool.open(Path(sys.argv[1]), 1 << 28)
        number = 0
        while True:
            batch = [Publish(b"K", b"", b"%d:" % (number + index)) for index in range(1, 21)]
            number += 20
            spool.append(batch)
            os.write(1, b"%d\\n" % number)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        for _ in range(500):
            child.stdout.readline()
        child.kill()
        said = child.stdout.read().split()
    last = int(said[-1]) if said else 10_000
    found = read_all(Spool.open(tmp_path, 1 << 28))
    assert len(found) >= last and found == list(range(1, len(found) + 1))


def test_what_is_split_off_is_read_from_its_beginning_without_what_was_confirmed(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "s", 10 * MIB)
    spool.append([message(number) for number in range(1, 101)])
    assert len(spool.read(50, MIB)) == 50
    spool.confirm([1, 2, 3, 7])
    other = spool.split_off(tmp_path / "left")
    assert (spool.events, spool.bytes, spool.unread) == (0, 0, 0)
    expected = [4, 5, 6, *range(8, 101)]
    assert other.events == len(expected) and read_all(other) == expected
    # Each goes on by itself, over a restart too.
    spool.append([message(7)])
    other.append([message(8)])
    for each in (spool, other):
        each.close()
    assert read_all(Spool.open(tmp_path / "s", 10 * MIB)) == [7]
    assert read_all(Spool.open(tmp_path / "left", 10 * MIB)) == [*range(4, 101), 8]


def test_a_spool_that_is_removed_leaves_no_folder_and_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "s", 10 * MIB)
    spool.note_unsettled()
    spool.append([message(1), message(2)])
    spool.confirm([1])
    spool.remove()
    assert not (tmp_path / "s").exists()
    other = Spool.open(tmp_path / "t", 10 * MIB)
    other.append([message(1)])
    (tmp_path / "t" / "notes").write_text("a person's")
    other.remove()
    assert [path.name for path in (tmp_path / "t").iterdir()] == ["notes"]


def test_it_is_noted_from_which_event_on_they_do_not_count_as_settled(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "s", 10 * MIB)
    spool.append([message(1), message(2)])
    spool.note_unsettled()
    spool.append([message(3)])
    spool.close()
    again = Spool.open(tmp_path / "s", 10 * MIB)
    again.note_unsettled()
    assert again.unsettled_from == 3
    other = again.split_off(tmp_path / "left")
    assert (other.unsettled_from, again.unsettled_from) == (3, 1)
    other.close()
    other = Spool.open(tmp_path / "left", 10 * MIB)
    other.note_unsettled()
    assert other.unsettled_from == 3
    other.note_settled()
    other.note_unsettled()
    assert other.unsettled_from == 4
