"""
Ports on listening sockets that this process has inherited (``systemd:``).

The process that created a socket owns it.  So evproxy leaves the accept queue of the socket as it
is, and the path and mode of a UNIX socket.  The socket goes on listening when evproxy stops, so
that no client is refused meanwhile.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.error import CannotListenError, UnsupportedAddressFamily
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.escape import escaped
from evproxy.sockets.ports import Acceptor, ListeningSocket, PlainPort, TCPPort

_log = Logger()


class InheritedSocket(ListeningSocket):
    """A socket that listens already, and that goes on listening when evproxy closes it."""

    def bind(self, address: Any) -> None:
        """Nothing to do: the socket is bound."""

    def listen(self, backlog: int = 0) -> None:
        """Nothing to do: the socket listens, with the accept queue that its owner chose."""

    # A shutdown would also stop the owner's listening.
    handed_over = True
    borrowed = True


class InheritedTCPPort(TCPPort):
    """
    A TCP listening port on an inherited socket.

    :param acceptor: takes the accepted connections.
    :param made: the inherited socket.
    """

    def __init__(
        self, acceptor: Acceptor, made: InheritedSocket, factory: Any, reactor: Any
    ) -> None:
        host, port = made.getsockname()[:2]
        super().__init__(acceptor, port, factory, 0, host, reactor)
        self._made = made

    def createInternetSocket(self) -> ListeningSocket:
        """Return the inherited socket."""
        assert self._made is not None
        return self._made


class InheritedUNIXPort(PlainPort, unix.Port):
    """
    A UNIX listening port on an inherited socket.

    :param acceptor: takes the accepted connections.
    :param made: the inherited socket.
    """

    def __init__(
        self, acceptor: Acceptor, made: InheritedSocket, factory: Any, reactor: Any
    ) -> None:
        self._path = made.getsockname()
        super().__init__(acceptor, self._path, factory, 0, 0, reactor)
        self._made = made

    def startListening(self) -> None:
        """Accept from now on."""
        # `unix.Port.startListening` would set the mode of the path.
        assert self._made is not None
        self.factory.doStart()
        self.socket = self._made
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.connected = True
        self.startReading()
        _log.info(
            "Listening on the inherited UNIX socket {path}", path=escaped(os.fsdecode(self._path))
        )

    def connectionLost(self, reason: Failure) -> None:
        """The port listens no longer."""
        # `unix.Port.connectionLost` would remove the path.
        try:
            tcp.Port.connectionLost(self, reason)
        finally:
            self.acceptor.gate.forget(self)


def inherited_port(
    acceptor: Acceptor, descriptor: int, factory: Any, reactor: Any
) -> InheritedTCPPort | InheritedUNIXPort:
    """
    Return a port on a duplicate of `descriptor`; the port does not accept yet.

    :param acceptor: takes the accepted connections.
    :raises UnsupportedAddressFamily: if the socket is neither a TCP nor a UNIX socket.
    :raises CannotListenError: if the socket does not listen.
    """
    made = InheritedSocket(fileno=os.dup(descriptor))
    try:
        family = made.family
        if family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise UnsupportedAddressFamily(family)
        if not made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            why = OSError(errno.EINVAL, f"the inherited socket {descriptor} does not listen")
            raise CannotListenError(None, None, why)
        made.setblocking(False)
        kind = InheritedUNIXPort if family == socket.AF_UNIX else InheritedTCPPort
        return kind(acceptor, made, factory, reactor)
    except BaseException:
        made.close()
        raise
