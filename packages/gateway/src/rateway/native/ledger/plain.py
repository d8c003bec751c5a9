"""The unconfirmed events of a cluster, and the settled sequence of each of its shards.

The ledger of one cluster. Events come in *runs*: what one shard published in one wake-up, so that the work
for an event is an ``append`` and the bookkeeping is done per run. A run waits, is written (its events get
consecutive numbers), and ends when the broker has answered for each of them, or when it is in the
spool. Nothing here knows what the pieces of an event look like.

Acknowledgements come late, ``multiple``, one by one and out of order (RabbitMQ confirms what has no queue at
once and what is persistent in batches), so a run counts what is left and remembers holes; the *cursor* of a
session moves only over a prefix without holes. What must be written again keeps its place: a lost connection
turns everything unanswered back into waiting runs, in order, before anything newer.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

__all__ = ["STRIDE", "Batch", "Cursor", "Headroom", "Run", "Unconfirmed", "times_of"]

# Pieces of one event in a run's flat list: head, body, tail. The head is None once the event is answered for.
STRIDE: Final = 3
# Spooled events whose marks are kept as one. A settled sequence that is that far behind costs nothing.
_SPAN: Final = 256
_GONE: Final = [None] * STRIDE
# What an event's head and its objects take beside its body, bytes.
_EVENT_BYTES: Final = 400


class Cursor:
    """The settled sequence of one session of one shard."""

    __slots__ = ("runs", "settled", "shard", "spooled")

    def __init__(self, shard: int, settled: int = 0) -> None:
        self.shard = shard
        self.settled = settled
        # Runs that are not settled to their end, in order.
        self.runs: deque[Run] = deque()
        # Where the spool does not settle: what lies in it before the runs, in order.
        self.spooled: deque[_Span] = deque()

    @property
    def reached(self) -> int:
        """What is settled once all before the first event of ``runs`` is."""
        return self.spooled[-1].mark if self.spooled else self.settled

    @property
    def is_complete(self) -> bool:
        """Whether nothing of the session is unconfirmed."""
        return not self.runs and not self.spooled

    def skip(self, seq: int) -> None:
        """``seq`` needs no confirm: it is settled with what came before it."""
        if self.runs:
            marks = self.runs[-1].marks
            if marks and seq > marks[-1]:
                marks[-1] = seq
        elif self.spooled:
            self.spooled[-1].mark = max(seq, self.spooled[-1].mark)
        elif seq > self.settled:
            self.settled = seq


class _Span:
    """Consecutive events of one session in the spool, by the spool's numbers of the first and the last."""

    __slots__ = ("first", "last", "mark")

    def __init__(self, first: int, mark: int) -> None:
        self.first = self.last = first
        # What the cursor's ``settled`` becomes once the spool has nothing up to ``last``.
        self.mark = mark


class Run:
    """Consecutive events of one stream, written together."""

    __slots__ = (
        "at",
        "bytes",
        "cursor",
        "front",
        "held",
        "is_open",
        "left",
        "marks",
        "name",
        "number",
        "origins",
        "overtook",
        "pieces",
        "probes",
        "records",
        "told",
        "window",
    )  # fmt: skip

    def __init__(self, cursor: Cursor | None, at: float) -> None:
        self.cursor = cursor
        # Whether events may still be added to it.
        self.is_open = True
        # Monotonic seconds of its first event, or of when it was read back from the spool.
        self.at = at
        self.pieces: list[Any] = []
        # What the cursor's ``settled`` becomes once this event and all before it are answered for.
        # Where there is no cursor any more (the spool has the event): the shard.
        self.marks: list[int] = []
        self.bytes = 0
        self.number = 0
        # The first unanswered event's name, where the pieces do not tell it any more.
        self.name = ""
        # Events not answered for, and the index of the first of them. Until the run is closed (``add``) it is
        # unanswered, whatever it holds: confirms of older runs arrive while it is still filled.
        self.left = -1
        self.front = 0
        # Events that the broker has refused: their numbers are spent, so an acknowledgement of all up to a later
        # one does not mean them.
        self.held: set[int] | None = None
        # The events' numbers in the spool, if they are there.
        self.records: list[int] | None = None
        # Of a retry: which events of which runs it stands for.
        self.origins: list[tuple[Run, int]] | None = None
        # Its one event was confirmed ahead of its place, before older ones.
        self.overtook = False
        # Names published ``mandatory`` in this run.
        self.probes: list[str] | None = None
        # Called once the broker or the spool has the run (messages of the gateway's own).
        self.told: Callable[[], None] | None = None
        # Read back from the spool: counts against its window.
        self.window = False


