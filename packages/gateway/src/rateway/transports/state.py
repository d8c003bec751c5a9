"""The state folder beside sessions and cache: the lock, the ledger of identifies, fatal ends."""

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from rateway.fleet.membership import is_member_of_host, member_name
from rateway.transports.folder import FolderRefused, make_below, open_file, open_folder
from rateway_protocol.discord.envelope import FAILURES

__all__ = ["FatalRecord", "StateDir", "StateError", "boot_id", "refuse_foreign", "try_folder"]

LOCK = "lock"
LEDGER = "identifies.json"
FATAL = "fatal.json"
SALT = "salt"
FORMER_SALTS = "former-salts"
SALT_BYTES = 32
# Of the newest salts that this folder had before.
MAX_FORMER_SALTS = 8
MEMBER = "member"
END_SESSIONS = "end-sessions"
# What was fatal with some other settings is of no use for long; the newest are kept.
MAX_FATAL = 16
# The largest of these files, the ledger of a bot with thousands of shards, is some hundred kilobytes.
MAX_FILE_BYTES = 64 << 20

# A disk that is full today may have room tomorrow, without a change of the configuration.
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
    """The fatal end of a gateway with these settings.

    ``code`` is Discord's close code or 401 for REST, ``wall`` the time in seconds since 1970.
    """

    code: int
    meaning: str
    help: str
    wall: float


