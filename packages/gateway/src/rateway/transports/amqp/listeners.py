"""Observe whether a queue is bound to the names of our events.

A publish that finds no queue is confirmed like any other. So now and then one of each name is ``mandatory``:
the broker returns it, before its confirm, when nobody listens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from rateway.delivery.ledger import Run

__all__ = ["Listeners"]

# What is returned comes back in full: a name is asked about with an event of ordinary size.
_LARGEST: Final = 64 * 1024
# Names that are asked about, and remembered as without a queue. Discord has some eighty; names beyond are the sender's
# choice, and are not to fill the memory.
_MOST_NAMES: Final = 400
# Returned publishes of names beyond that are counted together.
_OTHER: Final = "other"


class Listeners:
    """Which names were asked about, and what the answers were.

    ``changed(name, routed)`` is called when an answer is new.
    """

    def __init__(self, changed: Callable[[str, bool], None]) -> None:
        self.unrouted: set[str] = set()
        # Names that a queue took when last asked about.
        self.routed: set[str] = set()
        # Returned publishes by name. Each stands for all of that name that were published without asking.
        self.returns: Counter[str] = Counter()
        self._changed = changed
        # Names asked about in this round; of those, questions without an answer, and names that came back.
        self._asked: set[str] = set()
        self._open: Counter[str] = Counter()
        self._returned: set[str] = set()

    def ask(self, name: str, run: Run, size: int) -> bool:
        """Whether this publish of ``name``, of ``size`` bytes, shall be mandatory; noted in its run if so."""
        if name in self._asked or size > _LARGEST or len(self._asked) >= _MOST_NAMES:
            return False
        self._asked.add(name)
        self._open[name] += 1
        if run.probes is None:
            run.probes = []
        run.probes.append(name)
        return True

    def returned(self, code: int, name: str, size: int) -> None:
        """``basic.return``."""
        self.returns[name if name in self.returns or len(self.returns) < _MOST_NAMES else _OTHER] += 1
        # What was asked before the connection broke is no answer to the newest question.
        if self._open[name] > 0:
            self._returned.add(name)

    def confirmed(self, names: list[str]) -> None:
        """The run with these questions is confirmed: what has not come back by now was taken by a queue."""
        for name in names:
            self._open[name] -= 1
            if self._open[name] <= 0:
                del self._open[name]
            routed = name not in self._returned
            self._returned.discard(name)
            if not routed:
                self.routed.discard(name)
            elif len(self.routed) < _MOST_NAMES:
                self.routed.add(name)
            if routed == (name in self.unrouted):
                if routed:
                    self.unrouted.discard(name)
                elif len(self.unrouted) < _MOST_NAMES:
                    self.unrouted.add(name)
                else:
                    continue
                self._changed(name, routed)

    def next_round(self) -> None:
        """Ask about every name once more."""
        self._asked.clear()

    def forget(self) -> None:
        """The channel is gone, and the answers with it."""
        self._asked.clear()
        self._open.clear()
        self._returned.clear()
