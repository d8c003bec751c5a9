"""Answer queries from the stores: their outcome becomes an answer or a fault.

What is answered at once is read at one moment of the stores. A long answer is read a little at a time, each part at a
moment of its own: a read transaction that waited for it would keep LMDB from using any page again that was freed
meanwhile, for as long as more urgent queries come. Only an answer that names its position (``Listing.of_one_moment``)
holds its moment until it is done; the queue takes no other query meanwhile (``LongAnswer.holds``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import lmdb
import msgspec
from rateway.cache.policy import CachePolicy
from rateway.cache.queries import begin
from rateway.cache.query_context import Found, Listing, Missing, Refusal, Situation
from rateway.cache.reader import View
from rateway.transports.store.reader import StoreReader, StoreUnreadable
from rateway.transports.store.tables import LmdbReading
from rateway_protocol.contract.errors import ErrorCode, Fault, Status
from rateway_protocol.contract.queries import Query

__all__ = ["Answer", "LongAnswer", "Moment", "Queries"]


class Answer(msgspec.Struct, frozen=True):
    """The cache's answer: ``body`` is JSON, empty with :attr:`Status.NOT_FOUND`."""

    status: Status
    body: bytes


_MISSING = Answer(Status.NOT_FOUND, b"")


class Moment:
    """The stores as they are now, for as many queries as are answered together: a read transaction for each store
    that is looked at. They end with :meth:`close`; :meth:`reopen` begins others, at another moment, to go on reading.
    """

    def __init__(
        self, readers: Mapping[int, StoreReader], situation: Situation, policy: CachePolicy, wall: float
    ) -> None:
        self._readers = readers
        self.clusters: Sequence[int] = tuple(readers)
        self._situation = situation
        self._policy = policy
        self._wall = wall
        self._views: dict[int, View] = {}
        self._transactions: list[lmdb.Transaction] = []
        self.is_open = True
        # Answers that read on in this moment after the queries of its turn.
        self._holders = 0
        self._is_over = False

    def view(self, cluster: int) -> View:
        """A cluster's store. Raises StoreUnreadable."""
        view = self._views.get(cluster)
        if view is None:
            view, txn = self._readers[cluster].begin()
            self._views[cluster] = view
            self._transactions.append(txn)
        return view

    def answer(self, query: Query) -> Answer | Fault | LongAnswer:
        """Answer one query, or begin to. Never raises; what a store cannot give is a :class:`Fault` with the reason."""
        try:
            outcome = begin(query, self, self._situation, self._policy, self._wall)
            if isinstance(outcome, Listing):
                listing, found = outcome, outcome.step()
                if found is None:
                    self._holders += listing.of_one_moment
                    return LongAnswer(self, query, listing)
                outcome = found
        # A row that cannot be read must not end a cluster's reader: the worker gets an error, the log has the rest.
        except Exception as error:  # noqa: BLE001
            return _fault_of(query, error)
        return _spoken(outcome)

    def reopen(self) -> None:
        """Read on where it was closed, in the stores as they are now.

        Raises StoreUnreadable when a store is another one by now.
        """
        self.is_open = True
        for cluster, view in self._views.items():
            self._transactions.append(self._readers[cluster].go_on(view))

    def release(self) -> None:
        """An answer that held the moment is done, or not wanted any more."""
        self._holders -= 1
        if self._is_over:
            self.close()

    def close(self) -> None:
        """End the read transactions; while an answer that was begun holds them, once that is done."""
        self._is_over = True
        if self._holders:
            return
        self.is_open = False
        for view in self._views.values():
            if isinstance(view.reading, LmdbReading):
                view.reading.rest()
        for txn in self._transactions:
            txn.abort()
        self._transactions.clear()


class LongAnswer:
    """An answer that is read a little at a time, some half a millisecond each. It holds no transaction in between, but
    for one that is :attr:`holds`.
    """

    def __init__(self, moment: Moment, query: Query, listing: Listing) -> None:
        self._moment = moment
        self._query = query
        self._listing = listing
        self._is_closed = False

    @property
    def size(self) -> int:
        """Bytes read so far and not taken yet."""
        return self._listing.size

    @property
    def holds(self) -> bool:
        """Whether all of it is read at one moment of the stores, which :meth:`close` ends."""
        return self._listing.of_one_moment

    def take(self) -> bytes:
        """Return what was read so far; the rest of the answer comes without it."""
        return self._listing.take()

    def step(self) -> Answer | Fault | None:
        """Go on; None while it is not done."""
        moment, was_open = self._moment, self._moment.is_open
        try:
            if not was_open:
                moment.reopen()
                if not self._listing.is_there():
                    # The guild has gone, or come again under another number: what was read of it is no answer any more.
                    return self._again()
            found = self._listing.step()
        except Exception as error:  # noqa: BLE001  # as above
            return _fault_of(self._query, error)
        finally:
            if not was_open:
                moment.close()
        return None if found is None else _spoken(found)

    def _again(self) -> Answer | Fault | None:
        outcome = self._moment.answer(self._query)
        if isinstance(outcome, LongAnswer):
            self._listing = outcome._listing
            return None
        return outcome

    def close(self) -> None:
        """It is done, or not wanted any more."""
        if self.holds and not self._is_closed:
            self._is_closed = True
            self._moment.release()


class Queries:
    """Answers for every entity of the host, whichever cluster holds it.

    ``readers``: cluster → its store; may change while this lives. ``situation`` is called once for each moment.
    ``wall`` is Unix seconds, for time-outs of members.
    """

    def __init__(
        self,
        readers: Mapping[int, StoreReader],
        policy: CachePolicy,
        situation: Callable[[], Situation] = Situation,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.readers = readers
        self._policy = policy
        self._situation = situation
        self._wall = wall

    def moment(self) -> Moment:
        """Return the stores as they are now, to be closed."""
        return Moment(self.readers, self._situation(), self._policy, self._wall())

    def answer(self, query: Query) -> Answer | Fault:
        """Answer one query at once. Never raises; what a store cannot give is a :class:`Fault` with the reason."""
        moment = self.moment()
        found = moment.answer(query)
        if isinstance(found, LongAnswer):
            long, answer = found, None
            while answer is None:
                answer = long.step()
            long.close()
            found = answer
        moment.close()
        return found


def _fault_of(query: Query, error: Exception) -> Fault:
    if isinstance(error, StoreUnreadable):
        return Fault(ErrorCode.UNAVAILABLE, error.fault.words)
    if isinstance(error, lmdb.Error):
        return Fault(ErrorCode.UNAVAILABLE, f"the store cannot be read: {error}")
    return Fault(ErrorCode.INTERNAL, f"{query.type}: {type(error).__name__}: {error}")


def _spoken(outcome: Found | Missing | Refusal) -> Answer | Fault:
    if isinstance(outcome, Found):
        return Answer(Status.OK, outcome.body)
    if isinstance(outcome, Missing):
        return _MISSING
    return Fault(ErrorCode(outcome.code), outcome.words)