def boot_id() -> str:
    """Return a name of this boot of the machine; monotonic times of one boot can be compared. Empty where there is
    none.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class StateDir:
    """The state folder, of which everything is opened below the folder that was judged at first, and no link followed.

    Made with :meth:`open`; closing it gives up the lock. The lock is the kernel's (``flock``): it ends with the process
    that holds it, however that dies.
    """

    def __init__(self, path: Path, folder: int, lock_file: int) -> None:
        self.path = path
        self._folder = folder
        self._lock_file = lock_file
        self.salt_is_new = False
        """Whether the salt was made by this process: nothing that was written down before can be told as this bot's."""
        self._locked = False

    @classmethod
    def open(cls, path: Path) -> StateDir:
        """Make the folder (0700) or take the one that is there, and check that it can be written.

        Raises :class:`StateError` also for a folder that others may write, or that is another user's.
        """
        path = path.expanduser()
        try:
            folder, _ = open_folder(path)
            try:
                lock_file = open_file(folder, LOCK, os.O_RDWR | os.O_CREAT, path)
                try:
                    cls._prove_writable(folder)
                except OSError:
                    os.close(lock_file)
                    raise
            except OSError:
                os.close(folder)
                raise
        except OSError as error:
            raise fault(path, error) from None
        return cls(path, folder, lock_file)

    @classmethod
    @contextlib.contextmanager
    def tried(cls, path: Path) -> Iterator[StateDir]:
        """The folder as :meth:`open` gives it; one that was not there is taken away again at the end."""
        with _taken_away_again(path.expanduser()) as made, cls.open(path) as state:
            yield state
            # A gateway that began in it meanwhile has the lock.
            if made and state.try_lock():
                for name in os.listdir(state._folder):
                    os.unlink(name, dir_fd=state._folder)

    @classmethod
    def visit(cls, path: Path) -> StateDir | None:
        """Return the folder of a gateway that may be another user's, to speak to that gateway: nothing in it is
        trusted.

        None where no gateway has ever run. Raises :class:`StateError`.
        """
        path = path.expanduser()
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return cls(path, folder, open_file(folder, LOCK, os.O_RDWR, path))
            except OSError:
                os.close(folder)
                raise
        except FileNotFoundError:
            return None
        except OSError as error:
            raise fault(path, error) from None

    @staticmethod
    def _prove_writable(folder: int) -> None:
        probe = f".probe-{os.getpid()}-{secrets.token_hex(4)}"
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            os.write(descriptor, b"rateway")
        finally:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(probe, dir_fd=folder)

    # The lock

    @classmethod
    def shared(cls, path: Path) -> StateDir:
        """Return the folder for a runner, whose inherited copy of the lock holds it as long as the runner lives.

        Its records may be read; the lock is not taken and not given up. Raises :class:`StateError`.
        """
        path = path.expanduser()
        try:
            folder, _ = open_folder(path)
        except OSError as error:
            raise fault(path, error) from None
        return cls(path, folder, -1)

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
        try:
            descriptor = open_file(self._folder, LOCK, os.O_RDWR, self.path)
        except OSError as error:
            raise fault(self.path, error) from None

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

        # A daemon: a process that gets a signal to stop while it waits must not stay for the thread.
        threading.Thread(target=wait, name="state-lock", daemon=True).start()
        try:
            await done
        except asyncio.CancelledError:
            if not done.cancelled():
                os.close(descriptor)
            raise
        except OSError as error:
            os.close(descriptor)
            raise fault(self.path, error) from None
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
        """Return the pid of the gateway that holds the lock, ``None`` when none does (or it has not written it yet)."""
        if not self._locked:
            try:
                descriptor = open_file(self._folder, LOCK, os.O_RDWR, self.path)
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

    def lock_owner(self) -> int:
        """Return the user (uid) that made the lock's file: the gateway that holds it runs as that one."""
        return os.fstat(self._lock_file).st_uid

    # The ledger of identifies

    def read_ledger(self) -> bytes | None:
        """Return the ledger of identifies as last written, or ``None``."""
        return self.read(LEDGER)

    def write_ledger(self, ledger: bytes) -> None:
        """Replace the ledger; it is on the disk when this returns (blocks). Raises :class:`StateError`."""
        self.write(LEDGER, ledger)

    # What was fatal

    def fingerprint(self, *parts: str) -> str:
        """Return a hash of settings, keyed with a salt of this folder; nothing of them can be read back from it."""
        return _fingerprint(self.salt(), parts)

    @staticmethod
    def fingerprint_with(salt: bytes, *parts: str) -> str:
        """Return :meth:`fingerprint` as it is with another salt."""
        return _fingerprint(salt, parts)

    def salt(self) -> bytes:
        """Return this folder's salt, which is made if there is none. Raises :class:`StateError`."""
        salt = self.read(SALT)
        if salt is None or len(salt) < SALT_BYTES:
            salt = secrets.token_bytes(SALT_BYTES)
            self.write(SALT, salt)
            self.salt_is_new = True
        return salt

    def take_salt(self, salt: bytes) -> None:
        """Take the salt of a fleet for this folder's own. The former one is kept: what was written down with it is
        told as this bot's by :meth:`former_fingerprints`. Raises :class:`StateError`."""
        own = self.salt()
        if own == salt:
            return
        former = [own, *(each for each in self._former_salts() if each not in (own, salt))]
        self.write(FORMER_SALTS, msgspec.json.encode(former[:MAX_FORMER_SALTS]))
        self.write(SALT, salt)

    def former_fingerprints(self, *parts: str) -> list[str]:
        """Return :meth:`fingerprint` as it was with the salts that this folder had before."""
        return [_fingerprint(salt, parts) for salt in self._former_salts()]

    def _former_salts(self) -> list[bytes]:
        data = self.read(FORMER_SALTS)
        try:
            return msgspec.json.decode(data, type=list[bytes]) if data else []
        except FAILURES:
            return []

    # Who this is in a fleet

    def member(self, host: str) -> str:
        """Return the name of the gateway of this folder among the members of a fleet. It is made on the first call,
        and again on another host: the folder was copied there. Raises :class:`StateError`."""
        data = self.read(MEMBER)
        name = "" if data is None else data.decode("utf-8", "replace").strip()
        if not is_member_of_host(name, host):
            name = member_name(host, secrets.token_hex(3))
            self.write(MEMBER, f"{name}\n".encode())
        return name

    def fatal(self, fingerprint: str) -> FatalRecord | None:
        """Return the fatal end with the settings of that fingerprint; None without one."""
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
            os.unlink(FATAL, dir_fd=self._folder)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise fault(self.path, error) from None
        return True

    def _fatal(self) -> dict[str, FatalRecord]:
        data = self.read(FATAL)
        try:
            return msgspec.json.decode(data, type=dict[str, FatalRecord]) if data else {}
        except FAILURES:
            return {}

    # How the next stop is meant

    def request_end_sessions(self) -> None:
        """Ask the running gateway to end its sessions at its next stop. Raises :class:`StateError`."""
        self.write(END_SESSIONS, b"")

    def take_end_sessions(self) -> bool:
        """Whether that was asked for; the request is used up."""
        try:
            os.unlink(END_SESSIONS, dir_fd=self._folder)
        except OSError:
            return False
        return True

    # Files and folders

    def folder_below(self, *names: str) -> Path:
        """Make or take a folder below this one, whose files no other user may plant; return its path.
        Raises OSError.
        """
        return make_below(self.path, *names)

    def read(self, name: str) -> bytes | None:
        """Return the file *name* of the folder, ``None`` when there is none. Raises :class:`StateError`."""
        try:
            descriptor = open_file(self._folder, name, os.O_RDONLY, self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise fault(self.path, error) from None
        try:
            parts = []
            room = MAX_FILE_BYTES
            while part := os.read(descriptor, room):
                parts.append(part)
                room -= len(part)
            return b"".join(parts)
        except OSError as error:
            raise fault(self.path, error) from None
        finally:
            os.close(descriptor)

    def write(self, name: str, data: bytes) -> None:
        """Replace a file as a whole: a reader, and a start after a crash, find the old or the new one.

        It is on the disk when this returns (blocks). Raises :class:`StateError`.
        """
        fresh = f".{name}.new"
        try:
            # What a crash left, or a link that another user planted: neither is written to.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=self._folder)
            descriptor = open_file(self._folder, fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self.path)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(fresh, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            os.fsync(self._folder)
        except OSError as error:
            raise fault(self.path, error) from None

    def close(self) -> None:
        """Give up the lock."""
        if self._lock_file >= 0:
            if self._locked:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._lock_file, 0)
            os.close(self._lock_file)
            self._lock_file = -1
            self._locked = False
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _fingerprint(salt: bytes, parts: tuple[str, ...]) -> str:
    digest = hmac.new(salt, digestmod=hashlib.sha256)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def refuse_foreign(path: Path, setting: str) -> None:
    """Raise :class:`StateError` for a folder that others may write, or that is another user's.

    One that cannot be made or opened just now is no fault here: the part that uses it reports it.
    """
    try:
        descriptor, _ = open_folder(path.expanduser())
    except FolderRefused as error:
        raise fault(path, error, setting) from None
    except OSError:
        return
    os.close(descriptor)


def try_folder(path: Path, setting: str) -> None:
    """Open a folder, or make it and take it away again. Raises :class:`StateError` when it cannot be used."""
    path = path.expanduser()
    with _taken_away_again(path):
        try:
            descriptor, _ = open_folder(path)
        except OSError as error:
            raise fault(path, error, setting) from None
        os.close(descriptor)


@contextlib.contextmanager
def _taken_away_again(path: Path) -> Iterator[bool]:
    """Take away at the end what of a folder was not there, if it is empty then; whether anything was not."""
    missing = []
    above = path.absolute()
    while not os.path.lexists(above):
        missing.append(above)
        above = above.parent
    try:
        yield bool(missing)
    finally:
        # Another process may use it by now.
        with contextlib.suppress(OSError):
            for folder in missing:
                folder.rmdir()


def fault(path: Path, error: OSError, setting: str = "STATE_DIR") -> StateError:
    """Why a folder that a setting names cannot be used, and what to do."""
    what = (
        f"the {'state folder' if setting == 'STATE_DIR' else f'folder of {setting},'} {path} cannot be used"
    )
    name = error.strerror or str(error)
    if isinstance(error, FolderRefused):
        where = "" if error.filename == str(path) else f"{error.filename}: "
        return StateError(f"{what} ({where}{name}); {error.advice}")
    give = f"give it to the user that runs the gateway, or set {setting} to a folder that it may write"
    advice = {
        errno.EACCES: give,
        errno.EPERM: give,
        errno.EROFS: f"the disk is mounted read-only: mount it for writing, or set {setting} to a folder elsewhere",
        errno.ENOSPC: f"the disk is full: make room, or set {setting} to a folder elsewhere",
        errno.EDQUOT: f"the quota is used up: make room, or set {setting} to a folder elsewhere",
        errno.ENOTDIR: f"a part of the path is a file: set {setting} to a folder",
        errno.EEXIST: f"it is a file: set {setting} to a folder",
    }.get(
        error.errno or 0,
        f"the gateway keeps there what a restart must know: set {setting} to a folder that works",
    )
    return StateError(f"{what} ({name}); {advice}", passing=error.errno in PASSING)
