"""
The TLS of a health check: that of the sessions of its pool.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.errors import HandshakeFailed
from evproxy.sockets.tls_client import ClientTLS, Expected
from evproxy.upstream.reasons import handshake_reason


@implementer(IHandshakeListener)
class _Shaking(Protocol):
    """Has the connection until the handshake is over; then the protocol of `factory` gets it."""

    def __init__(self, factory: IProtocolFactory, done: Deferred[Any]) -> None:
        self._factory = factory
        self._done: Deferred[Any] | None = done
        self.expected: Expected | None = None

    def handshakeCompleted(self) -> None:
        transport: Any = self.transport
        done, self._done = self._done, None
        if done is not None:
            protocol: Any = self._factory.buildProtocol(transport.getPeer())
            transport.wrappedProtocol = protocol
            protocol.makeConnection(transport)
            done.callback(protocol)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        done, self._done = self._done, None
        if done is not None:
            fault = "" if self.expected is None else self.expected.fault
            why = f"TLS handshake failed: {fault}" if fault else handshake_reason(reason.value)
            done.errback(HandshakeFailed(why))

    def cancel(self) -> None:
        """The check is over."""
        done, self._done = self._done, None
        if done is not None:
            transport: Any = self.transport
            if transport is not None:
                transport.abortConnection()
            done.errback(CancelledError())


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    def __init__(self, tls: ClientTLS, name: str, shaking: _Shaking) -> None:
        self._tls = tls
        self._name = name
        self._shaking = shaking

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection, self._shaking.expected = self._tls.connection(None, self._name)
        return connection


@implementer(IStreamClientEndpoint)
class SecuredEndpoint:
    """
    A client endpoint that is connected once the TLS handshake is over.

    :param endpoint: connects.
    :param tls: the TLS of the pool.
    :param name: who the server must be.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, tls: ClientTLS, name: str) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._name = name

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        shaking: _Shaking
        connecting: Deferred[Any]

        def cancel(_: Deferred[Any]) -> None:
            connecting.cancel()
            shaking.cancel()

        done: Deferred[Any] = Deferred(cancel)
        shaking = _Shaking(protocolFactory, done)
        factory = Factory.forProtocol(lambda: shaking)
        factory.noisy = False
        secured = wrapClientTLS(_Creator(self._tls, self._name, shaking), self._endpoint)
        connecting = secured.connect(factory)
        connecting.addErrback(lambda failure: None if done.called else done.errback(failure))
        return done
