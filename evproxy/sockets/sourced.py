"""
Twisted's own connections, made from chosen addresses of this machine.

`SourcedReactor` stands in for the reactor when client endpoints connect.  So whatever an endpoint
description wraps, its TCP connection comes from one of those addresses.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.error import ConnectBindError
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import ClientFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from evproxy.config.canonical import host_and_port, is_address
from evproxy.errors import LocalShortage, Shortage
from evproxy.policy.shortages import NO_PORT, no_source, not_local
from evproxy.policy.sources import Sources
from evproxy.sockets.connector import bind_late


class _Client(tcp.Client):
    """Twisted's transport, but its port is chosen when it connects."""

    def createInternetSocket(self) -> socket.socket:
        made: socket.socket = super().createInternetSocket()
        bind_late(made)
        return made

    def _finishInit(self, whenDone: Any, skt: Any, error: Any, reactor: Any) -> None:
        if whenDone is None and skt is not None:
            # Twisted leaves the socket open when it cannot bind it.
            skt.close()
        super()._finishInit(whenDone, skt, error, reactor)


class _Connector(tcp.Connector):
    """Twisted's connector, but it tries the next address as `SourcedConnector` does."""

    def __init__(
        self,
        left: list[str],
        short: Callable[[Shortage], None],
        host: str,
        port: int,
        factory: Any,
        timeout: float,
        reactor: Any,
    ) -> None:
        self._source = left.pop()
        self._left = left
        self._short = short
        super().__init__(host, port, factory, timeout, (self._source, 0), reactor)

    def _makeTransport(self) -> tcp.Client:
        return _Client(self.host, self.port, self.bindAddress, self, self.reactor)

    def connectionFailed(self, reason: Failure) -> None:
        error: Any = reason.value
        number = getattr(error, "osError", None)
        shortage = None
        if isinstance(error, ConnectBindError) and number == errno.EADDRNOTAVAIL:
            shortage = not_local(self._source)
            reason = Failure(LocalShortage(shortage))
        if number in NO_PORT and self._left:
            if shortage is not None:
                # The next address may connect, and then nothing else reports this one.
                self._short(shortage)
            self.cancelTimeout()
            self.state = "disconnected"
            self._source = self._left.pop()
            self.bindAddress = (self._source, 0)
            self.connect()
            return
        super().connectionFailed(reason)


class SourcedReactor:
    """
    Stands in for `reactor` when client endpoints connect: TCP connections come from `sources`.

    An endpoint that names its own source address (``bindAddress``) keeps that address.

    :param short: called with the shortage when an address is not one of this machine's and the
        next one is tried; the error of the last address goes to the endpoint.
    """

    def __init__(self, reactor: Any, sources: Sources, short: Callable[[Shortage], None]) -> None:
        self._reactor = reactor
        self._sources = sources
        self._short = short
        directlyProvides(self, *providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = 30,
        bindAddress: Any = None,
    ) -> IConnector:
        if bindAddress is not None or not is_address(host):
            given: IConnector = self._reactor.connectTCP(host, port, factory, timeout, bindAddress)
            return given
        left = self._sources.turn(host, port)
        if not left:
            raise LocalShortage(no_source(host_and_port(host, port)))
        connector = _Connector(left, self._short, host, port, factory, timeout, self._reactor)
        connector.connect()
        return connector

    def connectSSL(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        contextFactory: Any,
        timeout: float = 30,
        bindAddress: Any = None,
    ) -> IConnector:
        secured: Any = TLSMemoryBIOFactory(contextFactory, True, factory)
        return self.connectTCP(host, port, secured, timeout, bindAddress)
