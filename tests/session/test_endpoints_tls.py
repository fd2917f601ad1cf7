"""TLS on either side: which endings are in order, and which are not."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.logger import LogLevel, capturedLogs, formatEvent

from evproxy.model import Ending, Phase
from evproxy.observe.log import SessionLog, TroubleLog
from tests.support.bulk import passes
from tests.support.certificates import Certificates
from tests.support.peers import END, RESET, Listening, Peer
from tests.support.programs import said
from tests.support.proxies import Proxied
from tests.support.secured import CLOSED, Secured, SecuredPeer, both_sides

pytestmark = [pytest.mark.deadline(15), pytest.mark.oldest_twisted]


@both_sides
async def test_tls_passes_bytes_both_ways(secured: Secured, side: str) -> None:
    """Many bytes arrive whole both ways, and a close_notify becomes a FIN for the plain peer."""
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
    """evproxy admits a client that offers protocols (ALPN), and selects none."""
    await secured.listen()
    offering = secured.certificates.offering("h2", "http/1.1")
    client = SecuredPeer(secured.proxied.client(), offering)
    await client.handshake()
    server = await secured.proxied.upstream.accept()
    assert client.protocol() is None
    await passes(client, server)


async def test_protocols_that_a_port_accepts(proxied: Proxied, certificates: Certificates) -> None:
    """A context with accepted protocols selects one, and refuses clients that offer others."""
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
    """curl, which offers protocols by default, gets its page."""
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
    """A server may be an ``ssl:`` endpoint as well as a ``tls:`` endpoint."""
    server, client = await secured.upstream("ssl")
    await client.send(b"question")
    assert await server.receive(8) == b"question"
    await server.send(b"answer")
    assert await client.receive(6) == b"answer"
    await server.close()
    assert await client.rest() == (b"", END)


@both_sides
async def test_a_fin_is_a_close_notify(secured: Secured, side: str) -> None:
    """When the plain peer ends in order, the TLS peer gets all bytes and then a close_notify."""
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
    """A FIN without a close_notify counts as a reset, not as an end in order (RFC 8446, 6.1)."""
    peer, plain = await secured.start(side)
    await peer.send(b"half an ans")
    peer.peer.end()
    assert await plain.rest() == (b"half an ans", RESET)
    await secured.proxied.observed.ended()
    assert secured.proxied.observed.records[0].reason.how is Ending.RESET


@both_sides
async def test_a_tls_peer_that_resets_is_a_reset(secured: Secured, side: str) -> None:
    """evproxy passes on a TCP reset beneath TLS as a reset."""
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
    """Both the client and the server may use TLS."""
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
    """A server with an untrusted certificate gets no byte, and evproxy resets the client."""
    await proxied.start(upstreams=[f"tls:127.0.0.1:{proxied.upstream.port}"])
    client = proxied.client()
    await client.send(b"secret")
    server = SecuredPeer(await proxied.upstream.accept(), certificates.server, serves=True)
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await server.receive(1)
    server.peer.close()
    assert await client.rest() == (b"", RESET)


TLS = {
    "tls": "tls:{host}:{port}:trustRoots={trusted}",
    "ssl": "ssl:{host}:{port}:caCertsDir={trusted}",
}

both_kinds = pytest.mark.parametrize("kind", TLS)


class Handshakes:
    """A proxy to servers that should speak TLS."""

    def __init__(self, proxied: Proxied, certificates: Certificates) -> None:
        self.proxied = proxied
        self.certificates = certificates
        self.first = proxied.upstream
        self.second = proxied.closes(Listening.tcp(proxied.reactor))

    def name(self, kind: str, server: Listening, trusted: str = "", host: str = "127.0.0.1") -> str:
        """Return the upstream address of `server`; `trusted` is a directory."""
        trusted = trusted or self.certificates.authorities
        return TLS[kind].format(host=host, port=server.port, trusted=trusted)

    async def accept(self, server: Listening) -> SecuredPeer:
        """Return the next connection to `server`, before its handshake."""
        return SecuredPeer(await server.accept(), self.certificates.server, serves=True)

    async def finish(self, client: Peer, server: SecuredPeer) -> None:
        """Check that the session relays and ends."""
        await server.handshake()
        assert await server.receive(8) == b"question"
        await server.send(b"answer")
        assert await client.receive(6) == b"answer"
        await server.close()
        assert await client.rest() == (b"", END)
        client.close()
        await self.proxied.observed.ended()
        assert self.proxied.observed.records[0].reason.how is Ending.FINISHED
        assert [each.sessions for each in self.proxied.pool.servers] == [0, 0]


@pytest.fixture
def handshakes(proxied: Proxied, certificates: Certificates) -> Handshakes:
    """A proxy that the test starts, and its servers."""
    return Handshakes(proxied, certificates)


async def refuses_to_serve(server: SecuredPeer) -> None:
    """Check that the proxy refuses `server`, and sends it no byte."""
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await server.receive(1)
    server.peer.close()


@both_kinds
async def test_a_failed_handshake_is_a_failed_connect(
    handshakes: Handshakes, tmp_path: Path, kind: str
) -> None:
    """evproxy tries the next server, and logs one line with the reason of the failure."""
    proxied = handshakes.proxied
    first = handshakes.name(kind, handshakes.first, str(tmp_path))
    with capturedLogs() as events:
        await proxied.start(upstreams=[first, handshakes.name(kind, handshakes.second)])
        client = proxied.client()
        await client.send(b"question")
        await refuses_to_serve(await handshakes.accept(handshakes.first))
        await handshakes.finish(client, await handshakes.accept(handshakes.second))
    why = "TLS handshake failed: certificate verify failed"
    assert proxied.observed.failures == [(first, why)]
    assert [each.connect_failures for each in proxied.pool.servers] == [1, 0]
    record = proxied.observed.records[0]
    assert (record.attempts, record.error) == (2, "")
    assert [each for each in events if each["log_level"] >= LogLevel.error] == []


@both_kinds
async def test_the_reason_of_a_failed_handshake_is_logged(
    handshakes: Handshakes, tmp_path: Path, kind: str
) -> None:
    """If there is no other server, the session's line has the reason too."""
    proxied = handshakes.proxied
    name = handshakes.name(kind, handshakes.first, str(tmp_path))
    await proxied.start(upstreams=[name])
    client = proxied.client()
    await client.send(b"question")
    await refuses_to_serve(await handshakes.accept(handshakes.first))
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()
    record = proxied.observed.records[0]
    assert (record.reason.how, record.reason.phase) == (Ending.UNREACHABLE, Phase.CONNECTING)
    assert (record.connect_time, record.bytes_to_upstream, record.relay) == (None, 0, "")
    why = "TLS handshake failed: certificate verify failed"
    with capturedLogs() as events:
        SessionLog().session_ended(record)
        TroubleLog().connect_failed(*proxied.observed.failures[0])
    lines = [formatEvent(each) for each in events]
    assert lines[0].endswith(f"no relay, {name}: {why}")
    assert lines[1] == f"cannot connect to {name}: {why}"


