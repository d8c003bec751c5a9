"""How does a query reach its answer? The stores are read at one moment, the outcome becomes an answer or a fault."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from rateway.cache.policy import CachePolicy
from rateway.cache.queries import Found, Listing, Missing, Outcome, Situation, begin
from rateway.cache.view import View
from rateway.contract.errors import ErrorCode, Fault, Status
from rateway.contract.queries import Query
from rateway.transports.store.reader import StoreReader, StoreUnreadable

__all__ = ["Answer", "Queries"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the cache says: ``body`` is JSON, empty with :attr:`Status.NOT_FOUND`."""

    status: Status
    body: bytes


_MISSING = Answer(Status.NOT_FOUND, b"")


class _Moment:
    """The stores during one answer: a read transaction for each that is looked at."""

    def __init__(self, readers: Mapping[int, StoreReader], stack: ExitStack) -> None:
        self._readers = readers
        self._stack = stack
        self._views: dict[int, View] = {}

    @property
    def clusters(self) -> Sequence[int]:
        return list(self._readers)

    def view(self, cluster: int) -> View:
        view = self._views.get(cluster)
        if view is None:
            view = self._views[cluster] = self._stack.enter_context(self._readers[cluster].view())
        return view


class Queries:
    """Answers for every entity of the host, whichever cluster holds it.

    ``readers``: cluster → its store; may change while this lives. ``situation`` is asked anew for each query.
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

    def answer(self, query: Query) -> Answer | Fault:
        """Answer one query at once. Never raises; what a store cannot give is a :class:`Fault` that says why."""
        for found in self.steps(query):
            if found is not None:
                return found
        raise AssertionError("steps end with an answer")

    def steps(self, query: Query) -> Generator[Answer | Fault | None, None, None]:
        """Answer one query a little at a time: None while a list is not done, some half a millisecond each, at last
        the answer. All of it is one moment of the stores. Close it when the answer is not wanted any more."""
        try:
            with ExitStack() as stack:
                moment = _Moment(self.readers, stack)
                outcome = begin(query, moment, self._situation(), self._policy, self._wall())
                while isinstance(outcome, Listing):
                    found = outcome.step()
                    if found is None:
                        yield None
                    else:
                        outcome = found
            yield _spoken(outcome)
        except StoreUnreadable as error:
            yield Fault(ErrorCode.UNAVAILABLE, error.fault.words)
        # A row that cannot be read must not end the reader of a cluster: the worker is told, the log has the rest.
        except Exception as error:  # noqa: BLE001
            yield Fault(ErrorCode.INTERNAL, f"{query.type}: {type(error).__name__}: {error}")


def _spoken(outcome: Outcome) -> Answer | Fault:
    if isinstance(outcome, Found):
        return Answer(Status.OK, outcome.body)
    if isinstance(outcome, Missing):
        return _MISSING
    return Fault(ErrorCode(outcome.code), outcome.words)
