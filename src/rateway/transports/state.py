"""What must outlive the process, beside sessions and cache? The lock, the ledger of identifies, what was fatal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import hmac
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

__all__ = ["FatalRecord", "StateDir", "StateError", "boot_id"]

LOCK = "lock"
LEDGER = "identifies.json"
FATAL = "fatal.json"
SALT = "salt"
END_SESSIONS = "end-sessions"
# What was fatal with some other settings is of no use for long; the newest are kept.
MAX_FATAL = 16


# A disk that is full today may have room tomorrow, without anybody changing the configuration.
PASSING = frozenset({errno.ENOSPC, errno.EDQUOT})


class StateError(Exception):
    """The state folder cannot be used; the message says what is wrong and what to do.

    ``passing``: another start with the same settings may well succeed.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True, slots=True)
class FatalRecord:
    """What ended a gateway for good with these settings.

    ``code`` is Discord's close code or 401 for REST, ``wall`` the time in seconds since 1970.
    """

    code: int
    meaning: str
    help: str
    wall: float


def boot_id() -> str:
    """A name of this boot of the machine; monotonic times of one boot can be compared. Empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class StateDir:
    """The state folder, 0700. Made with :meth:`open`; closing it gives up the lock.

    The lock is the kernel's (``flock``): it ends with the process that holds it, however that dies.
    """

    def __init__(self, path: Path, lock_file: int) -> None:
        self.path = path
        self._lock_file = lock_file
        self._locked = False

    @classmethod
    def open(cls, path: Path) -> StateDir:
        """Make or take the folder and check that it can be written. Raises :class:`StateError`."""
        path = path.expanduser()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_uid == os.geteuid():
                path.chmod(0o700)
            lock_file = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                cls._prove_writable(path)
            except OSError:
                os.close(lock_file)
                raise
        except OSError as error:
            raise _fault(path, error) from None
        return cls(path, lock_file)

    @staticmethod
    def _prove_writable(path: Path) -> None:
        probe = path / f".probe-{os.getpid()}"
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b"rateway")
        finally:
            os.close(descriptor)
            probe.unlink(missing_ok=True)

    # The lock

    @classmethod
    def shared(cls, path: Path) -> StateDir:
        """The folder for a worker process, whose inherited copy of the lock holds it as long as the worker lives.

        Its records may be read; the lock is not taken and not given up.
        """
        return cls(path.expanduser(), -1)

    @property
    def lock_file(self) -> int:
        """The descriptor that holds the lock, for child processes to inherit."""
        return self._lock_file

    @property
    def locked(self) -> bool:
        """Whether this object holds the lock."""
        return self._locked

    def try_lock(self) -> bool:
        """Take the lock if it is free."""
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._own()
        return True

    async def lock(self, on_wait: Callable[[int | None], None]) -> None:
        """Take the lock; while another gateway holds it, call *on_wait* once with its pid and wait.

        It is taken over the moment it is free: a thread waits in the kernel, nothing is polled.
        """
        if self.try_lock():
            return
        on_wait(self.holder())
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        # Of its own, so that a wait that was given up can close it without touching ours.
        descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CLOEXEC)

        def tell(outcome: OSError | None) -> None:
            if done.done():  # given up meanwhile
                os.close(descriptor)
            elif outcome is None:
                done.set_result(None)
            else:
                done.set_exception(outcome)

        def wait() -> None:
            outcome: OSError | None = None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                outcome = error
            try:
                loop.call_soon_threadsafe(tell, outcome)
            except RuntimeError:  # the loop was closed meanwhile
                os.close(descriptor)

        # A daemon: a process that is told to stop while it waits must not stay for the thread.
        threading.Thread(target=wait, name="state-lock", daemon=True).start()
        try:
            await done
        except asyncio.CancelledError:
            if not done.cancelled():
                os.close(descriptor)
            raise
        except OSError as error:
            os.close(descriptor)
            raise _fault(self.path, error) from None
        os.close(self._lock_file)
        self._lock_file = descriptor
        self._own()

    def _own(self) -> None:
        self._locked = True
        os.ftruncate(self._lock_file, 0)
        os.pwrite(self._lock_file, f"{os.getpid()}\n".encode(), 0)
        # A request to the gateway before this one; it left without reading it.
        self.take_end_sessions()

    def holder(self) -> int | None:
        """The pid of the gateway that holds the lock, ``None`` when none does (or it has not written it yet)."""
        if not self._locked:
            try:
                descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                return None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                return None
            finally:
                os.close(descriptor)
        text = os.pread(self._lock_file, 32, 0).strip()
        return int(text) if text.isdigit() else None

    # The ledger of identifies

    def read_ledger(self) -> bytes | None:
        """The ledger of identifies as last written, or ``None``."""
        return self.read(LEDGER)

    def write_ledger(self, ledger: bytes) -> None:
        """Replace the ledger; it is on the disk when this returns (blocks). Raises :class:`StateError`."""
        self.write(LEDGER, ledger)

    # What was fatal

    def fingerprint(self, *parts: str) -> str:
        """A hash of settings, keyed with a salt of this folder; nothing of them can be read back from it."""
        salt = self.read(SALT)
        if salt is None or len(salt) < 32:
            salt = secrets.token_bytes(32)
            self.write(SALT, salt)
        digest = hmac.new(salt, digestmod=hashlib.sha256)
        for part in parts:
            data = part.encode()
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()

    def fatal(self, fingerprint: str) -> FatalRecord | None:
        """What was fatal with the settings of that fingerprint."""
        return self._fatal().get(fingerprint)

    def remember_fatal(self, fingerprint: str, record: FatalRecord) -> None:
        """Keep it, so that the same settings do not bother Discord again. Raises :class:`StateError`."""
        known = self._fatal()
        known[fingerprint] = record
        newest = sorted(known.items(), key=lambda item: item[1].wall)[-MAX_FATAL:]
        self.write(FATAL, msgspec.json.encode(dict(newest)))

    def forget_fatal(self) -> bool:
        """Forget what was fatal; whether there was anything."""
        try:
            (self.path / FATAL).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _fault(self.path, error) from None
        return True

    def _fatal(self) -> dict[str, FatalRecord]:
        data = self.read(FATAL)
        try:
            return msgspec.json.decode(data, type=dict[str, FatalRecord]) if data else {}
        except msgspec.DecodeError:
            return {}

    # How the next stop is meant

    def request_end_sessions(self) -> None:
        """Ask the running gateway to end its sessions at its next stop. Raises :class:`StateError`."""
        self.write(END_SESSIONS, b"")

    def take_end_sessions(self) -> bool:
        """Whether that was asked for; the request is used up."""
        try:
            (self.path / END_SESSIONS).unlink()
        except OSError:
            return False
        return True

    # Files

    def read(self, name: str) -> bytes | None:
        """The file *name* of the folder, ``None`` when there is none."""
        try:
            return (self.path / name).read_bytes()
        except OSError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Replace a file as a whole: a reader, and a start after a crash, find the old or the new one.

        It is on the disk when this returns (blocks). Raises :class:`StateError`.
        """
        fresh = self.path / f".{name}.new"
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(fresh, self.path / name)
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise _fault(self.path, error) from None

    def close(self) -> None:
        """Give up the lock."""
        if self._lock_file >= 0:
            if self._locked:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._lock_file, 0)
            os.close(self._lock_file)
            self._lock_file = -1
            self._locked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _fault(path: Path, error: OSError) -> StateError:
    name = error.strerror or str(error)
    advice = {
        errno.EACCES: "give it to the user that runs the gateway, or set STATE_DIR to a folder that it may write",
        errno.EPERM: "give it to the user that runs the gateway, or set STATE_DIR to a folder that it may write",
        errno.EROFS: "the disk is mounted read-only: mount it for writing, or set STATE_DIR to a folder elsewhere",
        errno.ENOSPC: "the disk is full: make room, or set STATE_DIR to a folder elsewhere",
        errno.EDQUOT: "the quota is used up: make room, or set STATE_DIR to a folder elsewhere",
        errno.ENOTDIR: "a part of the path is a file: set STATE_DIR to a folder",
        errno.EEXIST: "it is a file: set STATE_DIR to a folder",
    }.get(
        error.errno or 0,
        "the gateway keeps there what a restart must know: set STATE_DIR to a folder that works",
    )
    return StateError(
        f"the state folder {path} cannot be used ({name}); {advice}", passing=error.errno in PASSING
    )
