"""
Ports: Twisted's ports, which can also pause, and lose no client when descriptors run out.

A port passes accepted sockets to an `Acceptor`, and reports to a `Gate` what prevents accepting.
"""

from __future__ import annotations

import errno
import socket
from functools import cached_property
from socket import SocketType
from typing import Any, Protocol

from twisted.internet import tcp
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.engine.loop import IN
from evproxy.errors import Shortage

MOST_ACCEPTS = 64
"""The most connections that a port accepts before other sockets get their turn."""

PATIENCE = 4
"""How often in a row all accepts must succeed before a port tries more at once."""

EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""The errors of accept(2) and socket(2) after which a later try may succeed."""

_log = Logger()


class Gate(Protocol):
    """Is notified of ports and of shortages; `Admission` of a service is a gate."""

    def watch(self, port: PlainPort) -> None: ...

    def forget(self, port: PlainPort) -> None: ...

    def exhausted(self, error: OSError) -> None: ...

    def short(self, shortage: Shortage) -> None: ...


class Acceptor(Protocol):
    """Watches a port, and takes the connections that the port accepts."""

    gate: Gate

    def start_accepting(self, port: PlainPort) -> None: ...

    def stop_accepting(self, port: PlainPort) -> None: ...

    def accepted(self, sock: SocketType, peer: Any, factory: Any) -> None: ...


class ListeningSocket(socket.socket):
    """
    A listening socket on which an accept costs less.

    It remembers its family and type.  `socket.socket` makes members of enumerations for them at
    each use.

    `handed_over` says that another port has a duplicate: the socket must go on listening.
    `borrowed` says that another process owns the socket, its path and its permissions.
    `shared` says that the process from which the socket came still serves with it, and goes on if
    this process stops.
    """

    handed_over = False
    borrowed = False
    shared = False

    def shutdown(self, how: int) -> None:
        """Stop listening, unless another port has the socket too."""
        if not (self.handed_over or self.shared):
            super().shutdown(how)

    def accept(self) -> tuple[Any, Any]:
        """
        Return the accepted socket and the address of the peer.

        The socket is a `SocketType`: what `socket.socket` adds in Python is not needed, and costs
        more than the system calls.
        """
        descriptor, peer = self._accept()  # type: ignore[attr-defined]
        return SocketType(self.family, self.type, self.proto, descriptor), peer

    @cached_property
    def family(self) -> socket.AddressFamily:
        return super().family

    @cached_property
    def type(self) -> socket.SocketKind:
        return super().type


class PlainPort:
    """
    What evproxy's ports add to Twisted's ports: they can pause, and handle a lack of descriptors.

    A mixin for `tcp.Port` and `unix.Port`.
    """

    sink = None
    socket: socket.socket
    factory: Any
    _accepts = 1
    _filled = 0
    _accepting = False
    _made: ListeningSocket | None = None
    _handed: ListeningSocket | None = None

    def __init__(self, acceptor: Acceptor, *args: Any) -> None:
        super().__init__(*args)
        self.acceptor = acceptor

    def take_over(self, sock: ListeningSocket | None) -> None:
        """Use `sock`, which is bound already, in place of a new socket; ``None``: a new one."""
        self._handed = sock

    @property
    def handed_over(self) -> bool:
        """
        Whether another port has a duplicate of the socket.

        Then the socket goes on listening when this port closes, and the path of a UNIX socket
        stays.
        """
        made = self._made
        return made is not None and (made.handed_over or made.shared)

    @handed_over.setter
    def handed_over(self, handed_over: bool) -> None:
        assert self._made is not None
        self._made.handed_over = handed_over

    @property
    def borrowed(self) -> bool:
        """Whether another process owns the socket."""
        return self._made is not None and self._made.borrowed

    def own(self) -> None:
        """The process from which the socket came does not serve with it any more."""
        assert self._made is not None
        self._made.shared = False

    def hand_over(self) -> None:
        """Another process owns the socket from now on."""
        assert self._made is not None
        self._made.handed_over = self._made.borrowed = True

    def createInternetSocket(self) -> ListeningSocket:
        """Make the socket as Twisted does, but as a `ListeningSocket`; or take one over."""
        if self._handed is not None:
            self._made, self._handed = self._handed, None
            return self._made
        made = super().createInternetSocket()  # type: ignore[misc]
        self._made = ListeningSocket(made.family, made.type, made.proto, made.detach())
        self._made.setblocking(False)
        return self._made

    def startListening(self) -> None:
        """Bind and listen.  Clean up after a failure."""
        try:
            super().startListening()  # type: ignore[misc]
        except BaseException:
            # `unix.Port` leaves the socket open, and so does `tcp.Port` of Twisted 24.7.
            if self._made is not None:
                self._made.close()
            raise

    def startReading(self) -> None:
        if not self._accepting:
            self._accepting = True
            self.acceptor.start_accepting(self)

    def stopReading(self) -> None:
        if self._accepting:
            self._accepting = False
            self.acceptor.stop_accepting(self)

    def pause_accepting(self) -> None:
        """Leave clients in the accept queue."""
        self.stopReading()

    def resume_accepting(self) -> None:
        """Accept again."""
        if self.connected and not self.disconnecting:  # type: ignore[attr-defined]
            self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """The port listens no longer."""
        try:
            super().connectionLost(reason)  # type: ignore[misc]
        finally:
            self.acceptor.gate.forget(self)

    def event(self, mask: int) -> None:
        """The engine reports that there is something to accept: accept it."""
        accepted = 0
        for _ in range(self._accepts):
            if not self._accepting:
                break
            try:
                sock, peer = self.socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self.acceptor.gate.exhausted(error)
                    break
                # That connection is gone again (accept(2)), but there may be others.
                continue
            accepted += 1
            try:
                self.acceptor.accepted(sock, peer, self.factory)
            except BaseException:
                # An exception that leaves `doRead` would end the port.
                _log.failure("A connection that was accepted broke")
        # One accept too many is a wasted system call, one too few another turn of the loop.
        if accepted < self._accepts:
            self._accepts = max(1, accepted)
            self._filled = 0
        else:
            self._filled += 1
            if self._filled >= PATIENCE:
                self._accepts = min(MOST_ACCEPTS, accepted * 2)

    def event_failed(self) -> None:
        """Nothing to do: the error is logged, and the port goes on."""

    def doRead(self) -> None:
        """The reactor reports that there is something to accept: accept it."""
        self.event(IN)


class TCPPort(PlainPort, tcp.Port):
    """A TCP listening port of evproxy."""
