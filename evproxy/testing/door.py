"""
The port of a proxy under test: it listens, refuses connections, or lets them hang.

While the door refuses, its port number stays reserved: a socket is bound to it that never listens.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

BACKLOG = 4096
"""The length of the accept queue; the kernel caps it."""

FILLERS = 2
"""Connections that fill an accept queue of length 0 (the kernel takes one more than that)."""


class Door:
    """
    A TCP port that can open and close, and keeps its number.

    :param reactor: Twisted's.
    :param factory: makes the sessions.
    :param host: the IP address to listen on.
    :param port: the port number; 0: any free one.
    :raises CannotListenError: if the address cannot be bound.

    `port` is the number.
    """

    def __init__(self, reactor: Any, factory: IProtocolFactory, host: str, port: int) -> None:
        self._reactor = reactor
        self._factory = factory
        self._host = host
        self._listening: IListeningPort | None = None
        self._full: list[socket.socket] = []
        self._closed = False
        # A port that closes does so in a later turn of the reactor.
        self._changing = DeferredLock()
        self._reserved = self._socket(port)
        self.port: int = self._reserved.getsockname()[1]

    def _socket(self, port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((self._host, port))
        except OSError as error:
            made.close()
            raise CannotListenError(self._host, port, error) from None
        return made

    @property
    def open(self) -> bool:
        """Whether the port accepts connections."""
        return self._listening is not None

    def listen(self) -> Deferred[None]:
        """Accept connections from now on; the Deferred fires once that is so."""
        return self._changing.run(self._listen)

    def refuse(self) -> Deferred[None]:
        """Refuse connections from now on; the Deferred fires once they are refused."""
        return self._changing.run(self._refuse)

    def hang(self) -> Deferred[None]:
        """Answer no attempt to connect from now on: the accept queue is full."""
        return self._changing.run(lambda: self._refuse().addCallback(lambda _: self._fill()))

    def close(self) -> Deferred[None]:
        """
        Stop, and give the number back; the Deferred fires when that is done.

        The door never listens or hangs again.
        """
        self._closed = True
        return self.refuse().addCallback(lambda _: self._reserved.close())

    def _listen(self) -> None:
        if self._closed:
            return
        self._let_go()
        if self._listening is None:
            self._listening = self._reactor.listenTCP(
                self.port, self._factory, backlog=BACKLOG, interface=self._host
            )

    def _refuse(self) -> Deferred[None]:
        self._let_go()
        listening, self._listening = self._listening, None
        if listening is None:
            return succeed(None)
        return maybeDeferred(listening.stopListening).addCallback(lambda _: None)

    def _fill(self) -> None:
        if self._closed:
            return
        listening = self._socket(self.port)
        self._full.append(listening)
        listening.listen(0)
        for _ in range(FILLERS):
            filler = socket.socket(listening.family)
            self._full.append(filler)
            filler.setblocking(False)
            if filler.connect_ex(listening.getsockname()) not in (0, errno.EINPROGRESS):
                break

    def _let_go(self) -> None:
        full, self._full = self._full, []
        for each in full:
            each.close()
