"""A listener whose endpoint wraps each connection, as ``haproxy:`` and some plugins do."""

from __future__ import annotations

import socket

import pytest

from evproxy.model import Ending, Phase, Side
from evproxy.settings import Timeouts
from tests.support.bulk import ENDLESS, passes
from tests.support.peers import END, RESET, Peer, converse, turn
from tests.support.proxies import Proxied

pytestmark = [pytest.mark.deadline(15), pytest.mark.oldest_twisted]

HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\n"
TAIL = bytes(ENDLESS[:1_000_000])


async def behind(proxied: Proxied, timeouts: Timeouts | None = None) -> tuple[Peer, Peer]:
    """A client behind an L4 balancer, which has sent the PROXY header, and its server."""
    await proxied.start(listen="haproxy:tcp:0:interface=127.0.0.1", timeouts=timeouts)
    client, server = await proxied.pair()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    await client.send(HEADER)
    await converse(client, server)
    return client, server


async def finished(proxied: Proxied, by: Side) -> None:
    """Check that the session ended in order, by the side `by`."""
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert (record.reason.by, record.reason.how) == (by, Ending.FINISHED)
    assert record.relay == "stream"


async def test_bytes_pass_both_ways(proxied: Proxied) -> None:
    """The header is removed, and many bytes pass both ways until the server ends."""
    client, server = await behind(proxied)
    await passes(client, server)
    await passes(server, client)
    await server.send(b"last")
    server.end()
    assert await client.rest() == (b"last", END)
    assert await server.rest() == (b"", END)
    await finished(proxied, Side.UPSTREAM)


async def test_a_client_that_closes(proxied: Proxied) -> None:
    """When the client closes, the server gets all bytes of the client, and a FIN."""
    client, server = await behind(proxied)
    await client.send(TAIL)
    client.close()
    assert await server.rest() == (TAIL, END)
    await finished(proxied, Side.DOWNSTREAM)


async def test_a_client_that_ends_with_an_answer_under_way(proxied: Proxied) -> None:
    """A partial answer never looks whole: the client is reset, and the server gets a FIN."""
    client, server = await behind(proxied)
    sent = 0
    while sent < 20_000_000 and (taken := server.send_now(ENDLESS[sent:])):
        sent += taken
        await turn(proxied.reactor)
    await client.send(b"last")
    client.end()
    received, end = await client.rest()
    assert end == RESET
    assert received == ENDLESS[: len(received)]
    await finished(proxied, Side.DOWNSTREAM)


async def test_a_client_that_ends_before_the_answer(proxied: Proxied) -> None:
    """A missing answer never looks like an empty answer."""
    client, server = await behind(proxied)
    await client.send(b"question")
    client.end()
    assert await server.rest() == (b"question", END)
    assert await client.rest() == (b"", RESET)
    await finished(proxied, Side.DOWNSTREAM)


async def test_a_slow_client_that_talks_gets_the_whole_answer(proxied: Proxied) -> None:
    """After the server has ended, bytes from the client do not cause a reset of the client."""
    client, server = await behind(proxied)
    await server.send(TAIL)
    server.end()
    received = b""
    while len(received) < len(TAIL):
        client.send_now(b".")
        received += await client.receive(min(65536, len(TAIL) - len(received)))
        await turn(proxied.reactor)
    assert received == TAIL
    await finished(proxied, Side.UPSTREAM)


@pytest.mark.parametrize(
    ("by", "how"),
    [
        (Side.PROXY, Ending.HALF_CLOSE),
        (Side.PROXY, Ending.DRAIN),
        (Side.DOWNSTREAM, Ending.RESET),
    ],
)
async def test_a_client_that_never_had_the_whole_answer(
    proxied: Proxied, by: Side, how: Ending
) -> None:
    """If the server has ended but the client reads nothing, the session has not finished."""
    timeouts = Timeouts(half_close=0.3 if how is Ending.HALF_CLOSE else 60)
    client, server = await behind(proxied, timeouts)
    await server.send(TAIL)
    server.end()
    [session] = proxied.admission.sessions
    while session.phase is not Phase.CLOSING:
        await turn(proxied.reactor)
    if how is Ending.DRAIN:
        session.end(by, how)
    elif how is Ending.RESET:
        client.reset()
    await proxied.observed.ended()
    reason = proxied.observed.records[0].reason
    assert (reason.by, reason.how, reason.phase) == (by, how, Phase.CLOSING)


@pytest.mark.parametrize("side", [Side.DOWNSTREAM, Side.UPSTREAM])
async def test_a_reset_is_a_reset(proxied: Proxied, side: Side) -> None:
    """If either peer resets, the other peer gets the bytes from before, and then a reset."""
    client, server = await behind(proxied)
    one, other = (client, server) if side is Side.DOWNSTREAM else (server, client)
    await one.send(b"half an ans")
    one.reset()
    assert await other.rest() == (b"half an ans", RESET)
    await proxied.observed.ended()
    reason = proxied.observed.records[0].reason
    assert (reason.by, reason.how) == (side, Ending.RESET)
