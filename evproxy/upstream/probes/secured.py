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
from evproxy.upstream.probes.starttls import AskingEndpoint
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
        fault = "" if self.expected is None else self.expected.fault
        why = f"TLS handshake failed: {fault}" if fault else handshake_reason(reason.value)
        self.fail(HandshakeFailed(why))

    def fail(self, error: Exception | Failure) -> None:
        """The handshake has failed, or cannot begin."""
        done, self._done = self._done, None
        if done is not None:
            done.errback(error)

    def cancel(self) -> None:
        """The check is over."""
        transport: Any = None if self._done is None else self.transport
        self.fail(CancelledError())
        if transport is not None:
            transport.abortConnection()


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
    :param request: what asks the server for TLS first; empty: nothing.
    """

    def __init__(
        self, endpoint: IStreamClientEndpoint, tls: ClientTLS, name: str, request: bytes = b""
    ) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._name = name
        self._request = request

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        shaking: _Shaking
        connecting: Deferred[Any]

        def cancel(_: Deferred[Any]) -> None:
            connecting.cancel()
            shaking.cancel()
            if asking is not None:
                asking.abort()

        done: Deferred[Any] = Deferred(cancel)
        shaking = _Shaking(protocolFactory, done)
        factory = Factory.forProtocol(lambda: shaking)
        factory.noisy = False
        endpoint = self._endpoint
        asking = AskingEndpoint(endpoint, self._request, shaking.fail) if self._request else None
        creator = _Creator(self._tls, self._name, shaking)
        secured = wrapClientTLS(creator, asking if asking is not None else endpoint)
        connecting = secured.connect(factory)
        connecting.addErrback(shaking.fail)
        return done
