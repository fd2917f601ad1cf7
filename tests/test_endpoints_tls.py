"""TLS on either side: what is an end in order there, and what is not."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from twisted.internet.defer import Deferred
from twisted.internet.ssl import CertificateOptions, PrivateCertificate

from evproxy.model import Ending
from tests.peers import END, RESET, Peer
from tests.proxies import Proxied
from tests.secured import CLOSED, SecuredPeer
from tests.test_endpoints import passes
from tests.test_peers import said
from tests.test_probes_tls import DAY, Authority

pytestmark = pytest.mark.deadline(15)


@frozen
class Certificates:
    """A certificate for 127.0.0.1, whom to trust for it, and contexts of both sides."""

    pem: str
    authorities: str
    client: ssl.SSLContext
    server: ssl.SSLContext

    def offering(self, *protocols: str) -> ssl.SSLContext:
        """A client's context that offers `protocols` (ALPN)."""
        context = ssl.create_default_context(cafile=f"{self.authorities}/ca.pem")
        context.set_alpn_protocols(protocols)
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority.new()
    identity = authority.issue([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))], DAY)
    pem = directory / "server.pem"
    pem.write_bytes(
        identity.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + identity.certificate.public_bytes(serialization.Encoding.PEM)
    )
    trusted = directory / "trusted"
    trusted.mkdir()
    client = ssl.create_default_context(cafile=authority.save(trusted))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem)
    return Certificates(str(pem), str(trusted), client, server)


class Secured:
    """A proxy with TLS on one side: the secured peer, and the plain one."""

    def __init__(self, proxied: Proxied, certificates: Certificates) -> None:
        self.proxied = proxied
        self.certificates = certificates

    async def listen(self) -> None:
        """Start the proxy, which speaks TLS with clients."""
        pem = self.certificates.pem
        await self.proxied.start(listen=f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}")

    async def downstream(self) -> tuple[SecuredPeer, Peer]:
        """A client that speaks TLS, and its server."""
        await self.listen()
        client = SecuredPeer(self.proxied.client(), self.certificates.client)
        await client.handshake()
        return client, await self.proxied.upstream.accept()

    async def upstream(self, kind: str = "tls") -> tuple[SecuredPeer, Peer]:
        """A server that speaks TLS, and its client."""
        port, trusted = self.proxied.upstream.port, self.certificates.authorities
        trust = {"tls": "trustRoots", "ssl": "caCertsDir"}[kind]
        await self.proxied.start(upstreams=[f"{kind}:127.0.0.1:{port}:{trust}={trusted}"])
        client = self.proxied.client()
        accepted = await self.proxied.upstream.accept()
        server = SecuredPeer(accepted, self.certificates.server, serves=True)
        await server.handshake()
        return server, client

    async def start(self, side: str) -> tuple[SecuredPeer, Peer]:
        """The secured peer and the plain one; `side` is where the TLS is."""
        return await (self.downstream() if side == "downstream" else self.upstream())


@pytest.fixture
def secured(proxied: Proxied, certificates: Certificates) -> Secured:
    """A proxy to be started with TLS on a side."""
    return Secured(proxied, certificates)


both_sides = pytest.mark.parametrize("side", ["downstream", "upstream"])


@both_sides
async def test_tls_passes_bytes_both_ways(secured: Secured, side: str) -> None:
    """Much both ways arrives whole, and a close_notify is a FIN to the plain peer."""
    peer, plain = await secured.start(side)
    await passes(peer, plain)
    await passes(plain, peer)
    await peer.send(b"last")
    await peer.close()
    assert await plain.rest() == (b"last", END)
    plain.close()
    await secured.proxied.observed.ended()
    record = secured.proxied.observed.records[0]
    assert (record.reason.how, record.relay) == (Ending.FINISHED, "stream")


async def test_a_client_that_offers_protocols(secured: Secured) -> None:
    """A client that offers protocols (ALPN) is let in, and none is selected."""
    await secured.listen()
    offering = secured.certificates.offering("h2", "http/1.1")
    client = SecuredPeer(secured.proxied.client(), offering)
    await client.handshake()
    server = await secured.proxied.upstream.accept()
    assert client.protocol() is None
    await passes(client, server)


