"""What must outlive the process, beside sessions and cache? The lock, the ledger of identifies, what was fatal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FatalRecord", "StateDir", "StateError"]


class StateError(Exception):
    """The state folder cannot be used; the message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class FatalRecord:
    """What ended a gateway for good with these settings: Discord's code (401 for REST), when, what to do."""

    code: int
    meaning: str
    help: str
    wall: float


class StateDir:
    """The state folder, 0700. Made with :meth:`open`; closing it gives up the lock."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> StateDir:
        """Make or take the folder and check that it can be written. Raises :class:`StateError`."""
        raise NotImplementedError

    def try_lock(self) -> bool:
        """Take the lock if it is free."""
        raise NotImplementedError

    async def lock(self, on_wait: Callable[[int | None], None]) -> None:
        """Take the lock; while another gateway holds it, call *on_wait* once with its pid and wait."""
        raise NotImplementedError

    def read_ledger(self) -> bytes | None:
        """The ledger of identifies as last written, or ``None``."""
        raise NotImplementedError

    def write_ledger(self, ledger: bytes) -> None:
        """Replace the ledger; it is on the disk when this returns (blocks). Raises :class:`StateError`."""
        raise NotImplementedError

    def fingerprint(self, *parts: str) -> str:
        """A keyed hash of settings; nothing of them can be read back from it."""
        raise NotImplementedError

    def fatal(self, fingerprint: str) -> FatalRecord | None:
        """What was fatal with the settings of that fingerprint."""
        raise NotImplementedError

    def remember_fatal(self, fingerprint: str, record: FatalRecord) -> None:
        """Keep it, so that the same settings do not bother Discord again."""
        raise NotImplementedError

    def forget_fatal(self) -> None:
        """Forget what was fatal."""
        raise NotImplementedError

    def request_end_sessions(self) -> None:
        """Ask the running gateway to end its sessions at its next stop."""
        raise NotImplementedError

    def take_end_sessions(self) -> bool:
        """Whether that was asked for; the request is used up."""
        raise NotImplementedError

    def close(self) -> None:
        """Give up the lock."""
        raise NotImplementedError
