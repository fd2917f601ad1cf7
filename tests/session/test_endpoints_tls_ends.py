"""A TLS stream ends while the plain peer is slow, or while bytes of the plain peer are queued."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from evproxy.model import Ending, Phase, Side
from evproxy.relay.delivery import unsent
from evproxy.settings import Timeouts
from tests.support.bulk import ENDLESS, fill
from tests.support.peers import END, RESET, Peer, turn
from tests.support.proxies import Proxied
from tests.support.secured import CLOSED, CUT, Secured, SecuredPeer, both_sides
from tests.support.unreachable import Unanswered

pytestmark = [pytest.mark.deadline(15), pytest.mark.oldest_twisted]

TAIL = bytes(ENDLESS[:1_000_000])


async def conversing(secured: Secured, side: str) -> tuple[SecuredPeer, Peer]:
    """A session that relays; its plain peer takes few bytes at a time."""
    peer, plain = await secured.start(side)
    plain.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    await peer.send(b"?")
    assert await plain.receive(1) == b"?"
    return peer, plain


def ended(proxied: Proxied) -> tuple[Side, Ending, Phase]:
    """Return how the only session ended."""
    [record] = proxied.observed.records
    return record.reason.by, record.reason.how, record.reason.phase


def other(side: str) -> Side:
    """The side opposite to `side`."""
    return Side.UPSTREAM if side == "downstream" else Side.DOWNSTREAM


async def sent_and_closed(peer: SecuredPeer, proxied: Proxied) -> None:
    """Wait until evproxy's kernel has all of `TAIL` and the close_notify."""
    await peer.send(TAIL)
    await peer.close()
    while unsent(peer.peer.socket.fileno()):
        await turn(proxied.reactor)


@both_sides
async def test_a_slow_peer_that_answers_gets_all(secured: Secured, side: str) -> None:
    """A peer that sends a byte for each piece it reads gets every piece, and then a FIN."""
    peer, plain = await conversing(secured, side)
    await sent_and_closed(peer, secured.proxied)
    received = b""
    while data := await plain.some(65536):
        received += data
        # Once all is delivered, evproxy has closed the connection and takes no more.
        with suppress(BrokenPipeError):
            plain.send_now(b".")
        await turn(secured.proxied.reactor)
    assert received == TAIL
    await secured.proxied.observed.ended()
    assert secured.proxied.observed.records[0].reason.how is Ending.FINISHED


@both_sides
async def test_a_peer_with_bytes_that_nobody_reads_gets_all(secured: Secured, side: str) -> None:
    """If bytes are queued for a TLS peer that has closed, the bytes of that peer still arrive."""
    peer, plain = await conversing(secured, side)
    await fill(secured.proxied.reactor, plain)
    await sent_and_closed(peer, secured.proxied)
    leaving = Deferred.fromCoroutine(peer.peer.rest())
    assert await plain.rest() == (TAIL, END)
    assert (await leaving)[1] == END


@both_sides
async def test_a_peer_that_never_stops_to_send(secured: Secured, side: str) -> None:
    """A TLS peer that closes with a full queue, while more bytes come for it, ends the session."""
    proxied = secured.proxied
    peer, plain = await secured.start(side)
    await fill(proxied.reactor, plain)
    await peer.send(b"last")
    await peer.close()
    leaving = Deferred.fromCoroutine(peer.peer.rest())
    connected = True
    while not proxied.observed.records:
        try:
            connected = connected and plain.send_now(ENDLESS) >= 0
        except (BrokenPipeError, ConnectionResetError):
            connected = False
        await turn(proxied.reactor)
    assert await plain.rest() == (b"last", END)
    assert (await leaving)[1] == END


@both_sides
async def test_a_peer_that_takes_nothing_is_not_waited_for(secured: Secured, side: str) -> None:
    """After `half_close`, evproxy resets a peer that reads nothing from before the close_notify."""
    secured.timeouts = Timeouts(half_close=0.3)
    peer, plain = await conversing(secured, side)
    await sent_and_closed(peer, secured.proxied)
    while not secured.proxied.observed.records:
        plain.send_now(b".")
        await turn(secured.proxied.reactor)
    received, end = await plain.rest()
    assert len(received) < len(TAIL)
    assert end == RESET
    assert ended(secured.proxied) == (Side.PROXY, Ending.HALF_CLOSE, Phase.CLOSING)


@both_sides
@pytest.mark.parametrize("how", [Ending.DRAIN, Ending.SERVER_DOWN])
async def test_ending_a_session_that_is_delivered(secured: Secured, side: str, how: Ending) -> None:
    """A second signal, or a server that is marked down, ends a delivering session at once."""
    proxied = secured.proxied
    peer, plain = await conversing(secured, side)
    await sent_and_closed(peer, proxied)
    # evproxy answers a close_notify once it has read it.
    await peer.peer.rest()
    assert not proxied.observed.records
    for session in list(proxied.admission.sessions):
        session.end(Side.PROXY, how)
    await proxied.observed.ended()
    assert (await plain.rest())[1] == RESET
    assert ended(proxied) == (Side.PROXY, how, Phase.CLOSING)


