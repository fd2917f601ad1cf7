"""Half-closed sockets: their peer reads what was sent last, and none of them stays for long."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from evproxy.engine.deadlines import Deadlines
from evproxy.engine.half_closed import LONGEST, MOST, MOST_BYTES, half_close
from evproxy.engine.loop import SocketEngine
from evproxy.engine.pipes import Pipes
from tests.support.peers import END, RESET, Peer, turn

pytestmark = pytest.mark.deadline(15)


class Bench:
    """An engine whose deadlines have a clock of their own, and the peers of its sockets."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.clock = Clock()
        self.engine = SocketEngine(reactor, Deadlines(self.clock), Pipes(0))
        # Also the time at which deadlines are added.
        self.engine.seconds = self.clock.seconds  # type: ignore[method-assign]
        self.peers: list[Peer] = []

    def connect(self) -> tuple[socket.socket, Peer]:
        """A connected socket, and its peer."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            peer = Peer(self.reactor, socket.create_connection(listening.getsockname()))
            sock, _ = listening.accept()
        sock.setblocking(False)
        self.peers.append(peer)
        return sock, peer

    def close_all(self) -> None:
        """Close what is half-closed, as a service does when it stops."""
        for each in tuple(self.engine.half_closed):
            each.close()

    async def gone(self) -> None:
        """Wait until no socket is half-closed any more, and each is closed."""
        while len(self.engine.half_closed):
            await turn(self.reactor)
        await turn(self.reactor)


@pytest.fixture
def bench(reactor: Any) -> Iterator[Bench]:
    """A bench whose sockets are closed at the end."""
    made = Bench(reactor)
    yield made
    made.close_all()
    for peer in made.peers:
        peer.close()


async def test_the_last_bytes_arrive_although_bytes_of_the_peer_are_unread(bench: Bench) -> None:
    """The peer gets them and the end of the stream, and the socket closes after the peer's end."""
    sock, peer = bench.connect()
    await peer.send(b"unread")
    sock.send(b"why")
    half_close(bench.engine, sock)
    assert await peer.rest() == (b"why", END)
    assert sock.fileno() >= 0
    peer.end()
    await bench.gone()
    assert sock.fileno() == -1


@pytest.mark.parametrize("before", [False, True])
async def test_a_peer_that_resets(bench: Bench, before: bool) -> None:
    """Its socket is closed at once, also if nothing is left to wait for."""
    sock, peer = bench.connect()
    if before:
        peer.reset()
    half_close(bench.engine, sock)
    if not before:
        peer.reset()
    await bench.gone()
    assert sock.fileno() == -1


async def test_a_peer_that_does_not_end_its_stream(bench: Bench) -> None:
    """Its socket is closed when its time is up."""
    sock, peer = bench.connect()
    half_close(bench.engine, sock)
    assert await peer.rest() == (b"", END)
    bench.clock.advance(LONGEST - 0.1)
    await turn(bench.reactor)
    assert sock.fileno() >= 0
    bench.clock.advance(0.3)
    await bench.gone()
    assert sock.fileno() == -1


async def test_a_peer_that_sends_without_end(bench: Bench) -> None:
    """It is reset once it has sent too much."""
    sock, peer = bench.connect()
    half_close(bench.engine, sock)
    with pytest.raises(ConnectionError):
        await peer.send(b"x" * (MOST_BYTES * 50))
    await bench.gone()


async def test_there_are_only_so_many(bench: Bench) -> None:
    """One more is closed at once, and the next one has a place again once another is closed."""
    taken = [bench.connect() for _ in range(MOST)]
    for sock, _ in taken:
        half_close(bench.engine, sock)
    late, its_peer = bench.connect()
    await its_peer.send(b"unread")
    half_close(bench.engine, late)
    assert late.fileno() == -1
    # The stream was ended before the reset.
    assert (await its_peer.rest())[1] in (END, RESET)
    taken[0][1].end()
    while len(bench.engine.half_closed) == MOST:
        await turn(bench.reactor)
    again, _ = bench.connect()
    half_close(bench.engine, again)
    assert again.fileno() >= 0


async def test_all_are_closed_at_the_end(bench: Bench) -> None:
    """The engine watches nothing then, and its clock has no call."""
    taken = [bench.connect()[0] for _ in range(3)]
    for sock in taken:
        half_close(bench.engine, sock)
    bench.close_all()
    await bench.gone()
    assert [sock.fileno() for sock in taken] == [-1] * 3
    assert bench.engine.fileno() == -1
    assert not bench.clock.getDelayedCalls()
