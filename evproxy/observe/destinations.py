"""
Where the lines of an access log go: a file, standard output, the system's log.

`open` is called at the start, in the reactor's thread; everything else in the writer's, which
alone may wait.
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
"""Where the system's log takes datagrams."""

_PIPE_BUF = select.PIPE_BUF
_MODE = 0o640
_DAEMON_INFO = 3 << 3 | 6
"""Facility and severity (RFC 3164, 4.1.1)."""


class Destination(Protocol):
    """Takes lines."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def open(self) -> None:
        """
        Make ready to write.

        :raises OSError: if that cannot be.
        """

    def reopen(self) -> bool:
        """
        Open what has its name now; whether that is another file than before.

        :raises OSError: if that cannot be; the one before is still written to.
        """

    def ready(self, seconds: float) -> bool:
        """Wait until some lines can be written, or have failed to be, at most for `seconds`."""

    def write(self, lines: bytes, start: int) -> int:
        """
        Write some of `lines` from `start` on; how many bytes of them.

        :raises OSError: if none could be.
        """

    def close(self) -> None:
        """Nothing more comes."""


class StandardOutput:
    """
    What was standard output when the process began, whatever is logged into `sys.stdout`.

    Others may write there too.  So it is left as blocking as it is, and a pipe gets as many
    whole lines at a time as it takes in one piece.
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
    """A file, which is made if there is none, and appended to.  A FIFO must have a reader."""

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

    :param address: the path of its socket.
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
        """Nothing to do: a datagram socket that fails is closed, and made anew."""
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
        # As glibc has it, without the host (RFC 3164, 4.1).
        when = time.strftime("%b %e %H:%M:%S")
        header = f"<{_DAEMON_INFO}>{when} evproxy[{os.getpid()}]: ".encode()
        try:
            self._socket.send(header + lines[start:end])
        except BlockingIOError:
            raise
        except OSError:
            # Whoever logs the system was started anew: there is another socket of that name.
            self.close()
            raise
        return end + 1 - start

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
