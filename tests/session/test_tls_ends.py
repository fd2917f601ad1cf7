"""What is special about the end of a session whose client speaks TLS with evproxy."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.defer import Deferred

from evproxy.model import Ending, Phase, Side
from evproxy.settings import Timeouts
from tests.session.test_tls_handshakes import HEADER, plain_client
from tests.support.bulk import MANY
from tests.support.peers import END, RESET, converse
from tests.support.proxies import Proxied
from tests.support.tls import TLSPeer, context_of

pytestmark = [pytest.mark.deadline(15), pytest.mark.every_reactor, pytest.mark.oldest_twisted]

both_versions = pytest.mark.parametrize(
    "proxied", ["tls-client-1.2", "tls-client-1.3"], indirect=True
)
version_2 = pytest.mark.parametrize("proxied", ["tls-client-1.2"], indirect=True)
version_3 = pytest.mark.parametrize("proxied", ["tls-client-1.3"], indirect=True)


async def ended(proxied: Proxied) -> tuple[Side, Ending, Phase]:
    """Why the only session ended."""
    await proxied.observed.ended()
    [record] = proxied.observed.records
    return record.reason.by, record.reason.how, record.reason.phase


@both_versions
async def test_a_stream_that_is_cut_off_is_a_reset(proxied: Proxied) -> None:
    """A FIN without a close_notify does not look like an end to the server."""
    await proxied.start()
    client, server = await proxied.pair()
    await converse(client, server)
    await client.send(b"half")
    client.socket.shutdown(socket.SHUT_WR)
    assert await server.rest() == (b"half", RESET)
    assert await ended(proxied) == (Side.DOWNSTREAM, Ending.RESET, Phase.RELAYING)


@both_versions
async def test_a_fatal_alert_is_a_reset(proxied: Proxied) -> None:
    """A client that does not understand what it gets has not ended its stream."""
    await proxied.start()
    client, server = await proxied.pair()
    assert isinstance(client, TLSPeer)
    await converse(client, server)
    await client.send(b"half")
    # A record that nobody can open makes the client's OpenSSL send an alert.
    client.connection.bio_write(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    with pytest.raises(SSL.Error):
        await client.some()
    client.send_alert()
    assert await server.rest() == (b"half", RESET)


@both_versions
async def test_bytes_that_are_no_tls_are_a_reset(proxied: Proxied) -> None:
    """A record that cannot be opened resets the server: the rest is not known."""
    await proxied.start()
    client, server = await proxied.pair()
    await converse(client, server)
    client.socket.send(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    assert await server.rest() == (b"", RESET)
    assert await ended(proxied) == (Side.DOWNSTREAM, Ending.RESET, Phase.RELAYING)


@both_versions
@pytest.mark.parametrize("before", [b"", HEADER])
async def test_bytes_that_are_no_tls_get_an_alert(proxied: Proxied, before: bytes) -> None:
    """Also where TLS began in one segment with a PROXY header."""
    more: dict[str, Any] = {"accept_proxy_protocol_from": ("127.0.0.1",)} if before else {}
    await proxied.start(**more)
    assert proxied.certificates is not None
    context = context_of(proxied.certificates, proxied.tls_version, serves=False)
    sock = plain_client(proxied).socket
    client = TLSPeer(proxied.reactor, sock, context, serves=False, before=before)
    await converse(client, await proxied.upstream.accept())
    client.socket.send(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    with pytest.raises(SSL.Error, match="bad record mac"):
        await client.some()


@both_versions
async def test_an_end_right_behind_a_full_record(proxied: Proxied) -> None:
    """A close_notify that comes with the last bytes needs no further event."""
    await proxied.start()
    client, server = await proxied.pair()
    assert isinstance(client, TLSPeer)
    await converse(client, server)
    client.connection.send(b"x" * 16384)
    client.end()
    assert await server.rest() == (b"x" * 16384, END)


@version_2
async def test_before_tls_1_3_an_end_ends_both_directions(proxied: Proxied) -> None:
    """The server gets everything and the end; what it would still send goes nowhere."""
    await proxied.start()
    client, server = await proxied.pair()
    await converse(client, server)
    sending = Deferred.fromCoroutine(client.send(MANY))
    received = await server.receive(1000)
    while server.send_now(MANY):
        pass
    reading = Deferred.fromCoroutine(server.rest())
    await sending
    client.end()
    rest, end = await reading
    assert (received + rest, end) == (MANY, END)
    assert await ended(proxied) == (Side.DOWNSTREAM, Ending.FINISHED, Phase.RELAYING)


@version_2
async def test_before_tls_1_3_the_client_gets_a_close_notify_back(proxied: Proxied) -> None:
    """A client that ended its stream hears that evproxy ends too (RFC 5246, 7.2.1)."""
    await proxied.start()
    client, server = await proxied.pair()
    await converse(client, server)
    client.end()
    assert await client.rest() == (b"", END)
    assert await server.rest() == (b"", END)


@version_2
async def test_a_server_that_does_not_take_all_before_tls_1_3(proxied: Proxied) -> None:
    """The delivery to a server that reads nothing ends at the half-close timeout."""
    await proxied.start(timeouts=Timeouts(half_close=0.3))
    client, server = await proxied.pair()
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await converse(client, server)
    # So much that evproxy's kernel holds some of it, and evproxy itself nothing.
    await client.send(b"x" * 50_000)
    client.end()
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.HALF_CLOSE


@both_versions
async def test_a_client_that_reads_late_gets_the_close_notify(proxied: Proxied) -> None:
    """The end is passed on behind what the kernel does not take at once."""
    await proxied.start()
    client, server = await proxied.pair()
    await converse(client, server)
    sending = Deferred.fromCoroutine(server.send(MANY))
    sending.addCallback(lambda _: server.end())
    while not sending.called:
        await client.receive(100_000)
    assert (await client.rest())[1] == END


@both_versions
async def test_a_client_that_never_answers_a_close(proxied: Proxied) -> None:
    """A client that neither ends its stream nor sends anything is reset after the timeout."""
    await proxied.start(timeouts=Timeouts(half_close=0.3))
    client, server = await proxied.pair()
    await converse(client, server)
    server.end()
    assert await client.some() == b""
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.HALF_CLOSE


@version_3
async def test_bytes_after_a_close_notify_of_the_other_side(proxied: Proxied) -> None:
    """A client goes on sending after the server's end, and the session finishes in order."""
    await proxied.start()
    client, server = await proxied.pair()
    await converse(client, server)
    server.end()
    assert await client.some() == b""
    await client.send(MANY)
    client.end()
    assert await server.rest() == (MANY, END)
    assert await ended(proxied) == (Side.UPSTREAM, Ending.FINISHED, Phase.RELAYING)


@both_versions
async def test_the_socket_relay_carries_it(proxied: Proxied) -> None:
    """TLS that evproxy ends is a channel of the socket relay."""
    await proxied.start()
    client, server = await proxied.pair()
    await converse(client, server)
    client.reset()
    await proxied.observed.ended()
    assert proxied.observed.records[0].relay == "socket"
