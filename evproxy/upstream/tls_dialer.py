"""Connects to an upstream server with TLS: the handshake is part of the connect."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

from evproxy.errors import ConnectTimeout, HandshakeFailed, SettingsError
from evproxy.escape import escaped
from evproxy.interfaces import Dialer, PlainConnector
from evproxy.model import UpstreamServer, proxy_version
from evproxy.settings import PoolTLS
from evproxy.sockets.tls_client import ClientTLS
from evproxy.sockets.tls_transport import TLSTransport
from evproxy.sockets.transport import SocketTransport
from evproxy.upstream.address import host_of, parse_upstream, without_zone
from evproxy.upstream.dialers import Attempt


def tls_name(settings: PoolTLS, server: UpstreamServer) -> str:
    """
    The name that the certificate of `server` must have, and that the handshake sends.

    :raises SettingsError: if there is none, or the endpoint has TLS of its own.
    """
    if server.client_endpoint is not None or parse_upstream(server.endpoint) is None:
        raise SettingsError(f"tls: {server.endpoint} is not HOST:PORT or unix:PATH")
    name = without_zone(settings.server_name) or host_of(server.endpoint)
    if not name and not settings.insecure_skip_verify:
        raise SettingsError(
            f"tls.server_name: a name is needed to verify {server.endpoint}, which has no host"
        )
    return name.removesuffix(".")


def check_tls(settings: PoolTLS, server: UpstreamServer, pool_version: int) -> None:
    """
    Check that TLS can be started to `server`.

    :param pool_version: the version of the PROXY header for servers that have none of their own.
    :raises SettingsError: if it cannot; the message says why, with the key's name.
    """
    tls_name(settings, server)
    if proxy_version(server, pool_version):
        raise SettingsError(
            f"send_proxy_protocol: {server.endpoint} would get the header inside TLS, "
            "where no server expects it"
        )


class TLSDialer:
    """
    Connects by `dialer`, and shakes hands for TLS, all within the timeout.

    :param reactor: the timer.
    :param dialer: connects a plain socket.
    :param tls: begins TLS.
    :param name: who the server must be.
    """

    def __init__(self, reactor: Any, dialer: Dialer, tls: ClientTLS, name: str) -> None:
        self._reactor = reactor
        self._dialer = dialer
        self._tls = tls
        self._name = name

    def connect(
        self, factory: ClientFactory, timeout: float, sockets: PlainConnector
    ) -> IConnector:
        attempt = TLSAttempt(factory, self._tls, self._name)
        attempt.start(self._reactor, self._dialer, timeout, sockets)
        return attempt


class _Shaking(Protocol):
    """Has the connection until the handshake is over."""

    def __init__(self, attempt: TLSAttempt) -> None:
        self._attempt = attempt

    def connectionMade(self) -> None:
        self._attempt.connected(self.transport)


class TLSAttempt(Attempt, ClientFactory):
    """One attempt of a `TLSDialer`; also the client factory of the plain connect."""

    noisy = False

    def __init__(self, factory: ClientFactory, tls: ClientTLS, name: str) -> None:
        super().__init__(factory)
        self._tls = tls
        self._name = name
        self._connector: IConnector | None = None
        self._transport: TLSTransport | None = None
        self._timer: IDelayedCall | None = None
        self._address: IAddress | None = None
        self._over = False

    def start(self, reactor: Any, dialer: Dialer, timeout: float, sockets: PlainConnector) -> None:
        """Connect within `timeout` seconds."""
        self._timer = reactor.callLater(timeout, self._timed_out, timeout)
        self._connector = dialer.connect(self, timeout, sockets)

    # What the plain connect calls.

    def buildProtocol(self, addr: IAddress | None) -> Any:
        self._address = addr
        return _Shaking(self)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._fail(reason)

    def connected(self, transport: Any) -> None:
        """The plain connection is made: shake hands on it."""
        if self._over:
            transport.abortConnection()
        elif isinstance(transport, SocketTransport):
            self._transport = self._tls.secured(transport, self._name, self._shaken)
            # A near server may answer before this returns.
            self._transport.start()
        else:
            transport.abortConnection()
            self._fail(Failure(HandshakeFailed("TLS needs epoll, which this system has not")))

    # How it ends.

    def _shaken(self, error: OSError | None) -> None:
        if self._over:
            return
        if error is None:
            self._end()
            transport = self._transport
            protocol = self.factory.buildProtocol(self._address)
            assert transport is not None
            transport.speak_to(protocol)
        else:
            why = error.strerror or "it was reset"
            self._fail(Failure(HandshakeFailed(f"TLS handshake failed: {escaped(why)}")))

    def _fail(self, reason: Failure) -> None:
        if not self._over:
            self._end()
            self.factory.clientConnectionFailed(self, reason)

    def _end(self) -> None:
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _timed_out(self, timeout: float) -> None:
        self._timer = None
        where = "" if self._transport is None else " in the TLS handshake"
        self._stop()
        error = ConnectTimeout(f"timed out after {timeout:g} s{where}")
        self.factory.clientConnectionFailed(self, Failure(error))

    def stopConnecting(self) -> None:
        if not self._over:
            self._stop()

    def _stop(self) -> None:
        self._end()
        if self._transport is not None:
            self._transport.abortConnection()
        elif self._connector is not None:
            self._connector.stopConnecting()

    def getDestination(self) -> Any:
        return None if self._connector is None else self._connector.getDestination()
