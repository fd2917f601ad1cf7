"""
A connection between two generations of evproxy, watched by the reactor.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.errors import EvproxyError
from evproxy.sockets.passing import Message, close_all, receive, send


@implementer(IReadDescriptor)
class Connection:
    """
    One end of the connection.

    :param reactor: watches the socket.
    :param sock: a connected SOCK_SEQPACKET socket that does not block; closed at the end.
    :param received: called with each message and its descriptors, which it closes.
    :param ended: called once the other process has closed the connection, or is not understood.
    """

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        received: Callable[[Message, list[int]], None],
        ended: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._socket = sock
        self._received = received
        self._ended = ended
        self._open = True

    def start(self) -> None:
        """Receive from now on."""
        self._reactor.addReader(self)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Send `message`, and return whether that worked; if not, the connection ends."""
        if not self._open:
            return False
        try:
            send(self._socket, message, descriptors)
        except OSError:
            self._end()
            return False
        return True

    def close(self) -> None:
        """Close the connection; `ended` is not called."""
        if self._open:
            self._open = False
            self._reactor.removeReader(self)
            self._socket.close()

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See `IReadDescriptor`."""
        return "restart"

    def doRead(self) -> None:
        """See `IReadDescriptor`."""
        try:
            message, descriptors = receive(self._socket)
        except BlockingIOError:
            return
        except (OSError, EvproxyError):
            self._end()
            return
        if self._open:
            self._received(message, descriptors)
        else:
            close_all(descriptors)

    def connectionLost(self, reason: Failure) -> None:
        """See `IReadDescriptor`."""
        self._end()

    def _end(self) -> None:
        if self._open:
            self.close()
            self._ended()
