"""
The path of a UNIX listener: when it may be taken, who may connect, and when it is removed.

Whether a path is in use is asked of the socket there, by connecting to it.  The process number
in a lock file cannot tell: in a container, the new process has the number of the old one.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from attrs import frozen
from twisted.logger import Logger

from evproxy.errors import SettingsError

ATTEMPTS = 3
"""How often the claim on a path is tried while others who had it remove its file."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""The errors of flock(2) that say: this file system has no locks."""

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISREG, "a regular file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
)

_LARGEST_ID = 2**32 - 2
"""The largest number of a user or a group; the next one means: no change (chown(2))."""

_log = Logger()

Mark = tuple[int, int]
"""What tells one file from another, under whatever path: its device and inode."""


@frozen
class Permissions:
    """
    Who may connect to a path: its mode, and the numbers of its user and its group.

    `mode` of ``None``: as the endpoint description says.  `user` and `group` of -1: those of
    the process.
    """

    mode: int | None = None
    user: int = -1
    group: int = -1


AS_DESCRIBED = Permissions()
"""Nothing but what the endpoint description says."""


def permissions(mode: str, user: str, group: str) -> Permissions:
    """
    The `Permissions` that the settings ``unix_mode``, ``unix_user`` and ``unix_group`` mean.

    :param mode: octal digits; empty for that of the endpoint description.
    :param user, group: a name or a number; empty for that of the process.
    :raises SettingsError: if there is no such user or group.
    """
    return Permissions(
        int(mode, 8) if mode else None,
        _number("unix_user", "user", user, lambda name: pwd.getpwnam(name).pw_uid),
        _number("unix_group", "group", group, lambda name: grp.getgrnam(name).gr_gid),
    )


def _number(setting: str, what: str, given: str, look_up: Callable[[str], int]) -> int:
    if not given:
        return -1
    if given.isascii() and given.isdigit() and len(given) <= len(str(_LARGEST_ID)):
        number = int(given)
        if number <= _LARGEST_ID:
            return number
    with suppress(KeyError, ValueError):
        return look_up(given)
    raise SettingsError(f"{setting}: there is no {what} {given!r}")


def in_file_system(path: bytes) -> bool:
    """Whether `path` is a file's; else it is an abstract name (unix(7)), or none yet."""
    return bool(path) and not path.startswith(b"\0")


def mark(path: bytes) -> Mark | None:
    """What tells the file at `path` from others; ``None`` if there is none."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def claimed(path: bytes) -> Iterator[None]:
    """
    While this lasts nobody else who asks here takes `path`, and there is nothing at it.

    A socket that was bound and does not listen yet looks like a stale one, so whoever is about
    to bind holds a lock (flock(2)) on a file beside the path.  A stale socket is removed only
    under that lock.  The kernel ends the lock with the process, however it ends.

    :raises OSError: with a message to be told, if the path cannot be taken.
    """
    claim = path + b".flock"
    descriptor = _locked(claim)
    try:
        _make_way(path)
        yield
    finally:
        # It is removed before it is unlocked: who opened it meanwhile notices.
        with suppress(OSError):
            os.unlink(claim)
        os.close(descriptor)


def _locked(claim: bytes) -> int:
    """A descriptor of the file `claim`, which holds the lock on it."""
    flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for _ in range(ATTEMPTS):
        try:
            descriptor = os.open(claim, flags, 0o644)
        except OSError as error:
            if os.path.lexists(claim):
                raise _in_the_way(claim, error.strerror) from error
            raise
        if _is_locked(descriptor, claim):
            return descriptor
        os.close(descriptor)
    raise OSError(
        errno.EADDRINUSE, "Address already in use: another process starts to listen there"
    )


def _is_locked(descriptor: int, claim: bytes) -> bool:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size:
        os.close(descriptor)
        raise _in_the_way(claim, "it is not evproxy's")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Without locks, two that start in the same instant may take a path from each other.
        return error.errno in _NO_LOCKS
    return mark(claim) == (found.st_dev, found.st_ino)


def _in_the_way(claim: bytes, why: str | None) -> OSError:
    return OSError(errno.EEXIST, f"{os.fsdecode(claim)} is in the way: {why}")


def _make_way(path: bytes) -> None:
    """Remove a stale socket at `path`, and nothing else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "a device")
        raise _in_use(f"{kind} is there, not a socket")
    answer = _answer(path)
    if answer is not None:
        raise _in_use(answer)
    if mark(path) == (found.st_dev, found.st_ino):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise OSError(
                error.errno, f"the stale socket there cannot be removed: {error.strerror}"
            ) from error
        _log.info(
            "A stale UNIX socket was removed, nobody listened there: {path}",
            path=os.fsdecode(path),
        )


def _answer(path: bytes) -> str | None:
    """What a connect to the socket at `path` says of who listens there; ``None``: nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except BlockingIOError:
            return "a process listens there, and its accept queue is full"
        except OSError as error:
            return f"it cannot be told whether a process listens there: {error.strerror}"
    return "a process listens there"


def _in_use(why: str) -> OSError:
    return OSError(errno.EADDRINUSE, f"Address already in use: {why}")


def remove_stale_lock(path: bytes) -> None:
    """
    Remove the lock that a listener of Twisted's left beside the `path` that is claimed.

    :raises OSError: if there is something else.
    """
    lock = path + b".lock"
    try:
        os.readlink(lock)
    except FileNotFoundError:
        return
    except OSError:
        raise _in_the_way(lock, "it is not a lock of Twisted's") from None
    os.unlink(lock)


def give(path: bytes, owner: Permissions) -> None:
    """
    Give the file at `path` its user and group.

    :raises OSError: with a message to be told, if this process may not.
    """
    if (owner.user, owner.group) == (-1, -1):
        return
    try:
        os.chown(path, owner.user, owner.group, follow_symlinks=False)
    except OSError as error:
        raise OSError(
            error.errno,
            f"the socket cannot be given its user or group: {error.strerror}",
        ) from error
