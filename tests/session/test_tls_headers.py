"""PROXY headers beside TLS: before the TLS of a server, and inside that of a proxy."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from evproxy.config.document import parse
from evproxy.config.reading import Surroundings
from evproxy.errors import SettingsError
from evproxy.model import Ending, UpstreamServer
from evproxy.settings import HealthCheck, PoolTLS, Timeouts
from evproxy.upstream.pool.parts import probes_on
from evproxy.wire.proxy_protocol import (
    InetAddress,
    ProxyHeader,
    Ssl,
    SslClient,
    Tlvs,
    header_bytes,
)
from tests.session.test_proxy_headers import header_at
from tests.session.test_tls_handshakes import Noting
from tests.support.peers import Peer, converse, turn
from tests.support.proxies import Proxied
from tests.support.tls import TLSPeer

pytestmark = [pytest.mark.deadline(15), pytest.mark.every_reactor, pytest.mark.oldest_twisted]

to_servers = pytest.mark.parametrize("proxied", ["tls-server-1.2", "tls-server-1.3"], indirect=True)
from_clients = pytest.mark.parametrize(
    "proxied", ["tls-client-1.2", "tls-client-1.3"], indirect=True
)

CLIENT, BALANCER = InetAddress("192.0.2.7", 5000), InetAddress("192.0.2.8", 443)
EVERYBODY = ("127.0.0.1",)


@to_servers
@pytest.mark.parametrize("version", [1, 2])
async def test_a_server_with_tls_gets_the_header_before_tls(proxied: Proxied, version: int) -> None:
    """As HAProxy's ``accept-proxy ssl`` and nginx's ``proxy_protocol ssl`` expect it."""
    proxied.upstream.peer = Peer
    await proxied.start(send_proxy_protocol=version)
    client = proxied.client()
    plain = await proxied.upstream.accept()
    header = await header_at(plain)
    assert header.version == version
    assert isinstance(header.source, InetAddress)
    assert header.source.port == client.socket.getsockname()[1]
    assert proxied.server_context is not None
    server = TLSPeer(proxied.reactor, plain.socket, proxied.server_context, serves=True)
    await server.ready()
    await converse(client, server)


@to_servers
async def test_a_server_with_tls_that_fails_before_the_next(proxied: Proxied) -> None:
    """Each server that is tried gets a header of its own."""
    proxied.upstream.peer = Peer
    port = proxied.upstream.port
    await proxied.start(send_proxy_protocol=1, upstreams=[f"127.0.0.1:{port}", f"localhost:{port}"])
    proxied.client()
    first = await proxied.upstream.accept()
    assert (await header_at(first)).version == 1
    first.reset()
    second = await proxied.upstream.accept()
    assert (await header_at(second)).version == 1


@to_servers
@pytest.mark.parametrize("version", [1, 2])
async def test_checks_send_a_header_before_tls(proxied: Proxied, version: int) -> None:
    """It says that evproxy asks for itself."""
    proxied.upstream.peer = Peer
    assert proxied.certificates is not None
    tls = PoolTLS(ca=f"{proxied.certificates.authorities}/ca.pem")
    probe = probes_on(proxied.reactor, None, version, tls)(HealthCheck())
    checked: Deferred[Any] = Deferred()
    probe.check(UpstreamServer(f"127.0.0.1:{proxied.upstream.port}"), checked.callback)
    plain = await proxied.upstream.accept()
    header = await header_at(plain)
    assert header.source is None
    assert proxied.server_context is not None
    server = TLSPeer(proxied.reactor, plain.socket, proxied.server_context, serves=True)
    await server.ready()
    assert await checked is None


def about(**more: Any) -> bytes:
    """A header of version 2 from a proxy."""
    return header_bytes(ProxyHeader(2, CLIENT, BALANCER, tlvs=Tlvs.of(**more)))


@from_clients
@pytest.mark.parametrize("pieces", [1, 1000])
async def test_a_header_inside_tls(proxied: Proxied, pieces: int) -> None:
    """The client in the header is the client, for routes and in the record."""
    await proxied.start(accept_proxy_protocol_from=EVERYBODY, inside_tls=True, factory=Noting)
    client = proxied.client()
    sent = about() + b"question"
    for place in range(0, len(sent), pieces):
        await client.send(sent[place : place + pieces])
        await turn(proxied.reactor)
    server = await proxied.upstream.accept()
    assert await server.receive(8) == b"question"
    await converse(client, server)
    assert isinstance(proxied.factory, Noting)
    [info] = proxied.factory.infos
    assert (info.peer_host, info.peer_port) == (CLIENT.host, CLIENT.port)
    assert info.header_inside_tls
    assert info.tls is not None
    client.end()
    server.end()
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert record.peer == "192.0.2.7:5000"
    assert record.via.startswith("127.0.0.1:")
    assert record.relay == "socket"


@from_clients
async def test_somebody_else_sends_no_header_inside_tls(proxied: Proxied) -> None:
    """A client that is not listed is looked at for none."""
    await proxied.start(accept_proxy_protocol_from=["192.0.2.1"], inside_tls=True)
    client = proxied.client()
    await client.send(about())
    server = await proxied.upstream.accept()
    assert await server.receive(len(about())) == about()


@from_clients
async def test_what_is_no_header_inside_tls(proxied: Proxied) -> None:
    """The client is refused, as without TLS."""
    await proxied.start(accept_proxy_protocol_from=EVERYBODY, inside_tls=True)
    client = proxied.client()
    await client.send(b"GET / HTTP/1.1\r\n\r\n")
    await client.rest()
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert record.reason.how is Ending.REFUSED
    assert record.error.startswith("no PROXY header: ")


@from_clients
async def test_no_header_inside_tls_in_time(proxied: Proxied) -> None:
    """The handshake timeout counts for both."""
    await proxied.start(
        accept_proxy_protocol_from=EVERYBODY,
        inside_tls=True,
        timeouts=Timeouts(handshake=0.2),
    )
    client = proxied.client()
    assert isinstance(client, TLSPeer)
    await client.ready()
    await client.rest()
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert record.reason.how is Ending.HANDSHAKE
    assert record.error == "the client did not send its PROXY header within 0.2 s"


@from_clients
@pytest.mark.parametrize("pieces", [True, False])
async def test_a_header_inside_tls_is_passed_on(proxied: Proxied, pieces: bool) -> None:
    """The server hears of the client's TLS, and not of the proxy's."""
    await proxied.start(
        accept_proxy_protocol_from=EVERYBODY, inside_tls=True, send_proxy_protocol=2
    )
    theirs = {"ssl": Ssl(client=SslClient.TLS, version="TLSv1.1"), "authority": "a.example"}
    client = proxied.client()
    await client.send(about(**theirs if pieces else {}))
    found = await header_at(await proxied.upstream.accept())
    assert (found.source, found.destination) == (CLIENT, BALANCER)
    assert found.tlvs.unique_id
    if pieces:
        assert found.tlvs.ssl is not None
        assert found.tlvs.ssl.version == "TLSv1.1"
        assert found.tlvs.authority == "a.example"
    else:
        assert found.tlvs.ssl is None
        assert found.tlvs.authority is None


@from_clients
@pytest.mark.parametrize("by_proxy", [None, "TLSv1.1"])
async def test_a_header_without_addresses_inside_tls(
    proxied: Proxied, by_proxy: str | None
) -> None:
    """It is about a client all the same, whose TLS only the proxy knows."""
    await proxied.start(
        accept_proxy_protocol_from=EVERYBODY,
        inside_tls=True,
        send_proxy_protocol=2,
        factory=Noting,
    )
    client = proxied.client()
    if by_proxy is None:
        await client.send(b"PROXY UNKNOWN\r\n")
    else:
        theirs = Tlvs.of(ssl=Ssl(client=SslClient.TLS, version=by_proxy))
        # ``PROXY`` and UNSPEC, which evproxy itself never sends, in place of ``LOCAL``.
        await client.send(
            header_bytes(ProxyHeader(2, tlvs=theirs)).replace(b"\x20\0", b"\x21\0", 1)
        )
    found = await header_at(await proxied.upstream.accept())
    assert (found.tlvs.ssl and found.tlvs.ssl.version) == by_proxy
    assert isinstance(proxied.factory, Noting)
    assert proxied.factory.infos[0].header_inside_tls


@from_clients
async def test_a_local_header_inside_tls(proxied: Proxied) -> None:
    """It describes no client: the proxy is the client, and the TLS is its own."""
    await proxied.start(
        accept_proxy_protocol_from=EVERYBODY, inside_tls=True, send_proxy_protocol=2
    )
    client = proxied.client()
    await client.send(header_bytes(ProxyHeader(2, local=True)))
    found = await header_at(await proxied.upstream.accept())
    assert isinstance(found.source, InetAddress)
    assert found.source.host == "127.0.0.1"
    assert found.tlvs.ssl is not None
    assert found.tlvs.ssl.version == f"TLSv{proxied.tls_version}"


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        (
            'tls = {certificates = ["a.pem"]}',
            "it has no effect without accept_proxy_protocol_from",
        ),
        ('accept_proxy_protocol_from = ["::1"]', "it has no effect without tls"),
        (
            'accept_proxy_protocol_from = ["::1"]\ntls = {certificates = ["a.pem"]}\n'
            'preread = "postgres"',
            "clients of this preread begin TLS after their first message",
        ),
    ],
)
def test_contradictions(keys: str, fault: str) -> None:
    """The file is refused, with the key."""
    text = f'[[listeners]]\ninside_tls = true\n{keys}\n[pools.web]\nupstreams = ["127.0.0.1:80"]'
    with pytest.raises(SettingsError) as raised:
        parse(text, Surroundings())
    assert f"listeners[0].inside_tls: {fault}" in str(raised.value)
