"""
Sockets that are half-closed, because their peer is still to read what was sent last.

A socket that is closed while bytes of its peer are unread resets the connection, and the reset
drops what the peer has not read yet.  So a socket whose last bytes matter, such as an alert of TLS,
ends its stream first, and is closed once the peer has ended its own.  Meanwhile what the peer sends
is read and dropped.  (RFC 9112, 9.6, describes it for HTTP; nginx calls it ``lingering_close``.)
"""

from __future__ import annotations

import socket
from socket import SocketType

from evproxy.engine.loop import IN, SocketEngine

LONGEST = 2.0
"""Seconds that a half-closed socket waits for the end of the peer's stream, at the most."""

MOST = 32
"""The most half-closed sockets at once; a further one is closed without a wait.

Their descriptors are among those that are reserved for everything but sessions."""

MOST_BYTES = 256 * 1024
"""The most bytes of one peer that are read and dropped."""

_READ = 16 * 1024


def half_close(engine: SocketEngine, sock: SocketType) -> None:
    """
    End the stream of `sock`, and close it once the peer has ended its own, or time is up.

    :param engine: watches it until then.
    :param sock: connected and non-blocking; nobody else may use it or watch it.
    """
    try:
        sock.shutdown(socket.SHUT_WR)
        if len(engine.half_closed) < MOST:
            engine.half_closed.add(_HalfClosed(engine, sock))
            return
    except OSError:
        """The connection is gone, or the kernel has no memory to watch it."""
    sock.close()


class _HalfClosed:
    sink = None

    def __init__(self, engine: SocketEngine, sock: SocketType) -> None:
        self._engine = engine
        self._socket = sock
        self._left = MOST_BYTES
        engine.watch(sock.fileno(), self, IN)
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
        if self not in self._engine.half_closed:
            return
        self._engine.half_closed.remove(self)
        if self._bucket:
            self._engine.deadlines.discard(self, self._bucket)
        self._engine.unwatch(self._socket.fileno())
        self._engine.after_batch(self._socket.close)
