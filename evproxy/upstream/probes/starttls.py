"""
A health check asks a server for TLS in the server's own protocol, before TLS begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from evproxy.errors import HandshakeFailed
from evproxy.wire.postgres import agrees_to_tls


class _Asking(ProtocolWrapper):
    """Asks, and connects the wrapped protocol once the server agrees."""

    factory: _AskingFactory

    def __init__(self, factory: Any, wrapped: IProtocol) -> None:
        super().__init__(factory, wrapped)
        self._answer = b""
        self._agreed = False

    def makeConnection(self, transport: ITransport) -> None:
        # Not that of the base class, which connects the wrapped protocol.
        directlyProvides(self, providedBy(transport))
        Protocol.makeConnection(self, transport)
        self.factory.registerProtocol(self)
        transport.write(self.factory.request)

    def dataReceived(self, data: bytes) -> None:
        if self._agreed:
            super().dataReceived(data)
            return
        self._answer += data
        try:
            self._agreed = agrees_to_tls(self._answer)
        except HandshakeFailed as error:
            self.factory.failed(error)
            transport: Any = self.transport
            transport.abortConnection()
        else:
            if self._agreed:
                wrapped: Any = self.wrappedProtocol
                wrapped.makeConnection(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._agreed:
            super().connectionLost(reason)
        else:
            self.factory.unregisterProtocol(self)
            self.factory.failed(HandshakeFailed("the connection was lost before TLS began"))


class _AskingFactory(WrappingFactory):
    noisy = False
    protocol = _Asking

    def __init__(
        self,
        wrapped: IProtocolFactory,
        request: bytes,
        failed: Callable[[HandshakeFailed], None],
    ) -> None:
        super().__init__(wrapped)
        self.request = request
        self.failed = failed


@implementer(IStreamClientEndpoint)
class AskingEndpoint:
    """
    A client endpoint that asks for TLS first; what connects by it is made once the server agrees.

    :param endpoint: connects.
    :param request: what is sent; `agrees_to_tls` judges the answer.
    :param failed: called with the reason if the server does not agree.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        request: bytes,
        failed: Callable[[HandshakeFailed], None],
    ) -> None:
        self._endpoint = endpoint
        self._request = request
        self._failed = failed
        self._factory: _AskingFactory | None = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        self._factory = _AskingFactory(protocolFactory, self._request, self._failed)
        connecting: Deferred[Any] = self._endpoint.connect(self._factory)
        return connecting

    def abort(self) -> None:
        """Abort the connection, if there is one."""
        for protocol in tuple(self._factory.protocols if self._factory is not None else ()):
            protocol.transport.abortConnection()
