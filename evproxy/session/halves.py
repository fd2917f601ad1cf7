"""
The two halves of a session as Twisted knows them.

A listener's factory makes a `DownstreamProtocol` for each client.  The session connects with an
`UpstreamFactory`, which makes the `UpstreamProtocol`.  The two halves have no logic of their own:
each passes its events to its receiver, which is first the session's `Intake` and then the relay.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IHalfCloseableProtocol,
    IHandshakeListener,
)
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.errors import HandshakeFailed
from evproxy.model import ConnectionInfo
from evproxy.relay.closing_here import closed_here
from evproxy.relay.contract import Receiver
from evproxy.relay.delivery import ended_in_order
from evproxy.session.connecting import Connecting
from evproxy.session.discarding import NOBODY
from evproxy.session.session import Session
from evproxy.sockets.closings import hear
from evproxy.upstream.reasons import handshake_reason


@implementer(IHalfCloseableProtocol)
class HalfProtocol(Protocol):
    """
    One half of a session.

    Once the half is connected, its receiver is always notified of the end of the connection, even
    if ``connectionLost`` of a subclass raises, or does not call this class's: see
    `evproxy.sockets.closings`.
    """

    transport: Any
    receiver: Receiver = NOBODY

    def dataReceived(self, data: bytes) -> None:
        self.receiver.received(data)

    def readConnectionLost(self) -> None:
        if ended_in_order(self.transport):
            self.receiver.stream_ended()
        else:
            self.transport.abortConnection()

    def peer_reset(self) -> None:
        """The peer reset its connection while the transport was not read."""
        self.receiver.peer_reset()

    def closing_here(self, ended: bool) -> bool:
        """Called by the transport when code calls ``loseConnection`` on it."""
        return self.receiver.closing_here(ended)

    def writeConnectionLost(self) -> None:
        """Do nothing: the relay ended this stream itself, when the other peer's stream ended."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # The receiver is notified once, however often this method is called.
        receiver, self.receiver = self.receiver, NOBODY
        receiver.connection_lost(reason)


class BeginsSessions(typing.Protocol):
    """Starts the session of a client's half; `ProxyFactory` does so."""

    def begin(self, downstream: DownstreamProtocol) -> Session:
        """Start the session of a connected client."""


class DownstreamProtocol(HalfProtocol):
    """The client's half: it starts a session when it is connected."""

    # Not `factory`: a wrapper may set that, as `LimitTotalConnectionsFactory` does.
    proxy: BeginsSessions

    def __init__(self, info: ConnectionInfo) -> None:
        self.info = info

    def connectionMade(self) -> None:
        self.proxy.begin(self)


@implementer(IHandshakeListener)
class UpstreamProtocol(HalfProtocol):
    """
    The server's half: it notifies the `Connecting` when it is connected; with TLS, after the
    handshake.

    `handshake`: see `evproxy.upstream.dialers.Handshaking`.

    :param attempt: the factory that makes this half.
    """

    handshake: Deferred[None] | None = None

    def __init__(self, attempt: UpstreamFactory) -> None:
        self._attempt: UpstreamFactory | None = attempt

    def connectionMade(self) -> None:
        # `isinstance` first: it avoids a call in the common case.
        if isinstance(self.transport, TLSMemoryBIOProtocol) and _tells_of_handshake(self.transport):
            self.handshake = Deferred()
        else:
            self._connected()

    def handshakeCompleted(self) -> None:
        # Twisted calls this method even if it has just found the certificate to be wrong.
        if self.handshake is not None and not self.transport.disconnecting:
            self._handshake_over()
            self._connected()

    def _connected(self) -> None:
        if closed_here(self.transport):
            # A wrapper closed the connection before `connectionMade`: the connect failed.
            self.transport.abortConnection()
            return
        attempt, self._attempt = self._attempt, None
        assert attempt is not None
        hear(self)
        attempt.connecting.connected(attempt, self)

    def _handshake_over(self) -> None:
        handshake, self.handshake = self.handshake, None
        if handshake is not None:
            handshake.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            # The same as `HalfProtocol.connectionLost`, without another call for each session.
            receiver, self.receiver = self.receiver, NOBODY
            receiver.connection_lost(reason)
            return
        # The connection was lost before `_connected` was called: the attempt failed.
        if self.handshake is not None:
            reason = Failure(HandshakeFailed(handshake_reason(reason.value)))
            self._handshake_over()
        attempt.connecting.failed(attempt, reason)


def _tells_of_handshake(transport: TLSMemoryBIOProtocol) -> bool:
    """Whether `transport` notifies the protocol directly above it of the handshake."""
    return bool(IHandshakeListener.providedBy(transport.wrappedProtocol))


class UpstreamFactory(ClientFactory):
    """
    One attempt to connect a session to a server.

    Each attempt has its own factory, which identifies the attempt.  A subclass may name a subclass
    of `UpstreamProtocol` as its `protocol`.  If a subclass overrides ``clientConnectionFailed``,
    it must call this class's method; otherwise the session waits until its client leaves.

    :param connecting: is notified of how the attempt ends.
    """

    noisy = False
    protocol: Callable[[UpstreamFactory], UpstreamProtocol] = UpstreamProtocol

    def __init__(self, connecting: Connecting) -> None:
        self.connecting = connecting
        # Set here because the dialer may get a wrapper of this factory.
        connecting.attempt = self

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self.protocol(self)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self.connecting.failed(self, reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        # Otherwise Twisted's connector and its transport would form a cycle.
        connector.transport = None  # type: ignore[attr-defined]
