"""
The program as the one server of a pool: connects sessions inside the process.

A `ProgramDialer` gives each session to the factory of the program, on a connection inside the
process.  The PROXY header that the session would send to a server says who the client is.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import ClientFactory, Factory
from twisted.python.failure import Failure

from evproxy.interfaces import PlainConnector
from evproxy.sockets.memory import connected_pair
from evproxy.upstream.dialers import Attempt
from evproxy.wire.proxy_protocol import Address, InetAddress, ProxyHeaderReader, UnixAddress


class ProgramDialer:
    """
    Connects to the protocols that `factory` makes; an `evproxy.interfaces.HeaderDialer`.

    :param reactor: calls later.
    """

    def __init__(self, reactor: Any, factory: Factory) -> None:
        self._reactor = reactor
        self._factory = factory

    def connect(
        self, factory: ClientFactory, timeout: float, sockets: PlainConnector
    ) -> IConnector:
        return self._connect(factory, UNIXAddress(None), UNIXAddress(None))

    def connect_after(
        self, header: bytes, factory: ClientFactory, timeout: float, sockets: PlainConnector
    ) -> IConnector:
        found = ProxyHeaderReader().feed(header)
        if found is None:
            return self.connect(factory, timeout, sockets)
        return self._connect(factory, _address(found.source), _address(found.destination))

    def _connect(self, factory: ClientFactory, client: Any, host: Any) -> IConnector:
        attempt = _ProgramAttempt(factory)
        program = self._factory.buildProtocol(client)
        if program is None:
            refused = ConnectionRefusedError("the program refuses the client")
            factory.clientConnectionFailed(attempt, Failure(refused))
            return attempt
        ours, its = connected_pair(self._reactor, client, host)
        ours.start(factory.buildProtocol(host))
        its.start(program)
        return attempt


class _ProgramAttempt(Attempt):
    """An attempt that is over at once."""

    def stopConnecting(self) -> None:
        """Nothing to do."""


def _address(address: Address | None) -> IPv4Address | IPv6Address | UNIXAddress:
    if isinstance(address, InetAddress):
        kind = IPv6Address if ":" in address.host else IPv4Address
        return kind("TCP", address.host, address.port)
    path = address.path if isinstance(address, UnixAddress) else b""
    return UNIXAddress(os.fsdecode(path) if path else None)
