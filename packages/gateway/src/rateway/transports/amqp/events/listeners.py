"""Observe whether a queue is bound to the names of our events.

A publish that finds no queue is confirmed like any other. So now and then one of each name is ``mandatory``:
the broker returns it, before its confirm, when no queue is bound. A name of which the last one came back is *accused*,
and asked about more often: the accusation ends with its next event that a queue takes, or some time after its last
return.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from rateway.delivery.port import Clock
from rateway.native.ledger import Run

__all__ = ["Listeners"]

# What is returned comes back in full: a name is asked about with an event of ordinary size.
_LARGEST: Final = 64 * 1024
# Names that are asked about, and remembered as without a queue. Discord has some eighty; names beyond are the sender's
# choice, and are not to fill the memory.
_MOST_NAMES: Final = 400
# Returned publishes of names beyond that are counted together.
_OTHER: Final = "other"


class Listeners:
    """The names that were asked about, and the answers."""

    def __init__(self, clock: Clock, lasts: float, asking: set[str]) -> None:
        """*lasts* is how long an accusation lasts, in seconds. *asking* holds the names to ask about once more."""
        # Names that a queue took when last asked about.
        self.routed: set[str] = set()
        # Returned publishes by name. Each stands for all of that name that were published without asking.
        self.returns: Counter[str] = Counter()
        self._clock = clock
        self._lasts = lasts
        self._asking = asking
        # Accused names, and when each came back last (monotonic seconds).
        self._accused: dict[str, float] = {}
        # Names asked about in this round; of those, questions without an answer, and names that came back.
        self._asked: set[str] = set()
        self._open: Counter[str] = Counter()
        self._returned: set[str] = set()

    @property
    def unrouted(self) -> set[str]:
        """Names that no queue took when last asked about, not longer ago than an accusation lasts."""
        return set(self._accused)

    def ask(self, name: str, run: Run, size: int) -> bool:
        """Return whether this publish of ``name`` (``size`` bytes) is to be mandatory, and note it in its run if so."""
        if size > _LARGEST:
            return False
        self._asking.discard(name)
        if name in self._asked or len(self._asked) >= _MOST_NAMES:
            return False
        self._asked.add(name)
        self._open[name] += 1
        if run.probes is None:
            run.probes = []
        run.probes.append(name)
        return True

    def returned(self, code: int, name: str, size: int) -> None:
        """Note a ``basic.return``: no queue is bound to that name."""
        self.returns[name if name in self.returns or len(self.returns) < _MOST_NAMES else _OTHER] += 1
        # What was asked before the connection broke is no answer to the newest question.
        if self._open[name] > 0:
            self._returned.add(name)

    def confirmed(self, names: list[str]) -> None:
        """Note that the run with these questions is confirmed: names that did not come back have a queue."""
        for name in names:
            self._open[name] -= 1
            if self._open[name] <= 0:
                del self._open[name]
            if name in self._returned:
                self._returned.discard(name)
                self.routed.discard(name)
                if name in self._accused or len(self._accused) < _MOST_NAMES:
                    self._accused[name] = self._clock.monotonic()
            else:
                self._accused.pop(name, None)
                if len(self.routed) < _MOST_NAMES:
                    self.routed.add(name)

    def next_round(self, names: Iterable[str]) -> None:
        """Ask about these and all new names once more."""
        self._asked.clear()
        self._asking.update(names)

    def ask_accused(self) -> None:
        """Ask about the accused names once more."""
        self._asked.difference_update(self._accused)
        self._asking.update(self._accused)

    def acquit(self) -> None:
        """End the accusations of names that have not come back for so long: nothing is known of them any more."""
        oldest = self._clock.monotonic() - self._lasts
        for name in [name for name, at in self._accused.items() if at < oldest]:
            del self._accused[name]

    def forget(self) -> None:
        """Forget the open questions: their channel is gone."""
        self._asked.clear()
        self._open.clear()
        self._returned.clear()