@both_kinds
async def test_what_is_verified_where_nothing_is_said(handshakes: Handshakes, kind: str) -> None:
    """``ssl:HOST:PORT`` accepts any certificate; ``tls:`` uses the system's authorities."""
    proxied = handshakes.proxied
    await proxied.start(upstreams=[f"{kind}:127.0.0.1:{handshakes.first.port}"])
    client = proxied.client()
    await client.send(b"question")
    server = await handshakes.accept(handshakes.first)
    if kind == "ssl":
        await server.handshake()
        assert await server.receive(8) == b"question"
        return
    await refuses_to_serve(server)
    assert await client.rest() == (b"", RESET)
    [(_, why)] = proxied.observed.failures
    assert why == "TLS handshake failed: certificate verify failed"


@both_kinds
async def test_a_certificate_for_another_host(handshakes: Handshakes, kind: str) -> None:
    """A server with another host's certificate gets no byte; only ``tls:`` checks the host."""
    proxied = handshakes.proxied
    await proxied.start(upstreams=[handshakes.name(kind, handshakes.first, host="localhost")])
    client = proxied.client()
    await client.send(b"question")
    server = await handshakes.accept(handshakes.first)
    if kind == "ssl":
        await server.handshake()
        assert await server.receive(8) == b"question"
        return
    await refuses_to_serve(server)
    assert await client.rest() == (b"", RESET)
    [(_, why)] = proxied.observed.failures
    assert why == (
        "TLS handshake failed: certificate verify failed: it is not for the server's name"
    )


