"""
What stands in for the reactor of a client endpoint, so that `LookUps` resolve its host names.

Twisted's endpoints ask the reactor for that, each time they connect: either its
``nameResolver`` (`HostnameEndpoint`, and with it ``tcp:``, ``tls:`` and `Agent`), or, in
effect, its ``connectTCP`` and ``connectSSL`` (``ssl:``).  All of them ask `LookUps` here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.internet.protocol import ClientFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from evproxy.policy.sources import Sources
from evproxy.upstream.dialers import NameAttempt, NameDialer
from evproxy.upstream.names import LookUps

CONNECT_TIMEOUT = 30.0
"""Seconds that Twisted gives a connect where nobody says otherwise."""


class ResolvingReactor:
    """
    The reactor, but for host names.

    :param reactor: does everything else.
    :param names: resolves host names.
    :param longest: seconds that no connect takes longer than.
    """

    def __init__(self, reactor: Any, names: LookUps, longest: float = CONNECT_TIMEOUT) -> None:
        self._reactor = reactor
        self._names = names
        self._longest = longest
        self.nameResolver = _Resolver(names)
        directlyProvides(self, providedBy(reactor), IReactorPluggableNameResolver)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = CONNECT_TIMEOUT,
        bindAddress: Any = None,
    ) -> IConnector:
        sockets = _Sockets(self._reactor, bindAddress)
        timeout = min(timeout, self._longest)
        if isIPAddress(host) or isIPv6Address(host):
            return sockets.connect_tcp(host, port, factory, timeout)
        dialer = NameDialer(self._reactor, self._names, host, port)
        attempt = NameAttempt(dialer, factory, timeout, sockets)
        # An endpoint cancels what it is told of here.
        factory.startedConnecting(attempt)
        attempt.start(self._names.known(host))
        return attempt

    def connectSSL(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        contextFactory: Any,
        timeout: float = CONNECT_TIMEOUT,
        bindAddress: Any = None,
    ) -> IConnector:
        # As `twisted.internet.posixbase` has it.
        secured: Any = TLSMemoryBIOFactory(contextFactory, True, factory)
        return self.connectTCP(host, port, secured, timeout, bindAddress)


@frozen
class _Sockets:
    """Connects to addresses as Twisted does."""

    reactor: Any
    bind_address: Any

    def connect_tcp(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float,
        source: Sources | None = None,
    ) -> IConnector:
        # Whoever has sources gives them by the reactor.
        connector: IConnector = self.reactor.connectTCP(
            host, port, factory, timeout, self.bind_address
        )
        return connector

    def connect_unix(self, path: str, factory: ClientFactory, timeout: float) -> IConnector:
        raise NotImplementedError


@implementer(IHostResolution)
@frozen
class _Resolution:
    name: str

    def cancel(self) -> None:
        """Whoever asks does not cancel it: Twisted's own resolvers cannot."""
        raise NotImplementedError


@implementer(IHostnameResolver)
@frozen
class _Resolver:
    """`LookUps` as Twisted's endpoints ask them."""

    names: LookUps

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        wanted = (IPv4Address, IPv6Address) if addressTypes is None else tuple(addressTypes)

        def tell(addresses: tuple[str, ...]) -> None:
            for each in self.names.in_order(hostName, portNumber, addresses):
                kind = IPv6Address if ":" in each else IPv4Address
                if kind in wanted:
                    resolutionReceiver.addressResolved(
                        kind(transportSemantics, each, portNumber)  # type: ignore[arg-type]
                    )
            resolutionReceiver.resolutionComplete()

        def tell_none(failure: Failure) -> None:
            resolutionReceiver.resolutionComplete()

        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        if isIPAddress(hostName) or isIPv6Address(hostName):
            tell((hostName,))
        elif known := self.names.known(hostName):
            tell(known)
        else:
            self.names.resolve(hostName, None).addCallbacks(tell, tell_none)
        return resolution
