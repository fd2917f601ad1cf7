"""How a session ends: each row of the table in docs/architecture.md, on each kind of relay."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from evproxy.model import Ending, Phase, Side
from evproxy.relay.delivery import unsent
from evproxy.settings import Timeouts
from tests.support.bulk import MANY
from tests.support.peers import END, RESET, converse, turn
from tests.support.proxies import Proxied
from tests.support.unreachable import Refusing, Unanswered

pytestmark = [
    pytest.mark.lingering,
    pytest.mark.staged,
    pytest.mark.tls,
    pytest.mark.oldest_twisted,
    pytest.mark.every_reactor,
]

QUICK = Timeouts(idle=0.4, half_close=0.2)


@pytest.mark.faulted
async def test_bytes_pass_both_ways(proxied: Proxied) -> None:
    """The bytes of either peer reach the other peer, whole and in order."""
    await proxied.start()
    client, server = await proxied.pair()
    await client.send(b"question")
    assert await server.receive(8) == b"question"
    await server.send(b"answer")
    assert await client.receive(6) == b"answer"


async def test_the_server_may_speak_first(proxied: Proxied) -> None:
    """evproxy connects to the server before the client sends a byte, so the server can greet."""
    await proxied.start()
    client, server = await proxied.pair()
    await server.send(b"220 ready\r\n")
    assert await client.receive(11) == b"220 ready\r\n"


@pytest.mark.faulted
@pytest.mark.half_closes
async def test_an_end_in_order_is_passed_on_and_the_other_direction_goes_on(
    proxied: Proxied,
) -> None:
    """A client that ended its stream still gets the whole answer."""
    await proxied.start()
    client, server = await proxied.pair()
    await client.send(MANY)
    client.end()
    assert await server.rest() == (MANY, END)
    await server.send(MANY)
    server.end()
    assert await client.rest() == (MANY, END)
    await proxied.observed.ended()
    record = proxied.observed.records[0]
    assert record.reason.how is Ending.FINISHED
    assert record.reason.by is Side.DOWNSTREAM
    assert record.reason.phase is Phase.RELAYING
    assert record.relay == proxied.relay
    assert record.bytes_to_upstream == record.bytes_to_downstream == len(MANY)


@pytest.mark.faulted
@pytest.mark.half_closes
async def test_a_server_may_end_first(proxied: Proxied) -> None:
    """A server that ended its stream still gets everything that the client sends."""
    await proxied.start()
    client, server = await proxied.pair()
    await server.send(b"bye")
    server.end()
    assert await client.rest() == (b"bye", END)
    await client.send(MANY)
    client.end()
    assert await server.rest() == (MANY, END)
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.by is Side.UPSTREAM


@pytest.mark.faulted
@pytest.mark.parametrize("side", [Side.DOWNSTREAM, Side.UPSTREAM])
async def test_a_reset_is_passed_on_as_a_reset(proxied: Proxied, side: Side) -> None:
    """Bytes from before a reset arrive; then the other side sees a reset, never an end."""
    await proxied.start()
    client, server = await proxied.pair()
    one, other = (client, server) if side is Side.DOWNSTREAM else (server, client)
    await converse(client, server)
    await one.send(b"x" * 1000)
    one.reset()
    assert await other.rest() == (b"x" * 1000, RESET)
    await proxied.observed.ended()
    reason = proxied.observed.records[0].reason
    assert (reason.by, reason.how) == (side, Ending.RESET)


@pytest.mark.faulted
@pytest.mark.parametrize("side", [Side.DOWNSTREAM, Side.UPSTREAM])
async def test_a_reset_does_not_throw_away_what_is_queued(proxied: Proxied, side: Side) -> None:
    """A peer that reads slowly gets all bytes that the other side sent before its reset."""
    await proxied.start()
    client, server = await proxied.pair()
    one, other = (client, server) if side is Side.DOWNSTREAM else (server, client)
    await converse(client, server)
    await one.send(MANY)
    # A reset would discard the bytes that the sender's own kernel has not sent yet.
    while unsent(one.socket.fileno()):
        await turn(proxied.reactor)
    one.reset()
    assert await other.rest() == (MANY, RESET)


@pytest.mark.faulted
async def test_a_reset_under_load_both_ways_ends_both_sides(proxied: Proxied) -> None:
    """A client that resets while both directions are full leaves nothing connected."""
    await proxied.start()
    client, server = await proxied.pair()
    while client.send_now(MANY):
        pass
    while server.send_now(MANY):
        pass
    client.reset()
    _, end = await server.rest()
    assert end == RESET
    await proxied.observed.ended()


async def test_a_client_that_leaves_cancels_the_connect(
    proxied: Proxied, unanswered: Unanswered
) -> None:
    """A reset before the server is connected ends the session at once."""
    await proxied.start(upstreams=[unanswered.name])
    client = proxied.client()
    await proxied.observed.until(lambda: True)
    await client.send(b"hello")
    client.reset()
    await proxied.observed.ended()
    record = proxied.observed.records[0]
    assert (record.reason.how, record.reason.phase) == (Ending.LEFT, Phase.CONNECTING)
    assert record.connect_time is None
    assert record.duration < 4


async def test_a_client_that_closes_without_a_word_cancels_the_connect(
    proxied: Proxied, unanswered: Unanswered
) -> None:
    """A client that ends its stream before it sends a byte has left."""
    await proxied.start(upstreams=[unanswered.name])
    proxied.client().close()
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.LEFT


async def test_bytes_and_the_end_that_come_while_connecting_are_kept(
    proxied: Proxied, unanswered: Unanswered
) -> None:
    """More bytes than evproxy keeps, and the end of the stream, arrive after the connect."""
    await proxied.start(
        upstreams=[unanswered.name, f"127.0.0.1:{proxied.upstream.port}"], connect_timeout=0.5
    )
    client = proxied.client()
    sending = Deferred.fromCoroutine(client.send(MANY))
    server = await proxied.upstream.accept()
    received = await server.receive(len(MANY))
    await sending
    client.end()
    rest, end = await server.rest()
    assert (received + rest, end) == (MANY, END)


@pytest.mark.half_closes
async def test_an_end_that_comes_while_connecting_is_passed_on(
    proxied: Proxied, unanswered: Unanswered
) -> None:
    """A client that sends a request and ends before the server is connected gets its answer."""
    await proxied.start(
        upstreams=[unanswered.name, f"127.0.0.1:{proxied.upstream.port}"], connect_timeout=0.5
    )
    client = proxied.client()
    await client.send(b"question")
    client.end()
    server = await proxied.upstream.accept()
    assert await server.rest() == (b"question", END)
    await server.send(b"answer")
    server.end()
    assert await client.rest() == (b"answer", END)


async def test_distinct_servers_are_tried_and_then_the_client_is_reset(
    proxied: Proxied, refusing: Refusing
) -> None:
    """evproxy tries each unreachable server once, resets the client, and records the reason."""
    dead = [refusing() for _ in range(3)]
    await proxied.start(upstreams=dead, connect_attempts=3)
    client = proxied.client()
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()
    record = proxied.observed.records[0]
    assert record.reason.how is Ending.UNREACHABLE
    assert record.attempts == 3
    assert sorted(name for name, _ in proxied.observed.failures) == sorted(dead)
    assert "refused" in record.error


async def test_the_next_server_is_tried(proxied: Proxied, refusing: Refusing) -> None:
    """If a server refuses, evproxy tries the next one."""
    await proxied.start(upstreams=[refusing(), f"127.0.0.1:{proxied.upstream.port}"])
    client, server = await proxied.pair()
    await client.send(b"x")
    assert await server.receive(1) == b"x"


async def test_many_servers_that_fail_at_once(proxied: Proxied, tmp_path: Path) -> None:
    """However many servers fail before their connect returns, evproxy tries the next one."""
    dead = [f"unix:{tmp_path}/{number}" for number in range(300)]
    upstreams = [*dead, f"127.0.0.1:{proxied.upstream.port}"]
    await proxied.start(upstreams=upstreams, connect_attempts=1000)
    await converse(*await proxied.pair())
    assert [name for name, _ in proxied.observed.failures] == dead
    assert sum(server.sessions for server in proxied.pool.servers) == 1


async def test_an_idle_session_is_reset_on_both_sides(proxied: Proxied) -> None:
    """When no byte moves for the idle timeout, evproxy resets both peers."""
    await proxied.start(timeouts=QUICK)
    client, server = await proxied.pair()
    assert await client.rest() == (b"", RESET)
    assert await server.rest() == (b"", RESET)
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.IDLE


@pytest.mark.half_closes
async def test_a_half_closed_session_does_not_last_without_bytes(proxied: Proxied) -> None:
    """After one end in order, the half-close timeout applies instead of the idle timeout."""
    await proxied.start(timeouts=Timeouts(half_close=0.3))
    client, server = await proxied.pair()
    client.end()
    assert await client.rest() == (b"", RESET)
    assert await server.some() == b""
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.HALF_CLOSE


@pytest.mark.half_closes
@pytest.mark.deadline(10)
async def test_the_half_close_timeout_counts_from_the_end_of_the_stream(
    proxied: Proxied,
) -> None:
    """
    A client that ends its stream late has exactly the half-close timeout left for its answer.

    The session is older than this timeout by then, so its current deadline is the idle deadline.
    """
    await proxied.start(timeouts=Timeouts(half_close=0.3))
    client, server = await proxied.pair()
    await converse(client, server)
    await deferLater(proxied.reactor, 0.5)
    ended = proxied.reactor.seconds()
    client.end()
    assert await client.rest() == (b"", RESET)
    assert proxied.reactor.seconds() - ended >= 0.3


@pytest.mark.faulted
async def test_a_slow_reader_makes_the_other_peer_wait(proxied: Proxied) -> None:
    """While the reader stops, a sender can send only a bounded number of bytes; all arrive."""
    await proxied.start()
    client, server = await proxied.pair()
    await client.send(b"!")
    await server.receive(1)
    sent = 0
    quiet = 0
    while quiet < 20:
        taken = client.send_now(MANY)
        sent += taken
        quiet = 0 if taken else quiet + 1
        await turn(proxied.reactor)
    assert sent < 64 * 1024 * 1024
    client.end()
    received, end = await server.rest()
    assert (len(received), end) == (sent, END)
