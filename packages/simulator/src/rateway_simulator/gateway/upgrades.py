"""Answer upgrade requests while a fault of dialling is active."""

from __future__ import annotations


class Upgrades:
    """The active faults of dialling. A count is the number of dials still to be hit; 0 is no limit."""

    def __init__(self) -> None:
        self.status = 0
        self.retry_after: float | None = None
        self.until = 0.0
        self.count = 0
        self.hello: str | None = None
        self.hello_until = 0.0
        self.hello_count = 0

    def answer(self, now: float) -> int:
        """The status that this dial is refused with, 0 for none."""
        if not self.status:
            return 0
        if now >= self.until:
            self.status = 0
            return 0
        status = self.status
        if self.count:
            self.count -= 1
            if not self.count:
                self.status = 0
        return status

    def instead_of_hello(self, now: float) -> str | None:
        """Return the fault that replaces this connection's Hello."""
        if self.hello is None or now >= self.hello_until:
            self.hello = None
            return None
        hello = self.hello
        if self.hello_count:
            self.hello_count -= 1
            if not self.hello_count:
                self.hello = None
        return hello
