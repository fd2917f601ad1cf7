"""Servers that are asked for TLS in their own protocol, before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Protocol

from evproxy.config.document import parse
from evproxy.config.reading import Surroundings
from evproxy.errors import HandshakeFailed, SettingsError
from evproxy.model import Ending, UpstreamServer
from evproxy.settings import HealthCheck, PoolTLS
from evproxy.upstream.names import Names
from evproxy.upstream.pool.parts import dialers_on, probes_on
from evproxy.wire.postgres import SSL_REQUEST, agrees_to_tls
from evproxy.wire.proxy_protocol import ProxyHeader, header_bytes
from tests.session.test_proxy_headers import header_at
from tests.support.peers import RESET, Peer, converse
from tests.support.programs import said
from tests.support.proxies import Proxied
from tests.support.real_servers import RealServers, free_port
from tests.support.server_kinds import postgresql, postgresql_started, with_tls
from tests.support.tls import TLSPeer

pytestmark = [pytest.mark.deadline(30), pytest.mark.every_reactor, pytest.mark.oldest_twisted]

to_servers = pytest.mark.parametrize("proxied", ["tls-server-1.2", "tls-server-1.3"], indirect=True)
one_version = pytest.mark.parametrize("proxied", ["tls-server-1.3"], indirect=True)

REFUSALS = [
    (b"N", "the server has no TLS: it answers SSLRequest with b'N'"),
    (b"E", "the server has no TLS: it answers SSLRequest with b'E'"),
    (b"Sx", "the server sent more than its answer to SSLRequest"),
]


def asking(proxied: Proxied) -> PoolTLS:
    """The pool's TLS, with a request first."""
    assert proxied.certificates is not None
    authority = f"{proxied.certificates.authorities}/ca.pem"
    return PoolTLS(ca=authority, server_name="127.0.0.1", starttls="postgres")


async def asked(proxied: Proxied) -> Peer:
    """The server that was asked for TLS."""
    server = await proxied.upstream.accept()
    assert await server.receive(len(SSL_REQUEST)) == SSL_REQUEST
    return server


async def agreed(proxied: Proxied, plain: Peer) -> TLSPeer:
    """The server on the connection of `plain`, after it has agreed."""
    await plain.send(b"S")
    assert proxied.server_context is not None
    server = TLSPeer(proxied.reactor, plain.socket, proxied.server_context, serves=True)
    await server.ready()
    return server


@to_servers
@pytest.mark.parametrize("version", [0, 2])
async def test_a_server_that_agrees(proxied: Proxied, version: int) -> None:
    """TLS begins after its answer; a PROXY header comes before the request."""
    proxied.upstream.peer = Peer
    await proxied.start(tls=asking(proxied), send_proxy_protocol=version)
    client = proxied.client()
    plain = await proxied.upstream.accept()
    if version:
        assert (await header_at(plain)).version == version
    assert await plain.receive(len(SSL_REQUEST)) == SSL_REQUEST
    await converse(client, await agreed(proxied, plain))


@one_version
@pytest.mark.parametrize(("answer", "error"), REFUSALS)
async def test_a_server_that_does_not_agree(proxied: Proxied, answer: bytes, error: str) -> None:
    """The connect has failed, and nothing of the client's has reached the server."""
    proxied.upstream.peer = Peer
    await proxied.start(tls=asking(proxied))
    client = proxied.client()
    await client.send(b"secret")
    server = await asked(proxied)
    await server.send(answer)
    assert await client.rest() == (b"", RESET)
    assert await server.rest() == (b"", RESET)
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert record.reason.how is Ending.UNREACHABLE
    assert record.error == f"127.0.0.1:{proxied.upstream.port}: {error}"


@one_version
async def test_a_server_that_does_not_answer(proxied: Proxied) -> None:
    """The connect timeout counts for the answer, too."""
    proxied.upstream.peer = Peer
    await proxied.start(tls=asking(proxied), connect_timeout=0.2)
    client = proxied.client()
    server = await asked(proxied)
    assert await client.rest() == (b"", RESET)
    assert await server.rest() == (b"", RESET)
    await proxied.observed.ended()
    error = proxied.observed.records[0].error
    assert error.endswith("timed out after 0.2 s, before the server's answer to SSLRequest")


@one_version
@pytest.mark.parametrize("way", ["end", "reset"])
async def test_a_server_that_ends_instead(proxied: Proxied, way: str) -> None:
    """The connect has failed."""
    proxied.upstream.peer = Peer
    await proxied.start(tls=asking(proxied))
    client = proxied.client()
    server = await asked(proxied)
    getattr(server, way)()
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()
    error = proxied.observed.records[0].error
    assert error.endswith("the connection was lost before TLS began")


@one_version
async def test_a_client_that_leaves_before_the_answer(proxied: Proxied) -> None:
    """The server's connection is aborted at once."""
    proxied.upstream.peer = Peer
    await proxied.start(tls=asking(proxied))
    client = proxied.client()
    server = await asked(proxied)
    client.reset()
    assert await server.rest() == (b"", RESET)
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.LEFT


