"""Ask the owner of a cluster, whichever member that is, how far it has come with the cluster's sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from rateway.fleet.leftovers import SessionPosition
from rateway.runtime.fleet.line import FleetLine

__all__ = ["OwnerPositions", "owner_of"]

# Seconds for an answer. It is asked again all the same.
_ANSWER_S: Final = 2.0


class PositionsQuestion(msgspec.Struct, frozen=True):
    """A question to the owner of a cluster. Its answer is a PositionsAnswer; nobody else answers."""

    cluster: int


class PositionsAnswer(msgspec.Struct, frozen=True):
    """All sessions that the owner knows of: those that live, and the latest that have ended."""

    positions: tuple[SessionPosition, ...]


def owner_of(cluster: int) -> str:
    """Return the routing key that every process which may run the cluster reads under."""
    return f"owner/cluster-{cluster}"


class OwnerPositions:
    """One process's part: asks, and answers for the clusters that it owns."""

    def __init__(self, line: FleetLine, own: Callable[[int], Sequence[SessionPosition] | None]) -> None:
        """*own* returns the positions of a cluster; None while this process does not own it."""
        self._line = line
        self._own = own
        line.handle(PositionsQuestion, self._answer)

    async def ask(self, cluster: int) -> Sequence[SessionPosition] | None:
        """Return what the owner says, which may be this process itself; None when there is none that answers."""
        found = self._own(cluster)
        if found is not None:
            return found
        question = PositionsQuestion(cluster)
        answer = await self._line.ask(owner_of(cluster), question, PositionsAnswer, _ANSWER_S)
        return None if answer is None else answer.positions

    def _answer(self, sender: str, question: PositionsQuestion) -> PositionsAnswer | None:
        found = self._own(question.cluster)
        return None if found is None else PositionsAnswer(tuple(found))
