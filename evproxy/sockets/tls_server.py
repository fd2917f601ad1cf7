"""
TLS ended at a listener: which certificate a client gets, and what is asked of the client.

A `ServerContexts` is made of files, as a whole or not at all, and does not change.  A `ServerTLS`
has the one that new connections get, so that another can take its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from sys import intern

from cryptography import x509
from OpenSSL import SSL

from evproxy.errors import SettingsError
from evproxy.escape import escaped
from evproxy.model import TLSFacts
from evproxy.settings import ListenerTLS
from evproxy.sockets.tls_buffered import BufferedTLSChannel
from evproxy.sockets.tls_certificates import Certificate, read_certificate, read_pem, why
from evproxy.sockets.tls_channel import TLSChannel, TLSFault
from evproxy.sockets.tls_profile import profiled
from evproxy.sockets.tls_tap import Tap, TappedSocket
from evproxy.sockets.tls_transport import Shaken, TLSTransport
from evproxy.sockets.transport import SocketTransport

_VERIFY = {
    "none": SSL.VERIFY_NONE,
    "optional": SSL.VERIFY_PEER,
    "required": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}


class NoCommonProtocol(SSL.Error):
    """The client offers protocols (ALPN), and none of the listener's is among them."""


class ServerContexts:
    """
    The contexts of one listener, by the names of their certificates.

    Reads files: it may block.

    :param settings: the files, and what is asked of clients.
    :raises SettingsError: if one of the files cannot be used.

    `certificates` are in the order of the settings.
    """

    def __init__(self, settings: ListenerTLS) -> None:
        self._settings = settings
        self._protocols = [protocol.encode() for protocol in settings.alpn]
        self.certificates = tuple(map(read_certificate, settings.certificates))
        self._authorities = read_pem(settings.client_ca) if settings.client_ca else []
        made: dict[tuple[Certificate, ...], SSL.Context] = {}
        self._by_name: dict[str, SSL.Context] = {}
        for name, group in by_name(self.certificates).items():
            if group not in made:
                made[group] = self._context(group)
            self._by_name[name] = made[group]
        for certificate in set(self.certificates).difference(*made):
            # Those before it are for the same names; but its file must be right, too.
            certificate.use(profiled(SSL.TLS_SERVER_METHOD))
        # Sessions and tickets belong to the context that a connection begins with.
        self._first = self._context(() if settings.strict_sni else default_of(self.certificates))
        self._first.set_tlsext_servername_callback(self._choose)
        self._untapped: tuple[ServerContexts, Tap | None] = (self, None)

    def connection(self, sock: object, tap: Tap | None = None) -> SSL.Connection:
        """
        A connection on `sock`, or on none, that waits for a client.

        :param tap: gets its keys, if the settings have `keeps_keys`.
        """
        connection = SSL.Connection(self._first, sock)  # type: ignore[arg-type]
        connection.set_accept_state()
        # Its callbacks must live as long as the connection.
        connection.set_app_data(self._untapped if tap is None else (self, tap))
        return connection

    def knows(self, name: str) -> bool:
        """Whether a certificate is for `name`."""
        return self._found(name) is not None

    def _context(self, group: Iterable[Certificate]) -> SSL.Context:
        settings = self._settings
        context = profiled(SSL.TLS_SERVER_METHOD, settings.minimum)
        for certificate in group:
            certificate.use(context)
        context.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
        context.set_session_id(hashlib.sha256(repr(settings).encode()).digest())
        if settings.keeps_keys:
            context.set_keylog_callback(_tell_tap)
        if self._protocols:
            context.set_alpn_select_callback(self._select)
        if settings.client_ca:
            try:
                context.load_verify_locations(settings.client_ca)
            except SSL.Error as error:
                raise SettingsError(f"{escaped(settings.client_ca)}: {why(error)}") from None
            for authority in self._authorities:
                context.add_client_ca(authority)
        context.set_verify(_VERIFY[settings.client_certificate])
        return context

    def _choose(self, connection: SSL.Connection) -> None:
        name = connection.get_servername()
        context = self._found(name.decode("ascii", "replace")) if name else None
        if context is not None:
            connection.set_context(context)

    def _found(self, name: str) -> SSL.Context | None:
        name = name.lower().removesuffix(".")
        exact = self._by_name.get(name)
        return exact or self._by_name.get(f"*.{name.partition('.')[2]}")

    def _select(self, connection: SSL.Connection, offered: list[bytes]) -> bytes:
        for protocol in self._protocols:
            if protocol in offered:
                return protocol
        raise NoCommonProtocol([("", "", "the client speaks none of the protocols (ALPN)")])


