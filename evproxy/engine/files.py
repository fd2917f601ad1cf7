"""
Whole files that users name: read with a bound, and without waiting for the writer of a FIFO.

All of this may block: call it where nothing waits, or in a thread.
"""

from __future__ import annotations

import os
import stat

from attrs import frozen

from evproxy.errors import EvproxyError

Signature = tuple[int, ...]
"""What differs once a file has changed, or another file is in its place."""


class UnusableFile(EvproxyError):
    """It is no regular file, or longer than its reader accepts."""


@frozen
class Content:
    """
    The bytes of a file.

    `before` and `after` are its signatures at the begin and at the end of the read, and `changed`
    is when it was last written, in seconds since 1970.
    """

    data: bytes
    before: Signature
    after: Signature
    changed: float


def read_whole(path: str, most: int) -> Content:
    """
    Read the file at `path`, which has at most `most` bytes.

    :raises OSError: if it cannot be read.
    :raises UnusableFile: if it is not a regular file, or is longer.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise UnusableFile("it is not a regular file")
        data = file.read(most + 1)
        after = os.fstat(file.fileno())
    if len(data) > most:
        raise UnusableFile(f"it is longer than {most} bytes")
    return Content(data, _of(before), _of(after), after.st_mtime)


def signature_of(path: str) -> Signature:
    """
    The signature of the file at `path` now.

    :raises OSError: if there is none.
    """
    return _of(os.stat(path))


def signature_or_error(path: str) -> object:
    """The signature of the file at `path` now; the number of the error if it has none."""
    try:
        return signature_of(path)
    except OSError as error:
        return error.errno


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _of(status: os.stat_result) -> Signature:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