@both_kinds
@pytest.mark.parametrize("end", ["close", "reset", "talk"])
async def test_a_server_that_does_not_speak_tls(
    handshakes: Handshakes, kind: str, end: str
) -> None:
    """evproxy passes over a server that closes, or sends other bytes, in place of a handshake."""
    proxied = handshakes.proxied
    names = [handshakes.name(kind, each) for each in (handshakes.first, handshakes.second)]
    await proxied.start(upstreams=names)
    client = proxied.client()
    await client.send(b"question")
    plain = await handshakes.first.accept()
    await plain.some()
    if end == "talk":
        await plain.send(b"220 ready\r\n")
    else:
        getattr(plain, end)()
    await handshakes.finish(client, await handshakes.accept(handshakes.second))
    [(name, why)] = proxied.observed.failures
    expected = "wrong version number" if end == "talk" else "closed by the server"
    assert (name, why) == (names[0], f"TLS handshake failed: {expected}")
    plain.close()


@both_kinds
async def test_the_connect_timeout_covers_the_handshake(handshakes: Handshakes, kind: str) -> None:
    """evproxy gives up a server that accepts but sends nothing, and resets the connection."""
    proxied = handshakes.proxied
    names = [handshakes.name(kind, each) for each in (handshakes.first, handshakes.second)]
    await proxied.start(upstreams=names, connect_timeout=0.3)
    client = proxied.client()
    await client.send(b"question")
    silent = await handshakes.first.accept()
    answering = await handshakes.accept(handshakes.second)
    assert proxied.observed.failures == [(names[0], "timed out after 0.3 s in the TLS handshake")]
    await handshakes.finish(client, answering)
    assert (await silent.rest())[1] == RESET


@both_kinds
async def test_a_handshake_is_not_timed_once_it_is_over(handshakes: Handshakes, kind: str) -> None:
    """After a handshake, successful or not, no timer of the connect is left."""
    proxied = handshakes.proxied
    await proxied.start(
        upstreams=[handshakes.name(kind, each) for each in (handshakes.first, handshakes.second)],
        connect_timeout=3600,
    )
    client = proxied.client()
    await client.send(b"question")
    (await handshakes.first.accept()).close()
    server = await handshakes.accept(handshakes.second)
    await server.handshake()
    assert await server.receive(8) == b"question"
    late = proxied.reactor.seconds() + 3000
    assert [each for each in proxied.reactor.getDelayedCalls() if each.getTime() > late] == []
    client.close()


@both_kinds
@pytest.mark.parametrize("said", [b"", b"question"])
async def test_a_client_that_leaves_during_the_handshake(
    handshakes: Handshakes, kind: str, said: bytes
) -> None:
    """A client that leaves cancels the connect: nothing is left, and no server is blamed."""
    proxied = handshakes.proxied
    names = [handshakes.name(kind, each) for each in (handshakes.first, handshakes.second)]
    await proxied.start(upstreams=names, connect_timeout=3600)
    client = proxied.client()
    await client.send(said)
    server = await handshakes.first.accept()
    await server.receive(1)
    client.reset()
    await proxied.observed.ended()
    assert (await server.rest())[1] == RESET
    record = proxied.observed.records[0]
    assert (record.reason.how, record.reason.phase) == (Ending.LEFT, Phase.CONNECTING)
    assert proxied.observed.failures == []
    assert [(each.sessions, each.connect_failures) for each in proxied.pool.servers] == [
        (0, 0),
        (0, 0),
    ]
    assert handshakes.second.nobody_waits()
