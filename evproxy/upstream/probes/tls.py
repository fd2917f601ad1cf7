"""
The ``tls`` check: a TLS handshake and, with `verify`, a check of the server's certificate.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions, platformTrust
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.config.canonical import is_address
from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer
from evproxy.settings import HealthCheck
from evproxy.sockets.tls_client import VERIFY_ERRORS
from evproxy.upstream.address import host_of, without_zone
from evproxy.upstream.probes.attempt import Attempt
from evproxy.upstream.reasons import reason_of


class TlsQuestion:
    """
    A server that completes a TLS handshake is healthy.

    With `verify`, the certificate must lead to a root that the system trusts, or, if `ca` is
    given, to a root in this PEM file.  It must be for `server_name`, by default the host of the
    server's address.  The handshake also sends `server_name` (SNI).  The constructor reads
    `ca`, once.
    """

    def __init__(self, check: HealthCheck) -> None:
        self._verify = check.verify
        self._server_name = check.server_name
        system = check.verify and not check.ca
        self._trust = CertificateOptions(trustRoot=platformTrust() if system else None)
        if check.ca:
            context = self._trust.getContext()
            context.set_verify(SSL.VERIFY_PEER)
            try:
                context.load_verify_locations(check.ca)
            except SSL.Error:
                raise SettingsError(
                    f"health_check.ca: expected a file of PEM certificates, got {check.ca!r}"
                ) from None

    def __call__(
        self, attempt: Attempt, endpoint: IStreamClientEndpoint, server: UpstreamServer
    ) -> Deferred[Any]:
        refuse_tls(server.endpoint)
        if self._verify:
            name = name_of(self._server_name, server.endpoint)
            handshake = _Handshake(attempt, name)
        else:
            name = without_zone(self._server_name) or host_of(server.endpoint)
            name = name.removesuffix(".")
            handshake = _Handshake(attempt, None)
        sent = name.encode("idna") if name and not is_address(name) else b""
        creator = _ConnectionCreator(self._trust.getContext(), sent, handshake)
        factory = Factory.forProtocol(lambda: handshake)
        factory.noisy = False
        return wrapClientTLS(creator, endpoint).connect(factory)


def name_of(server_name: str, endpoint: str) -> str:
    """
    The name that the certificate of the server at `endpoint` must have.

    :raises SettingsError: if there is no `server_name` and no host in `endpoint`.
    """
    name = without_zone(server_name) or host_of(endpoint)
    if not name:
        raise SettingsError(f"a name is needed to verify {endpoint}, which has no host")
    # Names in handshakes and certificates do not end in a dot (RFC 6066, 3).
    return name.removesuffix(".")


def refuse_tls(endpoint: str) -> None:
    """Raise `SettingsError` if a connection to `endpoint` already uses TLS."""
    if endpoint.startswith(("ssl:", "tls:")):
        raise SettingsError(f"a second TLS handshake inside {endpoint} can never succeed")


@implementer(IHandshakeListener)
class _Handshake(Protocol):
    """Decides when the handshake is complete; `name` is the name the certificate must have."""

    def __init__(self, attempt: Attempt, name: str | None) -> None:
        self._attempt = attempt
        self._name = name

    def handshakeCompleted(self) -> None:
        transport: Any = self.transport
        reason = None
        if self._name is not None:
            reason = identity_problem(transport.getHandle(), self._name)
        self._attempt.decide(reason, transport.loseConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # `reason` comes from the TLS layer; the transport below only reports a close.
        if reason.check(ConnectionDone, ConnectionLost):
            self._attempt.decide("closed by the server during the TLS handshake")
        else:
            self._attempt.decide(reason_of(reason))

    def certificate_refused(self, number: int) -> None:
        """OpenSSL refuses the certificate with the error `number`."""
        what = VERIFY_ERRORS.get(number, f"OpenSSL error {number}")
        # OpenSSL is on the stack: let it send an alert and fail the handshake itself.
        self._attempt.decide(f"certificate verify failed: {what}", lambda: None)


@implementer(IOpenSSLClientConnectionCreator)
class _ConnectionCreator:
    def __init__(self, context: SSL.Context, name: bytes, handshake: _Handshake) -> None:
        self._context = context
        self._name = name
        self._handshake = handshake

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_connect_state()
        if self._name:
            connection.set_tlsext_host_name(self._name)
        if connection.get_verify_mode() != SSL.VERIFY_NONE:
            connection.set_verify(SSL.VERIFY_PEER, self._verified)
        return connection

    def _verified(
        self, connection: SSL.Connection, certificate: X509, number: int, depth: int, ok: int
    ) -> bool:
        if not ok:
            self._handshake.certificate_refused(number)
        return bool(ok)


def identity_problem(connection: SSL.Connection, name: str) -> str | None:
    """``None`` if the peer's certificate is for `name` (RFC 9525), else the reason."""
    verify = verify_ip_address if is_address(name) else verify_hostname
    try:
        verify(connection, name)
    except (CertificateError, VerificationError, ValueError):
        # ValueError: the certificate has invalid names.
        return f"certificate verify failed: it is not for {name!r}"
    return None
