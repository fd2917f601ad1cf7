"""Sessions whose bytes have a rate: they are slow, whole, and end as they should."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults

from evproxy.model import Ending
from evproxy.policy.access import Access
from evproxy.policy.limits import ClientLimits
from evproxy.policy.shaping import BURST_SECONDS, byte_rate
from evproxy.session.entry import Entry, EntryLimits
from evproxy.session.refusals import Refusals
from tests.support.peers import END, RESET, Peer, converse
from tests.support.proxies import Proxied

pytestmark = pytest.mark.deadline(30)

RATE = 1_000_000
SIZE = 400_000
AHEAD = RATE * BURST_SECONDS + 64 * 1024
"""Bytes that may come at once: a burst, and what a transport of Twisted's reads at a time."""

LEAST = (SIZE - AHEAD) / RATE
"""Seconds that `SIZE` bytes take at least."""

DATA = Random(1).randbytes(SIZE)


async def paced(proxied: Proxied, **limits: Any) -> None:
    """Start the proxy with these limits."""
    await proxied.start()
    reactor = proxied.reactor
    refusals = Refusals(reactor, "test", proxied.factory.context.hub)
    entry = Entry(reactor, Access(), EntryLimits(**limits), refusals)
    proxied.factory.context.arrival.entry = entry


async def moved(reactor: Any, source: Peer, sink: Peer, data: bytes = DATA) -> float:
    """Move `data` from `source` to `sink`; the seconds that takes."""
    began: float = reactor.seconds()
    sending = Deferred.fromCoroutine(source.send(data))
    assert await sink.receive(len(data)) == data
    await sending
    ended: float = reactor.seconds()
    return ended - began


@pytest.mark.parametrize("up", [True, False])
async def test_the_rate_of_a_session(proxied: Proxied, up: bool) -> None:
    """Each direction takes its time, and every byte arrives."""
    await paced(proxied, of_session=byte_rate(RATE))
    client, server = await proxied.pair()
    source, sink = (client, server) if up else (server, client)
    assert await moved(proxied.reactor, source, sink) >= LEAST
    await converse(client, server)


async def test_the_directions_are_independent(proxied: Proxied) -> None:
    """What one direction waits for does not hold up the other."""
    await paced(proxied, of_session=byte_rate(RATE))
    client, server = await proxied.pair()
    up = Deferred.fromCoroutine(moved(proxied.reactor, client, server))
    down = Deferred.fromCoroutine(moved(proxied.reactor, server, client))
    took = await gatherResults([up, down])
    assert all(LEAST <= seconds < 2 * LEAST + 1 for seconds in took)


@pytest.mark.parametrize("limit", ["client", "listener"])
async def test_a_rate_that_sessions_share(proxied: Proxied, limit: str) -> None:
    """Two sessions of one client, or of one listener, have the rate together."""
    if limit == "client":
        await paced(proxied, of_client=ClientLimits(transfer=byte_rate(RATE)))
    else:
        await paced(proxied, transfer=byte_rate(RATE))
    pairs = [await proxied.pair() for _ in range(2)]
    moving = [
        Deferred.fromCoroutine(moved(proxied.reactor, client, server)) for client, server in pairs
    ]
    took = await gatherResults(moving)
    assert max(took) >= (2 * SIZE - AHEAD - 64 * 1024) / RATE


async def test_a_stream_that_ends(proxied: Proxied) -> None:
    """The end comes after every byte."""
    await paced(proxied, of_session=byte_rate(RATE))
    client, server = await proxied.pair()
    await client.send(DATA)
    client.end()
    assert await server.rest() == (DATA, END)
    await server.send(DATA)
    server.end()
    assert await client.rest() == (DATA, END)
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.FINISHED


async def test_a_peer_that_resets(proxied: Proxied) -> None:
    """The other peer is reset, and no timer stays."""
    await paced(proxied, of_session=byte_rate(RATE))
    client, server = await proxied.pair()
    await client.send(DATA)
    await server.receive(1000)
    server.reset()
    await client.rest()
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.RESET


async def test_bytes_before_a_reset(proxied: Proxied) -> None:
    """What a client sent before it reset is delivered, at the rate."""
    await paced(proxied, of_session=byte_rate(RATE))
    client, server = await proxied.pair()
    await converse(client, server)
    await client.send(DATA)
    await server.receive(1000)
    client.reset()
    rest, how = await server.rest()
    assert how == RESET
    assert DATA[1000:].startswith(rest)


async def test_a_session_that_is_ended_while_it_waits(proxied: Proxied) -> None:
    """Both peers are reset at once."""
    await paced(proxied, of_session=byte_rate(2000))
    client, server = await proxied.pair()
    await client.send(DATA)
    await server.receive(1460)
    proxied.factory.end_session(1)
    assert (await server.rest())[1] == RESET
    assert (await client.rest())[1] == RESET


async def test_bytes_that_come_before_the_server(proxied: Proxied) -> None:
    """They count as well."""
    await paced(proxied, of_session=byte_rate(RATE))
    client = proxied.client()
    began = proxied.reactor.seconds()
    await client.send(DATA)
    server = await proxied.upstream.accept()
    assert await server.receive(SIZE) == DATA
    await client.send(b"?")
    assert await server.receive(1) == b"?"
    assert proxied.reactor.seconds() - began >= LEAST


async def test_a_high_rate(proxied: Proxied) -> None:
    """Bulk is spliced where it can be, and keeps its rate."""
    await paced(proxied, of_session=byte_rate(100_000_000))
    client, server = await proxied.pair()
    data = DATA * 80
    assert await moved(proxied.reactor, server, client, data) >= 0.15
    await converse(client, server)
