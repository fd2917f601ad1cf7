"""
The socket on which a service manager hears of a service: sd_notify(3).

A message is one datagram of lines such as ``READY=1``.  The socket never blocks: a message that the
kernel does not take now waits, and so do those behind it.
"""

from __future__ import annotations

import errno
import os
import socket
from array import array
from collections import deque
from collections.abc import Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from evproxy.errors import SettingsError
from evproxy.escape import escaped

MOST_WAITING = 16
"""The most messages that wait; beyond that, the oldest is dropped."""

RETRY = 0.5
"""Seconds from a failed attempt to the next."""

_log = Logger(namespace="evproxy")


class NotifySocket:
    """
    Sends messages to the socket at `address`.

    :param clock: the timers.
    :param address: a path, or an abstract name that begins with ``@``, as in ``$NOTIFY_SOCKET``.
    :raises SettingsError: if `address` is neither.
    """

    def __init__(self, clock: IReactorTime, address: str) -> None:
        if not address.startswith(("/", "@")):
            raise SettingsError(f"NOTIFY_SOCKET: expected a path or @NAME, got {address!r}")
        self._clock = clock
        self._name = escaped(address)
        self._address = b"\0" + os.fsencode(address[1:]) if address[0] == "@" else address
        self._socket: socket.socket | None = None
        self._waiting: deque[tuple[bytes, Sequence[int]]] = deque(maxlen=MOST_WAITING)
        self._retry: IDelayedCall | None = None
        self._failing = False

    def send(self, *lines: str, descriptors: Sequence[int] = (), lasting: bool = True) -> None:
        """
        Send one message of `lines` as soon as possible.

        :param descriptors: are passed along; if they are closed by then, the message is dropped.
        :param lasting: whether the message counts later, too; else it is dropped if it would have
            to wait.
        """
        if lasting or not self._waiting:
            self._waiting.append(("\n".join(lines).encode(), descriptors))
            if self._retry is None and not self._sent_all():
                if lasting:
                    self._retry = self._clock.callLater(RETRY, self._try_again)
                else:
                    self._waiting.pop()

    def close(self) -> None:
        """Make a last attempt, and send nothing more."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._sent_all()
        self._waiting.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _sent_all(self) -> bool:
        """Send what waits; return whether nothing waits any more."""
        try:
            while self._waiting:
                message, descriptors = self._waiting[0]
                # `socket.send_fds` has no use for an address (CPython's `Lib/socket.py`).
                passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
                along = passed if descriptors else []
                self._opened().sendmsg([message], along, 0, self._address)
                self._waiting.popleft()
                self._failing = False
        except OSError as error:
            if error.errno == errno.EBADF:
                # Its descriptors are closed by now.
                self._waiting.popleft()
                return self._sent_all()
            if not isinstance(error, BlockingIOError) and not self._failing:
                self._failing = True
                _log.warn(
                    "the service manager cannot be notified at {address}: {why}",
                    address=self._name,
                    why=error.strerror or str(error),
                )
            return False
        return True

    def _opened(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        return self._socket

    def _try_again(self) -> None:
        self._retry = None
        if not self._sent_all():
            self._retry = self._clock.callLater(RETRY, self._try_again)
