"""
The two halves of a session as Twisted knows them.

A listener's factory makes a `DownstreamProtocol` for each client; its session connects with an
`UpstreamFactory`, which makes the `UpstreamProtocol`.  Neither has logic of its own: what comes
in goes to the half's receiver, which is first the session and then the relay.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import wraps
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IHalfCloseableProtocol,
    IHandshakeListener,
)
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.errors import HandshakeFailed
from evproxy.model import ConnectionInfo
from evproxy.relay.closing_here import closed_here
from evproxy.relay.contract import Receiver
from evproxy.relay.delivery import ended_in_order, innermost
from evproxy.session.session import NOBODY, Session
from evproxy.sockets.closings import hear, hear_no_more
from evproxy.sockets.transport import SocketTransport
from evproxy.upstream.reasons import handshake_reason

_log = Logger()


@implementer(IHalfCloseableProtocol)
class _Half(Protocol):
    """
    One half of a session.

    Whatever the ``connectionLost`` of a subclass does, the half's own is called after it, or
    the session would be kept for good where that breaks.
    """

    transport: Any
    receiver: Receiver = NOBODY

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.connectionLost is not cls._own_connection_lost:
            cls.connectionLost = _before_own(cls.connectionLost)  # type: ignore[method-assign]

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
        hear_no_more(self)
        receiver.connection_lost(reason)

    _own_connection_lost = connectionLost


def _before_own(lost: Callable[..., None]) -> Callable[..., None]:
    """`lost`, the ``connectionLost`` of a subclass, and then the half's own."""

    @wraps(lost)
    def lost_and_told(half: _Half, reason: Failure = connectionDone) -> None:
        try:
            lost(half, reason)
        finally:
            half._own_connection_lost(reason)

    return lost_and_told


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

    `attempt`: which of the session's attempts it belongs to.  Its factory says so, for an
    endpoint may connect when the session has gone on to another server.
    `handshake`: see `evproxy.upstream.dialers.Handshaking`.
    """

    handshake: Deferred[None] | None = None

    def __init__(self, session: Session) -> None:
        self._session: Session | None = session
        self.attempt = session.attempts

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
        session, self._session = self._session, None
        assert session is not None
        hear(self)
        session.upstream_connected(self.attempt, self)

    def _handshake_over(self) -> None:
        handshake, self.handshake = self.handshake, None
        if handshake is not None:
            handshake.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        session, self._session = self._session, None
        if session is None:
            _Half.connectionLost(self, reason)
            return
        # Else a subclass broke before the session heard that it is connected.
        if self.handshake is not None:
            reason = Failure(HandshakeFailed(handshake_reason(reason.value)))
            self._handshake_over()
        session.connect_failed(self.attempt, reason)

    _own_connection_lost = connectionLost


def _tells_of_handshake(transport: TLSMemoryBIOProtocol) -> bool:
    """Whether the protocol directly above `transport` hears of its handshake."""
    return bool(IHandshakeListener.providedBy(transport.wrappedProtocol))


class UpstreamFactory(ClientFactory):
    """
    Connects one session upstream, once.

    A subclass may name a subclass of `UpstreamProtocol` as its `protocol`.  Whatever its
    ``clientConnectionFailed`` does, the session hears of the failure after it, or it would
    wait for the attempt for good where that breaks.

    `attempt`: which of the session's attempts this is.
    """

    noisy = False
    protocol: Callable[[Session], UpstreamProtocol] = UpstreamProtocol

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        failed = cls.clientConnectionFailed
        if failed is not UpstreamFactory.clientConnectionFailed:
            cls.clientConnectionFailed = _before_session(failed)  # type: ignore[method-assign]

    def __init__(self, session: Session) -> None:
        self.session = session
        self.attempt = session.attempts

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol = self.protocol(self.session)
        protocol.attempt = self.attempt
        return protocol

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self.session.connect_failed(self.attempt, reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        # Twisted's connector would stay in a cycle with its transport.
        connector.transport = None  # type: ignore[attr-defined]


def _before_session(failed: Callable[..., None]) -> Callable[..., None]:
    """`failed`, the ``clientConnectionFailed`` of a subclass, and then the session is told."""

    @wraps(failed)
    def failed_and_told(factory: UpstreamFactory, connector: IConnector, reason: Failure) -> None:
        try:
            failed(factory, connector, reason)
        except Exception:
            peer = factory.session.info.peer_host
            _log.failure("The client factory of a session of {peer} broke", peer=peer)
        finally:
            # Once, for an attempt that is over already counts for nothing.
            factory.session.connect_failed(factory.attempt, reason)

    return failed_and_told


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
