"""Folders whose files no other user may plant, read or replace: made private, judged before use, never left by a link.

A folder that this process makes is its owner's alone (0700). One that was there is taken as it is or refused: its mode
is its owner's business. Below it nothing is followed: a symbolic link in the place of a file or a folder is an error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

__all__ = [
    "CAREFUL",
    "FolderRefused",
    "make_below",
    "open_file",
    "open_folder",
    "refusal",
    "refuse_links",
]

# Opening never waits (for the other end of a pipe), never follows a link, and is not inherited by child processes.
CAREFUL = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Group write in a mode; what a volume's root needs that is meant for one of our groups.
GROUP_WRITES = stat.S_IWGRP | stat.S_IXGRP


class FolderRefused(OSError):
    """A folder or file that must not be used. ``strerror`` says what is wrong, ``advice`` what to do."""

    def __init__(self, wrong: str, advice: str, path: Path) -> None:
        super().__init__(errno.EPERM, wrong, str(path))
        self.advice = advice


def refusal(status: os.stat_result, *, user: int, groups: Collection[int]) -> tuple[str, str] | None:
    """Return why a folder must not be used by this user, and what to do about it; None when it may.

    Others than its owner and its own group may not write, and it has to be the user's own, or its group one of the
    user's with the right to write: that is how a volume's root is handed to a container (``fsGroup``).
    """
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IWOTH:
        return (
            f"every user may write into it, mode {mode:04o}",
            "take that right away (chmod o-w), or name a folder inside it, which the gateway makes for itself",
        )
    if status.st_uid == user or (status.st_gid in groups and mode & GROUP_WRITES == GROUP_WRITES):
        return None
    return (
        f"it belongs to {_user(status.st_uid)}, and this process runs as {_user(user)}",
        "run this as the user that it belongs to, or give it to the user that runs the gateway (chown)",
    )


def open_folder(path: Path) -> tuple[int, bool]:
    """Make or take a folder; its descriptor, and whether it was made.

    The path itself may be a link, if it is root's or ours. Raises :class:`FolderRefused`, or another OSError.
    """
    try:
        path.mkdir(mode=0o700, parents=True)
        made = True
    except FileExistsError:
        made = False
    link = os.lstat(path)
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (0, os.geteuid()):
        raise FolderRefused(
            f"it is a symbolic link of {_user(link.st_uid)}",
            "name the folder itself, or a link that belongs to root or to the user that runs the gateway",
            path,
        )
    # What was made a moment ago is no link.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if made else 0))
    with _closed_on_error(descriptor):
        _judge(descriptor, path, made)
    return descriptor, made


def make_below(root: Path, *names: str) -> Path:
    """Make or take the folder ``root``/names…, none of them a link and each fit for use; its path. Raises OSError."""
    descriptor, _ = open_folder(root)
    path = root
    try:
        for name in names:
            path = path / name
            try:
                os.mkdir(name, 0o700, dir_fd=descriptor)
                made = True
            except FileExistsError:
                made = False
            below = _open_below(descriptor, name, path)
            os.close(descriptor)
            descriptor = below
            _judge(descriptor, path, made)
    finally:
        os.close(descriptor)
    return path


def open_file(folder: int, name: str, flags: int, path: Path) -> int:
    """Open a regular file of an open folder, 0600 when it is made. ``path`` is for words.

    Raises :class:`FolderRefused` when a link, a pipe or a device stands in its place, or another OSError.
    """
    try:
        descriptor = os.open(name, flags | CAREFUL, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _no_file(path / name) from None
        raise
    with _closed_on_error(descriptor):
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _no_file(path / name)
    return descriptor


def refuse_links(folder: Path, *names: str) -> None:
    """Raise :class:`FolderRefused` when one of these is there and no regular file: for a library that opens paths."""
    for name in names:
        try:
            status = os.lstat(folder / name)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
            raise _no_file(folder / name)


def _open_below(folder: int, name: str, path: Path) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        # A link is not followed, and is then no folder.
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise FolderRefused(
            "a link or a file stands in the place of a folder",
            "take it away; CACHE_PATH names another place for sessions and cache",
            path,
        ) from None


def _judge(descriptor: int, path: Path, made: bool) -> None:
    if made:
        # Whatever the umask left of it.
        os.fchmod(descriptor, 0o700)
    found = refusal(os.fstat(descriptor), user=os.geteuid(), groups={os.getegid(), *os.getgroups()})
    if found is not None:
        raise FolderRefused(*found, path)


def _no_file(path: Path) -> FolderRefused:
    return FolderRefused(f"{path.name} is a link or no regular file", "take it away", path)


def _user(uid: int) -> str:
    """Return a user by name and number, as far as it has a name here."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


@contextlib.contextmanager
def _closed_on_error(descriptor: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise
