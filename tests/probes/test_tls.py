"""The ``tls`` check against servers with good and bad certificates."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, frozen
from cryptography import x509
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from evproxy.model import UpstreamServer
from evproxy.settings import HealthCheck
from evproxy.upstream.address import client_endpoint
from evproxy.upstream.probes.probe import probe_for
from evproxy.upstream.probes.tls import name_of
from tests.support.certificates import DAY, Authority, Identity


@implementer(IOpenSSLServerConnectionCreator)
@frozen
class ServerContext:
    """What Twisted's ``listenSSL`` takes."""

    context: SSL.Context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self.context, None)
        connection.set_accept_state()
        return connection


WEB: list[x509.GeneralName] = [x509.DNSName("web.internal")]
LOOPBACK: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]

Listen = Callable[[Identity], tuple[str, Deferred[str]]]


@pytest.fixture
def listen(reactor: Any) -> Iterator[Listen]:
    """A TLS server with an identity: its address, and the name it is asked for (SNI)."""
    ports: list[Any] = []

    def listening(identity: Identity) -> tuple[str, Deferred[str]]:
        asked: Deferred[str] = Deferred()
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(identity.certificate)
        context.use_privatekey(identity.key)

        def named(connection: SSL.Connection) -> None:
            if not asked.called:
                asked.callback((connection.get_servername() or b"").decode())

        context.set_tlsext_servername_callback(named)
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        port = reactor.listenSSL(0, factory, ServerContext(context), interface="127.0.0.1")
        ports.append(port)
        return f"127.0.0.1:{port.getHost().port}", asked

    yield listening
    for port in ports:
        port.stopListening()


async def checked(reactor: Any, address: str, check: HealthCheck) -> str | None:
    """What one check of the server at `address` finds."""
    result: Deferred[Any] = Deferred()
    probe = probe_for(reactor, check, partial(client_endpoint, reactor))
    probe.check(UpstreamServer(address), result.callback)
    reason: str | None = await result
    return reason


async def test_handshake(reactor: Any, listen: Listen) -> None:
    """Without verify, any certificate will do."""
    address, _ = listen(Authority.new().issue(WEB, -DAY))
    assert await checked(reactor, address, HealthCheck(kind="tls")) is None


@pytest.mark.parametrize("name", ["web.internal", "web.internal."])
async def test_verified(reactor: Any, listen: Listen, tmp_path: Path, name: str) -> None:
    """A certificate of the given authority, for the given name, is good; the name is sent."""
    authority = Authority.new()
    address, asked = listen(authority.issue(WEB, DAY))
    check = HealthCheck(kind="tls", verify=True, server_name=name, ca=authority.save(tmp_path))
    assert await checked(reactor, address, check) is None
    assert await asked == "web.internal"


async def test_verified_address(reactor: Any, listen: Listen, tmp_path: Path) -> None:
    """Without a name, the certificate has to be for the address."""
    authority = Authority.new()
    check = HealthCheck(kind="tls", verify=True, ca=authority.save(tmp_path))
    address, _ = listen(authority.issue(LOOPBACK, DAY))
    assert await checked(reactor, address, check) is None
    address, _ = listen(authority.issue(WEB, DAY))
    reason = "certificate verify failed: it is not for '127.0.0.1'"
    assert await checked(reactor, address, check) == reason


@pytest.mark.parametrize(
    ("server_name", "endpoint"),
    [("", "[fe80::1%eth0]:443"), ("fe80::1%eth0", "web.internal:443")],
)
def test_a_certificate_is_for_an_address_without_a_zone(server_name: str, endpoint: str) -> None:
    """The zone of an IPv6 address is in no certificate."""
    assert name_of(server_name, endpoint) == "fe80::1"


async def test_no_name(reactor: Any) -> None:
    """Where there is no name that a certificate could be for, the reason says so."""
    reason = await checked(reactor, "unix:/run/x", HealthCheck(kind="tls", verify=True))
    assert reason == "a name is needed to verify unix:/run/x, which has no host"


async def test_tls_within_tls(reactor: Any) -> None:
    """A server that is found later, and is spoken to in TLS already, is told why it is not well."""
    reason = await checked(reactor, "tls:127.0.0.1:1", HealthCheck(kind="tls"))
    assert reason == "a second TLS handshake inside tls:127.0.0.1:1 can never succeed"


async def test_wrong_name(reactor: Any, listen: Listen, tmp_path: Path) -> None:
    """A certificate for another name is refused."""
    authority = Authority.new()
    address, _ = listen(authority.issue(WEB, DAY))
    check = HealthCheck(
        kind="tls", verify=True, server_name="db.internal", ca=authority.save(tmp_path)
    )
    reason = "certificate verify failed: it is not for 'db.internal'"
    assert await checked(reactor, address, check) == reason


async def test_unknown_authority(reactor: Any, listen: Listen) -> None:
    """A certificate that nobody known issued is refused."""
    address, _ = listen(Authority.new().issue(WEB, DAY))
    check = HealthCheck(kind="tls", verify=True, server_name="web.internal")
    reason = "certificate verify failed: its issuer is not known"
    assert await checked(reactor, address, check) == reason


async def test_system_authority(
    reactor: Any, listen: Listen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system trusts is trusted, but not beside a file of authorities."""
    public, internal = Authority.new(), Authority.new()
    for name in ("public", "internal"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", public.save(tmp_path / "public"))
    address, _ = listen(public.issue(LOOPBACK, DAY))
    check = HealthCheck(kind="tls", verify=True)
    assert await checked(reactor, address, check) is None
    check = evolve(check, ca=internal.save(tmp_path / "internal"))
    reason = await checked(reactor, address, check)
    assert reason is not None
    assert reason.startswith("certificate verify failed: ")


async def test_expired(reactor: Any, listen: Listen, tmp_path: Path) -> None:
    """A certificate that has expired is refused."""
    authority = Authority.new()
    address, _ = listen(authority.issue(WEB, -DAY))
    check = HealthCheck(
        kind="tls", verify=True, server_name="web.internal", ca=authority.save(tmp_path)
    )
    reason = "certificate verify failed: it has expired"
    assert await checked(reactor, address, check) == reason


async def test_not_tls(reactor: Any) -> None:
    """A server that speaks something else is found."""

    class Chatty(Protocol):
        def connectionMade(self) -> None:
            self.transport.write(b"220 mail.example.org ready\r\n")  # type: ignore[union-attr]

    factory = Factory.forProtocol(Chatty)
    factory.noisy = False
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    try:
        address = f"127.0.0.1:{port.getHost().port}"
        reason = await checked(reactor, address, HealthCheck(kind="tls"))
        assert reason == "TLS: wrong version number"
    finally:
        port.stopListening()
