"""Ends and resets while send buffers are full, on each kind of relay."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet.task import deferLater

from evproxy.model import Ending, Side
from evproxy.relay.delivery import unsent
from evproxy.session.factory import ProxyFactory
from evproxy.session.halves import UpstreamFactory
from tests.support.bulk import ENDLESS, counted, fill, roles
from tests.support.peers import END, RESET, Listening, converse
from tests.support.proxies import Proxied

pytestmark = [pytest.mark.deadline(20), pytest.mark.lingering, pytest.mark.every_reactor]
each_side = pytest.mark.parametrize("side", [Side.DOWNSTREAM, Side.UPSTREAM])


@each_side
async def test_an_end_behind_a_full_queue(proxied: Proxied, side: Side) -> None:
    """The end of a stream arrives after all bytes that had to wait when it came."""
    await proxied.start()
    sender, receiver = roles(side, *await proxied.pair())
    sent = await fill(proxied.reactor, sender)
    sender.end()
    assert await receiver.rest() == (bytes(ENDLESS[:sent]), END)
    receiver.end()
    assert await sender.rest() == (b"", END)
    await proxied.observed.ended()
    to_upstream, to_downstream, how = counted(proxied)
    assert (to_upstream + to_downstream, how) == (sent, Ending.FINISHED)


@each_side
async def test_a_reset_behind_a_full_queue(proxied: Proxied, side: Side) -> None:
    """If a sender has to wait and resets, all that evproxy's kernel has is still delivered."""
    await proxied.start()
    sender, receiver = roles(side, *await proxied.pair())
    sent = await fill(proxied.reactor, sender)
    unacknowledged = unsent(sender.socket.fileno())
    sender.reset()
    received, end = await receiver.rest()
    assert end == RESET
    assert sent - unacknowledged <= len(received) <= sent
    assert received == ENDLESS[: len(received)]
    await proxied.observed.ended()
    to_upstream, to_downstream, how = counted(proxied)
    assert (to_upstream + to_downstream, how) == (len(received), Ending.RESET)
    assert proxied.observed.records[0].reason.by is side


@each_side
async def test_a_reader_that_resets_with_a_full_queue(proxied: Proxied, side: Side) -> None:
    """If a slow reader resets, its sender is reset at once."""
    await proxied.start()
    reader, sender = roles(side, *await proxied.pair())
    await fill(proxied.reactor, sender)
    reader.reset()
    assert await sender.rest() == (b"", RESET)
    await proxied.observed.ended()
    record = proxied.observed.records[0]
    assert (record.reason.by, record.reason.how) == (side, Ending.RESET)


@each_side
async def test_both_reset_with_bytes_under_way(proxied: Proxied, side: Side) -> None:
    """Two resets at once, each behind bytes for the other, end the session at once."""
    await proxied.start()
    one, other = roles(side, *await proxied.pair())
    await one.send(b"?")
    assert await other.receive(1) == b"?"
    one.send_now(b"x" * 1000)
    one.reset()
    other.send_now(b"y" * 1000)
    other.reset()
    await proxied.observed.ended()
    record = proxied.observed.records[0]
    assert record.reason.how is Ending.RESET
    assert record.duration < 5


@each_side
async def test_both_reset_behind_full_queues(proxied: Proxied, side: Side) -> None:
    """Two resets, one after the other, while nothing can be passed on, end the session at once."""
    await proxied.start()
    one, other = roles(side, *await proxied.pair())
    await fill(proxied.reactor, one)
    await fill(proxied.reactor, other)
    one.reset()
    for _ in range(5):
        await deferLater(proxied.reactor, 0)
    other.reset()
    await proxied.observed.ended()
    record = proxied.observed.records[0]
    assert record.reason.how is Ending.RESET
    assert record.duration < 5


@each_side
async def test_a_reset_while_the_last_bytes_are_delivered(proxied: Proxied, side: Side) -> None:
    """If a reset waits for a reader, and the reader resets too, the session ends at once."""
    await proxied.start()
    sender, reader = roles(side, *await proxied.pair())
    await fill(proxied.reactor, sender)
    sender.reset()
    for _ in range(20):
        await deferLater(proxied.reactor, 0.005)
    assert not proxied.observed.records
    reader.reset()
    await proxied.observed.ended()
    record = proxied.observed.records[0]
    assert record.reason.how is Ending.RESET
    assert record.duration < 5


@each_side
async def test_a_reset_while_the_kernel_delivers(proxied: Proxied, side: Side) -> None:
    """The session also ends at once if all bytes for the reader are in the kernel."""
    await proxied.start()
    sender, reader = roles(side, *await proxied.pair())
    reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sender.send(b"x" * 500_000)
    while unsent(sender.socket.fileno()):
        await deferLater(proxied.reactor, 0)
    sender.reset()
    for _ in range(20):
        await deferLater(proxied.reactor, 0.005)
    assert not proxied.observed.records
    reader.reset()
    await proxied.observed.ended()
    record = proxied.observed.records[0]
    assert record.reason.how is Ending.RESET
    assert record.duration < 5


@each_side
async def test_a_unix_peer_that_closes_while_the_other_one_is_slow(
    proxied: Proxied, side: Side, tmp_path: Any
) -> None:
    """A close of a UNIX socket is an end in order, and is passed on so after all bytes."""
    path = str(tmp_path / "socket")
    if side is Side.UPSTREAM:
        upstream = proxied.closes(Listening.unix(proxied.reactor, path))
        await proxied.start(upstreams=[f"unix:{path}"])
    else:
        upstream = proxied.upstream
        await proxied.start(listen=f"unix:{path}")
    client = proxied.client()
    closing, reading = roles(side, client, await upstream.accept())
    sent = await fill(proxied.reactor, closing)
    closing.close()
    assert await reading.rest() == (bytes(ENDLESS[:sent]), END)
    reading.close()
    await proxied.observed.ended()
    to_upstream, to_downstream, _ = counted(proxied)
    assert to_upstream + to_downstream == sent


async def test_a_unix_server_that_answers_and_closes(proxied: Proxied, tmp_path: Any) -> None:
    """A server that closes its UNIX socket after its answer ends the session in order."""
    path = str(tmp_path / "socket")
    upstream = proxied.closes(Listening.unix(proxied.reactor, path))
    await proxied.start(upstreams=[f"unix:{path}"])
    client = proxied.client()
    server = await upstream.accept()
    await converse(client, server)
    await server.send(b"answer")
    server.close()
    assert await client.rest() == (b"answer", END)
    client.close()
    await proxied.observed.ended()
    assert counted(proxied) == (1, 7, Ending.FINISHED)


@pytest.mark.parametrize("proxied", ["stream-twisted"], indirect=True)
async def test_a_reset_that_twisted_takes_for_an_end(proxied: Proxied) -> None:
    """If Twisted takes a reset for an end of the stream, evproxy still resets the other side."""
    made = []

    class Remembering(UpstreamFactory):
        def buildProtocol(self, addr: object) -> Any:
            made.append(super().buildProtocol(None))
            return made[0]

    class Factory(ProxyFactory):
        upstream_factory = Remembering

    await proxied.start(factory=Factory)
    client, server = await proxied.pair()
    await converse(client, server)
    await fill(proxied.reactor, server)
    server.reset()
    for _ in range(10):
        await deferLater(proxied.reactor, 0)
    # Twisted does this if reading is resumed at this moment (see `ended_in_order`).
    made[0].readConnectionLost()
    assert (await client.rest())[1] == RESET
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.RESET
