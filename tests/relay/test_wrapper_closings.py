"""A wrapper, or other code between socket and half, closes a connection in any phase."""

from __future__ import annotations

import socket

import pytest

from evproxy.model import Ending, Phase, Side
from evproxy.session.factory import ProxyFactory
from evproxy.session.halves import DownstreamProtocol
from evproxy.settings import Timeouts
from tests.support.bulk import BULK, ENDLESS, fill, passes
from tests.support.peers import END, RESET, converse, turn
from tests.support.proxies import Proxied
from tests.support.unreachable import Unanswered
from tests.support.wrappers import (
    ABORT,
    CLOSE,
    LOSE,
    Doors,
    Hidings,
    Throughs,
    Wrapping,
    begun,
    drops,
    is_over,
)

pytestmark = [pytest.mark.deadline(15), pytest.mark.oldest_twisted]

both_ways = pytest.mark.parametrize("how", [LOSE, ABORT])
both_sides = pytest.mark.parametrize("side", [Side.DOWNSTREAM, Side.UPSTREAM])


@both_ways
@pytest.mark.parametrize(
    "when", ["connectionMade", "before makeConnection", "after makeConnection"]
)
@pytest.mark.parametrize("reachable", [True, False])
async def test_a_wrapper_that_closes_when_it_is_connected(
    proxied: Proxied, unanswered: Unanswered, how: str, when: str, reachable: bool
) -> None:
    """The client's connection closes, and its session ends before it connects to a server."""
    await proxied.start(
        upstreams=None if reachable else [unanswered.name],
        connect_timeout=60,
        **Wrapping(how, when).arguments(),
    )
    client = proxied.client()
    assert await drops(client) == (END if how == LOSE else RESET)
    await proxied.observed.ended()
    await proxied.admission.sessions.when_empty()
    [record] = proxied.observed.records
    assert record.reason.by is Side.DOWNSTREAM
    assert record.reason.how in (Ending.LEFT, Ending.RESET)
    if how == LOSE and when != "after makeConnection":
        assert record.attempts == 0


@both_ways
async def test_a_wrapper_that_closes_while_its_session_is_connected(
    proxied: Proxied, unanswered: Unanswered, how: str
) -> None:
    """The connect is cancelled, and what the client sent before is discarded."""
    wrapping = Wrapping(how)
    await proxied.start(upstreams=[unanswered.name], connect_timeout=60, **wrapping.arguments())
    client = proxied.client()
    await client.send(b"question")
    await begun(proxied)
    while not wrapping.door.seen:
        await turn(proxied.reactor)
    await client.send(CLOSE)
    assert await drops(client) == (END if how == LOSE else RESET)
    await is_over(proxied, Side.DOWNSTREAM, Ending.LEFT, Phase.CONNECTING)


async def test_an_end_that_nobody_takes_while_connecting(
    proxied: Proxied, unanswered: Unanswered
) -> None:
    """Delivery of what a wrapper wrote before it closed has the half-close timeout."""
    wrapping = Wrapping()
    await proxied.start(
        upstreams=[unanswered.name],
        connect_timeout=60,
        timeouts=Timeouts(half_close=0.2),
        **wrapping.arguments(),
    )
    client = proxied.client()
    await begun(proxied)
    wrapping.door.transport.write(bytes(ENDLESS))
    wrapping.door.close()
    await is_over(proxied, Side.DOWNSTREAM, Ending.LEFT, Phase.CONNECTING)
    assert (await client.rest())[1] == RESET


async def test_a_drain_while_an_end_is_taken(proxied: Proxied, unanswered: Unanswered) -> None:
    """A session that a wrapper closes while it connects does not outlive the drain."""
    wrapping = Wrapping()
    await proxied.start(upstreams=[unanswered.name], connect_timeout=60, **wrapping.arguments())
    client = proxied.client()
    [session] = await begun(proxied)
    wrapping.door.transport.write(bytes(ENDLESS))
    wrapping.door.close()
    session.end(Side.PROXY, Ending.DRAIN)
    await is_over(proxied, Side.DOWNSTREAM, Ending.LEFT, Phase.CONNECTING)
    assert (await client.rest())[1] == RESET


@both_ways
@both_sides
async def test_a_wrapper_that_closes_a_quiet_session(
    proxied: Proxied, how: str, side: Side
) -> None:
    """The side of the wrapper closes as the wrapper says; the other side is reset."""
    wrapping = Wrapping(how, upstream=side is Side.UPSTREAM)
    await proxied.start(**wrapping.arguments())
    client, server = await proxied.pair()
    await converse(client, server)
    wrapping.door.close()
    own, other = (client, server) if side is Side.DOWNSTREAM else (server, client)
    assert await drops(own) == (END if how == LOSE else RESET)
    assert await drops(other) == RESET
    await is_over(proxied, side, Ending.RESET, Phase.RELAYING)


