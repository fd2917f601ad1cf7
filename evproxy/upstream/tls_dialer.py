"""
Connects to an upstream server with TLS: the handshake is part of the connect.

Before the handshake, the server may get a PROXY header, and a request for TLS in its own protocol.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

from evproxy.errors import ConnectTimeout, HandshakeFailed, SettingsError
from evproxy.escape import escaped
from evproxy.interfaces import Dialer, PlainConnector
from evproxy.model import UpstreamServer
from evproxy.settings import PoolTLS
from evproxy.sockets.tls_client import ClientTLS
from evproxy.sockets.tls_transport import TLSTransport
from evproxy.sockets.transport import SocketTransport
from evproxy.upstream.address import host_of, parse_upstream, without_zone
from evproxy.upstream.dialers import Attempt
from evproxy.wire.postgres import SSL_REQUEST, agrees_to_tls


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


def request_before(settings: PoolTLS) -> bytes:
    """What asks the servers for TLS, in the protocol of `starttls`; empty: nothing."""
    return SSL_REQUEST if settings.starttls == "postgres" else b""


class TLSDialer:
    """
    Connects by `dialer`, and shakes hands for TLS, all within the timeout.

    :param reactor: the timer.
    :param dialer: connects a plain socket.
    :param tls: begins TLS.
    :param name: who the server must be.
    :param request: what asks the server for TLS, which `agrees_to_tls` must find accepted; empty:
        TLS begins at once.
    """

    def __init__(
        self, reactor: Any, dialer: Dialer, tls: ClientTLS, name: str, request: bytes = b""
    ) -> None:
        self._reactor = reactor
        self._dialer = dialer
        self._tls = tls
        self._name = name
        self._request = request

    def connect(
        self, factory: ClientFactory, timeout: float, sockets: PlainConnector
    ) -> IConnector:
        return self.connect_after(b"", factory, timeout, sockets)

    def connect_after(
        self, header: bytes, factory: ClientFactory, timeout: float, sockets: PlainConnector
    ) -> IConnector:
        """See `evproxy.interfaces.HeaderDialer`."""
        attempt = TLSAttempt(factory, self._tls, self._name, header, self._request)
        attempt.start(self._reactor, self._dialer, timeout, sockets)
        return attempt


class _Preparing(Protocol):
    """Has the connection until the handshake is over; sends what the server gets before that."""

    def __init__(self, attempt: TLSAttempt) -> None:
        self._attempt = attempt

    def connectionMade(self) -> None:
        self._attempt.connected(self, self.transport)

    def send(self, data: bytes) -> None:
        """Send `data`, and report it when the kernel has all of it."""
        transport: Any = self.transport
        transport.registerProducer(self, True)
        transport.write(data)
        if not transport.unsent:
            self.resumeProducing()

    def resumeProducing(self) -> None:
        """Everything is sent."""
        transport: Any = self.transport
        transport.unregisterProducer()
        self._attempt.sent()

    def pauseProducing(self) -> None:
        """There is nothing more to send."""

    def stopProducing(self) -> None:
        """The connection is lost."""

    def dataReceived(self, data: bytes) -> None:
        self._attempt.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._attempt.lost()


class TLSAttempt(Attempt, ClientFactory):
    """
    One attempt of a `TLSDialer`; also the client factory of the plain connect.

    :param factory: gets the connection after the handshake.
    :param tls, name, request: see `TLSDialer`.
    :param header: what the server gets first.
    """

    noisy = False

    def __init__(
        self, factory: ClientFactory, tls: ClientTLS, name: str, header: bytes, request: bytes
    ) -> None:
        super().__init__(factory)
        self._tls = tls
        self._name = name
        self._header = header
        self._request = request
        self._answer = b""
        self._plain: SocketTransport | None = None
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
        return _Preparing(self)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._fail(reason)

    def connected(self, protocol: _Preparing, transport: Any) -> None:
        """The plain connection is made: send what comes before the handshake."""
        if self._over:
            transport.abortConnection()
        elif isinstance(transport, SocketTransport):
            self._plain = transport
            before = self._header + self._request
            if before:
                protocol.send(before)
            else:
                self._shake()
        else:
            transport.abortConnection()
            self._fail(Failure(HandshakeFailed("TLS needs epoll, which this system has not")))

    def sent(self) -> None:
        """The server will get all that comes before the handshake."""
        if not (self._over or self._request):
            self._shake()

    def received(self, data: bytes) -> None:
        """The server sent `data` before the handshake."""
        if self._over:
            return
        self._answer += data
        try:
            if not self._request:
                raise HandshakeFailed("the server sent bytes before TLS began")
            if agrees_to_tls(self._answer):
                self._shake()
        except HandshakeFailed as error:
            self._give_up(error)

    def lost(self) -> None:
        """The connection is lost."""
        self._give_up(HandshakeFailed("the connection was lost before TLS began"))

    def _give_up(self, error: HandshakeFailed) -> None:
        if not self._over:
            assert self._plain is not None
            self._fail(Failure(error))
            self._plain.abortConnection()

    def _shake(self) -> None:
        assert self._plain is not None
        self._transport = self._tls.secured(self._plain, self._name, self._shaken)
        # A near server may answer before this returns.
        self._transport.start()

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
        where = ""
        if self._transport is not None:
            where = " in the TLS handshake"
        elif self._plain is not None and self._request:
            where = ", before the server's answer to SSLRequest"
        self._stop()
        error = ConnectTimeout(f"timed out after {timeout:g} s{where}")
        self.factory.clientConnectionFailed(self, Failure(error))

    def stopConnecting(self) -> None:
        if not self._over:
            self._stop()

    def _stop(self) -> None:
        self._end()
        connection = self._transport or self._plain
        if connection is not None:
            connection.abortConnection()
        elif self._connector is not None:
            self._connector.stopConnecting()

    def getDestination(self) -> Any:
        return None if self._connector is None else self._connector.getDestination()
