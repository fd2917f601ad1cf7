"""
TLS started to upstream servers: whom to trust, and who evproxy says that it is.
"""

from __future__ import annotations

from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

from evproxy.config.canonical import is_address
from evproxy.errors import SettingsError
from evproxy.escape import escaped
from evproxy.settings import PoolTLS
from evproxy.sockets.tls_certificates import content_of, read_certificate, why
from evproxy.sockets.tls_channel import TLSChannel, TLSFault
from evproxy.sockets.tls_profile import profiled
from evproxy.sockets.tls_transport import Shaken, TLSTransport
from evproxy.sockets.transport import SocketTransport

VERIFY_ERRORS = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed",
    19: "its chain ends in a self-signed certificate that is not trusted",
    20: "its issuer is not known",
    21: "its issuer is not known",
    23: "it is revoked",
    24: "its issuer is not a certificate authority",
}
"""The common errors of OpenSSL's ``X509_V_ERR_*`` (``openssl/x509_vfy.h``)."""


MOST_NAMES = 1024
"""The most names of servers for which a session to resume is kept; the oldest goes first."""


class Expected:
    """
    Verifies that the server of one connection is `name`.

    `fault`: what is wrong with its certificate; empty if nothing is.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.fault = ""

    def verify(
        self, connection: SSL.Connection, certificate: X509, number: int, depth: int, ok: int
    ) -> bool:
        """Whether to go on: OpenSSL asks for each certificate of the chain, the server's last."""
        what = ""
        if not ok:
            what = VERIFY_ERRORS.get(number, f"OpenSSL error {number}")
        elif depth == 0 and not is_for(certificate, self.name):
            what = f"it is not for {self.name!r}"
        if what:
            self.fault = f"certificate verify failed: {what}"
        return not what


class ClientTLS:
    """
    Begins TLS with the servers of one pool.  Reads files.

    :raises SettingsError: if one of the files cannot be used; the message begins with the key.
    """

    def __init__(self, settings: PoolTLS) -> None:
        self._context = context = profiled(SSL.TLS_CLIENT_METHOD)
        if settings.certificate:
            try:
                read_certificate(settings.certificate).use(context)
            except SettingsError as error:
                raise SettingsError(f"tls.certificate: {error}") from None
        if settings.ca:
            try:
                # OpenSSL would wait for the writer of a FIFO.
                content_of(settings.ca)
                context.load_verify_locations(settings.ca)
            except SettingsError as error:
                raise SettingsError(f"tls.ca: {error}") from None
            except SSL.Error as error:
                what = why(error) or "expected a file of PEM certificates"
                raise SettingsError(f"tls.ca: {escaped(settings.ca)}: {what}") from None
        else:
            context.set_default_verify_paths()
        self._verifies = not settings.insecure_skip_verify
        if settings.alpn:
            context.set_alpn_protos([protocol.encode() for protocol in settings.alpn])
        # By the name of the server: the last connection that was verified has its session.
        self._last: dict[str, SSL.Connection] = {}

    def connection(self, sock: object, name: str) -> tuple[SSL.Connection, Expected]:
        """A connection on `sock`, or on none, and what verifies that its server is `name`."""
        connection = SSL.Connection(self._context, sock)  # type: ignore[arg-type]
        connection.set_connect_state()
        expected = Expected(name)
        if self._verifies:
            connection.set_verify(SSL.VERIFY_PEER, expected.verify)
        if name and not is_address(name):
            connection.set_tlsext_host_name(name.encode("idna"))
        last = self._last.get(name)
        session = last.get_session() if last is not None else None
        if session is not None:
            connection.set_session(session)
        return connection, expected

    def secured(self, transport: SocketTransport, name: str, shaken: Shaken) -> TLSTransport:
        """
        A transport that takes over the socket of `transport`; its `start` begins the handshake.

        :param shaken: see `TLSTransport`.
        """
        sock = transport.socket
        connection, expected = self.connection(sock, name)

        def over(error: OSError | None) -> None:
            if error is None:
                # The name moves to the end.
                self._last.pop(name, None)
                self._last[name] = connection
                if len(self._last) > MOST_NAMES:
                    del self._last[next(iter(self._last))]
            shaken(TLSFault(expected.fault) if error is not None and expected.fault else error)

        return TLSTransport(transport, TLSChannel(sock, connection), over)


def is_for(certificate: X509, name: str) -> bool:
    """Whether `certificate` is for `name` (RFC 9525), a host name or an IP address."""
    verify = verify_certificate_ip_address if is_address(name) else verify_certificate_hostname
    try:
        verify(certificate.to_cryptography(), name)
    except (CertificateError, VerificationError, ValueError):
        # ValueError: the certificate has invalid names.
        return False
    return True
