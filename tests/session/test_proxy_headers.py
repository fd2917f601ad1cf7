"""PROXY headers that come in, and those that go out."""

from __future__ import annotations

from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.defer import Deferred

from evproxy import Timeouts, UpstreamServer
from evproxy.errors import ProxyHeaderError
from evproxy.model import ConnectionInfo, Ending, Side
from evproxy.wire.proxy_protocol import (
    InetAddress,
    ProxyHeader,
    ProxyHeaderReader,
    Ssl,
    Tlvs,
    UnixAddress,
    header_bytes,
)
from tests.support.peers import END, RESET, Listening, Peer, connect, converse, turn
from tests.support.proxies import Proxied
from tests.support.tls import TLSPeer, context_of

pytestmark = pytest.mark.deadline(20)

CLIENT, BALANCER = InetAddress("192.0.2.7", 50122), InetAddress("192.0.2.1", 443)
CLIENT_6, BALANCER_6 = InetAddress("2001:db8::7", 50122), InetAddress("2001:db8::1", 443)
CUSTOM = (0xE5, b"custom")

HEADERS = {
    "v1": ProxyHeader(1, CLIENT, BALANCER),
    "v1-ipv6": ProxyHeader(1, CLIENT_6, BALANCER_6),
    "v2": ProxyHeader(2, CLIENT, BALANCER),
    "v2-ipv6": ProxyHeader(2, CLIENT_6, BALANCER_6, tlvs=Tlvs((CUSTOM,)), checksum=True),
}
WITHOUT_ADDRESS = {
    "v1": b"PROXY UNKNOWN\r\n",
    "v1-more": b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
    "v2-local": header_bytes(ProxyHeader(2, local=True)),
    "v2-unspec": header_bytes(ProxyHeader(2)),
}


async def behind_proxy(proxied: Proxied, **settings: Any) -> None:
    """Start the proxy; every client must send a header."""
    await proxied.start(accept_proxy_protocol_from=["127.0.0.0/8"], **settings)


async def header_at(server: Peer) -> ProxyHeader:
    """The header that came to `server`."""
    reader = ProxyHeaderReader()
    header = None
    while header is None:
        header = reader.feed(await server.receive(1))
    return header


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("pieces", ["whole", "bytes"])
async def test_a_header_that_comes_in(proxied: Proxied, name: str, pieces: str) -> None:
    """The client is the one in the header, and the server gets only what comes after it."""
    await behind_proxy(proxied)
    header = HEADERS[name]
    client = proxied.client()
    data = header_bytes(header) + b"question"
    if pieces == "whole":
        await client.send(data)
    else:
        for byte in data:
            await client.send(bytes([byte]))
            await turn(proxied.reactor)
    server = await proxied.upstream.accept()
    assert await server.receive(8) == b"question"
    await server.send(b"answer")
    assert await client.receive(6) == b"answer"
    [session] = proxied.admission.sessions
    assert session.info.via.startswith("127.0.0.1:")
    assert session.info.header is not None
    client.end()
    assert await server.rest() == (b"", END)
    server.end()
    assert await client.rest() == (b"", END)
    await proxied.observed.ended()
    [record] = proxied.observed.records
    host = "[2001:db8::7]" if "ipv6" in name else "192.0.2.7"
    assert record.peer == f"{host}:50122"
    assert record.bytes_to_upstream == len(b"question")


@pytest.mark.parametrize("name", WITHOUT_ADDRESS)
async def test_a_header_without_addresses(proxied: Proxied, name: str) -> None:
    """The address of the socket counts."""
    await behind_proxy(proxied)
    client = proxied.client()
    await client.send(WITHOUT_ADDRESS[name])
    server = await proxied.upstream.accept()
    await converse(client, server)
    [session] = proxied.admission.sessions
    assert session.info.peer_host == "127.0.0.1"
    assert session.info.peer_port == client.socket.getsockname()[1]


