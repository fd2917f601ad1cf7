"""What happens within one batch of the engine's, and between two of them."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import stat
import termios
from collections.abc import Callable

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from evproxy.engine.loop import LEAD, TURN
from evproxy.model import Ending, Phase
from evproxy.relay.end import SPLICE_CHUNK
from tests.support.batches import HUNG_UP, IN, Batches, ready, wait_ready
from tests.support.bulk import ENDLESS
from tests.support.peers import Listening, Peer, converse
from tests.support.proxies import Proxied

pytestmark = [pytest.mark.deadline(20), pytest.mark.every_reactor]
on_engine = pytest.mark.parametrize("proxied", ["socket", "lingering"], indirect=True)

BULK_SESSIONS = 4


@on_engine
async def test_a_number_does_not_come_back_within_a_batch(
    proxied: Proxied, batches: Batches, no_holes: Callable[[int], None]
) -> None:
    """
    A session ends, a client is accepted and a server connected, and there is an event for the
    ended one: all in one batch.  The numbers of the ended one are given again, but after it.
    """
    upstream = proxied.closes(Listening.tcp(proxied.reactor, backlog=0))
    await proxied.start(upstreams=[f"127.0.0.1:{upstream.port}"], connect_timeout=15.0)
    client = proxied.client()
    server = await upstream.accept()
    await converse(client, server)
    (_, port), (_, down), (_, up) = batches.registered
    # From now on a connect gets no answer, so that nothing but a mistake can tell it of one.
    for _ in range(8):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", upstream.port))
        proxied.closes(Peer(proxied.reactor, sock))
    last = proxied.closes(Peer(proxied.reactor, socket.socket()))
    no_holes(max(down, up))
    batches.order = [down, port, up]
    number, known = len(batches.seen), len(batches.registered)

    client.reset()
    wait_ready(down, HUNG_UP)
    newcomer = proxied.client()
    wait_ready(port, IN)
    server.send_now(b"late")
    wait_ready(up, IN)
    await proxied.observed.ended()
    # It is told while the sockets are being closed.
    await deferLater(proxied.reactor, 0)
    assert batches.seen[number] == [down, port, up]
    # One that was accepted, and one that connects.
    (in_batch, one), (and_too, other) = batches.registered[known:]
    assert in_batch == and_too == number + 1
    assert not {down, up} & {one, other}
    [ended] = proxied.observed.records
    assert (ended.reason.how, ended.bytes_to_downstream) == (Ending.RESET, 1)

    # After the batch the numbers are free, and the next session gets them.
    last.socket.connect_ex(proxied.address)
    while len(batches.registered) < known + 4:
        await deferLater(proxied.reactor, 0)
    assert {descriptor for _, descriptor in batches.registered[known + 2 :]} == {down, up}
    newcomer.reset()
    last.reset()
    await proxied.observed.ended(3)
    for record in proxied.observed.records[1:]:
        assert (record.reason.how, record.reason.phase) == (Ending.LEFT, Phase.CONNECTING)


class Bulk:
    """Some sessions whose servers send without end, spliced, and a small one beside them."""

    def __init__(self, proxied: Proxied) -> None:
        self.proxied = proxied
        self.pairs: list[tuple[Peer, Peer]] = []
        self.small: tuple[Peer, Peer]

    async def start(self) -> None:
        """Each of them is spliced, nobody reads, and the small one relays."""
        await self.proxied.start()
        self.pairs = [await self.proxied.pair() for _ in range(BULK_SESSIONS)]
        self.small = await self.proxied.pair()
        await converse(*self.small)
        quiet = 0
        while quiet < 20:
            quiet = 0 if self.send() else quiet + 1
            await deferLater(self.proxied.reactor, 0.001)
        assert self.proxied.plane.pipes.in_use == BULK_SESSIONS

    def send(self) -> int:
        """Each server sends what its kernel takes."""
        return sum(server.send_now(ENDLESS) for _, server in self.pairs)

    def read(self) -> None:
        """Each client reads what has come."""
        for client, _ in self.pairs:
            try:
                while client.socket.recv(SPLICE_CHUNK):
                    pass
            except BlockingIOError:
                continue

    def end(self) -> None:
        """All of them are over."""
        for pair in self.pairs:
            for peer in pair:
                peer.reset()


class Splices:
    """
    Counts what is spliced out of sockets.

    `most`: how often out of the same one in one batch.  `waited`: how often while `awaited`, a
    socket, had nothing to read.  `left`: the most bytes that could have been spliced on.
    """

    def __init__(self, batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
        self.awaited: socket.socket | None = None
        self.waited = self.left = 0
        self._batches = batches
        self._counted: dict[tuple[int, int], int] = {}
        self._splice: Callable[..., int] = os.splice
        monkeypatch.setattr(os, "splice", self.splice)

    def splice(self, source: int, sink: int, most: int, flags: int) -> int:
        moved = self._splice(source, sink, most, flags=flags)
        if stat.S_ISSOCK(os.fstat(source).st_mode):
            key = len(self._batches.seen), source
            self._counted[key] = self._counted.get(key, 0) + 1
            if self.awaited is not None and not ready(self.awaited.fileno(), IN):
                self.waited += 1
                self.left = max(self.left, queued(source))
        return moved

    @property
    def most(self) -> int:
        return max(self._counted.values())


def queued(descriptor: int) -> int:
    """How many bytes have come on the socket that are not read (FIONREAD)."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


