"""
The destinations of an access log: a file, standard output, the system's log.

The reactor's thread calls `open` at the start.  The writer's thread calls all other methods, and
only this thread may block.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import sys
import time
from typing import Protocol

from evproxy.escape import escaped

DEV_LOG = "/dev/log"
"""The socket on which the system's log receives datagrams."""

_PIPE_BUF = select.PIPE_BUF
_MODE = 0o640
_DAEMON_INFO = 3 << 3 | 6
"""Facility and severity (RFC 3164, 4.1.1)."""


class Destination(Protocol):
    """An object that writes lines somewhere."""

    @property
    def name(self) -> str:
        """The name of the destination in messages."""

    def open(self) -> None:
        """
        Open the destination for writing.

        :raises OSError: if the destination cannot be opened.
        """

    def reopen(self) -> bool:
        """
        Open the name again; return whether it is another file than before.

        :raises OSError: if the name cannot be opened; the old file stays open for writing.
        """

    def ready(self, seconds: float) -> bool:
        """Wait at most `seconds` until a write would succeed or fail at once; return whether."""

    def write(self, lines: bytes, start: int) -> int:
        """
        Write some of `lines`, from `start` on; return how many bytes were written.

        :raises OSError: if no byte could be written.
        """

    def close(self) -> None:
        """Close the destination; no more lines follow."""


class StandardOutput:
    """
    The standard output that the process had at its start, whatever replaces `sys.stdout` later.

    Other code may write there too.  So this class does not change the blocking mode.  To a pipe,
    it writes whole lines of at most `PIPE_BUF` bytes at a time, which stay in one piece.
    """

    name = "standard output"

    def __init__(self) -> None:
        self._descriptor = -1
        self._is_file = False
        self._poll = select.poll()

    def open(self) -> None:
        self._use(self._opened())

    def reopen(self) -> bool:
        return False

    def ready(self, seconds: float) -> bool:
        return self._is_file or bool(self._poll.poll(seconds * 1000))

    def write(self, lines: bytes, start: int) -> int:
        end = len(lines)
        if not self._is_file and end - start > _PIPE_BUF:
            end = lines.rfind(b"\n", start, start + _PIPE_BUF) + 1
            if not end:
                end = lines.index(b"\n", start) + 1
        with memoryview(lines) as view:
            return os.write(self._descriptor, view[start:end])

    def close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def _opened(self) -> int:
        if sys.__stdout__ is None:
            raise OSError(0, "there is none")
        return os.dup(sys.__stdout__.fileno())

    def _use(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)


class LogFile(StandardOutput):
    """A file: created if it does not exist, and appended to.  A FIFO must have a reader."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path, self.name = path, escaped(path)

    def reopen(self) -> bool:
        before, after = self._descriptor, self._opened()
        other = not os.path.samestat(os.fstat(before), os.fstat(after))
        self._use(after)
        os.close(before)
        return other

    def _opened(self) -> int:
        how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(self._path, how, _MODE)


class SystemLog:
    """
    The system's log: each line is a datagram of facility ``daemon`` and severity ``info``.

    :param address: the path of the log's socket.
    """

    def __init__(self, address: str = DEV_LOG) -> None:
        self.name = address
        self._socket: socket.socket | None = None

    def open(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.connect(self.name)
        except BaseException:
            sock.close()
            raise
        self._socket = sock

    def reopen(self) -> bool:
        """Do nothing: `write` replaces a datagram socket that fails."""
        return False

    def ready(self, seconds: float) -> bool:
        if self._socket is None:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))

    def write(self, lines: bytes, start: int) -> int:
        if self._socket is None:
            self.open()
        assert self._socket is not None
        end = lines.index(b"\n", start)
        # The format of glibc, without the host (RFC 3164, 4.1).
        when = time.strftime("%b %e %H:%M:%S")
        header = f"<{_DAEMON_INFO}>{when} evproxy[{os.getpid()}]: ".encode()
        try:
            self._socket.send(header + lines[start:end])
        except BlockingIOError:
            raise
        except OSError:
            # The system's log restarted: another socket has this name now.
            self.close()
            raise
        return end + 1 - start

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
