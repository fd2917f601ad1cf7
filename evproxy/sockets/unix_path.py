"""
The path of a UNIX listener: when it may be taken, who may connect, and when it is removed.

To find out whether a path is in use, evproxy connects to the socket there.  The process number in
a lock file is no answer: in a container, the new process has the number of the old one.
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
"""How often the claim on a path is tried while other processes remove the lock file."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""The errors of flock(2) on a file system without locks."""

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISREG, "a regular file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
)

_LARGEST_ID = 2**32 - 2
"""The largest number of a user or a group; one more means "no change" (chown(2))."""

_log = Logger()

Mark = tuple[int, int]
"""The identity of a file, whatever its path: its device and inode."""


@frozen
class Permissions:
    """
    Who may connect to a path: its mode, and the numbers of its user and its group.

    `mode` is ``None``: as the endpoint description says.  `user` or `group` is -1: that of the
    process.
    """

    mode: int | None = None
    user: int = -1
    group: int = -1


AS_DESCRIBED = Permissions()
"""The permissions that the endpoint description says."""


def permissions(mode: str, user: str, group: str) -> Permissions:
    """
    Return the `Permissions` for the settings ``unix_mode``, ``unix_user`` and ``unix_group``.

    :param mode: octal digits; empty: the mode of the endpoint description.
    :param user, group: a name or a number; empty: that of the process.
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
    """Whether `path` is in the file system; if not, it is an abstract name (unix(7)) or empty."""
    return bool(path) and not path.startswith(b"\0")


def mark(path: bytes) -> Mark | None:
    """Return the identity of the file at `path`; ``None`` if there is no file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def claimed(path: bytes) -> Iterator[None]:
    """
    Claim `path` for the ``with`` block: no other evproxy takes it, and nothing is at the path.

    A socket that is bound and does not listen yet looks like a stale socket.  So evproxy holds a
    lock (flock(2)) on a file beside the path while it binds, and removes a stale socket only under
    that lock.  The kernel releases the lock when the process ends, however it ends.

    :raises OSError: with a message for the user, if the path cannot be taken.
    """
    claim = path + b".flock"
    descriptor = _locked(claim)
    try:
        _make_way(path)
        yield
    finally:
        # Remove the file before the unlock: a process that has opened it meanwhile notices.
        with suppress(OSError):
            os.unlink(claim)
        os.close(descriptor)


def _locked(claim: bytes) -> int:
    """Lock the file `claim`; return the descriptor that holds the lock."""
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
        # Without locks, two processes that start at the same time may both take the path.
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
    """Connect to the socket at `path`; return why it is in use, ``None`` if nobody listens."""
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
    Remove the lock that a listener of Twisted's left beside `path`, which is claimed.

    :raises OSError: if something other than a lock is there.
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

    :raises OSError: with a message for the user, if this process is not allowed to.
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