@on_engine
async def test_a_question_waits_for_one_splice_of_each_bulk_session(
    proxied: Proxied, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A question that is ready when its batch begins is passed on after at most one splice of each
    bulk session, though each has much more that could be spliced, and a sink that takes it.
    """
    bulk = Bulk(proxied)
    await bulk.start()
    client, server = bulk.small
    # Registered are the port, and then client and server of each session.
    down = batches.registered[-2][1]
    batches.order = [down]
    splices = Splices(batches, monkeypatch)
    for _ in range(10):
        bulk.read()
        bulk.send()
        client.send_now(b"?")
        wait_ready(down, IN)
        number = len(batches.seen)
        splices.awaited, splices.waited = server.socket, 0
        assert await server.receive(1) == b"?"
        splices.awaited = None
        assert down in batches.seen[number]
        assert splices.waited <= BULK_SESSIONS
    bulk.end()
    assert splices.most == 1
    assert splices.left > SPLICE_CHUNK


@on_engine
async def test_the_reactor_has_its_turn_while_bulk_is_moved(
    proxied: Proxied, batches: Batches
) -> None:
    """However long there is more for the next batch at once, calls of others have their turn."""
    bulk = Bulk(proxied)
    await bulk.start()
    reactor = proxied.reactor
    begun, wanted = len(batches.seen), 300
    turns = 0
    over: Deferred[None] = Deferred()

    def go_on() -> None:
        if len(batches.seen) - begun < wanted:
            bulk.read()
            bulk.send()

    def turn() -> None:
        nonlocal turns
        turns += 1
        if len(batches.seen) - begun < wanted:
            go_on()
            reactor.callFromThread(reactor.callLater, 0, turn)
        else:
            over.callback(None)

    batches.before = go_on
    turn()
    await over
    batches.before = lambda: None
    bulk.end()
    assert turns > 10, turns


@on_engine
async def test_only_an_engine_that_lingers_waits_for_the_next_batch(
    proxied: Proxied, batches: Batches
) -> None:
    """Where evproxy is one of many in its process, it never waits; elsewhere a moment at most."""
    await proxied.start()
    await converse(*await proxied.pair())
    longest = max(batches.waits)
    if proxied.kind == "socket":
        assert longest == 0
    elif type(proxied.reactor).__name__ == "EPollReactor":
        assert TURN < longest <= LEAD
    else:
        assert longest == TURN
