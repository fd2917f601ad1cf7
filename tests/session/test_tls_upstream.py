"""TLS that evproxy starts to servers: who is trusted, and what a failure looks like."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from evproxy.errors import SettingsError
from evproxy.model import Ending, UpstreamServer
from evproxy.settings import HealthCheck, PoolTLS
from evproxy.sockets.tls_client import ClientTLS
from evproxy.upstream.pool.parts import probes_on
from evproxy.upstream.pool.pool import Pool
from tests.support.certificates import DAY, Authority, names
from tests.support.peers import END, RESET, Peer, converse
from tests.support.proxies import Proxied
from tests.support.tls import TLSPeer

pytestmark = [pytest.mark.deadline(15), pytest.mark.oldest_twisted]

both_versions = pytest.mark.parametrize(
    "proxied", ["tls-server-1.2", "tls-server-1.3"], indirect=True
)
one_version = pytest.mark.parametrize("proxied", ["tls-server-1.3"], indirect=True)


def trusted(proxied: Proxied) -> str:
    """The authority of the server's certificate, which is for 127.0.0.1."""
    assert proxied.certificates is not None
    return f"{proxied.certificates.authorities}/ca.pem"


@both_versions
async def test_a_server_whose_certificate_is_for_another_name(proxied: Proxied) -> None:
    """The client is reset before the server gets a byte, and the record says why."""
    await proxied.start(tls=PoolTLS(ca=trusted(proxied), server_name="web.internal"))
    client = proxied.client()
    await client.send(b"secret")
    server = await proxied.upstream.accept()
    assert await client.rest() == (b"", RESET)
    with pytest.raises(SSL.Error):
        await server.some()
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert record.reason.how is Ending.UNREACHABLE
    assert record.error.endswith(
        "TLS handshake failed: certificate verify failed: it is not for 'web.internal'"
    )


@both_versions
async def test_a_server_that_is_not_trusted(proxied: Proxied) -> None:
    """Without `ca`, the authorities of the system are trusted: not that of a test."""
    await proxied.start(tls=PoolTLS())
    client = proxied.client()
    server = await proxied.upstream.accept()
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()
    assert "its issuer is not known" in proxied.observed.records[0].error
    # The server gets the alert, although it has sent more meanwhile.
    assert isinstance(server, TLSPeer)
    await server.ready()
    assert "unknown ca" in str(server.fault)


@both_versions
async def test_only_insecure_skip_verify_takes_any_certificate(proxied: Proxied) -> None:
    """Then nothing is verified."""
    await proxied.start(tls=PoolTLS(insecure_skip_verify=True))
    await converse(*await proxied.pair())


@both_versions
async def test_names_and_protocols_are_sent(proxied: Proxied) -> None:
    """The server hears which name is asked for (SNI), and the protocols (ALPN)."""
    tls = PoolTLS(insecure_skip_verify=True, server_name="web.internal", alpn=("h2",))
    await proxied.start(tls=tls)
    client, server = await proxied.pair()
    await converse(client, server)
    assert isinstance(server, TLSPeer)
    assert server.connection.get_servername() == b"web.internal"


@both_versions
async def test_sessions_with_servers_are_resumed(proxied: Proxied) -> None:
    """The second handshake with a server is shorter."""
    from cryptography.hazmat.bindings.openssl.binding import Binding

    await proxied.start()
    for again in (False, True):
        client, server = await proxied.pair()
        await converse(client, server)
        assert isinstance(server, TLSPeer)
        assert bool(Binding.lib.SSL_session_reused(server.connection._ssl)) is again


@both_versions
async def test_a_client_certificate(proxied: Proxied, tmp_path: Path) -> None:
    """A server that asks for a certificate gets the pool's."""
    authority = Authority.new()
    own = authority.issue(names("proxy.internal"), DAY, called="evproxy").save(tmp_path / "own.pem")
    assert proxied.server_context is not None
    proxied.server_context.load_verify_locations(authority.save(tmp_path))
    proxied.server_context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    await proxied.start(tls=PoolTLS(ca=trusted(proxied), server_name="127.0.0.1", certificate=own))
    client, server = await proxied.pair()
    await converse(client, server)
    assert isinstance(server, TLSPeer)
    certificate = server.connection.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    assert certificate.subject.rfc4514_string() == "CN=evproxy"


@one_version
async def test_a_server_that_does_not_shake_hands(proxied: Proxied) -> None:
    """The connect timeout counts for the handshake, too."""
    proxied.upstream.peer = Peer
    await proxied.start(connect_timeout=0.2, tls=PoolTLS(ca=trusted(proxied)))
    client = proxied.client()
    await proxied.upstream.accept()
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()
    assert proxied.observed.records[0].error.endswith("timed out after 0.2 s in the TLS handshake")


@one_version
@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("127.0.0.1", None),
        (
            "web.internal",
            "TLS handshake failed: certificate verify failed: it is not for 'web.internal'",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["tcp", "send-expect"])
async def test_checks_shake_hands_as_sessions_do(
    proxied: Proxied, kind: str, name: str, verdict: str | None
) -> None:
    """A health check of a pool with TLS verifies the server, and asks it inside TLS."""
    tls = PoolTLS(ca=trusted(proxied), server_name=name)
    asks = kind == "send-expect"
    check = HealthCheck(kind=kind, send="ping", expect="pong") if asks else HealthCheck(kind=kind)
    probe = probes_on(proxied.reactor, settings=tls)(check)
    checked: Deferred[Any] = Deferred()
    probe.check(UpstreamServer(f"127.0.0.1:{proxied.upstream.port}"), checked.callback)
    server = await proxied.upstream.accept()
    assert isinstance(server, TLSPeer)
    await server.ready()
    if verdict is None and asks:
        assert await server.receive(4) == b"ping"
        await server.send(b"pong")
    if verdict is None:
        # A reset would look like a handshake that has failed.
        assert await server.rest() == (b"", END)
        server.end()
    assert await checked == verdict


@pytest.mark.parametrize(
    ("make", "fault"), [(Path.touch, "no certificate"), (os.mkfifo, "it is not a regular file")]
)
@pytest.mark.parametrize("key", ["ca", "certificate"])
def test_files_of_a_pool_that_cannot_be_used(
    tmp_path: Path, key: str, make: Callable[[Path], None], fault: str
) -> None:
    """One line names the key and the file; nothing waits for the writer of a FIFO."""
    path = tmp_path / "wrong.pem"
    make(path)
    with pytest.raises(SettingsError, match=rf"tls\.{key}: .*wrong.pem: .*({fault})"):
        ClientTLS(PoolTLS(ca=str(path)) if key == "ca" else PoolTLS(certificate=str(path)))


@pytest.mark.parametrize(
    ("endpoint", "warned"),
    [
        ("ssl:192.0.2.1:443", True),
        ("ssl:192.0.2.1:443:caCertsDir=/", False),
        ("tls:192.0.2.1:443", False),
    ],
)
def test_a_warning_where_nothing_is_verified(reactor: Any, endpoint: str, warned: bool) -> None:
    """The `ssl:` endpoints of Twisted verify nothing unless they are given authorities."""
    with capturedLogs() as events:
        Pool(reactor, [endpoint])
    said = [formatEvent(event) for event in events]
    assert any("verifies no certificate" in line for line in said) is warned
