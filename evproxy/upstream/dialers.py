"""
The dialers: one for each kind of upstream server, to connect to it.

Each is an `evproxy.interfaces.Dialer`.  An attempt that may need more than one socket is an
`Attempt`, which is the connector for its client factory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import field, frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import DNSLookupError, NoProtocol
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IProtocol,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.config.canonical import host_and_port
from evproxy.errors import ConnectTimeout, LocalShortage
from evproxy.interfaces import PlainConnector
from evproxy.policy.shortages import shortage_in
from evproxy.policy.sources import Sources
from evproxy.sockets.destination import Destination, tcp_destination, unix_destination
from evproxy.upstream.names import LookUps

_log = Logger()


@frozen
class TCPAddress:
    """An upstream server at a host, by name or IP address, and a port."""

    host: str
    port: int


@frozen
class UNIXPath:
    """An upstream server at a UNIX socket."""

    path: str


@frozen
class AddressDialer:
    """Connects to an IP address, from one of the addresses of `source` if it is given."""

    host: str
    port: int
    source: Sources | None = None
    to: Destination | None = field(init=False)

    @to.default
    def _destination(self) -> Destination | None:
        # The interface that a zone names may come later, and its number may change.
        return None if "%" in self.host else tcp_destination(self.host, self.port)

    def connect(
        self, factory: ClientFactory, timeout: float, sockets: PlainConnector
    ) -> IConnector:
        to = self.to or tcp_destination(self.host, self.port)
        try:
            return sockets.connect(to, factory, timeout, self.source)
        except OSError:
            # Twisted resolves the zone of an IPv6 address before it connects, and may fail.
            return _failed_at_once(factory)


class UNIXDialer:
    """Connects to the UNIX socket at `path`."""

    def __init__(self, path: str) -> None:
        self._to = unix_destination(path)

    def connect(
        self, factory: ClientFactory, timeout: float, sockets: PlainConnector
    ) -> IConnector:
        try:
            return sockets.connect(self._to, factory, timeout)
        except OSError:
            # Twisted's transport makes its socket at once, and fails if no descriptor is free.
            return _failed_at_once(factory)


class NameDialer:
    """Connects to a host by name: to its addresses in turn, first the one that last answered."""

    def __init__(
        self, reactor: Any, names: LookUps, host: str, port: int, source: Sources | None = None
    ) -> None:
        self.reactor = reactor
        self.names = names
        self.host = host
        self.port = port
        self.source = source
        self._last: AddressDialer | None = None

    def dialer_to(self, address: str) -> AddressDialer:
        """The dialer for `address`; the last one is kept, for most names have one address."""
        if self._last is None or self._last.host != address:
            self._last = AddressDialer(address, self.port, self.source)
        return self._last

    def connect(
        self, factory: ClientFactory, timeout: float, sockets: PlainConnector
    ) -> IConnector:
        addresses = self.names.known(self.host)
        if len(addresses) == 1:
            return self.dialer_to(addresses[0]).connect(factory, timeout, sockets)
        attempt = NameAttempt(self, factory, timeout, sockets)
        attempt.start(addresses)
        return attempt


def _failed_at_once(factory: ClientFactory) -> IConnector:
    """Notify `factory` of the current exception.  Call this in an ``except`` clause."""
    attempt = _FailedAttempt(factory)
    factory.clientConnectionFailed(attempt, Failure())
    return attempt


@implementer(IConnector)
class Attempt:
    """A connect that may need more than one socket: the connector for its client factory."""

    def __init__(self, factory: ClientFactory) -> None:
        self.factory = factory

    def connect(self) -> None:
        raise RuntimeError("a session connects only once")

    def disconnect(self) -> None:
        self.stopConnecting()

    def stopConnecting(self) -> None:
        raise NotImplementedError

    def getDestination(self) -> Any:
        raise NotImplementedError


class _FailedAttempt(Attempt):
    """An attempt that failed at once."""

    def stopConnecting(self) -> None:
        """Nothing to do: the attempt is over."""


class NameAttempt(Attempt, ClientFactory):
    """One attempt of a `NameDialer`; also the client factory of the connect to each address."""

    noisy = False

    def __init__(
        self,
        dialer: NameDialer,
        factory: ClientFactory,
        timeout: float,
        sockets: PlainConnector,
    ) -> None:
        super().__init__(factory)
        self._dialer = dialer
        self._sockets = sockets
        self._timeout = timeout
        self._began: float = dialer.reactor.seconds()
        self._deadline = 0.0
        self._left: list[str] = []
        self._trying = ""
        self._server_failure: Failure | None = None
        self._resolving: Deferred[tuple[str, ...]] | None = None
        self._connecting: IConnector | None = None
        self._starting = self._failed_at_once = False
        self._stopped = False

    def start(self, addresses: tuple[str, ...]) -> None:
        """Connect to `addresses`; if it is empty, resolve the name first."""
        if addresses:
            self._resolved(addresses)
            return
        dialer = self._dialer
        self._resolving = dialer.names.resolve(dialer.host, self._timeout)
        self._resolving.addCallbacks(self._resolved, self._unresolved)

    def _resolved(self, addresses: tuple[str, ...]) -> None:
        self._resolving = None
        dialer = self._dialer
        left = dialer.names.time_left(self._timeout, self._began)
        self._deadline = dialer.reactor.seconds() + left
        self._left = dialer.names.in_order(dialer.host, dialer.port, addresses)
        self._next()

    def _unresolved(self, reason: Failure) -> None:
        self._resolving = None
        if not self._stopped:
            self.factory.clientConnectionFailed(self, reason)

    def _next(self) -> None:
        self._starting = self._failed_at_once = True
        # Each address may fail before `connect` returns: a loop, to avoid a deep recursion.
        while self._failed_at_once:
            self._failed_at_once = False
            self._connecting = None
            self._connecting = self._connect(self._left.pop(0))
        self._starting = False

    def _connect(self, address: str) -> IConnector:
        dialer = self._dialer
        self._trying = address
        # An address that never answers must leave time for the addresses after it.
        left = max(0.0, self._deadline - dialer.reactor.seconds()) / (len(self._left) + 1)
        return dialer.dialer_to(address).connect(self, left, self._sockets)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        dialer = self._dialer
        dialer.names.answered_at(dialer.host, dialer.port, self._trying)
        return self.factory.buildProtocol(addr)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        if self._stopped:
            return
        shortage = shortage_in(reason.value, host_and_port(self._trying, self._dialer.port))
        if shortage is None:
            self._server_failure = reason
        if not self._left:
            if shortage is not None:
                # If another address has refused, the server is at fault, not the shortage.
                reason = self._server_failure or Failure(LocalShortage(shortage))
            self.factory.clientConnectionFailed(self, reason)
        elif self._starting:
            self._failed_at_once = True
        else:
            self._next()

    def stopConnecting(self) -> None:
        self._stopped = True
        resolving, connecting = self._resolving, self._connecting
        self._resolving = None
        if resolving is not None:
            resolving.cancel()
        elif connecting is not None:
            connecting.stopConnecting()

    def getDestination(self) -> Any:
        return TCPAddress(self._dialer.host, self._dialer.port)


class Handshaking(Protocol):
    """A protocol that counts as connected only when a handshake is over."""

    transport: Any
    handshake: Deferred[None] | None
    """Fires when the handshake is over, successful or not; ``None`` if there is no handshake."""


class EndpointDialer:
    """
    Connects by a Twisted client endpoint; a TLS handshake is part of the connect.

    :param lacked: returns what evproxy itself lacked for a look-up, given the seconds it took.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        lacked: Callable[[float], LocalShortage | None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._lacked = lacked

    def connect(
        self, factory: ClientFactory, timeout: float, sockets: PlainConnector
    ) -> IConnector:
        attempt = _EndpointAttempt(factory, self._endpoint, self._lacked)
        attempt.start(self._reactor, timeout)
        return attempt


class _EndpointAttempt(Attempt):
    """One attempt of an `EndpointDialer`."""

    def __init__(
        self,
        factory: ClientFactory,
        endpoint: IStreamClientEndpoint,
        lacked: Callable[[float], LocalShortage | None] | None,
    ) -> None:
        super().__init__(factory)
        self._endpoint = endpoint
        self._lacked = lacked
        self._deferred: Deferred[IProtocol] | None = None
        self._handshaking: Handshaking | None = None
        self._timer: IDelayedCall | None = None
        self._stopped = False

    def start(self, reactor: Any, timeout: float) -> None:
        self._timer = reactor.callLater(timeout, self._timed_out, timeout)
        self._deferred = maybeDeferred(self._endpoint.connect, self.factory)
        self._deferred.addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: Any) -> None:
        if protocol is None:
            self._failed(Failure(NoProtocol("its endpoint made no connection")))
            return
        # The protocol itself notifies its session when it is connected.
        handshake: Deferred[None] | None = getattr(protocol, "handshake", None)
        if handshake is None:
            self._cancel_timer()
        else:
            self._handshaking = protocol
            handshake.addCallback(self._handshake_over)

    def _handshake_over(self, result: None) -> None:
        self._handshaking = None
        self._cancel_timer()

    def _failed(self, reason: Failure) -> None:
        self._cancel_timer()
        if not self._stopped:
            lacked = self._what_lacked(0.0) if reason.check(DNSLookupError) else None
            failure = reason if lacked is None else Failure(lacked)
            self.factory.clientConnectionFailed(self, failure)

    def _what_lacked(self, seconds: float) -> LocalShortage | None:
        return None if self._lacked is None else self._lacked(seconds)

    def _timed_out(self, timeout: float) -> None:
        self._timer = None
        where = "" if self._handshaking is None else " in the TLS handshake"
        lacked = self._what_lacked(timeout) if self._handshaking is None else None
        self.stopConnecting()
        error = lacked or ConnectTimeout(f"timed out after {timeout:g} s{where}")
        self.factory.clientConnectionFailed(self, Failure(error))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stopConnecting(self) -> None:
        self._stopped = True
        self._cancel_timer()
        if self._handshaking is not None:
            self._handshaking.transport.abortConnection()
        elif self._deferred is not None:
            # The endpoint, and so what cancels it, may be a user's own.
            with _log.failuresHandled("Could not cancel a connect by an endpoint"):
                self._deferred.cancel()

    def getDestination(self) -> Any:
        return self._endpoint
