"""
Clients that get no session: reset at once.
"""

from __future__ import annotations

import socket
from socket import SocketType
from typing import Any

from twisted.internet.protocol import Protocol

from evproxy.sockets.transport import RESET_ON_CLOSE


def refuse(sock: SocketType) -> None:
    """Close a connection that gets no answer; its client must not take that for one."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()


class Refusing(Protocol):
    """
    The protocol of a client that is refused.

    A port of evproxy resets such a client without a transport.  Through other ports and wrappers,
    this resets it.  (A factory may return ``None``, too; but a wrapping factory would wrap that.)
    """

    transport: Any

    def connectionMade(self) -> None:
        abort = getattr(self.transport, "abortConnection", None)
        (abort or self.transport.loseConnection)()
