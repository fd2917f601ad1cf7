"""
The connections of HTTP requests: one for each request, without log lines about factories.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.web.client import HTTPConnectionPool
from zope.interface import implementer


class Connections(HTTPConnectionPool):
    """The connection pool of an `Agent` that uses each connection once."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor, persistent=False)

    def getConnection(self, key: Hashable, endpoint: IStreamClientEndpoint) -> Deferred[Any]:
        connection: Deferred[Any] = super().getConnection(key, _Quiet(endpoint))
        return connection


@implementer(IStreamClientEndpoint)
class _Quiet:
    """An endpoint whose factories do not log their start and stop."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if isinstance(protocolFactory, Factory):
            protocolFactory.noisy = False
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connecting