@both_ways
@both_sides
async def test_a_wrapper_that_closes_with_bytes_queued_for_it(
    proxied: Proxied, how: str, side: Side
) -> None:
    """The peer of the wrapper still gets all that was written, unless the wrapper aborts."""
    wrapping = Wrapping(how, upstream=side is Side.UPSTREAM)
    await proxied.start(**wrapping.arguments())
    client, server = await proxied.pair()
    await converse(client, server)
    own, other = (client, server) if side is Side.DOWNSTREAM else (server, client)
    await fill(proxied.reactor, other)
    wrapping.door.close()
    received, end = await own.rest()
    assert received == ENDLESS[: len(received)]
    assert end == (END if how == LOSE else RESET)
    assert (await other.rest())[1] == RESET
    await is_over(proxied, side, Ending.RESET, Phase.RELAYING)
    [record] = proxied.observed.records
    moved = (
        record.bytes_to_downstream if side is Side.DOWNSTREAM else record.bytes_to_upstream
    ) - 1
    assert len(received) == moved if how == LOSE else len(received) <= moved


@both_ways
@both_sides
async def test_a_wrapper_that_closes_with_bytes_queued_from_it(
    proxied: Proxied, how: str, side: Side
) -> None:
    """The other side gets all that was read, and then is reset."""
    wrapping = Wrapping(how, upstream=side is Side.UPSTREAM)
    await proxied.start(**wrapping.arguments())
    client, server = await proxied.pair()
    await converse(client, server)
    own, other = (client, server) if side is Side.DOWNSTREAM else (server, client)
    await fill(proxied.reactor, own)
    wrapping.door.close()
    received, end = await other.rest()
    assert end == RESET
    assert received == ENDLESS[: len(received)]
    # Unread bytes of the peer may make the kernel reset the connection.
    _, end = await own.rest()
    assert end == RESET or how == LOSE
    await is_over(proxied, side, Ending.RESET, Phase.RELAYING)
    [record] = proxied.observed.records
    moved = record.bytes_to_upstream if side is Side.DOWNSTREAM else record.bytes_to_downstream
    assert len(received) == moved - 1


@both_sides
async def test_the_other_side_resets_while_an_end_is_taken(proxied: Proxied, side: Side) -> None:
    """What was written to the closing side is still delivered."""
    wrapping = Wrapping(upstream=side is Side.UPSTREAM)
    await proxied.start(**wrapping.arguments())
    client, server = await proxied.pair()
    await converse(client, server)
    own, other = (client, server) if side is Side.DOWNSTREAM else (server, client)
    await fill(proxied.reactor, other)
    await fill(proxied.reactor, own)
    wrapping.door.close()
    other.reset()
    received, _ = await own.rest()
    assert received == ENDLESS[: len(received)]
    await is_over(proxied, side, Ending.RESET, Phase.RELAYING)


@both_sides
async def test_nobody_takes_what_is_queued(proxied: Proxied, side: Side) -> None:
    """A peer that does not take the bytes before a close is reset after the half-close timeout."""
    wrapping = Wrapping(upstream=side is Side.UPSTREAM)
    await proxied.start(timeouts=Timeouts(half_close=0.2), **wrapping.arguments())
    client, server = await proxied.pair()
    await converse(client, server)
    own, other = (client, server) if side is Side.DOWNSTREAM else (server, client)
    await fill(proxied.reactor, other)
    # More than the kernel can hold.
    wrapping.door.transport.write(BULK)
    wrapping.door.close()
    await is_over(proxied, side, Ending.RESET, Phase.RELAYING)
    assert (await own.rest())[1] == RESET


async def test_a_wrapper_that_closes_twice(proxied: Proxied) -> None:
    """Two calls of loseConnection and one of abortConnection end the session once."""
    wrapping = Wrapping()
    await proxied.start(**wrapping.arguments())
    client, server = await proxied.pair()
    await converse(client, server)
    await fill(proxied.reactor, server)
    wrapping.door.transport.loseConnection()
    wrapping.door.transport.loseConnection()
    wrapping.door.transport.abortConnection()
    assert (await client.rest())[1] == RESET
    assert (await server.rest())[1] == RESET
    await is_over(proxied, Side.DOWNSTREAM, Ending.RESET, Phase.RELAYING)


async def test_a_wrapper_that_closes_while_the_session_does(proxied: Proxied) -> None:
    """The whole answer of a server that has ended its stream still arrives."""
    wrapping = Wrapping()
    await proxied.start(**wrapping.arguments())
    client, server = await proxied.pair()
    await converse(client, server)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    await server.send(bytes(ENDLESS[:1_000_000]))
    server.end()
    [session] = proxied.admission.sessions
    while session.phase is not Phase.CLOSING:
        await turn(proxied.reactor)
    wrapping.door.close()
    assert await client.rest() == (bytes(ENDLESS[:1_000_000]), END)
    await is_over(proxied, Side.UPSTREAM, Ending.FINISHED, Phase.RELAYING)