@one_version
@pytest.mark.parametrize("version", [0, 1])
async def test_a_check_asks_as_sessions_do(proxied: Proxied, version: int) -> None:
    """Header, request, answer, TLS; and then the check's own question."""
    proxied.upstream.peer = Peer
    check = HealthCheck(kind="send-expect", send="ping", expect="pong")
    probe = probes_on(proxied.reactor, None, version, asking(proxied))(check)
    checked: Deferred[Any] = Deferred()
    probe.check(UpstreamServer(f"127.0.0.1:{proxied.upstream.port}"), checked.callback)
    plain = await proxied.upstream.accept()
    if version:
        header = header_bytes(ProxyHeader(1, local=True))
        assert await plain.receive(len(header)) == header
    assert await plain.receive(len(SSL_REQUEST)) == SSL_REQUEST
    server = await agreed(proxied, plain)
    assert await server.receive(4) == b"ping"
    await server.send(b"pong")
    assert await checked is None


@one_version
@pytest.mark.parametrize(("answer", "error"), REFUSALS)
async def test_a_check_of_a_server_that_does_not_agree(
    proxied: Proxied, answer: bytes, error: str
) -> None:
    """The verdict says why, and the connection is gone."""
    proxied.upstream.peer = Peer
    probe = probes_on(proxied.reactor, None, 0, asking(proxied))(HealthCheck())
    checked: Deferred[Any] = Deferred()
    probe.check(UpstreamServer(f"127.0.0.1:{proxied.upstream.port}"), checked.callback)
    server = await asked(proxied)
    await server.send(answer)
    assert await checked == error
    assert await server.rest() == (b"", RESET)


@one_version
async def test_a_check_that_is_over_before_the_answer(proxied: Proxied) -> None:
    """Its connection is aborted."""
    proxied.upstream.peer = Peer
    probe = probes_on(proxied.reactor, None, 0, asking(proxied))(HealthCheck(timeout=0.2))
    checked: Deferred[Any] = Deferred()
    probe.check(UpstreamServer(f"127.0.0.1:{proxied.upstream.port}"), checked.callback)
    server = await asked(proxied)
    assert await checked == "timed out after 0.2 s"
    assert await server.rest() == (b"", RESET)


class Attempted(ClientFactory):
    """The outcome of one attempt."""

    noisy = False

    def __init__(self) -> None:
        self.outcome: Deferred[Any] = Deferred()

    def buildProtocol(self, addr: Any) -> Protocol:
        outcome = self.outcome

        class Connected(Protocol):
            def connectionMade(self) -> None:
                outcome.callback(self)

        return Connected()

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.outcome.callback(reason)


@one_version
async def test_more_before_tls_than_the_kernel_takes(proxied: Proxied) -> None:
    """The handshake begins once the server has it all."""
    proxied.upstream.peer = Peer
    await proxied.start()
    attempted, header = Attempted(), b"h" * (16 << 20)
    [server_of] = [UpstreamServer(f"127.0.0.1:{proxied.upstream.port}")]
    names = Names(proxied.reactor)
    dialer: Any = dialers_on(proxied.reactor, names, None, asking(proxied))(server_of)
    dialer.connect_after(header, attempted, 10.0, proxied.plane.sockets)
    plain = await proxied.upstream.accept()
    assert await plain.receive(len(header)) == header
    assert await plain.receive(len(SSL_REQUEST)) == SSL_REQUEST
    server = await agreed(proxied, plain)
    connected = await attempted.outcome
    connected.transport.write(b"x")
    assert await server.receive(1) == b"x"
    connected.transport.abortConnection()
    names.stop()


@pytest.mark.parametrize(("answer", "error"), REFUSALS)
def test_answers(answer: bytes, error: str) -> None:
    """Only one byte, S, is a yes; no byte is no answer yet."""
    assert not agrees_to_tls(b"")
    assert agrees_to_tls(b"S")
    with pytest.raises(HandshakeFailed) as raised:
        agrees_to_tls(answer)
    assert str(raised.value) == error


@one_version
@pytest.mark.peers("initdb", "postgres", "psql")
async def test_postgresql(proxied: Proxied, real_servers: RealServers) -> None:
    """psql speaks to evproxy without TLS, and evproxy with a verified PostgreSQL."""
    assert proxied.certificates is not None
    port = free_port()
    server = postgresql(real_servers, port)
    with_tls(server, Path(proxied.certificates.pem))
    await postgresql_started(proxied.reactor, server, port)
    await proxied.start(
        upstreams=[f"127.0.0.1:{port}"],
        tls=asking(proxied),
        health_check=HealthCheck(kind="postgresql"),
    )
    host, own = proxied.address
    target = f"host={host} port={own} user=postgres dbname=postgres sslmode=disable"
    query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    answer = await said(proxied.reactor, "psql", "-X", "-A", "-t", target, "-c", query)
    assert answer.strip() == "t"
    [state] = proxied.pool.status().servers
    assert (state.state, state.why) == ("up", "")


def test_tls_within_tls() -> None:
    """A listener that passes TLS through cannot have a pool that starts TLS."""
    text = (
        '[[listeners]]\npreread = "postgres"\n[pools.db]\nupstreams = ["127.0.0.1:80"]\n'
        'tls = {starttls = "postgres"}\n'
    )
    with pytest.raises(SettingsError) as raised:
        parse(text, Surroundings())
    assert str(raised.value).endswith(
        "listeners[0].preread: pools.db has tls, and would get the TLS of clients inside its own: "
        "give the listener tls, too"
    )
