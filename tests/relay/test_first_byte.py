"""The time until the first byte of the server, on each relay."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from evproxy.records import SessionRecord
from tests.support.peers import END, RESET
from tests.support.proxies import Proxied

pytestmark = [pytest.mark.lingering, pytest.mark.deadline(20)]

LATE = 0.05
"""How many seconds a server waits in these tests."""


async def ended(proxied: Proxied) -> SessionRecord:
    """The record of the one session."""
    await proxied.observed.ended()
    [record] = proxied.observed.records
    return record


async def test_it_is_that_of_the_first_byte(proxied: Proxied) -> None:
    """It is the time of the first byte of the server, and of no other event."""
    await proxied.start()
    client = proxied.client()
    server = await proxied.upstream.accept()
    await client.send(b"?")
    await server.receive(1)
    before = proxied.reactor.seconds()
    await deferLater(proxied.reactor, LATE)
    await server.send(b"!")
    await client.receive(1)
    after = proxied.reactor.seconds()
    await deferLater(proxied.reactor, LATE)
    await server.send(b"!" * 300_000)
    await client.receive(300_000)
    client.end()
    assert await server.rest() == (b"", END)
    server.end()
    assert await client.rest() == (b"", END)
    record = await ended(proxied)
    assert record.first_byte_time is not None
    assert before < record.started + record.first_byte_time <= after
    assert record.bytes_to_downstream == 300_001


async def test_a_server_that_speaks_first_and_ends(proxied: Proxied) -> None:
    """A byte that comes together with the end of the stream counts too."""
    await proxied.start()
    client = proxied.client()
    server = await proxied.upstream.accept()
    await server.send(b"bye")
    server.end()
    assert await client.rest() == (b"bye", END)
    client.end()
    assert await server.rest() == (b"", END)
    record = await ended(proxied)
    assert record.connect_time is not None
    assert record.first_byte_time is not None
    assert record.connect_time <= record.first_byte_time <= record.duration


async def test_a_client_that_does_not_read_at_first(proxied: Proxied) -> None:
    """The time does not change while later bytes wait for the client."""
    await proxied.start()
    client = proxied.client()
    server = await proxied.upstream.accept()
    size = 8_000_000
    sent = Deferred.fromCoroutine(server.send(b"!" * size))
    await deferLater(proxied.reactor, LATE)
    before = proxied.reactor.seconds()
    received = await client.receive(size)
    await sent
    assert len(received) == size
    client.reset()
    await server.rest()
    record = await ended(proxied)
    assert record.first_byte_time is not None
    assert record.started + record.first_byte_time < before
    assert record.bytes_to_downstream == size


async def test_a_client_that_sends_more_than_is_taken(proxied: Proxied) -> None:
    """The first byte is noticed even if the direction from the client had to wait before."""
    await proxied.start()
    client = proxied.client()
    server = await proxied.upstream.accept()
    size = 8_000_000
    sent = Deferred.fromCoroutine(client.send(b"?" * size))
    await deferLater(proxied.reactor, LATE)
    assert len(await server.receive(size)) == size
    await sent
    before = proxied.reactor.seconds()
    await server.send(b"!")
    await client.receive(1)
    client.reset()
    await server.rest()
    record = await ended(proxied)
    assert record.first_byte_time is not None
    assert before <= record.started + record.first_byte_time


async def test_there_is_none_where_no_byte_came(proxied: Proxied) -> None:
    """There is no time if the server ends without a byte, whatever the client sent."""
    await proxied.start()
    client = proxied.client()
    server = await proxied.upstream.accept()
    await client.send(b"?")
    await server.receive(1)
    server.reset()
    assert await client.rest() == (b"", RESET)
    record = await ended(proxied)
    assert record.connect_time is not None
    assert record.first_byte_time is None
