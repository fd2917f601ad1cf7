"""
A wrapper for the reactor of a client endpoint, which resolves host names by `LookUps`.

A Twisted endpoint resolves its host name by the reactor, each time it connects: by
``nameResolver`` (`HostnameEndpoint`, and with it ``tcp:``, ``tls:`` and `Agent`), or by
``connectTCP`` and ``connectSSL`` (``ssl:``).  The wrapper has these methods, and uses `LookUps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define, frozen
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

from evproxy.errors import LocalShortage, Shortage
from evproxy.policy.shortages import shortage_in
from evproxy.policy.sources import Sources
from evproxy.sockets.destination import Destination, tcp_destination
from evproxy.upstream.dialers import NameAttempt, NameDialer
from evproxy.upstream.names import LookUps

CONNECT_TIMEOUT = 30.0
"""Twisted's default timeout of a connect, in seconds."""


class ResolvingReactor:
    """
    A reactor that resolves host names by `names`.

    :param reactor: does everything else.
    :param names: resolves host names.
    :param longest: the most seconds that a connect may take.
    """

    def __init__(self, reactor: Any, names: LookUps, longest: float = CONNECT_TIMEOUT) -> None:
        self._reactor = reactor
        self._names = names
        self._longest = longest
        self.nameResolver = _Resolver(names)
        directlyProvides(self, providedBy(reactor), IReactorPluggableNameResolver)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def lacked(self, seconds: float) -> LocalShortage | None:
        """
        What evproxy lacked to look up the name of an endpoint that has failed.

        A Twisted endpoint says only that it has no address.

        :param seconds: how long the connect took.
        """
        resolver = self.nameResolver
        if resolver.shortage is not None:
            return LocalShortage(resolver.shortage)
        return self._names.held_up(resolver.name, seconds)

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
            return sockets.connect(tcp_destination(host, port), factory, timeout)
        self.nameResolver.name = host
        dialer = NameDialer(self._reactor, self._names, host, port)
        attempt = NameAttempt(dialer, factory, timeout, sockets)
        # A Twisted endpoint keeps this connector, to cancel it.
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
        # The same code as in `twisted.internet.posixbase`.
        secured: Any = TLSMemoryBIOFactory(contextFactory, True, factory)
        return self.connectTCP(host, port, secured, timeout, bindAddress)


@frozen
class _Sockets:
    """Connects to IP addresses by Twisted's reactor."""

    reactor: Any
    bind_address: Any

    def connect(
        self,
        to: Destination,
        factory: ClientFactory,
        timeout: float,
        source: Sources | None = None,
    ) -> IConnector:
        # `source` is unused: a `SourcedReactor` chooses the source address.
        connector: IConnector = self.reactor.connectTCP(
            to.host, to.port, factory, timeout, self.bind_address
        )
        return connector


@implementer(IHostResolution)
@frozen
class _Resolution:
    name: str

    def cancel(self) -> None:
        """Do nothing: this is never called, as Twisted's own resolvers cannot cancel either."""
        raise NotImplementedError


@implementer(IHostnameResolver)
@define
class _Resolver:
    """
    The resolver interface of Twisted's endpoints for `LookUps`.

    `name`: the last name that was looked up.  `shortage`: what was missing for that look-up.
    """

    names: LookUps
    name: str = ""
    shortage: Shortage | None = None

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        wanted = (IPv4Address, IPv6Address) if addressTypes is None else tuple(addressTypes)

        def resolved(addresses: tuple[str, ...]) -> None:
            self.shortage = None
            for each in self.names.in_order(hostName, portNumber, addresses):
                kind = IPv6Address if ":" in each else IPv4Address
                if kind in wanted:
                    resolutionReceiver.addressResolved(
                        kind(transportSemantics, each, portNumber)  # type: ignore[arg-type]
                    )
            resolutionReceiver.resolutionComplete()

        def failed(failure: Failure) -> None:
            self.shortage = shortage_in(failure.value)
            resolutionReceiver.resolutionComplete()

        self.name = hostName
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        if isIPAddress(hostName) or isIPv6Address(hostName):
            resolved((hostName,))
        elif known := self.names.known(hostName):
            resolved(known)
        else:
            self.names.resolve(hostName, None).addCallbacks(resolved, failed)
        return resolution
