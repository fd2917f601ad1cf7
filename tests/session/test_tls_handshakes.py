"""The TLS handshake with a client: what is known after it, and how it fails."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.defer import Deferred

from evproxy.interfaces import Client
from evproxy.model import ConnectionInfo, Ending, Phase, Side
from evproxy.session.factory import ProxyFactory
from evproxy.settings import Timeouts
from evproxy.wire.client_hello import TLS_1_2, TLS_1_3, ClientHello
from tests.support.bulk import MANY
from tests.support.peers import END, RESET, Peer, connect, converse, turn
from tests.support.proxies import Proxied
from tests.support.tls import TLSPeer, context_of

pytestmark = [pytest.mark.deadline(15), pytest.mark.oldest_twisted]

both_versions = pytest.mark.parametrize(
    "proxied", ["tls-client-1.2", "tls-client-1.3"], indirect=True
)
one_version = pytest.mark.parametrize("proxied", ["tls-client-1.3"], indirect=True)

HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.8 5000 443\r\n"
EVERYBODY = ("127.0.0.1",)


def plain_client(proxied: Proxied) -> Peer:
    """A client that does not speak TLS by itself."""
    return proxied.closes(connect(proxied.reactor, proxied.address))  # type: ignore[no-any-return]


class Noting(ProxyFactory):
    """Routes to its pool, and remembers what was known of each client."""

    def __init__(self, pool: Any, **more: Any) -> None:
        self.infos: list[ConnectionInfo] = []
        self.hellos: list[Any] = []

        def route(client: Client) -> Any:
            self.infos.append(client.info)
            if client.info.tls is not None:
                client.client_hello().addCallback(self.hellos.append)
            return pool

        super().__init__(route, **more)


@both_versions
async def test_a_router_knows_what_was_agreed_on(proxied: Proxied) -> None:
    """The version, the cipher and the name are known before a pool is chosen."""
    await proxied.start(factory=Noting)
    assert proxied.certificates is not None
    client = plain_client(proxied)
    context = context_of(proxied.certificates, proxied.tls_version, serves=False)
    context.set_verify(SSL.VERIFY_NONE)
    tls = TLSPeer(proxied.reactor, client.socket, context, serves=False, name="www.Example.org.")
    await converse(tls, await proxied.upstream.accept())
    assert isinstance(proxied.factory, Noting)
    [info] = proxied.factory.infos
    assert info.server_name == "www.Example.org."
    assert info.tls is not None
    assert info.tls.version == f"TLSv{proxied.tls_version}"
    assert "AES" in info.tls.cipher
    version = {"1.2": TLS_1_2, "1.3": TLS_1_3}[proxied.tls_version]
    assert proxied.factory.hellos == [ClientHello("www.example.org", (), version)]
    tls.close()


@one_version
async def test_a_client_that_does_not_speak_tls(proxied: Proxied) -> None:
    """It is closed, no server is connected, and the record says why."""
    await proxied.start()
    client = plain_client(proxied)
    await client.send(b"GET / HTTP/1.1\r\n\r\n")
    await client.rest()
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert (record.reason.how, record.reason.phase) == (Ending.HANDSHAKE, Phase.INSPECTING)
    assert record.error == "the TLS handshake failed: http request"
    assert proxied.upstream.nobody_waits()


@one_version
async def test_a_client_that_is_refused_hears_why(proxied: Proxied) -> None:
    """The alert reaches a client before its connection is closed."""
    await proxied.start()
    client = plain_client(proxied)
    await client.send(b"\x16\x03\x01\x00\x05hello")
    received, end = await client.rest()
    # A fatal alert (RFC 8446, 6): its type, a version, and its length.
    assert (received[:1], received[3:6], end) == (b"\x15", b"\0\2\2", END)
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.HANDSHAKE


async def shake_and_ask(tls: SSL.Connection, client: Peer) -> None:
    """Shake hands, and send a request together with the end of the handshake."""
    while True:
        try:
            tls.do_handshake()
            tls.send(b"GET / HTTP/1.1\r\n\r\n")
            tls.recv(1)
        except SSL.WantReadError:
            with suppress(SSL.WantReadError):
                await client.send(tls.bio_read(1 << 16))
            tls.bio_write(await client.some())


@both_versions
async def test_a_client_whose_certificate_is_refused_hears_why(proxied: Proxied) -> None:
    """
    The alert reaches a client that has sent more meanwhile, and its connection ends in order.

    A client of TLS 1.3 is done with its handshake before its certificate is looked at.
    """
    assert proxied.certificates is not None
    asked = {
        "client_ca": f"{proxied.certificates.authorities}/ca.pem",
        "client_certificate": "required",
    }
    await proxied.start(listener_tls=asked)
    client = plain_client(proxied)
    tls = SSL.Connection(context_of(proxied.certificates, proxied.tls_version, serves=False))
    tls.set_connect_state()
    with pytest.raises(SSL.Error) as heard:
        await shake_and_ask(tls, client)
    assert "alert" in str(heard.value)
    client.end()
    await proxied.observed.ended()
    assert "peer did not return a certificate" in proxied.observed.records[0].error


@one_version
async def test_a_client_that_leaves_in_the_handshake(proxied: Proxied) -> None:
    """A client that resets its connection before the end of the handshake has left."""
    await proxied.start()
    client = plain_client(proxied)
    await client.send(b"\x16\x03\x01\x02\x00")
    client.reset()
    await proxied.observed.ended()
    reason = proxied.observed.records[0].reason
    assert (reason.by, reason.how) == (Side.DOWNSTREAM, Ending.LEFT)


@one_version
async def test_a_handshake_that_takes_too_long(proxied: Proxied) -> None:
    """A client that does not go on is reset at the handshake timeout."""
    await proxied.start(timeouts=Timeouts(handshake=0.2))
    client = plain_client(proxied)
    await client.send(b"\x16\x03\x01\x02\x00")
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert record.reason.how is Ending.HANDSHAKE
    assert record.error == "the client did not send all of its TLS handshake within 0.2 s"


@one_version
async def test_a_drain_ends_handshakes(proxied: Proxied) -> None:
    """A session whose client shakes hands ends with the drain deadline like any other."""
    await proxied.start()
    client = plain_client(proxied)
    await client.send(b"\x16\x03\x01\x02\x00")
    while not len(proxied.admission.sessions):
        await turn(proxied.reactor)
    await proxied.factory.drain(0.05)
    assert await client.rest() == (b"", RESET)


@both_versions
@pytest.mark.parametrize("piece", [1, 1000])
async def test_a_proxy_header_before_tls(proxied: Proxied, piece: int) -> None:
    """The bytes of TLS that come with the header are not lost, and bulk passes both ways."""
    await proxied.start(accept_proxy_protocol_from=EVERYBODY, factory=Noting)
    assert proxied.certificates is not None
    client = plain_client(proxied)
    context = context_of(proxied.certificates, proxied.tls_version, serves=False)
    tls = TLSPeer(proxied.reactor, client.socket, context, serves=False, before=HEADER, piece=piece)
    server = await proxied.upstream.accept()
    await converse(tls, server)
    assert isinstance(proxied.factory, Noting)
    assert proxied.factory.infos[0].peer_host == "192.0.2.7"
    for one, other in ((tls, server), (server, tls)):
        sending = Deferred.fromCoroutine(one.send(MANY))
        assert await other.receive(len(MANY)) == MANY
        await sending
    tls.end()
    assert await server.rest() == (b"", END)
    tls.close()


@both_versions
@pytest.mark.parametrize("before", [b"", HEADER])
async def test_a_slow_server_and_the_stream_relay(proxied: Proxied, before: bytes) -> None:
    """What OpenSSL holds while its transport is paused is read when that goes on."""
    proxied.mode = "stream"
    networks = EVERYBODY if before else ()
    await proxied.start(accept_proxy_protocol_from=networks)
    assert proxied.certificates is not None
    client = plain_client(proxied)
    context = context_of(proxied.certificates, proxied.tls_version, serves=False)
    tls = TLSPeer(proxied.reactor, client.socket, context, serves=False, before=before)
    sending = Deferred.fromCoroutine(tls.send(MANY))
    server = await proxied.upstream.accept()
    for _ in range(50):
        await turn(proxied.reactor)
    assert await server.receive(len(MANY)) == MANY
    await sending
    tls.close()


@both_versions
async def test_a_stream_behind_a_header_that_is_cut_off(proxied: Proxied) -> None:
    """A FIN without a close_notify is a reset there, too."""
    await proxied.start(accept_proxy_protocol_from=EVERYBODY)
    assert proxied.certificates is not None
    client = plain_client(proxied)
    context = context_of(proxied.certificates, proxied.tls_version, serves=False)
    tls = TLSPeer(proxied.reactor, client.socket, context, serves=False, before=HEADER)
    server = await proxied.upstream.accept()
    await converse(tls, server)
    await tls.send(b"half")
    tls.cut()
    assert await server.rest() == (b"half", RESET)


@both_versions
async def test_errors_that_other_code_left_behind(proxied: Proxied) -> None:
    """OpenSSL's queue of errors belongs to the thread: what others leave in it ends no session."""
    from cryptography.hazmat.bindings.openssl.binding import Binding

    await proxied.start()
    client, server = await proxied.pair()
    await converse(client, server)
    context = SSL.Context(SSL.TLS_METHOD)
    assert not Binding.lib.SSL_CTX_set_cipher_list(context._context, b"none such")
    assert Binding.lib.ERR_peek_error()
    # A part of a record, so that OpenSSL has to wait for the rest.
    await client.send(b"x" * 5000)
    assert await server.receive(5000) == b"x" * 5000
    await converse(client, server)