@both_ways
async def test_an_upstream_wrapper_that_closes_when_it_is_connected(
    proxied: Proxied, how: str
) -> None:
    """The connect has failed: the session tries the next server, and the log says why."""
    wrapping = Wrapping(how, "before makeConnection", upstream=True)
    await proxied.start(**wrapping.arguments())
    client = proxied.client()
    assert await drops(client) == RESET
    if how == ABORT and proxied.transports == "twisted":
        # Twisted's transports do not report that they are being aborted.
        await is_over(proxied, Side.UPSTREAM, Ending.RESET, Phase.RELAYING)
        return
    await is_over(proxied, Side.UPSTREAM, Ending.UNREACHABLE, Phase.CONNECTING)
    assert len(proxied.observed.failures) == 1


@both_ways
@pytest.mark.parametrize("doors", [Throughs, Hidings])
@pytest.mark.parametrize("queued", [True, False])
async def test_code_that_wraps_no_transport(
    proxied: Proxied, how: str, doors: type[Doors], queued: bool
) -> None:
    """The code sees every byte on each relay, and a connection that it closes is closed."""
    wrapping = Wrapping(how, doors=doors)
    await proxied.start(**wrapping.arguments())
    client, server = await proxied.pair()
    await converse(client, server)
    await passes(client, server)
    assert wrapping.door.seen > 1_000_000
    if queued:
        await fill(proxied.reactor, server)
    wrapping.door.close()
    received, end = await client.rest()
    assert received == ENDLESS[: len(received)]
    assert bool(received) is queued or how == ABORT
    assert end == (END if how == LOSE else RESET)
    if how == LOSE and doors is Hidings and proxied.transports == "twisted":
        # This looks exactly like the end of the client's stream.
        await proxied.observed.ended()
        return
    assert (await server.rest())[1] == RESET
    await is_over(proxied, Side.DOWNSTREAM, Ending.RESET, Phase.RELAYING)


class Halves:
    """Makes halves of clients, which tests close."""

    def __init__(self) -> None:
        self.made: list[DownstreamProtocol] = []

    def factory(self) -> type[ProxyFactory]:
        made = self.made

        class Remembered(DownstreamProtocol):
            def connectionMade(self) -> None:
                made.append(self)
                super().connectionMade()

        class Factory(ProxyFactory):
            protocol = Remembered

        return Factory


@both_ways
@pytest.mark.parametrize("queue", ["", "for it", "from it"])
async def test_a_half_that_closes_its_connection(proxied: Proxied, how: str, queue: str) -> None:
    """A subclass of a half may close its connection too, and the kind of relay does not change."""
    halves = Halves()
    await proxied.start(factory=halves.factory())
    client, server = await proxied.pair()
    await converse(client, server)
    if queue:
        await fill(proxied.reactor, server if queue == "for it" else client)
    [half] = halves.made
    # Twisted's transports do not know what a socket relay keeps for the peer.
    says = b"bye" if how == LOSE and not (queue and proxied.kind == "socket-twisted") else b""
    half.transport.write(says)
    getattr(half.transport, how)()
    received, end = await client.rest()
    if how == ABORT:
        assert end == RESET
    elif queue != "from it":
        # Otherwise unread bytes of the peer may make the kernel reset the connection.
        assert end == END
        assert received.endswith(says)
        received = received[: len(received) - len(says)]
    else:
        received = b""
    assert received == ENDLESS[: len(received)]
    passed, end = await server.rest()
    assert end == RESET
    assert passed == ENDLESS[: len(passed)]
    await is_over(proxied, Side.DOWNSTREAM, Ending.RESET, Phase.RELAYING)
    [record] = proxied.observed.records
    assert record.relay == proxied.relay
    assert len(passed) == record.bytes_to_upstream - 1


@pytest.mark.parametrize("queue", ["", "for it"])
async def test_a_drain_ends_a_half_that_closes(proxied: Proxied, queue: str) -> None:
    """A delivery that is still running ends at the drain deadline."""
    halves = Halves()
    await proxied.start(factory=halves.factory())
    client, server = await proxied.pair()
    await converse(client, server)
    await fill(proxied.reactor, client)
    [half], [session] = halves.made, proxied.admission.sessions
    if queue:
        await fill(proxied.reactor, server)
        half.transport.write(BULK)
    half.transport.loseConnection()
    await turn(proxied.reactor)
    session.end(Side.PROXY, Ending.DRAIN)
    if queue:
        assert (await client.rest())[1] == RESET
    assert (await server.rest())[1] == RESET
    await is_over(proxied, Side.DOWNSTREAM, Ending.RESET, Phase.RELAYING)