async def test_a_unix_client_behind_a_header(proxied: Proxied) -> None:
    """The path of a client in the header is its address in the log."""
    await behind_proxy(proxied)
    client = proxied.client()
    unix = UnixAddress(b"/run/client\n")
    await client.send(header_bytes(ProxyHeader(2, unix, UnixAddress(b"/run/listener"))))
    await proxied.upstream.accept()
    [status] = proxied.factory.sessions()
    assert status.peer == "/run/client\\n"


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"GET / HTTP/1.1\r\n", "no PROXY header: the connection begins with 'GET / HTTP/1"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 050 443\r\n", "wrong PROXY header of version 1: "),
        (header_bytes(HEADERS["v2-ipv6"])[:-1] + b"!", "wrong PROXY header of version 2: its CRC"),
    ],
)
async def test_what_is_no_header(proxied: Proxied, sent: bytes, error: str) -> None:
    """The client is reset at once, and the record says why; no server is connected."""
    await behind_proxy(proxied)
    client = proxied.client()
    await client.send(sent)
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert (record.reason.by, record.reason.how) == (Side.PROXY, Ending.REFUSED)
    assert record.error.startswith(error)
    assert record.attempts == 0


async def test_a_header_that_does_not_come(proxied: Proxied) -> None:
    """A client that sends half of it is reset after the handshake timeout."""
    await behind_proxy(proxied, timeouts=Timeouts(handshake=0.2))
    client = proxied.client()
    await client.send(b"PROXY TCP4 ")
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert (record.reason.by, record.reason.how) == (Side.PROXY, Ending.HANDSHAKE)
    assert record.error == "the client did not send its PROXY header within 0.2 s"


async def test_a_client_that_ends_in_its_header(proxied: Proxied) -> None:
    """Nothing more can come: the client is reset at once."""
    await behind_proxy(proxied)
    client = proxied.client()
    await client.send(b"PROXY TCP4 ")
    client.end()
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert record.reason.how is Ending.REFUSED
    assert record.error == "the client ended its stream before its PROXY header was complete"


@pytest.mark.parametrize("way", ["reset", "end"])
async def test_a_client_that_leaves_before_its_header(proxied: Proxied, way: str) -> None:
    """It has left, like any client before it is connected."""
    await behind_proxy(proxied)
    client = proxied.client()
    await turn(proxied.reactor)
    getattr(client, way)()
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.LEFT


async def test_a_header_from_somebody_else(proxied: Proxied) -> None:
    """Of a client that is not listed no header is looked for: its bytes go to the server."""
    await proxied.start(accept_proxy_protocol_from=["192.0.2.0/24"])
    client, server = await proxied.pair()
    data = header_bytes(HEADERS["v2"])
    await client.send(data)
    assert await server.receive(len(data)) == data
    [session] = proxied.admission.sessions
    assert session.info == ConnectionInfo("127.0.0.1", client.socket.getsockname()[1], "test")


async def test_the_end_of_a_client_after_its_header(proxied: Proxied) -> None:
    """A client that ends its stream right after the header and a question gets its answer."""
    await behind_proxy(proxied)
    client = proxied.client()
    await client.send(header_bytes(HEADERS["v2"]) + b"question")
    client.end()
    server = await proxied.upstream.accept()
    assert await server.rest() == (b"question", END)
    await server.send(b"answer")
    server.end()
    assert await client.rest() == (b"answer", END)
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.FINISHED


async def test_more_than_the_intake_holds_after_a_header(proxied: Proxied) -> None:
    """Bytes behind a header are kept up to the bound, and none is lost."""
    await behind_proxy(proxied)
    client = proxied.client()
    data = bytes(range(256)) * 1024
    sending = Deferred.fromCoroutine(client.send(header_bytes(HEADERS["v2"]) + data))
    server = await proxied.upstream.accept()
    assert await server.receive(len(data)) == data
    await sending
    await converse(client, server)


@pytest.mark.parametrize("version", [1, 2])
async def test_a_header_that_goes_out(proxied: Proxied, version: int) -> None:
    """The server gets the client's address first, and then the client's bytes."""
    await proxied.start(send_proxy_protocol=version)
    client = proxied.client()
    await client.send(b"question")
    server = await proxied.upstream.accept()
    header = await header_at(server)
    assert header.version == version
    assert header.source == InetAddress(*client.socket.getsockname())
    assert header.destination == InetAddress(*proxied.address)
    [session] = proxied.admission.sessions
    unique_id = session.unique_id.encode() if version == 2 else None
    assert header.tlvs.unique_id == unique_id
    assert await server.receive(8) == b"question"
    await converse(client, server)


async def test_a_header_without_a_word_of_the_client(proxied: Proxied) -> None:
    """A server that speaks first gets the header before the client has sent anything."""
    await proxied.start(send_proxy_protocol=2)
    client, server = await proxied.pair()
    header = await header_at(server)
    assert header.source == InetAddress(*client.socket.getsockname())
    await server.send(b"220 ready")
    assert await client.receive(9) == b"220 ready"