class Headroom:
    """The bytes that a process may still read from Discord before it has to wait for confirms. One for all of its
    clusters.
    """

    __slots__ = ("_on_room", "_on_used_up", "bytes", "is_overdue", "is_used_up", "is_waited_for", "size")

    def __init__(self, size: int, on_used_up: Callable[[], None], on_room: Callable[[], None]) -> None:
        """*on_used_up* is called when more was read than may be, once until ``is_used_up`` is cleared; *on_room* when a
        quarter of *size* is free, while ``is_waited_for``.
        """
        self.size = size
        # What is left; below 0 when more was read than may be.
        self.bytes = size
        self.is_used_up = False
        # Whether a connection is not read until there is room.
        self.is_waited_for = False
        # Whether one has waited for so long that room has to be made without confirms.
        self.is_overdue = False
        self._on_used_up = on_used_up
        self._on_room = on_room

    def take(self, size: int) -> None:
        """So many bytes were read."""
        self.bytes -= size
        if self.bytes < 0 and not self.is_used_up:
            self.is_used_up = True
            self._on_used_up()

    def give(self, size: int) -> None:
        """So many bytes are not held any more; below 0: are held as well, without being read just now."""
        self.bytes += size
        if self.is_waited_for and 4 * self.bytes >= self.size:
            self._on_room()


class Batch:
    """The runs of one wake-up of the event loop, until they are written."""

    __slots__ = ("_begin", "_headroom", "asking", "at", "bytes", "runs", "stamp")

    def __init__(self, begin: Callable[[], None], headroom: Headroom | None = None) -> None:
        """*begin* is called before the first run of a wake-up is opened; it sets ``at`` and ``stamp``. *headroom*: what
        its events are counted against; None: nothing.
        """
        self._begin = begin
        self._headroom = headroom
        self.runs: list[Run] = []
        # About what its events take, in bytes.
        self.bytes = 0
        # Of the first event: monotonic seconds, and the wall clock in whole seconds as AMQP writes it.
        self.at = 0.0
        self.stamp = bytes(8)
        # Names of which the next event asks whether a queue is bound, so that no template fits it.
        self.asking: set[str] = set()

    def open(self, cursor: Cursor) -> Run:
        """Return a new run of a session; it is written with the others of this wake-up."""
        if not self.runs:
            self._begin()
        run = Run(cursor, self.at)
        self.runs.append(run)
        cursor.runs.append(run)
        return run

    def count(self, size: int) -> None:
        """An event of *size* bytes was added to one of its runs."""
        size += _EVENT_BYTES
        self.bytes += size
        if self._headroom is not None:
            self._headroom.take(size)

    def events(self) -> int:
        """Return how many events its runs have."""
        count = 0
        for run in self.runs:
            count += len(run.marks)
        return count

    def end(self) -> None:
        """Let nothing more be added to its runs."""
        for run in self.runs:
            run.is_open = False

    def take(self) -> list[Run]:
        """Return its runs, ended, and forget them."""
        self.end()
        runs, self.runs = self.runs, []
        self.bytes = 0
        return runs


def times_of(finished: list[Run]) -> list[tuple[float, int]]:
    """Return (``at``, events) of complete runs, those of one wake-up together. Retries and what the spool had are left
    out: they were published another time.
    """
    times: list[tuple[float, int]] = []
    at, events = 0.0, 0
    for run in finished:
        if run.records is None and run.origins is None:
            if run.at != at:
                if events:
                    times.append((at, events))
                at, events = run.at, 0
            events += len(run.marks)
    if events:
        times.append((at, events))
    return times