def _tell_tap(connection: SSL.Connection, line: bytes) -> None:
    tap = connection.get_app_data()[1]
    if tap is not None:
        tap.secret(line)


def by_name(certificates: Sequence[Certificate]) -> dict[str, tuple[Certificate, ...]]:
    """The certificates for each name: the first of each kind of key, in their order."""
    found: dict[str, tuple[Certificate, ...]] = {}
    for certificate in certificates:
        for name in certificate.names:
            group = found.setdefault(name, ())
            if certificate.kind not in [other.kind for other in group]:
                found[name] = (*group, certificate)
    return found


def default_of(certificates: Sequence[Certificate]) -> tuple[Certificate, ...]:
    """The certificates for clients that ask for no name, or for one that there is none for."""
    first = certificates[0]
    return by_name(certificates)[first.names[0]] if first.names else (first,)


class ServerTLS:
    """
    Begins TLS with the clients of one listener.

    :param contexts: what new connections get; to be replaced as a whole.
    :param settings: what they were made of.
    """

    def __init__(self, contexts: ServerContexts, settings: ListenerTLS) -> None:
        self.contexts = contexts
        self.settings = settings

    def begin(
        self,
        transport: SocketTransport,
        received: bytes,
        shaken: Shaken,
        tap: Tap | None = None,
    ) -> None:
        """
        Begin TLS on the socket of `transport`, which a `TLSTransport` takes over.

        :param received: what was read from the socket and belongs to TLS.
        :param shaken: see `TLSTransport`.
        :param tap: sees what passes; ``None``: nobody does.
        """
        sock = transport.socket
        if tap is not None:
            if received:
                tap.received(received)
            connection = self.contexts.connection(None, tap)
            tapped = BufferedTLSChannel(TappedSocket(sock, tap), connection, received)
            TLSTransport(transport, tapped, shaken).start()
        elif received:
            connection = self.contexts.connection(None)
            channel: TLSChannel = BufferedTLSChannel(sock, connection, received)
            TLSTransport(transport, channel, shaken).start()
        else:
            channel = TLSChannel(sock, self.contexts.connection(sock))
            TLSTransport(transport, channel, shaken).wait()

    def facts(self, transport: TLSTransport) -> TLSFacts:
        """What is known of the client once the handshake is over."""
        return facts_of(transport.channel.connection, bool(self.settings.client_ca))

    def server_name(self, transport: TLSTransport) -> str:
        """The name that the client has asked for, whether or not the handshake succeeds."""
        name = transport.channel.connection.get_servername() or b""
        return escaped(name.decode("ascii", "replace"))

    def reason(self, transport: TLSTransport, error: OSError) -> str:
        """Why the handshake failed, in a few words."""
        if isinstance(error, TLSFault) and self.settings.strict_sni:
            name = transport.channel.connection.get_servername()
            if name is None:
                return "the client asked for no name"
            if not self.contexts.knows(name.decode("ascii", "replace")):
                return f"there is no certificate for {escaped(name.decode('ascii', 'replace'))}"
        return error.strerror or "it was reset"


_shared_facts = lru_cache(maxsize=256)(TLSFacts)
"""Few sessions differ in their facts: those of equal facts share one object."""


def facts_of(connection: SSL.Connection, asks_certificate: bool) -> TLSFacts:
    """What the handshake of `connection` has agreed on, and who its peer is."""
    subject = name = ""
    certificate = (
        connection.get_peer_certificate(as_cryptography=True) if asks_certificate else None
    )
    if certificate is not None:
        subject = escaped(certificate.subject.rfc4514_string())
        for each in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[:1]:
            name = escaped(str(each.value))
    return _shared_facts(
        intern(connection.get_protocol_version_name()),
        intern(connection.get_cipher_name() or ""),
        escaped((connection.get_servername() or b"").decode("ascii", "replace")),
        escaped(connection.get_alpn_proto_negotiated().decode("ascii", "replace")),
        subject,
        name,
    )
