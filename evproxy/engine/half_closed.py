"""
Sockets that are half-closed, because their peer is still to read what was sent last.

A socket that is closed while bytes of its peer are unread resets the connection, and the reset
drops what the peer has not read yet.  So a socket whose last bytes matter, such as an alert of TLS,
ends its stream first, and is closed once the peer has ended its own.  Meanwhile what the peer sends
is read and dropped.  (RFC 9112, 9.6, describes it for HTTP; nginx calls it ``lingering_close``.)
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from socket import SocketType
from typing import Any, Protocol

from evproxy.engine.deadlines import Deadlines

LONGEST = 2.0
"""Seconds that a half-closed socket waits for the end of the peer's stream, at the most."""

MOST = 32
"""The most half-closed sockets at once; a further one is closed without a wait.

Their descriptors are among those that are reserved for everything but sessions."""

MOST_BYTES = 256 * 1024
"""The most bytes of one peer that are read and dropped."""

_IN = 0x001
"""`IN` of `evproxy.engine.loop`, which imports this module."""

_READ = 16 * 1024


class Watching(Protocol):
    """What half-closed sockets need of `evproxy.engine.loop.SocketEngine`."""

    deadlines: Deadlines

    def watch(self, descriptor: int, what: Any, mask: int) -> None:
        """Notify `what` of events."""

    def unwatch(self, descriptor: int) -> None:
        """Stop that."""

    def after_batch(self, call: Callable[[], None]) -> None:
        """Call soon."""

    def seconds(self) -> float:
        """The time."""


class HalfClosedSockets:
    """
    The half-closed sockets of one engine.

    :param engine: watches them.
    """

    def __init__(self, engine: Watching) -> None:
        self._engine = engine
        self._sockets: set[_HalfClosed] = set()

    def __len__(self) -> int:
        return len(self._sockets)

    def take(self, sock: SocketType) -> None:
        """
        End the stream of `sock`, and close it once the peer has ended its own, or time is up.

        :param sock: connected and non-blocking; nobody else may use it or watch it.
        """
        try:
            sock.shutdown(socket.SHUT_WR)
            if len(self._sockets) < MOST:
                self._sockets.add(_HalfClosed(self._engine, sock, self._sockets))
                return
        except OSError:
            """The connection is gone, or the kernel has no memory to watch it."""
        sock.close()

    def close(self) -> None:
        """Close all of them now."""
        for each in tuple(self._sockets):
            each.close()


class _HalfClosed:
    sink = None

    def __init__(self, engine: Watching, sock: SocketType, others: set[_HalfClosed]) -> None:
        self._engine = engine
        self._socket = sock
        self._others = others
        self._left = MOST_BYTES
        engine.watch(sock.fileno(), self, _IN)
        self._bucket = engine.deadlines.add(self, engine.seconds(), LONGEST)

    def event(self, mask: int) -> None:
        """There are bytes to drop, or the connection is over."""
        try:
            count = len(self._socket.recv(_READ))
        except BlockingIOError:
            return
        except OSError:
            # It was reset.
            count = 0
        self._left -= count
        if not count or self._left <= 0:
            self.close()

    def event_failed(self) -> None:
        """An error in evproxy."""
        self.close()

    def deadline_reached(self, now: float) -> None:
        """The peer had its time."""
        self._bucket = 0
        self.close()

    def close(self) -> None:
        """Close the socket after the batch, because no descriptor is closed within one."""
        if self not in self._others:
            return
        self._others.remove(self)
        if self._bucket:
            self._engine.deadlines.discard(self, self._bucket)
        self._engine.unwatch(self._socket.fileno())
        self._engine.after_batch(self._socket.close)
