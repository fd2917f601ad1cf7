"""
The two halves of a session as Twisted knows them.

A listener's factory makes a `DownstreamProtocol` for each client.  Its session connects with an
`UpstreamFactory`, which makes the `UpstreamProtocol`.  The two halves have no logic of their own:
what comes in goes to the half's receiver, which is first the session's `Intake` and then the relay.
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
from evproxy.relay.delivery import ended_in_order, innermost
from evproxy.session.connecting import Connecting
from evproxy.session.discarding import NOBODY
from evproxy.session.session import Session
from evproxy.sockets.closings import hear
from evproxy.sockets.transport import SocketTransport
from evproxy.upstream.reasons import handshake_reason


@implementer(IHalfCloseableProtocol)
class _Half(Protocol):
    """
    One half of a session.

    Once it is connected, its receiver hears of the end of the connection even if a
    ``connectionLost`` of a subclass raises, or does not call the one here: see
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
        """The transport tells this when ``loseConnection`` is called on it."""
        return self.receiver.closing_here(ended)

    def writeConnectionLost(self) -> None:
        """The end of the other peer's stream was passed on; whoever asked for it knows."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Once, however often this is called.
        receiver, self.receiver = self.receiver, NOBODY
        receiver.connection_lost(reason)


class BeginsSessions(typing.Protocol):
    """What a client's half tells that it is connected; `ProxyFactory` is one."""

    def begin(self, downstream: DownstreamProtocol) -> Session:
        """Start the session of a client that is connected."""


class DownstreamProtocol(_Half):
    """The client's half: it starts a session when it is connected."""

    # What wraps it may set its `factory`, as `LimitTotalConnectionsFactory` does.
    proxy: BeginsSessions

    def __init__(self, info: ConnectionInfo) -> None:
        self.info = info

    def connectionMade(self) -> None:
        self.proxy.begin(self)


@implementer(IHandshakeListener)
class UpstreamProtocol(_Half):
    """
    The server's half: it tells its session when it is connected, with TLS after the handshake.

    `handshake`: see `evproxy.upstream.dialers.Handshaking`.

    :param attempt: the factory that makes it.
    """

    handshake: Deferred[None] | None = None

    def __init__(self, attempt: UpstreamFactory) -> None:
        self._attempt: UpstreamFactory | None = attempt

    def connectionMade(self) -> None:
        # The common case is found out without a call.
        if isinstance(self.transport, TLSMemoryBIOProtocol) and _tells_of_handshake(self.transport):
            self.handshake = Deferred()
        else:
            self._connected()

    def handshakeCompleted(self) -> None:
        # Twisted calls it too where the certificate has just been found to be another's.
        if self.handshake is not None and not self.transport.disconnecting:
            self._handshake_over()
            self._connected()

    def _connected(self) -> None:
        if closed_here(self.transport):
            # A wrapper closed it before it told of it: that was no connect.
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
            # As above, without another call for each session.
            receiver, self.receiver = self.receiver, NOBODY
            receiver.connection_lost(reason)
            return
        # Else a subclass broke before the session heard that it is connected.
        if self.handshake is not None:
            reason = Failure(HandshakeFailed(handshake_reason(reason.value)))
            self._handshake_over()
        attempt.connecting.failed(attempt, reason)


def _tells_of_handshake(transport: TLSMemoryBIOProtocol) -> bool:
    """Whether the protocol directly above `transport` hears of its handshake."""
    return bool(IHandshakeListener.providedBy(transport.wrappedProtocol))


class UpstreamFactory(ClientFactory):
    """
    One attempt to connect a session to a server.

    It is made for each attempt, and identifies it.  A subclass may name a subclass of
    `UpstreamProtocol` as its `protocol`.  If it has a ``clientConnectionFailed`` of its own, that
    must call the one here, or the session waits until its client leaves.

    :param connecting: hears how the attempt ends.
    """

    noisy = False
    protocol: Callable[[UpstreamFactory], UpstreamProtocol] = UpstreamProtocol

    def __init__(self, connecting: Connecting) -> None:
        self.connecting = connecting
        # What connects may be wrapped around this.
        connecting.attempt = self

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self.protocol(self)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self.connecting.failed(self, reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        # Twisted's connector would stay in a cycle with its transport.
        connector.transport = None  # type: ignore[attr-defined]


class Refusing(Protocol):
    """
    Closes the connection of a client that is one too many.

    A factory may say so with ``None``, too; but wrapping factories would wrap that.
    """

    transport: Any

    def connectionMade(self) -> None:
        if isinstance(innermost(self.transport), SocketTransport):
            self.transport.abortConnection()
        else:
            # As Twisted's ports do.
            self.transport.loseConnection()
