"""Events that wait on disk while the broker is away: one cluster's, in order, bounded, whole after ``kill -9``.

A folder of append-only segments. Each is named by the number of its first event and holds, after a short
signature, records of length, CRC and what is to be published (routing key, AMQP properties, body). Numbers
count on without a gap, over restarts too. A batch is one write; what a crash cut off at the end is recognised
by length and CRC and taken away. A segment is deleted once the broker has confirmed all of it; while an older
one is kept it is emptied instead, because how many events the older one has follows from its name. A small file
remembers how far everything is confirmed, so that little is published twice after a crash. Nothing is
fsynced: the promise holds for a crash of the process, not of the machine (``docs/delivery.md``).
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import stat
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from rateway.delivery.message import Publish
from rateway.transports.folder import CAREFUL

__all__ = ["Spool", "SpoolFull"]

_SIGNATURE: Final = b"rateway spool 1\n"
_HEAD: Final = struct.Struct(
    ">IIBH"
)  # length of what follows the first two fields, its CRC, length of key, length of properties
_NUMBER: Final = struct.Struct(">Q")
_SUFFIX: Final = ".spool"
_FRONT: Final = "confirmed"
_UNSETTLED: Final = "unsettled"
# A segment is the unit that disk comes back in: small against the bound, large against a file's own cost.
_SEGMENT_MOST: Final = 16 * 1024 * 1024
_SEGMENT_LEAST: Final = 64 * 1024
_READ: Final = 1024 * 1024
# What the process lacks just now, and says nothing about the file: no descriptor is free, or no memory.
_PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class SpoolFull(Exception):
    """The bound is reached, or the disk does not take more; the text says which."""


class _Segment:
    __slots__ = ("count", "first", "left", "path", "size")

    def __init__(self, path: Path, first: int, count: int, size: int) -> None:
        self.path = path
        self.first = first
        self.count = count
        # Events that are not confirmed.
        self.left = count
        self.size = size

    @property
    def end(self) -> int:
        """The number after its last event's."""
        return self.first + self.count

    @property
    def is_emptied(self) -> bool:
        """Whether its disk was given back before older ones': all of its events are confirmed."""
        return self.size == len(_SIGNATURE)


class _Place(NamedTuple):
    segment: int  # by its first number
    number: int
    offset: int