async def test_protocols_that_a_port_accepts(proxied: Proxied, certificates: Certificates) -> None:
    """A context that accepts protocols still selects one, and refuses those who offer others."""
    await proxied.start()
    own = PrivateCertificate.loadPEM(Path(certificates.pem).read_text())
    options = CertificateOptions(
        privateKey=own.privateKey.original,
        certificate=own.original,
        acceptableProtocols=[b"http/1.1"],
    )
    listening: Any = proxied.plane.listening
    port = listening.listenSSL(0, proxied.factory, options, interface="127.0.0.1")
    proxied.address = ("127.0.0.1", port.getHost().port)
    try:
        client = SecuredPeer(proxied.client(), certificates.offering("h2", "http/1.1"))
        await client.handshake()
        assert client.protocol() == "http/1.1"
        await passes(client, await proxied.upstream.accept())
        refused = SecuredPeer(proxied.client(), certificates.offering("h2"))
        with pytest.raises(ssl.SSLError):
            await refused.handshake()
    finally:
        port.stopListening()


@pytest.mark.peers("curl")
async def test_curl(secured: Secured) -> None:
    """curl, which offers protocols unless it is told not to, gets its page."""
    await secured.listen()
    url = f"https://127.0.0.1:{secured.proxied.address[1]}/"
    ca = f"{secured.certificates.authorities}/ca.pem"
    page = Deferred.fromCoroutine(
        said(secured.proxied.reactor, "curl", "-sS", "--fail", "--cacert", ca, url)
    )
    server = await secured.proxied.upstream.accept()
    assert (await server.receive(5)) == b"GET /"
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
    assert await page == "page"


async def test_the_older_kind_of_client_endpoint(secured: Secured) -> None:
    """``ssl:`` is as good as ``tls:`` for a server."""
    server, client = await secured.upstream("ssl")
    await client.send(b"question")
    assert await server.receive(8) == b"question"
    await server.send(b"answer")
    assert await client.receive(6) == b"answer"
    await server.close()
    assert await client.rest() == (b"", END)


@both_sides
async def test_a_fin_is_a_close_notify(secured: Secured, side: str) -> None:
    """When the plain peer ends in order, all it sent is delivered, then the close_notify."""
    peer, plain = await secured.start(side)
    await passes(plain, peer)
    await plain.send(b"last")
    plain.end()
    assert await peer.rest() == (b"last", CLOSED)
    await peer.close()
    await secured.proxied.observed.ended()
    assert secured.proxied.observed.records[0].reason.how is Ending.FINISHED


@both_sides
async def test_a_tls_stream_that_is_cut_is_a_reset(secured: Secured, side: str) -> None:
    """A FIN without a close_notify before it is no end in order (RFC 8446, 6.1): a reset."""
    peer, plain = await secured.start(side)
    await peer.send(b"half an ans")
    peer.peer.end()
    assert await plain.rest() == (b"half an ans", RESET)
    await secured.proxied.observed.ended()
    assert secured.proxied.observed.records[0].reason.how is Ending.RESET


@both_sides
async def test_a_tls_peer_that_resets_is_a_reset(secured: Secured, side: str) -> None:
    """A reset beneath the TLS is passed on as one."""
    peer, plain = await secured.start(side)
    await peer.send(b"x")
    assert await plain.receive(1) == b"x"
    peer.peer.reset()
    assert await plain.rest() == (b"", RESET)


@both_sides
async def test_a_reset_is_no_close_notify(secured: Secured, side: str) -> None:
    """When the plain peer resets, the TLS peer gets what came before and no close_notify."""
    peer, plain = await secured.start(side)
    await plain.send(b"half an ans")
    assert await peer.receive(11) == b"half an ans"
    plain.reset()
    received, end = await peer.rest()
    assert received == b""
    assert end != CLOSED
    await secured.proxied.observed.ended()
    assert secured.proxied.observed.records[0].reason.how is Ending.RESET


async def test_tls_on_both_sides(proxied: Proxied, certificates: Certificates) -> None:
    """TLS may end here and begin again."""
    pem, port = certificates.pem, proxied.upstream.port
    await proxied.start(
        listen=f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}",
        upstreams=[f"tls:127.0.0.1:{port}:trustRoots={certificates.authorities}"],
    )
    client = SecuredPeer(proxied.client(), certificates.client)
    await client.handshake()
    server = SecuredPeer(await proxied.upstream.accept(), certificates.server, serves=True)
    await server.handshake()
    await passes(client, server)
    await server.close()
    assert await client.rest() == (b"", CLOSED)
    await client.close()


async def test_a_server_that_cannot_be_trusted(
    proxied: Proxied, certificates: Certificates
) -> None:
    """A server with a certificate of somebody unknown gets nothing, and the client is reset."""
    await proxied.start(upstreams=[f"tls:127.0.0.1:{proxied.upstream.port}"])
    client = proxied.client()
    await client.send(b"secret")
    server = SecuredPeer(await proxied.upstream.accept(), certificates.server, serves=True)
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await server.receive(1)
    server.peer.close()
    assert await client.rest() == (b"", RESET)