async def test_a_header_of_one_server(proxied: Proxied) -> None:
    """A server may have a version of its own."""
    server = UpstreamServer(f"127.0.0.1:{proxied.upstream.port}", send_proxy_protocol=0)
    await proxied.start(upstreams=[server], send_proxy_protocol=2)
    await converse(*await proxied.pair())


async def test_a_header_between_unix_sockets(proxied: Proxied, tmp_path: Any) -> None:
    """A client of a UNIX socket is passed on as one."""
    await proxied.start(listen=f"unix:{tmp_path}/listener", send_proxy_protocol=2)
    client, server = await proxied.pair()
    header = await header_at(server)
    assert header.source == UnixAddress(b"")
    assert header.destination == UnixAddress(f"{tmp_path}/listener".encode())
    await converse(client, server)


async def test_a_header_to_a_unix_server(proxied: Proxied, tmp_path: Any) -> None:
    """A server at a path gets the header of a TCP client."""
    upstream = Listening.unix(proxied.reactor, f"{tmp_path}/server")
    proxied.closes(upstream)
    await proxied.start(upstreams=[f"unix:{tmp_path}/server"], send_proxy_protocol=1)
    client = proxied.client()
    server = await upstream.accept()
    header = await header_at(server)
    assert header.source == InetAddress(*client.socket.getsockname())
    await converse(client, server)


async def test_a_header_that_is_passed_on(proxied: Proxied) -> None:
    """The addresses and the TLVs of the header that came in go out, unknown ones unchanged."""
    await behind_proxy(proxied, send_proxy_protocol=2)
    client = proxied.client()
    tlvs = Tlvs.of(custom=[CUSTOM], authority="example.org", unique_id=b"theirs")
    await client.send(header_bytes(ProxyHeader(2, CLIENT, BALANCER, tlvs=tlvs)) + b"?")
    server = await proxied.upstream.accept()
    reader = ProxyHeaderReader()
    # The question was there already: it takes no packet of its own.
    header = reader.feed(await server.some())
    assert header is not None
    assert reader.rest == b"?"
    assert (header.source, header.destination) == (CLIENT, BALANCER)
    assert sorted(header.tlvs) == sorted(tlvs)


async def test_a_local_header_that_is_passed_on(proxied: Proxied) -> None:
    """A health check of the proxy before is a session of that proxy."""
    await behind_proxy(proxied, send_proxy_protocol=2)
    client = proxied.client()
    await client.send(header_bytes(ProxyHeader(2, local=True, tlvs=Tlvs((CUSTOM,)))))
    server = await proxied.upstream.accept()
    header = await header_at(server)
    assert header.source == InetAddress(*client.socket.getsockname())
    assert CUSTOM in header.tlvs


@pytest.mark.parametrize("proxied", ["tls-client-1.2", "tls-client-1.3"], indirect=True)
async def test_a_header_about_tls_that_ends_here(proxied: Proxied) -> None:
    """The server is told how the client spoke TLS, and not what a header before that said."""
    await behind_proxy(proxied, send_proxy_protocol=2)
    assert proxied.certificates is not None
    theirs = Tlvs.of(ssl=Ssl(version="TLSv1.0"), unique_id=b"theirs")
    header = header_bytes(ProxyHeader(2, CLIENT, BALANCER, tlvs=theirs))
    plain = proxied.closes(connect(proxied.reactor, proxied.address))
    context = context_of(proxied.certificates, proxied.tls_version, serves=False)
    context.set_verify(SSL.VERIFY_NONE)
    client = TLSPeer(
        proxied.reactor, plain.socket, context, serves=False, name="a.example.org", before=header
    )
    await client.send(b"?")
    server = await proxied.upstream.accept()
    found = await header_at(server)
    assert (found.source, found.destination) == (CLIENT, BALANCER)
    assert found.tlvs.authority == "a.example.org"
    assert found.tlvs.unique_id == b"theirs"
    assert found.tlvs.ssl is not None
    assert found.tlvs.ssl.version == f"TLSv{proxied.tls_version}"
    assert found.tlvs.ssl.cipher
    assert not found.tlvs.ssl.certificate_verified
    assert await server.receive(1) == b"?"


def test_a_header_is_an_error_of_evproxy() -> None:
    """The reader's error is one that refuses a client without a traceback."""
    with pytest.raises(ProxyHeaderError):
        ProxyHeaderReader().feed(b"x")