class Spool:
    """One cluster's spool. Not safe for two processes: the state folder's lock keeps others away.

    ``events`` are unconfirmed, ``bytes`` is what the segments take on disk, at most ``limit``. ``trouble`` says
    what was refused last, a write or the opening of a file; empty once something is written. ``lost`` counts the events
    that could not be read back.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self.lost = 0
        self._begin()

    def _begin(self) -> None:
        """Hold nothing."""
        self.unsettled_from = 0
        """In a fleet: the number from which on events did not count as settled when they were put in."""
        self.events = 0
        self.bytes = 0
        self.trouble = ""
        self._segments: deque[_Segment] = deque()
        # Confirmed in full, and could not be removed yet.
        self._done_with: list[Path] = []
        self._tail = -1
        self._next = 1
        # Everything before it is confirmed; beyond it, what was confirmed out of order, emptied segments' events aside.
        self._front = 1
        self._early: set[int] = set()
        self._front_file = -1
        # The reader: the next number to hand out, what is parsed already, and where in which segment the next
        # parse begins.
        self._reading = 1
        self._ready: deque[tuple[int, Publish]] = deque()
        self._file = -1
        self._place = _Place(0, 0, 0)

    @classmethod
    def open(cls, folder: Path, limit: int) -> Spool:
        """Open or create; what a former process left comes first. ``limit`` in bytes.

        :class:`OSError` when the folder cannot be used.
        """
        spool = cls(folder, limit)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        spool._recover()
        # As a process before has noted; of kept events nobody else says it.
        spool.unsettled_from = _number_in(folder / _UNSETTLED) or 0
        return spool

    def close(self) -> None:
        """Give the files back. What is in them stays."""
        for name in ("_tail", "_file", "_front_file"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)

    def note_unsettled(self) -> None:
        """Note that events do not count as settled from now on, unless that is noted already; also for later processes.
        What cannot be written down counts for this process.
        """
        noted = _number_in(self.folder / _UNSETTLED)
        self.unsettled_from = self._next if noted is None else noted
        if noted is None:
            with contextlib.suppress(OSError):
                _write_number(self.folder / _UNSETTLED, self._next)

    def note_settled(self) -> None:
        """Note that events count as settled, also those that are in it."""
        with contextlib.suppress(OSError):
            (self.folder / _UNSETTLED).unlink(missing_ok=True)
        self.unsettled_from = 0

    def split_off(self, folder: Path) -> Spool:
        """Move all that it holds to *folder*, which must not exist, as a spool of its own that is read from its
        beginning; this one is empty after that. :class:`OSError` when it cannot be moved, and all is as it was.
        """
        self._forget_place()
        self.close()
        self.folder.rename(folder)
        other = copy.copy(self)
        other.folder = folder
        other.lost = 0
        for segment in other._segments:
            segment.path = folder / segment.path.name
        other._done_with = [folder / path.name for path in other._done_with]
        other._ready = deque()
        other._reading = other._front
        self._begin()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if other.unsettled_from:
            self.note_unsettled()
        return other

    def remove(self) -> None:
        """Delete it with its folder, as far as nothing else is in there."""
        self.close()
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if path.suffix == _SUFFIX or path.name in (_FRONT, _UNSETTLED):
                    path.unlink()
            self.folder.rmdir()

    @property
    def unread(self) -> int:
        """Events from the reader's place on."""
        return self._next - self._reading

    @property
    def front(self) -> int:
        """The number of the first event that is not confirmed."""
        return self._front

    # Writing

    def append(self, messages: Sequence[Publish]) -> int:
        """Put messages at the end, all or none of them; the first one's number.

        :class:`SpoolFull` when there is no room.
        """
        records: list[bytes] = []
        for message in messages:
            rest = b"%b%b%b" % (message.key, message.properties, message.body)
            lengths = _HEAD.pack(len(rest) + 3, 0, len(message.key), len(message.properties))[8:]
            records += (
                struct.pack(">II", len(rest) + 3, zlib.crc32(rest, zlib.crc32(lengths))),
                lengths,
                rest,
            )
        data = b"".join(records)
        segment_most = max(_SEGMENT_LEAST, min(_SEGMENT_MOST, self.limit // 8))
        fresh = self._tail < 0 or self._segments[-1].size + len(data) > segment_most
        if self.bytes + len(data) + (len(_SIGNATURE) if fresh else 0) > self.limit:
            raise SpoolFull(f"the spool's bound of {self.limit:,} bytes is reached")
        try:
            if fresh:
                self._new_segment()
            self._write(data)
        except OSError as error:
            self._fail(error)
            raise SpoolFull(f"the disk does not take more: {error.strerror}") from None
        self.trouble = ""
        segment = self._segments[-1]
        first = self._next
        segment.count += len(messages)
        segment.left += len(messages)
        segment.size += len(data)
        self.bytes += len(data)
        self.events += len(messages)
        self._next += len(messages)
        if fresh and len(self._segments) > 1 and not self._segments[-2].left:
            # It was confirmed while it was the last one, whose events a restart counts by reading it. Now the name of
            # the next one tells how many it has.
            self._empty(self._segments[-2])
        return first

    def _new_segment(self) -> None:
        path = self.folder / f"{self._next:020d}{_SUFFIX}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | CAREFUL, 0o600)
        try:
            if os.write(descriptor, _SIGNATURE) != len(_SIGNATURE):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        self._close_tail()
        self._tail = descriptor
        # One that began with the same number and could not be removed had this name.
        self._done_with = [each for each in self._done_with if each != path]
        self._segments.append(_Segment(path, self._next, 0, len(_SIGNATURE)))
        self.bytes += len(_SIGNATURE)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._tail, view) :]

    def _fail(self, error: OSError) -> None:
        """Take away what was written in part, so that the next record follows the last whole one."""
        self.trouble = error.strerror or str(error)
        if self._tail < 0:
            return
        if not self._segments[-1].count:
            # It was begun for what could not be written. The next one has its name: both at a time cannot be.
            self._close_tail()
            self._drop(self._segments.pop())
            return
        try:
            os.ftruncate(self._tail, self._segments[-1].size)
        except OSError:
            # What cannot be cut is recognised as torn; the next record begins a segment of its own.
            self._close_tail()

    def _close_tail(self) -> None:
        if self._tail >= 0:
            os.close(self._tail)
            self._tail = -1

    # Reading

    def read(self, most_events: int, most_bytes: int) -> list[tuple[int, Publish]]:
        """Return the next unconfirmed messages, numbered, in order; empty when the reader has reached the end, and
        where nothing can be read just now: then :attr:`unread` is not 0, and ``trouble`` says why.
        """
        found: list[tuple[int, Publish]] = []
        while len(found) < most_events and most_bytes > 0 and (self._ready or self._parse_next()):
            number, message = self._ready.popleft()
            self._reading = number + 1
            if number >= self._front and number not in self._early:
                found.append((number, message))
                most_bytes -= len(message.body)
        return found

    def fetch(self, number: int) -> Publish | None:
        """Return one message by its number, if it is still there and can be read. Reads its segment from the beginning:
        for what is rare.
        """
        segment = self._segment_of(number)
        if segment is None:
            return None
        try:
            descriptor = os.open(segment.path, os.O_RDONLY | CAREFUL)
        except OSError:
            return None
        try:
            at, offset = segment.first, len(_SIGNATURE)
            while True:
                records, used = _records(descriptor, offset)
                if number - at < len(records):
                    return records[number - at]
                if not records:
                    return None
                at, offset = at + len(records), offset + used
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def rewind(self) -> None:
        """Read again from the first message that is not confirmed."""
        self._reading = self._front
        self._forget_place()

    def pass_over(self) -> None:
        """The reader goes to the end: what has been appended since it was there is written from memory."""
        self._reading = self._next
        self._forget_place()

    def _forget_place(self) -> None:
        self._ready.clear()
        self._place = _Place(0, 0, 0)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _segment_of(self, number: int) -> _Segment | None:
        for segment in self._segments:
            if segment.first <= number < segment.end:
                return segment
        return None

    def _parse_next(self) -> bool:
        """Make some messages ready; false at the end, and where nothing can be read just now."""
        while self._reading < self._next:
            segment = self._segment_of(self._reading)
            if segment is None:
                self._reading = min(
                    (later.first for later in self._segments if later.first > self._reading),
                    default=self._next,
                )
                continue
            if segment.is_emptied:
                self._reading = segment.end
                continue
            if self._place.segment != segment.first:
                self._forget_place()
                self._place = _Place(segment.first, segment.first, len(_SIGNATURE))
            _, number, offset = self._place
            try:
                if self._file < 0:
                    self._file = os.open(segment.path, os.O_RDONLY | CAREFUL)
                messages, used = _records(self._file, offset)
            except OSError as error:
                if error.errno in _PASSING:
                    self.trouble = os.strerror(error.errno)
                    return False
                messages, used = [], 0
            if not messages:
                self._lose(segment)
                continue
            self._place = _Place(segment.first, number + len(messages), offset + used)
            self._ready.extend(item for item in enumerate(messages, number) if item[0] >= self._reading)
            if self._ready:
                return True
        return False

    def _lose(self, segment: _Segment) -> None:
        """The rest of a segment cannot be read (a torn or foreign file, a disk that fails): it is counted, not retried
        for ever.
        """
        rest = range(self._reading, segment.end)
        self._reading = rest.stop
        self._forget_place()
        before = self.events
        self.confirm(rest)
        self.lost += before - self.events

    # Confirming

    def confirm(self, numbers: Iterable[int]) -> None:
        """The broker has these messages, in any order. Segments that are confirmed in full give their disk back."""
        front, early = self._front, self._early
        segment: _Segment | None = None
        for number in numbers:
            if number < front or number in early or number >= self._next:
                continue
            if segment is None or not segment.first <= number < segment.end:
                segment = self._segment_of(number)
            if segment is None or segment.is_emptied:
                continue
            early.add(number)
            self.events -= 1
            segment.left -= 1
            # The last one is written to; the first one is about to be deleted.
            if not segment.left and segment.first > front and segment is not self._segments[-1]:
                self._empty(segment)
        self._advance()

    def _advance(self) -> None:
        """Move the front over all that is confirmed, and delete the segments that it has passed."""
        front, early = self._front, self._early
        while self._segments:
            segment = self._segments[0]
            if segment.is_emptied:
                front = max(front, segment.end)
            while front in early:
                early.discard(front)
                front += 1
            if front < segment.end:
                break
            if len(self._segments) == 1:
                # The one that is being written: the next message begins another.
                self._close_tail()
            self._drop(self._segments.popleft())
        if front != self._front:
            self._front = front
            self._remember()

    def _empty(self, segment: _Segment) -> None:
        """Give the disk of a segment back that is confirmed in full, while older ones are not."""
        try:
            os.truncate(segment.path, len(_SIGNATURE))
        except OSError as error:
            self.trouble = error.strerror or str(error)
            return
        self.bytes -= segment.size - len(_SIGNATURE)
        segment.size = len(_SIGNATURE)
        self._early.difference_update(range(segment.first, segment.end))
        if self._place.segment == segment.first:
            self._forget_place()

    def _drop(self, segment: _Segment) -> None:
        if self._place.segment == segment.first and not self._ready:
            self._forget_place()
        self.bytes -= segment.size
        self._remove(segment.path)

    def _remove(self, path: Path) -> None:
        """Give a file's disk back; where that is refused just now, together with the next one's."""
        self._done_with.append(path)
        kept: list[Path] = []
        for each in self._done_with:
            try:
                each.unlink(missing_ok=True)
            except OSError as error:
                self.trouble = error.strerror or str(error)
                kept.append(each)
        self._done_with = kept

    def _remember(self) -> None:
        """Only a hint: without it more is published twice after a crash, nothing is lost."""
        try:
            if self._front_file < 0:
                self._front_file = os.open(self.folder / _FRONT, os.O_WRONLY | os.O_CREAT | CAREFUL, 0o600)
            os.pwrite(self._front_file, _NUMBER.pack(self._front), 0)
        except OSError as error:
            self.trouble = error.strerror or str(error)

    # After a restart

    def _recover(self) -> None:
        found = (path for path in self.folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal())
        # Whatever else stands there, a link for one, is none of the spool's.
        paths = sorted(path for path in found if stat.S_ISREG(path.lstat().st_mode))
        firsts = [int(path.stem) for path in paths]
        for index, (path, first) in enumerate(zip(paths, firsts, strict=True)):
            last = index == len(paths) - 1
            count, size = _measure(path) if last else (firsts[index + 1] - first, path.stat().st_size)
            if last and size < path.stat().st_size:
                # Where nothing can be written, it stays behind the last whole record and is passed over.
                with contextlib.suppress(OSError):
                    os.truncate(path, max(size, len(_SIGNATURE)))
            if count <= 0:
                self._remove(path)
                continue
            self._segments.append(_Segment(path, first, count, size))
            self.bytes += size
            self._next = first + count
        remembered = self._remembered()
        if not self._segments:
            # Numbers go on, so that what the file remembers is never about another message.
            self._next = max(self._next, remembered)
            self._front = self._reading = self._next
            return
        first = self._segments[0].first
        self._front = min(max(first, remembered), self._next)
        self._advance()
        for segment in self._segments:
            segment.left = 0 if segment.is_emptied else segment.end - max(segment.first, self._front)
        self.events = sum(segment.left for segment in self._segments)
        self._reading = self._front

    def _remembered(self) -> int:
        return _number_in(self.folder / _FRONT) or 1


