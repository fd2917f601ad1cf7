"""
The end of a stream beneath a wrapper that cannot be notified of it.

Most protocol wrappers (``haproxy:`` makes one) are not half-closeable protocols: Twisted closes
their connection in order as soon as the peer ends its stream, and discards what is queued.  To the
peer, half an answer then looks like a whole one.  So evproxy resets the connection instead.  TLS
does not need this: it has an end of its own.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.relay.delivery import ended_in_order, innermost


def guard(transport: Any) -> None:
    """From now on reset the peer of `transport` when Twisted would close too early."""
    inner = innermost(transport)
    # evproxy's own transports reset the peer themselves.
    if isinstance(inner, Connection):
        protocol = inner.protocol
        if not isinstance(protocol, TLSMemoryBIOProtocol) and not IHalfCloseableProtocol.providedBy(
            protocol
        ):
            between: Any = _Guard(protocol, inner)
            inner.protocol = between


@implementer(IHalfCloseableProtocol)
class _Guard:
    """Stands between one of Twisted's own transports and `protocol`."""

    __slots__ = ("_ended", "_protocol", "_transport")

    def __init__(self, protocol: Any, transport: Connection) -> None:
        self._protocol = protocol
        self._transport = transport
        self._ended = False

    def dataReceived(self, data: bytes) -> None:
        self._protocol.dataReceived(data)

    def readConnectionLost(self) -> None:
        self._ended = ended_in_order(self._transport)
        self._transport.abortConnection()

    def writeConnectionLost(self) -> None:
        """Nothing to do: a wrapper ends both streams at once."""

    def connectionLost(self, reason: Failure) -> None:
        self._protocol.connectionLost(connectionDone if self._ended else reason)