class Unconfirmed:
    """The ledger. ``events`` and ``bytes`` are what is unconfirmed in memory and nowhere else.

    *spool_settles*: whether an event in the spool counts as settled. Not where another machine may have to go on with
    the session, which cannot read this one's spool.
    """

    def __init__(self, *, spool_settles: bool = True) -> None:
        self.spool_settles = spool_settles
        self.events = 0
        self.bytes = 0
        # Since the start, retries not counted.
        self.added = 0
        self.confirmed = 0
        # Written and not answered in full, by number.
        self.sent: list[Run] = []
        # To be written, oldest first.
        self.waiting: deque[Run] = deque()
        # Refused by the broker, in the order in which they were refused.
        self.refused: dict[tuple[Run, int], None] = {}
        # Set when a cursor has moved; the reader clears it.
        self.moved = False
        # Complete runs that carry ``probes`` or ``told``; the reader clears it.
        self.awaited: list[Run] = []
        # Numbers of spooled events that the broker has now; the reader clears it.
        self.dropped: list[int] = []
        # Events and bytes read back from the spool and unanswered.
        self.window_events = 0
        self.window_bytes = 0
        # Spooled events that must carry ``republished`` when they are read back again.
        self.suspect: set[int] = set()
        # Cursors with events in the spool that are not settled by that.
        self._spooling: dict[Cursor, None] = {}
        self._next_number = 1
        # The first number of each run in ``sent``, and how many of those are complete.
        self._numbers: list[int] = []
        self._done = 0

    def add(self, run: Run, size: int) -> None:
        """Add a run of ``size`` bytes, to be written after all others."""
        run.bytes = size
        count = run.left = len(run.marks)
        self.events += count
        self.bytes += size
        self.added += count
        self.waiting.append(run)

    def add_written(self, runs: list[Run]) -> list[bytes]:
        """Add runs that are written at once, because nothing waits. Returns the bytes of each."""
        parts: list[bytes] = []
        for run in runs:
            data = b"".join(run.pieces)
            parts.append(data)
            run.bytes = len(data)
            run.left = len(run.marks)
            self.events += run.left
            self.bytes += run.bytes
            self.added += run.left
            run.number = self._next_number
            self._next_number += run.left
            self._numbers.append(run.number)
            self.sent.append(run)
        return parts

    def take(self, most: int) -> list[Run]:
        """Return the next waiting runs, of about ``most`` bytes, now written."""
        taken: list[Run] = []
        waiting = self.waiting
        while waiting and most > 0:
            run = waiting.popleft()
            most -= run.bytes
            self.written(run)
            taken.append(run)
        return taken

    def read_back(self, run: Run, size: int) -> None:
        """A run read back from the spool has been written."""
        run.bytes, run.left, run.window = size, len(run.marks), True
        self.window_events += run.left
        self.window_bytes += size
        self.written(run)

    def written(self, run: Run) -> None:
        """Give the run's events their numbers, by which they are answered for."""
        run.number = self._next_number
        self._next_number += len(run.marks)
        self._numbers.append(run.number)
        self.sent.append(run)

    # What the broker answers

    def acknowledge(self, acks: Sequence[tuple[int, int]]) -> list[Run]:
        """Events are confirmed: (number, multiple: all up to it); number 0 with multiple is everything.

        Returns the runs that are complete now.
        """
        finished: list[Run] = []
        # Acknowledgements one by one mostly come for one run after the other, and in order.
        near: Run | None = None
        begin = stop = 0
        written = self._next_number - 1
        at, count = 0, len(acks)
        while at < count:
            number, multiple = acks[at]
            at += 1
            if multiple:
                # A broker may name any number of 64 bits: what was not written is not meant.
                self._acknowledge_all(min(number, written) if number else written, finished)
                continue
            if not begin <= number < stop:
                near = self._find(number)
                if near is None:
                    begin = stop = 0
                    continue
                begin, stop = near.number, near.number + len(near.marks)
            assert near is not None
            if (
                number - begin == near.front
                and near.left == stop - number
                and near.held is None
                and near.origins is None
            ):
                number += 1
                while at < count and number < stop and acks[at][0] == number and not acks[at][1]:
                    number += 1
                    at += 1
                if number == stop:
                    self._finish(near, finished)
                else:
                    self._answer_first(near, number - begin)
            elif near.held is None or number - begin not in near.held:
                self._confirm(near, number - begin, finished)
        self._trim()
        return finished

    def _acknowledge_all(self, last: int, finished: list[Run]) -> None:
        for run in self.sent:
            if run.number > last:
                return
            count = len(run.marks)
            stop = min(count, last - run.number + 1)
            if run.held is not None:
                for index in range(run.front, stop):
                    if index not in run.held:
                        self._confirm(run, index, finished)
            elif stop == count:
                if run.left:
                    self._finish(run, finished)
            elif run.left == count - run.front and run.origins is None:
                if stop > run.front:
                    self._answer_first(run, stop)
            else:
                for index in range(run.front, stop):
                    self._confirm(run, index, finished)

    def refuse(self, number: int, multiple: bool, remark: Callable[[Any], Any]) -> int:
        """Have refused events tried again, marked by ``remark(head)``. Returns how many."""
        before = len(self.refused)
        if multiple:
            last = number or self._next_number - 1
            for run in self.sent:
                for index in range(run.front, min(len(run.marks), last - run.number + 1)):
                    self._refuse(run, index, remark)
        else:
            run_of_number = self._find(number)
            if run_of_number is not None:
                self._refuse(run_of_number, number - run_of_number.number, remark)
        self._trim()
        return len(self.refused) - before

    def _find(self, number: int) -> Run | None:
        at = bisect_right(self._numbers, number) - 1
        if at < 0:
            return None
        run = self.sent[at]
        return run if number - run.number < len(run.marks) else None

    def _refuse(self, run: Run, index: int, remark: Callable[[Any], Any]) -> None:
        head = run.pieces[STRIDE * index] if run.left else None
        if head is None or (run.held is not None and index in run.held):
            return
        if run.origins is not None:
            # The retry is over; what it stood for is to be retried again.
            self.refused[run.origins[index]] = None
            self._answer(run, index)
            if not run.left:
                self._done += 1
            return
        if run.held is None:
            run.held = set()
        run.held.add(index)
        if run.records is not None:
            self.suspect.add(run.records[index])
        if head:
            self._mark(run, index, remark)
        self.refused[run, index] = None

    def _mark(self, run: Run, index: int, remark: Callable[[Any], Any]) -> None:
        at = STRIDE * index
        head = run.pieces[at]
        run.pieces[at] = remark(head)
        grown = len(run.pieces[at]) - len(head)
        run.bytes += grown
        if run.window:
            self.window_bytes += grown
        elif run.records is None:
            self.bytes += grown

    def retry(self, most: int, fetch: Callable[[int], tuple[Any, Any, Any] | None]) -> Run | None:
        """Refused events to write again, the oldest ``most`` of them.

        ``fetch(number)`` gives the pieces of one that only the spool has.
        """
        run = Run(None, -1.0)
        run.origins = []
        for origin, index in list(self.refused)[:most]:
            del self.refused[origin, index]
            pieces: Any = origin.pieces[STRIDE * index : STRIDE * index + STRIDE] if origin.left else (None,)
            if pieces[0] == b"" and origin.records is not None:
                pieces = fetch(origin.records[index])
            if pieces is None or pieces[0] is None:
                continue
            run.pieces += pieces
            run.marks.append(0)
            run.origins.append((origin, index))
        if not run.origins:
            return None
        run.left = len(run.marks)
        self.written(run)
        return run

    def abandon(self) -> list[Run]:
        """Give the oldest refused event up: from now on it counts as answered for.

        Returns the runs that are complete by that.
        """
        finished: list[Run] = []
        run, index = next(iter(self.refused))
        del self.refused[run, index]
        self._confirm(run, index, finished)
        self._trim()
        return finished

    @property
    def flying(self) -> int:
        """Events that are written, and that the broker has not answered for."""
        return sum(run.left for run in self.sent if run.origins is None)

    def forget_run(self, run: Run) -> None:
        """Leave a run to its publisher: it is not to be written, and what the broker answers means nothing."""
        if run.records is None and run.left > 0:
            self.events -= run.left
            self.bytes -= run.bytes
            if run in self.waiting:
                self.waiting.remove(run)
            self._empty(run)

    def take_all(self) -> list[tuple[Any, Any]]:
        """Forget everything that is unanswered; return (head, body) of what neither the broker nor the spool has,
        oldest first. No run may be open. Answers that are on their way mean nothing after that.
        """
        runs = [*self.sent, *self.waiting]
        found = [
            each
            for run in runs
            if run.left > 0 and run.records is None and run.origins is None
            for each in self.pieces_left(run)
        ]
        for run in runs:
            self._empty(run)
        for cursor in self._spooling:
            cursor.spooled.clear()
        self.sent.clear()
        self.waiting.clear()
        self.refused.clear()
        self.suspect.clear()
        self._numbers.clear()
        self._spooling.clear()
        self.dropped = []
        self.events = self.bytes = self.window_events = self.window_bytes = self._done = 0
        return found

    @staticmethod
    def _empty(run: Run) -> None:
        run.left, run.front, run.told = 0, len(run.marks), None
        run.pieces.clear()
        if run.cursor is not None:
            run.cursor.runs.clear()
            run.cursor = None

    def is_sent(self, run: Run) -> bool:
        """Whether a run is written, and the broker has not answered for all that was written since."""
        return self._find(run.number) is run

    def overtake(self, run: Run) -> list[Run]:
        """The one event of *run* was published ahead of its place, and is confirmed: its place is answered for.

        Returns the runs that are complete by that.
        """
        finished: list[Run] = []
        if run.left <= 0:
            return finished
        if self.is_sent(run):
            self._confirm(run, 0, finished)
            self._trim()
            return finished
        if run.records is None:
            self.waiting.remove(run)
        run.overtook = True
        self._finish(run, finished)
        # It is none of those that are written.
        self._done -= 1
        return finished

    def _confirm(self, run: Run, index: int, finished: list[Run]) -> None:
        """One event of a run is answered for."""
        if not run.left or run.pieces[STRIDE * index] is None:
            return
        if run.left == 1:
            self._finish(run, finished)
            return
        if run.origins is not None:
            origin, there = run.origins[index]
            self._confirm(origin, there, finished)
        if self._answer(run, index):
            cursor = run.cursor
            if cursor is not None and cursor.runs[0] is run:
                self._settle(cursor)

    def _answer(self, run: Run, index: int) -> bool:
        """Take one event out of a run: its memory, its count, its place in the spool. Whether that moved its front."""
        pieces = run.pieces
        at = STRIDE * index
        pieces[at] = pieces[at + 1] = None
        # Bytes are shared out evenly: what the last one leaves is taken with the run.
        size = run.bytes // run.left
        run.left -= 1
        run.bytes -= size
        self._count_answered(run, 1, size)
        if run.records is not None:
            self.dropped.append(run.records[index])
        if index != run.front:
            return False
        count, front = len(run.marks), index + 1
        while front < count and pieces[STRIDE * front] is None:
            front += 1
        run.front = front
        return True

    def _answer_first(self, run: Run, stop: int) -> None:
        """Take the events from the front to ``stop`` out of a run without holes, and not all of it."""
        front = run.front
        count = stop - front
        run.pieces[STRIDE * front : STRIDE * stop] = _GONE * count
        size = run.bytes * count // run.left
        run.left -= count
        run.bytes -= size
        run.front = stop
        self._count_answered(run, count, size)
        if run.records is not None:
            self.dropped += run.records[front:stop]
        cursor = run.cursor
        if cursor is not None and cursor.runs[0] is run:
            self._settle(cursor)

    def _count_answered(self, run: Run, count: int, size: int) -> None:
        if run.origins is not None:
            return
        self.confirmed += count
        if run.window:
            self.window_events -= count
            self.window_bytes -= size
        elif run.records is None:
            self.events -= count
            self.bytes -= size

    def _finish(self, run: Run, finished: list[Run]) -> None:
        """All that was left of a run is answered for."""
        if run.origins is None and run.records is None and not run.window:
            # As nearly every run ends.
            self.confirmed += run.left
            self.events -= run.left
            self.bytes -= run.bytes
        else:
            self._finish_rarely(run, finished)
        run.left = 0
        run.front = len(run.marks)
        # In place: what filled the run still knows the list, until the next one of its shard.
        run.pieces.clear()
        self._done += 1
        finished.append(run)
        if run.probes is not None or run.told is not None:
            self.awaited.append(run)
        cursor = run.cursor
        if cursor is not None and cursor.runs[0] is run:
            self._settle(cursor)

    def _finish_rarely(self, run: Run, finished: list[Run]) -> None:
        """A retry, or what the spool has."""
        if run.origins is not None:
            for index, (origin, there) in enumerate(run.origins):
                if run.pieces[STRIDE * index] is not None:
                    self._confirm(origin, there, finished)
        elif run.records is not None:
            pieces = run.pieces
            self.dropped += [
                number for index, number in enumerate(run.records) if pieces[STRIDE * index] is not None
            ]
        self._count_answered(run, run.left, run.bytes)

    def _settle(self, cursor: Cursor) -> None:
        """Move a cursor over everything at its front that is answered for or in the spool. Where the spool does not
        settle, what follows on spooled events is settled with them.
        """
        runs, settled = cursor.runs, cursor.settled
        while runs and (not runs[0].left or runs[0].records is not None):
            mark = runs.popleft().marks[-1]
            if mark > settled:
                settled = mark
        if runs and runs[0].front:
            mark = runs[0].marks[runs[0].front - 1]
            if mark > settled:
                settled = mark
        if settled != cursor.settled:
            if cursor.spooled:
                span = cursor.spooled[-1]
                span.mark = max(settled, span.mark)
                return
            cursor.settled = settled
            self.moved = True

    def _trim(self) -> None:
        """Forget complete runs.

        Those at the front, and those behind a run that is never answered once they are the larger part.
        """
        sent = self.sent
        gone = 0
        for run in sent:
            if run.left:
                break
            gone += 1
        if gone:
            del sent[:gone], self._numbers[:gone]
            self._done -= gone
        if self._done > 64 and 2 * self._done > len(sent):
            self.sent = [run for run in sent if run.left]
            self._numbers = [run.number for run in self.sent]
            self._done = 0

    # What happens to the connection

    def lost(self, remark: Callable[[Any], Any]) -> int:
        """Have unanswered events written again, in order, before anything newer: their channel has ended.

        Numbers begin at 1 again. An event that the broker may have lost after it took a later one of the same shard is
        marked by ``remark(head)``. What the spool has is left to it. No run may be open. Returns how many events are to
        be written again.
        """
        for cursor in dict.fromkeys(run.cursor for run in self.sent if run.cursor is not None):
            self._fold(cursor, remark)
        taken: set[int] = set()
        again: list[Run] = []
        for run in reversed(self.sent):
            if run.records is not None:
                self._suspect(run, taken)
            elif run.left and run.origins is None:
                again.append(run)
        self.waiting.extendleft(again)
        self.sent.clear()
        self.refused.clear()
        self._numbers.clear()
        self._next_number, self._done = 1, 0
        self.window_events = self.window_bytes = 0
        return sum(run.left for run in again)

    def _suspect(self, run: Run, taken: set[int]) -> None:
        assert run.records is not None
        for index in range(len(run.marks) - 1, -1, -1):
            if not run.left or run.pieces[STRIDE * index] is None:
                taken.add(run.marks[index])
            # What was spooled while it was unanswered has had newer events written after it from memory:
            # taken, for all we know.
            elif not run.window or run.marks[index] in taken:
                self.suspect.add(run.records[index])

    def _fold(self, cursor: Cursor, remark: Callable[[Any], Any]) -> None:
        """Take what is answered for out of a cursor's runs.

        The mark of each goes to the event before it that is not.
        """
        later, carry = False, 0
        for run in reversed(cursor.runs):
            pieces: list[Any] = []
            marks: list[int] = []
            for index in range(len(run.marks) - 1, -1, -1):
                if not run.left or run.pieces[STRIDE * index] is None:
                    later, carry = later or not run.overtook, max(carry, run.marks[index])
                    continue
                if later:
                    self._mark(run, index, remark)
                pieces[:0] = run.pieces[STRIDE * index : STRIDE * index + STRIDE]
                marks.append(max(run.marks[index], carry))
                carry = 0
            run.pieces, run.marks = pieces, marks[::-1]
            run.front, run.left, run.probes, run.held = 0, len(marks), None, None
        cursor.runs = deque(run for run in cursor.runs if run.left)

    # The spool

    def replace(self, run: Run, index: int, pieces: tuple[Any, Any, Any]) -> None:
        """Another message goes out in an event's place. Only for what waits."""
        at = STRIDE * index
        grown = sum(map(len, pieces)) - sum(map(len, run.pieces[at : at + STRIDE]))
        run.pieces[at : at + STRIDE] = pieces
        run.bytes += grown
        self.bytes += grown

    def pieces_left(self, run: Run) -> list[tuple[Any, Any]]:
        """(head, body) of the events of a run that are not answered for."""
        pieces = run.pieces
        return [
            (pieces[at], pieces[at + 1])
            for at in range(STRIDE * run.front, len(pieces), STRIDE)
            if pieces[at] is not None
        ]

    def spooled(self, run: Run, first: int, name: str) -> None:
        """The spool has the run's :meth:`pieces_left`, numbered from ``first``; the first is called ``name``.

        They are settled by that, if the spool settles; what was waiting is the spool's, what was written is still
        answered for.
        Oldest run first.
        """
        run.name = name
        flying = not (self.waiting and self.waiting[0] is run)
        if not flying:
            self.waiting.popleft()
        records = []
        for index in range(len(run.marks)):
            gone = run.pieces[STRIDE * index] is None
            records.append(-1 if gone else first)
            if not gone:
                first += 1
                # Written and unanswered: the spool has its bytes now, an empty head says so.
                run.pieces[STRIDE * index : STRIDE * index + STRIDE] = (b"", b"", b"")
        run.records = records
        self.events -= run.left
        self.bytes -= run.bytes
        run.bytes = 0
        cursor, run.cursor = run.cursor, None
        if cursor is not None:
            if not self.spool_settles:
                self._await_spool(cursor, first - 1)
            self._settle(cursor)
            run.marks = [cursor.shard] * len(run.marks)

    def _await_spool(self, cursor: Cursor, last: int) -> None:
        """Have a cursor wait until the spool has nothing any more up to number ``last``."""
        spans = cursor.spooled
        if not spans or last - spans[-1].first >= _SPAN:
            spans.append(_Span(last, cursor.reached))
        spans[-1].last = last
        self._spooling[cursor] = None

    def unspooled(self, front: int) -> None:
        """The broker has all spooled events before number ``front``."""
        for cursor in list(self._spooling):
            spans = cursor.spooled
            while spans and spans[0].last < front:
                mark = spans.popleft().mark
                if mark > cursor.settled:
                    cursor.settled = mark
                    self.moved = True
            if not spans:
                del self._spooling[cursor]