def _write_number(path: Path, number: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | CAREFUL, 0o600)
    try:
        os.write(descriptor, _NUMBER.pack(number))
    finally:
        os.close(descriptor)


def _number_in(path: Path) -> int | None:
    """Return the number that a file holds; None without one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | CAREFUL)
    except OSError:
        return None
    try:
        data = os.read(descriptor, _NUMBER.size + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return int(_NUMBER.unpack(data)[0]) if len(data) == _NUMBER.size else None


def _parse(data: bytes) -> tuple[list[Publish], int]:
    """Whole and sound records at the beginning of ``data``, and how many bytes they take."""
    messages: list[Publish] = []
    at, size = 0, len(data)
    while size - at >= _HEAD.size:
        length, crc, key_length, properties_length = _HEAD.unpack_from(data, at)
        stop = at + 8 + length
        if (
            stop > size
            or length < 3 + key_length + properties_length
            or zlib.crc32(memoryview(data)[at + 8 : stop]) != crc
        ):
            break
        key = at + _HEAD.size
        properties = key + key_length
        body = properties + properties_length
        messages.append(Publish(data[key:properties], data[properties:body], data[body:stop]))
        at = stop
    return messages, at


def _records(descriptor: int, offset: int) -> tuple[list[Publish], int]:
    """Return the records from a place in a segment on:

    As many as one read gives, or one that is larger than that; none at the end.
    """
    found = _parse(os.pread(descriptor, _READ, offset))
    if found[0]:
        return found
    head = os.pread(descriptor, _HEAD.size, offset)
    if len(head) < _HEAD.size:
        return [], 0
    length = _HEAD.unpack(head)[0]
    if offset + 8 + length > os.fstat(descriptor).st_size:
        return [], 0
    return _parse(os.pread(descriptor, 8 + length, offset))


def _measure(path: Path) -> tuple[int, int]:
    """How many sound records a segment has, and up to which byte."""
    count = 0
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return 0, 0
        offset = len(_SIGNATURE)
        while True:
            messages, used = _records(file.fileno(), offset)
            if not messages:
                return count, offset
            count += len(messages)
            offset += used
