"""
The PROXY header of a health check: it says that evproxy asks for itself.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer, proxy_version
from evproxy.wire.proxy_protocol import ProxyHeader, header_bytes

_OWN = {version: header_bytes(ProxyHeader(version, local=True)) for version in (1, 2)}
"""The header of each version: ``LOCAL``, or ``UNKNOWN`` in version 1, which cannot say so."""


def check_header(server: UpstreamServer, pool_version: int) -> None:
    """
    Check that `server` can get the PROXY header that it is to get.

    :param pool_version: the version for servers that have none of their own.
    :raises SettingsError: if it cannot: a TLS handshake would come before the header.
    """
    if proxy_version(server, pool_version) and server.endpoint.startswith(("ssl:", "tls:")):
        raise SettingsError(
            f"send_proxy_protocol: {server.endpoint} would get the header inside TLS, "
            "where no server expects it"
        )


class _HeaderFirst(ProtocolWrapper):
    factory: _HeaderFactory

    def makeConnection(self, transport: ITransport) -> None:
        transport.write(self.factory.header)
        super().makeConnection(transport)


class _HeaderFactory(WrappingFactory):
    noisy = False
    protocol = _HeaderFirst

    def __init__(self, wrapped: IProtocolFactory, header: bytes) -> None:
        super().__init__(wrapped)
        self.header = header


@implementer(IStreamClientEndpoint)
class HeaderEndpoint:
    """
    A client endpoint that sends a PROXY header first.

    :param endpoint: connects.
    :param version: of the header; 1 or 2.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, version: int) -> None:
        self._endpoint = endpoint
        self._header = _OWN[version]

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        factory = _HeaderFactory(protocolFactory, self._header)
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(_unwrapped)


def _unwrapped(wrapper: _HeaderFirst) -> IProtocol:
    wrapped: IProtocol = wrapper.wrappedProtocol
    return wrapped