@both_sides
async def test_a_peer_that_resets_while_it_is_delivered_to(secured: Secured, side: str) -> None:
    """A peer that leaves before it has all bytes from before the close_notify counts as reset."""
    proxied = secured.proxied
    peer, plain = await conversing(secured, side)
    await sent_and_closed(peer, proxied)
    await peer.peer.rest()
    assert not proxied.observed.records
    plain.reset()
    await proxied.observed.ended()
    assert ended(proxied) == (other(side), Ending.RESET, Phase.CLOSING)


@both_sides
@pytest.mark.parametrize("how", [Ending.HALF_CLOSE, Ending.DRAIN])
async def test_a_slow_tls_peer_that_is_cut(secured: Secured, side: str, how: Ending) -> None:
    """evproxy cuts off a TLS peer that does not read the bytes before a FIN, and records that."""
    proxied = secured.proxied
    secured.timeouts = Timeouts(half_close=0.3)
    peer, plain = await secured.start(side)
    peer.peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    await plain.send(TAIL)
    plain.end()
    [session] = proxied.admission.sessions
    while session.phase is not Phase.CLOSING:
        await turn(proxied.reactor)
    if how is Ending.DRAIN:
        session.end(Side.PROXY, how)
    await proxied.observed.ended()
    assert (await peer.rest())[1] in {CUT, RESET}
    assert ended(proxied) == (Side.PROXY, how, Phase.CLOSING)


@both_sides
async def test_a_slow_tls_peer_gets_all(secured: Secured, side: str) -> None:
    """A slow TLS peer that also sends gets all bytes of a plain peer that ends its stream."""
    peer, plain = await secured.start(side)
    peer.peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    await plain.send(TAIL)
    plain.end()
    received = b""
    while len(received) < len(TAIL):
        await peer.send(b".")
        received += await peer.receive(min(65536, len(TAIL) - len(received)))
    assert received == TAIL
    assert await peer.rest() == (b"", CLOSED)
    await peer.close()
    await secured.proxied.observed.ended()
    assert secured.proxied.observed.records[0].reason.how is Ending.FINISHED


async def left_early(secured: Secured, upstreams: list[str], **pool: Any) -> None:
    """A TLS client sends a request, closes and is gone before the server is connected."""
    pem, proxied = secured.certificates.pem, secured.proxied
    await proxied.start(
        listen=f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}",
        upstreams=upstreams,
        **pool,
    )
    client = SecuredPeer(proxied.client(), secured.certificates.client)
    await client.handshake()
    await client.send(b"question")
    await client.close()
    assert (await client.peer.rest())[1] == END


async def test_a_tls_client_that_ends_while_connecting(
    secured: Secured, unanswered: Unanswered
) -> None:
    """After the connect, evproxy passes on the client's bytes and its end."""
    proxied = secured.proxied
    await left_early(
        secured, [unanswered.name, f"127.0.0.1:{proxied.upstream.port}"], connect_timeout=0.5
    )
    server = await proxied.upstream.accept()
    assert await server.rest() == (b"question", END)
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert (record.reason.by, record.reason.how) == (Side.DOWNSTREAM, Ending.FINISHED)
    assert (record.reason.phase, record.bytes_to_upstream) == (Phase.RELAYING, 8)


async def test_a_server_that_answers_a_client_that_is_gone(
    secured: Secured, unanswered: Unanswered
) -> None:
    """If the server sends first, the request of the client still arrives whole."""
    proxied = secured.proxied
    await left_early(
        secured, [unanswered.name, f"127.0.0.1:{proxied.upstream.port}"], connect_timeout=0.5
    )
    server = await proxied.upstream.accept()
    server.send_now(ENDLESS[:100_000])
    assert await server.rest() == (b"question", END)
    await proxied.observed.ended()
    assert proxied.observed.records[0].bytes_to_downstream == 0


async def test_no_server_for_a_client_that_is_gone(
    secured: Secured, unanswered: Unanswered
) -> None:
    """If evproxy can connect to no server, the session still ends."""
    await left_early(secured, [unanswered.name], connect_timeout=0.3)
    await secured.proxied.observed.ended()
    assert secured.proxied.observed.records[0].reason.how is Ending.UNREACHABLE


async def test_a_drain_while_connecting_for_a_client_that_is_gone(
    secured: Secured, unanswered: Unanswered
) -> None:
    """A second signal ends the session of a client that is gone at once."""
    await left_early(secured, [unanswered.name])
    [session] = secured.proxied.admission.sessions
    session.end(Side.PROXY, Ending.DRAIN)
    await secured.proxied.observed.ended()
    assert secured.proxied.observed.records[0].reason.how is Ending.DRAIN
